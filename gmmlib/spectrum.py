"""Circulant covariances on the torus, and the Fourier convention used everywhere.

A stationary Gaussian on an H x W torus has a block-circulant covariance, which the two-dimensional Fourier
basis diagonalises.  With the unitary transform ``z = rfft2(x, norm="ortho")`` its eigenvalue at frequency f
is the spectrum ``s(f) = E|z(f)|^2``, in squared grey levels, and the exact density of a zero-mean image of
D = H W pixels, in nats per image, is

.. math:: \\log N(x; s) = -\\tfrac12 \\sum_f w(f)
          \\Big[\\log 2\\pi s(f) + \\frac{|z(f)|^2}{s(f)}\\Big].

A real image has ``|z(f)| = |z(-f)|``, so three layouts of the same numbers occur:

full
    (H, W), one value for each of the D frequencies; only figures use it.
half plane
    (H, W//2 + 1), what ``rfft2`` returns and what users see.  ``w(f)`` counts the full-plane
    frequencies behind a bin: 1 in the columns that are their own mirror image
    (f = 0, and f = W/2 when W is even), 2 elsewhere.
folded
    (F,), each power once: the self-mirrored columns of the half plane still hold f and -f.
    The models compute in this layout.

A `shape` is the height H and width W of images, in pixels.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft

from gmmlib import _kernels


class Fold(NamedTuple):
    """How the half plane of an image shape folds into its F distinct powers: the layout of this basis.

    What layouts have in common is in `gmmlib.stationary.bases`.
    """

    shape: tuple  # (H, W) of the images
    bins: np.ndarray  # (F,)  flat half-plane index that represents each power
    multiplicity: np.ndarray  # (F,)  full-plane frequencies behind it; sums to the dimension
    where: np.ndarray  # (H * (W//2 + 1),)  place of each half-plane bin in the fold, -1 if left out

    # What is said of this basis; NamedTuple takes what has no annotation for no field.
    name, one, several, moving = "fourier", "a frequency", "frequencies", "every frequency but zero"
    has_mean = slides = True

    @property
    def dimension(self):
        """Count the real dimensions: H W, or H W - 1 without the zero frequency."""
        return int(self.multiplicity.sum())

    @staticmethod
    def of(shape, without_mean=False):
        """Layout of images (H, W)."""
        return fold(shape, zero_frequency=not without_mean)

    @property
    def plane(self):
        """Shape of the half plane, (H, W//2 + 1)."""
        height, width = self.shape
        return height, width // 2 + 1

    @property
    def counts(self):
        """Full-plane frequencies behind each place of the half plane."""
        return multiplicity(self.shape)

    @property
    def varying(self):
        """Which powers (F,) are not those of the mean."""
        return self.bins > 0

    def powers(self, images):
        """Powers (N, F) of images (N, H, W), squared grey levels."""
        return powers(images, self)

    def unfold(self, values, left_out=0.0):
        """Spread folded values (..., F) over the half plane; f = 0 may be `left_out`."""
        return unfold(values, self, left_out)

    def filtered(self, images, gains):
        """Images (..., H, W) whose coefficients are multiplied by gains (..., H, W//2 + 1)."""
        return fft.irfft2(fft.rfft2(images) * gains, s=self.shape)

    def covariances(self, spectra):
        """Block-circulant covariances of the pixels, (K, D, D), of half-plane spectra."""
        height, width = self.shape
        row, column = np.divmod(np.arange(height * width), width)
        places = (row[:, None] - row) % height, (column[:, None] - column) % width
        return autocovariance(spectra, self.shape)[:, *places]


def multiplicity(shape):
    """Count the full-plane frequencies behind each half-plane bin, (H, W//2 + 1): 1 or 2, H W together."""
    height, width = shape
    w = np.full((height, width // 2 + 1), 2.0)
    w[:, 0] = 1.0
    if width % 2 == 0:
        w[:, -1] = 1.0
    return w


@lru_cache(maxsize=2)  # of a large image it takes as long as the transform
def fold(shape, zero_frequency=True):
    """List the distinct powers of a real image, a `Fold`: 34 at 8 x 8, 130 at 16 x 16, 394 at 28 x 28 pixels.

    `zero_frequency` says whether f = 0 is one of them; patches whose mean was removed have no power there.
    """
    height, width = shape
    columns = width // 2 + 1
    row, column = np.divmod(np.arange(height * columns), columns)
    self_mirrored = multiplicity(shape).ravel() == 1.0
    # In a self-mirrored column the partner of row h is row -h: the lower of both stands for the pair.
    first = np.where(self_mirrored, np.minimum(row, -row % height), row) * columns + column
    stands = first == np.arange(len(first))
    bins, where = np.flatnonzero(stands), (np.cumsum(stands) - 1)[first]
    counts = np.bincount(where, weights=multiplicity(shape).ravel())
    if not zero_frequency:
        bins, counts, where = bins[1:], counts[1:], where - 1
    for values in bins, counts, where:
        values.flags.writeable = False
    return Fold((height, width), bins, counts, where)


def powers(images, layout):
    """Powers ``|z(f)|^2`` (N, F) of images (N, H, W), squared grey levels, by the `Fold` of their shape."""
    z = fft.rfft2(np.asarray(images, dtype=np.float64), norm="ortho").reshape(len(images), -1)
    out = np.empty((len(z), len(layout.bins)))
    _kernels.squares(z, layout.bins, out)
    return out


def unfold(values, layout, left_out=0.0):
    """Spread folded values (..., F) over the half plane (..., H, W//2 + 1); f = 0 may be `left_out`."""
    height, width = layout.shape
    spread = np.where(layout.where >= 0, values[..., layout.where], left_out)
    return spread.reshape(*values.shape[:-1], height, width // 2 + 1)


def full_plane(half, shape):
    """Spread half-plane spectra (..., H, W//2 + 1) over all frequencies (..., H, W), the zero in the middle.

    The `shape` is needed because the half plane alone does not tell an even from an odd width.
    """
    height, width = shape
    row = np.arange(height)[:, None]
    column = np.arange(width)[None, :]
    mirrored = column > width // 2
    plane = half[..., np.where(mirrored, -row % height, row), np.where(mirrored, width - column, column)]
    return fft.fftshift(plane, axes=(-2, -1))


def autocovariance(spectrum, shape):
    """Turn half-plane spectra (..., H, W//2 + 1) into autocovariances (..., H, W), in squared grey levels."""
    return fft.irfft2(spectrum, s=shape)


def from_autocovariance(autocovariance):
    """Turn autocovariances (..., H, W) into half-plane spectra (..., H, W//2 + 1)."""
    return fft.rfft2(autocovariance).real


def frequencies(shape):
    """Give the radial frequency of each half-plane bin, (H, W//2 + 1), in cycles per pixel."""
    height, width = shape
    return np.hypot(fft.fftfreq(height)[:, None], fft.rfftfreq(width)[None, :])
