"""Numbers as the book states them."""

import pytest

from gmmlib.book import report
from gmmlib.evaluation import evidence


@pytest.fixture
def named(monkeypatch):
    values = {}
    monkeypatch.setattr(report, "glue", lambda key, value, display: values.update({key: value}))
    return values


def test_a_mean_stands_with_the_half_width_of_its_interval(named):
    assert report.plus_minus([1, 2, 3], 2) == "2.00 ± 2.48"
    report.glued("nats", [1, 2, 3], 2)
    report.glued("share", [0.5, 0.5], 1, n_test=100, unit=100)
    assert named == {"nats": 2.0, "nats_ci": 2.48, "share": 50.0, "share_ci": 9.8}


def test_a_difference_is_named_with_its_interval(named):
    report.glued("gap", evidence.difference([1.0, 2.0, 4.0], [0.0, 1.0, 2.0]), 3)
    assert named == {"gap": 1.333, "gap_ci": 1.434}


def test_no_minus_stands_before_a_zero(named):
    report.number("zero", -1e-9, 2)
    assert str(named["zero"]) == "0.0"


def test_a_word_follows_from_probability_and_sign():
    assert report.verdict(0.01, 2.0) == "gains"
    assert report.verdict(0.01, -2.0) == "loses"
    assert report.verdict(0.06, 2.0) == "shows no difference"
