"""The same digits on other kernels, with other numbers of threads and without cached code.

This is the short form: small fits of every model.  ``make reproducible`` runs all chapters.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.test_site import make_book
from tools import notebooks, reproducible
from tools.project import REPOSITORY
from tools.reproducible import differences, settings

PROGRAM = Path(__file__).with_name("small_fits.py")
CIRCUMSTANCES = settings()


def printed(variables):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    done = subprocess.run(
        [sys.executable, PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def first():
    return printed({})


@pytest.mark.parametrize("name", ["1 thread", "Haswell", "SkylakeX", "no cached code"])
def test_every_printed_digit_and_assignment_is_the_same(name, first):
    assert first.count("\n") > 15
    if name not in CIRCUMSTANCES:
        pytest.skip("this processor lacks these instructions")
    variables = CIRCUMSTANCES[name]
    assert printed(variables) == first
    if "NUMBA_CACHE_DIR" in variables:
        assert any(Path(variables["NUMBA_CACHE_DIR"]).rglob("*.nbi"))  # it did compile
        shutil.rmtree(variables["NUMBA_CACHE_DIR"])


def test_another_seed_is_seen(first):
    source = PROGRAM.read_text(encoding="utf-8").replace("random_state=0", "random_state=1")
    other = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    changed = [a.split()[0] for a, b in zip(first.splitlines(), other.splitlines(), strict=True) if a != b]
    assert {"convolutional", "full", "templates"} <= set(changed)


def executed(text, tags=()):
    cell = nbformat.v4.new_code_cell("pass", execution_count=1, metadata={"tags": list(tags)})
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    return nbformat.v4.new_notebook(cells=[cell])


def test_a_digit_that_moves_is_shown_with_its_cell():
    assert differences(executed("a 1.25\nb 2\n"), executed("a 1.25\nb 2\n")) == []
    (line,) = differences(executed("a 1.25\nb 3\n"), executed("a 1.25\nb 2\n"))
    assert line == "code cell 1: 'b 3', not 'b 2'"
    (line,) = differences(executed("a\n"), executed("a\nb\n"))
    assert line == "code cell 1: 1 lines of text, not 2"


def test_measured_times_are_stopped_and_nothing_else():
    timed, result = executed("12.5 s", ["nbval-ignore-output"]), executed("12.5 nats")
    for nb in (timed, result):
        notebooks.stop_clocks(nb)
    assert timed.cells[0].outputs[0].text == " 0 s"
    assert result.cells[0].outputs[0].text == "12.5 nats"


def test_two_runs_give_the_same_pages_byte_for_byte(tmp_path, monkeypatch):
    project = make_book(tmp_path, "")
    for name in ("first_run", "again"):
        folder = project.build("reproducible") / name
        shutil.copytree(project.book, folder, ignore=lambda _, names: [n for n in names if ".ipynb" not in n])
    assert reproducible.same_pages(project)
    # The same again, with one digit changed in the second run.
    nb = notebooks.read(folder / "one.ipynb")
    notebooks.code_cells(nb)[1].outputs[0].text = "4\n"
    notebooks.write(nb, folder / "one.ipynb")
    assert not reproducible.same_pages(project)
