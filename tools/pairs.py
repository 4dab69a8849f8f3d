"""Two pictures of one cell, before and after, as one figure; ``_static/slider.js`` lays them over each other.

myst-nb would make two figures of the same name, and give both pictures the same alternative text.
"""

import base64
import json
import struct

import nbformat

from tools import notebooks

TAG = "before-after"
LABELS = ("before", "after")


class NotAPair(Exception):
    """A cell that is tagged as a pair is none; the text says which and why."""


def joined(nb, stem, folder):
    """A copy of a notebook in which each pair is one output: Markdown that shows two files.

    Parameters
    ----------
    nb : notebook
    stem : str
        Of the chapter.
    folder : Path
        Where the files are written; it stands beside the pages.

    Raises
    ------
    NotAPair
    """
    copy = nbformat.from_dict(nb)
    for number, cell in enumerate(copy.cells, 1):
        if TAG not in notebooks.tags(cell):
            continue
        pngs = [base64.b64decode(output.data["image/png"]) for output in pictures(cell)]
        alts = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
        if fault := lacking(pngs, alts):
            raise NotAPair(f"{stem}, cell {number}: tagged {TAG}, but {fault}")
        text = ""
        for label, png, alt in zip(LABELS, pngs, alts, strict=True):
            file = folder / f"{stem}-{number}-{label}.png"
            file.write_bytes(png)
            # A directive, because an image of plain Markdown would lose brackets and the like from its text.
            words = json.dumps(alt, ensure_ascii=False)
            text += f"*{label}*\n\n```{{image}} {folder.name}/{file.name}\n:alt: {words}\n```\n\n"
        cell.metadata.mystnb["markdown_format"] = "myst"
        others = [output for output in cell.outputs if output not in pictures(cell)]
        cell.outputs = [nbformat.v4.new_output("display_data", {"text/markdown": text}), *others]
    return copy


def pictures(cell):
    """The outputs of a cell that are PNG, in order."""
    return [output for output in cell.outputs if "image/png" in output.get("data", {})]


def lacking(pngs, alts):
    """What keeps pictures and their alternative texts from being a pair, in words, or None."""
    if len(pngs) != len(LABELS):
        return f"its outputs hold {len(pngs)} pictures where two are expected"
    sizes = [struct.unpack(">II", png[16:24]) for png in pngs]  # where every PNG has its width and height
    if sizes[0] != sizes[1]:
        before, after = ("{} x {}".format(*size) for size in sizes)
        return f"its pictures are of different size, {before} and {after}"
    if not (isinstance(alts, list) and len(alts) == len(LABELS) and all(isinstance(a, str) for a in alts)):
        return "mystnb.image.alt is not a list of two texts"
    return None
