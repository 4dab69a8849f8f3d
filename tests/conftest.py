"""The published pages, and a browser to look at them."""

import pytest

from tools import browser as browsers
from tools import site
from tools.project import Project


def pytest_itemcollected(item):
    """Keep a file, and all that looks at the pages, in one process: the pages are rendered once."""
    group = "pages" if "published" in getattr(item, "fixturenames", ()) else item.path.name
    item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def published():
    """Folder of the pages that `make html` makes, rendered if they are not up to date."""
    project = Project()
    return site.render(project, project.references("paper"), "published", "paper").parent


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
