r"""All overlapping patches of an image, and the image that averages them.

Cutting out all patches is linear, and so is what puts a value of each patch back: with E the one and
:math:`E^\top` its adjoint, the sum over patches, the weighted mean is
:math:`\operatorname{diag}(E^\top w)^{-1} E^\top \operatorname{diag}(w)`, which undoes E wherever a pixel
is in a patch.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gmmlib import _checks


def extract(image, side, stride=1):
    """View an image (height, width) as its patches at a stride, (rows, columns, side, side), read-only.

    Nothing is copied of an array in rows.  Pixels that no step of the stride reaches, at the right and below,
    are in no patch.  ValueError if an argument cannot be used, or the image is smaller than a patch.
    """
    side, stride = _checks.positive_integer(side, "side"), _checks.positive_integer(stride, "stride")
    image = _checks.array(image, "image")
    if image.ndim != 2:
        raise ValueError(
            f"image must be one image (height, width); got shape {image.shape}. Take one after another."
        )
    _checks.real(image, "image")
    _counts(image.shape, side, stride)
    return sliding_window_view(image, (side, side))[::stride, ::stride]


def total(patches, shape, stride=1):
    """Sum of patches (rows, columns, side, side) in their places of an image (height, width): E transposed.

    Pixels that are in no patch are 0.  ValueError if these are not as many patches as `extract` makes of
    such an image.
    """
    patches, shape, stride = _placed(patches, shape, stride)
    side, counts = patches.shape[2], patches.shape[:2]
    out = np.zeros(shape)
    height, width = ((count - 1) * stride + 1 for count in counts)
    for top in range(side):  # one sum for all patches at once of each of their pixels
        for left in range(side):
            out[top : top + height : stride, left : left + width : stride] += patches[:, :, top, left]
    return out


def average(patches, shape, stride=1, weights=None):
    """Weighted mean of patches (rows, columns, side, side) in their places of an image (height, width).

    Parameters
    ----------
    patches : array-like, (rows, columns, side, side)
        What became of the patches that `extract` makes.
    shape : (int, int)
        Height and width of the image, in pixels.
    stride : int
        As in `extract`.
    weights : array-like, optional
        Of each patch, (rows, columns), or of each of its pixels, whatever is broadcast against patches; at
        least 0.  One each by default.

    Returns
    -------
    ndarray, (height, width)
        NaN where no patch of positive weight has the pixel.
    """
    patches, shape, stride = _placed(patches, shape, stride)
    weights = np.ones((1, 1)) if weights is None else _checks.amounts(weights, "weights")
    weights = weights[..., None, None] if weights.ndim == 2 else weights
    try:
        weights = np.broadcast_to(weights, patches.shape)
    except ValueError:
        raise ValueError(
            f"weights must be one per patch, shape {patches.shape[:2]}, or broadcast against patches, "
            f"{patches.shape}; got shape {weights.shape}."
        ) from None
    mass = total(weights, shape, stride)
    mean = total(patches * weights, shape, stride)
    return np.divide(mean, mass, out=np.full(mean.shape, np.nan), where=mass > 0)


def mirrored(image, side):
    """Continue an image (height, width) by its mirror image, side - 1 pixels beyond every border.

    At stride 1 every pixel of the image is then in side^2 patches.  The border pixel is repeated (numpy.pad
    calls this symmetric), as the cosine basis does; `inner` takes the border off again.
    """
    side = _checks.positive_integer(side, "side")
    return np.pad(_checks.array(image, "image"), side - 1, mode="symmetric")


def inner(image, side):
    """What `mirrored` continued: an image (height, width) without side - 1 pixels at every border."""
    border = _checks.positive_integer(side, "side") - 1
    return image[border : len(image) - border, border : image.shape[1] - border]


def _shape(shape):
    """Height and width as positive integers."""
    if np.shape(shape) != (2,):
        raise ValueError(f"shape must be the height and width of an image; got {shape!r}.")
    return tuple(_checks.positive_integer(length, "shape") for length in shape)


def _counts(shape, side, stride):
    """How many patches there are down and across."""
    if min(shape) < side:
        raise ValueError(
            f"side={side} must not exceed the image; got {shape[0]} x {shape[1]} pixels. Take smaller "
            "patches."
        )
    return tuple((length - side) // stride + 1 for length in shape)


def _placed(patches, shape, stride):
    """Patches as an array, the shape of their image and their stride, once they agree."""
    stride = _checks.positive_integer(stride, "stride")
    patches = _checks.array(patches, "patches")
    _checks.real(patches, "patches")
    if patches.ndim != 4 or patches.shape[2] != patches.shape[3] or patches.size == 0:
        raise ValueError(
            f"patches must have shape (rows, columns, side, side), as extract makes them; got "
            f"{patches.shape}. Reshape them by the first two sides of what extract made."
        )
    side, shape = patches.shape[2], _shape(shape)
    counts = _counts(shape, side, stride)
    if patches.shape[:2] != counts:
        raise ValueError(
            f"patches must be {counts[0]} x {counts[1]}, as an image of {shape[0]} x {shape[1]} pixels has "
            f"of {side} x {side} at stride {stride}; got {patches.shape[0]} x {patches.shape[1]}. Pass the "
            "shape and the stride of extract."
        )
    return patches, shape, stride
