"""The command line of the book: run, render, freeze and validate it."""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from gmmlib import datasets
from tools import export, kernels, locks, notebooks, pairs, references, reproducible, run, scales, site
from tools import pdf as pdf_of_book
from tools import serve as server
from tools.project import REPOSITORY, SCALES, Project


def main(arguments=None):
    """Carry out one command; the exit status."""
    parser = Parser(prog="python -m tools.book", description=__doc__)
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="project folder (default: this one)")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in [
        ("book", "run what is stale and render"),
        ("html", "render the published notebooks"),
        ("pdf", "print them as one PDF"),
        ("serve", f"show them at http://localhost:{server.PORT}"),
        ("freeze", "make current runs the references"),
        ("validate", "run the references again and compare"),
        ("export", "write the published numbers and figures as files"),
        ("reproducible", "run the sample's chapters under other circumstances and compare"),
    ]:
        sub = commands.add_parser(command, help=text)
        if command in ("book", "freeze", "validate", "reproducible"):
            sub.add_argument("chapters", nargs="*", help="names or numbers of chapters (default: all)")
        if command in ("book", "freeze", "validate"):
            sub.add_argument("--scale", choices=["auto", *SCALES], default="auto")
        if command == "serve":
            sub.add_argument("--port", default=str(server.PORT), help="where (default: %(default)s)")
    options = parser.parse_args(arguments)
    project = Project(options.root.resolve())
    chosen = {name: getattr(options, name) for name in ("scale", "port") if hasattr(options, name)}
    try:
        if hasattr(options, "chapters"):
            chosen["sources"] = notebooks.chosen(project.book, options.chapters)
        return COMMANDS[options.command](project, **chosen)
    except site.NotRendered as error:
        print(f"not rendered: {error}", file=sys.stderr)
        return 1
    except REFUSALS as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"{options.command} stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; finished notebooks are kept", file=sys.stderr)
        return 130


class Parser(argparse.ArgumentParser):
    """Refuses what it does not understand in one line."""

    def error(self, message):
        self.exit(2, f"{message} (make help lists the commands)\n")


@contextmanager
def published(project):
    """The first of the published pages, which are up to date and stay as they are within the block."""
    with locks.held(project, "references", shared=True), locks.held(project, "published"):
        yield site.render(project, project.references("paper"), "published", "paper")


def book(project, scale, sources):
    """Run what is stale among these chapters, then render the book with the others as they are."""
    scale, why = scales.choose(scale)
    print(f"scale: {scale} ({why})", flush=True)
    with locks.held(project, scale):
        if scale == "paper":
            datasets.fetch()  # here, where its progress can be seen, and not inside a notebook
        if not run.bring_up_to_date(project, scale, sources):
            print("not rendered, because not every notebook ran", flush=True)
            return 1
        runs = project.runs(scale)
        others = [path.stem for path in notebooks.chapters(project.book) if path not in sources]
        if never := [stem for stem in others if not (runs / f"{stem}.ipynb").exists()]:
            print(f"not rendered, because others have not run: {', '.join(never)}; make book SCALE={scale}")
            return 0
        site.render(project, runs, scale, scale)
    return 0


def html(project):
    """Render what is published; no data is needed."""
    with published(project):
        return 0


def pdf(project):
    """Print what is published as one PDF."""
    with published(project):
        print("printing the PDF", flush=True)
        print(pdf_of_book.make(project))
    return 0


def serve(project, port):
    """Show what is published to a browser on this machine, until interrupted."""
    wanted = server.port(port)
    # First, so that nobody waits for pages which then cannot be shown.
    with server.listen(wanted, project.build("published") / "html") as listening:
        if listening.server_port != wanted:
            print(f"port {wanted} is taken by another program; make serve PORT=... chooses one", flush=True)
        html(project)
        print(f"at http://localhost:{listening.server_port}, until Ctrl-C", flush=True)
        with suppress(KeyboardInterrupt):
            listening.serve_forever()
    return 0


def freeze(project, scale, sources):
    """Make current runs of these chapters their references."""
    scale, why = scales.choose(scale)
    print(f"scale: {scale} ({why})")
    with locks.held(project, scale, shared=True), locks.held(project, "references"):
        return 0 if references.freeze(project, scale, sources) else 1


def validate(project, scale, sources):
    """Run the references of these chapters again and compare text and figures."""
    scale, why = scales.choose(scale)
    print(f"scale: {scale} ({why})", flush=True)
    with locks.held(project, "references", shared=True):
        return compared(project, scale, sources)


def compared(project, scale, sources):
    """Run the references of a scale again; the exit status."""
    paths = references.stored(project, scale, sources)
    if not paths:
        return 0
    command = [sys.executable, "-m", "pytest", "-p", "tools.figures", "--nbval", "--nbval-current-env"]
    command += ["--nbval-sanitize-with", "tests/sanitize.cfg", "--nbval-cell-timeout", "7200"]

    def compare(lane):
        # The plugin and the rules belong to the program, whatever project it looks at.
        done = subprocess.run(
            [*command, *map(str, lane)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout, flush=True)
        return done.returncode

    lanes = run.lanes(paths, run.AT_ONCE)
    print(f"{len(paths)} notebooks run again, {len(lanes)} at a time", flush=True)
    with kernels.plain_settings(len(lanes)), ThreadPoolExecutor(len(lanes)) as pool:
        return max(pool.map(compare, lanes))


def check_reproducible(project, sources):
    """Run these chapters at the sample scale under other circumstances and compare every digit."""
    with locks.held(project, "reproducible"):
        return 0 if reproducible.check(project, sources) else 1


def exported(project):
    """Write the published numbers and figures as files."""
    with locks.held(project, "references", shared=True), locks.held(project, "export"):
        export.export(project)
    return 0


# What is wrong with what was asked, in words
REFUSALS = (
    datasets.DatasetError,
    notebooks.UnknownChapter,
    notebooks.Unreadable,
    pairs.NotAPair,
    references.Missing,
    server.NoPort,
)

COMMANDS = {
    "book": book,
    "html": html,
    "pdf": pdf,
    "serve": serve,
    "freeze": freeze,
    "validate": validate,
    "export": exported,
    "reproducible": check_reproducible,
}

if __name__ == "__main__":
    sys.exit(main())
