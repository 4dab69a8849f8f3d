"""Intervals against simulation and the published tables, adjusted p-values against the definition."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from gmmlib import evidence


@pytest.mark.parametrize(("n", "t"), [(2, 12.706), (5, 2.776), (10, 2.262)])
def test_the_interval_is_that_of_the_tables(n, t):
    values = np.arange(n) ** 1.5
    mean, half = evidence.interval(values)
    assert mean == pytest.approx(values.mean())
    assert half == pytest.approx(t * values.std(ddof=1) / np.sqrt(n), rel=3e-4)


def test_it_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    runs = rng.standard_normal((4000, 5)) * 3 + 7
    found = np.array([evidence.interval(run, level=0.9) for run in runs])
    covered = np.abs(found[:, 0] - 7) <= found[:, 1]
    assert abs(covered.mean() - 0.9) < 4 * np.sqrt(0.09 / 4000)


def test_shares_of_test_samples_add_their_variance():
    rng = np.random.default_rng(1)
    n, covered = 500, []
    for _ in range(2000):
        skill = 0.8 + 0.005 * rng.standard_normal(5)
        tested = rng.standard_normal() * np.sqrt(0.16 / n)  # the same samples for all runs
        mean, half = evidence.interval(skill + tested, n)
        covered.append(abs(mean - 0.8) <= half)
    assert abs(np.mean(covered) - 0.95) < 0.025
    assert evidence.interval([0.8], 10_000).half == pytest.approx(1.96 * 0.004, rel=1e-3)
    assert evidence.interval([0.8]).half == 0


def test_a_difference_is_that_of_pairs():
    rng = np.random.default_rng(2)
    start = 100 * rng.standard_normal(7)
    better, worse = start + 1 + 0.1 * rng.standard_normal(7), start
    mean, half, p = evidence.difference(better, worse)
    assert_allclose(p, stats.ttest_rel(better, worse).pvalue, rtol=1e-10)
    low, high = stats.ttest_rel(better, worse).confidence_interval(0.95)
    assert_allclose([mean - half, mean + half], [low, high], rtol=1e-10)


def test_a_difference_without_spread():
    assert evidence.difference([1, 2], [1, 2]) == (0, 0, 1)
    assert evidence.difference([2, 3], [1, 2]) == (1, 0, 0)


def test_no_difference_is_found_at_the_rate_that_is_stated():
    rng = np.random.default_rng(3)
    p = [evidence.difference(*rng.standard_normal((2, 5))).p_value for _ in range(4000)]
    assert abs(np.mean(np.array(p) <= 0.05) - 0.05) < 4 * np.sqrt(0.0475 / 4000)


def test_adjusted_values_step_down():
    p = np.array([0.04, 0.01, 0.03, 0.005])
    assert_allclose(evidence.holm(p), [0.06, 0.03, 0.06, 0.02])
    assert_array_equal(evidence.holm([0.7, 0.9]), [1, 1])


def test_a_family_without_differences_is_wrong_as_rarely_as_one():
    rng = np.random.default_rng(4)
    wrong = [(evidence.holm(rng.random(15)) <= 0.05).any() for _ in range(4000)]
    assert np.mean(wrong) < 0.05 + 4 * np.sqrt(0.0475 / 4000)


def test_random_merging_keeps_components_together_and_fills_every_group():
    labels = np.random.default_rng(5).integers(12, size=400) * 3  # components without samples between
    for seed in range(20):
        groups = evidence.random_merging(labels, 5, seed)
        assert set(groups) == set(range(5))
        assert all(len(set(groups[labels == k])) == 1 for k in set(labels))
    assert len({evidence.random_merging(labels, 5, seed).tobytes() for seed in range(20)}) == 20
    assert_array_equal(np.unique(evidence.random_merging(labels, 12, 0)), np.arange(12))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: evidence.interval([]), "values must hold one number or more"),
        (lambda: evidence.interval([[1, 2]]), "along one axis; got shape (1, 2)"),
        (lambda: evidence.interval([1, np.nan]), "values must be finite"),
        (lambda: evidence.interval(["a"]), "values must hold real numbers"),
        (lambda: evidence.interval([1, 2], level=1.0), "level must be between 0 and 1; got 1.0"),
        (lambda: evidence.interval([88.0], 100), "Divide percentages by 100"),
        (lambda: evidence.difference([1, 2], [1, 2, 3]), "got 2 and 3"),
        (lambda: evidence.difference([1], [1]), "two or more; got 1 and 1"),
        (lambda: evidence.holm([0.5, 1.5]), "must be probabilities; got 0.5 to 1.5"),
        (lambda: evidence.random_merging([0, 1, 1], 3), "must be at most 2"),
    ],
)
def test_what_is_told_of_bad_input(call, text):
    with pytest.raises(ValueError, match=r".") as caught:
        call()
    assert text in str(caught.value)
