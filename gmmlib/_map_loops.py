"""The compiled loops over maps: powers of windows, codes of posteriors and their pools.

They obey the rules of `gmmlib._loops`.
"""

import numpy as np

from gmmlib._compiled import compiled
from gmmlib._loops import NEGLIGIBLE


@compiled
def window_powers(images, stride, cosine, sine, rows, columns, out):
    """out[f, n, i, j] = |sum_yx images[n, s i + y, t j + x] exp(-2 pi sqrt(-1) (v y / h + u x / w))|^2.

    The stride is (s, t), windows are h x w, and f stands for the frequency v = rows[f], u = columns[f], where
    `columns` rises.  `cosine` and `sine` are those of 2 pi a b / h and of 2 pi a b / w, scaled as the
    transform is, in pairs.  Sums over the columns of a window are shared by the windows above each other;
    down a column of windows the image is modulated once, which changes phases alone, and each sum comes from
    the one before it.
    """
    (cos_y, cos_x), (sin_y, sin_x) = cosine, sine
    h, w = cos_y.shape[0], cos_x.shape[0]
    n_images, height = images.shape[0], images.shape[1]
    n_rows, n_columns = out.shape[2], out.shape[3]
    across = np.empty((2, height, n_columns))
    down = np.empty((2, height, n_columns))
    total = np.empty((2, n_columns))
    for n in range(n_images):
        before = -1
        for f in range(rows.shape[0]):
            u, v = columns[f], rows[f]
            if u != before:
                before = u
                across[:] = 0.0
                for y in range(height):
                    for x in range(w):
                        c, s = cos_x[u, x], sin_x[u, x]
                        for j in range(n_columns):
                            value = images[n, y, j * stride[1] + x]
                            across[0, y, j] += c * value
                            across[1, y, j] -= s * value
            for y in range(height):
                c, s = cos_y[v, y % h], sin_y[v, y % h]
                for j in range(n_columns):
                    down[0, y, j] = c * across[0, y, j] + s * across[1, y, j]
                    down[1, y, j] = c * across[1, y, j] - s * across[0, y, j]
            total[:] = 0.0
            for y in range(height):
                for j in range(n_columns):
                    total[0, j] += down[0, y, j]
                    total[1, j] += down[1, y, j]
                if y >= h:
                    for j in range(n_columns):
                        total[0, j] -= down[0, y - h, j]
                        total[1, j] -= down[1, y - h, j]
                i, rest = divmod(y - h + 1, stride[0])
                if i >= 0 and rest == 0 and i < n_rows:
                    for j in range(n_columns):
                        out[f, n, i, j] = total[0, j] ** 2 + total[1, j] ** 2


HARD, SOFT, LOG_ODDS = 0, 1, 2  # what `encode_row` makes of log joints


@compiled
def encode_row(joint, kind, beta, tie):
    """Overwrite the log joints (K,) of a row by its code.

    HARD: 1 at the largest, the first of those within `tie` of it, and 0 elsewhere.  SOFT: posteriors, raised
    to beta and normalised again.  LOG_ODDS: of each component against all others, cut at +-NEGLIGIBLE.
    """
    n_components = joint.shape[0]
    best = joint.max()
    if kind == HARD:
        open_place = 1.0
        for k in range(n_components):
            joint[k] = open_place if joint[k] >= best - tie else 0.0
            open_place -= joint[k]
        return
    if kind == SOFT:
        total = 0.0
        for k in range(n_components):
            gap = beta * (joint[k] - best)
            joint[k] = np.exp(gap) if gap > -NEGLIGIBLE else 0.0
            total += joint[k]
        scale = 1.0 / total
        for k in range(n_components):
            joint[k] *= scale
        return
    winner = joint.argmax()
    second = -np.inf
    for k in range(n_components):
        if k != winner:
            second = max(second, joint[k])
    losers = 0.0  # against the second
    for k in range(n_components):
        if k != winner:
            losers += np.exp(joint[k] - second)
    scale = np.exp(second - best)
    for k in range(n_components):
        if k == winner:
            odds = best - second - np.log(losers)
        else:
            gap = joint[k] - best
            odds = gap - np.log1p(max(losers * scale - np.exp(gap), 0.0))
        joint[k] = min(max(odds, -NEGLIGIBLE), NEGLIGIBLE)


@compiled
def pool(joint, places, n_columns, row_cells, column_cells, code, largest, out):
    """Add the code of each row of joint (S, K) to the cells that hold its place; `joint` is overwritten.

    Place p is that of map p // (R C), row p % (R C) // C and column p % C, for maps of R x C places.  Row y
    lies in the rows of cells row_cells[y, 0] to row_cells[y, 1] - 1, and so with columns; out is
    (N, cells down, cells across, K).  `code` is (kind, beta, tie) of `encode_row`.  With `largest`, cells
    keep the larger value instead of the sum.
    """
    n_places = row_cells.shape[0] * n_columns
    kind, beta, tie = code
    for i in range(joint.shape[0]):
        encode_row(joint[i], kind, beta, tie)
        n, place = divmod(places[i], n_places)
        y, x = divmod(place, n_columns)
        for r in range(row_cells[y, 0], row_cells[y, 1]):
            for c in range(column_cells[x, 0], column_cells[x, 1]):
                cell = out[n, r, c]
                if largest:
                    for k in range(joint.shape[1]):
                        cell[k] = max(cell[k], joint[i, k])
                else:
                    for k in range(joint.shape[1]):
                        cell[k] += joint[i, k]
