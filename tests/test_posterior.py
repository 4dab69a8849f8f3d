"""Bayes' rule against brute force where that is accurate, and by hand where it is not."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gmmlib import posterior


@pytest.fixture
def moderate():
    return np.random.default_rng(0).normal(-300.0, 3.0, size=(200, 4))


def test_evidence_is_the_log_of_the_sum(moderate):
    shifted = moderate + 300
    assert_allclose(posterior.evidence(moderate), np.log(np.exp(shifted).sum(axis=1)) - 300, rtol=1e-13)


def test_posteriors_equal_brute_force(moderate):
    joint = np.exp(moderate + 300)
    rivals = np.stack([np.delete(joint, k, axis=1).sum(axis=1) for k in range(joint.shape[1])], axis=1)
    expected = joint / (joint + rivals)
    assert_allclose(posterior.log_odds(moderate), np.log(joint / rivals), rtol=1e-10, atol=1e-12)
    assert_allclose(posterior.proba(moderate), expected, rtol=1e-11)
    assert_allclose(posterior.log_proba(moderate), np.log(expected), rtol=1e-10)


def test_rows_sum_to_one():
    joint = np.random.default_rng(1).normal(0, 10.0 ** np.arange(-2, 4)[:, None, None], size=(6, 50, 7))
    total = posterior.proba(joint.reshape(-1, 7)).sum(axis=1)
    assert_allclose(total, 1.0, rtol=0, atol=1e-14)


def test_the_input_is_left_as_it_was(moderate):
    before = moderate.copy()
    posterior.log_odds(moderate)
    posterior.proba(moderate)
    assert_array_equal(moderate, before)


def test_odds_still_rank_where_the_posterior_has_rounded_to_one():
    joint = np.array([[-100.0, -2100.0], [-100.0, -2101.0], [-7000.0, -9000.5]])
    assert_array_equal(posterior.proba(joint), [[1.0, 0.0]] * 3)
    assert_array_equal(posterior.log_proba(joint)[:, 0], [0.0, 0.0, 0.0])
    assert_array_equal(posterior.log_proba(joint)[:, 1], [-2000.0, -2001.0, -2000.5])
    assert_array_equal(posterior.log_odds(joint), [[2000.0, -2000.0], [2001.0, -2001.0], [2000.5, -2000.5]])
    assert_array_equal(posterior.ranking(posterior.log_odds(joint), 3), [[1, 2, 0], [0, 2, 1]])


@pytest.mark.parametrize("margin", [40.0, 100.0, 700.0])
def test_the_winners_log_posterior_is_as_small_as_its_loss(margin):
    joint = np.array([[-5.0, -5.0 - margin]])
    assert_allclose(posterior.log_proba(joint)[0, 0], -np.exp(-margin), rtol=1e-12)
    assert posterior.log_proba(joint)[0, 0] < 0


def test_two_far_losers_are_told_apart():
    joint = np.array([[0.0, -50.0, -1000.0, -1000.0]])
    assert_allclose(posterior.log_odds(joint), [[50.0, -50.0, -1000.0, -1000.0]], rtol=1e-15)


def test_ties_share_alike():
    joint = np.full((3, 4), -1234.5)
    assert_allclose(posterior.proba(joint), 0.25, rtol=1e-12)
    assert_allclose(posterior.log_odds(joint), -np.log(3), rtol=1e-12)
    assert_array_equal(posterior.log_odds(np.array([[2.0, 2.0]])), [[0.0, 0.0]])


@pytest.mark.parametrize("level", [0.0, -1234.5, -1e6])
def test_equal_components_have_exactly_equal_odds_at_any_level(level):
    """So that most probable component is the same whether joints, odds or posteriors are compared."""
    joint = np.full((1, 4), level)
    assert len(set(posterior.log_odds(joint)[0])) == 1
    assert posterior.proba(joint).argmax() == joint.argmax()


def test_a_tie_at_the_top_above_a_loser():
    joint = np.array([[0.0, 0.0, -800.0]])
    assert_allclose(posterior.log_odds(joint), [[0.0, 0.0, -800.0 - np.log(2)]], rtol=1e-15, atol=1e-300)


def test_one_component_is_certain():
    joint = np.array([[-3.0], [-4000.0]])
    assert_array_equal(posterior.log_odds(joint), [[np.inf], [np.inf]])
    assert_array_equal(posterior.proba(joint), [[1.0], [1.0]])
    assert_array_equal(posterior.log_proba(joint), [[0.0], [0.0]])
    assert_array_equal(posterior.evidence(joint), [-3.0, -4000.0])


def test_a_component_of_weight_zero_is_impossible():
    joint = np.array([[-3.0, -np.inf], [-np.inf, -5.0]])
    assert_array_equal(posterior.proba(joint), np.eye(2))
    assert_array_equal(posterior.log_odds(joint), [[np.inf, -np.inf], [-np.inf, np.inf]])
    assert_array_equal(posterior.evidence(joint), [-3.0, -5.0])


def test_ranking_takes_the_lower_row_among_equals():
    odds = np.array([[1.0, 0.0], [3.0, 0.0], [3.0, 5.0], [2.0, 0.0], [3.0, 0.0]])
    assert_array_equal(posterior.ranking(odds, 4), [[1, 2, 4, 3], [2, 0, 1, 3]])
    assert_array_equal(posterior.ranking(odds, 1), [[1], [2]])
    assert posterior.ranking(odds, 9).shape == (2, 5)


def test_falling_order_is_total_and_blind_to_rounding():
    weights = np.array([0.1, 0.2, 0.3, 0.2, 0.2])
    assert_array_equal(posterior.falling(weights), [2, 1, 3, 4, 0])
    for last_bits in np.random.default_rng(0).normal(0.0, 1e-15, size=(20, 5)):
        assert_array_equal(posterior.falling(weights + last_bits), [2, 1, 3, 4, 0])
    assert_array_equal(posterior.falling(weights + [0, 0, 0, 0, 1e-6]), [2, 4, 1, 3, 0])
    assert_array_equal(posterior.falling(np.array([-np.inf, 0.0, np.inf, -np.inf, np.inf])), [2, 4, 1, 0, 3])
    assert_array_equal(posterior.falling(weights[:, None] * [1, -1])[:, 1], [0, 1, 3, 4, 2])


def test_no_rows_give_no_posteriors():
    assert posterior.proba(np.empty((0, 3))).shape == (0, 3)


def test_components_are_drawn_in_proportion_to_their_posteriors():
    proba = np.array([[0.2, 0.0, 0.5, 0.3], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
    n, rng = 20_000, np.random.default_rng(0)
    drawn = posterior.draw(np.repeat(proba, n, axis=0), rng).reshape(3, n)
    for row, expected in zip(drawn, proba, strict=True):
        shares = np.bincount(row, minlength=4) / n
        assert (np.abs(shares - expected) <= 5 * np.sqrt(expected * (1 - expected) / n)).all()


def test_a_draw_of_zero_takes_the_first_component_that_is_possible():
    class Lowest:
        def random(self, n):
            return np.zeros(n)

    assert_array_equal(posterior.draw(np.array([[0.0, 0.4, 0.6], [1.0, 0.0, 0.0]]), Lowest()), [1, 0])
