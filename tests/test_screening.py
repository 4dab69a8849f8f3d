"""Bounds in single precision against log joints in double, and what is scored against scipy's densities."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gmmlib import FullGMM
from gmmlib.full import screening, whitening
from tests import oracles
from tests.test_whitening import whiteners

NEGLIGIBLE = 40.0


def patch_like(n_components, dimension, seed=0, means=0.3):
    """Components of many scales, as contrasts of photographs have, whose axes are a little rotated."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
    shape = 1 / (1 + np.arange(dimension)) ** 1.5
    covariances = np.empty((n_components, dimension, dimension))
    for k, scale in enumerate(np.geomspace(1e-4, 1, n_components)):
        turned = np.linalg.qr(basis + 0.05 * rng.standard_normal(basis.shape))[0]
        covariances[k] = scale * (turned * shape * rng.uniform(0.5, 2, dimension)) @ turned.T
    weights = rng.dirichlet(np.full(n_components, 2.0))
    deviation = np.sqrt(np.einsum("kii->ki", covariances))
    return weights, means * deviation * rng.standard_normal(deviation.shape), covariances


CASES = {
    "24 dimensions": patch_like(16, 24),
    "odd": patch_like(17, 37, 1),
    "zero means": patch_like(40, 63, 2, means=0.0),
    "far means": patch_like(19, 31, 3, means=30.0),
    "129 components": patch_like(129, 25, 4),
}


def bounds(X, screen):
    """Upper and lower bounds (n, K), by numpy alone: monomials in double, the product in single precision."""
    y = X @ screen.axes
    i, j = np.triu_indices(X.shape[1])
    monomials = np.hstack([y[:, i] * y[:, j], y, np.ones((len(y), 1))]).astype(np.float32)
    upper = (monomials @ screen.coefficients).astype(np.float64)
    return upper, upper - y**2 @ screen.spread.T - screen.gap


@pytest.mark.parametrize("case", CASES)
def test_the_bounds_enclose_every_log_joint(case):
    parameters = CASES[case]
    X = oracles.draw(300, *parameters)
    X[::7] *= 50.0  # also where nothing is likely
    X[::11] *= 1e-3
    upper, lower = bounds(X, screening.of(whiteners(*parameters)))
    exact = oracles.gaussian_log_joint(X, *parameters)
    assert (lower < exact).all()
    assert (exact < upper).all()


@pytest.mark.parametrize("case", [case for case in CASES if case != "far means"])
def test_near_samples_the_bounds_are_closer_than_the_forty_nats(case):
    parameters = CASES[case]
    X = oracles.draw(300, *parameters)
    upper, lower = bounds(X, screening.of(whiteners(*parameters)))
    exact = oracles.gaussian_log_joint(X, *parameters)
    best = exact.argmax(axis=1)
    assert (upper - lower)[np.arange(300), best].max() < 2.0


@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.3])
def test_a_bound_without_what_rounding_can_do_would_fail(shift):
    """The widths are not idle: single precision errs by a good part of them."""
    parameters = patch_like(17, 37, 1, means=30.0)
    X = oracles.draw(300, *parameters) + shift
    screen = screening.of(whiteners(*parameters))
    upper, lower = bounds(X, screen)
    middle = 0.5 * (upper + lower)
    exact = oracles.gaussian_log_joint(X, *parameters)
    assert (np.abs(middle - exact) / (upper - lower)).max() > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_what_is_scored_is_scipys_and_what_is_not_is_out_of_sight(case):
    parameters = CASES[case]
    these = whiteners(*parameters)
    X = oracles.draw(600, *parameters)
    joint = screening.log_joint(X, these, screening.of(these))
    exact = oracles.gaussian_log_joint(X, *parameters)
    dropped = np.isneginf(joint)
    gap = exact.max(axis=1, keepdims=True) - exact
    assert (gap[dropped] > NEGLIGIBLE).all()
    assert_allclose(joint[~dropped], exact[~dropped], rtol=1e-9)
    if case != "far means":  # a component is scored in vain only if it is not much farther away
        assert (gap[~dropped] < NEGLIGIBLE + 5).mean() > 0.99
    assert dropped.any()


def test_rows_scored_in_other_blocks_have_the_same_candidates():
    parameters = CASES["odd"]
    screen = screening.of(whiteners(*parameters))
    X = oracles.draw(700, *parameters)
    whole = screening.candidates(X, screen)
    parts = [screening.candidates(X[i : i + 256], screen) for i in range(0, 700, 256)]
    assert_array_equal(whole, np.concatenate(parts))


def test_a_component_of_weight_zero_is_never_scored():
    weights, means, covariances = CASES["odd"]
    weights = weights.copy()
    weights[3] = 0.0
    X = oracles.draw(50, weights / weights.sum(), means, covariances)
    with np.errstate(divide="ignore"):
        these = whiteners(weights, means, covariances)
    assert not screening.candidates(X, screening.of(these))[:, 3].any()


def test_where_single_precision_ends_everything_is_a_candidate():
    parameters = CASES["odd"]
    screen = screening.of(whiteners(*parameters))
    X = oracles.draw(9, *parameters)
    X[2] *= 1e25
    X[5, 1] = np.nan
    near = screening.candidates(X, screen)
    assert near[2].all()
    assert near[5].all()
    assert not near[0].all()


@pytest.mark.parametrize("factor", [1e-60, 1e60])
def test_units_do_not_matter_until_coefficients_overflow(factor):
    weights, means, covariances = CASES["odd"]
    X = oracles.draw(50, weights, means, covariances)
    screen = screening.of(whiteners(weights, factor * means, factor**2 * covariances))
    plain = screening.of(whiteners(weights, means, covariances))
    other = screening.candidates(factor * X, screen) != screening.candidates(X, plain)
    assert other.mean() < 0.01  # the bounds are rounded in another way


def test_covariances_too_far_apart_for_single_precision_have_no_screen():
    weights, means, covariances = (a.copy() for a in CASES["odd"])
    covariances[0] *= 1e-50
    assert screening.of(whiteners(weights, 0 * means, covariances)) is None


def scored_as(X, these, **options):
    return screening.scorer(these, X.__getitem__, len(X), **options)


@pytest.mark.parametrize("everything", [False, True])
def test_with_everything_nothing_is_dropped(everything):
    parameters = CASES["odd"]
    these = whiteners(*parameters)
    X = oracles.draw(700, *parameters)
    joint = scored_as(X, these, everything=everything)(X)
    assert np.isneginf(joint).any() != everything


@pytest.mark.parametrize(
    ("n_rows", "n_components", "dimension", "screened"),
    [(700, 17, 37, True), (200, 17, 37, False), (700, 15, 37, False), (700, 17, 23, False)],
)
def test_few_rows_components_or_dimensions_are_scored_at_once(n_rows, n_components, dimension, screened):
    parameters = patch_like(n_components, dimension)
    X = oracles.draw(n_rows, *parameters)
    joint = scored_as(X, whiteners(*parameters))(X)
    assert np.isneginf(joint).any() == screened
    assert_allclose(
        joint[np.isfinite(joint)], oracles.gaussian_log_joint(X, *parameters)[np.isfinite(joint)], rtol=1e-9
    )


def test_components_that_all_overlap_are_scored_at_once():
    weights, means, covariances = patch_like(20, 30)
    covariances[:] = covariances[-1]
    means[:] = 0.1 * means[0]
    X = oracles.draw(700, weights, means, covariances)
    assert np.isfinite(scored_as(X, whiteners(weights, means, covariances))(X)).all()


def by_hand(X, weight, parameters, reg_covar, zero_means, min_weight=None):
    """One EM iteration by dense posteriors; parameters after it, and the log-likelihood before."""
    weights, means, covariances = parameters
    joint = oracles.gaussian_log_joint(X, *parameters)
    evidence = np.logaddexp.reduce(joint, axis=1)
    resp = np.exp(joint - evidence[:, None]) * weight[:, None]
    mass = resp.sum(axis=0)
    stays = np.arange(len(mass)) if min_weight is None else np.flatnonzero(mass / mass.sum() >= min_weight)
    means, covariances = np.zeros_like(means[stays]), np.empty_like(covariances[stays])
    for place, k in enumerate(stays):
        if not zero_means:
            means[place] = resp[:, k] @ X / mass[k]
        centred = X - means[place]
        covariances[place] = (centred.T * resp[:, k]) @ centred / mass[k] + reg_covar * np.eye(X.shape[1])
    return mass[stays] / mass[stays].sum(), means, covariances, weight @ evidence / weight.sum()


@pytest.mark.parametrize("min_weight", [None, 0.03])
@pytest.mark.parametrize("zero_means", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_an_iteration_is_the_dense_one(weighted, zero_means, min_weight):
    start = patch_like(23, 29, 5, means=0.0 if zero_means else 0.3)
    X = oracles.draw(1500, *start)
    weight = np.random.default_rng(1).integers(0, 4, len(X)) / 1.0 if weighted else np.ones(len(X))
    model = FullGMM(
        23, zero_means=zero_means, min_weight=min_weight, reg_covar=1e-6, max_iter=1, tol=0,
        init=dict(zip(("weights", "means", "covariances"), start, strict=True)),
    ).fit(X, sample_weight=weight)  # fmt: skip
    weights, means, covariances, level = by_hand(X, weight, start, 1e-6, zero_means, min_weight)
    assert_allclose(model.log_likelihoods_[0], level, rtol=1e-12)
    assert len(model.weights_) == len(weights)
    assert_allclose(model.weights_, weights, rtol=1e-9)
    assert_allclose(model.means_, means, rtol=1e-7, atol=1e-12)
    assert_allclose(model.covariances_, covariances, rtol=1e-7, atol=1e-12)


def test_em_climbs_and_its_digits_depend_on_neither_chunks_nor_threads():
    start = patch_like(31, 26, 6)
    X = oracles.draw(9001, *start)
    fits = [
        FullGMM(31, max_iter=6, tol=0, random_state=0, init="random_from_data", chunk_size=size).fit(X)
        for size in (1, 5000, 10**6)
    ]
    assert (np.diff(fits[0].log_likelihoods_) > 0).all()
    for other in fits[1:]:
        assert_array_equal(fits[0].log_likelihoods_, other.log_likelihoods_)
        assert_array_equal(fits[0].covariances_, other.covariances_)
    assert_array_equal(fits[0].score_samples(X), fits[1].score_samples(X))
    assert_allclose(
        fits[0].score_samples(X),
        np.logaddexp.reduce(
            oracles.gaussian_log_joint(X, fits[0].weights_, fits[0].means_, fits[0].covariances_), axis=1
        ),
        rtol=1e-9,
        atol=1e-9,
    )


def test_rows_listed_by_column():
    rng = np.random.default_rng(0)
    values = rng.random((50, 7)) * (rng.random((50, 7)) < 0.3)
    values[:, 2] = 0.0
    for k, rows in enumerate(whitening.occupied(values)):
        assert_array_equal(rows, np.flatnonzero(values[:, k]))
