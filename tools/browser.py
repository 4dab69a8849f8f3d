"""The chromium of the system; none is downloaded."""

import shutil
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find():
    """Where it is, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def started(executable):
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def settle(page, address):
    """Open a page and wait until its formulas are drawn."""
    page.goto(address)
    page.evaluate("window.MathJax?.startup?.promise")
