"""Stationary mixtures as priors of patches."""

from typing import NamedTuple

import numpy as np

from gmmlib import _kernels, posterior
from gmmlib.stationary import bases, steps

COLUMNS = 512  # of patches scored at once: their log joints stay in a processor's second cache


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
        """`Shrinkage` of noisy patches."""
        spectra = self.mixture.spectra_.reshape(len(self.mixture.weights_), -1)[:, 1:]
        noisy = steps.Parameters(self.mixture.weights_, spectra + noise_variance)
        slope, constant = steps.coefficients(noisy, np.ones(spectra.shape[1]))
        taken = np.zeros((self.side**2, len(spectra)))  # none of the mean
        taken[1:] = -(noise_variance / noisy.spectra).T
        waves = bases.cosines((self.side, 1))
        scores = np.column_stack([constant, slope.T])
        return Shrinkage(*(np.ascontiguousarray(a, dtype=np.float32) for a in (waves, scores, taken)))


class Shrinkage(NamedTuple):
    """Estimates of clean patches, whose D cosine coefficients the most probable of K components shrinks."""

    waves: np.ndarray  # (side, side)  columns of cosines
    scores: np.ndarray  # (K, D)  log joint of a patch: of a one and of all powers but that of the mean
    taken: np.ndarray  # (D, K)  gains less 1: what shrinking adds to a coefficient, as a share of it

    def __call__(self, patches):
        """Estimates (n, side, side) of a block of patches."""
        rows = np.asarray(patches, dtype=np.float32).reshape(len(patches), -1)
        basis = np.kron(self.waves, self.waves)
        z = np.ascontiguousarray((rows @ basis).T)
        self._shrink(z)
        return patches + (basis @ z).T.reshape(patches.shape)

    def strip(self, pixels):
        """Sum (h, w) of what estimates add to the patches, in the places of all patches of an image (h, w)."""
        side, waves = len(self.waves), self.waves
        n_rows, n_columns = (length - side + 1 for length in pixels.shape)
        across = np.empty((side, len(pixels), n_columns), dtype=np.float32)
        _kernels.transform_across(pixels.astype(np.float32), waves, across)
        added = np.zeros_like(across)
        for left in range(0, n_columns, COLUMNS):
            z = np.empty((side, side, min(COLUMNS, n_columns - left)), dtype=np.float32)
            for top in range(n_rows):
                _kernels.transform_down(across, waves, top, left, z)
                self._shrink(z.reshape(side**2, -1))
                _kernels.back_down(z, waves, top, left, added)
        out = np.zeros(pixels.shape, dtype=np.float32)
        _kernels.back_across(added, waves, out)
        return out

    def _shrink(self, z):
        """Replace coefficients (D, n) by what shrinking adds to them."""
        powers = z * z
        powers[0] = 1.0
        joint = self.scores @ powers
        best, labels = np.empty(z.shape[1], dtype=np.float32), np.empty(z.shape[1], dtype=np.int32)
        _kernels.largest(joint, best, labels)
        _kernels.weigh(self.taken, labels, z)
