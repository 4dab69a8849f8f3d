"""Statistics that add: EM over parts is EM over the whole, and no chunk, thread or part changes a bit."""

from functools import reduce

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal
from threadpoolctl import threadpool_limits

from gmmlib import ConvolutionalGMM, FullGMM, HierarchicalGMM, PenalisedGMM, TransformedGMM
from gmmlib.em import workers
from gmmlib.full import steps
from gmmlib.stationary import templates
from tests import oracles
from tests.subjects import trace

RNG = np.random.default_rng(4)
IMAGES = RNG.standard_normal((203, 5, 4)) * np.linspace(0.2, 2, 203)[:, None, None]
ROWS = RNG.standard_normal((203, 3)) * np.linspace(0.2, 2, 203)[:, None] + np.arange(203)[:, None] % 3
WEIGHT = 0.5 + np.arange(203) % 4
LEARNED = ("weights_", "means_", "covariances_", "spectra_", "top_weights_", "conditionals_")
MODELS = {
    "convolutional": (lambda **s: ConvolutionalGMM(3, **oracles.WHOLE_RUN | s), IMAGES),
    "zero-mean patches": (
        lambda **s: ConvolutionalGMM(3, zero_mean_patches=True, **oracles.WHOLE_RUN | s),
        IMAGES,
    ),
    "full": (lambda **s: FullGMM(3, **s), ROWS),
    "full, zero means": (lambda **s: FullGMM(3, zero_means=True, init="random_from_data", **s), ROWS),
    "full, in many dimensions": (lambda **s: FullGMM(2, reg_covar=0.1, **s), np.tile(ROWS, 30)),
    "penalised": (lambda **s: PenalisedGMM(3, **oracles.WHOLE_RUN | s), IMAGES),
    "templates": (lambda **s: TransformedGMM(3, **oracles.WHOLE_RUN | s), IMAGES),
    "hierarchical": (
        lambda **s: HierarchicalGMM(3, 2, **oracles.WHOLE_RUN | s),
        IMAGES[:201].reshape(67, 3, 5, 4),
    ),
    "hierarchical, by position": (
        lambda **s: HierarchicalGMM(3, 2, by_position=True, **oracles.WHOLE_RUN | s),
        IMAGES[:201].reshape(67, 3, 5, 4),
    ),
}
CHUNKED = [name for name in MODELS if name != "templates"]  # whose chunks are of the size of memory


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 8 rows, and leaves of 32, so that small data have many."""
    monkeypatch.setattr(workers, "ROWS", 8)
    monkeypatch.setattr(steps, "BLOCK_SIZE", 8)
    monkeypatch.setattr(steps, "LEAF", 32)
    monkeypatch.setattr(templates, "TRIPLES", 3 * 20 * 8)


def learned(model):
    return {name: getattr(model, name) for name in LEARNED if hasattr(model, name)}


def assert_same(a, b, compare=assert_array_equal):
    assert learned(a).keys() == learned(b).keys()
    for name, values in learned(a).items():
        compare(values, learned(b)[name], err_msg=name)


def fitted(name, **settings):
    make, X = MODELS[name]
    return make(max_iter=4, tol=0.0, random_state=1, **settings).fit(X, sample_weight=WEIGHT[: len(X)])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("chunk_size", [1, 8, 50, 10**6])
@pytest.mark.parametrize("name", CHUNKED)
def test_no_bit_depends_on_chunks_or_threads(name, chunk_size, threads, small_blocks):
    usual, X = fitted(name), MODELS[name][1]
    with threadpool_limits(threads, user_api="blas"):
        other = fitted(name, chunk_size=chunk_size)
        scores = other.score_samples(X)
        posteriors = other.predict_proba(X)
    assert_same(other, usual)
    assert_array_equal(trace(other), trace(usual))
    assert_array_equal(scores, usual.score_samples(X))
    assert_array_equal(posteriors, usual.predict_proba(X))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", MODELS)
def test_an_iteration_over_parts_is_one_over_the_whole(name, small_blocks):
    make, X = MODELS[name]
    weight = WEIGHT[: len(X)]
    first = make(max_iter=3, tol=0.0, random_state=1).fit(X, sample_weight=weight)
    after = make(max_iter=4, tol=0.0, random_state=1).fit(X, sample_weight=weight)
    parts = [slice(0, 32), slice(32, 50), slice(50, None)]
    total = reduce(first.merge, (first.statistics(X[rows], weight[rows]) for rows in parts))
    if name != "penalised":  # whose trace is that of its objective
        assert_allclose(total.log_likelihood / total.weight, after.log_likelihoods_[-2], rtol=1e-12)
    assert first.m_step(total) is first
    assert_same(first, after, lambda a, b, err_msg: assert_allclose(a, b, 1e-9, 1e-11, err_msg=err_msg))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", MODELS)
def test_parts_that_are_subtrees_give_the_bits_of_the_whole(name, small_blocks):
    model, X = fitted(name), MODELS[name][1][:64]
    whole = model.statistics(X)
    halves = model.merge(model.statistics(X[:32]), model.statistics(X[32:]))
    for field, a, b in zip(whole._fields, whole, halves, strict=True):
        assert_array_equal(a, b, err_msg=field)


@pytest.mark.parametrize("name", MODELS)
def test_statistics_leave_the_model_as_it_is(name):
    model = fitted(name)
    before = {key: np.copy(values) for key, values in learned(model).items()}
    model.statistics(MODELS[name][1])
    for key, values in learned(model).items():
        assert_array_equal(values, before[key])


def test_second_moments_are_those_written_out():
    """Against a sum over rows, with posteriors from the densities of scipy."""
    model = FullGMM(3, max_iter=2, tol=0.0, random_state=0).fit(ROWS)
    joint = np.stack(
        [
            np.log(w) + multivariate_normal(m, c).logpdf(ROWS)
            for w, m, c in zip(model.weights_, model.means_, model.covariances_, strict=True)
        ],
        axis=1,
    )
    resp = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None]) * WEIGHT[:, None]
    total = model.statistics(ROWS, WEIGHT)
    assert_allclose(total.mass, resp.sum(axis=0), rtol=1e-10)
    assert_allclose(total.log_likelihood, WEIGHT @ np.logaddexp.reduce(joint, axis=1), rtol=1e-10)
    model.m_step(total)
    means = resp.T @ ROWS / resp.sum(axis=0)[:, None]
    assert_allclose(model.means_, means, rtol=1e-9)
    for k in range(3):
        centred = ROWS - means[k]
        covariance = (resp[:, k, None] * centred).T @ centred / resp[:, k].sum() + 1e-6 * np.eye(3)
        assert_allclose(model.covariances_[k], covariance, rtol=1e-8, atol=1e-12)
