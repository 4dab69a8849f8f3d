"""What a layer of a stack hands upwards of its log joints, and what a drawn code says of the components."""

import numpy as np

from gmmlib import _checks, posterior

CODES = ("log_joint", "standardised_log_joint", "posterior")


def encode(log_joint, code):
    r"""What a layer hands upwards of log joints (N, K) in nats: an array (N, K).

    With l the log joints of one row, m their mean and s their standard deviation (the population's), it is by
    `code`

    - ``"log_joint"``: l itself, in nats;
    - ``"standardised_log_joint"``: (l - m) / s, or zeros where all components tie;
    - ``"posterior"``: :math:`\exp l_k / \sum_j \exp l_j`.

    ValueError if the code has another name, or the log joints are no matrix or not finite; only the posterior
    takes the -inf of a component of weight 0.
    """
    _checks.one_of(code, "code", CODES)
    log_joint = _checks.array(log_joint, "log_joint").astype(np.float64, copy=False)
    if log_joint.ndim != 2 or log_joint.shape[1] == 0:
        raise ValueError(
            "log_joint must hold a row a sample and a column a component, shape (N, K); "
            f"got shape {log_joint.shape}. Pass what a mixture's log_joint returns."
        )
    if code == "posterior":
        _refuse_infinite(log_joint.max(axis=1, keepdims=True), "have a finite largest value in each row")
        return posterior.proba(log_joint)
    _refuse_infinite(log_joint, f"be finite for the code {code!r}")
    return log_joint if code == "log_joint" else standardised(log_joint)


def standardised(log_joint):
    """Shift and scale each row of finite log joints (N, K) to mean 0 and standard deviation 1."""
    # Ties are exactly 0 below the largest; below their mean, rounding would set them apart.
    below = log_joint - log_joint.max(axis=1, keepdims=True)
    below -= below.mean(axis=1, keepdims=True)
    deviation = np.sqrt((below**2).mean(axis=1, keepdims=True))
    return np.divide(below, deviation, out=np.zeros_like(below), where=deviation > 0)


def decode(code, kind):
    r"""Posteriors (N, K) of the components of a layer, from a code (N, K) that was drawn, not computed.

    A drawn code need not be one that any log joints have; it is taken to the nearest posteriors:

    - ``"posterior"``: the nearest point of the simplex, in squared distance;
    - ``"log_joint"``: :math:`\exp l_k / \sum_j \exp l_j`, the log joints less their evidence;
    - ``"standardised_log_joint"``: all on the largest entry (the lowest index among equals), because the
      scale of log joints that it has lost is tens of nats and more for images.
    """
    _checks.one_of(kind, "kind", CODES)
    if kind == "posterior":
        return nearest_on_simplex(code)
    if kind == "log_joint":
        return posterior.proba(code)
    return np.eye(code.shape[1])[code.argmax(axis=1)]


def nearest_on_simplex(vectors):
    """Move each row (N, K) to the closest of the vectors that are nowhere negative and sum to 1.

    In closed form (Duchi, Shalev-Shwartz, Singer and Chandra 2008, ICML): subtract one number from all
    coordinates, and cut at 0.
    """
    falling = -np.sort(-vectors, axis=1)
    excess = (np.cumsum(falling, axis=1) - 1) / np.arange(1, vectors.shape[1] + 1)
    positive = (falling > excess).sum(axis=1)
    shift = excess[np.arange(len(vectors)), positive - 1]
    return np.maximum(vectors - shift[:, None], 0.0)


def _refuse_infinite(values, expected):
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise ValueError(
            f"log_joint must {expected}; got {values[tuple(bad[0])]} in row {bad[0][0]}. A component of "
            "weight 0 has log joints of -inf: leave it out, or use the code 'posterior', which is then 0."
        )
