"""The numbers and figures of the published notebooks as files, each with the digest of the run it is from.

Figures are PNG: the runs store no vector form, because it would come on top of the pixels and make the
notebooks larger. Where a notebook does hold one, it is written too.
"""

import ast
import base64
import csv
import json
import shutil

from tools import notebooks, pairs, references
from tools.moved import NUMBER

GLUED = "application/papermill.record/"


def export(project):
    """Write ``numbers`` and ``figures``, each as JSON and CSV, and the figures; the folder.

    Raises
    ------
    tools.references.Missing
    """
    paths = references.stored(project, "paper", notebooks.chapters(project.book))
    folder = project.build("export")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "figures").mkdir(parents=True)
    numbers_found, figures_found = [], []
    for path in paths:
        nb = notebooks.read(path)
        origin = {"chapter": path.stem, "digest": notebooks.outputs_digest(nb)}
        numbers_found += [{**number, **origin} for number in numbers(nb)]
        for label, suffix, content in figures(nb):
            file = folder / "figures" / f"{label}.{suffix}"
            file.write_bytes(content)
            figures_found.append({"figure": label, "file": f"figures/{file.name}", **origin})
    write(folder / "numbers", ["key", "value", "text", "chapter", "digest"], numbers_found)
    write(folder / "figures", ["figure", "file", "chapter", "digest"], figures_found)
    print(f"{len(numbers_found)} numbers and {len(figures_found)} files of figures in {folder}")
    return folder


def glued(nb):
    """Name and outputs of everything that a chapter glues, by their types."""
    for cell in notebooks.code_cells(nb):
        for output in cell.outputs:
            if record := output.get("metadata", {}).get("scrapbook"):
                data = output.data.items()
                yield record.name, {mime.removeprefix(GLUED): content for mime, content in data}


def numbers(nb):
    """Key, value and text as the page shows it, of each glued number; words are left out."""
    for key, data in glued(nb):
        text = data.get("text/plain", "")
        if text.startswith(("'", '"')):
            text = ast.literal_eval(text)  # the page shows a string without its quotes
        if NUMBER.fullmatch(text):
            yield {"key": key, "value": value(text), "text": text}


def value(text):
    """The number that a text writes."""
    plain = text.replace(",", "")
    return int(plain) if plain.lstrip("+-").isdigit() else float(plain)


def figures(nb):
    """Label, suffix and content of each figure: those with a caption, and those glued for other pages."""
    for cell in notebooks.code_cells(nb):
        if label := cell.metadata.get("mystnb", {}).get("figure", {}).get("name"):
            paired = pairs.TAG in notebooks.tags(cell)
            outputs = pairs.pictures(cell) if paired else cell.outputs
            labels = [f"{label}-{which}" for which in pairs.LABELS] if paired else [label] * len(outputs)
            for name, output in zip(labels, outputs, strict=True):
                yield from drawn(name, output.get("data", {}))
    for name, data in glued(nb):
        yield from drawn(name, data)


def drawn(label, data):
    """The forms in which an output holds a figure."""
    if png := data.get("image/png"):
        yield label, "png", base64.b64decode(png)
    if svg := data.get("image/svg+xml"):
        yield label, "svg", svg.encode()


def write(path, columns, rows):
    """The same rows as JSON and as CSV."""
    path.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    with open(path.with_suffix(".csv"), "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
