"""From log joints to evidence and posteriors, by Bayes' rule.

Every mixture here is scored as a matrix of log joints, ``l[n, k] = log weights[k] + log p(x_n | k)``.
"""

import numpy as np
from scipy.special import expit, log_expit, logsumexp

from gmmlib import _kernels

# Nats, or a share of 1.  The last digits of a log joint depend on the processor and on the place of the row,
# so that even copies of one image differ by some 1e-12.  What is decided by less is decided by chance.
TIE = 1e-8


def evidence(log_joint):
    """Log-likelihood of each row, (N,), in nats: log sum_k exp l[n, k]."""
    return logsumexp(log_joint, axis=1)


def log_odds(log_joint):
    """Log-odds (N, K) of each component against all others together.

    ``l[n, k] - log sum_{j != k} exp l[n, j]`` in nats, without cancellation; inf where K is 1.  Posteriors of
    high-dimensional data saturate: thousands of rows round to 1.  Their odds do not, so rankings use these.
    """
    rows = np.arange(len(log_joint))
    best = log_joint.argmax(axis=1)
    winner = log_joint[rows, best]
    scaled = np.exp(log_joint - winner[:, None])
    # A loser's rivals include the winner, so the difference below is at least 1.
    scaled[rows, best] = 0.0
    losers = scaled.sum(axis=1)
    gaps = log_joint - winner[:, None]
    odds = gaps - np.log1p(losers[:, None] - scaled)
    # The winner's, by the same function: log(3) may differ from log1p(2), and equals would have other odds.
    gaps[rows, best] = -np.inf
    second = gaps.argmax(axis=1)
    nearest = gaps[rows, second]
    with np.errstate(invalid="ignore"):  # no rival has a density, or there is none
        others = np.exp(gaps - nearest[:, None])
        others[rows, second] = 0.0
        odds[rows, best] = np.where(nearest == -np.inf, np.inf, -nearest - np.log1p(others.sum(axis=1)))
    return odds


def most_probable(scores):
    """Place of the largest of each row of log joints or posteriors, (N,); the first of those that tie."""
    return (scores >= scores.max(axis=1, keepdims=True) - TIE).argmax(axis=1)


def proba(log_joint):
    """Posteriors (N, K); rows sum to 1."""
    return expit(log_odds(log_joint))


def log_proba(log_joint):
    """Log posteriors (N, K), accurate down to the smallest float even where the posterior rounds to 1."""
    return log_expit(log_odds(log_joint))


def draw(proba, rng):
    """Draw a component from each row of posteriors (N, K): integers (N,)."""
    upto = np.cumsum(proba, axis=1)
    height = rng.random(len(upto)) * upto[:, -1]
    # Strictly below, so that a component of posterior 0 is never drawn.
    return (upto <= height[:, None]).sum(axis=1)


def normalise(joint, constants, evidence, beta=1.0):
    """Turn log joints less constants (K,) into posteriors in place, raised to beta and normalised again.

    Writes the log-likelihood of each row, to which beta does nothing, into `evidence` (n,).
    """
    heated = beta * (joint + constants) if beta < 1 else None
    _kernels.normalise(joint, constants, evidence)
    if beta < 1:
        joint[...] = heated
        _kernels.normalise(joint, np.zeros_like(constants), np.empty_like(evidence))


def falling(values):
    """Indices that put numbers, (N,) or (N, K), nats or shares of 1, in falling order along the first axis.

    Among equals the lower index comes first, so the order is total.  Numbers are equal where they fall from
    one to the next by no more than `TIE`.
    """
    order = np.argsort(-values, axis=0, kind="stable")
    sorted_values = np.take_along_axis(values, order, axis=0)
    level = np.zeros(values.shape, dtype=np.intp)
    with np.errstate(invalid="ignore"):  # inf equals inf
        np.cumsum(sorted_values[:-1] - sorted_values[1:] > TIE, axis=0, out=level[1:])
    return np.take_along_axis(order, np.lexsort((order, level), axis=0), axis=0)


def ranking(odds, count):
    """Rows that each component claims most strongly, (K, count), by `log_odds` (N, K), best first."""
    return falling(odds)[:count].T
