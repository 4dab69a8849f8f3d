"""Stationary mixtures as priors of patches."""

import numpy as np

from gmmlib import posterior
from gmmlib.stationary import bases, steps


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
        noisy = steps.Parameters(mixture.weights_, spectra)
        slope, constant = steps.coefficients(noisy, layout.multiplicity)

        def estimate(patches):
            labels = posterior.most_probable(layout.powers(patches) @ slope + constant)
            return layout.filtered(patches, gains[labels])

        return estimate


class OfCosines(OfStationary):
    """The same in the cosine basis, in single precision: a restored image moves by some 1e-6 grey levels."""

    def estimator(self, noise_variance):
        """A function of a block of patches (n, side, side), which estimates the clean ones."""
        spectra = self.mixture.spectra_.reshape(len(self.mixture.weights_), -1)[:, 1:]
        noisy = steps.Parameters(self.mixture.weights_, spectra + noise_variance)
        slope, constant = (a.astype(np.float32) for a in steps.coefficients(noisy, np.ones(spectra.shape[1])))
        gains = (spectra / (spectra + noise_variance)).astype(np.float32)
        waves = bases.cosines(self.mixture.image_shape_)[:, 1:].astype(np.float32)

        def estimate(patches):
            rows = patches.reshape(len(patches), -1).astype(np.float32)
            z = rows @ waves
            labels = ((z * z) @ slope + constant).argmax(axis=1)
            z *= gains[labels] - 1  # what the filter takes away; the mean has no part in it
            return (rows + z @ waves.T).reshape(patches.shape)

        return estimate
