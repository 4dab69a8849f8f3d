"""Every page in a real browser, from disk and without a network, at the width of a phone and of a desk."""

import base64
import re
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe

from tools.browser import settle, started, windows

WIDTHS = {"small phone": 320, "phone": 400, "tablet": 768, "desk": 1440}
# Letters and formulas about a quarter wider than in DejaVu Sans, itself among the widest fonts.
WIDE_FONT = "* { letter-spacing: 0.08em !important } html { font-size-adjust: 0.65 }"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
COLOURS = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}  # all that a theme can change
RAW_TEX = re.compile(r"\\[A-Za-z]{2,}|\\\(|\$\$|\{\}\^")
# A figure that nobody described has the name of its file for a description.
SHORTEST_DESCRIPTION = 20
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Visit(NamedTuple):
    """What a browser noticed on one page."""

    remote: list  # requests that left the machine
    errors: list  # what the console and the scripts complain of
    unrendered: list  # formulas that MathJax did not draw, and TeX in the text
    undescribed: list  # figures without words
    unnumbered: list  # figures without a caption and its number
    too_wide: list  # parts that are wider than their place, in any window and in a wide font
    inaccessible: list  # WCAG violations, light and dark


@pytest.fixture(scope="module")
def context(browser):
    """Windows as wide as a desk, without a network."""
    return at_a_desk(browser)


@pytest.fixture(scope="module")
def visits(published, chromium):
    """A visit to each page; the site is read once for all tests, by two browsers that share the pages."""
    # index.html only leads on to the first page
    paths = [*sorted(published.glob("book/*.html")), published / "genindex.html", published / "search.html"]
    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(visit_all, [chromium] * 2, [paths[::2], paths[1::2]])
        return {str(path.relative_to(published)): seen for half in halves for path, seen in half}


def visit_all(chromium, paths):
    """Pages and what was seen there."""
    with started(chromium) as browser:
        context = at_a_desk(browser)
        return [(path, visit(context, path.as_uri())) for path in paths]


def at_a_desk(browser):
    """A context of wide windows."""
    return windows(browser, viewport={"width": WIDTHS["desk"], "height": 900})


def visit(context, address):
    """Open one page and write down what is wrong with it."""
    page, remote, errors = context.new_page(), [], []
    page.on("request", lambda r: remote.append(r.url) if r.url.startswith(("http", "ws")) else None)
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    settle(page, address)
    page.add_style_tag(content="* { transition: none !important }")  # colours on their way are no colours
    inaccessible = [*violations(page, "light", RULES), *violations(page, "dark", COLOURS)]
    page.set_viewport_size({"width": WIDTHS["phone"], "height": 900})
    formulas = unrendered(page)
    figures = undescribed(page), unnumbered(page)
    wide = too_wide(page)
    page.close()
    return Visit(remote, errors, formulas, *figures, wide, inaccessible)


def too_wide(page):
    """What is wider than its place, in windows of all widths: as it is, and in a wide font."""
    found = []
    for font, style in (("its font", "* {}"), ("a wide font", WIDE_FONT)):
        page.add_style_tag(content=style)
        for window, width in WIDTHS.items():
            page.set_viewport_size({"width": width, "height": 900})
            found += [f"{window}, {font}: {what}" for what in page.evaluate(TOO_WIDE)]
    return found


# Code and tables may be pushed sideways everywhere, displayed formulas on a phone. The charts of the explorer
# follow a new width only a moment later.
TOO_WIDE = """() => {
    const root = document.documentElement, phone = root.clientWidth <= 600, found = [];
    function look(element, by, slack = 1) { // letters may reach a little over their line
        const name = [element.tagName.toLowerCase(), element.id || element.className].join(" ").trim();
        if (by > slack) found.push(`${name} by ${Math.round(by)} pixels`);
    }
    look(root, root.scrollWidth - root.clientWidth, 0);
    for (const e of document.querySelectorAll("main, main *, .bd-header-announcement")) {
        const apart = e.closest("pre, .pst-scrollable-table-container, .math, svg, .js-plotly-plot");
        if (!apart && e.clientWidth && e.checkVisibility()) look(e, e.scrollWidth - e.clientWidth);
    }
    for (const svg of document.querySelectorAll(".math svg")) {
        const place = svg.closest(".math"), right = (e) => e.getBoundingClientRect().right;
        if (phone && place.matches("div")) continue;
        look(place, right(svg) - Math.min(right(place), right(svg.parentElement))); // beside its number
    }
    return found;
}"""


def unrendered(page):
    """Formulas that were not drawn, and words of the text that look like TeX."""
    formulas = page.evaluate(
        """() => [...document.querySelectorAll('.math')]
            .filter(e => !e.querySelector('mjx-container') || e.querySelector('mjx-merror, [data-mjx-error]'))
            .map(e => e.textContent)"""
    )
    text = page.evaluate(
        """() => {
            const copy = document.querySelector('main').cloneNode(true);
            copy.querySelectorAll('pre, code, script, mjx-container').forEach(e => e.remove());
            return copy.textContent;
        }"""
    )
    return formulas + RAW_TEX.findall(text)


def undescribed(page):
    """Sources of the images in the text whose alternative text says too little."""
    images = page.evaluate(
        "() => [...document.querySelectorAll('main article img')].map(e => [e.alt, e.getAttribute('src')])"
    )
    return [source for alt, source in images if len(alt) < SHORTEST_DESCRIPTION or alt.endswith(".png")]


def unnumbered(page):
    """Sources of the images in the text without a numbered caption."""
    return page.evaluate(
        """() => [...document.querySelectorAll('main article img')]
            .filter(e => !e.closest('figure')?.querySelector('.caption-number'))
            .map(e => e.getAttribute('src'))"""
    )


def violations(page, theme, rules):
    """What axe finds under one theme: rule, and the first element that breaks it."""
    page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    options = {
        "runOnly": rules,
        "resultTypes": ["violations"],
        "preload": False,
    }  # it would fetch style sheets
    found = Axe().run(page, options=options).response["violations"]
    return [f"{theme}: {v['id']} ({len(v['nodes'])}): {v['nodes'][0]['html'][:200]}" for v in found]


BAD = """<html lang="en"><title>Bad</title><main><article><h1>Bad</h1>
<p style="color: #ccc">pale</p><p>the \\alpha of all</p><span class="math">x</span>
<div style="width: 500px">wide</div>
<div id="cut" style="width: 20px; overflow: hidden">aVeryWideWord</div>
<div class="math" id="f" style="width: 50px; overflow: hidden"><mjx-container/><svg width="700"></svg></div>
<img alt="x.png" src="x.png"></article></main>
<script>console.error("complaint")</script><script src="https://example.org/remote.js"></script></html>"""


def test_a_visit_notices_each_fault(tmp_path, context):
    (tmp_path / "bad.html").write_text(BAD)
    (tmp_path / "x.png").write_bytes(base64.b64decode(DOT))
    seen = visit(context, (tmp_path / "bad.html").as_uri())
    assert seen.remote == ["https://example.org/remote.js"]
    assert "complaint" in seen.errors
    assert seen.unrendered == ["x", "\\alpha"]
    assert seen.undescribed == ["x.png"]
    assert seen.unnumbered == ["x.png"]
    assert "phone, its font: html by 108 pixels" in seen.too_wide
    assert "tablet, a wide font: div f by 650 pixels" in seen.too_wide
    assert any(found.startswith("tablet, its font: div cut by") for found in seen.too_wide)
    assert [v.split(" (")[0] for v in seen.inaccessible] == ["light: color-contrast", "dark: color-contrast"]


@pytest.mark.parametrize("field", Visit._fields)
def test_no_page_is_faulty(visits, field):
    assert len(visits) > 10
    assert {name: getattr(seen, field) for name, seen in visits.items() if getattr(seen, field)} == {}


def test_search_works_from_disk(published, browser):
    page = windows(browser).new_page()
    page.goto((published / "search.html").as_uri() + "?q=Bhattacharyya")
    page.locator("#search-results li a").first.wait_for()
    assert "03_bsds_8x8" in " ".join(
        a.get_attribute("href") for a in page.locator("#search-results li a").all()
    )


def test_the_first_page_is_light(published, browser):
    page, sizes = windows(browser).new_page(), []
    page.on("requestfinished", lambda r: sizes.append(r.sizes()["responseBodySize"]))
    settle(page, (published / "book" / "intro.html").as_uri())
    assert sum(sizes) < 1.5e6


def test_a_click_enlarges_a_figure_and_escape_puts_it_back(published, context):
    page = context.new_page()
    settle(page, (published / "book" / "02_bsds_16x16.html").as_uri())
    figure = page.locator("#fig-trace button.enlarge")
    before = figure.locator("img").bounding_box()["width"]
    figure.click()
    assert page.locator("dialog[open] img").bounding_box()["width"] > 1.3 * before
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    figure.press("Enter")
    page.locator("dialog[open] button").click()
    assert page.locator("dialog[open]").count() == 0
