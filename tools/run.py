"""Execute the chapters that are stale, and keep only complete runs."""

import math
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import papermill
from jupytext.myst import MystMetadataParsingError
from papermill.exceptions import PapermillExecutionError

from tools import colophon, kernels, notebooks, provenance
from tools.project import PATIENCE, Project

AT_ONCE = 2  # chapters that run at the same time
QUIET = ["--IPKernelApp.log_level=CRITICAL"]  # a kernel told to stop reports an interrupt as an error


class Failed(Exception):
    """A chapter did not run to its end; the text says where and why."""


def execute(nb, folder, parameters, library=None, first=""):
    """Run a notebook in a fresh kernel whose working directory is `folder`; return it normalised.

    Its record begins with the modules of gmmlib that it imported; `provenance.record` adds the rest.
    Under SOURCE_DATE_EPOCH it holds no measured time, so that two runs share every byte.

    Parameters
    ----------
    nb : notebook
    folder : Path
    parameters : dict
        What papermill sets.
    library : Path, optional
        The folder that gmmlib must come from; this project's by default.
    first : str
        Code, in one line, that the kernel runs before the notebook.

    Raises
    ------
    Failed
        If it did not run to its end, or ran on another library or environment than will be recorded.
    """
    if parameters and not notebooks.has_parameters(nb):
        raise Failed("no cell is tagged `parameters`, so the scale cannot be set")
    with tempfile.TemporaryDirectory(prefix="gmmlib-") as apart:
        answer = Path(apart) / "imported.json"
        done = nbformat.from_dict(nb)
        done.cells.append(nbformat.v4.new_code_cell(kernels.question(answer)))
        done = _executed(done, folder, parameters, first)
        done.cells.pop()
        library = library or Project().library
        if complaint := kernels.complaint(answer, library):
            raise Failed(complaint)
        done.metadata.provenance = {"modules": kernels.imported(answer, library)}
    notebooks.normalise(done)
    if "SOURCE_DATE_EPOCH" in os.environ:
        notebooks.stop_clocks(done)
    if flaws := notebooks.flaws(done):
        raise Failed("; ".join(flaws))
    return done


def _executed(nb, folder, parameters, first):
    """The notebook with its outputs, as the kernel gave them."""
    try:
        return papermill.execute_notebook(
            nb,
            None,
            parameters=parameters,
            kernel_name="python3",
            # Not papermill's `cwd`: it moves this whole process, and another chapter runs in it.
            resources={"metadata": {"path": str(folder)}},
            progress_bar=False,
            extra_arguments=[*QUIET, f"--IPKernelApp.exec_lines={[first]!r}"] if first else QUIET,
            start_timeout=PATIENCE,
            # By default an output that comes late is left out in silence.
            iopub_timeout=PATIENCE,
            raise_on_iopub_timeout=True,
        )
    except PapermillExecutionError as error:
        raise Failed(describe(error)) from error
    except (RuntimeError, TimeoutError) as error:  # the kernel died, or did not start
        raise Failed(f"{type(error).__name__}: {error}") from error


def describe(error):
    """The cell that failed, its source, and the traceback without colours."""
    traceback = kernels.plain("\n".join(error.traceback))
    return f"cell {error.cell_index + 1} failed:\n\n{error.source}\n\n{traceback}"


def bring_up_to_date(project, scale, sources=None):
    """Run every stale one of these chapters, by default of all, and store its notebook; True if all stand.

    A chapter that fails does not stop the others, and its last complete run stays as it was.  Two run at a
    time, for a chapter alone leaves cores idle while it loads, draws or plots; outputs do not depend on it.
    """
    notebooks.sweep(project.runs(scale))
    sources = notebooks.chapters(project.book) if sources is None else sources
    failed = []

    def attempt(number, source):
        label = f"[{number}/{len(sources)}] {source.stem}"
        path = project.runs(scale) / f"{source.stem}.ipynb"
        try:
            return update(project, source, scale, path, label)
        except (Failed, OSError) as error:  # a full disk too
            print(f"{label}: FAILED, {error}\n", flush=True)
            failed.append(source.stem)
            return False

    numbered = list(enumerate(sources, 1))
    # The longest should not be left to the end.
    folder = project.references(scale)
    numbered.sort(key=lambda pair: expected_seconds(folder / f"{pair[1].stem}.ipynb"), reverse=True)
    at_once = max(1, min(AT_ONCE, len(numbered)))
    with kernels.plain_settings(at_once, project.root), ThreadPoolExecutor(at_once) as pool:
        ran = sum(pool.map(lambda pair: attempt(*pair), numbered))
    failed.sort()
    if failed:
        print(f"{len(failed)} of {len(sources)} notebooks failed: {', '.join(failed)}", flush=True)
    elif not ran:
        print(f"nothing stale among {len(sources)} notebooks", flush=True)
    return not failed


def lanes(paths, count):
    """Share notebooks out between processes that should end at about the same time."""
    shares = [[] for _ in range(min(count, len(paths)))]
    filled = [0.0] * len(shares)
    for path in sorted(paths, key=expected_seconds, reverse=True):
        lane = filled.index(min(filled))
        shares[lane].append(path)
        known = expected_seconds(path)
        filled[lane] += known if math.isfinite(known) else 1.0
    return shares


def expected_seconds(path):
    """What a stored run took; infinite if nobody knows."""
    try:
        record = notebooks.read(path).metadata.get("provenance", {})
    except (FileNotFoundError, notebooks.Unreadable):
        return math.inf
    return record.get("occasion", {}).get("seconds", math.inf)


def update(project, source, scale, path, label):
    """Run one chapter if it is stale; True if it ran."""
    try:
        wanted = provenance.key(project, source, scale)
        fresh = notebooks.convert(source)
    except MystMetadataParsingError as error:
        raise Failed(f"{source.name} cannot be read: {error}") from error
    try:
        stored = notebooks.read(path)
        reasons = provenance.changes(stored, wanted)
        if not reasons:
            if notebooks.write(notebooks.with_prose_of(stored, fresh), path):
                print(f"{label}: text renewed, code unchanged", flush=True)
            return False
    except FileNotFoundError:
        reasons = ["first run"]
    except notebooks.Unreadable:
        reasons = ["what is stored is not a whole notebook"]
    print(f"{label}: running ({', '.join(reasons)})", flush=True)
    start = time.monotonic()
    done = execute(fresh, project.book, wanted["parameters"], project.library)
    seconds = time.monotonic() - start
    provenance.record(done, wanted, colophon.occasion(project.root, seconds))
    if changed := provenance.changes(done, provenance.key(project, source, scale)):
        # Nobody could say which of the two versions these outputs belong to.
        raise Failed(f"its sources changed while it ran ({', '.join(changed)}); run it again")
    notebooks.write(done, path)
    print(f"{label}: done in {seconds:.1f} s", flush=True)
    return True
