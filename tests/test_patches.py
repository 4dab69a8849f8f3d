"""Random patches against an exhaustive enumeration."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gmmlib import patches
from gmmlib.data.patches import remove_mean, sample_patches
from tests import oracles


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(patches, "DRAWS_AT_ONCE", 4096)


def unique_values(shape, start=0):
    return start + np.arange(np.prod(shape), dtype=float).reshape(shape)


def standard_errors_off(count, n, p):
    return np.abs(count - n * p) / np.sqrt(n * p * (1 - p))


def test_every_position_of_every_image_is_as_likely():
    images = [unique_values((5, 5)), unique_values((9, 12), start=1000)]
    drawn, kept = sample_patches(images, 3, 30_000, 0)
    corners, counts = np.unique(drawn[:, 0, 0], return_counts=True)
    expected = np.concatenate([oracles.all_patches(image, 3)[:, 0, 0] for image in images])
    assert_array_equal(corners, np.sort(expected))
    assert standard_errors_off(counts, len(drawn), 1 / len(expected)).max() < 5
    first = int((corners < 1000).sum()), counts[corners < 1000].sum()
    assert first[0] == 9
    assert standard_errors_off(first[1], len(drawn), 9 / 79) < 5
    # Negative controls: images as likely as each other, or in proportion to their pixels.
    assert standard_errors_off(first[1], len(drawn), 1 / 2) > 5
    assert standard_errors_off(first[1], len(drawn), 25 / 133) > 5
    assert kept == 1.0


def test_every_patch_occurs_in_its_image():
    images = [unique_values((6, 4)), unique_values((4, 7), start=100)]
    everything = {p.tobytes() for image in images for p in oracles.all_patches(image, 3)}
    drawn, _ = sample_patches(images, 3, 2000, 1)
    assert drawn.dtype == np.float64
    assert drawn.shape == (2000, 3, 3)
    assert {p.tobytes() for p in drawn} == everything


def test_patches_are_accepted_in_proportion_to_how_many_vary_enough():
    rng = np.random.default_rng(2)
    images = [rng.random((20, 20)) * np.linspace(0, 1, 20), rng.random((11, 30)) * 0.5]
    every = np.concatenate([oracles.all_patches(image, 4) for image in images])
    good = np.array([p.std() >= 0.15 for p in every])
    drawn, kept = sample_patches(images, 4, 10_000, 3, min_std=0.15)
    share = good.mean()
    assert 0.1 < share < 0.9
    assert abs(kept - share) < 5 * np.sqrt(share * (1 - share) / (10_000 / share))
    assert abs(kept - share - 0.05) > 5 * np.sqrt(share * (1 - share) / (10_000 / share))
    assert drawn.std(axis=(1, 2)).min() >= 0.15
    assert {p.tobytes() for p in drawn} == {p.tobytes() for p in every[good]}


def test_more_patches_than_one_batch_holds(monkeypatch):
    monkeypatch.setattr(patches, "DRAWS_AT_ONCE", 64)
    drawn, kept = sample_patches([unique_values((8, 8))], 2, 1000, 4)
    assert drawn.shape == (1000, 2, 2)
    assert kept == 1.0
    assert len(np.unique(drawn[:, 0, 0])) == 49


class Recorder(np.random.Generator):
    """A generator that remembers which positions were drawn."""

    def __init__(self, seed):
        super().__init__(np.random.PCG64(seed))
        self.positions = []

    def integers(self, *args, **kwargs):
        drawn = super().integers(*args, **kwargs)
        self.positions += drawn.tolist()
        return drawn


def test_the_kept_fraction_is_the_one_of_all_draws_up_to_the_last_needed(monkeypatch):
    monkeypatch.setattr(patches, "DRAWS_AT_ONCE", 10)
    image = np.zeros((2, 40))
    image[:, ::4] = 1.0
    rng = Recorder(5)
    drawn, kept = sample_patches([image], 2, 35, rng, min_std=0.1)
    good = [left for left in rng.positions if image[:, left : left + 2].std() >= 0.1]
    assert_array_equal(drawn, [image[:, left : left + 2] for left in good[:35]])
    last = [i for i, left in enumerate(rng.positions) if image[:, left : left + 2].std() >= 0.1][34]
    assert kept == 35 / (last + 1)


def test_the_same_seed_draws_the_same_patches():
    image = unique_values((12, 9))
    first, second, other = (sample_patches([image], 4, 50, seed)[0] for seed in (7, 7, 8))
    assert_array_equal(first, second)
    assert (first != other).any()
    rng = np.random.default_rng(7)
    assert_array_equal(sample_patches([image], 4, 50, rng)[0], first)
    assert (sample_patches([image], 4, 50, rng)[0] != first).any()


def test_integer_images_and_arrays_of_images_are_images():
    stack = np.arange(2 * 6 * 6, dtype=np.uint8).reshape(2, 6, 6)
    from_array, _ = sample_patches(stack, 6, 40, 0)
    assert from_array.dtype == np.float64
    assert {p.tobytes() for p in from_array} == {p.astype(float).tobytes() for p in stack}


def test_patches_do_not_share_memory_with_the_image():
    image = np.ones((4, 4))
    drawn, _ = sample_patches([image], 4, 3, 0)
    drawn[:] = 5
    assert image.max() == 1


def test_a_few_patches_are_found_even_where_few_positions_vary_enough():
    """One position in 625 is good: more than one in a thousand, so every seed must find one."""
    image = np.zeros((26, 26))
    image[0, 0] = 1.0
    for seed in range(20):
        drawn, _ = sample_patches([image], 2, 1, seed, min_std=0.1)
        assert drawn[0, 0, 0] == 1.0


def test_remove_mean_takes_each_patchs_own():
    x = np.random.default_rng(0).random((5, 3, 4)) + np.arange(5)[:, None, None]
    result = remove_mean(x)
    assert_allclose(result.mean(axis=(1, 2)), 0, atol=1e-15)
    assert_allclose(result[2], x[2] - x[2].mean(), rtol=1e-14)


FLAT = np.zeros((6, 6))
HOLED = np.ones((6, 8))
HOLED[2, 3] = np.nan

MESSAGES = [
    (([FLAT], 0, 5, 0), "side must be a positive integer; got 0."),
    (([FLAT], 2, 0, 0), "count must be a positive integer; got 0."),
    (([FLAT], 2.5, 5, 0), "side must be a positive integer; got 2.5."),
    (([FLAT], 2, 5, 0, -1.0), "min_std must be a finite number >= 0; got -1.0."),
    (
        ([FLAT], 2, 5, "x"),
        "random_state must be None, an integer >= 0 or a numpy Generator or RandomState; got 'x'.",
    ),
    (([], 2, 5, 0), "images must hold at least one image; got none."),
    (
        ([FLAT, np.zeros((6, 6, 3))], 2, 5, 0),
        "images must hold 2-D arrays of real grey levels; image 1 has shape (6, 6, 3) and dtype float64.",
    ),
    (
        (FLAT, 2, 5, 0),
        "images must hold 2-D arrays of real grey levels; image 0 has shape (6,) and dtype float64.",
    ),
    (
        ([FLAT.astype(complex)], 2, 5, 0),
        "images must hold 2-D arrays of real grey levels; image 0 has shape (6, 6) and dtype complex128.",
    ),
    (
        ([FLAT, HOLED], 2, 5, 0),
        "images[1] must be finite; got 1 value that is NaN or infinite, the first at index (2, 3). "
        "Remove or replace them first.",
    ),
    (
        ([np.zeros((9, 9)), np.zeros((9, 7))], 8, 5, 0),
        "side=8 must not exceed an image; image 1 has 9 x 7 pixels. Leave it out or take smaller patches.",
    ),
    (
        ([FLAT], 2, 5, 0, 0.04),
        "min_std=0.04 must leave patches to choose from; of 4096 draws 0 reached it. "
        "Lower it: grey levels in [0, 1] vary by 0.1 to 0.2 in a photograph.",
    ),
]


@pytest.mark.parametrize(("arguments", "text"), MESSAGES)
def test_the_message(arguments, text):
    with pytest.raises(ValueError) as caught:
        sample_patches(*arguments)
    assert str(caught.value) == text
