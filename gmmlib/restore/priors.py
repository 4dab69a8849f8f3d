"""What restoration asks of a mixture: estimates of clean patches from noisy ones.

A patch is its mean and the rest.  The mixture says how the rest is distributed; of the mean nothing is known
beforehand, and that of the noisy patch is kept.  The estimate is the Wiener filter of the component that is
most probable given the noisy patch (Zoran and Weiss 2011, ICCV).
"""

import math

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gmmlib import ConvolutionalGMM, FullGMM
from gmmlib.full import wiener
from gmmlib.stationary import bases


def prior_of(mixture):
    """How a fitted mixture of patches serves as a prior; ValueError if it cannot."""
    kinds = {FullGMM: OfFull, ConvolutionalGMM: OfStationary}
    if type(mixture) not in kinds:
        raise ValueError(f"prior must be a fitted FullGMM or ConvolutionalGMM of patches; got {mixture!r}.")
    check_is_fitted(mixture)
    return kinds[type(mixture)](mixture)


class OfFull:
    """Patches under a `FullGMM` of patches without their means, row by row."""

    def __init__(self, mixture):
        self.mixture, self.side = mixture, math.isqrt(mixture.n_features_in_)
        if self.side**2 != mixture.n_features_in_:
            raise ValueError(
                f"prior must be a mixture of square patches; got one of {mixture.n_features_in_} columns."
            )

    def estimator(self, noise_variance):
        """A function of patches (n, side, side), which estimates the clean ones."""
        noisy = self.mixture.with_noise(noise_variance)
        gains, means = wiener.filters(self.mixture.covariances_, noise_variance), self.mixture.means_

        def estimate(patches):
            rows = patches.reshape(len(patches), -1)
            constant = rows.mean(axis=1, keepdims=True)
            rows = rows - constant
            labels, out = noisy.predict(rows), np.empty_like(rows)
            for k in np.unique(labels):
                chosen = labels == k
                out[chosen] = means[k] + (rows[chosen] - means[k]) @ gains[k]
            return (out + constant).reshape(patches.shape)

        return estimate


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
        """A function of patches (n, side, side), which estimates the clean ones."""
        noisy, spectra = self.mixture.with_noise(noise_variance), self.mixture.spectra_
        layout = bases.layout(self.mixture.basis_, self.mixture.image_shape_, True)
        gains = spectra / (spectra + noise_variance)
        gains[:, 0, 0] = 1.0  # that of the mean

        def estimate(patches):
            return layout.filtered(patches, gains[noisy.predict(patches)])

        return estimate
