"""The notebook as data: from MyST source to stored bytes that two runs share."""

import ast
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path

import jupytext
import nbformat
import yaml

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
# The patch version of Python would make every machine a different notebook.
LANGUAGE_INFO = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"}
LANGUAGE_INFO |= {"pygments_lexer": "ipython3"}

CELL_METADATA = ("tags", "mystnb")
OUTPUT_METADATA = ("scrapbook", "needs_background", "image/png")
FIGURES = ("image/png", "application/papermill.record/image/png")
DISPLAY = ("hide-", "remove-", "before-after", "actual-size")  # how tags begin that change no output
GALLERY = "application/vnd.gmmlib.book.gallery+json"  # what the component explorer shows
NUMBER = re.compile(r" *\d+(\.\d+)?")  # with the spaces that align it
PARTIAL = ".partial"  # how the name of a notebook ends until all of it is on the disk


class Unreadable(Exception):
    """A stored file is no whole notebook; the text says which and why."""


class UnknownChapter(Exception):
    """Somebody asked for a chapter that is not there; the text lists those that are."""


def front_matter(path):
    """What the head of a ``.md`` sets; empty if it has none."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in lines[1:]:
        return {}
    front = yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))
    return front if isinstance(front, dict) else {}


def is_notebook(path):
    """Whether the front matter of a ``.md`` asks for a kernel; other pages are plain text."""
    return bool(front_matter(path).keys() & {"jupytext", "kernelspec"})


def is_draft(path):
    """Whether a chapter is marked ``draft: true``: it runs and renders, but needs no reference."""
    return bool(front_matter(path).get("draft"))


def chapters(book):
    """The sources that are notebooks, in order of their names."""
    return [path for path in sorted(book.glob("*.md")) if is_notebook(path)]


def chosen(book, names):
    """The chapters of these names, each a stem or what it has before its first ``_``; without names, all.

    Raises
    ------
    UnknownChapter
    """
    accepted = {path: {path.stem, path.stem.partition("_")[0]} for path in chapters(book)}
    if unknown := [name for name in names if name not in set().union(*accepted.values())]:
        known = ", ".join(path.stem for path in accepted)
        raise UnknownChapter(
            f"CHAPTERS: expected names or numbers of chapters, got {' '.join(unknown)}; there are {known}"
        )
    return [path for path in accepted if not names or accepted[path] & set(names)]


def convert(path):
    """The notebook written in a MyST source; nothing in it is executed."""
    return normalise(jupytext.read(path, fmt="md:myst"))


def code_cells(nb):
    """The cells that run, in order, without the one that papermill injects."""
    return [cell for cell in nb.cells if cell.cell_type == "code" and not is_injected(cell)]


def is_injected(cell):
    """Whether papermill put the cell there, to set the parameters of this run."""
    return "injected-parameters" in tags(cell)


def has_parameters(nb):
    """Whether the notebook has the cell after which papermill sets parameters."""
    return any("parameters" in tags(cell) for cell in nb.cells)


def tags(cell):
    """The tags of a cell, possibly none."""
    return cell.metadata.get("tags", [])


def written(nb):
    """What a person wrote: kind, source, tags and captions of each cell, without the injected one."""
    return [[cell.cell_type, cell.source, cell.metadata] for cell in nb.cells if not is_injected(cell)]


def program(nb):
    """The part of it that can change an output: sources of the code cells, and tags not about display."""
    return [
        [cell.source, [tag for tag in tags(cell) if not tag.startswith(DISPLAY)]] for cell in code_cells(nb)
    ]


def normalise(nb):
    """Drop everything that differs between two equal runs; return the same notebook."""
    nb.nbformat, nb.nbformat_minor = 4, 5
    for key in ("jupytext", "papermill"):
        nb.metadata.pop(key, None)
    nb.metadata.update(kernelspec=KERNELSPEC, language_info=LANGUAGE_INFO)
    for number, cell in enumerate(nb.cells, 1):
        cell.id = f"cell-{number:02d}"
        cell.metadata = _only(cell.metadata, CELL_METADATA)
        if cell.cell_type == "code":
            cell.outputs = _merged_streams(cell.outputs)
            for output in cell.outputs:
                if "metadata" in output:
                    output.metadata = _only(output.metadata, OUTPUT_METADATA)
    return nbformat.from_dict(nb)


def _only(metadata, names):
    """The named entries that say something."""
    return {name: metadata[name] for name in names if metadata.get(name)}


def _merged_streams(outputs):
    """One output where a kernel happened to send its text in pieces."""
    merged = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def glued_figures(nb):
    """Name and PNG in base64 of each figure that a chapter glues for another page."""
    for cell in code_cells(nb):
        for output in cell.outputs:
            if png := output.get("data", {}).get("application/papermill.record/image/png"):
                yield output.metadata.scrapbook.name, png


def without_figures(nb):
    """The notebook without its pixels and galleries, for a reference that is compared by text alone."""
    for cell in code_cells(nb):
        for output in cell.outputs:
            for mime in (*FIGURES, GALLERY):
                output.get("data", {}).pop(mime, None)
    return nb


def outputs_digest(nb):
    """SHA-256 over every output: a digit or pixel edited by hand changes it."""
    outputs = [cell.outputs for cell in nb.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(outputs, sort_keys=True).encode()).hexdigest()


def flaws(nb):
    """Why a notebook is not a complete run, in words; empty if it is one."""
    found = []
    cells = [(n, cell) for n, cell in enumerate(nb.cells, 1) if cell.cell_type == "code"]
    for number, cell in cells:
        if cell.execution_count is None:
            found.append(f"cell {number} was not executed")
        if any(output.output_type == "error" for output in cell.outputs):
            found.append(f"cell {number} ended in an error")
    if not any(cell.outputs for _, cell in cells):
        found.append("no cell has an output")
    return found


def with_prose_of(run, fresh):
    """The outputs of a run under the text of its source, whose code is the same."""
    merged = nbformat.from_dict(fresh)
    for cell, executed in zip(code_cells(merged), code_cells(run), strict=True):
        cell.outputs = executed.outputs
        cell.execution_count = executed.execution_count
    for injected in filter(is_injected, run.cells):
        position = next(n for n, cell in enumerate(merged.cells) if "parameters" in tags(cell))
        merged.cells.insert(position + 1, injected)
    merged.metadata.provenance = run.metadata.provenance
    return normalise(merged)


def stop_clocks(nb):
    """Put 0 for every number in the outputs of cells that print how long something took."""
    for cell in code_cells(nb):
        if "nbval-ignore-output" in tags(cell):
            for output in cell.outputs:
                if "text" in output:
                    output.text = NUMBER.sub(" 0", output.text)
                for mime, value in output.get("data", {}).items():
                    output.data[mime] = NUMBER.sub(" 0", value) if isinstance(value, str) else 0


def script(nb):
    """The chapter as a Python script, its text in comments."""
    return jupytext.writes(nbformat.from_dict(nb), fmt="py:percent")


def settings(nb):
    """What the cell of parameters sets, and what papermill set after it; name and value as written."""
    cells = [cell for cell in nb.cells if {"parameters", "injected-parameters"} & set(tags(cell))]
    statements = (statement for cell in cells for statement in ast.parse(cell.source).body)
    return {s.targets[0].id: ast.unparse(s.value) for s in statements if isinstance(s, ast.Assign)}


def read(path):
    """A stored notebook.

    Raises
    ------
    Unreadable
    """
    flaw = {}
    try:
        nb = nbformat.read(path, as_version=4, capture_validation_error=flaw)
    except OSError:
        raise
    except Exception as error:  # nbformat has no common class for what is not a notebook
        raise Unreadable(f"{path} is not a whole notebook: {type(error).__name__}") from error
    if flaw:
        raise Unreadable(f"{path} is not a whole notebook: {flaw['ValidationError'].message}")
    return nb


def to_bytes(nb):
    """The stored form: sorted keys, one newline at the end."""
    nbformat.validate(nb)
    return (nbformat.writes(nb, sort_keys=True, ensure_ascii=False, indent=1).rstrip("\n") + "\n").encode()


def write(nb, path):
    """Store a notebook whole or not at all; True if the file changed.

    A run that is killed leaves at most a file whose name is not that of a notebook; see `sweep`.
    """
    path = Path(path)
    new = to_bytes(nb)
    if path.exists() and path.read_bytes() == new:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=PARTIAL, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        error.add_note(f"{path} was not written; what was there before is as it was.")
        raise
    return True


def sweep(folder):
    """Remove what runs that were killed while they wrote have left; nobody else may be writing there."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)
