"""Gaussian mixtures on samples with missing coordinates, through marginals and conditionals.

With o the observed and m the missing coordinates of a sample, a component's density of what is there is
the marginal ``N(x_o; mean_o, C_oo)``, and what is not there is expected at

.. math:: \\mathbb{E}[x_m \\mid x_o] = \\mu_m + C_{mo} C_{oo}^{-1} (x_o - \\mu_o).

Samples that miss the same coordinates share one factorisation a component.
"""

import numpy as np

from gmmlib import posterior, whitening


def patterns(X):
    """Yield the observed columns (D,) of bool and the rows of each pattern of missing values in X (N, D)."""
    observed = ~np.isnan(X)
    distinct, which = np.unique(observed, axis=0, return_inverse=True)
    for number, columns in enumerate(distinct):
        yield columns, np.flatnonzero(which.ravel() == number)


def log_joint(X, weights, means, covariances):
    """Log weight plus log marginal density of what is observed, (N, K), nats; NaN in X is missing."""
    joint = np.empty((len(X), len(weights)))
    with np.errstate(divide="ignore"):
        log_weights = np.log(weights)
    for columns, rows in patterns(X):
        half = 0.5 * columns.sum() * np.log(2 * np.pi)
        samples = X[np.ix_(rows, columns)]
        for k, mean in enumerate(means):
            W = whitening.inverse_cholesky(covariances[k][np.ix_(columns, columns)])
            distance = (((samples - mean[columns]) @ W.T) ** 2).sum(axis=1)
            joint[rows, k] = log_weights[k] - half + np.log(W.diagonal()).sum() - 0.5 * distance
    return joint


def impute(X, weights, means, covariances):
    """Fill missing values of X (N, D) with their expectation given the observed ones; a new array."""
    filled = np.array(X, dtype=np.float64)
    share = posterior.proba(log_joint(X, weights, means, covariances))
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
