"""The command line of the book: run, render, freeze and validate it."""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gmmlib import datasets
from tools import kernels, notebooks, references, reproducible, run, scales, site
from tools import pdf as pdf_of_book
from tools.project import REPOSITORY, SCALES, Project


def main(arguments=None):
    """Carry out one command; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.book", description=__doc__)
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="project folder (default: this one)")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in [
        ("book", "run what is stale and render"),
        ("html", "render the published notebooks"),
        ("pdf", "print them as one PDF"),
        ("serve", "show them at http://localhost:8000"),
        ("freeze", "make current runs the references"),
        ("validate", "run the references again and compare"),
        ("reproducible", "run the sample's chapters under other circumstances and compare"),
    ]:
        sub = commands.add_parser(command, help=text)
        if command in ("book", "freeze", "validate"):
            sub.add_argument("--scale", choices=["auto", *SCALES], default="auto")
        if command == "reproducible":
            sub.add_argument("only", nargs="*", help="chapters, by the names of their files (default: all)")
    options = parser.parse_args(arguments)
    project = Project(options.root.resolve())
    try:
        if options.command == "reproducible":
            return 0 if reproducible.check(project, options.only) else 1
        return COMMANDS[options.command](project, getattr(options, "scale", None))
    except site.NotRendered as error:
        print(f"not rendered: {error}", file=sys.stderr)
        return 1
    except (datasets.DatasetError, notebooks.Unreadable) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; finished notebooks are kept", file=sys.stderr)
        return 130


def book(project, wanted):
    """Run what is stale, then render."""
    scale, why = scales.choose(wanted)
    print(f"scale: {scale} ({why})", flush=True)
    if scale == "paper":
        datasets.fetch()  # here, where its progress can be seen, and not inside a notebook
    if not run.bring_up_to_date(project, scale):
        print("not rendered, because not every notebook ran", flush=True)
        return 1
    site.render(project, project.runs(scale), scale, scale)
    return 0


def html(project, _):
    """Render what is published; no data is needed."""
    site.render(project, project.references("paper"), "published", "paper")
    return 0


def pdf(project, _):
    """Print what is published as one PDF."""
    html(project, None)
    print("printing the PDF", flush=True)
    print(pdf_of_book.make(project))
    return 0


def serve(project, _):
    """Show what is published to a browser on this machine, until interrupted."""
    html(project, None)
    print("at http://localhost:8000, until Ctrl-C", flush=True)
    folder = str(project.build("published") / "html")
    command = [sys.executable, "-m", "http.server", "8000", "--bind", "127.0.0.1", "--directory", folder]
    return subprocess.run(command, check=False).returncode


def freeze(project, wanted):
    """Make current runs the references."""
    scale, why = scales.choose(wanted)
    print(f"scale: {scale} ({why})")
    return 0 if references.freeze(project, scale) else 1


def validate(project, wanted):
    """Run the references again and compare text and figures."""
    scale, why = scales.choose(wanted)
    print(f"scale: {scale} ({why})", flush=True)
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


COMMANDS = {
    "book": book,
    "html": html,
    "pdf": pdf,
    "serve": serve,
    "freeze": freeze,
    "validate": validate,
}

if __name__ == "__main__":
    sys.exit(main())
