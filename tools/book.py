"""The command line of the book: run, render, freeze and validate it."""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from gmmlib import datasets
from tools import kernels, locks, notebooks, references, reproducible, run, scales, site
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
        ("reproducible", "run the sample's chapters under other circumstances and compare"),
    ]:
        sub = commands.add_parser(command, help=text)
        if command in ("book", "freeze", "validate"):
            sub.add_argument("--scale", choices=["auto", *SCALES], default="auto")
        if command == "serve":
            sub.add_argument("--port", default=str(server.PORT), help="where (default: %(default)s)")
        if command == "reproducible":
            sub.add_argument("only", nargs="*", help="chapters, by the names of their files (default: all)")
    options = parser.parse_args(arguments)
    project = Project(options.root.resolve())
    chosen = {name: getattr(options, name) for name in ("scale", "port", "only") if hasattr(options, name)}
    try:
        return COMMANDS[options.command](project, **chosen)
    except site.NotRendered as error:
        print(f"not rendered: {error}", file=sys.stderr)
        return 1
    except (datasets.DatasetError, notebooks.Unreadable, server.NoPort) as error:
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


def book(project, scale):
    """Run what is stale, then render."""
    scale, why = scales.choose(scale)
    print(f"scale: {scale} ({why})", flush=True)
    with locks.held(project, scale):
        if scale == "paper":
            datasets.fetch()  # here, where its progress can be seen, and not inside a notebook
        if not run.bring_up_to_date(project, scale):
            print("not rendered, because not every notebook ran", flush=True)
            return 1
        site.render(project, project.runs(scale), scale, scale)
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


def freeze(project, scale):
    """Make current runs the references."""
    scale, why = scales.choose(scale)
    print(f"scale: {scale} ({why})")
    with locks.held(project, scale, shared=True), locks.held(project, "references"):
        return 0 if references.freeze(project, scale) else 1


def validate(project, scale):
    """Run the references again and compare text and figures."""
    scale, why = scales.choose(scale)
    print(f"scale: {scale} ({why})", flush=True)
    with locks.held(project, "references", shared=True):
        return compared(project, scale)


def compared(project, scale):
    """Run the references of a scale again; the exit status."""
    folder = project.references(scale)
    paths = [folder / f"{source.stem}.ipynb" for source in notebooks.chapters(project.book)]
    if missing := [path.name for path in paths if not path.exists()]:
        print(
            f"no reference to compare with: {', '.join(missing)}; make freeze SCALE={scale}", file=sys.stderr
        )
        return 1
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


def check_reproducible(project, only):
    """Run the sample's chapters, or some of them, under other circumstances and compare every digit."""
    known = [path.stem for path in notebooks.chapters(project.book)]
    if unknown := [stem for stem in only if stem not in known]:
        print(f"no chapter {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 1
    with locks.held(project, "reproducible"):
        return 0 if reproducible.check(project, only) else 1


COMMANDS = {
    "book": book,
    "html": html,
    "pdf": pdf,
    "serve": serve,
    "freeze": freeze,
    "validate": validate,
    "reproducible": check_reproducible,
}

if __name__ == "__main__":
    sys.exit(main())
