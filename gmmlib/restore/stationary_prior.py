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
        side, half = self.side, (self.side + 1) // 2
        order = np.r_[0:side:2, 1:side:2]  # of frequencies, even waves first
        spectra = self.mixture.spectra_[:, order[None, :], order[:, None]].reshape(-1, side**2)
        noisy = steps.Parameters(self.mixture.weights_, spectra[:, 1:] + noise_variance)
        slope, constant = steps.coefficients(noisy, np.ones(side**2 - 1))
        taken = np.zeros((side**2, len(spectra)))  # nothing of the mean
        taken[1:] = -(noise_variance / noisy.spectra).T
        waves = bases.cosines((side, 1))[:half, order]
        waves[side // 2 : half] /= 2  # the middle of an odd side
        basis = bases.cosines((side, side)).reshape(-1, side, side)[:, order[None, :], order[:, None]]
        arrays = waves, basis.reshape(side**2, -1), np.column_stack([constant, slope.T]), taken
        return Shrinkage(*(np.ascontiguousarray(a, dtype=np.float32) for a in arrays))


class Shrinkage(NamedTuple):
    """Estimates of clean patches, whose D cosine coefficients the most probable of K components shrinks.

    The coefficient of vertical frequency u and horizontal frequency v is in place (v, u), even ones first.
    """

    waves: np.ndarray  # (half, side)  see `gmmlib._patch_loops`
    basis: np.ndarray  # (D, D)  patches in columns
    scores: np.ndarray  # (K, D)  log joint of a patch: of a one, and of all powers but that of the mean
    taken: np.ndarray  # (D, K)  gains less 1: what shrinking adds to a coefficient, as a share of it

    def __call__(self, patches):
        """Estimates (n, side, side) of a block of patches."""
        rows = np.asarray(patches, dtype=np.float32).reshape(len(patches), -1)
        z = self.basis.T @ rows.T
        self._shrink(z, np.empty((len(self.scores), len(rows)), dtype=np.float32))
        return patches + (z.T @ self.basis.T).reshape(patches.shape)

    def strip(self, pixels):
        """Sum (h, w) of what estimates add to all patches of an image (h, w), in their places."""
        side = self.waves.shape[1]
        n_rows, n_columns = (length - side + 1 for length in pixels.shape)
        across = np.empty((len(pixels), side, n_columns), dtype=np.float32)
        _kernels.transform_across(pixels.astype(np.float32), self.waves, across)
        added = np.zeros_like(across)
        for left in range(0, n_columns, COLUMNS):
            z = np.empty((side, side, min(COLUMNS, n_columns - left)), dtype=np.float32)
            joint = np.empty((len(self.scores), z.shape[2]), dtype=np.float32)
            for top in range(n_rows):
                _kernels.transform_down(across[top : top + side], self.waves, left, z)
                self._shrink(z.reshape(side**2, -1), joint)
                _kernels.back_down(z, self.waves, left, added[top : top + side])
        out = np.zeros(pixels.shape, dtype=np.float32)
        _kernels.back_across(added, self.waves, out)
        return out

    def _shrink(self, z, joint):
        """Replace coefficients (D, n) by what shrinking adds to them; `joint` (K, n) is overwritten."""
        powers = z * z
        powers[0] = 1.0
        np.matmul(self.scores, powers, out=joint)
        best, labels = np.empty(z.shape[1], dtype=np.float32), np.empty(z.shape[1], dtype=np.uint32)
        _kernels.largest(joint, best, labels)
        _kernels.weigh(self.taken, labels, z)
