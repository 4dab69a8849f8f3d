"""Overlapping patches against loops, and their mean as the inverse of cutting them out."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gmmlib.data.overlap import average, extract, inner, mirrored, total
from tests import oracles

CASES = [((5, 7), 3, 1), ((8, 9), 3, 2), ((6, 6), 6, 1), ((7, 5), 2, 3), ((1, 4), 1, 1)]


def image(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize(("shape", "side", "stride"), CASES)
def test_patches_are_those_that_two_loops_cut_out(shape, side, stride):
    x = image(shape)
    patches = extract(x, side, stride)
    counts = (shape[0] - side) // stride + 1, (shape[1] - side) // stride + 1
    assert patches.shape == (*counts, side, side)
    everyone = oracles.all_patches(x, side).reshape(shape[0] - side + 1, shape[1] - side + 1, side, side)
    assert_array_equal(patches, everyone[::stride, ::stride])
    assert np.shares_memory(patches, x)
    assert not patches.flags.writeable


@pytest.mark.parametrize(("shape", "side", "stride"), CASES)
def test_the_sum_of_patches_is_the_adjoint(shape, side, stride):
    x = image(shape)
    patches = extract(x, side, stride)
    z = image(patches.shape, 1)
    assert_allclose((patches * z).sum(), (x * total(z, shape, stride)).sum(), rtol=1e-12)
    # With weights, in the inner products that they make of patches and of the image.
    weights = np.random.default_rng(2).random(patches.shape)
    mass = total(weights, shape, stride)
    mean = np.nan_to_num(average(z, shape, stride, weights))
    assert_allclose((weights * patches * z).sum(), (mass * x * mean).sum(), rtol=1e-11)


@pytest.mark.parametrize(("shape", "side", "stride"), CASES)
@pytest.mark.parametrize("weighting", [None, "patches", "pixels", "one window"])
def test_the_mean_of_what_was_cut_out_is_the_image(shape, side, stride, weighting):
    x = image(shape)
    patches = extract(x, side, stride)
    rng = np.random.default_rng(1)
    weights = {
        None: None,
        "patches": rng.random(patches.shape[:2]) + 0.1,
        "pixels": rng.random(patches.shape) + 0.1,
        "one window": rng.random((1, 1, side, side)) + 0.1,
    }[weighting]
    mean = average(patches, shape, stride, weights)
    inside = total(np.ones(patches.shape), shape, stride) > 0
    assert_allclose(mean[inside], x[inside], rtol=1e-12)
    assert np.isnan(mean[~inside]).all()


def test_the_mean_counts_patches_by_their_weights():
    patches = np.array([1.0, 3.0]).reshape(1, 2, 1, 1) * np.ones((1, 2, 2, 2))
    mean = average(patches, (2, 3), 1, weights=[[1.0, 3.0]])
    assert_allclose(mean, [[1.0, 2.5, 3.0]] * 2)
    assert_array_equal(
        np.isnan(average(patches, (2, 3), 1, weights=[[1.0, 0.0]])), [[False, False, True]] * 2
    )


@pytest.mark.parametrize("side", [1, 2, 3, 8])
def test_beyond_a_mirror_every_pixel_is_in_as_many_patches(side):
    x = image((5, 4))
    wide = mirrored(x, side)
    assert_array_equal(inner(wide, side), x)
    if side == 3:
        assert_array_equal(wide[2:-2, :2], x[:, 1::-1])
    patches = extract(wide, side)
    counts = total(np.ones(patches.shape), wide.shape)
    assert_array_equal(inner(counts, side), np.full((5, 4), side**2))
    assert_allclose(inner(average(patches, wide.shape), side), x, rtol=1e-12)


MESSAGES = [
    (
        lambda: extract(image((4, 5)), 6),
        "side=6 must not exceed the image; got 4 x 5 pixels. Take smaller patches.",
    ),
    (lambda: extract(image((4, 5)), 0), "side must be a positive integer; got 0."),
    (lambda: extract(image((4, 5)), 2, 1.5), "stride must be a positive integer; got 1.5."),
    (
        lambda: extract(image((3, 4, 5)), 2),
        "image must be one image (height, width); got shape (3, 4, 5). Take one after another.",
    ),
    (lambda: extract(image((4, 5)) * 1j, 2), "image must hold real numbers; got dtype complex128."),
    (
        lambda: total(np.ones((3, 3, 2, 2)), (4, 5)),
        "patches must be 3 x 4, as an image of 4 x 5 pixels has of 2 x 2 at stride 1; got 3 x 3. Pass the "
        "shape and the stride of extract.",
    ),
    (
        lambda: average(np.ones((3, 2, 2)), (4, 5)),
        "patches must have shape (rows, columns, side, side), as extract makes them; got (3, 2, 2). Reshape "
        "them by the first two sides of what extract made.",
    ),
    (
        lambda: average(np.ones((3, 4, 2, 2)), (4, 5), weights=np.ones(3)),
        "weights must be one per patch, shape (3, 4), or broadcast against patches, (3, 4, 2, 2); got shape "
        "(3,).",
    ),
    (
        lambda: average(np.ones((3, 4, 2, 2)), (4, 5), weights=-np.ones((3, 4))),
        "weights must not be negative; got -1 at index (0, 0). Pass the values themselves, not their "
        "logarithms.",
    ),
    (
        lambda: total(np.ones((3, 4, 2, 2)), 20),
        "shape must be the height and width of an image; got 20.",
    ),
]


@pytest.mark.parametrize(("call", "text"), MESSAGES)
def test_the_message(call, text):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == text
