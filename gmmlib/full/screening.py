r"""Log joints of full-covariance Gaussians, exact, after one product in single precision.

A log joint is linear in the monomials of its row, as `gmmlib.full.quadratic` says:

.. math:: \ell_k(y) = c_k + b_k^\top y - \tfrac12 y^\top P_k y .

So one product, (n, F) by (F, K) with F = (D + 1)(D + 2) / 2, gives all of them; in single precision it costs
half as much as in double, and is off by rounding.

**The bound.** A sum of F rounded products of rounded numbers, added in any order, is off by at most
:math:`\varepsilon = (F + 4) 2^{-24}` times the sum of the sizes of its terms (Higham 2002, section 3.1), and

.. math:: \tfrac12 \sum_{ij} |P_{kij} y_i y_j| + \sum_i |b_{ki} y_i| + |c_k| \;\le\;
          \tfrac12 (\lambda_k + 1) \sum_i P_{kii} y_i^2 + \tfrac12 \sum_i b_{ki}^2 / P_{kii} + |c_k|
          \;=\; e_k(y),

where :math:`\lambda_k` is the largest eigenvalue of :math:`|P_{kij}| / \sqrt{P_{kii} P_{kjj}}`.
As :math:`e_k` is made of the same monomials, :math:`\varepsilon e_k` stands in the coefficients, and the
product gives an upper bound; less :math:`2 \varepsilon e_k` it is a lower bound.  A component is scored in
double precision
if its upper bound comes within 40 nats of the lower bound of the row's best.  For the others see
`gmmlib.full.whitening`: they are out of sight.

**Why it pays.** On natural patches of 8 x 8 partial distances separate components slowly: of 200, 59 are left
after half of the coordinates.  Of these bounds 9.6 are left, and 9.5 have a posterior that is not 0.
"""

from typing import NamedTuple

import numpy as np

from gmmlib import _kernels
from gmmlib.full import whitening

COMPONENTS = 16  # from here on it is faster than scoring all of them
DIMENSIONS = 24, 128  # and between these; above, partial distances leave less
ROWS_PER_DIMENSION = 8  # fewer rows do not repay the coefficients
ROWS_AT_ONCE = 256  # rows whose monomials are made at a time
LARGEST = 1e30  # of coefficients: single precision ends at 3e38
WORTH = 0.25  # share of components left of a row above which scoring all of them is as fast
SLACK = 1e-3  # nats: more than what lies below the smallest number of single precision adds up to
SWEEPS = 3  # of the power method: any number gives a bound


class Screen(NamedTuple):
    """Upper bounds of K log joints, and how far they are above lower bounds."""

    axes: np.ndarray  # (D, D) y = row @ axes
    coefficients: np.ndarray  # (F, K) of float32, of the monomials in the order of `_loops.monomials`
    spread: np.ndarray  # (K, D) the distance of the bounds is spread[k] @ y^2 + gap[k], nats
    gap: np.ndarray  # (K,)


def of(whiteners):
    """The `Screen` of K Gaussians, or None if single precision does not reach as far as they do."""
    n_components, dimension = whiteners.offsets.shape
    rows, columns = np.triu_indices(dimension)
    n_monomials = len(rows) + dimension + 1
    # A tenth more, for the terms themselves change a little by what is added to them.
    epsilon = 1.1 * (n_monomials + 4) * 2.0**-24
    triangles = np.stack([whitening.triangle(whiteners, k) for k in range(n_components)])
    axes, inverse = _axes(triangles)
    triangles = triangles @ inverse.T
    transposed = triangles.transpose(0, 2, 1)
    precisions = transposed @ triangles
    linear = (transposed @ whiteners.offsets[:, :, None])[:, :, 0]
    constants = whiteners.constants - 0.5 * (whiteners.offsets**2).sum(axis=1)
    possible = np.isfinite(constants)  # a weight can be 0
    constants[~possible] = -LARGEST
    diagonal = np.einsum("kii->ki", precisions)
    spread = 0.5 * epsilon * (_largest_eigenvalue(precisions)[:, None] + 1) * diagonal
    gap = epsilon * (0.5 * (linear**2 / diagonal).sum(axis=1) + np.abs(constants)) + SLACK
    coefficients = np.empty((n_monomials, n_components))
    coefficients[: len(rows)] = -precisions[:, rows, columns].T
    coefficients[: len(rows)][rows == columns] = (spread - 0.5 * diagonal).T
    coefficients[len(rows) : -1] = linear.T
    coefficients[-1] = np.where(possible, constants + gap, -LARGEST)
    if not (np.abs(coefficients) <= LARGEST).all():
        return None
    return Screen(axes, coefficients.astype(np.float32), 2 * spread, 2 * gap)


def _axes(triangles):
    """Axes in which precisions are nearly diagonal, so that few terms cancel, and of order 1.

    They are columns (D, D), with rows of their inverse transposed beside them.
    """
    norms = np.linalg.norm(triangles, axis=(1, 2), keepdims=True)
    # Each counts alike, and all together keep their unit.
    scaled = triangles / norms * np.exp(np.log(norms).mean())
    flat = scaled.reshape(-1, scaled.shape[-1])
    values, vectors = np.linalg.eigh(flat.T @ flat)
    scale = np.sqrt(np.maximum(values, values[-1] * 1e-15))
    return vectors * scale, vectors.T / scale[:, None]


def _largest_eigenvalue(precisions):
    """Upper bounds of the largest eigenvalues of |P_ij| / sqrt(P_ii P_jj), (K,).

    For a positive vector v no eigenvalue of a non-negative matrix A is larger than the largest (A v)_i / v_i
    (Collatz 1942).
    """
    root = np.sqrt(np.einsum("kii->ki", precisions))
    ratios = np.abs(precisions) / (root[:, :, None] * root[:, None, :])
    vector = np.ones_like(root)
    for _ in range(SWEEPS):
        before = vector
        vector = (ratios @ before[:, :, None])[:, :, 0]
    return (vector / before).max(axis=1)


def candidates(Y, screen):
    """Which components of rows Y (n, D) may lie within 40 nats of the best, (n, K) of bool."""
    n_monomials, n_components = screen.coefficients.shape
    near = np.empty((len(Y), n_components), dtype=bool)
    monomials = np.empty((min(ROWS_AT_ONCE, len(Y)), n_monomials), dtype=np.float32)
    bounds = np.empty((len(monomials), n_components), dtype=np.float32)
    origin = np.zeros(Y.shape[1])
    for start in range(0, len(Y), ROWS_AT_ONCE):
        rows = Y[start : start + ROWS_AT_ONCE] @ screen.axes
        n_rows = len(rows)
        _kernels.monomials(rows, origin, monomials[:n_rows])
        with np.errstate(all="ignore"):  # what overflows is near, as everything that is not known
            np.matmul(monomials[:n_rows], screen.coefficients, out=bounds[:n_rows])
        _kernels.within_reach(bounds[:n_rows], rows, screen.spread, screen.gap, near[start : start + n_rows])
    return near


def log_joint(Y, whiteners, screen, out=None):
    """Log weight plus log density (n, K) of rows Y (n, D), nats; -inf where a component is out of sight."""
    near = candidates(Y, screen)
    out = np.empty(near.shape) if out is None else out
    out[...] = -np.inf
    buffer = np.empty(whitening.ROWS_AT_ONCE * Y.shape[1])
    for k, rows in enumerate(whitening.occupied(near)):
        whitening.score(Y, whiteners, k, rows, out, buffer)
    return out


def scorer(whiteners, samples, n_rows, everything=False):
    """The fastest exact function of rows, a guess and `out`, as those of `whitening.log_joint`.

    What is fast depends on numbers of rows, coordinates and components, and on how many components are left
    of some of the rows, which ``samples(slice)`` gives: functions of the data alone.
    """
    n_components, dimension = whiteners.offsets.shape
    sizes = n_components >= COMPONENTS and DIMENSIONS[0] <= dimension <= DIMENSIONS[1]
    enough = n_rows >= ROWS_PER_DIMENSION * dimension
    screen = of(whiteners) if sizes and enough and not (everything or whiteners.tied) else None
    some = slice(None, None, -(-n_rows // ROWS_AT_ONCE))
    if screen is not None and candidates(samples(some), screen).mean() <= WORTH:
        return lambda Y, guess=None, out=None: log_joint(Y, whiteners, screen, out)
    return lambda Y, guess=None, out=None: whitening.log_joint(Y, whiteners, guess, out, everything)
