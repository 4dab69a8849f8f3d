"""Commands that use one folder go one after the other, and one that was killed holds up nobody."""

import contextlib
import multiprocessing
import subprocess
import sys
import threading
import time

import pytest

from tests import test_site
from tools import book, export, locks, pdf, references, reproducible, run, site
from tools import serve as server
from tools.project import REPOSITORY, Project

# Children of a server that has imported this file already.
SERVER = multiprocessing.get_context("forkserver")
LONG = 300  # seconds that a busy machine is given


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def start(project, log, name, **options):
    """A thread that takes a lock, says so in the log, and ends."""

    def take():
        with locks.held(project, name, **options):
            log.append("taken")

    thread = threading.Thread(target=take)
    thread.start()
    return thread


def until(true):
    """Wait for something that comes to pass."""
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_second_user_waits_says_so_and_goes_on(project, capsys):
    log, said = [], []
    with locks.held(project, "published"):
        second = start(project, log, "published")
        until(lambda: said.append(capsys.readouterr().out) or any(said))
        assert log == []
    second.join(LONG)
    assert log == ["taken"]
    assert "".join(said) == "another command uses published; waiting until it has ended\n"


def test_readers_share_and_keep_a_writer_out(project, capsys):
    log, written = [], []
    with locks.held(project, "references", shared=True):
        start(project, log, "references", shared=True).join(LONG)
        assert log == ["taken"]
        writer = start(project, written, "references")
        until(lambda: "waiting" in capsys.readouterr().out)
        assert written == []
    writer.join(LONG)
    assert written == ["taken"]


def test_other_folders_are_free(project, capsys):
    with locks.held(project, "paper"), locks.held(project, "sample"):
        pass
    assert capsys.readouterr().out == ""


def test_a_killed_command_holds_up_nobody(project, capsys):
    code = """if True:
        import sys, time
        from pathlib import Path
        from tools import locks
        from tools.project import Project
        with locks.held(Project(Path(sys.argv[1])), "published"):
            print("taken", flush=True)
            time.sleep(9999)"""
    command = [sys.executable, "-c", code, str(project.root)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "taken\n"
        log = []
        second = start(project, log, "published")
        until(lambda: "waiting" in capsys.readouterr().out)
        assert log == []
        holder.kill()
    second.join(LONG)
    assert log == ["taken"]


def test_a_lock_that_was_cleaned_away_is_not_the_lock(project, capsys):
    log, first = [], contextlib.ExitStack()
    first.enter_context(locks.held(project, "published"))
    second = start(project, log, "published")
    until(lambda: "waiting" in capsys.readouterr().out)
    project.build("published.lock").unlink()  # make clean
    with locks.held(project, "published"):
        first.close()
        # The second has the lock of a file that is gone, and finds that of the new one taken.
        until(lambda: log or "waiting" in capsys.readouterr().out)
        assert log == []
    second.join(LONG)
    assert log == ["taken"]


# What each command does, and the locks under which it does it
TURNS = {
    ("book", "--scale", "sample"): {("sample", False)},
    ("html",): {("references", True), ("published", False)},
    ("pdf",): {("references", True), ("published", False)},
    ("serve",): {("references", True), ("published", False)},
    ("freeze", "--scale", "sample"): {("sample", True), ("references", False)},
    ("validate", "--scale", "sample"): {("references", True)},
    ("export",): {("references", True), ("export", False)},
    ("reproducible",): {("reproducible", False)},
}


def test_every_command_has_its_turn_checked_here():
    assert {command for command, *_ in TURNS} == set(book.COMMANDS)


@pytest.mark.parametrize("arguments", TURNS, ids=lambda arguments: arguments[0])
def test_a_command_works_in_its_turn(project, monkeypatch, arguments):
    held, seen = set(), []

    @contextlib.contextmanager
    def hold(_, name, shared=False):
        held.add((name, shared))
        yield
        held.remove((name, shared))

    def work(*_):
        seen.append(set(held))
        return True

    class Listening(contextlib.nullcontext):
        server_port = server.PORT

        def __enter__(self):
            return self

        def serve_forever(self):
            seen.append("serving" if not held else held)

    monkeypatch.setattr(locks, "held", hold)
    monkeypatch.setattr(server, "listen", lambda *_: Listening())
    monkeypatch.setattr(book, "compared", lambda *_: not work())
    for module, name in [
        (run, "bring_up_to_date"),
        (site, "render"),
        (references, "freeze"),
        (pdf, "make"),
        (reproducible, "check"),
        (export, "export"),
    ]:
        monkeypatch.setattr(module, name, work)
    project.book.mkdir()
    assert book.main(["--root", str(project.root), *arguments]) == 0
    if arguments[0] == "serve":
        assert seen.pop() == "serving"  # for hours, so with no lock
    assert seen
    assert all(found == TURNS[arguments] for found in seen)


# Several commands on one book at once, with something quick in the place of Sphinx


def build(source, work, root, builder="html"):
    (work / "_build" / builder / "book").mkdir(parents=True)
    time.sleep(0.5)
    page = (source / "book" / "intro.md").read_text()
    for name in ("index.html", "book/intro.html"):
        (work / "_build" / builder / name).write_text(page)


def render(root, command, ended):
    site.build = build
    pdf.browser.find = lambda: "chromium"
    pdf.print_page = lambda executable, page, target: target.write_text(page.read_text())
    ended.put((command, book.main(["--root", str(root), command])))


def test_commands_at_once_all_end_well(tmp_path):
    project = test_site.make_book(tmp_path, "")
    SERVER.set_forkserver_preload([__name__])
    ended = SERVER.SimpleQueue()
    commands = ["html", "pdf", "html", "pdf"]
    running = [SERVER.Process(target=render, args=(project.root, name, ended)) for name in commands]
    for process in running:
        process.start()
    for process in running:
        process.join(LONG)
    assert [process.exitcode for process in running] == [0] * 4
    assert sorted(ended.get() for _ in commands) == sorted((name, 0) for name in commands)
    built = project.build("published")
    assert {path.name for path in built.iterdir()} == {"html", "made_from", "source", "book.pdf"}
    assert (built / "book.pdf").read_text() == (built / "html" / "index.html").read_text()
