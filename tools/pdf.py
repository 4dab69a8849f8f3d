"""The whole book as one PDF, tagged and with an outline, printed by chromium from a single page."""

import re

from tools import browser, polish, site

MARGINS = {"top": "16mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}
FOOTER = '<div style="font-size: 8px; width: 100%; text-align: center"><span class="pageNumber"></span></div>'


def make(project, name="published"):
    """Print what was last staged for `name`.

    Returns
    -------
    Path
        ``_build/<name>/book.pdf``; what stood there before stays until the new one is whole.

    Raises
    ------
    tools.site.NotRendered
        If there is no chromium, or it does not print.
    """
    executable = browser.find()
    if executable is None:
        raise site.NotRendered(
            f"a PDF needs one of {', '.join(browser.NAMES)} (Debian: apt install chromium)"
        )
    build = project.build(name)
    with site.workroom(build) as work:
        site.build(build / "source", work, project.root, "singlehtml")
        page = single_page(work / "_build" / "singlehtml")
        print_page(executable, page, work / "book.pdf")
        return (work / "book.pdf").replace(build / "book.pdf")


def single_page(folder):
    """The one page, moved to where its images are looked for, with links to itself that stay in it."""
    written = folder / "book" / "intro.html"
    text = re.sub(r'href="(?:book/)?intro\.html#', 'href="#', written.read_text(encoding="utf-8"))
    page = folder / "book.html"
    page.write_text(polish.polished(text), encoding="utf-8")
    return page


def print_page(executable, page, target):
    """One page of HTML to PDF."""
    from playwright.sync_api import Error

    try:
        with browser.started(executable) as chromium:
            window = browser.windows(chromium, color_scheme="light").new_page()
            browser.settle(window, page.as_uri())
            window.pdf(
                path=target,
                format="A4",
                margin=MARGINS,
                print_background=True,
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=FOOTER,
                tagged=True,
                outline=True,
            )
    except Error as error:
        raise site.NotRendered(complaint(executable, error)) from error


def complaint(executable, error):
    """One line on why chromium did not print."""
    from playwright.sync_api import TimeoutError

    if isinstance(error, TimeoutError):
        return (
            f"{executable} took more than {browser.PATIENCE} s for one step; "
            "is the machine busy? make pdf tries again"
        )
    return f"{executable} did not print the pages: {error.message.strip().splitlines()[0]}"
