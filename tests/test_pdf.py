"""What is printed: one page, links that stay in it, tags and an outline."""

import pypdf
import pytest

from tools import browser, pdf

PAGE = """<html lang="en"><head><title>A book</title></head><body>
<h1 id="one">One</h1><p><a href="book/intro.html#two">to two</a> <a href="book/own.html#x">away</a></p>
<h2 id="two">Two</h2><img alt="A dot." src="_images/dot.png"></body></html>"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "intro.html").write_text(PAGE)
    return tmp_path


def test_links_within_the_book_stay_in_its_one_page(folder):
    page = pdf.single_page(folder)
    assert page.parent == folder  # where the addresses of its images start
    assert 'href="#two"' in page.read_text()
    assert 'href="book/own.html#x"' in page.read_text()


@pytest.mark.skipif(browser.find() is None, reason="no chromium on this machine: no PDF is printed")
def test_a_pdf_has_tags_an_outline_and_links(folder):
    target = folder / "book.pdf"
    pdf.print_page(browser.find(), pdf.single_page(folder), target)
    read = pypdf.PdfReader(target)
    root = read.trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"]
    assert root["/Lang"] == "en"
    one, (two,) = read.outline
    assert (one.title, two.title) == ("One", "Two")
    assert "to two" in read.pages[0].extract_text()
    assert len(read.pages[0]["/Annots"]) == 2
