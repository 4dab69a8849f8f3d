"""How sure a number is: intervals over runs, paired differences, families, and a null for partitions.

A run is a fit from one seed, and its number varies with the start.  Two ways of fitting are compared run by
run, from the same seeds, so that what a start does to both cancels.  ValueErrors say which argument cannot be
used.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from gmmlib import _checks


class Interval(NamedTuple):
    """A mean, and how far the ends of its confidence interval are from it, in the units of the values."""

    mean: float
    half: float


class Difference(NamedTuple):
    """A mean difference, its interval, and the probability of one as large if there were none."""

    mean: float
    half: float
    p_value: float


def interval(values, n_test=None, level=0.95):
    """`Interval` of a mean over runs, by Student's t (1908, Biometrika 6) with n - 1 degrees of freedom.

    The values (n,) are one number per run; of a single one, without randomness, the interval has no width.
    Where they are shares of `n_test` samples, the same in each run, the variance of such a share,
    p (1 - p) / n_test, is added, because the samples too are a draw.  The interval covers the mean with the
    probability `level`.
    """
    values = _vector(values, "values")
    if not 0 < _checks.positive(level, "level") < 1:
        raise ValueError(f"level must be between 0 and 1; got {level!r}.")
    mean, n = float(values.mean()), len(values)
    variance = values.var(ddof=1) / n * stats.t.isf((1 - level) / 2, n - 1) ** 2 if n > 1 else 0.0
    if n_test is not None:
        n_test = _checks.positive_integer(n_test, "n_test")
        if values.min() < 0 or values.max() > 1:
            raise ValueError(
                f"values must be shares from 0 to 1 where n_test is given; got {values.min():g} to "
                f"{values.max():g}. Divide percentages by 100."
            )
        variance += mean * (1 - mean) / n_test * stats.norm.isf((1 - level) / 2) ** 2
    return Interval(mean, float(np.sqrt(variance)))


def difference(values, baseline, level=0.95):
    """Compare two ways of fitting, run by run: the `Difference` of `values` less `baseline`.

    Both are (n,), one number for each of two runs or more in the same order of seeds; `level` is that of the
    interval.  The p-value is the two-sided one of the paired t-test; where all differences are the same
    number, 1 if it is 0, and 0 otherwise.
    """
    values, baseline = _vector(values, "values"), _vector(baseline, "baseline")
    if len(values) != len(baseline) or len(values) < 2:
        raise ValueError(
            f"values and baseline must hold a number for each of the same runs, two or more; got "
            f"{len(values)} and {len(baseline)}. Fit both from the same seeds."
        )
    gaps = values - baseline
    mean, half = interval(gaps, level=level)
    error = gaps.std(ddof=1) / np.sqrt(len(gaps))
    if error == 0:
        return Difference(mean, half, float(mean == 0))
    return Difference(mean, half, float(2 * stats.t.sf(abs(mean) / error, len(gaps) - 1)))


def holm(p_values):
    """Adjust the p-values (m,) of a family of comparisons; they keep their order, and none becomes smaller.

    If comparisons count where the adjusted value is at most a, the probability that any of those without a
    difference does is at most a, however they depend on each other (Holm 1979, Scandinavian Journal of
    Statistics 6, 65-70).
    """
    p_values = _vector(p_values, "p_values")
    if p_values.min() < 0 or p_values.max() > 1:
        raise ValueError(
            f"p_values must be probabilities; got {p_values.min():g} to {p_values.max():g}. Take them from "
            "difference."
        )
    order = np.argsort(p_values, kind="stable")
    steps = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    adjusted = np.empty_like(steps)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def random_merging(labels, n_groups, random_state=None):
    """Put the components of a partition into groups at random: what a coarser partition is worth by itself.

    Turns the component of each sample, integers (N,) from 0, into its group.  Samples of one component stay
    together and every group holds some, so `n_groups` is at most the number of components that hold any.
    """
    labels, _ = _checks.labels(labels, "labels")
    n_groups = _checks.positive_integer(n_groups, "n_groups")
    rng = _checks.generator(random_state)
    held, component = np.unique(labels, return_inverse=True)
    if n_groups > len(held):
        raise ValueError(
            f"n_groups must be at most {len(held)}, the number of components that hold a sample; got "
            f"{n_groups}. Ask for fewer groups."
        )
    groups = np.concatenate([np.arange(n_groups), rng.integers(n_groups, size=len(held) - n_groups)])
    return rng.permutation(groups)[component]


def _vector(values, name):
    """Return finite numbers (n,) as float64."""
    values = _checks.array(values, name)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name} must hold one number or more along one axis; got shape {values.shape}.")
    _checks.real(values, name)
    _checks.finite(values, name)
    return values.astype(np.float64, copy=False)
