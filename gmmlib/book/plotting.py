"""Figures from arrays; the only importer of matplotlib.

Every function takes arrays, draws in the style of ``book.mplstyle`` and returns the Figure.
"""

from contextlib import contextmanager
from importlib.resources import as_file, files

import numpy as np

from gmmlib._extras import extra
from gmmlib.spectrum import frequencies, full_plane

with extra("plot"):
    import matplotlib.pyplot as plt

GAP = 1  # white pixels between the tiles of a sheet
WHITE = 1.0


@contextmanager
def style():
    """Draw inside with the book's style."""
    with as_file(files("gmmlib.book") / "book.mplstyle") as path, plt.style.context(path):
        yield


def component_sheet(patches, filters=None, labels=None, *, means=None, of="images"):
    """Draw one row a component: its patches, then its filter or its mean (both, or neither).

    Patches (R, M, H, W) are M images for each of R components, each in its own range of grey, as are means
    (R, H, W).  Filters (R, H, W//2 + 1) are power spectra, drawn as logarithms with the zero frequency in the
    middle; zeros are darkest.  Rows are labelled, or numbered from 1; `of` is what the title calls patches.
    """
    rows, columns, height, width = patches.shape
    last = []
    if filters is not None:
        last.append(("filter", log_spectra(filters, (height, width)), "cividis"))
    if means is not None:
        last.append(("mean", means, "gray"))
    # Width follows from the tiles, so that all are square pixels of one size.
    tile = 6.4 / (columns + len(last))
    with style():
        figure, grid = plt.subplots(
            1,
            1 + len(last),
            squeeze=False,
            width_ratios=[columns] + [1] * len(last),
            figsize=(7.2, tile * rows * height / width + 0.35),
        )
        first, *right = grid[0]
        first.set_title(f"{columns} {of} of highest posterior")
        _draw_tiles(first, patches, range(1, rows + 1) if labels is None else labels)
        for axes, (title, images, cmap) in zip(right, last, strict=True):
            axes.set_title(title, loc="center")
            _draw_tiles(axes, images[:, None], cmap=cmap)
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


# Lines can be distinguished without their colours.
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (10, 3)))


def curves(x, lines, xlabel, ylabel, *, marker=None, xscale="linear"):
    """Draw lines over one axis: `lines` is a dict of names to (M,) values at the abscissas x (M,).

    A logarithmic axis, ``xscale="log"``, is ticked at each x.
    """
    with style():
        figure, axes = plt.subplots()
        for number, (name, y) in enumerate(lines.items()):
            axes.plot(x, y, ls=DASHES[number % len(DASHES)], marker=marker, label=name)
        axes.set_xscale(xscale)
        if xscale == "log":
            axes.set_xticks(x, [f"{value:g}" for value in x])
            axes.minorticks_off()
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if len(lines) > 1:
            axes.legend()
    return figure


def trade_offs(runs, xlabels, ylabel, errors=None):
    """Draw one quantity against several others, a panel each, with a line through the runs of a name.

    `runs` is a dict of names to arrays (P + 1, R): the P abscissas of R runs and, last, their ordinate; a
    line is left out where it is NaN.  `errors` is a dict of names to half lengths (R,) of error bars.
    """
    with style():
        figure, panels = plt.subplots(1, len(xlabels), figsize=(7.2, 3.4), sharey=True)
        for number, (name, values) in enumerate(runs.items()):
            *abscissas, ordinate = np.asarray(values, dtype=np.float64)
            look = {"ls": DASHES[number % 4], "marker": "osD^v"[number % 5], "color": f"C{number}"}
            for axes, x in zip(panels, abscissas, strict=True):
                bars = None if errors is None else errors[name]
                axes.errorbar(x, ordinate, bars, label=name, capsize=2, elinewidth=0.8, **look)
        for axes, xlabel in zip(panels, xlabels, strict=True):
            axes.set_xlabel(xlabel)
        panels[0].set_ylabel(ylabel)
        figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside upper center", ncols=3)
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
        axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def named_bars(names, lengths, xlabel, *, errors=None, values=None):
    """Draw one horizontal bar a name, the first on top, with error bars of half lengths `errors`.

    `values` says how to write the length beside each bar, such as ``".1f"``.
    """
    with style():
        figure, axes = plt.subplots(figsize=(7.2, 0.3 * len(names) + 0.6))
        bars = axes.barh(range(len(names)), lengths, 0.7, xerr=errors, color="0.6", capsize=2)
        if values is not None:
            axes.bar_label(bars, [format(length, values) for length in lengths], padding=4)
            axes.margins(x=0.1)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(xlabel)
    return figure


def named_points(names, x, y, xlabel, ylabel, *, lines=None):
    """Draw points with their names beside them over a logarithmic axis, and levels: `lines`, name to y."""
    with style():
        figure, axes = plt.subplots()
        axes.scatter(x, y, zorder=3)
        axes.set_xscale("log")
        axes.margins(x=0.25, y=0.1)
        for name, *place in zip(names, x, y, strict=True):
            axes.annotate(name, place, (5, -4), textcoords="offset points", va="top", fontsize=8)
        axes.xaxis.set_major_formatter("{x:g}")
        for number, (name, level) in enumerate((lines or {}).items()):
            axes.axhline(level, color="0.6", ls="--", lw=0.8)
            beside = (3 + 45 * (number % 2), 2)  # levels may be near each other
            axes.annotate(name, (0, level), beside, axes.get_yaxis_transform(), "offset points", fontsize=8)
        axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def grouped_bars(groups, series, ylabel, errors=None):
    """Draw one bar a series in each of G groups, the first series darkest, and their error bars.

    `series` and `errors` are dicts of names to heights (G,) and to half lengths (G,); up to five series are
    distinguished by lightness alone.
    """
    width = 0.8 / len(series)
    place = np.arange(len(groups)) - 0.4 + width / 2
    shades = plt.colormaps["cividis"](np.linspace(0.2, 1.0, len(series)))
    with style():
        figure, axes = plt.subplots(figsize=(7.2, 3.0))
        for number, (name, heights) in enumerate(series.items()):
            bars = None if errors is None else errors[name]
            look = {"color": shades[number], "edgecolor": "0.2", "capsize": 3}
            axes.bar(place + number * width, heights, width, yerr=bars, label=name, **look)
        axes.set_xticks(range(len(groups)), groups)
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="x", visible=False)
        axes.axhline(0, color="0.2", linewidth=0.8)
        axes.spines.bottom.set_visible(False)
        axes.set_ylabel(ylabel)
        if len(series) > 1:
            figure.legend(loc="outside upper center", ncols=min(len(series), 5))
    return figure


def heat_map(matrix, xlabel, ylabel, label, **options):
    """Draw a matrix (R, C) as coloured cells with a colour bar; other arguments are those of `heat_maps`."""
    return heat_maps({"": matrix}, xlabel, ylabel, label, **options)


def heat_maps(
    matrices, xlabel, ylabel, label, *, xticks=None, yticks=None, values=None, vmin=None, vmax=None
):
    """Draw matrices (R, C), a dict by title, side by side as coloured cells on one colour scale.

    NaN and infinity are left white.  Columns and rows are named by `xticks` and `yticks`, or numbered from 1;
    where not all names have room, some are shown.  `values` says how to write the number in each cell, such
    as ``".2f"``, if at all.  The colour scale ends at `vmin` and `vmax`, or at the smallest and largest
    finite entries.
    """
    stack = np.stack(list(matrices.values()))
    number, rows, columns = stack.shape
    # Cells are square, unless many rows over few columns would make the figure too tall.
    height = min(0.6, 5.6 / (number * columns), 8 / rows)
    width = min(0.6, 5.6 / (number * columns), 3 * height)
    finite = stack[np.isfinite(stack)]
    limits = {"vmin": finite.min() if vmin is None else vmin, "vmax": finite.max() if vmax is None else vmax}
    with style():
        size = (number * columns * width + 1.6, rows * height + 0.65)
        figure, grid = plt.subplots(1, number, sharey=True, squeeze=False, figsize=size)
        for axes, title, matrix in zip(grid[0], matrices, stack, strict=True):
            drawn = axes.imshow(matrix, cmap="cividis", aspect="auto", **limits)
            if values is not None:
                _write_cells(drawn, matrix, values)
            _name_cells(axes.xaxis, columns, xticks, width)
            _name_cells(axes.yaxis, rows, yticks, height)
            _bare(axes)
            axes.set(title=title, xlabel=xlabel)
        grid[0, 0].set_ylabel(ylabel)
        figure.colorbar(drawn, ax=grid, label=label, aspect=rows * height / 0.15)
    return figure


def image_rows(images, labels, *, titles=None, limits=None):
    """Draw labelled rows of images (R, M, H, W), with titles of the columns.

    Grey levels from the first to the second of `limits` go from black to white; without, each image is drawn
    in its own range.
    """
    rows, columns, height, width = images.shape
    tile = 6.4 / columns
    with style():
        head = 0.1 if titles is None else 0.3
        figure, axes = plt.subplots(figsize=(7.2, tile * rows * height / width + head))
        _draw_tiles(axes, images, labels, limits=limits)
        if titles is not None:
            axes.xaxis.tick_top()
            axes.set_xticks(np.arange(columns) * (width + GAP) + (width - 1) / 2, titles)
    return figure


def radial_profile(spectra, shape):
    """Average half-plane spectra (K, H, W//2 + 1) over rings one frequency step wide.

    Returns the rings' mean frequencies (B,), cycles per pixel, and profiles (K, B), without the zero
    frequency.
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
    padded = np.pad(tiles, ((0, 0), (0, 0), (0, GAP), (0, GAP)), constant_values=WHITE)
    sheet = padded.swapaxes(1, 2).reshape(rows * (height + GAP), columns * (width + GAP))
    return sheet[:-GAP, :-GAP]


def _draw_tiles(axes, images, labels=None, cmap="gray", limits=None):
    """Draw images (R, C, H, W), each in its own range or all in one, with or without a label a row."""
    rows, _, height, _ = images.shape
    if limits is None:
        tiles = unit_range(images)
    else:
        tiles = np.clip((images - limits[0]) / (limits[1] - limits[0]), 0, 1)
    axes.imshow(mosaic(tiles), cmap=cmap, vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    if labels is not None:
        axes.set_yticks(np.arange(rows) * (height + GAP) + (height - 1) / 2, labels)
    _bare(axes)


def _name_cells(axis, count, names, size):
    """Tick every first, second, fifth ... of `count` cells, `size` inches each, as room for names allows."""
    names = [str(name) for name in (range(1, count + 1) if names is None else names)]
    longest = max(len(line) for name in names for line in name.split("\n"))
    room = 0.17 if axis.axis_name == "y" else 0.06 + 0.09 * longest
    step = next((step for step in (1, 2, 5, 10, 20, 50) if step * size >= room), 100)
    first = min(step, count) - 1
    axis.set_ticks(np.arange(count)[first::step], names[first::step])


def _write_cells(drawn, matrix, spec):
    """Write the entries into the cells of an image, light on dark and dark on light."""
    for (row, column), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            luminance = np.dot(drawn.to_rgba(value)[:3], [0.299, 0.587, 0.114])
            colour = "white" if luminance < 0.5 else "black"
            drawn.axes.text(column, row, format(value, spec), color=colour, size=9, ha="center", va="center")


def _bare(axes):
    """Take away what frames a plot but clutters a picture."""
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
