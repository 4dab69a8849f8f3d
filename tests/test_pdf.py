"""What is printed: one page, links that stay in it, tags and an outline."""

import pypdf
import pytest

from tests import test_site
from tools import book, browser, pdf, site

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


@pytest.mark.skipif(browser.find() is None, reason="no chromium on this machine: no PDF is printed")
def test_a_browser_that_takes_too_long_is_told_in_a_line(folder, monkeypatch):
    monkeypatch.setattr(browser, "PATIENCE", 0.001)
    with pytest.raises(site.NotRendered) as caught:
        pdf.print_page(browser.find(), pdf.single_page(folder), folder / "book.pdf")
    assert str(caught.value) == (
        f"{browser.find()} took more than 0.001 s for one step; is the machine busy? make pdf tries again"
    )


def test_a_browser_that_does_not_start_leaves_the_old_pdf(tmp_path, monkeypatch, capsys):
    project = test_site.make_book(tmp_path, "")

    def build(source, work, root, builder="html"):
        page = work / "_build" / builder / "book" / "intro.html"
        page.parent.mkdir(parents=True)
        page.write_text(PAGE)

    monkeypatch.setattr(site, "build", build)
    monkeypatch.setattr(browser, "find", lambda: "/bin/false")
    old = project.build("published") / "book.pdf"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    assert book.main(["--root", str(tmp_path), "pdf"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("not rendered: /bin/false did not print the pages: ")
    assert old.read_text() == "old"
    assert not list(old.parent.glob("work-*"))


def test_every_window_waits_as_long_as_a_busy_machine_takes():
    waits = []

    class Context:
        def set_default_timeout(self, milliseconds):
            waits.append(milliseconds)

    class Browser:
        def new_context(self, **options):
            assert options["offline"]
            return Context()

    browser.windows(Browser())
    assert min(waits) >= 600_000
