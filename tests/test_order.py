"""Every ranking has a total order: what is equal stays in the order of its index, on every machine.

numpy's default sort is not stable, and which of two equals comes first depends on the vector instructions
of the processor; a folder lists its files in the order of the file system, and a set depends on hashes.
"""

import ast
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from gmmlib import ConvolutionalGMM, posterior
from tools import notebooks
from tools.project import REPOSITORY

FILES = sorted(path for folder in ("gmmlib", "tools", "book") for path in (REPOSITORY / folder).rglob("*.py"))
CHAPTERS = notebooks.chapters(REPOSITORY / "book")
LISTINGS = {"glob", "rglob", "iglob", "iterdir", "listdir", "scandir", "walk"}
# Here every file of a folder is treated alike and by itself, so the order does not matter.
ANY_ORDER = {("download", "glob"), ("notebooks", "glob"), ("polish", "glob"), ("polish", "rglob")}
ANY_ORDER |= {("site", "iterdir"), ("provenance", "rglob")}  # the latter is sorted on the next line
ANY_ORDER |= {("grid", "argsort")}  # the inverse of a permutation: no two are equal


def unordered(text):
    """Calls and loops of a program whose order is not fixed: the name, and the source."""
    tree = ast.parse(text)
    # What is sorted afterwards may come in any order.
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in ("sorted", "set", "len", "any", "sum")
        for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            kinds = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "kind"]
            if (name == "argsort" and kinds != ["'stable'"]) or name == "argpartition":
                yield name, ast.unparse(node)
            if name in LISTINGS and id(node) not in inside:
                yield name, ast.unparse(node)
        if isinstance(node, ast.For | ast.comprehension) and id(node) not in inside:
            source = node.iter
            called = getattr(getattr(source, "func", None), "id", "")
            if isinstance(source, ast.Set | ast.SetComp) or called in ("set", "frozenset"):
                yield "set", ast.unparse(source)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_no_module_takes_things_in_an_order_of_the_machine(path):
    found = unordered(path.read_text(encoding="utf-8"))
    assert [source for name, source in found if (path.stem, name) not in ANY_ORDER] == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_chapter_takes_things_in_an_order_of_the_machine(path):
    for cell in notebooks.code_cells(notebooks.convert(path)):
        assert list(unordered(cell.source)) == []


@pytest.mark.parametrize(
    "text",
    [
        "np.argsort(-x)",
        "x.argsort(kind='quicksort')",
        "np.argpartition(x, 3)",
        "for p in folder.glob('*'): pass",
        "[p for p in os.listdir('.')]",
        "for k in {1, 2}: pass",
        "[k for k in set(x)]",
    ],
)
def test_the_search_finds_it(text):
    assert list(unordered(text))


@pytest.mark.parametrize(
    "text",
    [
        "np.argsort(-x, kind='stable')",
        "sorted(folder.glob('*'))",
        "sorted({f(p) for p in set(x)})",
        "a <= set(x)",
    ],
)
def test_the_search_leaves_other_text_alone(text):
    assert not list(unordered(text))


# The sheets


def tied(rng, rows, distinct):
    """Images of which each comes several times, in a mixed order; and which is which."""
    which = rng.permutation(np.repeat(np.arange(distinct), rows // distinct))
    return rng.normal(size=(distinct, 8, 8))[which], which


def test_top_ten_of_ties_are_the_first_rows_of_each():
    rng = np.random.default_rng(0)
    which = rng.permutation(np.repeat(np.arange(20), 50))
    odds = rng.permutation(20).astype(float)[which][:, None] * np.array([1.0, -1.0, 0.0])
    odds[odds == 19] = np.inf  # saturated
    # By the words of the documentation: the odds falling, then the row rising.
    expected = [sorted(range(1000), key=lambda n: (-odds[n, k], n))[:70] for k in range(3)]
    assert posterior.ranking(odds, 70).tolist() == expected


def test_last_digits_change_no_ranking():
    rng = np.random.default_rng(3)
    odds = rng.integers(-9, 9, (400, 5)).astype(float)
    odds[rng.random(odds.shape) < 0.1] = np.inf
    odds[rng.random(odds.shape) < 0.1] = -np.inf
    for _ in range(20):
        moved = odds + rng.uniform(-1e-11, 1e-11, odds.shape)
        assert (posterior.ranking(moved, 200) == posterior.ranking(odds, 200)).all()


def test_what_differs_by_more_than_a_last_digit_is_no_tie():
    odds = np.array([[0.0], [1e-6], [2e-6], [2e-6], [-1e-6]])
    assert posterior.ranking(odds, 5).tolist() == [[2, 3, 1, 0, 4]]
    # Nothing to compare with, or nothing at all.
    assert posterior.ranking(odds[:1], 3).tolist() == [[0]]
    assert posterior.ranking(odds[:0], 3).shape == (1, 0)


def test_claims_of_repeated_images_go_by_odds_and_then_by_row():
    rng = np.random.default_rng(1)
    X, which = tied(rng, 240, 24)
    model = ConvolutionalGMM(3, random_state=0, max_iter=5, tol=0.0).fit(X)
    odds = posterior.log_odds(model.log_joint(X))
    _, first = np.unique(which, return_index=True)
    for k, best in enumerate(posterior.ranking(odds, 30)):
        copies = which[best].reshape(3, 10)
        assert (copies == copies[:, :1]).all()
        assert (np.diff(best.reshape(3, 10), axis=1) > 0).all()
        assert list(copies[:, 0]) == sorted(range(24), key=lambda n: -odds[first[n], k])[:3]


def test_a_ranking_does_not_depend_on_where_its_numbers_lie():
    odds = np.random.default_rng(2).integers(0, 4, (500, 6)).astype(float)
    expected = posterior.ranking(odds, 40)
    for other in (np.asfortranarray(odds), odds[:, ::-1][:, ::-1], np.repeat(odds, 2, axis=1)[:, ::2]):
        assert (posterior.ranking(other, 40) == expected).all()
    # A component's ranking is its own, whichever others stand beside it.
    for k in range(6):
        assert (posterior.ranking(odds[:, [k]], 40) == expected[k]).all()


SHEET = """
import numpy as np
from gmmlib import ConvolutionalGMM, FullGMM, posterior
rng = np.random.default_rng(0)
which = rng.permutation(np.repeat(np.arange(25), 41))
X = rng.normal(size=(25, 16, 16))[which]
for model, data in ((ConvolutionalGMM(24), X), (FullGMM(8), X[:, :2].reshape(len(X), -1))):
    fit = model.set_params(random_state=0, max_iter=3).fit(data)
    print(posterior.ranking(posterior.log_odds(fit.log_joint(data)), 100).tolist())
"""


@pytest.mark.slow
def test_sheets_of_copies_are_the_same_on_every_processor():
    said = {}
    for kernel in ("Haswell", "SkylakeX", "Zen", "Sandybridge", "Nehalem"):
        done = subprocess.run(
            [sys.executable, "-c", SHEET],
            env={**os.environ, "OPENBLAS_CORETYPE": kernel},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != -signal.SIGILL:  # a processor without these instructions
            assert done.returncode == 0, done.stderr
            said[kernel] = done.stdout
    assert len(said) > 1
    assert len(set(said.values())) == 1, said.keys()
