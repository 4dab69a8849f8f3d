r"""Log densities of what is observed of samples, by projections of whole whitened samples.

Let :math:`u = W (x - \mu)` be the whitened sample with its missing coordinates filled with anything, for
:math:`W^\top W = C^{-1}`, and :math:`V_m` the columns of W that belong to the missing ones.  Another filling
moves u within their span; the best one leaves

.. math:: (x_o - \mu_o)^\top C_{oo}^{-1} (x_o - \mu_o) = |u|^2 - |Q^\top u|^2, \qquad
          \log\det C_{oo} = \log\det C + \log\det V_m^\top V_m

with Q an orthonormal basis of the span.  So all samples share the product of whole ones, whatever they miss,
and each adds a few projections.

**Digits.** What the projections take away is lost from the digits of what is left, the more so the better the
others tell a missing coordinate: its variance is then many times that given all others (the *inflation*).
A row is factorised by itself, over its observed coordinates, where :math:`|u|^2` times the largest inflation
of what it misses exceeds `LARGEST` times the distance left; and where it misses so many coordinates that this
is less work.  Samples of a pattern that is common in their block share a factorisation.
"""

from functools import cached_property

import numpy as np

from gmmlib import _kernels
from gmmlib.full import whitening

LARGEST = 1e6  # times the distance left: beyond, it could be off by more than some 1e-10 of it
WORK = 12  # projections of m of D coordinates take some `WORK` m^2 D / (D - m)^3 of a factorisation's time
FEW = 64  # observed coordinates up to which a row is factorised by itself
COMMON = 100  # samples of a block from which on a pattern is factorised once


def patterns(observed):
    """Distinct rows of booleans (N, D), and which of them each row is, (N,)."""
    packed = np.packbits(observed, axis=1)
    if not packed.shape[1]:
        return observed[:1], np.zeros(len(observed), dtype=np.intp)
    keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    return observed[first], which.ravel()


class Marginals:
    """Scores samples that miss coordinates under K Gaussians.

    Parameters
    ----------
    weights, means, covariances : ndarray, (K,), (K, D) and (K, D, D)
        Weights need not sum to 1.
    parameters : steps.Parameters, optional
        The same Gaussians, whitened; without them nothing is projected.
    """

    def __init__(self, weights, means, covariances, parameters=None):
        with np.errstate(divide="ignore"):
            self._log_weights = np.log(weights)
        self._means, self._covariances, self._parameters = means, covariances, parameters

    def log_joint(self, X):
        """Log weight plus log density of what is observed of X (n, D), (n, K), nats; NaN is missing."""
        joint = np.empty((len(X), len(self._means)))
        distinct, which = patterns(~np.isnan(X))
        counts = np.bincount(which, minlength=len(distinct))
        rare = counts[which] < COMMON
        rows = np.flatnonzero(rare)
        if len(rows):
            joint[rows] = self._row_by_row(X[rows])
            rare[rows] = ~np.isnan(joint[rows]).any(axis=1)
        for number in np.unique(which[~rare]):
            rows = np.flatnonzero((which == number) & ~rare)
            joint[rows] = self._of_pattern(X[rows], distinct[number])
        return joint

    def _row_by_row(self, X):
        """Log joints (n, K); NaN where a row has too many coordinates to be factorised by itself."""
        joint = np.full((len(self._means), len(X)), np.nan)
        if self._parameters is not None:
            n_missing, dimension = np.isnan(X).sum(axis=1), X.shape[1]
            pays = np.flatnonzero(WORK * n_missing**2 * dimension <= (dimension - n_missing) ** 3)
            if len(pays):
                joint[:, pays] = self._projected(X[pays])
        for k, row in enumerate(joint):
            gaussian = self._means[k], self._covariances[k], self._log_weights[k]
            _kernels.marginal_by_factor(X, *gaussian, FEW, row)
        return joint.T

    def _projected(self, X):
        """Log joints (K, n); NaN where too many digits would be lost."""
        _, _, whiteners, axes, _ = self._parameters
        Y = axes.rotate(np.where(np.isnan(X), axes.centre, X))
        joint = np.empty((len(self._means), len(X)))
        for k, row in enumerate(joint):
            responses, inflation, constant = self._projections[k]
            constant = constant + self._log_weights[k]
            u, offset = whitening.whitened(Y, whiteners, k), whiteners.offsets[k]
            _kernels.marginal_by_projection(u, offset, X, responses, inflation, constant, LARGEST, row)
        return joint

    def _of_pattern(self, X, columns):
        """Log joints (n, K) of samples that have the same columns (D,) of bool."""
        joint = np.empty((len(X), len(self._means)))
        half = 0.5 * columns.sum() * np.log(2 * np.pi)
        samples = X[:, columns]
        for k, mean in enumerate(self._means):
            W = whitening.inverse_cholesky(self._covariances[k][np.ix_(columns, columns)])
            distance = (((samples - mean[columns]) @ W.T) ** 2).sum(axis=1)
            joint[:, k] = self._log_weights[k] - half + np.log(W.diagonal()).sum() - 0.5 * distance
        return joint

    @cached_property
    def _projections(self):
        """For each component: responses (D, D), inflations (D,), and the constant of whole samples, nats."""
        _, means, whiteners, axes, _ = self._parameters
        found = []
        for k, covariance in enumerate(self._covariances):
            W = whitening.triangle(whiteners, k)
            responses = np.ascontiguousarray(W.T if axes.axes is None else axes.axes @ W.T)
            inflation = covariance.diagonal() * (responses**2).sum(axis=1)
            constant = np.log(W.diagonal()).sum() - 0.5 * len(W) * np.log(2 * np.pi)
            found.append((responses, inflation, constant))
        return found
