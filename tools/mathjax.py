"""MathJax for pages that are read without a network.

The package sphinx-mathjax-offline brings 24 MB. One file draws all formulas as SVG; the folder of small
extensions is for commands that it loads when they occur (``\\boldsymbol``, ``\\cancel``...). Fonts are
not needed, which matters on ``file://``, where some browsers refuse them.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path

PARTS = ("tex-svg.js", "input/tex/extensions")


def copy_into(static):
    """Put what a page needs into the ``mathjax`` folder of a static folder."""
    package = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    for part in PARTS:
        target = static / "mathjax" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (package / part).is_dir():
            shutil.copytree(package / part, target)
        else:
            shutil.copyfile(package / part, target)
