"""Files of the site: whatever one of them names is there, and nothing is remote or large."""

from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from tools import offline

NAMES = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src", "iframe": "src"}


class Names(HTMLParser):
    """What a page defines as anchors, and what it refers to."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.references = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if target := attributes.get(NAMES.get(tag)):
            self.references.append(target)


def faults(root):
    """Each reference of a page that leads to no file or no anchor, with the page."""
    paths = [path for path in sorted(root.rglob("*.html")) if "_static" not in path.parts]  # templates
    pages = {path: Names(path.read_text(encoding="utf-8")) for path in paths}
    for page, names in pages.items():
        for reference in names.references:
            parts = urlsplit(reference)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchor = unquote(parts.fragment)
            if not target.is_file():
                yield f"{page.relative_to(root)}: no file {reference}"
            elif anchor and target in pages and anchor not in pages[target].anchors:
                yield f"{page.relative_to(root)}: no anchor {reference}"


@pytest.fixture
def two_pages(tmp_path):
    (tmp_path / "b.html").write_text('<h1 id="here">b</h1><a href="a.html">a</a>')
    return tmp_path


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ('<a href="b.html#here">', None),
        ('<a href="https://example.org/x#y">', None),
        ('<a href="c.html">', "a.html: no file c.html"),
        ('<a href="b.html#there">', "a.html: no anchor b.html#there"),
        ('<a href="#mine">', "a.html: no anchor #mine"),
        ('<img src="x.png">', "a.html: no file x.png"),
    ],
)
def test_a_broken_reference_is_found(two_pages, reference, fault):
    (two_pages / "a.html").write_text(reference)
    assert list(faults(two_pages)) == ([fault] if fault else [])


def test_every_link_anchor_and_image_resolves(published):
    assert len(list(published.rglob("*.html"))) > 10
    assert list(faults(published)) == []


def test_no_page_loads_anything_remote(published):
    assert offline.remote_addresses(published) == []


def test_the_site_stays_small(published):
    total = sum(path.stat().st_size for path in published.rglob("*") if path.is_file())
    assert total < 40e6, f"the site holds {total / 1e6:.1f} MB; draw fewer or smaller figures"
