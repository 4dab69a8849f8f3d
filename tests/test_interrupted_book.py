"""A book whose runner is killed with `kill -9`: what is finished stays, what is not is run again."""

import contextlib
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest

from tests import test_site
from tests.test_runner import FRONT, make_project
from tools import notebooks, provenance, run, site
from tools.project import Project

# Each execution says who started it; the long output keeps the writing of the notebook from being a mere
# instant.
CHAPTER = (
    FRONT.replace("{", "{{").replace("}", "}}")
    + """```{{code-cell}} ipython3
:tags: [parameters]

scale = "paper"
```

```{{code-cell}} ipython3
import os

with open("../executions", "a") as log:
    print("{name}", os.getppid(), os.getpid(), file=log)
print(sum(range({length})))
print(scale, "\\n" * {length})
```
"""
)
NAMES = ("one", "two", "three")
LENGTH = 200_000
EACH = 4  # kills of one book
LATEST = 1.5  # seconds from one stored chapter to a kill: about what a chapter takes

# Children of a server that has imported this file already, so that a kill hits the run and not an import.
SERVER = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def imported():
    SERVER.set_forkserver_preload([__name__])


def make_book(root):
    return make_project(root, **{name: CHAPTER.format(name=name, length=LENGTH) for name in NAMES})


def bring_up_to_date(root):
    """What `make book` does before it renders; no data are read, for these chapters use none."""
    provenance.data_digests = lambda scale: {}
    os._exit(0 if run.bring_up_to_date(Project(root), "sample") else 1)


def finished(project):
    """Chapters under whose name a notebook is stored; each has to be whole."""
    found = set()
    for path in project.runs("sample").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        ran = [cell for cell in cells if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in ran] == [1, 2, 3]
        (output,) = ran[-1]["outputs"]
        total = LENGTH * (LENGTH - 1) // 2
        assert "".join(output["text"]) == f"{total}\nsample " + "\n" * (LENGTH + 1)
        found.add(path.stem)
    return found


def executed(project, runner):
    """Chapters that one runner has begun, once each."""
    log = project.root / "executions"
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    begun = [name for name, parent, _ in lines if int(parent) == runner]
    assert len(set(begun)) == len(begun)
    return set(begun)


def partials(project):
    return list(project.runs("sample").glob("*.partial")) + list(project.runs("sample").glob(".*"))


def kill_after(runner, project, chapters, seconds, kernels_too):
    """Kill the runner some time after so many chapters are stored; True if it still ran."""
    while runner.is_alive() and len(list(project.runs("sample").glob("*.ipynb"))) < chapters:
        time.sleep(0.01)
    runner.join(seconds)
    kernels = []
    if kernels_too and runner.is_alive():
        kernels = psutil.Process(runner.pid).children(recursive=True)
    runner.kill()
    for kernel in kernels:
        with contextlib.suppress(psutil.NoSuchProcess):
            kernel.kill()
    runner.join()
    return runner.exitcode == -signal.SIGKILL


def kill_and_resume(root, rng, wanted):
    """Kill runs of one book after another, each a few times, until there were enough kills.

    Returns
    -------
    dict of int
        Kills; those that took the kernels along; chapters that stood at a kill; kills that left a part of
        a notebook; books that were completed nevertheless.
    """
    counts = dict.fromkeys(("kills", "kernels too", "kept chapters", "left a part", "books"), 0)
    while counts["kills"] < wanted:
        project = make_book(root / str(counts["books"]))
        last = min(counts["kills"] + EACH, wanted)
        while (before := finished(project)) != set(NAMES):
            runner = SERVER.Process(target=bring_up_to_date, args=(project.root,))
            runner.start()
            if counts["kills"] == last:  # this one is left to end in peace
                runner.join()
                killed = False
            else:
                chapters, kernels_too = rng.integers(len(before), len(NAMES)), bool(rng.integers(2))
                killed = kill_after(runner, project, chapters, rng.uniform(0, LATEST), kernels_too)
            assert not executed(project, runner.pid) & before
            assert before <= finished(project)
            if killed:
                counts["kills"] += 1
                counts["kernels too"] += kernels_too
                counts["kept chapters"] += len(finished(project))
                counts["left a part"] += bool(partials(project))
            else:
                assert runner.exitcode == 0
        assert partials(project) == []
        counts["books"] += 1
    return counts


def kernels_alive(root):
    pids = {int(line.split()[2]) for path in root.glob("*/executions") for line in path.open()}
    return [pid for pid in pids if psutil.pid_exists(pid)]


def check_kills(root, wanted, record_property):
    counts = kill_and_resume(root, np.random.default_rng(wanted), wanted)
    for name, count in counts.items():
        record_property(name, count)
    assert counts["kept chapters"] > 0
    deadline = time.monotonic() + 300  # a kernel looks for its runner once a second
    while kernels_alive(root) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert kernels_alive(root) == []


def test_a_killed_run_goes_on_where_it_was(tmp_path, record_property):
    check_kills(tmp_path, 2, record_property)


@pytest.mark.slow
def test_many_killed_runs_go_on_where_they_were(tmp_path, record_property):
    check_kills(tmp_path, 40, record_property)


# The moments that chance rarely hits: within the writing of one notebook


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def write_and_die(nb, path, moment):
    """Store a notebook and be killed at a moment of that."""
    fdopen, replace = os.fdopen, os.replace

    class Half:
        def __init__(self, *arguments):
            self.file = fdopen(*arguments)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, content):
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            die()

    at = {
        "opened": ("fdopen", die),
        "half written": ("fdopen", Half),
        "written": ("fsync", die),
        "on the disk": ("replace", die),
        "renamed": ("replace", lambda *names: (replace(*names), die())),
    }
    setattr(os, *at[moment])
    notebooks.write(nb, path)


@pytest.mark.parametrize("moment", ["opened", "half written", "written", "on the disk", "renamed"])
def test_a_notebook_is_the_old_or_the_new_one_whenever_its_writer_is_killed(tmp_path, moment):
    old, new = (
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text, id="a")])
        for text in ("old", "new")
    )
    path = tmp_path / "one.ipynb"
    notebooks.write(old, path)
    writer = SERVER.Process(target=write_and_die, args=(new, path, moment))
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == (1 if moment == "renamed" else 2)
    assert notebooks.read(path).cells[0].source == ("new" if moment == "renamed" else "old")
    notebooks.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


# And within the making of the pages


def build(source, work, root):
    """In the place of Sphinx."""
    page = work / "_build" / "html" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text((source / "book" / "intro.md").read_text())


def render(root):
    site.build = build
    return site.render(Project(root), Project(root).book, "published", "paper")


def render_and_die(root, moment):
    """Render, and be killed as soon as so many folders were renamed; at 0 while Sphinx works."""
    rename, renamed = Path.rename, []

    def rename_and_die(self, target):
        rename(self, target)
        renamed.append(target)
        if len(renamed) == moment:
            die()

    Path.rename = rename_and_die
    site.build = build if moment else lambda *arguments: (build(*arguments), die())
    site.render(Project(root), Project(root).book, "published", "paper")


@pytest.mark.parametrize("moment", [0, 1, 2])
def test_pages_are_made_again_whenever_their_maker_is_killed(tmp_path, monkeypatch, moment):
    monkeypatch.setattr(provenance, "data_digests", lambda scale: {})
    monkeypatch.setattr(site, "build", build)
    project = test_site.make_book(tmp_path, "")
    render(project.root)
    (project.book / "intro.md").write_text("# Another book\n")
    maker = SERVER.Process(target=render_and_die, args=(project.root, moment))
    maker.start()
    maker.join()
    assert maker.exitcode == -signal.SIGKILL
    assert render(project.root).read_text() == "# Another book\n"
    left = {path.name for path in project.build("published").iterdir()}
    assert left == {"html", "made_from", "source"}
