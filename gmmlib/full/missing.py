"""Gaussian mixtures on samples with missing coordinates, through marginals and conditionals.

With o the observed and m the missing coordinates of a sample, a component's density of what is there is
the marginal ``N(x_o; mean_o, C_oo)``, and what is not there is expected at

.. math:: \\mathbb{E}[x_m \\mid x_o] = \\mu_m + C_{mo} C_{oo}^{-1} (x_o - \\mu_o).

Samples that miss the same coordinates share one factorisation a component; densities mostly need none, see
`gmmlib.full.marginal`.
"""

import numpy as np
from scipy.linalg import solve_triangular
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, posterior
from gmmlib.full import marginal, whitening


def patterns(X):
    """Yield the observed columns (D,) of bool and the rows of each pattern of missing values in X (N, D)."""
    distinct, which = marginal.patterns(~np.isnan(X))
    for number, columns in enumerate(distinct):
        yield columns, np.flatnonzero(which == number)


def log_joint(X, weights, means, covariances):
    """Log weight plus log marginal density of what is observed, (N, K), nats; NaN in X is missing."""
    return marginal.Marginals(weights, means, covariances).log_joint(X)


def impute(X, weights, means, covariances, share=None):
    """Fill missing values of X (N, D) with their expectation given the observed ones; a new array.

    `share` (N, K) are posteriors of the components, where more is known of a sample than its values.
    """
    filled = np.array(X, dtype=np.float64)
    share = posterior.proba(log_joint(X, weights, means, covariances)) if share is None else share
    for columns, rows in patterns(X):
        if columns.all():
            continue
        samples = X[np.ix_(rows, columns)]
        expected = np.zeros((len(rows), int((~columns).sum())))
        for k, mean in enumerate(means):
            covariance = covariances[k]
            W = whitening.inverse_cholesky(covariance[np.ix_(columns, columns)])
            slope = W.T @ (W @ covariance[np.ix_(columns, ~columns)])
            expected += share[rows, k, None] * (mean[~columns] + (samples - mean[columns]) @ slope)
        filled[np.ix_(rows, ~columns)] = expected
    return filled


def sample(X, weights, means, covariances, n_samples, rng, chosen):
    r"""Draw missing values of X (N, D) from their distribution given the observed ones, (n_samples, N, D).

    The components are those `chosen` (n_samples, N).  With the Cholesky factor of a component's covariance,
    observed coordinates first, and noise e:

    .. math:: x_m = \mu_m + L_{mo} L_{oo}^{-1} (x_o - \mu_o) + L_{mm} e,

    whose covariance :math:`L_{mm} L_{mm}^\top` is the conditional one, without a difference of matrices.
    """
    X = np.asarray(X, dtype=np.float64)
    filled = rng.standard_normal((n_samples, *X.shape))
    for columns, rows in patterns(X):
        present, absent = np.flatnonzero(columns), np.flatnonzero(~columns)
        order, split = np.concatenate([present, absent]), len(present)
        filled[:, rows[:, None], present] = X[np.ix_(rows, present)]
        for k in np.unique(chosen[:, rows]) if len(absent) else ():
            draw, n = np.nonzero(chosen[:, rows] == k)
            n = rows[n]
            L = np.linalg.cholesky(covariances[k][np.ix_(order, order)])
            slope = solve_triangular(L[:split, :split], L[split:, :split].T, lower=True, trans=1)
            places = draw[:, None], n[:, None], absent
            difference = X[np.ix_(n, present)] - means[k][present]
            filled[places] = means[k][absent] + difference @ slope + filled[places] @ L[split:, split:].T
    return filled


class Incomplete:
    """What a mixture of full covariances does with samples that miss values."""

    def impute(self, X):
        """Fill NaN with the expectation given what is observed of each sample: a new array (N, D)."""
        known = self._incomplete(X, "impute")
        return impute(*known, share=posterior.proba(self.log_joint(X)))

    def sample_given(self, X, n_samples=1, random_state=None):
        """Draw the missing values of each sample given what is observed of it, exactly: (n_samples, N, D).

        A component is drawn from the posterior of what is observed, then the missing values from its
        conditional Gaussian; a sample (D,) without values is drawn from the mixture.  A sample's randomness
        does not depend on what others miss, and the mean over many draws is what `impute` returns.
        ValueError without ``allow_missing=True``, or if an argument cannot be used.
        """
        known = self._incomplete(X, "sample_given")
        n_samples = _checks.positive_integer(n_samples, "n_samples")
        rng = _checks.generator(random_state)
        share = posterior.proba(self.log_joint(X))
        chosen = np.stack([posterior.draw(share, rng) for _ in range(n_samples)])
        return sample(*known, n_samples, rng, chosen)

    def _incomplete(self, X, method):
        """Samples that may miss values, and the parameters."""
        check_is_fitted(self)
        if not self.allow_missing:
            raise ValueError(f"{method} needs allow_missing=True: only then is NaN a missing value.")
        return self._data(X, missing=True), self.weights_, self.means_, self.covariances_
