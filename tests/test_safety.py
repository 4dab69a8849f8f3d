"""No file of the library or the tools runs text as code, starts a shell, or unpacks what it was not told to.

ruff's S rules say so; here it is shown that they are in force in both folders, and looked for once more
in the syntax trees, where no `noqa` counts.
"""

import ast
import re
import subprocess
import sys
import tomllib

import pytest

from tests.test_structure import files
from tools import notebooks
from tools.project import REPOSITORY

SOURCES = sorted(path for folder in ("gmmlib", "tools") for path in (REPOSITORY / folder).rglob("*.py"))
CHAPTERS = notebooks.chapters(REPOSITORY / "book")

# Each is a statement, and the rule of ruff that forbids it.
FORBIDDEN = {
    "import pickle\npickle.loads(x)": "S301",
    "from pickle import loads\nloads(x)": "S301",
    "import shelve\nshelve.open('x')": "S301",
    "x = eval('1')": "S307",
    "exec('1')": "S102",
    "import subprocess\nsubprocess.run('ls', shell=True)": "S602",
    "import os\nos.system('ls' + x)": "S605",
    "import tarfile\ntarfile.open('x').extractall()": "S202",
    "import yaml\nyaml.load(x)": "S506",
    "import requests\nrequests.get(x, verify=False, timeout=1)": "S501",
    "import tempfile\ntempfile.mktemp()": "S306",
    "import hashlib\nhashlib.md5(x)": "S324",
}
CALLS = {"eval", "exec", "extractall", "mktemp", "system", "popen", "unpack_archive", "read_pickle"}
MODULES = {"pickle", "cPickle", "_pickle", "shelve", "marshal", "dill", "cloudpickle", "joblib"}


def suspicious(text):
    """What a program does that this project does not do, by line."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            if MODULES & {name.split(".")[0] for name in names}:
                yield node.lineno, ast.unparse(node)
        if isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "attr", getattr(function, "id", ""))
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if (
                name in CALLS
                or ast.unparse(function) in ("yaml.load", "yaml.unsafe_load", "yaml.full_load")
                or keywords.get("shell", "False") != "False"
                or keywords.get("allow_pickle", "False") != "False"
                or keywords.get("verify", "True") != "True"
            ):
                yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_no_source_does_what_is_forbidden(path):
    assert list(suspicious(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_chapter_does_what_is_forbidden(path):
    for cell in notebooks.code_cells(notebooks.convert(path)):
        assert list(suspicious(cell.source)) == []


@pytest.mark.parametrize(
    "text",
    [
        *(text for text, rule in FORBIDDEN.items() if rule != "S324"),
        "import numpy as np\nnp.load(x, allow_pickle=True)",
        "from joblib import load",
    ],
)
def test_the_search_finds_it(text):
    assert list(suspicious(text))


@pytest.mark.parametrize(
    "text", ["model.evaluate(x)", "executed(1)", "yaml.safe_load(x)", "run(x, shell=False)"]
)
def test_the_search_leaves_other_text_alone(text):
    assert not list(suspicious(text))


@pytest.mark.parametrize("folder", ["gmmlib", "tools"])
def test_ruff_forbids_it_in_both_folders(folder):
    command = [sys.executable, "-m", "ruff", "check", "--output-format=concise", "--stdin-filename"]
    for text, rule in FORBIDDEN.items():
        done = subprocess.run(
            [*command, f"{folder}/new_module.py", "-"],
            input=text + "\n",
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert f" {rule} " in done.stdout, (text, done.stdout)


def test_security_rules_are_left_out_where_they_must_be_and_nowhere_else():
    lint = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert not lint.get("ignore")
    ignores = lint["per-file-ignores"].items()
    left_out = {place: {code for code in codes if code.startswith("S")} for place, codes in ignores}
    assert left_out == {"tests/*": {"S"}, "tools/*": {"S603"}, "tools/bootstrap.py": {"S603"}}


def test_every_exception_to_a_rule_says_why():
    mark = "no" + "qa"
    for path in files():
        if path.suffix not in (".py", ".md"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if found := re.search(rf"#\s*(ruff:\s*)?{mark}(.*)$", line):
                assert not found[1], f"{path.name}:{number} hides a whole file"
                assert re.match(r": ([A-Z]+\d+,? )+ *\S.{8}", found[2]), f"{path.name}:{number} says not why"
