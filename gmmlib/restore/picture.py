"""A picture as it is stored in a file, and its orientation."""

from typing import NamedTuple

import numpy as np

MOST_PIXELS = 178_956_970  # as many as Pillow opens; a plane of them takes 1.4 GB


class PictureError(ValueError):
    """A file that cannot be read, restored or written, in words that follow its name."""


class Picture(NamedTuple):
    """Levels as stored, not rotated, and what its file holds beside them."""

    pixels: np.ndarray  # (H, W), or (H, W, C): grey and alpha, RGB, or RGB and alpha
    kind: str  # "PNG", "JPEG" or "TIFF"
    orientation: int | None  # the Exif tag, 1 to 8; None if the file has none
    extras: dict  # what the module of the kind writes back
    notes: tuple[str, ...] = ()  # what the output will not have from the input, in words


def check_size(width, height):
    """PictureError for more pixels than can be restored, or for none."""
    if not 0 < width * height <= MOST_PIXELS:
        raise PictureError(
            f"must have 1 to {MOST_PIXELS} pixels; got {width} x {height}. Cut it into smaller pictures."
        )


def upright(pixels, orientation):
    """Rotate stored pixels (H, W, ...) as a viewer does by an Exif orientation of 1 to 8, or None."""
    return _rotated(pixels, orientation)


def as_stored(pixels, orientation):
    """Rotate upright pixels (H, W, ...) back to how a file of that orientation stores them."""
    return _rotated(pixels, {6: 8, 8: 6}.get(orientation, orientation))


def _rotated(pixels, orientation):
    turns = {3: 2, 4: 2, 5: -1, 6: -1, 7: 1, 8: 1}.get(orientation, 0)
    mirrored = np.flip(pixels, 1) if orientation in (2, 4) else pixels
    mirrored = np.flip(mirrored, 0) if orientation in (5, 7) else mirrored
    return np.rot90(mirrored, turns)


def known_orientation(value):
    """An Exif tag as 1 to 8, or None for anything else."""
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else None
