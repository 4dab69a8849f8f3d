"""How images are cut into patches, patches grouped into cells, and those into larger ones, up to one root.

Cells of a level stand in *nested* order: those of one parent lie beside each other, row by row within it,
and parents in the same order among themselves.  So what the children of each parent say is a reshape away.
"""

import math
from itertools import product
from typing import NamedTuple

import numpy as np

from gmmlib import _checks
from gmmlib.compose import shifts
from gmmlib.stationary import templates


class Cells(NamedTuple):
    """Patches of H x W images, level 0, under L levels of cells; the last level is one root."""

    shape: tuple  # (H, W)
    groups: tuple  # L of (rows, columns): the children of a cell of each level from 1 up, lowest first
    offsets: tuple = ((0, 0),)  # S of (rows, columns): pixels by which images may have been moved

    @property
    def grids(self):
        """Rows and columns of the cells of each level, L + 1 pairs, lowest first; the last is (1, 1)."""
        grids = [(1, 1)]
        for rows, columns in reversed(self.groups):
            grids.append((grids[-1][0] * rows, grids[-1][1] * columns))
        return grids[::-1]

    @property
    def sizes(self):
        """Cells of each level, L + 1 numbers, lowest first; the last is 1."""
        return tuple(rows * columns for rows, columns in self.grids)

    @property
    def patch(self):
        """Height and width of a patch."""
        (rows, columns), (height, width) = self.grids[0], self.shape
        return height // rows, width // columns

    def split(self, X):
        """Cut images (n, H, W) into patches in nested order, (C, n, h, w), in float64."""
        sides, places = self._sides(len(X), self.groups, self.patch)
        patches = np.asarray(X, dtype=np.float64).reshape(sides).transpose(places)
        return np.ascontiguousarray(patches).reshape(-1, len(X), *self.patch)

    def moved(self, X):
        """Cut images moved back by each offset: S of (C, n, h, w)."""
        return [self.split(shifts.move_back(X, offset)) for offset in self.offsets]

    def join(self, patches):
        """Put patches (C, n, h, w) together again: images (n, H, W)."""
        return self.on_grid(patches, 0).transpose(0, 1, 3, 2, 4).reshape(patches.shape[1], *self.shape)

    def on_grid(self, values, level):
        """Values of the cells of a level, (C, n, ...), where they lie: (n, rows, columns, ...)."""
        n, rest = values.shape[1], values.shape[2:]
        groups = self.groups[level:]
        order = self._sides(n, groups, (1, 1))[1]
        nested = [side for group in reversed(groups) for side in group]
        spread = values.reshape(*nested, n, 1, 1, -1)
        spread = spread.transpose(*np.argsort(order), len(order))
        return spread.reshape(n, *self.grids[level], *rest)

    def _sides(self, n, groups, patch):
        """Sides of images cut along both axes, and which of them comes where in nested order."""
        depth = len(groups)
        rows = [group[0] for group in reversed(groups)] + [patch[0]]
        columns = [group[1] for group in reversed(groups)] + [patch[1]]
        along_rows, along_columns = range(1, depth + 2), range(depth + 2, 2 * depth + 3)
        pairs = [axis for pair in zip(along_rows, along_columns, strict=True) for axis in pair]
        return (n, *rows, *columns), (*pairs[:-2], 0, *pairs[-2:])


def checked_levels(levels):
    """Levels of a tree as a tuple of (rows, columns, states), each a positive integer."""
    try:
        rows = tuple(map(tuple, levels))
    except TypeError:
        rows = ((),)
    if any(len(row) != 3 for row in rows):
        raise ValueError(
            "levels must be a sequence of (rows, columns, states), the lowest first: how many cells of the "
            f"level below a cell has, and how many states; got {levels!r}. One root of 10 states over 4 x 4 "
            "patches is [(4, 4, 10)]."
        )
    for number, row in enumerate(rows):
        for value in row:
            _checks.positive_integer(value, f"levels[{number}]")
    return tuple(tuple(map(int, row)) for row in rows)


def of_images(shape, levels, max_shift=0):
    """`Cells` of images (H, W) under checked levels; ValueError if they do not divide, or for the shifts."""
    groups = tuple(level[:2] for level in levels)
    counts = [math.prod(group[axis] for group in groups) for axis in (0, 1)]
    wrong = [axis for axis in (0, 1) if shape[axis] % counts[axis]]
    if wrong:
        told = " and ".join(
            f"{('height', 'width')[axis]} a multiple of {counts[axis]}, {_near(shape[axis], counts[axis])}"
            for axis in wrong
        )
        raise ValueError(
            f"X must hold images that the {counts[0]} x {counts[1]} patches of levels divide: {told}; got "
            f"{shape[0]} x {shape[1]} pixels. Crop or pad the images, or choose other levels."
        )
    rows, columns = templates.window(shape, max_shift)
    return Cells(tuple(shape), groups, tuple(product(rows.tolist(), columns.tolist())))


def _near(side, count):
    """The sides next to one that a number of patches divide."""
    below = side // count * count
    return f"such as {below} or {below + count}" if below else f"such as {count}"
