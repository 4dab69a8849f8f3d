"""Log joints of all windows of images under stationary Gaussians, from sums that windows share.

A density of stationary Gaussians needs of a window no more than its powers, and these no more of the phases
than differences.  So the Fourier sums of all windows at one frequency are moving sums of one modulated image:
some additions per window and frequency instead of a transform per window (`gmmlib._map_loops.window_powers`).
"""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gmmlib import _kernels
from gmmlib.stationary import steps


class Windows:
    """Scores windows of H x W pixels at a stride under the components of `steps.Parameters`.

    Parameters
    ----------
    parameters : steps.Parameters
    layout : gmmlib.spectrum.Fold
        Of H x W.
    stride : (int, int)
    """

    def __init__(self, parameters, layout, stride):
        self._slope, self._constant = steps.coefficients(parameters, layout.multiplicity)
        self._layout, self._stride = layout, stride
        angles = [2 * np.pi * np.outer(range(side), range(side)) / side for side in layout.shape]
        self._cosine = tuple(np.cos(angle) / len(angle) ** 0.5 for angle in angles)
        self._sine = tuple(np.sin(angle) / len(angle) ** 0.5 for angle in angles)
        rows, columns = np.divmod(layout.bins, layout.shape[1] // 2 + 1)
        self._by_column = np.argsort(columns, kind="stable")
        self._rows, self._columns = rows[self._by_column], columns[self._by_column]
        # Where the columns rise, so do slopes and multiplicities.
        self._slope = self._slope[self._by_column]
        varying = (layout.bins > 0) * layout.multiplicity / np.prod(layout.shape)
        self._varying = varying[self._by_column]

    def score(self, images, min_std):
        """Log joints of the windows whose standard deviation is at least `min_std`.

        Parameters
        ----------
        images : ndarray, (n, height, width)
            Float64.
        min_std : float
            Grey levels.

        Returns
        -------
        joint : ndarray, (S, K)
            Nats.
        places : ndarray of int, (S,)
            Flat places of these windows among all, image by image and row by row.
        """
        P = self._powers(images)
        varies = self._varying @ P >= min_std**2
        places = np.flatnonzero(varies)
        P = P if len(places) == P.shape[1] else np.compress(varies, P, axis=1)
        joint = P.T @ self._slope
        joint += self._constant
        return joint, places

    def _powers(self, images):
        """Powers of all windows, (F, number of windows), in the order of `self._by_column`."""
        counts = [
            (length - side) // step + 1
            for length, side, step in zip(images.shape[1:], self._layout.shape, self._stride, strict=True)
        ]
        out = np.empty((len(self._rows), len(images), *counts))
        waves = self._stride, self._cosine, self._sine, self._rows, self._columns
        _kernels.window_powers(images, *waves, out)
        return out.reshape(len(out), -1)


class OfWindows:
    """Mixtures of stationary Gaussians, which score all windows of an image at once."""

    @property
    def windows(self):
        """Function of a stride (rows, columns): the scorer of windows of the fitted size, `Windows`.

        AttributeError in a basis whose powers do not slide.
        """
        check_is_fitted(self)
        layout = self._layout
        if not layout.slides:
            raise AttributeError(
                f'windows need basis="fourier", whose sums slide from window to window; got '
                f'"{layout.name}". Score patches that are cut out, by log_joint.'
            )
        return lambda stride: Windows(self._parameters, layout, stride)
