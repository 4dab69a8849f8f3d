"""The chromium of the system; none is downloaded."""

import shutil
from contextlib import contextmanager

from tools.project import PATIENCE

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find():
    """Where it is, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def started(executable):
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox"], timeout=1000 * PATIENCE
        )
        try:
            yield browser
        finally:
            browser.close()


def windows(browser, **options):
    """Where windows are opened that ask no network, and wait as long as a busy machine takes."""
    context = browser.new_context(offline=True, **options)
    context.set_default_timeout(1000 * PATIENCE)
    return context


def settle(page, address):
    """Open a page and wait until its formulas are drawn."""
    page.goto(address)
    page.evaluate("window.MathJax?.startup?.promise")
