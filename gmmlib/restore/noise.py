r"""The level of white noise in a photograph, from the patches of the photograph alone.

Patches of a photograph lie near a subspace, and in all other directions they have the variance of the noise.
So the smaller eigenvalues of their covariance are :math:`\sigma^2` but for sampling, symmetric about it: the
largest eigenvalues are left out until the mean of the others is not above their median (Chen, Zhu and Heng
2015, ICCV, 477-485).
"""

import numpy as np

from gmmlib import _checks
from gmmlib.data import overlap

SIDE = 8  # pixels of a patch
ROWS_AT_ONCE = 64  # of patches


def noise_level(image):
    """Standard deviation of white noise in a grey image (H, W), in its own grey levels.

    ValueError for an image that is not finite, or smaller than 8 x 8 pixels.
    """
    image = _checks.array(image, "image")
    _checks.real(image, "image")
    if image.ndim != 2 or min(image.shape) < SIDE:
        raise ValueError(
            f"image must be a grey image (H, W) of at least {SIDE} x {SIDE} pixels; got shape {image.shape}. "
            "Pass one channel, or sigma."
        )
    image = image.astype(np.float64)
    _checks.finite(image, "image")
    return float(np.sqrt(_variance(np.linalg.eigvalsh(_covariance(image - image.mean())))))


def _covariance(image):
    """Covariance (D, D) of all patches of an image."""
    patches, size = overlap.extract(image, SIDE), SIDE * SIDE
    first, second = np.zeros(size), np.zeros((size, size))
    for start in range(0, len(patches), ROWS_AT_ONCE):
        rows = patches[start : start + ROWS_AT_ONCE].reshape(-1, size)
        first += rows.sum(axis=0)
        second += rows.T @ rows
    count = patches.shape[0] * patches.shape[1]
    return second / count - np.outer(first, first) / count**2


def _variance(rising):
    """Variance of the noise from eigenvalues in rising order."""
    for count in range(len(rising), 0, -1):
        mean = rising[:count].mean()
        if mean <= np.median(rising[:count]):
            break
    return max(mean, 0.0)
