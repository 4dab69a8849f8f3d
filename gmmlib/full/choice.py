r"""Wiener filters of the most probable component, which is found exactly, after one product of fewer terms.

A row y of a mixture seen through white noise of variance v has, under component k, with mean m and
:math:`P_k = (C_k + v I)^{-1}`, the log joint :math:`c_k - \tfrac12 (y - m)^\top P_k (y - m)`, and its Wiener
filter gives :math:`y - v P_k (y - m)`: one product serves both.

**The bound.** Let all be in units of the noise, v = 1.  No precision exceeds that of the noise:
:math:`P_k = I - G_k`, where :math:`G_k` has eigenvalues :math:`\lambda / (\lambda + 1)`, positive, and of
smooth components nearly all small.  In axes that all components share let a be the first coordinates of
y, b the others, and S diagonal, larger than the block :math:`G_{bb}`.  Then, as
:math:`2 x^\top y \le x^\top N^{-1} x + y^\top N y` for :math:`N = S - G_{bb}`,

.. math:: \begin{pmatrix} a \\ b \end{pmatrix}^\top G \begin{pmatrix} a \\ b \end{pmatrix} \;\le\;
          a^\top \left[ G_{aa} + G_{ab} (S - G_{bb})^{-1} G_{ba} \right] a + b^\top S b ,

so that of b the squares are enough: for 43 of 64 coordinates 1,011 monomials instead of 2,145.  An upper
bound of all log joints is one product with them, in single precision; what rounding can do is in the
coefficients, as in `gmmlib.full.screening`.

**The choice.** The component of the largest bound, less what it is above the log joint on average, is scored
in double precision, and then each other one whose bound reaches the best score so far.  On natural patches
with noise these are from 0.1 to 7 of 200.
"""

from typing import NamedTuple

import numpy as np

from gmmlib import _kernels, posterior
from gmmlib.full import whitening, wiener

HEAD = 0.66  # share of the coordinates of which all products are taken
NUMBERS = 2**18  # of monomials made at a time: they stay in the cache
SLACK = 1e-3  # nats: more than what lies below the smallest number of single precision adds up to
ABOVE = 1 + np.geomspace(0.01, 4, 12)  # S in units of the smallest possible one
LEAST = 0.05  # of a diagonal S in units of the mean of its numbers


class Noisy(NamedTuple):
    """K Gaussians with white noise."""

    noise_variance: float
    means: np.ndarray  # (K, D)
    precisions: np.ndarray  # (K, D, D)
    constants: np.ndarray  # (K,) log joints at the means, nats


class Bounds(NamedTuple):
    """Upper bounds of the log joints of K Gaussians with noise plus |y|^2 / 2v, which they share, nats."""

    axes: np.ndarray  # (D, D) z = row @ axes, in units of the noise
    n_head: int
    coefficients: np.ndarray  # (F, K) of float32, of the monomials that `upper` makes
    usual: np.ndarray  # (K,) how far they are above on average over a component's own rows, nats


def noisy(weights, means, covariances, noise_variance):
    """`Noisy` of a mixture; numpy.linalg.LinAlgError if a covariance is not positive semidefinite."""
    with np.errstate(divide="ignore"):
        constants = np.log(weights)
    precisions = np.empty(covariances.shape)
    half = 0.5 * covariances.shape[1] * np.log(2 * np.pi)
    for k, covariance in enumerate(wiener.with_noise(covariances, noise_variance)):
        W = whitening.inverse_cholesky(covariance)
        precisions[k] = W.T @ W
        constants[k] += np.log(W.diagonal()).sum() - half
    return Noisy(noise_variance, np.ascontiguousarray(means), precisions, constants)


def bounds(weights, covariances, mixture, share=HEAD):
    """`Bounds` of a `Noisy` mixture, whose weights (K,) and covariances (K, D, D) without noise are given."""
    dimension, unit = covariances.shape[1], np.sqrt(mixture.noise_variance)
    axes = np.linalg.eigh(np.tensordot(weights, covariances, 1))[1][:, ::-1]
    # A rounded G may exceed the true one by as much as rounding leaves of an eigenvalue of 1.
    excess = np.eye(dimension) * (1 + 1e-12) - mixture.noise_variance * (axes.T @ mixture.precisions @ axes)
    moments = axes.T @ covariances @ axes / mixture.noise_variance + np.eye(dimension)
    n_head = min(int(np.ceil(share * dimension)), dimension - 1)
    head, rest = _majorant(excess, moments, n_head)
    means = mixture.means @ axes / unit
    # (z - m)' M (z - m) / 2 + z' m - m' m / 2, with M of two blocks.
    product = np.hstack([(head @ means[:, :n_head, None])[:, :, 0], rest * means[:, n_head:]])
    linear = means - product
    constants = mixture.constants + 0.5 * (means * (product - means)).sum(axis=1)
    possible = np.isfinite(constants)  # a weight can be 0
    constants[~possible] = 0.0
    rows, columns = np.triu_indices(n_head)
    n_monomials = len(rows) + 2 * dimension - n_head + 1
    # |sum of terms| is at most sum_i z_i^2 (sum_j |M_ij| + 1) / 2 + |linear|^2 / 2 + |constant|.
    epsilon = 1.1 * (n_monomials + 4) * 2.0**-24
    spread = 0.5 * epsilon * (np.hstack([np.abs(head).sum(axis=2), rest]) + 1)
    gap = epsilon * (0.5 * (linear**2).sum(axis=1) + np.abs(constants)) + SLACK
    products = head[:, rows, columns]
    products[:, rows == columns] = 0.5 * products[:, rows == columns] + spread[:, :n_head]
    constants = np.where(possible, constants + gap, -np.inf)[:, None]
    squares = 0.5 * rest + spread[:, n_head:]
    parts = [products, linear[:, :n_head], constants, squares]
    if mixture.means.any():
        parts.append(linear[:, n_head:])
    with np.errstate(over="ignore"):
        coefficients = np.ascontiguousarray(np.hstack(parts).T, dtype=np.float32)
    return Bounds(axes / unit, n_head, coefficients, _usual(head, rest, excess, moments))


def _usual(head, rest, excess, moments):
    """How far the bounds are above log joints on average over rows of the second `moments`, (K,), nats."""
    n_head = head.shape[1]
    blocks = ((head - excess[:, :n_head, :n_head]) * moments[:, :n_head, :n_head]).sum(axis=(1, 2))
    squares = (rest * np.einsum("kii->ki", moments)[:, n_head:]).sum(axis=1)
    common = excess * moments
    others = common.sum(axis=(1, 2)) - common[:, :n_head, :n_head].sum(axis=(1, 2))
    return (0.5 * (blocks + squares - others)).astype(np.float32)


def _majorant(excess, moments, n_head):
    """Blocks (K, M, M) and diagonals (K, D - M) of matrices that exceed K matrices (K, D, D).

    Of those that are proportional to the unit matrix or to the diagonal outside the head, the one that adds
    least on average over rows of the second `moments` (K, D, D).
    """
    inside, across = excess[:, :n_head, :n_head], excess[:, :n_head, n_head:]
    outside = excess[:, n_head:, n_head:]
    heads, rests, costs = [], [], []
    variances = np.einsum("kii->ki", moments)[:, n_head:]
    diagonal = np.einsum("kii->ki", outside)
    for shape in (np.ones_like(diagonal), diagonal + LEAST * diagonal.mean(axis=1, keepdims=True)):
        root = np.sqrt(shape)
        values, vectors = np.linalg.eigh(outside / (root[:, :, None] * root[:, None, :]))
        turned = (across / root[:, None, :]) @ vectors
        energies = np.einsum("kij,kil,klj->kj", turned, moments[:, :n_head, :n_head], turned, optimize=True)
        scales = values[:, -1:] * ABOVE  # (K, S)
        cost = (energies[:, None, :] / (scales[:, :, None] - values[:, None, :])).sum(axis=2)
        cost += scales * (shape * variances).sum(axis=1, keepdims=True)
        best = cost.argmin(axis=1)
        scale = np.take_along_axis(scales, best[:, None], 1)
        heads.append(inside + (turned / (scale - values)[:, None, :]) @ turned.transpose(0, 2, 1))
        rests.append(scale * shape)
        costs.append(cost.min(axis=1))
    first = costs[0] <= costs[1]
    return np.where(first[:, None, None], *heads), np.where(first[:, None], *rests)


def upper(Y, these):
    """Upper bounds (n, K) of float32 of rows Y (n, D), as `Bounds` says."""
    n_monomials, n_components = these.coefficients.shape
    head, dimension = np.zeros(these.n_head), Y.shape[1]
    first = these.n_head * (these.n_head + 1) // 2 + these.n_head + 1
    out, step = np.empty((len(Y), n_components), dtype=np.float32), max(1, NUMBERS // n_monomials)
    room = np.empty((min(step, len(Y)), n_monomials), dtype=np.float32)
    with np.errstate(all="ignore"):  # what overflows reaches everything
        for start in range(0, len(Y), step):
            rows = Y[start : start + step] @ these.axes
            monomials, rest = room[: len(rows)], rows[:, these.n_head :]
            _kernels.monomials(rows, head, monomials)
            monomials[:, first : first + dimension - these.n_head] = rest**2
            if first + dimension - these.n_head < n_monomials:
                monomials[:, first + dimension - these.n_head :] = rest
            np.matmul(monomials, these.coefficients, out=out[start : start + step])
    return out


def filtered(Y, mixture, these):
    """Rows Y (n, D) by the filters of their most probable components, (n, D), and these, (n,)."""
    highest = upper(Y, these)
    labels = (highest - these.usual).argmax(axis=1)
    out, scores = np.empty(Y.shape), np.empty(len(Y))
    _filter(Y, mixture, labels, out, scores)
    chosen = _most_probable(Y, mixture, highest, labels, scores)
    _filter(Y, mixture, np.where(chosen == labels, -1, chosen), out, scores)
    return out, chosen


def _filter(Y, mixture, labels, out, scores):
    """Write rows by the filters of components `labels`, and the log joints of these, where one is given."""
    begins, rows = _room(len(mixture.means), (labels >= 0).sum())
    _kernels.list_labels(labels, begins, rows)
    for k in np.flatnonzero(np.diff(begins)):
        chosen = rows[begins[k] : begins[k + 1]]
        product, found = _scored(Y, mixture, k, chosen)
        _kernels.scatter_filtered(Y, chosen, product, mixture.noise_variance, out)
        scores[chosen] = found


def _most_probable(Y, mixture, highest, labels, scores):
    """The most probable components (n,), from upper bounds (n, K) and the log joints (n,) of `labels`."""
    shared, best = (Y**2).sum(axis=1) / (2 * mixture.noise_variance), scores.copy()
    begins, _ = _room(len(mixture.means), 0)
    _kernels.count_reaching(highest, shared + scores - posterior.TIE, labels, begins)
    rows = np.empty(begins[-1], dtype=np.intp)
    _kernels.list_reaching(highest, shared + scores - posterior.TIE, labels, begins, rows)
    begins, ends, found = begins[:-1], begins[1:].copy(), np.empty(len(rows))
    for k in np.flatnonzero(begins < ends):
        left = rows[begins[k] : ends[k]]
        left = left[: _kernels.keep_reaching(highest[:, k], left, shared, best, posterior.TIE)]
        ends[k] = begins[k] + len(left)
        _, found[begins[k] : ends[k]] = _scored(Y, mixture, k, left)
        _kernels.raise_to(left, found[begins[k] : ends[k]], best)
    labels = labels.copy()
    _kernels.first_of_ties(begins, ends, rows, found, scores, best, posterior.TIE, labels)
    return labels


def _room(n_components, n_pairs):
    """Where the pairs of each component begin (K + 1,), and their rows."""
    return np.empty(n_components + 1, dtype=np.intp), np.empty(n_pairs, dtype=np.intp)


def _scored(Y, mixture, k, rows):
    """P (y - m) of some of the rows under component k, (n, D), and their log joints, (n,)."""
    deviations, scores = np.empty((len(rows), Y.shape[1])), np.empty(len(rows))
    _kernels.gather_about(Y, rows, mixture.means[k], deviations)
    product = deviations @ mixture.precisions[k]
    _kernels.score_product(deviations, product, mixture.constants[k], scores)
    return product, scores
