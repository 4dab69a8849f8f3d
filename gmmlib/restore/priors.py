"""What restoration asks of a mixture: estimates of clean patches from noisy ones.

A patch is its mean and the rest.  The mixture says how the rest is distributed; of the mean nothing is known
beforehand, and that of the noisy patch is kept.  The estimate is the Wiener filter of the component that is
most probable given the noisy patch (Zoran and Weiss 2011, ICCV).
"""

import math

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gmmlib import ConvolutionalGMM, FullGMM, _kernels, posterior
from gmmlib.full import screening, steps, whitening, wiener
from gmmlib.stationary import bases
from gmmlib.stationary import steps as stationary


def prior_of(mixture):
    """How a fitted mixture of patches serves as a prior; ValueError if it cannot."""
    if type(mixture) not in (FullGMM, ConvolutionalGMM):
        raise ValueError(f"prior must be a fitted FullGMM or ConvolutionalGMM of patches; got {mixture!r}.")
    check_is_fitted(mixture)
    if type(mixture) is FullGMM:
        return OfFull(mixture)
    return (OfCosines if mixture.basis_ == "cosine" else OfStationary)(mixture)


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


class OfStationary:
    """Patches under a `ConvolutionalGMM` of patches without their means."""

    def __init__(self, mixture):
        self.mixture, (self.side, width) = mixture, mixture.image_shape_
        if self.side != width or mixture.spectra_[:, 0, 0].any():
            raise ValueError(
                "prior must be a mixture of square patches, fitted with zero_mean_patches=True; got patches "
                f"of {self.side} x {width} with zero_mean_patches={mixture.zero_mean_patches}."
            )

    def estimator(self, noise_variance):
        """A function of a block of patches (n, side, side), which estimates the clean ones."""
        mixture = self.mixture
        layout = bases.layout(mixture.basis_, mixture.image_shape_, True)
        gains = mixture.spectra_ / (mixture.spectra_ + noise_variance)
        gains[:, 0, 0] = 1.0  # that of the mean
        spectra = mixture.spectra_.reshape(len(gains), -1)[:, layout.bins] + noise_variance
        noisy = stationary.Parameters(mixture.weights_, spectra)
        slope, constant = stationary.coefficients(noisy, layout.multiplicity)

        def estimate(patches):
            labels = posterior.most_probable(layout.powers(patches) @ slope + constant)
            return layout.filtered(patches, gains[labels])

        return estimate


class OfCosines(OfStationary):
    """The same in the cosine basis, in single precision: a restored image moves by some 1e-6 grey levels."""

    def estimator(self, noise_variance):
        """A function of a block of patches (n, side, side), which estimates the clean ones."""
        spectra = self.mixture.spectra_.reshape(len(self.mixture.weights_), -1)[:, 1:]
        noisy = stationary.Parameters(self.mixture.weights_, spectra + noise_variance)
        slope, constant = (
            a.astype(np.float32) for a in stationary.coefficients(noisy, np.ones(spectra.shape[1]))
        )
        gains = (spectra / (spectra + noise_variance)).astype(np.float32)
        waves = bases.cosines(self.mixture.image_shape_)[:, 1:].astype(np.float32)

        def estimate(patches):
            rows = patches.reshape(len(patches), -1).astype(np.float32)
            z = rows @ waves
            labels = ((z * z) @ slope + constant).argmax(axis=1)
            z *= gains[labels] - 1  # what the filter takes away; the mean has no part in it
            return (rows + z @ waves.T).reshape(patches.shape)

        return estimate
