"""What callers are told, against literals typed by hand."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gmmlib import _checks

BAD = np.zeros((5000, 2, 2))
BAD[4500, 1, 0] = np.nan
BAD[4999] = np.inf

ONE_BAD = np.zeros((3, 2, 2), dtype=np.float32)
ONE_BAD[1, 0, 1] = -np.inf

MESSAGES = [
    (
        _checks.components,
        ([0, 5, 4], 4),
        "labels must be components of the fitted mixture, 0 to 3; got 5 at index 1. Components count from 0.",
    ),
    (_checks.positive_integer, (0, "side"), "side must be a positive integer; got 0."),
    (_checks.positive_integer, (-3, "count"), "count must be a positive integer; got -3."),
    (_checks.positive_integer, (2.0, "side"), "side must be a positive integer; got 2.0."),
    (_checks.positive_integer, (True, "side"), "side must be a positive integer; got True."),
    (_checks.positive_integer, ("3", "side"), "side must be a positive integer; got '3'."),
    (_checks.positive_integer, (None, "side"), "side must be a positive integer; got None."),
    (_checks.non_negative, (-0.5, "tol"), "tol must be a finite number >= 0; got -0.5."),
    (_checks.non_negative, (float("nan"), "tol"), "tol must be a finite number >= 0; got nan."),
    (_checks.non_negative, (float("inf"), "tol"), "tol must be a finite number >= 0; got inf."),
    (_checks.non_negative, ("1", "tol"), "tol must be a finite number >= 0; got '1'."),
    (_checks.non_negative, (False, "tol"), "tol must be a finite number >= 0; got False."),
    (_checks.positive, (0, "softness"), "softness must be a finite number > 0; got 0."),
    (_checks.positive, (-1.5, "softness"), "softness must be a finite number > 0; got -1.5."),
    (_checks.positive, (float("nan"), "softness"), "softness must be a finite number > 0; got nan."),
    (_checks.positive, (float("inf"), "softness"), "softness must be a finite number > 0; got inf."),
    (_checks.positive, ("1", "softness"), "softness must be a finite number > 0; got '1'."),
    (_checks.positive, (True, "softness"), "softness must be a finite number > 0; got True."),
    (
        _checks.generator,
        (-1,),
        "random_state must be None, an integer >= 0 or a numpy Generator or RandomState; got -1.",
    ),
    (
        _checks.generator,
        ("seed",),
        "random_state must be None, an integer >= 0 or a numpy Generator or RandomState; got 'seed'.",
    ),
    (
        _checks.generator,
        (1.5,),
        "random_state must be None, an integer >= 0 or a numpy Generator or RandomState; got 1.5.",
    ),
    (
        _checks.images,
        (np.zeros((4, 4)),),
        "X must hold images in an array of shape (N, H, W); got shape (4, 4). "
        "One image is image[None]; rows of pixels are reshaped with X.reshape(-1, H, W).",
    ),
    (
        _checks.images,
        (np.zeros((1, 4, 4, 3)), "photos"),
        "photos must hold images in an array of shape (N, H, W); got shape (1, 4, 4, 3). "
        "One image is image[None]; rows of pixels are reshaped with photos.reshape(-1, H, W). Join batches "
        "by numpy.concatenate, or pass them to partial_fit one after another (ConvolutionalGMM and FullGMM "
        "have it).",
    ),
    (
        _checks.images,
        (np.zeros((2, 3, 3), dtype=complex),),
        "X must hold real numbers; got dtype complex128.",
    ),
    (_checks.images, (np.zeros((2, 3, 3), dtype=object),), "X must hold real numbers; got dtype object."),
    (_checks.images, (np.zeros((2, 3, 3), dtype="U1"),), "X must hold real numbers; got dtype <U1."),
    (
        _checks.images,
        (np.zeros((0, 3, 3)),),
        "X must hold at least one image of at least one pixel; got shape (0, 3, 3).",
    ),
    (
        _checks.images,
        (np.zeros((5, 0, 3)),),
        "X must hold at least one image of at least one pixel; got shape (5, 0, 3).",
    ),
    (
        _checks.images,
        (np.zeros((2, 3, 5)), "X", (4, 6)),
        "X must hold images of 4 x 6 pixels, the size the model was fitted on; got 3 x 5. "
        "Crop or resize them, or fit a model on this size.",
    ),
    (
        _checks.images,
        (BAD,),
        "X must be finite; got 5 values that are NaN or infinite, the first at index (4500, 1, 0). "
        "Remove or replace them first.",
    ),
    (
        _checks.images,
        (ONE_BAD,),
        "X must be finite; got 1 value that is NaN or infinite, the first at index (1, 0, 1). "
        "Remove or replace them first.",
    ),
    (
        _checks.sample_weight,
        (np.ones((3, 1)), 3),
        "sample_weight must hold one weight a row, shape (3,); got shape (3, 1).",
    ),
    (
        _checks.sample_weight,
        ([1.0, 2.0], 3),
        "sample_weight must hold one weight a row, shape (3,); got shape (2,).",
    ),
    (
        _checks.sample_weight,
        ([1.0, 2.0, np.nan], 3),
        "sample_weight must be finite; got 1 value that is NaN or infinite, the first at index (2,). "
        "Remove or replace them first.",
    ),
    (
        _checks.sample_weight,
        ([1.0, -2.5, -0.5], 3),
        "sample_weight must not be negative; got -2.5 at index 1.",
    ),
    (
        _checks.sample_weight,
        ([0, 0, 0], 3),
        "sample_weight must not be zero everywhere; got all zeros: no row would count.",
    ),
    (
        _checks.enough_rows,
        (np.array([1.0, 0.0, 2.0]), 3),
        "n_components=3 needs at least as many rows of positive weight in X; got 2. "
        "Pass more data or ask for fewer components.",
    ),
    (
        _checks.enough_rows,
        (np.ones(4), 5, "codes"),
        "n_components=5 needs at least as many rows of positive weight in codes; got 4. "
        "Pass more data or ask for fewer components.",
    ),
]


@pytest.mark.parametrize(("check", "arguments", "text"), MESSAGES)
def test_the_message(check, arguments, text):
    with pytest.raises(ValueError) as caught:
        check(*arguments)
    assert str(caught.value) == text


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_any_kind_of_integer_is_a_count(value):
    assert type(_checks.positive_integer(value, "count")) is int


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int64(2)])
def test_any_kind_of_real_is_a_number(value):
    checks = [_checks.non_negative, _checks.positive] if value else [_checks.non_negative]
    for check in checks:
        result = check(value, "tol")
        assert type(result) is float
        assert result == value


def test_a_generator_is_used_as_it_is():
    rng = np.random.default_rng(0)
    assert _checks.generator(rng) is rng


@pytest.mark.parametrize("make", [lambda: 7, lambda: np.int64(7), lambda: np.random.RandomState(7)])
def test_equal_seeds_make_equal_generators(make):
    first, second = (_checks.generator(make()).random(3) for _ in range(2))
    assert_array_equal(first, second)


def test_a_random_state_moves_on():
    state = np.random.RandomState(7)
    assert _checks.generator(state).random() != _checks.generator(state).random()


def test_no_seed_means_another_draw_each_time():
    assert _checks.generator(None).random() != _checks.generator(None).random()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8, bool])
def test_images_are_not_copied(dtype):
    x = np.zeros((2, 3, 4), dtype=dtype)
    assert _checks.images(x, shape=(3, 4)) is x


def test_lists_of_images_are_images():
    assert _checks.images([[[1, 2], [3, 4]]]).shape == (1, 2, 2)


def test_absent_weights_are_ones():
    assert_array_equal(_checks.sample_weight(None, 3), [1.0, 1.0, 1.0])
    assert_array_equal(_checks.sample_weight([0, 2, 1], 3), [0.0, 2.0, 1.0])
    _checks.enough_rows(np.array([0.0, 1.0, 2.0]), 2)


@pytest.mark.parametrize("check", [_checks.positive_integer, _checks.non_negative, _checks.positive])
def test_an_integer_beyond_all_numbers_of_the_machine_is_refused(check):
    with pytest.raises(ValueError, match="^n must be "):
        check(10**400, "n")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble, int])
def test_numbers_of_any_type_are_compared_without_a_warning(kind):
    assert _checks.positive(kind(2), "n") == _checks.non_negative(kind(2), "n") == 2.0


@pytest.mark.parametrize("value", [1, 0, None, "yes", 1.0, np.array(True)])
def test_only_true_and_false_are_truth_values(value):
    assert _checks.truth(np.bool_(True), "flag") is True
    with pytest.raises(ValueError, match="^flag must be True or False; got "):
        _checks.truth(value, "flag")
