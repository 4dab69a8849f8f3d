"""Photographs to patches."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gmmlib import _checks

DRAWS_AT_ONCE = 65_536


def sample_patches(images, side, count, rng, min_std=0.0):
    """Draw square patches at random, uniformly over all positions in all images.

    The images are grey levels (height, width) of any sizes.  Patches whose standard deviation is below
    `min_std`, in grey levels, are drawn again; ValueError if that are almost all.

    Returns
    -------
    patches : ndarray, (count, side, side)
        Float64, as they are in the images: see `remove_mean`.
    kept : float
        Fraction of the draws whose standard deviation reached `min_std`.
    """
    side = _checks.positive_integer(side, "side")
    count = _checks.positive_integer(count, "count")
    min_std = _checks.non_negative(min_std, "min_std")
    rng = _checks.generator(rng)
    windows = [_windows(image, side, index) for index, image in enumerate(images)]
    if not windows:
        raise ValueError("images must hold at least one image; got none.")
    ends = np.cumsum([len(w) * w.shape[1] for w in windows])

    patches = np.empty((count, side, side))
    accepted = drawn = 0
    while accepted < count:
        batch = _gather(windows, ends, rng.integers(ends[-1], size=DRAWS_AT_ONCE))
        good = np.flatnonzero(batch.std(axis=(1, 2)) >= min_std)
        enough = len(good) > count - accepted
        good = good[: count - accepted]
        drawn += good[-1] + 1 if enough else len(batch)  # draws after the last one needed do not count
        patches[accepted : accepted + len(good)] = batch[good]
        accepted += len(good)
        if accepted < count and accepted * 1000 < drawn:
            raise ValueError(
                f"min_std={min_std:g} must leave patches to choose from; of {drawn} draws {accepted} reached "
                "it. Lower it: grey levels in [0, 1] vary by 0.1 to 0.2 in a photograph."
            )
    return patches, accepted / int(drawn)


def remove_mean(patches):
    """Take each patch's own mean away: (N, H, W) to (N, H, W)."""
    patches = _checks.images(patches, "patches")
    return patches - patches.mean(axis=(1, 2), keepdims=True, dtype=np.float64)


def _windows(image, side, index):
    """View an image as all its patches, (height - side + 1, width - side + 1, side, side)."""
    image = _checks.array(image, f"images[{index}]")
    if image.ndim != 2 or image.dtype.kind not in "buif":
        raise ValueError(
            f"images must hold 2-D arrays of real grey levels; "
            f"image {index} has shape {image.shape} and dtype {image.dtype}."
        )
    _checks.finite(image, f"images[{index}]")
    if min(image.shape) < side:
        raise ValueError(
            f"side={side} must not exceed an image; "
            f"image {index} has {image.shape[0]} x {image.shape[1]} pixels. "
            "Leave it out or take smaller patches."
        )
    return sliding_window_view(image, (side, side))


def _gather(windows, ends, positions):
    """Copy the patches at flat positions, counted through all images, (M, side, side)."""
    batch = np.empty((len(positions), *windows[0].shape[2:]))
    image = np.searchsorted(ends, positions, side="right")
    for index in np.unique(image):
        rows = np.flatnonzero(image == index)
        start = ends[index] - windows[index].shape[0] * windows[index].shape[1]
        top, left = np.divmod(positions[rows] - start, windows[index].shape[1])
        batch[rows] = windows[index][top, left]
    return batch
