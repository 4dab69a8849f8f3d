"""Samples with missing coordinates against marginals and conditionals by other routes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_limits

from gmmlib import FullGMM, missing
from tests import oracles


def planted(weights, means, covariances, **settings):
    """A model that holds these parameters: stopped before its first iteration."""
    init = {"weights": weights, "means": means, "covariances": covariances}
    x = oracles.draw(max(len(weights), 5), weights, means, covariances)
    settings = {"allow_missing": True} | settings
    return FullGMM(len(weights), init=init, callback=lambda model, iteration: True, **settings).fit(x)


def holes(n_components, dimension=5, n=40, share=0.4):
    """Parameters and samples of a mixture, a share of their values missing; row 0 whole, row 1 empty."""
    parameters = oracles.gaussians(n_components, dimension, seed=3)
    x = oracles.draw(n, *parameters, seed=1)
    gone = np.random.default_rng(2).random(x.shape) < share
    gone[0], gone[1] = False, True
    x[gone] = np.nan
    return parameters, x


@pytest.mark.parametrize("n_components", [1, 3])
def test_densities_are_those_of_the_marginals(n_components):
    parameters, x = holes(n_components)
    expected = oracles.observed_log_joint(x, *parameters)
    model = planted(*parameters)
    assert_allclose(missing.log_joint(x, *parameters), expected, rtol=1e-10, atol=1e-12)
    assert_allclose(model.log_joint(x), expected, rtol=1e-10, atol=1e-12)
    evidence = np.logaddexp.reduce(expected, axis=1)
    assert_allclose(model.score_samples(x), evidence, rtol=1e-10, atol=1e-12)
    assert_allclose(model.score(x), evidence.mean(), rtol=1e-10)
    assert_allclose(model.predict_proba(x), oracles.posteriors(expected), rtol=1e-8, atol=1e-17)
    assert_array_equal(model.predict(x), expected.argmax(axis=1))


def test_a_sample_of_which_nothing_is_known_has_the_weights_for_posteriors():
    parameters, x = holes(3)
    model = planted(*parameters)
    assert_allclose(model.predict_proba(x[1:2])[0], parameters[0], rtol=1e-12)
    assert_allclose(model.score_samples(x[1:2]), 0.0, atol=1e-14)


def test_whole_samples_keep_their_densities_beside_others():
    parameters, x = holes(3, dimension=80)
    whole = oracles.draw(20, *parameters, seed=5)
    model = planted(*parameters)
    alone = model.log_joint(whole)
    together = model.log_joint(np.concatenate([whole, x]))
    assert_allclose(together[:20], alone, rtol=1e-10)
    assert_allclose(planted(*parameters, allow_missing=False).log_joint(whole), alone, rtol=1e-12)


@pytest.mark.parametrize("n_components", [1, 3])
def test_missing_values_are_filled_with_conditional_means(n_components):
    parameters, x = holes(n_components)
    filled = planted(*parameters).impute(x)
    there = ~np.isnan(x)
    assert_array_equal(filled[there], x[there])
    assert np.isfinite(filled).all()
    assert_allclose(filled, oracles.expected(x, *parameters), rtol=1e-9, atol=1e-10)
    means = parameters[0] @ parameters[1]
    assert np.abs(filled - means)[2:][~there[2:]].max() > 0.1  # negative control: more than the mean is known
    assert_allclose(filled[1], means, rtol=1e-10)


def test_impute_leaves_whole_samples_and_its_argument_alone():
    parameters, x = holes(3)
    whole = oracles.draw(10, *parameters)
    model = planted(*parameters)
    filled = model.impute(whole)
    assert_array_equal(filled, whole)
    assert not np.shares_memory(filled, whole)
    before = x.copy()
    model.impute(x)
    assert_array_equal(x, before)


def test_independent_coordinates_say_nothing_about_each_other():
    means, covariances = np.array([[1.0, -2.0, 5.0]]), np.diag([1.0, 2.0, 3.0])[None]
    filled = planted(np.ones(1), means, covariances).impute([[np.nan, 7.0, np.nan]])
    assert_allclose(filled, [[1.0, 7.0, 5.0]], rtol=1e-12)


def test_filling_a_known_value_back_in_beats_the_mean():
    parameters = oracles.gaussians(3, 6, seed=8)
    x = oracles.draw(400, *parameters, seed=2)
    holed = x.copy()
    holed[:, 2] = np.nan
    error = planted(*parameters).impute(holed)[:, 2] - x[:, 2]
    assert (error**2).mean() < 0.95 * x[:, 2].var()


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
def test_chunks_change_results_only_to_rounding(chunk_size):
    parameters, x = holes(3)
    expected = planted(*parameters).log_joint(x)
    assert_allclose(
        planted(*parameters, chunk_size=chunk_size).log_joint(x), expected, rtol=1e-12, atol=1e-12
    )


def test_every_pattern_comes_once_with_its_rows():
    _, x = holes(2)
    seen = np.zeros(len(x), dtype=int)
    for columns, rows in missing.patterns(x):
        seen[rows] += 1
        assert_array_equal(~np.isnan(x[rows]), np.tile(columns, (len(rows), 1)))
    assert_array_equal(seen, 1)


# Ways to a marginal density


def brute(x, weights, means, covariances):
    return oracles.observed_log_joint(x, weights, means, covariances)


@pytest.mark.parametrize("dimension", [1, 2, 13, 40, 77])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_each_share_of_missing_values_against_a_density_a_row(dimension, share):
    """Few missing, half, most: by projections, by a factor a row, and in rotated axes beyond 72 columns."""
    parameters, x = holes(3, dimension, n=61, share=share)
    assert_allclose(planted(*parameters).log_joint(x), brute(x, *parameters), rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("zero_means", [False, True])
def test_patterns_that_are_common_and_patterns_that_come_once(zero_means):
    weights, means, covariances = oracles.gaussians(2, 9, seed=3)
    parameters = weights, 0 * means if zero_means else means, covariances
    x = oracles.draw(700, *parameters, seed=1)
    x[:300, [2, 5]] = np.nan
    binary = (np.arange(1, 401)[:, None] >> np.arange(9)) & 1
    x[300:][binary == 1] = np.nan  # each pattern once
    model = planted(*parameters, zero_means=zero_means)
    assert_allclose(model.log_joint(x), brute(x, *parameters), rtol=1e-10, atol=1e-9)


def test_samples_that_miss_everything():
    parameters, _ = holes(3)
    joint = planted(*parameters).log_joint(np.full((250, 5), np.nan))
    assert_allclose(joint, np.tile(np.log(parameters[0]), (250, 1)), atol=1e-14)


def test_a_component_of_weight_0_has_no_density_anywhere():
    parameters, x = holes(3)
    model = planted(*parameters)
    model.weights_ = np.array([0.0, 0.4, 0.6])
    expected = np.log(model.weights_[1:]) - np.log(parameters[0][1:]) + brute(x, *parameters)[:, 1:]
    with np.errstate(all="raise"):
        joint = model.log_joint(x)
    assert_array_equal(joint[:, 0], -np.inf)
    assert_allclose(joint[:, 1:], expected, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("dimension", [6, 90])
@pytest.mark.parametrize("exponent", [4, 8, 11])
def test_columns_that_nearly_repeat_each_other_cost_no_digits(dimension, exponent):
    """Two columns that differ by 10^-exponent of their variance: the one that is left is as good as ever."""
    rng = np.random.default_rng(0)
    weights, means, covariances = oracles.gaussians(2, dimension, seed=4)
    covariances[:, 1] = covariances[:, 0]
    covariances[:, :, 1] = covariances[:, :, 0]
    covariances[:, 1, 1] *= 1 + 10.0**-exponent
    x = oracles.draw(50, weights, means, covariances, seed=1)
    x[:25, 1], x[25:, 0] = np.nan, np.nan
    x[:, 0] += np.where(np.isnan(x[:, 0]), 0.0, rng.normal(size=50))
    parameters = weights, means, covariances
    assert_allclose(planted(*parameters).log_joint(x), brute(x, *parameters), rtol=1e-10)


def test_narrow_components_far_apart_cost_no_digits():
    """The filling is far from either, in their own units."""
    weights, means, covariances = oracles.gaussians(2, 12, seed=4)
    parameters = weights, 1e7 * means, covariances
    x = oracles.draw(40, *parameters, seed=1)
    x[np.arange(40), np.arange(40) % 12] = np.nan
    own = brute(x, *parameters).max(axis=1)
    assert_allclose(planted(*parameters).score_samples(x), own, rtol=1e-6)


@pytest.mark.parametrize("dimension", [11, 75])
def test_neither_chunks_nor_threads_change_a_bit(dimension):
    parameters, _ = holes(2, dimension)
    x = oracles.draw(9000, *parameters, seed=1)
    x[np.random.default_rng(2).random(x.shape) < 0.02] = np.nan
    expected = planted(*parameters).log_joint(x)
    assert_array_equal(planted(*parameters, chunk_size=20_000).log_joint(x), expected)
    with threadpool_limits(2, user_api="blas"):
        assert_array_equal(planted(*parameters, chunk_size=1).log_joint(x), expected)


NAN = "X must be finite; got 1 value that is NaN or infinite, the first at index (0, 2). "
INF = "X must be finite or NaN; got 1 value that is infinite, the first at index (0, 2). "
METHODS = ["score_samples", "score", "predict", "predict_proba", "predict_log_proba", "log_joint"]


def row(value):
    return np.array([[0.0, 0.0, value, 0.0, 0.0]])


@pytest.mark.parametrize("method", METHODS)
def test_nan_is_refused_unless_it_is_allowed(method):
    parameters, _ = holes(2)
    with pytest.raises(ValueError) as caught:
        getattr(planted(*parameters, allow_missing=False), method)(row(np.nan))
    assert str(caught.value) == NAN + "Remove or replace them first."
    assert np.isfinite(getattr(planted(*parameters), method)(row(np.nan))).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("method", [*METHODS, "impute", "sample_given"])
def test_infinity_is_always_refused(method, value):
    parameters, _ = holes(2)
    with pytest.raises(ValueError) as caught:
        getattr(planted(*parameters), method)(row(value))
    assert str(caught.value) == INF + "Remove or replace them first."


@pytest.mark.parametrize("allow_missing", [False, True])
@pytest.mark.parametrize("method", ["fit", "fit_predict", "partial_fit"])
def test_nothing_is_fitted_on_missing_values(method, allow_missing):
    x = np.concatenate([row(np.nan), np.random.default_rng(0).standard_normal((9, 5))])
    with pytest.raises(ValueError) as caught:
        getattr(FullGMM(2, allow_missing=allow_missing), method)(x)
    assert str(caught.value) == NAN + (
        "allow_missing=True holds for scoring, impute and sample_given alone: fit on complete rows, "
        "X[~numpy.isnan(X).any(axis=1)], or on filled ones."
        if allow_missing
        else "Remove or replace them first."
    )


def test_a_later_batch_with_missing_values_is_refused_and_leaves_the_model_as_it_was():
    parameters, x = holes(2)
    model = planted(*parameters)
    before = model.means_.copy()
    with pytest.raises(ValueError, match=r"^X must be finite; got"):
        model.partial_fit(x)
    assert_array_equal(model.means_, before)


def test_impute_without_allow_missing_says_what_it_needs():
    parameters, x = holes(2)
    with pytest.raises(ValueError) as caught:
        planted(*parameters, allow_missing=False).impute(x)
    assert str(caught.value) == "impute needs allow_missing=True: only then is NaN a missing value."


# Draws


def dense_conditional(row, weights, means, covariances):
    """Mean (M,) and covariance (M, M) of what a row misses, by Bayes' rule and blocks of the precisions."""
    gone, there = np.flatnonzero(np.isnan(row)), np.flatnonzero(~np.isnan(row))
    share = oracles.posteriors(oracles.observed_log_joint(row[None], weights, means, covariances))[0]
    centres, spreads = [], []
    for mean, precision in zip(means, np.linalg.inv(covariances), strict=True):
        spread = np.linalg.inv(precision[np.ix_(gone, gone)])
        pull = precision[np.ix_(gone, there)] @ (row[there] - mean[there])
        centres.append(mean[gone] - spread @ pull)
        spreads.append(spread)
    mean = share @ np.array(centres)
    apart = np.array(centres) - mean
    return mean, np.einsum("k,kij->ij", share, spreads) + np.einsum("k,ki,kj->ij", share, apart, apart)


@pytest.mark.parametrize("n_components", [1, 3])
def test_draws_have_the_moments_of_the_conditional_mixture(n_components):
    parameters, x = holes(n_components, n=8)
    n_samples = 20_000
    draws = planted(*parameters).sample_given(x, n_samples, 0)
    assert draws.shape == (n_samples, *x.shape)
    compared = 0
    for row, drawn in zip(x, draws.transpose(1, 0, 2), strict=True):
        gone = np.isnan(row)
        if not gone.any():
            continue
        mean, covariance = dense_conditional(row, *parameters)
        centred = drawn[:, gone] - mean
        # Standard errors from the draws' own spread, which the products' fourth moments enter.
        error = centred.std(axis=0) / np.sqrt(n_samples)
        assert (np.abs(centred.mean(axis=0)) < 5 * error).all()
        products = centred[:, :, None] * centred[:, None, :]
        error = products.std(axis=0) / np.sqrt(n_samples)
        assert (np.abs(products.mean(axis=0) - covariance) < 5 * error).all()
        compared += gone.sum()
    assert compared > 10


def test_a_draw_is_distributed_as_the_conditional_and_not_only_in_its_moments():
    """Two narrow components that share what is observed: draws lie near one mean or the other."""
    means, covariances = np.array([[0.0, -5.0], [0.0, 5.0]]), np.stack([0.01 * np.eye(2)] * 2)
    model = planted(np.array([0.3, 0.7]), means, covariances)
    draws = model.sample_given([[0.0, np.nan]], 4000, 1)[:, 0, 1]
    assert np.abs(np.abs(draws) - 5).max() < 0.6
    assert abs((draws > 0).mean() - 0.7) < 5 * np.sqrt(0.21 / 4000)


def test_many_draws_average_to_what_impute_returns():
    parameters, x = holes(3, n=10)
    model = planted(*parameters)
    draws = model.sample_given(x, 10_000, 3)
    error = draws.std(axis=0) / 100
    assert (np.abs(draws.mean(axis=0) - model.impute(x)) <= 5 * error + 1e-12).all()


def test_observed_values_stay_to_the_last_bit_and_the_argument_is_left_alone():
    parameters, x = holes(3)
    before = x.copy()
    draws = planted(*parameters).sample_given(x, 3, 0)
    there = ~np.isnan(x)
    for drawn in draws:
        assert_array_equal(drawn[there], x[there])
    assert_array_equal(draws[:, 0], np.stack([x[0]] * 3))  # a whole sample
    assert np.isfinite(draws).all()
    assert (draws[0] != draws[1])[~there].all()
    assert_array_equal(x, before)


def test_a_sample_of_which_nothing_is_known_is_drawn_from_the_mixture():
    parameters, x = holes(3)
    draws = planted(*parameters).sample_given(x[1:2], 20_000, 0)[:, 0]
    weights, means, covariances = parameters
    centred = draws - weights @ means
    apart = means - weights @ means
    whole = np.einsum("k,kij->ij", weights, covariances) + np.einsum("k,ki,kj->ij", weights, apart, apart)
    products = centred[:, :, None] * centred[:, None, :]
    assert (np.abs(products.mean(axis=0) - whole) < 5 * products.std(axis=0) / np.sqrt(20_000)).all()


def test_a_seed_fixes_the_draws_and_other_samples_do_not_change_them():
    parameters, x = holes(3)
    model = planted(*parameters)
    draws = model.sample_given(x, 2, 7)
    assert_array_equal(model.sample_given(x, 2, 7), draws)
    assert np.abs(model.sample_given(x, 2, 8) - draws).max() > 0.1
    other = x.copy()
    other[5:] = 1.0
    assert_allclose(model.sample_given(other, 2, 7)[:, :5], draws[:, :5], rtol=1e-12)
    assert model.sample_given(x).shape == (1, *x.shape)


def test_draws_without_allow_missing_say_what_they_need():
    parameters, x = holes(2)
    with pytest.raises(ValueError) as caught:
        planted(*parameters, allow_missing=False).sample_given(x)
    assert str(caught.value) == "sample_given needs allow_missing=True: only then is NaN a missing value."


def test_no_draws_are_refused():
    parameters, x = holes(2)
    with pytest.raises(ValueError) as caught:
        planted(*parameters).sample_given(x, 0)
    assert str(caught.value) == "n_samples must be a positive integer; got 0."
