"""A pytest plugin that makes nbval compare figures, and cells without outputs.

Load it with ``-p tools.figures`` beside ``--nbval``. Text is compared as nbval does it. nbval itself
never looks at a PNG, and passes every cell whose reference was not executed.

Figures are compared by decoded pixels. Files of the same pixels may differ (compression, version text),
and last digits may move an antialiased edge; a changed letter in a 1000 x 1000 figure already gives an
RMS difference near 1 of 255 grey levels.
"""

import base64
import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from nbval.plugin import IPyNbCell
from PIL import Image

from tools import kernels, moved, notebooks, references
from tools.notebooks import FIGURES, GALLERY
from tools.project import PATIENCE, Project

TOLERANCE = 0.5  # RMS over all pixels and channels, in grey levels of 255


def decode(png):
    """Pixels (H, W, 4) of a PNG in base64."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        return np.asarray(image.convert("RGBA"), dtype=np.float64)


def difference(png, reference):
    """How two figures differ, in words; None if they are the same within the tolerance."""
    pixels, expected = decode(png), decode(reference)
    if pixels.shape != expected.shape:
        return f"size is {size(pixels)}, the reference has {size(expected)}"
    rms = np.sqrt(np.mean((pixels - expected) ** 2))
    if rms > TOLERANCE:
        return f"RMS difference is {rms:.2f} of 255 grey levels, allowed are {TOLERANCE}"
    return None


def size(pixels):
    """Width x height."""
    return f"{pixels.shape[1]} x {pixels.shape[0]}"


def figures(outputs):
    """All PNGs of a cell, in order, displayed or glued."""
    return [output["data"][mime] for output in outputs for mime in FIGURES if mime in output.get("data", {})]


def figure_faults(outputs, reference):
    """What is wrong with the figures of a cell, one line each."""
    new, old = figures(outputs), figures(reference)
    if len(new) != len(old):
        return [f"{len(new)} figures, the reference has {len(old)}"]
    pairs = enumerate(zip(new, old, strict=True), 1)
    return [f"figure {n}: {fault}" for n, (a, b) in pairs if (fault := difference(a, b))]


class ComparedCell(IPyNbCell):
    """A cell of a reference whose every output is compared, and the library it runs on."""

    def runtest(self):
        self.output_timeout = PATIENCE  # nbval's own 5 s from the end of a cell to its output
        super().runtest()
        if self.cell.execution_count is None:
            self.raise_cell_error("the reference was never executed")
        if complaint := self.complaint():
            self.raise_cell_error(complaint)

    def complaint(self):
        """What the kernel has imported by now that is not this project's, in words, or None."""
        kernel = self.parent.kernel
        with tempfile.TemporaryDirectory(prefix="gmmlib-") as apart:
            answer = Path(apart) / "imported.json"
            asked = kernel.kc.execute(kernels.question(answer), silent=True, store_history=False)
            kernel.await_reply(asked, timeout=PATIENCE)
            return kernels.complaint(answer, Project().library)

    def compare_outputs(self, test, ref, skip_compare=None):
        # The sample's references are stored without their figures and galleries.
        sample = self.parent.nb.metadata.get("provenance", {}).get("scale") == "sample"
        apart = (*FIGURES, GALLERY) if sample else FIGURES
        same_text = super().compare_outputs(test, ref, (*self.parent.skip_compare, *apart))
        faults = [] if sample else figure_faults(test, ref)
        if len(test) != len(ref):
            faults.append(f"{len(test)} outputs, the reference has {len(ref)}")
        self.comparison_traceback += faults
        if not same_text:
            self.comparison_traceback.insert(0, self.moved(test))
        return same_text and not faults

    def moved(self, test):
        """The table of what differs in the texts of the cell."""
        chapter = self.parent.path.with_suffix(".md")
        # The sample's references are in a folder of their own; the published ones beside their sources.
        sources = [chapter, *(folder / "book" / chapter.name for folder in chapter.parents)]
        source = next((path for path in sources if path.exists()), chapter)
        return moved.table(moved.rows(self.parent.nb, self.cell, source, test, self.sanitize)) + "\n"

    def repr_failure(self, excinfo):
        """As nbval says it, without colours: it is read in logs and in the XML of continuous integration."""
        return kernels.plain(super().repr_failure(excinfo))


def pytest_itemcollected(item):
    """Make each cell that nbval collects one of the stricter kind."""
    if type(item) is IPyNbCell:
        # nbval offers no hook for its item class, and its `super(IPyNbCell, self)` forbids replacing it.
        item.__class__ = ComparedCell


def pytest_addoption(parser):
    """Let a test run be that of a few references."""
    parser.addoption("--chapters", default="", help="run the sample's references of these chapters alone")


def pytest_configure(config):
    """Start kernels without anybody's personal settings, and with their share of the cores."""
    if names := config.option.chapters.split():
        config.args[:] = chosen(names)
    if hasattr(config.option, "nbval_kernel_startup_timeout"):
        config.option.nbval_kernel_startup_timeout = PATIENCE
    at_once = getattr(config.option, "numprocesses", None) or 1  # processes of pytest-xdist inherit it
    settings = contextlib.ExitStack()
    settings.enter_context(kernels.plain_settings(at_once))
    config.add_cleanup(settings.close)


def chosen(names):
    """The references of a few chapters, as pytest takes them."""
    project = Project()
    try:
        return [
            str(path) for path in references.stored(project, "sample", notebooks.chosen(project.book, names))
        ]
    except (notebooks.UnknownChapter, references.Missing) as error:
        raise pytest.UsageError(str(error)) from error
