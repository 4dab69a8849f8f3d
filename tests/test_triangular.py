"""Triangular products in place against numpy's on whole matrices."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gmmlib import triangular

SIZES = [0, 1, 2, 3, 8, 65, 130]


def covariance(size, seed):
    """Well-conditioned."""
    rows = np.random.default_rng(seed).standard_normal((3 * size, size))
    return rows.T @ rows / len(rows) + np.eye(size)


def filled(size, count=3):
    """Members that share rectangles, and the lower triangles that they hold."""
    rectangles = triangular.allocate(count, size)
    lowers = []
    for k in range(count):
        lowers.append(np.tril(covariance(size, k)))
        member = triangular.member(rectangles, k)
        member[np.tril_indices(size)] = lowers[k][np.tril_indices(size)]
    return rectangles, lowers


def held(rectangles, count=3):
    return [np.tril(triangular.member(rectangles, k)) for k in range(count)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_members_share_rectangles_and_nothing_else(size, count):
    rectangles, lowers = filled(size, count)
    assert rectangles.size == (count + 1) // 2 * size * (size + 1)
    for lower, there in zip(lowers, held(rectangles, count), strict=True):
        assert_array_equal(there, lower)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("k", [0, 1, 2])
def test_each_operation_equals_numpys_and_leaves_the_neighbour_alone(size, k):
    rectangles, lowers = filled(size)
    member = triangular.member(rectangles, k)
    rng = np.random.default_rng(size)

    rows = rng.standard_normal((7, size))
    triangular.add_gram(member, rows)
    lowers[k] += np.tril(rows.T @ rows)
    assert_allclose(np.tril(member), lowers[k], rtol=1e-12, atol=1e-12)

    whole = lowers[k] + np.tril(lowers[k], -1).T
    triangular.cholesky(member)
    assert_allclose(np.tril(member), np.linalg.cholesky(whole), rtol=1e-11, atol=1e-12)

    triangular.invert(member)
    inverse = np.linalg.inv(np.linalg.cholesky(whole))
    assert_allclose(np.tril(member), inverse, rtol=1e-10, atol=1e-12)

    product = rows.copy()
    triangular.multiply(member, product)
    assert_allclose(product, rows @ inverse.T, rtol=1e-10, atol=1e-12)

    lowers[k] = np.tril(member)
    for lower, there in zip(lowers, held(rectangles), strict=True):
        assert_array_equal(there, lower)


@pytest.mark.parametrize("k", [0, 1])
def test_blocks_of_a_member_multiply_rows_that_lie_apart(k):
    rectangles, lowers = filled(9)
    member, wide = triangular.member(rectangles, k), np.random.default_rng(0).standard_normal((5, 20))
    before, out = wide[:, 2:6], wide.copy()[:, 11:16]
    expected = out @ lowers[k][4:, 4:].T + before @ lowers[k][4:, :4].T
    triangular.multiply(member[4:, 4:], out)
    triangular.add_product(out, before, member[4:, :4])
    assert_allclose(out, expected, rtol=1e-12)


@pytest.mark.parametrize("k", [0, 1])
def test_a_fresh_gram_forgets_what_was_there(k):
    rectangles = triangular.allocate(2, 4)
    member = triangular.member(rectangles, k)
    member[np.tril_indices(4)] = np.nan
    rows = np.random.default_rng(0).standard_normal((3, 4))
    triangular.add_gram(member, rows, fresh=True)
    assert_allclose(np.tril(member), np.tril(rows.T @ rows), rtol=1e-14)


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("fill", [0.0, -1.0, np.nan, np.inf])
def test_what_has_no_cholesky_factor_is_refused(k, fill):
    member = triangular.member(triangular.allocate(2, 3), k)
    member[np.tril_indices(3)] = fill
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        triangular.cholesky(member)
