"""Comparisons of two sets: against loops, contingency tables and closed forms, and what each cannot see."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.linear_model import LogisticRegression

from gmmlib import twosample
from tests import oracles


def rng(seed=0):
    return np.random.default_rng(seed)


# Bins


def test_z_scores_are_those_of_a_contingency_table():
    """The square of a two-proportion z is Pearson's chi-squared of the 2 x 2 table."""
    counts, others = np.array([40, 3, 0, 57]), np.array([11, 9, 2, 8])
    z = twosample.proportion_z(counts, others)
    for k in range(4):
        table = [[counts[k], 100 - counts[k]], [others[k], 30 - others[k]]]
        assert_allclose(z[k] ** 2, stats.chi2_contingency(table, correction=False).statistic, rtol=1e-12)
    assert_array_equal(z > 0, [False, True, True, False])
    assert_allclose(twosample.proportion_z(others, counts), -z, rtol=1e-12)


def test_bins_without_anything_to_compare_have_score_zero():
    assert_array_equal(twosample.proportion_z([5, 0], [7, 0]), [0, 0])


def test_equal_distributions_differ_in_about_five_percent_of_the_bins():
    shares = rng().dirichlet(np.full(50, 5.0))
    draws = rng(1).multinomial(6000, shares, 200), rng(2).multinomial(1000, shares, 200)
    found = [twosample.ndb(a, b) for a, b in zip(*draws, strict=True)]
    # The 10,000 tests of the 200 pairs are nearly independent.
    assert abs(np.mean(found) - 0.05) < 5 * np.sqrt(0.05 * 0.95 / 10_000)
    wide = [twosample.ndb(a, a[::-1]) for a in rng(1).multinomial(6000, shares, 5)]
    assert np.mean(wide) > 0.5  # negative control


def test_a_stricter_level_finds_fewer_bins():
    counts, others = [50, 50, 100], [60, 30, 110]
    found = [twosample.ndb(counts, others, level) for level in (0.2, 0.05, 0.001)]
    assert found == [1 / 3, 1 / 3, 0]
    assert twosample.ndb([100, 100], [0, 200]) == 1


# A classifier


def test_a_classifier_is_right_as_often_as_theory_says():
    """Two Gaussians d apart are told apart with probability Phi(d/2) at best."""
    first = rng().standard_normal((6000, 2))
    second = rng(1).standard_normal((5000, 2)) + [1.5, 0]
    told = twosample.classifier_two_sample_test(first, second, LogisticRegression(), 0)
    best = stats.norm.cdf(0.75)
    assert told.chance_deviation == pytest.approx(0.5 / np.sqrt(5000))
    assert abs(told.accuracy - best) < 5 * told.chance_deviation
    assert told.accuracy == pytest.approx((told.first + told.second) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_one_distribution_is_not_told_apart(seed):
    x = rng(seed).standard_normal((3000, 3))
    told = twosample.classifier_two_sample_test(x[:1500], x[1500:], random_state=seed)
    assert abs(told.accuracy - 0.5) < 4 * told.chance_deviation


def test_disjoint_sets_are_always_told_apart_whatever_their_lengths():
    first, second = rng().random((31, 4)), 5 + rng(1).random((20, 4))
    assert twosample.classifier_two_sample_test(first, second, random_state=3)[:3] == (1, 1, 1)


def test_a_linear_classifier_is_blind_to_shape_and_neighbours_are_not():
    """A ring and a Gaussian of the same mean and covariance."""
    angle = rng().uniform(0, 2 * np.pi, 2000)
    ring = np.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    cloud = rng(1).standard_normal((2000, 2))
    linear = twosample.classifier_two_sample_test(ring, cloud, LogisticRegression(), 0)
    assert abs(linear.accuracy - 0.5) < 4 * linear.chance_deviation
    assert twosample.classifier_two_sample_test(ring, cloud, random_state=0).accuracy > 0.8


def test_the_same_seed_gives_the_same_halves_and_the_classifier_stays_unfitted():
    first, second = rng().standard_normal((2, 200, 2))
    classifier = LogisticRegression()
    results = [
        twosample.classifier_two_sample_test(first, second + 1, classifier, seed) for seed in (4, 4, 5)
    ]
    assert results[0] == results[1] != results[2]
    assert not hasattr(classifier, "coef_")


# Neighbours


@pytest.mark.parametrize("count", [1, 3])
def test_neighbours_are_those_of_a_loop(count):
    x, references = rng().standard_normal((17, 5)), rng(1).standard_normal((9, 5))
    distances, indices = twosample.nearest(x, references, count)
    for n, row in enumerate(x):
        apart = [np.sqrt(sum((row - other) ** 2)) for other in references]
        assert_array_equal(indices[n], np.argsort(apart)[:count])
        assert_allclose(distances[n], np.sort(apart)[:count], rtol=1e-9)


def test_the_ratio_tells_copies_from_new_data_and_from_noise():
    training, new, held_out = rng().standard_normal((3, 1500, 3))
    assert twosample.distance_ratio(training[:50], held_out, training) < 1e-6
    assert 0.9 < twosample.distance_ratio(new, held_out, training) < 1.1
    assert twosample.distance_ratio(3 * new, held_out, training) > 1.5


# Spectra and pixels


@pytest.mark.parametrize("shape", [(4, 6), (5, 4), (3, 5)])
def test_the_spectrum_error_is_that_of_the_full_plane(shape):
    images, others = rng().standard_normal((20, *shape)), rng(1).standard_normal((30, *shape)) ** 3
    means = [oracles.full_powers(x).mean(axis=0).ravel()[1:] for x in (images, others)]
    expected = np.sqrt(np.mean((np.log(means[1]) - np.log(means[0])) ** 2))
    assert_allclose(twosample.spectrum_error(images, others), expected, rtol=1e-10)
    assert_allclose(twosample.spectrum_error(others, images), expected, rtol=1e-10)


def test_a_change_of_contrast_is_a_constant_error_and_a_shift_of_grey_none():
    images = rng().standard_normal((10, 4, 5))
    assert_allclose(twosample.spectrum_error(images, 1.5 * images), 2 * np.log(1.5), rtol=1e-12)
    assert twosample.spectrum_error(images, images + 7) < 1e-12


def test_marginals_are_those_of_a_written_out_list():
    images = np.array([[[0.0, 1.0, 1.5], [-0.5, 0.25, 0.5]]])
    values = images.ravel()
    steps = np.array([1.0, 0.5, 0.75, 0.25])
    found = twosample.marginals(images)
    assert found.outside == 2 / 6
    for x, kurtosis in ((values, found.kurtosis), (steps, found.step_kurtosis)):
        centred = x - x.mean()
        assert_allclose(kurtosis, (centred**4).mean() / (centred**2).mean() ** 2 - 3, rtol=1e-12)
    assert_allclose(found.deviation, np.sqrt(((values - values.mean()) ** 2).mean()), rtol=1e-12)
    assert twosample.marginals(images, -1, 2).outside == 0


def test_gaussian_images_have_no_excess_kurtosis():
    found = twosample.marginals(rng().standard_normal((500, 9, 8)))
    n = 500 * 9 * 8
    assert abs(found.kurtosis) < 5 * np.sqrt(24 / n)
    assert abs(found.outside - (0.5 + stats.norm.sf(1))) < 5 * 0.5 / np.sqrt(n)


# Messages

X, Y = np.zeros((5, 3)), np.zeros((5, 4))
BINS = "counts and others must count two sets, neither empty, in the same bins, shape (B,) each; got shapes "
CASES = [
    (twosample.proportion_z, ([1, 2], [1, 2, 3]), BINS + "(2,) and (3,) and totals 3 and 6."),
    (twosample.proportion_z, ([1, 2], [0, 0]), BINS + "(2,) and (2,) and totals 3 and 0."),
    (
        twosample.ndb,
        ([1, 2], [1, 2], 1.0),
        "level must be a probability between 0 and 1; got 1.0.",
    ),
    (
        twosample.classifier_two_sample_test,
        (X, Y),
        "second must have as many coordinates as the vectors it is compared with, 3; got 4. "
        "Turn both into vectors in the same way.",
    ),
    (
        twosample.classifier_two_sample_test,
        (np.zeros((2, 3, 3)), X),
        "first must hold real vectors, shape (N, D); got shape (2, 3, 3) of dtype float64. "
        "Images become vectors by first.reshape(len(first), -1).",
    ),
    (
        twosample.classifier_two_sample_test,
        (X, X[:3]),
        "first and second must hold at least 4 vectors each; got 5 and 3.",
    ),
    (
        twosample.nearest,
        (X * np.nan, X),
        "X must be finite; got 15 values that are NaN or infinite, the first at index (0, 0). "
        "Remove or replace them first.",
    ),
    (twosample.nearest, (X, X, 6), "count must be at most the number of references, 5; got 6."),
    (twosample.nearest, (X, X, 0), "count must be a positive integer; got 0."),
    (
        twosample.distance_ratio,
        (X, X, X),
        "held_out must not repeat the training vectors; half of them or more do, to the last digit. "
        "Pass data that the model was not trained on.",
    ),
    (
        twosample.spectrum_error,
        (np.ones((2, 3, 3)), np.ones((2, 3, 3))),
        "images and others must have power at every frequency but zero; got none at one of them. "
        "Constant images have none, and few blurred ones may have too little for a float.",
    ),
    (
        twosample.spectrum_error,
        (np.ones((2, 1, 1)), np.ones((2, 1, 1))),
        "images must have at least 2 pixels; got 1 x 1.",
    ),
    (
        twosample.marginals,
        (np.ones((2, 3, 3)),),
        "images must vary along a row of at least two pixels; got constant rows.",
    ),
]


@pytest.mark.parametrize(("function", "arguments", "message"), CASES)
def test_messages(function, arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        function(*arguments)
