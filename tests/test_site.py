"""A small book rendered: what each page offers and says of itself, with and without a public address."""

import json
import re

import nbformat
import pytest
import yaml

from tools import colophon, notebooks, polish, provenance, site
from tools.project import REPOSITORY, Project

SOURCE = """---
jupytext:
  text_representation: {extension: .md, format_name: myst, format_version: 0.13}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# A chapter

```{code-cell} ipython3
:tags: [parameters]

scale = "paper"
seed = 3
```

```{code-cell} ipython3
print(seed)
```
"""
ADDRESS = "https://github.com/somebody/some-book"
OCCASION = {"date": "2026-01-02", "commit": "0123456789ab", "seconds": 75, "cores": 2}


def make_book(root, address, stem="one"):
    """A project of two pages and its published run."""
    project = Project(root)
    for folder in (project.book, project.library):
        folder.mkdir(parents=True)
    project.lock.write_text("numpy==2\n")
    (project.library / "model.py").write_text("x = 1\n")
    source = project.book / f"{stem}.md"
    source.write_text(SOURCE)
    (project.book / "intro.md").write_text("# A book\n\nText.\n")
    (project.book / "references.bib").write_text("")
    for path in (REPOSITORY / "book" / "_static").iterdir():
        (project.book / "_static").mkdir(exist_ok=True)
        (project.book / "_static" / path.name).write_bytes(path.read_bytes())
    config = yaml.safe_load((REPOSITORY / "_config.yml").read_text())
    config["repository"]["url"] = address
    (root / "_config.yml").write_text(yaml.safe_dump(config))
    (root / "_toc.yml").write_text(
        f"format: jb-book\nroot: book/intro\nchapters:\n- file: book/{stem}.ipynb\n- file: genindex\n"
    )
    notebooks.write(run_of(project, source), project.references("paper") / f"{stem}.ipynb")
    return project


def run_of(project, source):
    """The chapter as though it had run."""
    nb = notebooks.convert(source)
    for number, cell in enumerate(notebooks.code_cells(nb), 1):
        cell.execution_count = number
    notebooks.code_cells(nb)[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="3\n")]
    return provenance.record(nb, provenance.key(project, source, "sample"), OCCASION)


@pytest.fixture(scope="module", params=["", ADDRESS], ids=["private", "public"])
def rendered(request, tmp_path_factory):
    """Address, project and folder of the pages."""
    project = make_book(tmp_path_factory.mktemp("book"), request.param)
    return request.param, project, site.render(project, project.book, "published", "paper").parent


def page_and_text(html, name):
    """A page as it is written, and without its tags."""
    page = (html / "book" / f"{name}.html").read_text()
    return page, re.sub(r"<[^>]*>", "", page)


def test_a_chapter_comes_as_notebook_source_and_script(rendered):
    _, project, html = rendered
    page = (html / "book" / "one.html").read_text()
    for suffix in (".ipynb", ".md", ".py"):
        assert f'href="../_sources/book/one{suffix}"' in page
    offered = html / "_sources" / "book"
    assert (offered / "one.md").read_text() == SOURCE
    assert (offered / "one.ipynb").read_bytes() == (project.book / "one.ipynb").read_bytes()
    seen = []
    exec((offered / "one.py").read_text(), {"print": seen.append})
    assert seen == [3]


def test_buttons_that_need_an_address_lead_to_the_right_file_or_are_not_there(rendered):
    address, _, html = rendered
    page, text = page_and_text(html, "one")
    wanted = {
        f"{ADDRESS}/edit/main/book/one.md",
        f"{ADDRESS}/issues/new?title=Issue%20on%20page%20%2Fbook/one.html",
        "https://mybinder.org/v2/gh/somebody/some-book/main?urlpath=lab/tree/book/one.ipynb",
        "https://colab.research.google.com/github/somebody/some-book/blob/main/book/one.ipynb",
    }
    assert {link for link in wanted if link in page} == (wanted if address else set())
    assert (f"%pip install git+{ADDRESS}" in text) == bool(address)
    assert ("mybinder" in page or "colab" in page.lower()) == bool(address)


def test_a_chapter_says_how_its_results_were_made(rendered):
    _, project, html = rendered
    _, text = page_and_text(html, "one")
    record = notebooks.read(project.book / "one.ipynb").metadata.provenance
    said = ["seed = 3", "2026-01-02, from commit 0123456789ab", "75 s", f"numpy {record.versions.numpy}"]
    said += [record.data.mnist[:12], record.lock[:12], record.library[:12], record.outputs[:12]]
    assert [fact for fact in said if fact not in text] == []


def test_every_page_names_its_commit(rendered):
    _, _, html = rendered
    for name in ("book/one", "book/intro", "genindex"):
        assert "Made from commit unknown" in (html / f"{name}.html").read_text()


def test_equal_pages_are_not_rendered_again(rendered, monkeypatch, capsys):
    _, project, html = rendered
    monkeypatch.setattr(site, "build", None)
    assert site.render(project, project.book, "published", "paper").parent == html
    assert "up to date" in capsys.readouterr().out


def test_what_a_run_was_is_no_part_of_what_is_compared(rendered):
    _, project, _ = rendered
    nb = notebooks.read(project.book / "one.ipynb")
    wanted = provenance.key(project, project.book / "one.md", "sample")
    assert provenance.changes(nb, wanted) == []
    nb.metadata.provenance.occasion.seconds = 1000
    assert provenance.changes(nb, wanted) == []


def with_draft(root):
    """A book whose second chapter is a draft, in a part of its own, and the folder of its runs."""
    project = make_book(root, "")
    (project.book / "two.md").write_text(SOURCE.replace("kernelspec:", "draft: true\nkernelspec:"))
    contents = {"format": "jb-book", "root": "book/intro", "parts": []}
    for stem in ("one", "two"):
        contents["parts"].append({"caption": stem, "chapters": [{"file": f"book/{stem}.ipynb"}]})
    contents["parts"][0]["chapters"].append({"file": "genindex"})
    (root / "_toc.yml").write_text(yaml.safe_dump(contents))
    for stem in ("one", "two"):
        nb = run_of(project, project.book / f"{stem}.md")
        notebooks.write(nb, project.runs("sample") / f"{stem}.ipynb")
    return project


def test_a_draft_is_rendered_with_a_note(tmp_path):
    project = with_draft(tmp_path)
    html = site.render(project, project.runs("sample"), "sample", "sample").parent
    assert "This chapter is not finished" in page_and_text(html, "two")[1]
    assert "This chapter is not finished" not in page_and_text(html, "one")[1]


def test_published_pages_do_without_a_draft_that_has_no_reference(tmp_path, capsys):
    project = with_draft(tmp_path)
    html = site.render(project, project.book, "published", "paper").parent
    assert "drafts left out of these pages: two\n" in capsys.readouterr().out
    assert [path.stem for path in sorted((html / "book").glob("*.html"))] == ["intro", "one"]


def test_an_occasion_can_be_stored(tmp_path):
    found = colophon.occasion(tmp_path, 12.6)
    assert json.loads(json.dumps(found)) == found
    assert (found["seconds"], found["commit"]) == (13, "unknown")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('<script src="../_static/vendor/fontawesome/6/js/all.min.js?x"></script>\n', ""),
        ('<link rel="preload" as="font" crossorigin href="a.woff2" />\n', ""),
        ('<script defer="defer" src="_static/mathjax/tex-svg.js"></script>\n<p>x</p>', "<p>x</p>"),
        (
            '<script src="mathjax.js"></script>\n<div class="math notranslate">',
            '<script src="mathjax.js"></script>\n<div class="math notranslate">',
        ),
        ('<script>const THEBE_JS_URL = "https://example.org"</script>\n', ""),
        ('<script src="_static/doctools.js"></script>\n', '<script src="_static/doctools.js"></script>\n'),
    ],
)
def test_a_page_loses_what_it_does_not_use(before, after):
    assert polish.polished(before) == after
