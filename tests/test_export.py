"""The published numbers and figures as files: of each number its value and its text, of all their run."""

import base64
import csv
import json

import nbformat
import pytest

from tests.test_site import make_book
from tools import book, export, notebooks

PNG = base64.b64encode(b"the pixels").decode()


def glued(name, text, **figure):
    data = {"text/plain": text, **figure}
    data = {export.GLUED + mime: content for mime, content in data.items()}
    return nbformat.v4.new_output("display_data", data=data, metadata={"scrapbook": {"name": name}})


def displayed(data):
    return nbformat.v4.new_output("display_data", data={"text/plain": "<Figure>", **data})


@pytest.fixture
def project(tmp_path):
    """A book of one chapter with two figures, one of them in its vector form too, and glued values."""
    project = make_book(tmp_path, "")
    path = project.references("paper") / "one.ipynb"
    nb = notebooks.read(path)
    values = {"share": "0.50", "many": "'60,000'", "verdict": "'holds'", "change": "'+07'", "small": "1e-07"}
    outputs = [glued(name, text) for name, text in values.items()]
    notebooks.code_cells(nb)[1].outputs = [*outputs, glued("sheet", "<Figure>", **{"image/png": PNG})]
    drawn = displayed({"image/png": PNG, "image/svg+xml": "<svg/>"})
    metadata = {"mystnb": {"figure": {"name": "fig-trace", "caption": "A trace."}}}
    nb.cells.append(nbformat.v4.new_code_cell("draw()", outputs=[drawn], metadata=metadata, id="drawn"))
    notebooks.write(nb, path)
    return project


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_numbers_and_figures_are_written_with_the_digest_of_their_run(project, capsys):
    assert book.main(["--root", str(project.root), "export"]) == 0
    folder = project.build("export")
    assert capsys.readouterr().out == f"4 numbers and 3 files of figures in {folder}\n"
    digest = notebooks.outputs_digest(notebooks.read(project.book / "one.ipynb"))
    origin = {"chapter": "one", "digest": digest}
    numbers = [
        ("share", 0.5, "0.50"),
        ("many", 60000, "60,000"),
        ("change", 7, "+07"),
        ("small", 1e-7, "1e-07"),
    ]
    assert json.loads((folder / "numbers.json").read_text()) == [
        {"key": key, "value": value, "text": text, **origin} for key, value, text in numbers
    ]
    assert table(folder / "numbers.csv") == [
        {"key": key, "value": str(value), "text": text, **origin} for key, value, text in numbers
    ]
    files = [("fig-trace", "fig-trace.png"), ("fig-trace", "fig-trace.svg"), ("sheet", "sheet.png")]
    listed = [{"figure": label, "file": f"figures/{name}", **origin} for label, name in files]
    assert json.loads((folder / "figures.json").read_text()) == table(folder / "figures.csv") == listed
    assert (folder / "figures" / "fig-trace.png").read_bytes() == b"the pixels"
    assert (folder / "figures" / "fig-trace.svg").read_text() == "<svg/>"
    assert (folder / "figures" / "sheet.png").read_bytes() == b"the pixels"


def test_what_an_earlier_export_wrote_is_gone(project):
    old = export.export(project) / "figures" / "old.png"
    old.touch()
    export.export(project)
    assert not old.exists()


def test_without_a_published_notebook_nothing_is_exported(project, capsys):
    (project.book / "one.ipynb").unlink()
    assert book.main(["--root", str(project.root), "export"]) == 1
    assert capsys.readouterr().err == "no paper reference of one; make freeze SCALE=paper\n"
    assert not project.build("export").exists()
