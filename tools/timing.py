"""Ratios of times within one run.

Two things are timed in turn, A B A B ..., and the median of the ratios pair by pair is reported: the speed
of a machine drifts, a ratio within seconds hardly does.
"""

import time
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """One line of the table."""

    what: str
    measured: float  # seconds, or bytes
    against: float
    ratio: float
    bound: str  # what the ratio should be

    def __str__(self):
        values = f"{self.measured:>10.4g} {self.against:>10.4g} {self.ratio:>8.2f}"
        return f"{self.what:<74} {values}   {self.bound}"


def seconds(function):
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(what, a, b, bound, rounds=7, warm_up=True):
    """Time a and b in turn, by default after one call of each that does not count."""
    if warm_up:
        a(), b()
    pairs = np.array([(seconds(a), seconds(b)) for _ in range(rounds)])
    return Row(what, *np.median(pairs, axis=0), np.median(pairs[:, 0] / pairs[:, 1]), bound)
