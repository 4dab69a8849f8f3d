"""The published pages, and a browser to look at them."""

import pytest

from tools import browser as chromium
from tools import site
from tools.project import Project


@pytest.fixture(scope="session")
def published():
    """Folder of the pages that `make html` makes, rendered if they are not up to date."""
    project = Project()
    return site.render(project, project.references("paper"), "published", "paper").parent


@pytest.fixture(scope="module")
def browser():
    """The chromium of the system; it is closed after each module, for its event loop disturbs kernels."""
    executable = chromium.find()
    if executable is None:
        pytest.skip("no chromium on this machine: what the pages do in a browser is not checked")
    with chromium.started(executable) as started:
        yield started
