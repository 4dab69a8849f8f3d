"""Codes of log joints against their definitions, and the way back from a code to posteriors."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_allclose, assert_array_equal

from gmmlib.compose.codes import CODES, decode, encode, nearest_on_simplex, standardised
from tests import oracles


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("shape", [(1, 2), (7, 5), (300, 3)])
def test_a_code_equals_its_definition(code, shape):
    joint = 600 + 5 * np.random.default_rng(0).standard_normal(shape)
    assert_allclose(encode(joint, code), oracles.code(joint, code), rtol=1e-9, atol=1e-15)


def test_the_code_of_log_joints_is_themselves_to_the_last_bit():
    joint = np.random.default_rng(0).standard_normal((4, 3))
    assert_array_equal(encode(joint, "log_joint"), joint)
    assert_array_equal(encode(joint.tolist(), "log_joint"), joint)


finite_rows = arrays(float, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e9, 1e9))


@given(finite_rows)
@settings(deadline=None)
def test_a_standardised_row_has_mean_0_and_deviation_1_or_no_spread(joint):
    code = encode(joint, "standardised_log_joint")
    assert np.isfinite(code).all()
    for row, values in zip(code, joint, strict=True):
        assert abs(row.mean()) < 1e-9
        if np.ptp(values) > 1e-100:
            assert abs(row.std() - 1) < 1e-9
        elif np.ptp(values) == 0:
            assert not row.any()


@pytest.mark.parametrize("value", [0.1, -628.3, 1e5 + 1 / 3])
@pytest.mark.parametrize("n_components", [1, 3, 7])
def test_ties_standardise_to_zero_and_not_to_rounding(value, n_components):
    """The mean of three times 0.1 is not 0.1."""
    joint = np.full((2, n_components), value)
    assert_array_equal(encode(joint, "standardised_log_joint"), np.zeros((2, n_components)))


def test_standardising_forgets_shift_and_scale_and_nothing_else():
    joint = np.random.default_rng(3).standard_normal((20, 6))
    scale, shift = np.random.default_rng(4).uniform(0.5, 9, (2, 20, 1))
    assert_allclose(standardised(scale * joint + shift), standardised(joint), rtol=1e-9)
    assert_array_equal(standardised(joint).argsort(axis=1), joint.argsort(axis=1))


def test_standardising_leaves_its_argument_alone():
    joint = np.arange(6.0).reshape(2, 3)
    encode(joint, "standardised_log_joint")
    assert_array_equal(joint, np.arange(6.0).reshape(2, 3))


def test_a_component_of_weight_zero_has_posterior_zero():
    joint = np.array([[0.0, -np.inf, np.log(3.0)], [-np.inf, -np.inf, 5.0]])
    assert_allclose(encode(joint, "posterior"), [[0.25, 0, 0.75], [0, 0, 1]], rtol=1e-12)


REMEDY = (
    "A component of weight 0 has log joints of -inf: leave it out, or use the code 'posterior', "
    "which is then 0."
)
CODE_MESSAGES = [
    (
        [[1.0]],
        "entropy",
        'code must be "log_joint", "standardised_log_joint" or "posterior"; got \'entropy\'.',
    ),
    ([[1.0]], None, 'code must be "log_joint", "standardised_log_joint" or "posterior"; got None.'),
    (
        [1.0, 2.0],
        "posterior",
        "log_joint must hold a row a sample and a column a component, shape (N, K); got shape (2,). "
        "Pass what a mixture's log_joint returns.",
    ),
    (
        np.zeros((3, 0)),
        "posterior",
        "log_joint must hold a row a sample and a column a component, shape (N, K); got shape (3, 0). "
        "Pass what a mixture's log_joint returns.",
    ),
    (
        [[1.0, 2.0], [1.0, -np.inf]],
        "log_joint",
        f"log_joint must be finite for the code 'log_joint'; got -inf in row 1. {REMEDY}",
    ),
    (
        [[np.nan, -np.inf]],
        "standardised_log_joint",
        f"log_joint must be finite for the code 'standardised_log_joint'; got nan in row 0. {REMEDY}",
    ),
    (
        [[1.0, -np.inf], [-np.inf, -np.inf]],
        "posterior",
        f"log_joint must have a finite largest value in each row; got -inf in row 1. {REMEDY}",
    ),
]


@pytest.mark.parametrize(("joint", "code", "message"), CODE_MESSAGES)
def test_the_messages_of_encode(joint, code, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        encode(joint, code)


# The way down


@pytest.mark.parametrize("n_components", [1, 2, 5])
def test_the_nearest_point_of_the_simplex_satisfies_the_conditions_of_optimality(n_components):
    """p is nearest to v if v - p is constant where p > 0 and not above that constant where p is 0."""
    v = 2 * np.random.default_rng(0).standard_normal((300, n_components))
    p = nearest_on_simplex(v)
    assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    assert (p >= 0).all()
    cut = 0
    for row, point in zip(v, p, strict=True):
        constants = (row - point)[point > 0]
        assert_allclose(constants, constants[0], atol=1e-12)
        assert ((row - point)[point == 0] <= constants[0] + 1e-12).all()
        cut += (point == 0).any()
    assert n_components == 1 or cut > 50
    assert_allclose(nearest_on_simplex(p), p, atol=1e-15)


@pytest.mark.parametrize("code", CODES)
def test_decoding_a_computed_code_gives_its_posteriors(code):
    joint = 50 * np.random.default_rng(1).standard_normal((60, 6))
    expected = oracles.code(joint - joint.max(axis=1, keepdims=True), "posterior")
    found = decode(encode(joint, code), code)
    if code == "standardised_log_joint":
        expected = expected.round() * (expected.max(axis=1, keepdims=True) > 0.99)
        found = found * (expected.max(axis=1, keepdims=True) > 0.99)
        assert expected.sum() > 30
    assert_allclose(found, expected, atol=1e-12)


def test_an_unknown_code_cannot_be_decoded():
    message = 'kind must be "log_joint", "standardised_log_joint" or "posterior"; got \'entropy\'.'
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        decode(np.zeros((1, 2)), "entropy")
