"""Mixtures of full covariances as priors of patches."""

import math

from gmmlib.em.workers import Workers
from gmmlib.full import choice


class OfFull:
    """Patches under a `FullGMM` of patches without their means, row by row."""

    def __init__(self, mixture):
        self.mixture, self.side = mixture, math.isqrt(mixture.n_features_in_)
        if self.side**2 != mixture.n_features_in_:
            raise ValueError(
                f"prior must be a mixture of square patches; got one of {mixture.n_features_in_} columns."
            )

    def estimator(self, noise_variance):
        """A function of a block of patches (n, side, side), which estimates the clean ones."""
        weights, means, covariances = self.mixture.weights_, self.mixture.means_, self.mixture.covariances_
        with Workers(1, 1):  # several threads of BLAS have other last digits, from 12 x 12 pixels on
            noisy = choice.noisy(weights, means, covariances, noise_variance)
            bounds = choice.bounds(weights, covariances, noisy)

        def estimate(patches):
            rows = patches.reshape(len(patches), -1)
            constant = rows.mean(axis=1, keepdims=True)
            found, _ = choice.filtered(rows - constant, noisy, bounds)
            return (found + constant).reshape(patches.shape)

        return estimate
