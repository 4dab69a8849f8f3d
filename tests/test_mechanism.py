"""Deterministic, stochastic and hard EM, against enumeration and dense steps."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chisquare

from gmmlib import ConvolutionalGMM, FullGMM
from gmmlib.em import Mechanism
from tests import oracles

POSTERIORS = np.array([0.5, 0.0, 0.2, 0.3, 0.0])


def assigned(name, resp, random_state=0):
    """Posteriors after one E-step of a mechanism."""
    resp = np.array(resp, dtype=np.float64)
    mechanism = Mechanism(name, len(resp), random_state)
    mechanism.begin()
    mechanism(resp, slice(0, len(resp)))
    return resp


def images(n=120, shape=(3, 4), seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, *shape)) * np.where(np.arange(n) % 2, 0.3, 1.0)[:, None, None]


def models(mechanism, **settings):
    """One of each family, with the data it takes."""
    settings = {"max_iter": 5, "mechanism": mechanism, "random_state": 1} | settings
    yield ConvolutionalGMM(3, **settings), images()
    yield FullGMM(3, tol=0, reg_covar=1e-3, **settings), images().reshape(120, -1)


def test_deterministic_leaves_the_posteriors_alone():
    resp = np.random.default_rng(0).dirichlet(np.ones(4), size=30)
    assert_array_equal(assigned("deterministic", resp), resp)


def test_hard_takes_the_most_probable_and_the_first_of_equals():
    resp = [[0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0.0, 0.0, 1.0]]
    assert_array_equal(assigned("hard", resp), [[0, 1, 0], [1, 0, 0], [0, 0, 1]])


def test_draws_follow_the_posteriors():
    drawn = assigned("stochastic", np.tile(POSTERIORS, (40_000, 1)))
    assert_array_equal(np.unique(drawn), [0, 1])
    assert_array_equal(drawn.sum(axis=1), 1)
    counts = drawn.sum(axis=0)
    assert_array_equal(counts[POSTERIORS == 0], 0)
    possible = POSTERIORS > 0
    assert chisquare(counts[possible], 40_000 * POSTERIORS[possible]).pvalue > 1e-3
    wrong = np.array([0.48, 0.22, 0.30])
    assert chisquare(counts[possible], 40_000 * wrong).pvalue < 1e-3


@pytest.mark.parametrize("height", [0.0, 1 - 2**-53])
def test_the_ends_of_the_scale_draw_possible_components(height):
    resp = np.array([[0.0, 0.3, 0.7 - 1e-16, 0.0], [0.0, 1.0, 0.0, 0.0]])
    mechanism = Mechanism("stochastic", 2, 0)
    mechanism.height = np.full(2, height)
    mechanism(resp, slice(0, 2))
    assert resp[0].argmax() == (1 if height == 0 else 2)
    assert resp[1].argmax() == 1


def test_rows_draw_alike_in_chunks_of_any_size():
    resp = np.random.default_rng(0).dirichlet(np.ones(4), size=50)
    parts = resp.copy()
    mechanism = Mechanism("stochastic", 50, 7)
    mechanism.begin()
    for rows in (slice(30, 50), slice(0, 13), slice(13, 30)):
        mechanism(parts[rows], rows)
    assert_array_equal(parts, assigned("stochastic", resp, 7))


def test_each_iteration_draws_anew():
    mechanism = Mechanism("stochastic", 100, 0)
    mechanism.begin()
    first = mechanism.height
    mechanism.begin()
    assert not (mechanism.height == first).any()


@pytest.mark.parametrize("mechanism", ["stochastic", "hard"])
def test_fits_repeat_themselves_and_differ_from_em(mechanism):
    for (model, x), (again, _), (plain, _) in zip(
        models(mechanism), models(mechanism), models("deterministic"), strict=True
    ):
        traces = [m.fit(x).log_likelihoods_ for m in (model, again, plain)]
        assert_array_equal(traces[0], traces[1])
        # The starts of the full mixture are posteriors of 0 and 1, so the first M-step is the same.
        assert not np.allclose(traces[0][2:], traces[2][2:], rtol=1e-12)


def test_another_seed_draws_otherwise_from_the_same_start():
    start = {"weights": np.full(3, 1 / 3), "means": np.zeros((3, 12)), "covariances": np.eye(12) * [[[1]]]}
    start["covariances"] = np.stack([np.eye(12) * scale for scale in (0.2, 0.6, 1.2)])
    x = images().reshape(120, -1)
    ends = [
        FullGMM(3, init=start, mechanism="stochastic", max_iter=3, random_state=seed).fit(x).means_
        for seed in (0, 1)
    ]
    assert not np.allclose(*ends)


def test_a_hard_step_is_the_moments_of_the_labels():
    weights, means, covariances = oracles.gaussians(3, 4, apart=0.7)
    x = oracles.draw(200, weights, means, covariances)
    start = {"weights": weights, "means": means, "covariances": covariances}
    model = FullGMM(3, init=start, mechanism="hard", max_iter=1, reg_covar=0.0).fit(x)
    labels = oracles.gaussian_log_joint(x, weights, means, covariances).argmax(axis=1)
    for k in range(3):
        rows = x[labels == k]
        assert_allclose(model.weights_[k], len(rows) / 200, rtol=1e-12)
        assert_allclose(model.means_[k], rows.mean(axis=0), rtol=1e-10)
        assert_allclose(model.covariances_[k], np.cov(rows.T, bias=True), rtol=1e-9, atol=1e-12)


def test_hard_em_climbs_the_likelihood_of_rows_and_labels():
    x = images(300)
    climbed = []

    def record(model, iteration):
        climbed.append(model.log_joint(x).max(axis=1).mean())

    ConvolutionalGMM(4, mechanism="hard", max_iter=15, random_state=0, callback=record).fit(x)
    oracles.assert_never_falls(climbed)
    assert climbed[-1] > climbed[0] + 0.01


def test_weights_of_rows_count_after_the_draw():
    x, weight = images(), np.random.default_rng(0).random(120)
    model = ConvolutionalGMM(2, mechanism="hard", max_iter=1, random_state=0)
    began = ConvolutionalGMM(2, random_state=0, callback=lambda model, iteration: True)
    began.fit(x, sample_weight=weight)
    model.fit(x, sample_weight=weight)
    labels = began.predict(x)
    assert_allclose(model.weights_, np.bincount(labels, weight, 2) / weight.sum(), rtol=1e-12)


@pytest.mark.parametrize("value", ["Stochastic", None, 1])
def test_a_mechanism_that_is_none_is_refused(value):
    for model, x in models(value):
        with pytest.raises(
            ValueError, match='mechanism must be "deterministic", "stochastic" or "hard"; got'
        ):
            model.fit(x)


def test_files_keep_the_mechanism(tmp_path):
    for model, x in models("hard"):
        model.fit(x).save(tmp_path / "model.npz")
        assert type(model).load(tmp_path / "model.npz").mechanism == "hard"
