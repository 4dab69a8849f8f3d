"""Calibration against loops, enumeration and a grid search, and on classifiers whose truth is known."""

from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax

from gmmlib import calibration


def joints(n=400, n_classes=3, seed=0):
    """Log joints, and classes drawn from their posteriors: what they promise is kept."""
    rng = np.random.default_rng(seed)
    log_joint = 2 * rng.standard_normal((n, n_classes)) - 500
    classes = [rng.choice(n_classes, p=p) for p in softmax(log_joint, axis=1)]
    return log_joint, np.array(classes)


def bins_by_loops(posteriors, classes, n_bins):
    bins = [[] for _ in range(n_bins)]
    for p, c in zip(posteriors, classes, strict=True):
        place = next(b for b in reversed(range(n_bins)) if p.max() >= b / n_bins)
        bins[place].append((p.max(), p.argmax() == c))
    return bins


@pytest.mark.parametrize("n_bins", [1, 3, 8])
def test_reliability_equals_a_loop_over_the_answers(n_bins):
    log_joint, classes = joints()
    resp = softmax(log_joint, axis=1)
    found = calibration.reliability(resp, classes, n_bins)
    bins = bins_by_loops(resp, classes, n_bins)
    assert found.counts.tolist() == [len(b) for b in bins]
    error = 0.0
    for b, confidence, accuracy in zip(bins, found.confidence, found.accuracy, strict=True):
        if not b:
            assert np.isnan(confidence)
            assert np.isnan(accuracy)
            continue
        promised, right = np.mean([v for v, _ in b]), np.mean([r for _, r in b])
        assert_allclose([confidence, accuracy], [promised, right], rtol=1e-12)
        error += len(b) / len(classes) * abs(promised - right)
    assert_allclose(calibration.expected_calibration_error(resp, classes, n_bins), error, rtol=1e-12)
    assert error > 1e-4


def test_certain_answers_lie_in_the_last_bin():
    found = calibration.reliability(np.eye(4), [0, 1, 2, 0], 5)
    assert found.counts.tolist() == [0, 0, 0, 0, 4]
    assert found.accuracy[-1] == 0.75
    assert calibration.expected_calibration_error(np.eye(4), [0, 1, 2, 0]) == 0.25


def test_promises_of_the_truth_are_kept_and_of_its_exaggeration_are_not():
    log_joint, classes = joints(20_000)
    # Ten bins of some 2,000 answers: each is off by a standard error of about 0.01.
    assert calibration.expected_calibration_error(softmax(log_joint, axis=1), classes) < 0.02
    assert calibration.expected_calibration_error(softmax(4 * log_joint, axis=1), classes) > 0.1


def test_cross_entropy_by_hand():
    log_posteriors = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    assert_allclose(calibration.cross_entropy(log_posteriors, [1, 2]), -np.log(0.25 * 0.8) / 2)
    with np.errstate(divide="ignore"):
        assert calibration.cross_entropy(np.log([[1.0, 0.0]]), [1]) == np.inf


def test_the_reject_curve_averages_over_the_orders_of_equals():
    confidence, correct = np.array([2, 1, 3, 1, 1]), np.array([True, False, True, True, False])
    expected = []
    for kept in range(1, 6):
        orders = [o for o in permutations(range(5)) if list(confidence[list(o)]) == [3, 2, 1, 1, 1]]
        expected.append(np.mean([correct[list(o[:kept])].mean() for o in orders]))
    assert_allclose(calibration.reject_curve(confidence, correct, np.arange(1, 6) / 5), expected)


def test_the_reject_curve_ends_at_the_accuracy_and_takes_infinite_odds():
    confidence, correct = np.array([np.inf, 0.5, -np.inf, np.inf]), np.array([True, False, False, True])
    assert_array_equal(calibration.reject_curve(confidence, correct, [0.25, 0.5, 1]), [1, 1, 0.5])


def test_the_temperature_is_the_best_of_a_grid():
    log_joint, classes = joints()
    log_joint = 7 * log_joint
    found = calibration.temperature(log_joint, classes)
    grid = np.geomspace(1, 50, 2001)
    losses = [calibration.cross_entropy(log_softmax(log_joint / t, axis=1), classes) for t in grid]
    assert abs(np.log(found / grid[np.argmin(losses)])) < 2 * np.log(grid[1] / grid[0])
    assert calibration.cross_entropy(log_softmax(log_joint / found, axis=1), classes) <= min(losses)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 13.0, 1e4])
def test_the_temperature_undoes_a_scale_and_ignores_a_shift(scale):
    log_joint, classes = joints(5000)
    assert_allclose(calibration.temperature(log_joint, classes), 1.0, atol=0.1)
    shift = np.random.default_rng(1).standard_normal((5000, 1))
    found = calibration.temperature(scale * (log_joint + 500 + shift), classes)
    assert_allclose(found, scale * calibration.temperature(log_joint + 500, classes), rtol=1e-8)


HALF = np.full((2, 2), 0.5)
MESSAGES = [
    (
        calibration.reliability,
        (HALF, [0, 1, 1]),
        "classes must hold an entry for each of the 2 rows of posteriors; got 3.",
    ),
    (
        calibration.reliability,
        (HALF, [0, 2]),
        "classes must be below C=2; got 2 at index 1. Pass a larger C, or None to take it from the labels.",
    ),
    (calibration.reliability, (HALF, [0, 1], 0), "n_bins must be a positive integer; got 0."),
    (
        calibration.expected_calibration_error,
        (2 * HALF, [0, 1]),
        "posteriors must sum to 1 in every row; got 2 in row 0. Pass what predict_proba returns.",
    ),
    (
        calibration.cross_entropy,
        ([0.5, 0.5], [0, 1]),
        "log_posteriors must have a row a sample, shape (N, C); got shape (2,).",
    ),
    (
        calibration.reject_curve,
        ([1.0, 2.0], [1, 0], [1.0]),
        "confidence and correct must hold a number and a truth value an answer; got shapes (2,) and (2,) "
        "of dtype int64.",
    ),
    (
        calibration.reject_curve,
        ([1.0, np.nan], [True, False], [1.0]),
        "confidence must hold at least one number and no NaN. Leave such answers out.",
    ),
    (
        calibration.reject_curve,
        ([1.0, 2.0], [True, False], [0.0, 0.5]),
        "coverage must be above 0 and at most 1; got 0 to 0.5.",
    ),
    (
        calibration.temperature,
        ([[0.0, -1.0], [-2.0, 0.0]], [0, 1]),
        "No temperature is best for this log_joint: no row is wrong. Pass more, or other, rows.",
    ),
    (
        calibration.temperature,
        ([[0.0, -1.0], [-2.0, 0.0]], [1, 0]),
        "No temperature is best for this log_joint: the true class scores no better than the average class. "
        "Pass more, or other, rows.",
    ),
    (
        calibration.temperature,
        ([[0.0, -np.inf], [-2.0, 0.0]], [1, 0]),
        "log_joint must be finite; got 1 value that is NaN or infinite, the first at index (0, 1). "
        "Remove or replace them first.",
    ),
]


@pytest.mark.parametrize(("function", "arguments", "text"), MESSAGES)
def test_the_message(function, arguments, text):
    with pytest.raises(ValueError) as caught:
        function(*arguments)
    assert str(caught.value) == text
