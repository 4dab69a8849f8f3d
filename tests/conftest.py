"""The published pages, and a browser to look at them."""

import fcntl

import pytest

from tools import browser as browsers
from tools import site
from tools.project import Project


@pytest.fixture(scope="session")
def published():
    """Folder of the pages that `make html` makes, rendered if they are not up to date."""
    project = Project()
    project.build("published").mkdir(parents=True, exist_ok=True)
    with open(project.build("published") / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one of the processes renders, the others find the pages up to date
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
