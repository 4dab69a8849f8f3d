"""The published pages, and a browser to look at them."""

import pytest

from tools import book
from tools import browser as browsers
from tools.project import Project


@pytest.fixture(scope="session")
def published():
    """Folder of the pages that `make html` makes, rendered if they are not up to date."""
    # One of the processes renders, the others wait and find the pages up to date.
    with book.published(Project()) as page:
        return page.parent


@pytest.fixture(scope="session")
def chromium():
    """Where the browser of the system is."""
    executable = browsers.find()
    if executable is None:
        pytest.skip("no chromium on this machine: what the pages do in a browser is not checked")
    return executable


@pytest.fixture(scope="module")
def browser(chromium):
    """A browser; it is closed after each module, for its event loop disturbs kernels."""
    with browsers.started(chromium) as started:
        yield started
