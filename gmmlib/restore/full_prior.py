"""Mixtures of full covariances as priors of patches."""

import math

import numpy as np

from gmmlib import _kernels, posterior
from gmmlib.full import screening, steps, whitening, wiener


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
        noisy = steps.rotated(weights, means, wiener.with_noise(covariances, noise_variance))
        gains, screen = wiener.filters(covariances, noise_variance), screening.of(noisy.whiteners)

        def estimate(patches):
            rows = patches.reshape(len(patches), -1)
            constant = rows.mean(axis=1, keepdims=True)
            rows = rows - constant
            labels = _most_probable(noisy.axes.rotate(rows), noisy.whiteners, screen)
            out = np.empty_like(rows)
            for k, chosen in enumerate(whitening.occupied(labels[:, None] == np.arange(len(means)))):
                out[chosen] = means[k] + (rows[chosen] - means[k]) @ gains[k]
            return (out + constant).reshape(patches.shape)

        return estimate


def _most_probable(Y, whiteners, screen):
    """The most probable of K components for each row (n, D), exactly.

    Only those are scored whose upper bound in single precision reaches the lower bound of the best one: with
    noise many components are within 40 nats of each other, but few within what rounding leaves open.
    """
    if screen is None:
        return posterior.most_probable(whitening.log_joint(Y, whiteners, everything=True))
    rows = Y @ screen.axes
    monomials = np.empty((len(rows), len(screen.coefficients)), dtype=np.float32)
    _kernels.monomials(rows, np.zeros(rows.shape[1]), monomials)
    upper = monomials @ screen.coefficients
    best = upper.argmax(axis=1)
    apart = (screen.spread[best] * rows**2).sum(axis=1) + screen.gap[best]
    near = ~(upper < (upper[np.arange(len(rows)), best] - apart - posterior.TIE)[:, None])
    joint, buffer = np.full(upper.shape, -np.inf), np.empty(whitening.ROWS_AT_ONCE * Y.shape[1])
    alone = near.sum(axis=1) == 1
    joint[near] = 0.0
    near[alone] = False  # nobody is left to compare with
    for k, chosen in enumerate(whitening.occupied(near)):
        whitening.score(Y, whiteners, k, chosen, joint, buffer)
    return posterior.most_probable(joint)
