"""The data of the component explorer, taken out of the notebooks that made them."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

from tools.notebooks import GALLERY, code_cells


def taken_out(nb):
    """Remove the galleries of a notebook from its outputs, and return them in order."""
    found = []
    for cell in code_cells(nb):
        found += [o.data[GALLERY] for o in cell.outputs if GALLERY in o.get("data", {})]
        cell.outputs = [o for o in cell.outputs if GALLERY not in o.get("data", {})]
    return found


def write(static, galleries):
    """Write a script for each gallery, one that lists them, and the library that draws their charts.

    Scripts, since a page that is read from disk may load them but not fetch data.

    Parameters
    ----------
    static : Path
        The folder of static files.
    galleries : list of (str, dict)
        The chapter of each, and its document.
    """
    folder = static / "explorer"
    folder.mkdir()
    models = []
    for stem, gallery in galleries:
        models.append({"name": gallery["name"], "title": gallery["title"], "page": stem})
        text = json.dumps(gallery, separators=(",", ":"))
        (folder / f"{gallery['name']}.js").write_text(f"explorer.receive({text});\n", encoding="utf-8")
    listed = json.dumps(models, separators=(",", ":"))
    # The list is read before the script that takes it.
    (folder / "models.js").write_text(f"window.explorerModels = {listed};\n", encoding="utf-8")
    package = Path(find_spec("plotly").origin).parent
    (static / "plotly").mkdir()
    shutil.copyfile(package / "package_data" / "plotly.min.js", static / "plotly" / "plotly.min.js")
