"""From log joints to evidence and posteriors, by Bayes' rule.

Every mixture here is scored as a matrix of log joints, ``l[n, k] = log weights[k] + log p(x_n | k)``.
What follows from it does not depend on the model, so it lives here.
"""

import numpy as np
from scipy.special import expit, log_expit, logsumexp

from gmmlib import _kernels

# Nats.  The last digits of a log joint depend on the processor and on the place of the row, so that even
# copies of one image differ by some 1e-12.
TIE = 1e-8


def evidence(log_joint):
    """Log-likelihood of each row, (N,), in nats: log sum_k exp l[n, k]."""
    return logsumexp(log_joint, axis=1)


def log_odds(log_joint):
    """Log-odds of each component against all others together.

    Posteriors of high-dimensional data saturate: thousands of rows round to 1.  Their odds do not,
    so rankings use these.  They increase strictly with the posterior.

    Parameters
    ----------
    log_joint : ndarray, (N, K)

    Returns
    -------
    ndarray, (N, K)
        ``l[n, k] - log sum_{j != k} exp l[n, j]`` in nats, without cancellation; inf where K is 1.
    """
    rows = np.arange(len(log_joint))
    best = log_joint.argmax(axis=1)
    winner = log_joint[rows, best]
    scaled = np.exp(log_joint - winner[:, None])
    # A loser's rivals include the winner, so the difference below is at least 1.
    scaled[rows, best] = 0.0
    losers = scaled.sum(axis=1)
    with np.errstate(divide="ignore"):
        odds = log_joint - winner[:, None] - np.log1p(losers[:, None] - scaled)
        rivals = log_joint - winner[:, None]
        rivals[rows, best] = -np.inf
        odds[rows, best] = -logsumexp(rivals, axis=1)
    return odds


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


def ranking(odds, count):
    """Rows that each component claims most strongly.

    Parameters
    ----------
    odds : ndarray, (N, K)
        From `log_odds`.
    count : int

    Returns
    -------
    ndarray of int, (K, count)
        Best first; among equals the lower row comes first, so the order is total.  Odds are equal where
        they fall from one row to the next by no more than `TIE`.
    """
    falling = np.argsort(-odds, axis=0, kind="stable")
    values = np.take_along_axis(odds, falling, axis=0)
    level = np.zeros(odds.shape, dtype=np.intp)
    with np.errstate(invalid="ignore"):  # inf equals inf
        np.cumsum(values[:-1] - values[1:] > TIE, axis=0, out=level[1:])
    by_row = np.lexsort((falling, level), axis=0)[:count]
    return np.take_along_axis(falling, by_row, axis=0).T
