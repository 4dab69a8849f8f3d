r"""Log joints of full-covariance Gaussians in few coordinates, by one product.

With the precision :math:`P_k` of component k, its mean :math:`m_k` and a sample y, both about one centre,

.. math:: \ell_k(y) = \big(c_k - \tfrac12 m_k^\top P_k m_k\big) + (P_k m_k)^\top y - \tfrac12 y^\top P_k y

is linear in 1, the y_i and the products y_i y_j for i <= j: F = (D + 1)(D + 2) / 2 numbers that all
components share, so that the log joints of n samples are one product, (n, F) by (F, K).
`gmmlib.full.whitening` takes a product for each component instead, which leaves K D numbers per sample.

Terms that are larger than their sum cost digits: a log joint is off by some 2^-52 times y' P_k y / 2, half
the trace of P_k T on average, with T the second moment of the mixture about the centre.
"""

import numpy as np

from gmmlib import _kernels
from gmmlib.full import whitening

MOST = 32  # coordinates up to which one product is faster
LARGEST = 1e6  # nats of the terms: beyond, a log joint is off by more than some 1e-9 nats
NUMBERS = 2**17  # of monomials made at a time: they stay in the cache


class Quadratic:
    """Log joints of rows as one product; `of` makes it.

    Parameters
    ----------
    centre : ndarray, (D,)
    coefficients : ndarray, (F, K)
        Of the monomials in the order of `gmmlib._loops.monomials`.
    """

    def __init__(self, centre, coefficients):
        self._centre, self._coefficients = centre, coefficients

    def log_joint(self, X):
        """Log weight plus log density (n, K) of rows X (n, D), nats; blocks depend on their number alone."""
        out = np.empty((len(X), self._coefficients.shape[1]))
        step = NUMBERS // len(self._coefficients)
        room = np.empty((min(step, len(X)), len(self._coefficients)))
        for start in range(0, len(X), step):
            rows = X[start : start + step]
            monomials = room[: len(rows)]
            _kernels.monomials(rows, self._centre, monomials)
            np.matmul(monomials, self._coefficients, out=out[start : start + len(rows)])
        return out


def of(parameters, covariances):
    """The `Quadratic` of `steps.Parameters` without rotation, or None if it is slower or loses digits."""
    _, means, whiteners, axes, _ = parameters
    n_components, dimension = means.shape
    if dimension > MOST:
        return None
    moment = np.tensordot(parameters.weights, covariances, 1) + (means.T * parameters.weights) @ means
    rows, columns = np.triu_indices(dimension)
    coefficients = np.empty(((dimension + 1) * (dimension + 2) // 2, n_components))
    for k in range(n_components):
        W = whitening.triangle(whiteners, k)
        precision, offset = W.T @ W, whiteners.offsets[k]
        if (precision * moment).sum() > 2 * LARGEST:
            return None
        product = precision[rows, columns]
        product[rows == columns] *= 0.5
        constant = whiteners.constants[k] - 0.5 * offset @ offset
        coefficients[:, k] = [*-product, *(W.T @ offset), constant]
    return Quadratic(axes.centre, coefficients)
