"""Do posteriors keep their promises?

A classifier that gives its answers the probability 0.9 is *calibrated* if nine in ten of them are right, and
useful beyond its accuracy if the answers it doubts are the wrong ones.  Classes, (N,), are counted from 0, as
the columns of the posteriors (N, C) are.  A ValueError names the argument that is not like this.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax

from gmmlib import _checks


class Reliability(NamedTuple):
    """Answers by the probability they were given; NaN in bins without answers."""

    counts: np.ndarray  # (B,)  answers in each bin
    confidence: np.ndarray  # (B,)  mean probability given: the share that should be right
    accuracy: np.ndarray  # (B,)  share that is right


def reliability(posteriors, classes, n_bins=10):
    """Compare the promised with the actual accuracy of the most probable class: a `Reliability`.

    The B bins have width 1/B between 0 and 1; each holds its lower end, the last 1 as well (Niculescu-Mizil
    and Caruana 2005, ICML).
    """
    posteriors = _checks.posteriors(posteriors)
    classes = _checked_classes(classes, posteriors, "posteriors")
    n_bins = _checks.positive_integer(n_bins, "n_bins")
    confidence = posteriors.max(axis=1)
    place = np.minimum((confidence * n_bins).astype(np.intp), n_bins - 1)
    counts = np.bincount(place, minlength=n_bins)
    sums = [np.bincount(place, v, n_bins) for v in (confidence, posteriors.argmax(axis=1) == classes)]
    means = [np.divide(s, counts, out=np.full(n_bins, np.nan), where=counts > 0) for s in sums]
    return Reliability(counts, *means)


def expected_calibration_error(posteriors, classes, n_bins=10):
    """Mean distance of the promised from the actual accuracy over the bins of `reliability`, 0 to 1.

    The bins count by their answers (Naeini, Cooper and Hauskrecht 2015, AAAI; Guo et al. 2017, ICML).
    """
    counts, confidence, accuracy = reliability(posteriors, classes, n_bins)
    held = counts > 0
    return float(counts[held] @ np.abs(confidence - accuracy)[held] / counts.sum())


def cross_entropy(log_posteriors, classes):
    """Mean of minus the log posterior of the true class, in nats per row; infinite if one was ruled out."""
    log_posteriors, classes = _log_rows(log_posteriors, classes, "log_posteriors")
    return float(-log_posteriors[np.arange(len(classes)), classes].mean())


def reject_curve(confidence, correct, coverage):
    """Accuracy among the most confident answers (Chow 1970, IEEE Trans. Information Theory 16, 41-46).

    `confidence` (N,) is any score that is larger for answers that are more certain, such as the largest
    log-odds; `correct` (N,) whether the answer is right; `coverage` (M,) the shares of the answers kept,
    above 0 and up to 1.  The accuracies (M,) are, among answers of equal confidence, the average over which
    of them are kept.
    """
    confidence = _checks.array(confidence, "confidence").astype(np.float64)
    correct = _checks.array(correct, "correct")
    coverage = _checks.array(coverage, "coverage").astype(np.float64)
    if confidence.ndim != 1 or correct.shape != confidence.shape or correct.dtype != bool:
        raise ValueError(
            "confidence and correct must hold a number and a truth value an answer; got shapes "
            f"{confidence.shape} and {correct.shape} of dtype {correct.dtype}."
        )
    if np.isnan(confidence).any() or not len(confidence):
        raise ValueError("confidence must hold at least one number and no NaN. Leave such answers out.")
    if not ((coverage > 0) & (coverage <= 1)).all():
        raise ValueError(
            f"coverage must be above 0 and at most 1; got {coverage.min():g} to {coverage.max():g}."
        )
    _, group, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    kept = np.append(0, np.cumsum(counts))
    right = np.append(0, np.cumsum(np.bincount(group, correct)))
    wanted = coverage * len(confidence)
    return np.interp(wanted, kept, right) / wanted


def temperature(log_joint, classes):
    r"""Divisor T of the log joints that makes the cross entropy of their posteriors least.

    .. math:: \min_T \; -\frac1N \sum_n \log
              \frac{\exp(l_{n c_n} / T)}{\sum_c \exp(l_{nc} / T)}

    The log joints (N, C) are finite, in nats.  The objective is convex in 1/T.  T is 1 for log joints that
    mean what they say, and above 1 for those that claim too much.  ValueError also if there is no least
    value: all rows are right (T would be 0), or the true class scores no better than the average class (T
    would be infinite).  Guo, Pleiss, Sun and Weinberger (2017), ICML.
    """
    log_joint, classes = _log_rows(log_joint, classes, "log_joint")
    _checks.finite(log_joint, "log_joint")
    below = log_joint - log_joint.max(axis=1, keepdims=True)
    true = below[np.arange(len(below)), classes].mean()
    mean = below.mean()
    if true == 0 or true <= mean:
        what = "no row is wrong" if true == 0 else "the true class scores no better than the average class"
        raise ValueError(f"No temperature is best for this log_joint: {what}. Pass more, or other, rows.")

    def slope(log_beta):  # of the cross entropy by 1/T = exp(log_beta)
        return (softmax(np.exp(log_beta) * below, axis=1) * below).sum(axis=1).mean() - true

    low, high = -1.0, 1.0
    while slope(low) > 0:
        low -= 2.0
    while slope(high) < 0:
        high += 2.0
    return float(np.exp(-brentq(slope, low, high, xtol=1e-12)))


def _log_rows(values, classes, name):
    values = _checks.array(values, name)
    _checks.real(values, name)
    values = values.astype(np.float64, copy=False)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"{name} must have a row a sample, shape (N, C); got shape {values.shape}.")
    return values, _checked_classes(classes, values, name)


def _checked_classes(classes, rows, name):
    classes, _ = _checks.labels(classes, "classes", rows.shape[1], "C")
    if len(classes) != len(rows):
        raise ValueError(
            f"classes must hold an entry for each of the {len(rows)} rows of {name}; got {len(classes)}."
        )
    return classes
