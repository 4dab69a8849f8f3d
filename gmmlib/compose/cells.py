"""Where patches lie on a map, in which cells they are pooled, and what is pooled.

A layer of patches makes of each map (H, W, channels) a map of codes (rows, columns, K), one code a patch, and
keeps of these the sums or maxima over cells: a grid, or windows that overlap.
"""

from typing import NamedTuple

import numpy as np

from gmmlib import _checks, _kernels, posterior

ENCODINGS = ("hard", "soft", "log_odds")
POOLINGS = ("sum", "sqrt", "max")


class Pooling(NamedTuple):
    """How the log joints of patches become the codes of cells; make it with `pooling`."""

    row_cells: np.ndarray  # (rows, 2)  first cell that holds a row of patches, and the one after the last
    column_cells: np.ndarray  # (columns, 2)
    code: tuple  # kind, inverse temperature and tie of `gmmlib._map_loops.encode_row`
    how: str  # one of POOLINGS

    @property
    def shape(self):
        """Cells down and across."""
        return int(self.row_cells[-1, 1]), int(self.column_cells[-1, 1])


def pair(value, name, check=_checks.positive_integer):
    """Return one or two numbers as a pair: for rows and columns."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name} must be one number, or two for rows and columns; got {value!r}.")
        return check(value[0], name), check(value[1], name)
    return (check(value, name),) * 2


def count_positions(lengths, sides, strides, borders):
    """Patches down and across a map.

    Parameters
    ----------
    lengths, sides, strides, borders : (int, int)
        Of the map, a patch, the steps between patches and the border on either side, for rows and columns.

    Raises
    ------
    ValueError
        If the map is smaller than a patch, or the last patch does not end where the map ends.
    """
    counts = []
    for what, length, side, stride, border in zip(
        ("height", "width"), lengths, sides, strides, borders, strict=True
    ):
        room = length + 2 * border - side
        if room < 0:
            raise ValueError(
                f"X must hold maps of at least {max(1, side - 2 * border)} in {what}, so that a patch of "
                f"side {side} fits with border={border}; got {length}. Pass larger maps, or take "
                "smaller patches."
            )
        if room % stride:
            sizes = [size for size in (length - room % stride, length - room % stride + stride) if size > 0]
            raise ValueError(
                f"X must hold maps that stride={stride} divides into patches of side {side} with "
                f"border={border}; got {length} in {what}. Sizes that do are "
                f"{' and '.join(map(str, sizes))}: crop or pad the maps, or change stride or border."
            )
        counts.append(room // stride + 1)
    return tuple(counts)


def windows(n_positions, n_cells, window, what):
    """First position of each cell along an axis, and the one after its last, (n_cells, 2).

    Without a window the cells part the positions among them, as evenly as integers can be.  Windows of a
    fixed number of positions begin at even distances, the first at the first position, and the last ends at
    the last.

    Raises
    ------
    ValueError
        If there are more cells than positions, or windows too wide for the map or too narrow to cover it.
    """
    if n_cells > n_positions:
        raise ValueError(
            f"cells must be at most {n_positions}, the {what} of patches on a map; got {n_cells}. "
            "Ask for fewer cells, or take a smaller stride."
        )
    if window is None:
        edges = np.arange(n_cells + 1) * n_positions // n_cells
        return np.stack([edges[:-1], edges[1:]], axis=1)
    least = -(-n_positions // n_cells)
    if not least <= window <= n_positions:
        raise ValueError(
            f"window must be from {least} to {n_positions} for {n_cells} cells to cover the {n_positions} "
            f"{what} of patches on a map; got {window}."
        )
    starts = np.arange(n_cells) * (n_positions - window) // max(1, n_cells - 1)
    return np.stack([starts, starts + window], axis=1)


def cells_of(intervals, n_positions):
    """Of each position along an axis the first cell that holds it, and the one after the last, (n, 2)."""
    position = np.arange(n_positions)
    first = np.searchsorted(intervals[:, 1], position, side="right")
    return np.stack([first, np.searchsorted(intervals[:, 0], position, side="right")], axis=1)


def pooling(counts, cells, window, encoding, inverse_temperature, how):
    """Return the `Pooling` of maps of so many patches down and across.

    Parameters
    ----------
    counts : (int, int)
    cells : (int, int) or None
        Cells down and across; None gives each patch a cell of its own.
    window : (int, int) or None
        Patches in a cell, down and across; None parts the patches among the cells.
    encoding : {"hard", "soft", "log_odds"}
    inverse_temperature : float
        Of the soft encoding.
    how : {"sum", "sqrt", "max"}
    """
    axes = []
    for axis, what in enumerate(("rows", "columns")):
        n_cells = counts[axis] if cells is None else cells[axis]
        size = None if window is None else window[axis]
        axes.append(cells_of(windows(counts[axis], n_cells, size, what), counts[axis]))
    kind = ENCODINGS.index(encoding)
    return Pooling(*axes, (kind, inverse_temperature, posterior.TIE), how)


def pool(joint, places, pooling, out):
    """Write the codes of the cells of some maps into `out` (n, cells down, cells across, K), zeros before.

    Parameters
    ----------
    joint : ndarray, (S, K)
        Log joints of the patches that count, nats; overwritten.
    places : ndarray of int, (S,)
        Their flat places among the patches of all maps, map by map and row by row.
    pooling : Pooling
    out : ndarray
    """
    where = len(pooling.column_cells), pooling.row_cells, pooling.column_cells
    _kernels.pool(joint, places, *where, pooling.code, pooling.how == "max", out)
    if pooling.how == "sqrt":
        np.sqrt(out, out=out)
