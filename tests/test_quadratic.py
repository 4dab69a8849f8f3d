"""Log joints by one product against dense densities, and the digits that it costs."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_limits

from gmmlib import FullGMM, PatchLayer, _kernels
from gmmlib.full import quadratic
from tests import oracles


def mixture(n_components, dimension, *, spread=1.0, narrow=0.1, seed=0):
    """A FullGMM with given parameters, and rows about its means."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n_components, dimension, dimension))
    covariances = A @ A.transpose(0, 2, 1) / dimension + narrow * np.eye(dimension)
    means = 5.0 + spread * rng.standard_normal((n_components, dimension))
    weights = rng.dirichlet(np.ones(n_components))
    model = FullGMM(n_components, max_iter=1, tol=0)
    model.weights_, model.means_, model.covariances_ = weights, means, covariances
    rows = means[rng.integers(n_components, size=211)] + 3 * rng.standard_normal((211, dimension))
    return model, rows


@pytest.mark.parametrize("dimension", [1, 2, 5, 16, 31, 32])
@pytest.mark.parametrize("n_components", [1, 3, 17])
def test_one_product_gives_the_dense_log_joints(n_components, dimension):
    model, rows = mixture(n_components, dimension)
    expected = oracles.gaussian_log_joint(rows, model.weights_, model.means_, model.covariances_)
    assert_allclose(model.quadratic().log_joint(rows), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("spread", "most"), [(1, 1e-10), (30, 1e-8), (100, 1e-7)])
def test_terms_that_cancel_cost_digits_as_stated(spread, most):
    """Beside the triangular products, which share the factors and their rounding."""
    model, rows = mixture(5, 9, spread=spread, narrow=1e-2)
    y = rows - model.weights_ @ model.means_
    terms = np.einsum("ni,kij,nj->nk", y, np.linalg.inv(model.covariances_), y)
    error = np.abs(model.quadratic().log_joint(rows) - model.log_joint(rows)).max()
    rounding = 2.0**-52 * terms.max()
    assert most / 1000 < error < 5 * rounding < most


@pytest.mark.parametrize(
    ("dimension", "settings"), [(33, {}), (6, {"spread": 1e4}), (6, {"spread": 1e3, "narrow": 1e-7})]
)
def test_where_it_is_slow_or_loses_digits_there_is_none(dimension, settings):
    model, _ = mixture(4, dimension, **settings)
    assert model.quadratic() is None


def test_a_component_without_weight_is_impossible():
    model, rows = mixture(3, 4)
    model.weights_ = np.array([0.6, 0.0, 0.4])
    joint = model.quadratic().log_joint(rows)
    assert_array_equal(joint[:, 1], -np.inf)
    assert_allclose(joint[:, [0, 2]], model.log_joint(rows)[:, [0, 2]], rtol=1e-11)


def test_the_matrix_of_now_is_read():
    model, rows = mixture(2, 3)
    before = model.quadratic().log_joint(rows)
    model.means_ = model.means_ + 1.0
    assert_allclose(model.quadratic().log_joint(rows + 1.0), before, rtol=1e-10)


def test_monomials_equal_their_twin():
    rng = np.random.default_rng(0)
    values, centre, out = (
        rng.standard_normal((7, 9))[:, ::2],
        rng.standard_normal(5),
        np.full((7, 21), np.nan),
    )
    _kernels.monomials(values, centre, out)
    y, (i, j) = values - centre, np.triu_indices(5)
    assert_array_equal(out, np.hstack([y[:, i] * y[:, j], y, np.ones((7, 1))]))


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 7])
def test_blocks_of_rows_follow_each_other(rows, monkeypatch):
    model, X = mixture(3, 4)
    expected = model.quadratic().log_joint(X[:rows])
    monkeypatch.setattr(quadratic, "NUMBERS", 3 * 15 + 1)
    assert_allclose(model.quadratic().log_joint(X[:rows]), expected, rtol=1e-12)


@pytest.mark.parametrize("narrow", [0.1, 1e-12])
def test_layers_take_the_product_where_it_is_exact(narrow, monkeypatch):
    """And the dense log joint elsewhere; with either, no bit depends on chunks and threads."""
    images = np.random.default_rng(0).standard_normal((23, 9, 7))
    layer = PatchLayer(FullGMM(3, max_iter=2, tol=0, random_state=0, reg_covar=0.1), side=(3, 2), cells=2)
    layer.fit(images)
    layer.mixture_.covariances_ = layer.mixture_.covariances_ * narrow
    assert (layer.mixture_.quadratic() is None) == (narrow < 0.1)
    calls, dense = [], FullGMM.log_joint
    monkeypatch.setattr(FullGMM, "log_joint", lambda self, X: calls.append(1) or dense(self, X))
    expected = layer.transform(images)
    assert bool(calls) == (narrow < 0.1)
    for chunk_size, threads in ((1, 1), (7, 2)):
        with threadpool_limits(threads, user_api="blas"):
            assert_array_equal(layer.set_params(chunk_size=chunk_size).transform(images), expected)
