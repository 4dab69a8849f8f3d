r"""Posterior means of images that were seen through white noise, in the basis of their coefficients.

White noise of variance v adds v to every variance s of a component, in every orthonormal basis, and the
Wiener filter multiplies each coefficient by :math:`s / (s + v)` (see `gmmlib.full.wiener`).  The means are 0,
so filters of components add up, weighted by their posteriors, to one filter an image: two transforms,
however many components there are.

Noise on images that had their own mean removed has none either.  The mean of what was seen passes as it is:
the filter of the coefficient that is left out is 1, as if nothing were known of the mean beforehand.
"""

import math

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks
from gmmlib.full import wiener
from gmmlib.stationary import steps

LARGEST_DENSE = 1024  # pixels of images that may be masked


def filters(spectra, noise_variance, layout):
    """Wiener filters in the plane of the layout, (K, H, W//2 + 1) or (K, H, W), of folded spectra (K, F)."""
    return layout.unfold(spectra / (spectra + noise_variance), 1.0)


class Denoising:
    """What a mixture of stationary Gaussians does with images that were seen through white noise."""

    def with_noise(self, noise_variance):
        """Mixture of the same class of images with white noise of a variance, in squared grey levels.

        With `zero_mean_patches` the noise has its mean removed as well.  The mixture has no run of EM behind
        it: its trace is empty.  NotFittedError before a fit; ValueError if the variance is not finite or
        negative.
        """
        check_is_fitted(self)
        noise_variance = _checks.non_negative(noise_variance, "noise_variance")
        weights, spectra = self._parameters
        made = wiener.without_run(self)
        made._set(self._layout, steps.Parameters(weights.copy(), spectra + noise_variance))
        return made

    def posterior_mean(self, Y, noise_variance, *, mask=None, most_probable=False):
        """Expectation of images given what was seen of them through white noise, (N, H, W): Wiener filters.

        Parameters
        ----------
        Y : array-like, (N, H, W)
            Images of the mixture, each with noise.  With `zero_mean_patches` their means pass unchanged.
        noise_variance : float
            Of each pixel's noise, in squared grey levels.  At 0 what was seen comes back as it is.
        mask : array-like of bool, (N, H, W), optional
            True where a pixel was seen.  Others may be anything, NaN too, and are expected as well, through
            dense covariances: K (H W)^2 numbers, and K (H W)^3 operations for each pattern in a block of
            images, so there may be 1,024 pixels at most.  With `zero_mean_patches` the mean of the image is
            estimated from the pixels seen, by generalised least squares.  An image of which nothing was
            seen is expected at 0, the mean of the mixture.
        most_probable : bool
            Take the filter of the most probable component alone, not the mean over their posteriors.

        Raises
        ------
        NotFittedError
            Before a fit.
        ValueError
            If an argument cannot be used.
        """
        Y, noise_variance, mask, most_probable = wiener.checked(self, Y, noise_variance, mask, most_probable)
        Y, layout = _checks.images(Y, "Y", self.image_shape_), self._layout
        if mask is not None:
            expected = self._of_masked(Y, mask, noise_variance, most_probable)
        elif noise_variance == 0:
            return np.array(Y, dtype=np.float64)
        else:
            score = self.with_noise(noise_variance)._scoring(Y, False).log_joint
            gains = filters(self._parameters.spectra, noise_variance, layout)

            def expected(rows):
                share, _ = steps.normalised(_checks.log_joints(score(rows), rows.start))
                share = wiener.choice(share) if most_probable else share
                gain = (share @ gains.reshape(len(gains), -1)).reshape(-1, *layout.plane)
                return layout.filtered(np.asarray(Y[rows], dtype=np.float64), gain)

        with self._workers(layout) as workers:
            return workers.fill(expected, np.empty(Y.shape))

    def _of_masked(self, Y, mask, noise_variance, most_probable):
        """Function of rows: expectations of masked images, by dense covariances."""
        size = math.prod(self.image_shape_)
        if size > LARGEST_DENSE:
            raise ValueError(
                f"mask must be None for images of more than {LARGEST_DENSE} pixels, whose covariances would "
                f"be written out; got {size} pixels. Fit a model on patches, or fill the gaps first."
            )
        free_mean, spectra = self._leaves_out(), self.spectra_
        if free_mean:  # any variance of the mean does, for it changes nothing; this one suits the others
            spectra = spectra.copy()
            spectra[:, 0, 0] = spectra.mean(axis=(1, 2))
        covariances = self._layout.covariances(spectra)
        mixture = self.weights_, np.zeros(covariances.shape[:2]), covariances

        def expected(rows):
            seen = np.where(mask[rows], Y[rows], np.nan).reshape(-1, size)
            found = wiener.incomplete(seen, mixture, noise_variance, most_probable, free_mean)
            return found.reshape(-1, *self.image_shape_)

        return expected
