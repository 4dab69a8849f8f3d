"""Most probable components of noisy rows: against dense densities of scipy, also where they nearly tie."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal

from gmmlib import _kernels, posterior
from gmmlib.full import choice
from tests import oracles
from tests.test_screening import patch_like

CASES = {
    "64 dimensions": (*patch_like(60, 64, 0, means=0.0), 0.01),
    "means": (*patch_like(19, 31, 1, means=0.5), 0.02),
    "far means": (*patch_like(17, 9, 2, means=30.0), 1e-3),
    "little noise": (*patch_like(20, 25, 3, means=0.0), 1e-7),
    "much noise": (*patch_like(20, 25, 4, means=0.3), 50.0),
    "one component": (*patch_like(1, 6, 5), 0.1),
    "one dimension": (*patch_like(5, 1, 6), 0.1),
}


def made(weights, means, covariances, noise_variance, **options):
    mixture = choice.noisy(weights, means, covariances, noise_variance)
    return mixture, choice.bounds(weights, covariances, mixture, **options)


def with_noise(weights, means, covariances, noise_variance):
    return weights, means, covariances + noise_variance * np.eye(means.shape[1])


def rows_of(case, n=300):
    X = oracles.draw(n, *with_noise(*CASES[case]))
    X[::7] *= 50.0  # also where nothing is likely
    X[::11] *= 1e-3
    return X


def log_joint(X, weights, means, covariances):
    """By one density of scipy for each component."""
    with np.errstate(divide="ignore"):
        return np.stack(
            [
                np.log(w) + multivariate_normal(m, c, allow_singular=False).logpdf(X).reshape(len(X))
                for w, m, c in zip(weights, means, covariances, strict=True)
            ],
            axis=1,
        )


@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_the_bounds_are_above_every_log_joint(case, share):
    X, *parameters, noise = rows_of(case), *CASES[case]
    _, these = made(*parameters, noise, share=share)
    highest = choice.upper(X, these) - (X**2).sum(axis=1, keepdims=True) / (2 * noise)
    exact = log_joint(X, *with_noise(*parameters, noise))
    assert (highest > exact - 1e-9 * np.abs(exact)).all()


def test_near_rows_the_bounds_are_close_for_smooth_components():
    """The widths do not hide a bound of something else."""
    *parameters, noise = CASES["64 dimensions"]
    X = oracles.draw(300, *with_noise(*parameters, noise))
    exact = log_joint(X, *with_noise(*parameters, noise))
    _, these = made(*parameters, noise, share=0.99)
    gap = choice.upper(X, these) - (X**2).sum(axis=1, keepdims=True) / (2 * noise) - exact
    best = exact.argmax(axis=1)
    assert gap[np.arange(300), best].max() < 1.0


@pytest.mark.parametrize("case", CASES)
def test_the_component_and_its_filter_are_those_of_dense_covariances(case):
    X, (_, means, covariances, noise) = rows_of(case), CASES[case]
    found, labels = choice.filtered(X, *made(*CASES[case]))
    exact = log_joint(X, *with_noise(*CASES[case]))
    assert_array_equal(labels, posterior.most_probable(exact))
    for x, k, estimate in zip(X, labels, found, strict=True):
        gain = np.linalg.solve(covariances[k] + noise * np.eye(X.shape[1]), covariances[k])
        assert_allclose(estimate, means[k] + (x - means[k]) @ gain, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("apart", [1e-7, 1e-6, 1e-4])
def test_components_that_nearly_tie_are_told_apart(apart):
    """By weights alone, less than single precision holds of a log joint; the best comes in any place."""
    rng = np.random.default_rng(0)
    weights, means, covariances = patch_like(1, 40, 7, means=0.0)
    order = rng.permutation(12)
    weights = np.exp(apart * order)
    parameters = weights / weights.sum(), np.zeros((12, 40)), np.repeat(covariances, 12, axis=0)
    X = oracles.draw(200, *with_noise(*parameters, 0.01))
    _, labels = choice.filtered(X, *made(*parameters, 0.01))
    assert_array_equal(labels, np.full(200, order.argmax()))


def test_rows_on_the_border_of_two_components():
    """Moved along a line until their log joints differ by 1e-6 nats, one way or the other."""
    parameters, noise = patch_like(30, 33, 8, means=0.0), 0.01
    dense = with_noise(*parameters, noise)
    mixture = made(*parameters, noise)
    X = oracles.draw(400, *dense)
    labels = posterior.most_probable(log_joint(X, *dense))
    ends = list(zip(X[:-1], X[1:], strict=True))
    border = []
    for (a, b), first, last in zip(ends, labels[:-1], labels[1:], strict=True):
        if first == last:
            continue
        low, high = 0.0, 1.0
        for _ in range(36):
            middle = 0.5 * (low + high)
            there = log_joint((a + middle * (b - a))[None], *dense)[0].argmax()
            low, high = (middle, high) if there == first else (low, middle)
        border += [a + low * (b - a), a + high * (b - a)]
        if len(border) > 40:
            break
    border = np.array(border)
    exact = log_joint(border, *dense)
    two = np.sort(exact, axis=1)[:, -2:]
    assert np.median(two[:, 1] - two[:, 0]) < 1e-4
    _, found = choice.filtered(border, *mixture)
    assert (exact[np.arange(len(border)), found] >= exact.max(axis=1) - 2 * posterior.TIE).all()
    clear = two[:, 1] - two[:, 0] > 2 * posterior.TIE
    assert_array_equal(found[clear], exact.argmax(axis=1)[clear])


def test_of_equals_the_first():
    weights, means, covariances = patch_like(4, 26, 9, means=0.0)
    twice = np.repeat(weights / 2, 2), np.repeat(means, 2, axis=0), np.repeat(covariances, 2, axis=0)
    X = oracles.draw(200, *with_noise(*twice, 0.1))
    _, labels = choice.filtered(X, *made(*twice, 0.1))
    assert (labels % 2 == 0).all()
    exact = log_joint(X, *with_noise(weights, means, covariances, 0.1))
    assert_array_equal(labels // 2, posterior.most_probable(exact))


def test_a_component_of_weight_zero_is_never_chosen():
    weights, means, covariances, noise = CASES["means"]
    weights = weights.copy()
    weights[3] = 0.0
    _, labels = choice.filtered(rows_of("means"), *made(weights / weights.sum(), means, covariances, noise))
    assert (labels != 3).all()


def test_what_overflows_in_single_precision_is_scored_all_the_same():
    weights, means, covariances, noise = CASES["64 dimensions"]
    X = rows_of("64 dimensions", 40) * 1e22
    _, labels = choice.filtered(X, *made(weights, means, covariances, noise))
    exact = log_joint(X, *with_noise(weights, means, covariances, noise))
    assert_array_equal(labels, exact.argmax(axis=1))


def test_rows_in_other_blocks_have_the_same_components():
    X, mixture = rows_of("64 dimensions", 700), made(*CASES["64 dimensions"])
    found, labels = choice.filtered(X, *mixture)
    parts = [choice.filtered(X[i : i + 61], *mixture) for i in range(0, 700, 61)]
    assert_array_equal(labels, np.concatenate([part[1] for part in parts]))
    assert_allclose(found, np.concatenate([part[0] for part in parts]), rtol=1e-12, atol=1e-14)


# --- the loops -------------------------------------------------------------------------------------------


def test_pairs_are_listed_by_component():
    rng = np.random.default_rng(0)
    labels, needed = rng.integers(0, 5, 40), rng.standard_normal(40)
    bounds = rng.standard_normal((40, 5)).astype(np.float32)
    bounds[3, 2] = np.nan
    begins = np.empty(6, dtype=np.intp)
    _kernels.count_reaching(bounds, needed, labels, begins)
    rows = np.empty(begins[-1], dtype=np.intp)
    _kernels.list_reaching(bounds, needed, labels, begins, rows)
    near = ~(bounds < needed[:, None]) & (labels[:, None] != np.arange(5))
    for k in range(5):
        assert_array_equal(rows[begins[k] : begins[k + 1]], np.flatnonzero(near[:, k]))
    labels[::3] = -1
    rows = np.empty((labels >= 0).sum(), dtype=np.intp)
    _kernels.list_labels(labels, begins, rows)
    for k in range(5):
        assert_array_equal(rows[begins[k] : begins[k + 1]], np.flatnonzero(labels == k))


def test_scores_and_filters_of_products():
    rng = np.random.default_rng(1)
    values, centre, rows = rng.standard_normal((9, 13)), rng.standard_normal(13), np.array([1, 4, 8])
    deviations, scores, out = np.empty((3, 13)), np.empty(3), np.zeros((9, 13))
    _kernels.gather_about(values, rows, centre, deviations)
    assert_array_equal(deviations, values[rows] - centre)
    product = rng.standard_normal((3, 13))
    _kernels.score_product(deviations, product, 2.0, scores)
    assert_allclose(scores, 2 - 0.5 * np.einsum("ij,ij->i", deviations, product), rtol=1e-13)
    _kernels.scatter_filtered(values, rows, product, 0.3, out)
    assert_allclose(out[rows], values[rows] - 0.3 * product, rtol=1e-15)
    best = np.full(9, scores[1])
    _kernels.raise_to(rows, scores, best)
    assert_array_equal(best[rows], np.maximum(scores, scores[1]))


def test_rows_that_no_longer_reach_are_left_out():
    rows, bounds = np.array([0, 2, 3, 5]), np.array([1.0, 9, 1, np.nan, 9, 1], dtype=np.float32)
    best = np.array([0.4, 0, 0.6, 0, 0, 0.5 + 1e-9])
    count = _kernels.keep_reaching(bounds, rows, np.full(6, 0.5), best, 1e-8)
    assert_array_equal(rows[:count], [0, 3, 5])
