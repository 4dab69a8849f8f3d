"""Ratios of times within one run.

Two things are timed in turn, A B A B ..., and the ratios pair by pair are reported, their median and their
range: the speed of a machine drifts, a ratio within seconds hardly does.
"""

import time
from typing import NamedTuple

import numpy as np

HEADER = f"{'':<84} {'measured':>10} {'against':>10} {'ratio':>7} {'least':>7} {'most':>7}   bound"


class Row(NamedTuple):
    """One line of the table."""

    what: str
    measured: float  # seconds, or bytes
    against: float
    ratio: float
    bound: str  # what the ratio should be
    least: float | None = None  # of the ratios of pairs
    most: float | None = None

    def __str__(self):
        ratios = self.ratio, self.least, self.most
        shown = " ".join(" " * 7 if ratio is None else f"{ratio:>7.2f}" for ratio in ratios)
        values = f"{self.measured:>10.4g} {self.against:>10.4g} {shown}"
        return f"{self.what:<84} {values}   {self.bound}"


def seconds(function):
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(what, a, b, bound, rounds=5, warm_up=True, repeats=1):
    """Time a, and b as the mean of some calls, in turn; a first call of each does not count by default."""
    if warm_up:
        a(), b()

    def often():
        for _ in range(repeats):
            b()

    return row(what, [(seconds(a), seconds(often) / repeats) for _ in range(rounds)], bound)


def row(what, pairs, bound):
    """The `Row` of pairs of seconds."""
    pairs = np.array(pairs)
    ratios = pairs[:, 0] / pairs[:, 1]
    return Row(what, *np.median(pairs, axis=0), np.median(ratios), bound, ratios.min(), ratios.max())
