"""Log joints by blocks and bounds against scipy's densities."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp

from gmmlib import _kernels, triangular, whitening
from tests import oracles

DIMENSIONS = [1, 3, 72, 73, 130, 260]
GUESSES = {
    "none": lambda joint: None,
    "right": lambda joint: joint.argmax(axis=1),
    "worst": lambda joint: joint.argmin(axis=1),
    "next": lambda joint: (joint.argmax(axis=1) + 1) % joint.shape[1],
    "always the first": lambda joint: np.zeros(len(joint), dtype=np.int64),
    "random": lambda joint: np.random.default_rng(0).integers(0, joint.shape[1], len(joint)),
}


def whiteners(weights, means, covariances):
    """Whiteners of a mixture."""
    result = whitening.allocate(*means.shape)
    for k, weight in enumerate(weights):
        whitening.put(result, k, weight, means[k], covariances[k])
    return result


def mixture(dimension):
    """Components of which each is likelier than the next by some nats, the last one far away.

    Between 20 and 60 nats behind the best lie many, so that a bound cannot be a little off unseen.
    """
    weights, means, covariances = oracles.gaussians(6, dimension, seed=dimension, apart=0.6)
    behind = np.array([0.0, 6.0, 20.0, 30.0, 36.0])
    root = np.linalg.cholesky(covariances[0])
    means[:5] = means[0] + np.sqrt(2 * behind)[:, None] * root[:, 0]
    covariances[:5] = covariances[0]
    means[5] *= 4.0
    return weights, means, covariances


def case(dimension, n=60):
    """Samples, their whiteners and their log joints by scipy."""
    parameters = mixture(dimension)
    x = oracles.draw(n, *parameters)
    return x, whiteners(*parameters), oracles.gaussian_log_joint(x, *parameters)


def check(joint, expected):
    """What is there is right, what was dropped is out of sight, and how many were dropped."""
    dropped = np.isneginf(joint)
    gap = expected.max(axis=1, keepdims=True) - expected
    assert (gap[dropped] > 40.0).all(), f"dropped {gap[dropped].min():.3g} nats below the best"
    assert_allclose(joint[~dropped], expected[~dropped], rtol=1e-10)
    return dropped.sum()


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_with_nothing_dropped_all_log_joints_equal_scipys(dimension):
    x, these, expected = case(dimension)
    joint = whitening.log_joint(x, these, everything=True)
    assert check(joint, expected) == 0
    assert len(these.blocks) == 1 if dimension <= whitening.SMALL else len(these.blocks) > 1


@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_only_what_cannot_be_seen_is_dropped_whatever_the_guess(dimension, guess):
    x, these, expected = case(dimension)
    joint = whitening.log_joint(x, these, GUESSES[guess](expected))
    dropped = check(joint, expected)
    if dimension > whitening.SMALL:
        gap = expected.max(axis=1, keepdims=True) - expected
        assert ((gap > 20) & (gap < 40)).sum() > 20
        assert dropped < joint.size - len(joint)
        assert dropped or guess != "right"
    resp, evidence = joint.copy(), np.empty(len(x))
    _kernels.normalise(resp, np.zeros(joint.shape[1]), evidence)
    assert_allclose(evidence, logsumexp(expected, axis=1), rtol=1e-12)
    assert_allclose(resp, oracles.posteriors(expected), rtol=1e-8, atol=1e-17)
    assert_array_equal(resp[np.isneginf(joint)], 0.0)


def test_the_comparison_catches_a_bound_that_is_too_tight(monkeypatch):
    x, these, expected = case(130)
    check(whitening.log_joint(x, these), expected)
    monkeypatch.setattr(_kernels, "NEGLIGIBLE", 2.0)
    with pytest.raises(AssertionError, match="nats below the best"):
        check(whitening.log_joint(x, these), expected)


def test_the_bound_saves_work(monkeypatch):
    parameters = oracles.gaussians(6, 260, apart=0.6)
    x, these = oracles.draw(60, *parameters), whiteners(*parameters)
    expected = oracles.gaussian_log_joint(x, *parameters)
    products = []
    multiply, add_product = triangular.multiply, triangular.add_product

    def counted_multiply(matrix, rows):
        products.append(len(rows) * matrix.size / 2)
        multiply(matrix, rows)

    def counted_add_product(out, rows, block):
        products.append(len(rows) * block.size)
        add_product(out, rows, block)

    monkeypatch.setattr(triangular, "multiply", counted_multiply)
    monkeypatch.setattr(triangular, "add_product", counted_add_product)
    whitening.log_joint(x, these, expected.argmax(axis=1))
    searched = sum(products)
    products.clear()
    whitening.log_joint(x, these, everything=True)
    assert 0 < searched < 0.7 * sum(products)


@pytest.mark.parametrize("rows", [1, 511, 512, 513, 1100])
def test_any_number_of_rows_gives_each_row_its_own(rows):
    x, these, expected = case(80)
    many = np.resize(x, (rows, 80))
    joint = whitening.log_joint(many, these)
    check(joint, np.resize(expected, (rows, 6)))


def test_no_rows_are_no_trouble():
    _, these, _ = case(80)
    assert whitening.log_joint(np.empty((0, 80)), these).shape == (0, 6)


def test_the_result_is_written_where_the_caller_says():
    x, these, _ = case(80)
    out = np.full((len(x), 6), np.nan)
    assert whitening.log_joint(x, these, out=out) is out
    assert_array_equal(out, whitening.log_joint(x, these))


@pytest.mark.parametrize("dimension", [5, 100])
def test_a_component_of_weight_zero_is_impossible(dimension):
    weights, means, covariances = mixture(dimension)
    x = oracles.draw(30, weights, means, covariances)
    weights[2] = 0.0
    for guess in (None, np.full(30, 2)):
        joint = whitening.log_joint(x, whiteners(weights, means, covariances), guess)
        assert_array_equal(joint[:, 2], -np.inf)
        others = [0, 1, 3, 4, 5]
        expected = oracles.gaussian_log_joint(x, weights[others], means[others], covariances[others])
        check(joint[:, others], expected)


@pytest.mark.parametrize("dimension", [3, 72, 130])
def test_components_of_one_covariance_need_one_product(dimension):
    weights, means, covariances = oracles.gaussians(5, dimension, apart=0.3)
    covariances[:] = covariances[0]
    x = oracles.draw(600, weights, means, covariances)
    tied = whiteners(weights, means, covariances)._replace(tied=True)
    joint = whitening.log_joint(x, tied)
    assert_allclose(joint, oracles.gaussian_log_joint(x, weights, means, covariances), rtol=1e-10)


@pytest.mark.parametrize("dimension", [0, 1, 48, 72, 73, 96, 103, 104, 160, 600, 784])
def test_blocks_cover_every_coordinate_once(dimension):
    blocks = whitening.allocate(1, dimension).blocks
    assert blocks[0][0] == 0
    assert blocks[-1][1] == dimension
    assert [end for _, end in blocks[:-1]] == [start for start, _ in blocks[1:]]
    assert (len(blocks) > 1) == (dimension > whitening.SMALL)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_the_panels_hold_the_inverse_of_the_covariance(dimension):
    parameters = mixture(dimension)
    these = whiteners(*parameters)
    for k, covariance in enumerate(parameters[2]):
        W = whitening.triangle(these, k)
        assert_array_equal(W, np.tril(W))
        assert_allclose(W @ covariance @ W.T, np.eye(dimension), atol=1e-10)
        lower = whitening.root(these, k)
        assert_allclose(lower @ lower.T, covariance, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "matrix", [np.zeros((2, 2)), np.ones((2, 2)), -np.eye(2), np.full((2, 2), np.nan), np.diag([1.0, np.inf])]
)
def test_a_matrix_that_is_no_covariance_is_refused(matrix):
    with pytest.raises(np.linalg.LinAlgError):
        whitening.inverse_cholesky(matrix)
