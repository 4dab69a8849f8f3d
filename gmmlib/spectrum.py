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

from typing import NamedTuple

import numpy as np
from scipy import fft

NUMBERS = 2**21  # of pixels transformed at a time


class Fold(NamedTuple):
    """How the half plane of an image shape folds into its F distinct powers."""

    shape: tuple  # (H, W) of the images
    bins: np.ndarray  # (F,)  flat half-plane index that represents each power
    multiplicity: np.ndarray  # (F,)  full-plane frequencies behind it; sums to the dimension
    where: np.ndarray  # (H * (W//2 + 1),)  place of each half-plane bin in the fold, -1 if left out

    @property
    def dimension(self):
        """Count the real dimensions: H W, or H W - 1 without the zero frequency."""
        return int(self.multiplicity.sum())


def multiplicity(shape):
    """Count the full-plane frequencies behind each half-plane bin, (H, W//2 + 1): 1 or 2, H W together."""
    height, width = shape
    w = np.full((height, width // 2 + 1), 2.0)
    w[:, 0] = 1.0
    if width % 2 == 0:
        w[:, -1] = 1.0
    return w


def fold(shape, zero_frequency=True):
    """List the distinct powers of a real image, a `Fold`: 34 at 8 x 8, 130 at 16 x 16, 394 at 28 x 28 pixels.

    `zero_frequency` says whether f = 0 is one of them; patches whose mean was removed have no power there.
    """
    height, width = shape
    columns = width // 2 + 1
    # In a self-mirrored column the partner of row h is row -h: the upper of both stands for the pair.  So the
    # rows from `split` on lack these columns.  No sort, as of an image's many frequencies it takes long.
    split, inner = _inner(shape)
    where = np.arange(height * columns).reshape(height, columns)
    size = split * columns + (height - split) * (inner.stop - inner.start)
    bins, counts = np.empty(size, dtype=where.dtype), np.full(size, 2.0)
    for source, target in _slabs(where, bins, shape):
        target[...] = source
    for column in (0, columns - 1) if width % 2 == 0 else (0,):
        # Its rows 0 and H/2 are their own mirror images.
        counts[column : split * columns : columns * max(1, height // 2)][: 2 - height % 2] = 1.0
    if split < height:
        where[split:] -= 1 + np.arange(height - split)[:, None] * (columns - inner.stop + inner.start)
    _mirror(where, shape)
    where = where.ravel()
    if not zero_frequency:
        bins, counts, where = bins[1:], counts[1:], where - 1
    return Fold((height, width), bins, counts, where)


def _inner(shape):
    """The first row that lacks the self-mirrored columns, and the slice of the other columns."""
    height, width = shape
    return height // 2 + 1, slice(1, max(1, width // 2 + width % 2))


def _mirror(half, shape):
    """Fill what rows lack of the self-mirrored columns of half planes (..., H, W//2 + 1), in place."""
    height, width = shape
    split, _ = _inner(shape)
    for column in (0, -1) if width % 2 == 0 else (0,):
        half[..., split:, column] = half[..., height - split : 0 : -1, column]


def _slabs(half, folded, shape):
    """Views of half planes (..., H, W//2 + 1) and of folds (..., F) of them, twice, that hold the same.

    The fold may lack f = 0.
    """
    split, inner = _inner(shape)
    upper, lower = half[..., :split, :].reshape(*half.shape[:-2], -1), half[..., split:, inner]
    size = folded.shape[-1] - lower.shape[-2] * lower.shape[-1]
    yield upper[..., upper.shape[-1] - size :], folded[..., :size]
    yield lower, folded[..., size:].reshape(lower.shape)


def take(half, layout):
    """Fold half planes (..., H, W//2 + 1) to their distinct frequencies (..., F)."""
    out = np.empty((*half.shape[:-2], len(layout.bins)), dtype=half.dtype)
    for source, target in _slabs(half, out, layout.shape):
        target[...] = source
    return out


def powers(images, layout):
    """Powers ``|z(f)|^2`` (N, F) of images (N, H, W), squared grey levels, by the `Fold` of their shape."""
    out = np.empty((len(images), len(layout.bins)))
    step = max(1, NUMBERS // (layout.shape[0] * layout.shape[1]))
    for start in range(0, len(images), step):
        z = fft.rfft2(np.asarray(images[start : start + step], dtype=np.float64), norm="ortho")
        parts = z.view(np.float64)
        np.square(parts, out=parts)
        for source, target in _slabs(z, out[start : start + step], layout.shape):
            np.add(source.real, source.imag, out=target)
    return out


def unfold(values, layout, left_out=0.0):
    """Spread folded values (..., F) over the half plane (..., H, W//2 + 1); f = 0 may be `left_out`."""
    height, width = layout.shape
    spread = np.empty((*values.shape[:-1], height, width // 2 + 1), dtype=np.result_type(values, left_out))
    for target, source in _slabs(spread, values, layout.shape):
        target[...] = source
    if layout.where[0] < 0:
        spread[..., 0, 0] = left_out
    _mirror(spread, layout.shape)
    return spread


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
