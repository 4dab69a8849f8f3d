"""Every command that the README, CONTRIBUTING and the book's page for readers print works as printed.

Each is run in a small copy of the project: the programs as they are, a book of one page and one chapter, and
a single test. There the paper's scale becomes the sample's, which needs no data. What would install packages
or ask a network is not run; of that it is checked that make knows it and that its programs are there.
"""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import test_site
from tools import browser, notebooks, provenance, run
from tools.project import REPOSITORY

PAGES = ("README.md", "CONTRIBUTING.md", "book/rerun.md")
PROGRAMS = {"make", "git", "pip", "python", "python3", "jupyter", "jupyter-book", "papermill", "pytest", "uv"}
CHAPTER = "03_bsds_8x8"  # the one that the page for readers takes as its example

RUN = {
    f".venv/bin/papermill book/{CHAPTER}.ipynb mine.ipynb --cwd book",
    f".venv/bin/papermill book/{CHAPTER}.ipynb mine.ipynb --cwd book -p scale sample -p seed 7",
    ".venv/bin/python own.py",
    "git diff --stat",
    "make book",
    "make book SCALE=paper",
    "make book SCALE=paper && make freeze SCALE=paper",
    "make book SCALE=sample",
    "make book SCALE=sample CHAPTERS=03",
    "make book SCALE=sample && make freeze SCALE=sample",
    "make coverage",
    "make export",
    "make freeze SCALE=...",
    "make help",
    "make html",
    "make pdf",
    "make serve",
    "make serve PORT=9000",
    "make test",
    "make test CHAPTERS=03",
    "make test PYTESTFLAGS=-x",
    "make test-all",
    "make validate",
    "make validate SCALE=paper",
}
NOT_RUN = {
    ".venv/bin/pip install pre-commit": "asks a network",
    ".venv/bin/python -m gmmlib.data fetch": "asks a network",
    ".venv/bin/python -m gmmlib.data status": "reads all data; test_datasets.py runs it",
    ".venv/bin/python -m gmmlib.restore denoise noisy.png -o restored": "test_restore_command.py runs it",
    ".venv/bin/python -m gmmlib.restore priors": "test_restore_priors.py runs it",
    ".venv/bin/python -m gmmlib.restore train": "takes minutes; test_restore_priors.py runs it",
    ".venv/bin/pre-commit install": "of a package that the line before installs",
    "pip install gmmlib": "asks a network; test_wheel.py installs the wheel",
    "make audit": "asks a network",
    "make bench": "takes minutes; its programs have tests of their own",
    "make env": "asks a network; it made the environment of these tests",
    "make lock": "asks a network",
    "make mutants": "asks a network",
    "make peers": "asks a network; test_bench_peers.py runs its parts",
    "make reproducible": "takes half an hour; test_reproducible.py runs its parts",
}
# The slow ones that begin with another of the list, and do no more than it.
LONG = {"make book", "make test-all", "make validate"}
MADE = {"mine.ipynb", "components.png"}  # what some of them are asked to make


def commands(text):
    """What a page tells its readers to type: lines of consoles, and code of several words in the text."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        found += [re.sub(r"\s+# .*", "", line).removeprefix("$ ").strip() for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for _, code in re.findall(r"(`+)([^\n]+?)\1", prose):
        first, *others = code.split()
        if others and first in PROGRAMS or first.startswith((".venv/", "./")):
            found.append(code)
    return {command for command in found if command}


def printed():
    """The commands of all pages."""
    return set().union(*(commands((REPOSITORY / name).read_text(encoding="utf-8")) for name in PAGES))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Do `make tea` now", {"make tea"}),
        ("`make` it with `git`, as `book/rerun.md` says in `x = 1`", set()),
        ("```console\n$ make tea  # hot\n\ncurl x | sh\n```\n", {"make tea", "curl x | sh"}),
        ("```python\nmake tea\n```\nand `.venv/bin/new thing`", {".venv/bin/new thing"}),
    ],
)
def test_commands_are_found_in_a_text(text, found):
    assert commands(text) == found


def test_every_printed_command_is_run_here_or_said_not_to_be():
    assert len(printed()) > 15
    assert printed() == RUN | NOT_RUN.keys()


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The small copy, as a checkout of its own, with the environment of these tests."""
    root = tmp_path_factory.mktemp("commands") / "project"
    project = test_site.make_book(root, "", stem=CHAPTER)
    shutil.rmtree(project.library)
    for name in ("tools", "gmmlib"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml", "requirements.lock", ".gitignore", "LICENSE", "README.md"):
        shutil.copy2(REPOSITORY / name, root / name)
    (root / "tests").mkdir()
    shutil.copy(REPOSITORY / "tests" / "sanitize.cfg", root / "tests")
    test = '"""A test."""\n\nimport gmmlib\n\n\ndef test_it():\n    assert gmmlib.__doc__\n'
    (root / "tests" / "test_kernels.py").write_text(test)
    store_run(project)
    shutil.copy(REPOSITORY / "book" / "own.py", root)
    (root / "photographs").mkdir()
    grey = np.random.default_rng(0).integers(0, 256, (90, 120), dtype=np.uint8)
    Image.fromarray(grey).save(root / "photographs" / "one.jpg")
    environment(root)
    for arguments in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    return root


def store_run(project):
    """The chapter as it runs, as the reference of both scales."""
    source = project.book / f"{CHAPTER}.md"
    for scale in ("paper", "sample"):
        nb = run.execute(notebooks.convert(source), project.book, provenance.parameters(scale))
        key = provenance.key(project, source, "sample") | {"scale": scale}
        provenance.record(nb, key | {"parameters": provenance.parameters(scale)}, test_site.OCCASION)
        notebooks.write(nb, project.references(scale) / f"{CHAPTER}.ipynb")


def environment(root):
    """A .venv that is the one of these tests; were it made again, only these links would go."""
    (root / ".venv").mkdir()
    for part in ("bin", "lib"):
        (root / ".venv" / part).symlink_to(Path(sys.prefix) / part)
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", root / ".venv")
    # The last line of the stamp says whose environment it is.
    (root / ".venv" / ".complete").write_text(f"as the tests have it\n{root.resolve()}\n")


def surroundings():
    """Those of a person: nothing that an outer make or test run has set."""
    outer = ("MAKE", "MFLAGS", "SCALE", "PORT", "CHAPTERS", "PYTEST", "GMMLIB", "COVERAGE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
    return kept | {"SCALE": "sample"}


def smallest(command):
    """The same at the scale that needs no data."""
    return re.sub(r"SCALE=(paper|\.\.\.)", "SCALE=sample", command)


@pytest.mark.parametrize(
    "command", sorted(RUN - LONG) + [pytest.param(c, marks=pytest.mark.slow) for c in sorted(LONG)]
)
def test_a_printed_command_works(copy, command):
    if command == "make pdf" and browser.find() is None:
        pytest.skip("no chromium on this machine: no PDF is printed")
    if command.startswith("make serve"):
        assert b"A book" in served(copy, command)
        return
    for part in ["make book SCALE=sample"] * command.startswith("make freeze") + command.split(" && "):
        done = type_it(copy, smallest(part))
        assert done.returncode == 0, f"{part}:\n{done.stdout}"
        assert "Traceback" not in done.stdout
    assert untracked(copy) <= MADE


@functools.cache
def type_it(copy, command):
    """Run a command by the shell, once."""
    return subprocess.run(
        command,
        shell=True,
        cwd=copy,
        env=surroundings(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def untracked(copy):
    """Files that git neither knows nor ignores."""
    command = ["git", "ls-files", "--others", "--exclude-standard"]
    return set(subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True).stdout.split())


def test_a_wheel_leaves_nothing_that_git_sees(copy):
    before = untracked(copy)
    done = type_it(copy, ".venv/bin/python -m pip wheel --no-deps --no-build-isolation .")
    assert done.returncode == 0, done.stdout
    assert list(copy.glob("*.whl"))
    assert (copy / "build").is_dir()
    assert untracked(copy) == before
    assert type_it(copy, "make clean").returncode == 0
    assert not list(copy.glob("*.whl"))
    assert not (copy / "build").exists()


def served(copy, command):
    """The first page, from the address that the command prints."""
    with subprocess.Popen(
        command,
        shell=True,
        cwd=copy,
        env=surroundings(),
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            line = next(line for line in process.stdout if line.startswith("at http"))
            address = re.search(r"http\S+\d", line)[0]
            with urllib.request.urlopen(f"{address}/book/intro.html") as page:
                return page.read()
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # Ctrl-C is ignored by what runs in the background


@pytest.mark.parametrize("command", sorted(NOT_RUN))
def test_make_knows_what_is_not_run_and_its_programs_are_there(command):
    lines = [command]
    if command.startswith("make "):
        target = command.removeprefix("make ")
        plan = subprocess.run(
            ["make", "--always-make", "-n", target],
            cwd=REPOSITORY,
            env=surroundings(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert plan.returncode == 0, plan.stderr
        lines = plan.stdout.splitlines()
    installed = ("_build/", ".venv/bin/pre-commit")  # by the command itself
    programs = {
        word for line in lines for word in re.findall(r"(?:^|\s)((?:\.venv|_build|tools)/[\w./-]+)", line)
    }
    programs = {name for name in programs if not name.startswith(installed) and not name.endswith("/")}
    assert {name for name in programs if not (REPOSITORY / name).exists()} == set()
