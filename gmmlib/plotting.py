"""Figures from arrays; the only importer of matplotlib.

Every function takes arrays, draws in the style of ``book.mplstyle`` and returns the Figure.
"""

from contextlib import contextmanager
from importlib.resources import as_file, files

import matplotlib.pyplot as plt
import numpy as np

from gmmlib.spectrum import frequencies, full_plane

GAP = 1  # white pixels between the tiles of a sheet
WHITE = 1.0


@contextmanager
def style():
    """Draw inside with the book's style."""
    with as_file(files("gmmlib") / "book.mplstyle") as path, plt.style.context(path):
        yield


def component_sheet(patches, filters, labels=None):
    """Draw one row a component: its patches, then the log power spectrum of its filter.

    Parameters
    ----------
    patches : ndarray, (R, M, H, W)
        M images for each of R components; each is scaled to its own range of grey.
    filters : ndarray, (R, H, W//2 + 1)
        Power spectra of the whitening filters.  Zeros (a frequency left out) are drawn as the darkest.
    labels : sequence of str, optional
        One a row.

    Returns
    -------
    Figure
        The spectra have the zero frequency in the middle, each scaled to its own range.
    """
    rows, columns, height, width = patches.shape
    spectra = log_spectra(filters, (height, width))
    # Width follows from the tiles, so that all are square pixels of one size.
    tile = 6.4 / (columns + 1)
    with style():
        figure, (left, right) = plt.subplots(
            1,
            2,
            width_ratios=[columns, 1],
            figsize=(7.2, tile * rows * height / width + 0.35),
        )
        left.imshow(mosaic(unit_range(patches)), vmin=0, vmax=1)
        right.imshow(mosaic(unit_range(spectra)[:, None]), cmap="cividis", vmin=0, vmax=1)
        left.set_title(f"{columns} images of highest posterior")
        right.set_title("filter", loc="center")
        centres = np.arange(rows) * (height + GAP) + (height - 1) / 2
        left.set_yticks(centres, labels if labels is not None else [str(row) for row in range(rows)])
        left.tick_params(length=0)
        left.set_xticks([])
        right.set_xticks([])
        right.set_yticks([])
        for axes in (left, right):
            axes.grid(False)
            axes.spines[:].set_visible(False)
    return figure


def spectra_grid(spectra, shape, titles, columns=8, label="log power"):
    """Draw half-plane spectra (K, H, W//2 + 1) in full, zero frequency in the middle, on one common scale."""
    images = log_spectra(spectra, shape)
    rows = -(-len(images) // columns)
    with style():
        figure, grid = plt.subplots(rows, columns, figsize=(7.2, 0.95 * rows + 0.5), squeeze=False)
        low, high = np.nanmin(images), np.nanmax(images)
        for axes in grid.ravel():
            axes.set_axis_off()
        for axes, image, title in zip(grid.ravel(), images, titles, strict=False):
            drawn = axes.imshow(image, cmap="cividis", vmin=low, vmax=high)
            axes.set_title(title, fontsize=8, loc="center", pad=2)
        figure.colorbar(drawn, ax=grid, shrink=0.8, label=label)
    return figure


def curves(x, lines, xlabel, ylabel, *, marker=None, xscale="linear"):
    """Draw named lines over one axis.

    Parameters
    ----------
    x : array-like, (M,)
    lines : dict of str to array-like, (M,)
    xlabel, ylabel : str
    marker : str, optional
    xscale : str
        "linear" or "log"; a logarithmic axis is ticked at each x.
    """
    with style():
        figure, axes = plt.subplots()
        for number, (name, y) in enumerate(lines.items()):
            dash = ["-", "--", ":", "-."][number % 4]
            axes.plot(x, y, ls=dash, marker=marker, label=name)
        axes.set_xscale(xscale)
        if xscale == "log":
            axes.set_xticks(x, [f"{value:g}" for value in x])
            axes.minorticks_off()
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        if len(lines) > 1:
            axes.legend()
    return figure


def bars(heights, xlabel, ylabel, reference=None, reference_label=None):
    """Draw one bar a component, counted from 1, and a line at a reference height."""
    with style():
        figure, axes = plt.subplots(figsize=(7.2, 2.6))
        axes.bar(np.arange(1, len(heights) + 1), heights, color="0.45")
        if reference is not None:
            axes.axhline(reference, color="C1", ls="--", label=reference_label)
            axes.legend()
        axes.grid(axis="x", visible=False)
        axes.margins(x=0.01)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
    return figure


def image_rows(images, labels):
    """Draw labelled rows of images (R, M, H, W), each image in its own range of grey."""
    rows, columns, height, width = images.shape
    tile = 6.4 / columns
    with style():
        figure, axes = plt.subplots(figsize=(7.2, tile * rows * height / width + 0.1))
        axes.imshow(mosaic(unit_range(images)), vmin=0, vmax=1)
        axes.set_yticks(np.arange(rows) * (height + GAP) + (height - 1) / 2, labels)
        axes.tick_params(length=0)
        axes.set_xticks([])
        axes.grid(False)
        axes.spines[:].set_visible(False)
    return figure


def radial_profile(spectra, shape):
    """Average half-plane spectra (K, H, W//2 + 1) over rings one frequency step wide.

    Returns the rings' mean frequencies (B,), in cycles per pixel, and profiles (K, B); the zero
    frequency is left out.
    """
    radius = frequencies(shape).ravel()
    step = 1 / min(shape)
    ring = np.rint(radius / step).astype(int)
    rings = [np.flatnonzero(ring == b) for b in range(1, int(0.5 / step) + 1)]
    flat = spectra.reshape(len(spectra), -1)
    centres = np.array([radius[members].mean() for members in rings])
    return centres, np.stack([flat[:, members].mean(axis=1) for members in rings], axis=1)


def log_spectra(half, shape):
    """Natural logarithm over the full plane, (R, H, W), zero frequency in the middle; 0 becomes NaN."""
    with np.errstate(divide="ignore"):
        plane = np.log(full_plane(half, shape))
    return np.where(np.isfinite(plane), plane, np.nan)


def unit_range(images):
    """Scale each image (..., H, W) to [0, 1]; NaN becomes 0, a constant image 0.5."""
    low = np.nanmin(images, axis=(-2, -1), keepdims=True)
    width = np.nanmax(images, axis=(-2, -1), keepdims=True) - low
    scaled = np.where(width > 0, (images - low) / np.where(width > 0, width, 1), 0.5)
    return np.nan_to_num(scaled, nan=0.0)


def mosaic(tiles):
    """Lay tiles (R, C, H, W) out in one image with white gaps between them."""
    rows, columns, height, width = tiles.shape
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP), WHITE)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + GAP), column * (width + GAP)
            sheet[top : top + height, left : left + width] = tiles[row, column]
    return sheet
