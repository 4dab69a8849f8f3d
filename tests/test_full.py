"""Mixtures with full covariances against scipy's densities, scikit-learn's mixture and their own laws."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from gmmlib import FullGMM
from gmmlib.storage import ModelFileError
from tests import oracles

DIMENSIONS = [1, 3, 72, 73, 130]
LEARNED = ("weights_", "means_", "covariances_", "log_likelihoods_", "component_counts_")


def stop(model, iteration):
    return True


def start(weights, means, covariances):
    return {"weights": weights, "means": means, "covariances": covariances}


def planted(weights, means, covariances, **others):
    """A model that holds these parameters: stopped before its first iteration."""
    dimension = means.shape[1]
    x = np.random.default_rng(99).standard_normal((len(weights) + 1, dimension))
    return FullGMM(len(weights), init=start(weights, means, covariances), callback=stop, **others).fit(x)


def data(n=400, dimension=3, n_components=3, seed=0, apart=1.5):
    return oracles.draw(n, *oracles.gaussians(n_components, dimension, seed, apart), seed=seed)


def begin(x, n_components=3, seed=0):
    """A start at rows of the data, under the covariance of all."""
    rows = np.random.default_rng(seed).choice(len(x), n_components, replace=False)
    covariance = np.cov(x.T).reshape(x.shape[1], x.shape[1]) + 1e-3 * x.var() * np.eye(x.shape[1])
    return start(np.full(n_components, 1 / n_components), x[rows], np.stack([covariance] * n_components))


def fit(x, n_components=3, sample_weight=None, **others):
    others = {"max_iter": 15, "tol": 0.0, "reg_covar": 1e-6, "random_state": 0} | others
    return FullGMM(n_components, **others).fit(x, sample_weight=sample_weight)


def reference(x, n_components=3, **others):
    others = {"max_iter": 15, "tol": 0.0, "reg_covar": 1e-6, "random_state": 0} | others
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(n_components, **others).fit(x)


def assert_same_fit(a, b, rtol=1e-9):
    for name in LEARNED:
        one, other = getattr(a, name), getattr(b, name)
        assert_allclose(one, other, rtol=rtol, atol=rtol * np.abs(other).max(), err_msg=name)


def assert_bit_equal_fit(a, b):
    for name in LEARNED:
        assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


# The density


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_densities_equal_scipys(dimension):
    parameters = oracles.gaussians(4, dimension, seed=1, apart=0.7)
    x = oracles.draw(50, *parameters, seed=2)
    model = planted(*parameters)
    joint = oracles.gaussian_log_joint(x, *parameters)
    evidence = np.logaddexp.reduce(joint, axis=1)
    posterior = oracles.posteriors(joint)
    assert_allclose(model.log_joint(x), joint, rtol=1e-9)
    assert_allclose(model.score_samples(x), evidence, rtol=1e-10, atol=1e-11)
    assert_allclose(model.score(x), evidence.mean(), rtol=1e-10)
    assert_allclose(model.predict_proba(x), posterior, rtol=1e-7, atol=1e-17)
    assert_array_equal(model.predict_proba(x)[joint < joint.max(axis=1, keepdims=True) - 40.001], 0.0)
    assert_allclose(model.predict_log_proba(x), joint - evidence[:, None], rtol=1e-8, atol=1e-9)
    assert_array_equal(model.predict(x), joint.argmax(axis=1))
    assert len(set(model.predict(x))) > 1


def test_a_density_integrates_to_one():
    model = planted(*oracles.gaussians(3, 2))
    grid = np.linspace(-20, 20, 801)
    x = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    assert_allclose(np.exp(model.score_samples(x)).sum() * (grid[1] - grid[0]) ** 2, 1.0, rtol=1e-6)


@pytest.mark.parametrize("dimension", [3, 100])
def test_a_component_of_weight_zero_changes_no_density(dimension):
    _, means, covariances = oracles.gaussians(3, dimension)
    x = data(30, dimension)
    with_it = planted(np.array([0.4, 0.0, 0.6]), means, covariances)
    without = planted(np.array([0.4, 0.6]), means[[0, 2]], covariances[[0, 2]])
    assert_allclose(with_it.score_samples(x), without.score_samples(x), rtol=1e-11)
    assert_array_equal(with_it.predict_proba(x)[:, 1], 0.0)


@pytest.mark.parametrize("weighted", [False, True])
def test_labels_start_from_the_moments_of_their_rows(weighted):
    x, labels = data(60, 4), np.random.default_rng(0).integers(0, 3, size=60)
    weight = np.arange(60) % 4 if weighted else np.ones(60)
    model = FullGMM(3, init=labels.tolist(), callback=stop, reg_covar=0.1).fit(x, sample_weight=weight)
    resp = np.eye(3)[labels] * weight[:, None]
    weights, means, covariances = oracles.gaussian_m_step(x, resp, 0.1)
    assert_allclose(model.weights_, weights, rtol=1e-12)
    assert_allclose(model.means_, means, rtol=1e-10, atol=1e-12)
    assert_allclose(model.covariances_, covariances, rtol=1e-9, atol=1e-11)
    online = FullGMM(3, init=labels).partial_fit(x, sample_weight=weight)
    assert np.isfinite(online.score(x))


def test_precisions_may_be_given_instead_of_covariances():
    weights, means, covariances = oracles.gaussians(3, 4)
    x = data(50, 4)
    init = {"weights": weights, "means": means, "precisions": np.linalg.inv(covariances)}
    model = FullGMM(3, init=init, callback=stop).fit(x)
    assert_allclose(model.log_joint(x), planted(weights, means, covariances).log_joint(x), rtol=1e-9)
    assert_allclose(model.covariances_, covariances, rtol=1e-9, atol=1e-11)


# The same as scikit-learn


@pytest.mark.parametrize("dimension", [1, 3, 20, 80])
@pytest.mark.parametrize("reg_covar", [1e-6, 0.1])
@pytest.mark.parametrize("given_start", [False, True])
def test_a_fit_equals_that_of_scikit_learn_from_the_same_start(dimension, reg_covar, given_start):
    x = data(600, dimension, apart=1.0 if dimension < 50 else 0.3)
    ours = {"reg_covar": reg_covar, "max_iter": 15 if dimension < 50 else 7}
    theirs = dict(ours)
    if given_start:
        ours["init"] = begin(x)
        theirs |= {
            "weights_init": ours["init"]["weights"],
            "means_init": ours["init"]["means"],
            "precisions_init": np.linalg.inv(ours["init"]["covariances"]),
        }
    model, other = fit(x, **ours), reference(x, **theirs)
    assert_allclose(model.log_likelihoods_[:-1], other.lower_bounds_, rtol=1e-10)
    assert len(other.lower_bounds_) == model.n_iter_ == ours["max_iter"]
    assert_allclose(model.log_likelihoods_[-1], other.score(x), rtol=1e-10)
    assert_allclose(model.weights_, other.weights_, rtol=1e-8)
    assert_allclose(model.means_, other.means_, rtol=1e-7, atol=1e-9)
    assert_allclose(model.covariances_, other.covariances_, rtol=1e-7, atol=1e-9)
    for name in ("precisions_", "precisions_cholesky_"):
        value = getattr(other, name)
        assert_allclose(getattr(model, name), value, rtol=1e-6, atol=1e-8 * value.max(), err_msg=name)
    assert_array_equal(np.tril(model.precisions_cholesky_, -1), 0.0)
    assert_allclose(model.score_samples(x), other.score_samples(x), rtol=1e-8, atol=1e-9)
    assert_allclose(model.predict_proba(x), other.predict_proba(x), rtol=1e-5, atol=1e-9)
    assert_array_equal(model.predict(x), other.predict(x))
    assert_allclose(model.aic(x), other.aic(x), rtol=1e-10)
    assert_allclose(model.bic(x), other.bic(x), rtol=1e-10)
    assert model.n_parameters() == other._n_parameters()


@pytest.mark.parametrize("dimension", [5, 90])
def test_columns_that_never_vary_give_the_numbers_of_scikit_learn(dimension):
    x = data(400, dimension, apart=1.0 if dimension < 50 else 0.3)
    x = np.insert(x, [0, 2, dimension], [7.0, 0.0, -3.0], axis=1)
    model, other = (run(x, reg_covar=1e-3, max_iter=8) for run in (fit, reference))
    assert_allclose(model.log_likelihoods_[:-1], other.lower_bounds_, rtol=1e-10)
    assert_allclose(model.weights_, other.weights_, rtol=1e-8)
    assert_allclose(model.means_, other.means_, rtol=1e-7, atol=1e-9)
    assert_allclose(model.covariances_, other.covariances_, rtol=1e-7, atol=1e-9)
    y = x + np.random.default_rng(0).standard_normal(x.shape) * 0.01  # where those columns do vary
    assert_allclose(model.score_samples(y), other.score_samples(y), rtol=1e-8)


def test_one_component_is_the_sample_mean_and_covariance():
    x = data(100, 6)
    model = fit(x, 1, reg_covar=0.5, max_iter=2)
    assert_allclose(model.means_[0], x.mean(axis=0), rtol=1e-12)
    assert_allclose(model.covariances_[0], np.cov(x.T, bias=True) + 0.5 * np.eye(6), rtol=1e-10)
    assert_array_equal(model.weights_, [1.0])


@pytest.mark.parametrize("zero_means", [False, True])
@pytest.mark.parametrize("dimension", [3, 75])
def test_a_weighted_step_equals_the_written_out_one(dimension, zero_means):
    x = data(200, dimension, apart=0.2)
    row_weight = np.random.default_rng(5).random(200) * 3
    weights, means, covariances = oracles.gaussians(3, dimension, seed=4, apart=0.2)
    if zero_means:
        means = np.zeros_like(means)
        covariances = x.T @ x / len(x) * np.array([0.95, 1.0, 1.05])[:, None, None]
    joint = oracles.gaussian_log_joint(x, weights, means, covariances)
    resp = oracles.posteriors(joint) * row_weight[:, None]
    assert (resp.sum(axis=0) > 10).all()
    expected = oracles.gaussian_m_step(x, resp, 1e-2, zero_means)
    model = fit(
        x,
        init=start(weights, means, covariances),
        max_iter=1,
        reg_covar=1e-2,
        zero_means=zero_means,
        sample_weight=row_weight,
    )
    for name, value in zip(LEARNED, expected, strict=False):
        assert_allclose(getattr(model, name), value, rtol=1e-8, atol=1e-9)
    before = np.average(np.logaddexp.reduce(joint, axis=1), weights=row_weight)
    after = oracles.gaussian_log_joint(x, *expected)
    after = np.average(np.logaddexp.reduce(after, axis=1), weights=row_weight)
    assert_allclose(model.log_likelihoods_, [before, after], rtol=1e-10)


# Whole runs

RUNS = {
    "plain": {},
    "one dimension": {"dimension": 1},
    "several blocks": {"dimension": 80, "apart": 0.2, "n": 600, "max_iter": 10},
    "weights": {"sample_weight": np.random.default_rng(6).random(400) * 2},
    "zero means": {"zero_means": True},
    "chunks": {"chunk_size": 17},
    "many components": {"n_components": 8},
    "random start": {"init": "random_from_data"},
    "zero means, random start": {"zero_means": True, "init": "random_from_data"},
}


@pytest.mark.parametrize("name", RUNS)
def test_every_step_climbs_and_the_trace_is_that_of_the_models(name):
    others = {"max_iter": 30, "reg_covar": 0.0} | RUNS[name]
    x = data(others.pop("n", 400), others.pop("dimension", 3), apart=others.pop("apart", 1.5))
    scores = []

    def callback(model, iteration):
        assert iteration == len(scores)
        scores.append(np.average(model.score_samples(x), weights=others.get("sample_weight")))
        assert_allclose(model.weights_.sum(), 1.0, rtol=1e-12)

    model = fit(x, callback=callback, **others)
    oracles.assert_never_falls(model.log_likelihoods_)
    assert model.log_likelihoods_[-1] > model.log_likelihoods_[0] + 1e-4
    assert model.n_iter_ == others["max_iter"]
    assert_allclose(model.log_likelihoods_, scores, rtol=1e-10)
    assert model.converged_ is False
    assert_array_equal(model.component_counts_, len(model.weights_))
    assert len(model.component_counts_) == len(model.log_likelihoods_) == model.n_iter_ + 1


@pytest.mark.parametrize("zero_means", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_a_step_maximises_the_expected_log_joint_less_the_ridges_price(ridge, zero_means):
    """The step maximises sum_nk r[n, k] l_k(x_n) - ridge/2 sum_k mass[k] tr(precision_k).

    The mass in the price is that of the posteriors, so that no function of the parameters alone climbs
    from step to step with a ridge: the objective of one step is compared with that of parameters nearby.
    """
    x = data(150)
    weights, means, covariances = oracles.gaussians(3, 3, seed=7)
    means *= not zero_means
    resp = oracles.posteriors(oracles.gaussian_log_joint(x, weights, means, covariances))
    model = fit(
        x,
        init=start(weights, means, covariances),
        max_iter=1,
        reg_covar=ridge,
        zero_means=zero_means,
    )

    def objective(weights, means, covariances, price=ridge):
        trace = np.trace(np.linalg.inv(covariances), axis1=1, axis2=2)
        joint = oracles.gaussian_log_joint(x, weights, means, covariances)
        return (resp * joint).sum() - 0.5 * price * (resp.sum(axis=0) @ trace)

    best = model.weights_, model.means_, model.covariances_
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-2, 1e-1):
        for _ in range(10):
            weights = best[0] * np.exp(size * rng.standard_normal(3))
            means = best[1] + size * (not zero_means) * rng.standard_normal((3, 3))
            factor = np.eye(3) + size * rng.standard_normal((3, 3, 3))
            covariances = factor @ best[2] @ factor.transpose(0, 2, 1)
            nearby = weights / weights.sum(), means, covariances
            assert objective(*nearby) < objective(*best)
    if ridge:  # negative control: without the price these are not the best
        smaller = best[0], best[1], best[2] - 0.5 * ridge * np.eye(3)
        assert objective(*smaller, price=0.0) > objective(*best, price=0.0)


def test_a_warm_start_goes_on_where_the_fit_before_stopped():
    x = data()
    model = fit(x, max_iter=5, warm_start=True)
    model.fit(x)
    whole = fit(x, max_iter=10)
    assert_allclose(model.log_likelihoods_, whole.log_likelihoods_[5:], rtol=1e-10)
    assert_allclose(model.covariances_, whole.covariances_, rtol=1e-8, atol=1e-10)


def test_a_warm_start_follows_a_fit_that_removed_components():
    x = data()
    model = fit(x, 8, min_weight=0.12, warm_start=True)
    left = len(model.weights_)
    assert left < 8
    model.fit(x)
    assert model.component_counts_[0] == left


# Row weights


@pytest.mark.parametrize("dimension", [3, 75])
def test_a_row_of_weight_zero_is_absent(dimension):
    x = data(300, dimension, apart=0.3)
    weight = np.ones(len(x))
    weight[[0, 7, 200]] = 0
    others = {"init": begin(x), "max_iter": 6, "reg_covar": 1e-3}
    assert_same_fit(fit(x, sample_weight=weight, **others), fit(x[weight > 0], **others), 1e-8)
    x[0] = 1e6  # wherever it is
    for init in (others["init"], "kmeans", "random_from_data"):
        others["init"] = init
        assert_same_fit(fit(x, sample_weight=weight, **others), fit(x[weight > 0], **others), 1e-8)


@pytest.mark.parametrize("dimension", [3, 75])
def test_an_integer_weight_repeats_a_row(dimension):
    x = data(300, dimension, apart=0.3)
    weight = np.random.default_rng(1).integers(0, 4, len(x))
    others = {"init": begin(x), "max_iter": 6, "reg_covar": 1e-3}
    repeated = np.repeat(x, weight, axis=0)
    assert_same_fit(fit(x, sample_weight=weight, **others), fit(repeated, **others), 1e-8)
    plain = fit(x, **others).log_likelihoods_
    assert np.abs(plain - fit(repeated, **others).log_likelihoods_).max() > 1e-3  # negative control


# Components at the origin


def test_one_component_at_the_origin_has_the_second_moments():
    x = data(100, 6)
    model = fit(x, 1, zero_means=True, reg_covar=0.5, max_iter=2)
    assert_allclose(model.covariances_[0], x.T @ x / 100 + 0.5 * np.eye(6), rtol=1e-10)
    assert_array_equal(model.means_, 0.0)
    assert model.n_parameters() == 21


@pytest.mark.parametrize("dimension", [3, 90])
@pytest.mark.parametrize("init", ["kmeans", "random_from_data"])
def test_the_sign_of_a_sample_does_not_matter_to_components_at_the_origin(dimension, init):
    x = data(400, dimension, apart=0.3)
    model = fit(x, zero_means=True, init=init, reg_covar=1e-3)
    assert_array_equal(model.means_, 0.0)
    assert_allclose(model.score_samples(-x), model.score_samples(x), rtol=1e-10)
    assert len(model.weights_) == 3
    assert np.abs(model.covariances_[0] - model.covariances_[1]).max() > 1e-3


def test_columns_that_never_vary_count_when_means_are_held_at_the_origin():
    x = np.insert(data(200, 3), 1, 5.0, axis=1)
    model = fit(x, 1, zero_means=True, reg_covar=1e-3)
    assert_allclose(model.covariances_[0], x.T @ x / 200 + 1e-3 * np.eye(4), rtol=1e-8)
    x[:, 1] = 0.0
    model = fit(x, 1, zero_means=True, reg_covar=1e-3)
    assert_allclose(model.covariances_[0], x.T @ x / 200 + 1e-3 * np.eye(4), rtol=1e-8, atol=1e-12)


# Removal of light components


def test_min_weight_removes_light_components_and_nothing_falls_in_between():
    x = data(600)

    def callback(model, iteration):
        assert_allclose(model.weights_.sum(), 1.0, rtol=1e-12)
        assert_allclose(model.log_likelihoods_[-1], model.score(x), rtol=1e-10)
        assert len(model.weights_) == model.component_counts_[-1]

    others = {"min_weight": 0.08, "max_iter": 60, "reg_covar": 0.0, "init": "random_from_data"}
    model = fit(x, 10, callback=callback, **others)
    counts = model.component_counts_
    assert counts[0] == 10
    assert 1 <= counts[-1] < 10
    assert (np.diff(counts) <= 0).all()
    assert len(counts) == len(model.log_likelihoods_) == model.n_iter_ + 1
    ends = [*np.flatnonzero(np.diff(counts)), len(counts) - 1]
    assert len(ends) > 1
    begins = [0, *(end + 1 for end in ends[:-1])]
    for first, last in zip(begins, ends, strict=True):
        if last > first:
            oracles.assert_never_falls(model.log_likelihoods_[first : last + 1])
    assert len(model.weights_) == counts[-1]
    assert model.weights_.min() >= 0.08
    assert_allclose(model.weights_.sum(), 1.0, rtol=1e-12)
    assert model.means_.shape == (counts[-1], 3)
    assert model.covariances_.shape == (counts[-1], 3, 3)
    assert_allclose(model.log_likelihoods_[-1], model.score(x), rtol=1e-10)
    assert model.predict_proba(x).shape == (600, counts[-1])


@pytest.mark.parametrize("unit", [0.1, 0.7, 1 / 3, 1e-3, 1.0])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_a_component_that_holds_just_the_least_weight_stays(unit, order):
    """Weights that are counts of samples equal the limit, but for the last bit."""
    labels = np.repeat(order, [30, 30, 40])
    x = labels[:, None] * 100.0 + np.random.default_rng(0).normal(size=(100, 2))
    model = fit(x, 3, sample_weight=np.full(100, unit), init=labels, min_weight=0.3, max_iter=3)
    assert_array_equal(model.component_counts_, 3)
    model = fit(x, 3, sample_weight=np.full(100, unit), init=labels, min_weight=0.3 + 1e-6, max_iter=3)
    assert_array_equal(model.component_counts_[-1:], [1])  # negative control


def test_without_min_weight_no_component_is_removed():
    model = fit(data(600), 10, max_iter=60, init="random_from_data")
    assert_array_equal(model.component_counts_, 10)
    assert model.weights_.min() < 0.08  # negative control


def test_the_last_component_is_never_removed():
    model = fit(data(), 5, min_weight=0.99)
    assert_array_equal(model.component_counts_[-1:], [1])
    assert_allclose(model.weights_, [1.0])
    assert_allclose(model.means_[0], data().mean(axis=0), rtol=1e-10)


def test_a_removed_component_does_not_warn():
    x = data()
    weights, means, covariances = oracles.gaussians(3, 3, 0, 1.5)
    init = start(np.array([0.5, 0.5, 0.0]), means, covariances)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fit(x, init=init, min_weight=1e-6)
    assert_array_equal(model.component_counts_[:2], [3, 2])


# Data that leave a covariance singular


def singular(name, n=60):
    """Data on which at least one covariance of a mixture has no inverse."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 5)) + 4.0 * rng.integers(0, 2, (n, 1))
    if name == "some constant columns":
        x[:, [1, 3]] = 2.0, 0.0
    elif name == "all columns constant":
        x[:] = np.arange(5.0)
    elif name == "columns repeated":
        x[:, 3:] = x[:, :2]
    elif name == "on the simplex":
        x = rng.dirichlet(np.full(5, 0.3), n)
    elif name == "few rows":
        x = rng.standard_normal((8, 20))
    elif name == "few rows, several blocks":
        x = rng.standard_normal((30, 100))
    elif name == "few distinct rows":
        x = np.repeat(x[:2], 30, axis=0)
    elif name == "a constant of 1e8":
        x[:, 2] = 1e8 / 3
    return x


SINGULAR = [
    "some constant columns",
    "all columns constant",
    "columns repeated",
    "on the simplex",
    "few rows",
    "few rows, several blocks",
    "few distinct rows",
    "a constant of 1e8",
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("zero_means", [False, True])
@pytest.mark.parametrize("init", ["kmeans", "random_from_data"])
@pytest.mark.parametrize("n_components", [1, 3])
@pytest.mark.parametrize("name", SINGULAR)
def test_a_ridge_keeps_singular_data_finite(name, n_components, init, zero_means):
    x = singular(name)
    ridge = 1e-4 if name != "a constant of 1e8" or not zero_means else 1e4
    model = fit(x, n_components, init=init, zero_means=zero_means, reg_covar=ridge)
    for learned in LEARNED:
        assert np.isfinite(getattr(model, learned)).all()
    assert np.isfinite(model.score_samples(x)).all()
    assert_allclose(model.predict_proba(x).sum(axis=1), 1.0, rtol=1e-12)
    assert_allclose(model.weights_.sum(), 1.0, rtol=1e-12)
    assert_allclose(model.log_likelihoods_[-1], model.score(x), rtol=1e-6)
    assert np.linalg.eigvalsh(model.covariances_).min() > 0


@pytest.mark.parametrize("dimension", [3, 80])
def test_as_many_components_as_rows(dimension):
    x = data(6, dimension)
    model = fit(x, 6, reg_covar=1e-2)
    assert np.isfinite(model.log_likelihoods_).all()
    assert_allclose(model.weights_, 1 / 6, rtol=1e-6)


SINGULAR_TEXT = (
    "The covariance of component 0 is singular: its samples lie on a hyperplane, are too few for {} "
    "dimensions, or columns repeat each other. Set reg_covar above 0 (it is added to every variance, in "
    "squared units of the data), drop such columns, or ask for fewer components."
)
CONSTANT_TEXT = (
    "X has {} columns that never vary, the first at index {}, so every covariance is singular. Set "
    "reg_covar above 0 (it is added to every variance, in squared units of the data), drop such columns, or "
    "ask for fewer components."
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("some constant columns", CONSTANT_TEXT.format(2, 1)),
        ("all columns constant", CONSTANT_TEXT.format(5, 0)),
        ("few rows", SINGULAR_TEXT.format(20)),
        ("few rows, several blocks", SINGULAR_TEXT.format(100)),
        ("few distinct rows", SINGULAR_TEXT.format(5)),
    ],
)
def test_without_a_ridge_singular_data_are_an_error_that_says_so(name, text):
    with pytest.raises(ValueError) as caught:
        fit(singular(name), 1, reg_covar=0.0)
    assert str(caught.value) == text


@pytest.mark.parametrize("zero_means", [False, True])
@pytest.mark.parametrize("dimension", [3, 80])
def test_an_empty_component_is_put_elsewhere_with_a_warning(dimension, zero_means):
    x = data(400, dimension, apart=0.3)
    init = begin(x, 2)
    init["means"] = init["means"] * (not zero_means)
    init["weights"] = np.array([1.0, 0.0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = FullGMM(2, init=init, zero_means=zero_means, reg_covar=1e-3, max_iter=10, tol=0.0).fit(x)
    (warning,) = caught
    assert warning.category is ConvergenceWarning
    assert str(warning.message) == (
        "Components [1] lost all their samples; each was re-initialised by splitting the heaviest one. "
        "Fewer components may fit these data as well; min_weight removes such components."
    )
    assert warning.filename == __file__
    assert all(np.isfinite(getattr(model, name)).all() for name in LEARNED)
    assert (model.weights_ > 0.001).all()
    assert_allclose(model.weights_.sum(), 1.0, rtol=1e-12)
    assert_allclose(model.log_likelihoods_[-1], model.score(x), rtol=1e-10)


def test_the_little_that_an_empty_component_held_goes_to_the_others():
    """Three groups out of each other's reach, the last of a share that counts as none."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 2)) + np.repeat([0.0, 100.0, 200.0], 10)[:, None]
    start = {
        "weights": np.full(3, 1 / 3),
        "means": np.array([[0.0, 0.0], [100.0, 100.0], [200.0, 200.0]]),
        "covariances": np.tile(np.eye(2), (3, 1, 1)),
    }
    with pytest.warns(ConvergenceWarning, match=r"Components \[2\] lost"):
        model = fit(x, init=start, sample_weight=np.repeat([3.0, 1.0, 3e-10], 10), max_iter=1)
    assert_allclose(model.weights_, [0.375, 0.25, 0.375], rtol=1e-14)


# Symmetries


def test_components_may_come_in_any_order():
    x = data()
    init, order = begin(x), [2, 0, 1]
    one, other = fit(x, init=init), fit(x, init={key: value[order] for key, value in init.items()})
    assert_allclose(other.log_likelihoods_, one.log_likelihoods_, rtol=1e-11)
    assert_allclose(other.means_, one.means_[order], rtol=1e-8)


@pytest.mark.parametrize("dimension", [3, 90])
def test_an_affine_change_moves_the_log_likelihood_by_its_volume(dimension):
    x = data(300, dimension, apart=0.3)
    init = begin(x)
    a, shift = 255.0, 1000.0
    moved = start(init["weights"], a * init["means"] + shift, a**2 * init["covariances"])
    one = fit(x, init=init, reg_covar=1e-3, max_iter=5)
    other = fit(a * x + shift, init=moved, reg_covar=1e-3 * a**2, max_iter=5)
    assert_allclose(other.log_likelihoods_, one.log_likelihoods_ - dimension * np.log(a), rtol=1e-9)
    assert_allclose(other.means_, a * one.means_ + shift, rtol=1e-8)
    assert_allclose(other.weights_, one.weights_, rtol=1e-7)


@given(
    dimension=st.integers(1, 90),
    n_components=st.integers(1, 6),
    n=st.integers(6, 120),
    exponent=st.integers(-6, 6),
    flatness=st.integers(0, 10),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None, derandomize=True)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_any_data_give_finite_answers_and_order_does_not_matter(
    dimension, n_components, n, exponent, flatness, seed
):
    rng = np.random.default_rng(seed)
    unit = 10.0**exponent
    widths = np.where(rng.random(dimension) < 0.5, 1.0, 10.0**-flatness)
    turn = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
    x = unit * ((rng.standard_normal((n, dimension)) * widths) @ turn + rng.integers(0, 3, (n, 1)))
    ridge = 1e-4 * unit**2
    covariance = (x - x.mean(axis=0)).T @ (x - x.mean(axis=0)) / n + ridge * np.eye(dimension)
    init = start(
        np.full(n_components, 1 / n_components),
        x[rng.choice(n, n_components, replace=False)],
        np.stack([covariance] * n_components),
    )
    others = {"reg_covar": ridge, "max_iter": 3}
    model = fit(x, n_components, init=init, **others)
    for candidate in (model, fit(x, n_components, **others)):
        assert np.isfinite(candidate.log_likelihoods_).all()
        assert np.isfinite(candidate.score_samples(x)).all()
        assert_allclose(candidate.predict_proba(x).sum(axis=1), 1.0, rtol=1e-12)
        assert_allclose(candidate.weights_.sum(), 1.0, rtol=1e-12)
        assert np.linalg.eigvalsh(candidate.covariances_).min() > 0
    rows, columns = rng.permutation(n), rng.permutation(dimension)
    turned_init = start(
        init["weights"], init["means"][:, columns], init["covariances"][:, columns][:, :, columns]
    )
    other = fit(x[rows][:, columns], n_components, init=turned_init, **others)
    close = {"rtol": 1e-6, "atol": 1e-6 * dimension}
    assert_allclose(other.log_likelihoods_, model.log_likelihoods_, **close)
    assert_allclose(other.score_samples(x[:, columns]), model.score_samples(x), **close)
    assert_allclose(other.means_, model.means_[:, columns], rtol=1e-5, atol=1e-5 * unit)


# Reproducibility


@pytest.mark.parametrize("dimension", [90])
def test_results_do_not_depend_on_the_number_of_threads(dimension):
    x = data(1500, dimension, apart=0.3)
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            model = fit(x, 4, chunk_size=128, max_iter=5, init=begin(x, 4))
            results.append((model, model.log_joint(x), model.score_samples(x), model.predict_proba(x)))
    (one, *ones), (two, *twos) = results
    assert_bit_equal_fit(one, two)
    for a, b in zip(ones, twos, strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("dimension", [3, 90])
@pytest.mark.parametrize("chunk_size", [1, 7, 299, 300, 10_000])
def test_chunks_change_results_only_to_rounding(chunk_size, dimension):
    x = data(300, dimension, apart=0.3)
    others = {"init": begin(x), "reg_covar": 1e-3, "max_iter": 4}
    expected, model = fit(x, chunk_size=64, **others), fit(x, chunk_size=chunk_size, **others)
    assert_same_fit(model, expected, rtol=1e-8)
    assert_allclose(model.score_samples(x), expected.score_samples(x), rtol=1e-8, atol=1e-8)


# Samples


def moments_off(x, labels, means, covariances):
    """Largest deviation of sampled means and covariances, in standard errors from n."""
    worst = 0.0
    for k, covariance in enumerate(covariances):
        drawn = x[labels == k]
        variance = covariance.diagonal()
        error = np.sqrt(variance / len(drawn))
        worst = max(worst, np.abs((drawn.mean(axis=0) - means[k]) / error).max())
        error = np.sqrt((np.outer(variance, variance) + covariance**2) / len(drawn))
        apart = drawn - means[k]
        worst = max(worst, np.abs((apart.T @ apart / len(drawn) - covariance) / error).max())
    return worst


def test_samples_have_the_moments_they_were_drawn_from():
    weights, means, covariances = oracles.gaussians(3, 4)
    n = 30_000
    x, labels = planted(weights, means, covariances).sample(n, 0)
    assert moments_off(x, labels, means, covariances) < 5
    assert moments_off(x, labels, means, 1.15 * covariances) > 5  # negative control
    counts = np.bincount(labels, minlength=3)
    assert (np.abs(counts - n * weights) < 5 * np.sqrt(n * weights * (1 - weights))).all()
    assert_array_equal(labels, np.sort(labels))


def test_samples_of_given_components_have_their_moments():
    weights, means, covariances = oracles.gaussians(3, 4)
    labels = np.random.default_rng(1).permutation(np.repeat([0, 1, 2], 10_000))
    x = planted(weights, means, covariances).sample_components(labels, 0)
    assert moments_off(x, labels, means, covariances) < 5
    assert moments_off(x, np.roll(labels, 1), means, covariances) > 5  # negative control


def test_fit_recovers_a_planted_mixture_up_to_relabelling():
    weights, means, covariances = oracles.gaussians(3, 4, apart=2.5)
    x = oracles.draw(4000, weights, means, covariances)
    model = fit(x, max_iter=100)
    order = [int(np.abs(model.means_ - mean).sum(axis=1).argmin()) for mean in means]
    assert sorted(order) == [0, 1, 2]
    assert np.abs(model.weights_[order] - weights).max() < 5 * np.sqrt(0.25 / 4000)
    assert_allclose(model.covariances_[order], covariances, atol=0.15 * covariances.max())


# Files


@pytest.mark.parametrize("others", [{}, {"zero_means": True}, {"min_weight": 0.1}, {"allow_missing": True}])
def test_a_saved_model_comes_back_bit_by_bit(tmp_path, others):
    x = data(300, 75, apart=0.3)
    model = fit(x, 5, reg_covar=1e-3, max_iter=4, **others)
    model.save(tmp_path / "model.npz")
    twin = FullGMM.load(tmp_path / "model.npz")
    assert_bit_equal_fit(twin, model)
    assert_array_equal(twin.score_samples(x), model.score_samples(x))
    assert_array_equal(twin.log_joint(x), model.log_joint(x))
    assert_array_equal(twin.sample(5, 0)[0], model.sample(5, 0)[0])
    assert (twin.n_iter_, twin.converged_, twin.n_features_in_) == (4, False, 75)
    forgotten = {"init": "kmeans", "random_state": None}
    assert twin.get_params() == model.get_params() | forgotten
    assert np.isfinite(twin.partial_fit(x).score(x))


def test_a_file_of_impossible_parameters_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    model = fit(data())
    model.weights_ = 2.0 * model.weights_
    model.save(path)
    with pytest.raises(ModelFileError) as caught:
        FullGMM.load(path)
    assert str(caught.value).startswith(
        f"{path} holds no usable FullGMM: {path}['weights'] must be >= 0 and sum to 1; got "
    )


# Messages

NOISE = np.random.default_rng(0).standard_normal((6, 3))
EYES = np.stack([np.eye(3)] * 2)


def bad(**others):
    return {"weights": [0.5, 0.5], "means": np.zeros((2, 3)), "covariances": EYES} | others


def second(matrix):
    return np.stack([np.eye(3), matrix])


INDEFINITE = np.diag([1.0, 1.0, -1.0])
ASKEW = np.eye(3) + 0.1 * np.eye(3, k=1)
FIT_MESSAGES = [
    ({"min_weight": -0.1}, NOISE, "min_weight must be a finite number >= 0; got -0.1."),
    ({"min_weight": "0.1"}, NOISE, "min_weight must be a finite number >= 0; got '0.1'."),
    ({"min_weight": 1.0}, NOISE, "min_weight must be below 1, a share of the weight; got 1.0."),
    ({"zero_means": "fixed"}, NOISE, "zero_means must be True or False; got 'fixed'."),
    (
        {"init": "k-means"},
        NOISE,
        'init must be "kmeans", "random_from_data", an array with a component for each row, or a mapping '
        'with "weights", "means" and "covariances" or "precisions"; got \'k-means\'.',
    ),
    (
        {"init": None},
        NOISE,
        'init must be "kmeans", "random_from_data", an array with a component for each row, or a mapping '
        'with "weights", "means" and "covariances" or "precisions"; got None.',
    ),
    (
        {"init": [0, 1, 0]},
        NOISE,
        "init must hold a component for each of the 6 rows of X; got 3.",
    ),
    (
        {"init": [0, 1, 0, 2, 0, 1]},
        NOISE,
        "init must be below n_components=2; got 2 at index 3. "
        "Pass a larger n_components, or None to take it from the labels.",
    ),
    (
        {"init": {"weights": [0.5, 0.5], "covariances": EYES}},
        NOISE,
        'init must hold "weights", "means" and "covariances" or "precisions"; '
        "got ['covariances', 'weights'].",
    ),
    (
        {"init": {"weights": [0.5, 0.5], "means": np.zeros((2, 3))}},
        NOISE,
        'init must hold "weights", "means" and "covariances" or "precisions"; got [\'means\', \'weights\'].',
    ),
    ({"init": bad(weights=[1.0])}, NOISE, "init['weights'] must have shape (2,); got (1,)."),
    ({"init": bad(means=np.zeros((2, 4)))}, NOISE, "init['means'] must have shape (2, 3); got (2, 4)."),
    (
        {"init": bad(covariances=np.eye(3))},
        NOISE,
        "init['covariances'] must have shape (2, 3, 3); got (3, 3).",
    ),
    (
        {"init": bad(means=np.array([[0.0, 0.0, 0.0], [0.0, np.inf, 0.0]]))},
        NOISE,
        "init['means'] must be finite; got 1 value that is NaN or infinite, the first at index (1, 1). "
        "Remove or replace them first.",
    ),
    (
        {"init": bad(weights=[0.5, 0.6])},
        NOISE,
        "init['weights'] must be >= 0 and sum to 1; got 0.5 at least and the sum 1.1.",
    ),
    (
        {"init": bad(weights=[-0.5, 1.5])},
        NOISE,
        "init['weights'] must be >= 0 and sum to 1; got -0.5 at least and the sum 1.",
    ),
    (
        {"init": bad(covariances=second(INDEFINITE))},
        NOISE,
        "init['covariances'] must be symmetric and positive definite; number 1 is not. "
        "Add a small multiple of the identity.",
    ),
    (
        {"init": bad(covariances=second(ASKEW))},
        NOISE,
        "init['covariances'] must be symmetric and positive definite; number 1 is not. "
        "Add a small multiple of the identity.",
    ),
    (
        {"init": {"weights": [0.5, 0.5], "means": np.zeros((2, 3)), "precisions": second(np.zeros((3, 3)))}},
        NOISE,
        "init['precisions'] must be symmetric and positive definite; number 1 is not. "
        "Add a small multiple of the identity.",
    ),
    (
        {"init": bad(means=np.ones((2, 3))), "zero_means": True},
        NOISE,
        'init["means"] must be 0 everywhere with zero_means=True.',
    ),
]


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(("others", "x", "text"), FIT_MESSAGES)
def test_the_message_of_fit(others, x, text, method):
    with pytest.raises(ValueError) as caught:
        getattr(FullGMM(**({"n_components": 2, "random_state": 0} | others)), method)(x)
    assert str(caught.value) == text


# Conventions of scikit-learn


def test_it_works_in_a_pipeline():
    x = 100.0 + 7.0 * data()
    pipeline = Pipeline([("scale", StandardScaler()), ("mixture", FullGMM(3, random_state=0))]).fit(x)
    scaled = StandardScaler().fit_transform(x)
    expected = FullGMM(3, random_state=0).fit(scaled)
    assert_allclose(pipeline.score_samples(x), expected.score_samples(scaled), rtol=1e-12)
    assert_array_equal(pipeline.predict(x), expected.predict(scaled))


def test_samples_that_coincide_start_components_apart():
    rng = np.random.default_rng(0)
    X = np.repeat(rng.standard_normal((3, 4)), 40, axis=0)  # three places, eight components
    starts = []
    FullGMM(
        8, init="random_from_data", random_state=0, callback=lambda m, t: starts.append(m.means_.copy())
    ).fit(X + 1e-12 * rng.standard_normal(X.shape))
    first = starts[0] / X.std(axis=0)
    gaps = np.sqrt(((first[:, None] - first) ** 2).mean(axis=2))
    assert gaps[np.triu_indices(8, 1)].min() > 0.03
    assert gaps[np.triu_indices(8, 1)].min() < 0.5  # and they stay near the samples they came from


def test_samples_that_differ_start_components_where_they_are():
    X = np.random.default_rng(1).standard_normal((50, 3))
    starts = []
    FullGMM(
        4, init="random_from_data", random_state=0, callback=lambda m, t: starts.append(m.means_.copy())
    ).fit(X)
    distance = np.abs(starts[0][:, None] - X).max(axis=2).min(axis=1)
    assert distance.max() < 1e-12


def test_coinciding_starts_are_told_apart_by_the_seed_and_not_by_rounding():
    """One-hot samples, disturbed in the last digits as another processor would: the same fit."""
    rng = np.random.default_rng(2)
    codes = np.eye(6)[rng.integers(6, size=600)] * 0.98 + 0.02 * rng.dirichlet(np.ones(6), 600)
    codes[:400] = np.round(codes[:400])
    fits = [
        FullGMM(5, init="random_from_data", reg_covar=1e-4, max_iter=30, tol=0, random_state=0).fit(X)
        for X in (codes, codes + 1e-13 * rng.standard_normal(codes.shape))
    ]
    np.testing.assert_allclose(fits[0].log_likelihoods_, fits[1].log_likelihoods_, rtol=1e-7)
    np.testing.assert_array_equal(fits[0].predict(codes), fits[1].predict(codes))


def test_fit_predict_counts_row_weights():
    rng = np.random.default_rng(5)
    X = np.concatenate([rng.standard_normal((30, 2)), rng.standard_normal((30, 2)) + 6])
    weight = np.r_[np.ones(30), np.zeros(30)]
    settings = {"n_components": 2, "random_state": 0}
    labels = FullGMM(**settings).fit_predict(X, sample_weight=weight)
    np.testing.assert_array_equal(labels, FullGMM(**settings).fit(X, sample_weight=weight).predict(X))
    assert (labels != FullGMM(**settings).fit_predict(X)).any()


@pytest.mark.filterwarnings("ignore:Components")
@pytest.mark.parametrize("zero_means", [False, True])
def test_weights_still_sum_to_one_after_a_component_was_put_elsewhere(zero_means):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 3)) + (0 if zero_means else 5)
    start = np.zeros(80, dtype=int)
    start[40:] = 1
    weights = []
    FullGMM(
        3,
        init=start,
        zero_means=zero_means,
        max_iter=3,
        tol=0,
        callback=lambda m, t: weights.append(m.weights_.copy()),
    ).fit(X)
    assert all(len(w) == 3 and w.min() > 0 for w in weights)
    np.testing.assert_allclose([w.sum() for w in weights], 1.0)
