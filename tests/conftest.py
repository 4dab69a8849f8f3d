"""The published pages, and a browser to look at them."""

import shutil

import pytest

from tools import site
from tools.project import Project

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def published():
    """Folder of the pages that `make html` makes, rendered if they are not up to date."""
    project = Project()
    return site.render(project, project.references("paper"), "published", "paper").parent


@pytest.fixture(scope="module")
def browser():
    """The chromium of the system; it is closed after each module, for its event loop disturbs kernels."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no chromium on this machine: what the pages do in a browser is not checked")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()
