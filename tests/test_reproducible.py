"""The same digits on other kernels, with plain loops, other threads and chunks, and without cached code.

This is the short form: small fits of every model.  ``make reproducible`` runs all chapters.
"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.test_site import make_book
from tools import notebooks, reproducible, run
from tools.project import REPOSITORY
from tools.reproducible import circumstances, differences

PROGRAM = Path(__file__).with_name("small_fits.py")
CIRCUMSTANCES, LEFT_OUT = circumstances()
QUICK = {"1 thread", "SkylakeX", "Nehalem", "no cached code", "all plain", "other chunks"}
TRIED = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in CIRCUMSTANCES.keys() - {"first run", "again", "2 threads"}
]


def printed(circumstance=None):
    variables, first = circumstance or ({}, "")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    code = f"{first}\nimport runpy; runpy.run_path({str(PROGRAM)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def first():
    return printed()


@pytest.mark.parametrize("name", sorted(TRIED, key=lambda param: param.values))
def test_every_printed_digit_and_assignment_is_the_same(name, first):
    assert first.count("\n") > 15
    assert printed(CIRCUMSTANCES[name]) == first
    variables = CIRCUMSTANCES[name].variables
    if "NUMBA_CACHE_DIR" in variables:
        assert any(Path(variables["NUMBA_CACHE_DIR"]).rglob("*.nbi"))  # it did compile
        shutil.rmtree(variables["NUMBA_CACHE_DIR"])


def test_every_circumstance_is_tried_or_left_out_in_words():
    wanted = {*reproducible.BLAS, "plain C library", "plain numpy", "plain numba"}
    left_out = {line.partition(":")[0] for line in LEFT_OUT}
    assert wanted == (wanted & CIRCUMSTANCES.keys()) | (wanted & left_out)
    assert not left_out & CIRCUMSTANCES.keys()
    together = CIRCUMSTANCES["all plain"].variables
    for name in {"Nehalem", "plain C library", "plain numpy", "plain numba"} & CIRCUMSTANCES.keys():
        assert CIRCUMSTANCES[name].variables.keys() <= together.keys()


def test_another_machine_leaves_out_what_it_lacks(monkeypatch):
    monkeypatch.setattr(reproducible.platform, "libc_ver", lambda: ("musl", "1.2"))
    monkeypatch.setattr(reproducible.umath, "__cpu_dispatch__", [])
    monkeypatch.setattr(reproducible, "multiplies", lambda variables: False)
    found, left_out = circumstances()
    assert found.keys() & {"plain C library", "plain numpy", *reproducible.BLAS} == set()
    assert found["all plain"].variables.keys() == {"NUMBA_CPU_NAME", "NUMBA_CACHE_DIR"}
    said = "\n".join(left_out)
    assert "plain C library: only glibc on x86" in said
    assert "plain numpy: numpy has no loops" in said
    assert "Nehalem: OpenBLAS has no such kernel" in said
    monkeypatch.setattr(reproducible.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(reproducible.platform, "machine", lambda: "aarch64")
    assert "plain C library" not in circumstances()[0]


# What a process says of itself under a circumstance.
SEEN = """
import math, numba.core.registry, threadpoolctl, numpy as np
from numpy._core import _multiarray_umath as umath
from gmmlib.em.workers import Workers
wide = [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__.get(name)]
print({
    "exponentials": [math.exp(x / 7).hex() for x in range(-3000, 3000)],
    "wide": wide,
    "FMA": umath.__cpu_features__.get("FMA3", False),
    "numba": numba.core.registry.cpu_target.target_context.codegen().magic_tuple()[1],
    "blas": sorted({lib["architecture"] for lib in threadpoolctl.threadpool_info() if "architecture" in lib}),
    "chunk": Workers(2048, 100).blocks_per_chunk,
})
"""


def test_each_circumstance_is_what_its_name_says():
    seen = {}
    for name in CIRCUMSTANCES.keys() & {"first run", "all plain", "other chunks"}:
        variables, first = CIRCUMSTANCES[name]
        done = subprocess.run(
            [sys.executable, "-c", f"{first}\n{SEEN}"],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""  # numpy warns of features that it does not know
        seen[name] = ast.literal_eval(done.stdout)
    assert (seen["first run"]["chunk"], seen["other chunks"]["chunk"]) == (20, 61)
    plain = seen["all plain"]
    assert plain["numba"] == "generic"
    if "Nehalem" in CIRCUMSTANCES:
        assert plain["blas"] == ["Nehalem"]
    if "plain numpy" in CIRCUMSTANCES:
        assert seen["first run"]["wide"]
        assert not plain["wide"]
    if "plain C library" in CIRCUMSTANCES and seen["first run"]["FMA"]:
        assert plain["exponentials"] != seen["first run"]["exponentials"]


def test_a_line_before_a_chapter_is_run_and_leaves_its_cells_alone(tmp_path):
    nb = notebooks.convert(make_book(tmp_path, "").book / "one.md")
    notebooks.code_cells(nb)[1].source = "print(seed + before)"
    done = run.execute(nb, tmp_path, {}, first="before = '\\'4'; before = int(before[1])")
    assert [cell.execution_count for cell in notebooks.code_cells(done)] == [1, 2]
    assert notebooks.code_cells(done)[1].outputs[0].text == "7\n"


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


def test_a_digit_that_moves_is_shown_with_its_cell(tmp_path):
    source = tmp_path / "one.md"
    source.write_text("# A title\n\n```{code-cell}\npass\n```\n")
    assert differences(executed("a 1.25\nb 2\n"), executed("a 1.25\nb 2\n"), source) == []
    (rows,) = differences(executed("a 1.25\nb 3\n"), executed("a 1.25\nb 2\n"), source)
    assert rows == [("one", "-", "4", "2", "3", "5.0e-01")]
    (rows,) = differences(executed("a\n"), executed("a\nb\n"), source)
    assert rows == [("one", "-", "4", "2 lines of text", "1 lines of text", "-")]


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
