"""Time the library against its own floor and against the alternative, as ratios within one run.

Each row times two things in turn, A B A B ..., and reports the median of the ratios pair by pair: the
speed of a machine drifts, a ratio within seconds hardly does.
"""

import json
import platform
import time
import warnings
from typing import NamedTuple

import numpy as np

from tools.project import REPOSITORY


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


def main():
    """Print the table and store it as JSON."""
    from sklearn.exceptions import ConvergenceWarning

    from tools import bench_convolutional, bench_full

    warnings.simplefilter("ignore", ConvergenceWarning)  # a few iterations converge to nothing
    print(platform.processor() or platform.machine())
    print(f"{'':<74} {'measured':>10} {'against':>10} {'ratio':>8}   bound")
    rows = []
    for part in (bench_convolutional, bench_full):
        for row in part.rows():
            rows.append(row)
            print(row, flush=True)
    target = REPOSITORY / "_build" / "bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n", encoding="utf-8")
    print(f"stored in {target.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
