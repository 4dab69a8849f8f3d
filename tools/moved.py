"""The digits in which two runs of a chapter differ, as a table: where they are, stored, now, by how much."""

import math
import re
from typing import NamedTuple

from tools import notebooks

NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE)
WIDTH = 40  # of what is shown of a heading or a text
MOST = 30  # rows that are printed of one table


class Row(NamedTuple):
    """One difference; a dash stands for what is not known."""

    chapter: str
    heading: str  # the nearest above the cell
    line: str  # of the chapter's source
    stored: str
    now: str
    relative: str = "-"  # difference, for a number


def rows(nb, cell, source, outputs, clean=str):
    """What differs between the stored outputs of a cell and those of now.

    Parameters
    ----------
    nb : notebook
        The stored run.
    cell : cell
        One of its code cells.
    source : Path
        The ``.md`` of the chapter.
    outputs : list
        Those of now.
    clean : function
        Takes out of a line what is not compared.
    """
    stored, now = texts(cell.outputs, clean), texts(outputs, clean)
    if len(stored) != len(now):
        counts = [f"{len(lines)} lines of text" for lines in (stored, now)]
        return [Row(*place(nb, cell, source), *counts)]
    found = []
    for (name, old), (_, new) in zip(stored, now, strict=True):
        for values in changed(old, new):
            found.append(Row(*place(nb, cell, source, name), *values, relative(*values)))
    return found


def place(nb, cell, source, name=None):
    """Chapter, nearest heading and line of a cell, or of what it glues by a name."""
    start = first_line(nb, cell, source)
    glued = (n for n, line in enumerate(cell.source.splitlines()) if name and f'glue("{name}"' in line)
    return source.stem, heading(nb, cell), "-" if start is None else str(start + next(glued, 0))


def texts(outputs, clean):
    """The lines of every text of some outputs, each with the name by which it is glued, or None."""
    found = []
    for output in outputs:
        name = output.get("metadata", {}).get("scrapbook", {}).get("name")
        found += [(name, line) for line in output.get("text", "").splitlines()]
        data = sorted(output.get("data", {}).items())
        found += [(name, f"{mime}: {value}") for mime, value in data if mime not in notebooks.FIGURES]
    return [(name, clean(line)) for name, line in found]


def changed(old, new):
    """Pairs of what differs in two lines: their numbers, or what surrounds the first difference in words."""
    if old == new:
        return []
    if [part.split() for part in NUMBER.split(old)] == [part.split() for part in NUMBER.split(new)]:
        pairs = zip(NUMBER.findall(old), NUMBER.findall(new), strict=True)
        return [(a, b) for a, b in pairs if a != b] or [(repr(old[:WIDTH]), repr(new[:WIDTH]))]
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
    start = max(0, same - WIDTH // 2)
    return [(repr(old[start : start + WIDTH]), repr(new[start : start + WIDTH]))]


def relative(old, new):
    """The difference of two numbers relative to the stored one, in two digits; a dash if they are none."""
    if not (NUMBER.fullmatch(old) and NUMBER.fullmatch(new)):
        return "-"
    before, after = (float(text.replace(",", "")) for text in (old, new))
    return f"{abs(after - before) / abs(before) if before else math.inf:.1e}"


def heading(nb, cell):
    """The nearest heading above a cell."""
    found = "-"
    for other in nb.cells:
        if other is cell:
            break
        if other.cell_type == "markdown":
            prose = re.sub(r"(?ms)^```.*?^```", "", other.source)
            found = ([found] + re.findall(r"(?m)^#+ +(.+)$", prose))[-1]
    return found[:WIDTH]


def first_line(nb, cell, source):
    """The line of the chapter's source at which the code of a cell begins, or None."""
    if not source.exists():
        return None
    text, position = source.read_text(encoding="utf-8"), 0
    for other in notebooks.code_cells(nb):
        position = text.find(f"\n{other.source}\n", position)
        if position < 0:
            return None
        if other is cell:
            return text.count("\n", 0, position) + 2
        position += len(other.source)
    return None


def table(found):
    """The rows as plain text, at most the first thirty."""
    lines = [Row("chapter", "heading", "line", "stored", "now", "relative difference"), *found[:MOST]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    if len(found) > MOST:
        text.append(f"and {len(found) - MOST} more")
    return "\n".join(text)
