"""The whole book as one PDF, tagged and with an outline, printed by chromium from a single page."""

import re
import shutil

from tools import browser, polish, site

MARGINS = {"top": "16mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}
FOOTER = '<div style="font-size: 8px; width: 100%; text-align: center"><span class="pageNumber"></span></div>'


def make(project, name="published"):
    """Print what was last staged for `name`.

    Returns
    -------
    Path
        ``_build/<name>/book.pdf``
    """
    executable = browser.find()
    if executable is None:
        raise site.NotRendered(
            f"a PDF needs one of {', '.join(browser.NAMES)} (Debian: apt install chromium)"
        )
    build = project.build(name)
    work, target = build / "pdf", build / "book.pdf"
    shutil.rmtree(work, ignore_errors=True)
    site.build(build / "source", work, project.root, "singlehtml")
    page = single_page(work / "_build" / "singlehtml")
    print_page(executable, page, target)
    shutil.rmtree(work)
    return target


def single_page(folder):
    """The one page, moved to where its images are looked for, with links to itself that stay in it."""
    written = folder / "book" / "intro.html"
    text = re.sub(r'href="(?:book/)?intro\.html#', 'href="#', written.read_text(encoding="utf-8"))
    page = folder / "book.html"
    page.write_text(polish.polished(text), encoding="utf-8")
    return page


def print_page(executable, page, target):
    """One page of HTML to PDF."""
    with browser.started(executable) as chromium:
        window = chromium.new_page(offline=True, color_scheme="light")
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
