r"""The level of white noise in a photograph, from the patches of the photograph alone.

Flat patches are those whose grey levels differ no more than noise alone makes them differ.  Which these are
depends on the level of the noise: from the smallest eigenvalue of the covariance of all patches on, which
texture raises least, each estimate selects the patches of the next (Liu, Tanaka and Okutomi 2013, IEEE Trans.
Image Process. 22, 5226-5237).  Flat patches lie near a subspace, and in all other directions they have the
variance of the noise: the smaller eigenvalues of their covariance are :math:`\sigma^2` but for sampling,
symmetric about it.  The largest are left out until the mean of the others is not above their median (Chen,
Zhu and Heng 2015, ICCV, 477-485); the smallest alone, which Liu et al. take, is too small of few patches.
"""

from functools import lru_cache

import numpy as np
from scipy.special import gammaincinv

from gmmlib import _checks
from gmmlib.data import overlap

SIDE = 7  # pixels of a patch
RARE = 0.01  # share of patches of pure noise that do not count as flat
LEAST = 1000  # flat patches, overlapping ones: the covariance of fewer is too uncertain
MOST = 5  # selections; two or three settle the third digit
ROWS_AT_ONCE = 16  # of patches


def noise_level(image):
    """Standard deviation of white noise in a grey image (H, W), in its own grey levels.

    ValueError for an image that is not finite, or smaller than 7 x 7 pixels.
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
    image -= image.mean()
    rising = _eigenvalues(image, np.inf)
    few = (image.shape[0] - SIDE + 1) * (image.shape[1] - SIDE + 1) < 4 * LEAST  # too few for the smallest
    variance = _variance(rising) if few else rising[0]
    for _ in range(MOST):
        rising = _eigenvalues(image, variance * _limit())
        if rising is None:
            break
        before, variance = variance, _variance(rising)
        if abs(variance - before) <= 1e-3 * before:
            break
    return float(np.sqrt(max(variance, 0.0)))


def _eigenvalues(image, limit):
    """Those of the covariance of all patches whose texture is below a limit, rising; None of too few."""
    size = SIDE * SIDE
    count, first, second = 0, np.zeros(size), np.zeros((size, size))
    patches = overlap.extract(image, SIDE)
    for start in range(0, len(patches), ROWS_AT_ONCE):
        rows = patches[start : start + ROWS_AT_ONCE]
        flat = texture(image[start : start + len(rows) + SIDE - 1]) < limit
        chosen = rows[flat].reshape(-1, size)
        count += len(chosen)
        first += chosen.sum(axis=0)
        second += chosen.T @ chosen
    if count < LEAST and limit < np.inf:
        return None
    return np.linalg.eigvalsh(second / count - np.outer(first, first) / count**2)


def _variance(rising):
    """Variance of the noise from eigenvalues in rising order."""
    for count in range(len(rising), 0, -1):
        mean = rising[:count].mean()
        if mean <= np.median(rising[:count]):
            break
    return mean


def texture(image):
    """Sum, over each patch of an image, of squared differences between the neighbours of a pixel.

    Left and right ones, and upper and lower ones, where both are in the patch.
    """
    across, down = (image[:, 2:] - image[:, :-2]) ** 2, (image[2:] - image[:-2]) ** 2
    return _sums(across, (SIDE, SIDE - 2)) + _sums(down, (SIDE - 2, SIDE))


def _sums(values, window):
    """Sums over all windows (h, w) of an array."""
    for axis, length in enumerate(window):
        values = np.lib.stride_tricks.sliding_window_view(values, length, axis).sum(axis=-1)
    return values


@lru_cache
def _limit():
    """Texture that a patch of white noise of variance 1 exceeds with probability RARE.

    Texture is a quadratic form of the noise, and so nearly has a gamma distribution, that of the same mean,
    tr A, and variance, 2 tr A^2, where A is its matrix.
    """
    units = np.eye(SIDE * SIDE).reshape(-1, SIDE, SIDE)
    across, down = units[:, :, 2:] - units[:, :, :-2], units[:, 2:] - units[:, :-2]
    differences = np.concatenate([d.reshape(len(units), -1) for d in (across, down)], axis=1)
    form = differences @ differences.T
    mean, variance = np.trace(form), 2 * (form**2).sum()
    return gammaincinv(mean**2 / variance, 1 - RARE) * variance / mean
