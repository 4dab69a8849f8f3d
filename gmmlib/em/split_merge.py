r"""Split-and-merge EM: leave a local optimum by making one component of two and two of one.

EM keeps as many components in a region as started there.  A *move* merges components i and j and splits
component k in two, so that their number stays; a few EM steps follow, and the move is kept only if the
log-likelihood is higher than before it, so the objective never falls (Ueda, Nakano, Ghahramani and Hinton
2000, Neural Computation 12, 2109-2128).

Moves are tried by the gain they promise, the gain of the split less the loss of the merger:

- *Split.* Component k is replaced by the mixture of two that EM finds for its own samples, weighted by
  their posteriors :math:`r_{nk}`; it gains :math:`\sum_n r_{nk} [\log p_\text{two}(x_n) - \log p_k(x_n)]`.
- *Merge.* Components i and j are replaced by the one of their common moments.  With :math:`m_i` the mass
  and :math:`\Sigma_i` the covariance of component i, the expected log joint loses

  .. math:: \tfrac12 \big[ m_i \log \tfrac{|\Sigma|}{|\Sigma_i|} + m_j \log \tfrac{|\Sigma|}{|\Sigma_j|} \big]
            - (m_i + m_j) \log (m_i + m_j) + m_i \log m_i + m_j \log m_j,

  at least what the likelihood loses, because the samples' shares in both are free to move.

The paper ranks moves by other measures; these are nats and can be subtracted.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import xlogy
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, posterior

LOCAL_ITER = 10  # EM iterations for the two halves of a component
SEEN = 1e-3  # posterior below which a sample does not take part in them


class Trace(NamedTuple):
    """What split-and-merge EM did: one entry for the start and one for each move that was tried."""

    log_likelihoods: np.ndarray  # (n_moves + 1,) of the model kept, mean, nats per sample; never falls
    passes: np.ndarray  # (n_moves + 1,)  passes over the data so far; those before the start not counted
    accepted: np.ndarray  # (n_moves,) of bool


def improve(model, X, sample_weight=None, *, n_moves=10, n_steps=5, random_state=None, callback=None):
    """Try moves on a fitted mixture, which is left as it is.

    Parameters
    ----------
    model : ConvolutionalGMM or FullGMM
        `FullGMM` must have free means and `min_weight=None`.  Any mixture will do whose moments are averages
        of those of its components, that has the setting `algorithm`, and the methods ``learned`` and
        ``log_determinants``; ValueError otherwise.
    X : array-like, (N, H, W) or (N, D)
        The data it was fitted to.
    sample_weight : array-like, (N,), optional
    n_moves, n_steps : int
        Moves to try at most, fewer if none promises a gain; EM steps after each.
    random_state : int, Generator, RandomState or None
        Where the halves of a split start.
    callback : callable, optional
        ``callback(model, passes)`` at the start and after each move, with the model kept so far; a true
        result stops.

    Returns
    -------
    model : ConvolutionalGMM or FullGMM
        A new one, fitted; its trace is that of the last move kept.
    trace : Trace
    """
    _check_model(model)
    n_moves = _checks.positive_integer(n_moves, "n_moves")
    n_steps = _checks.positive_integer(n_steps, "n_steps")
    X = _checks.array(X, "X")
    weight = _checks.sample_weight(sample_weight, len(X))
    rng = _checks.generator(random_state)

    current, moves = model, None
    level = float(weight @ model.score_samples(X) / weight.sum())
    levels, passes, accepted = [level], [0.0], []
    while not (callback is not None and callback(current, passes[-1])) and len(accepted) < n_moves:
        cost = 0.0
        if moves is None:
            moves, halves, cost = promising(current, X, weight, rng)
        if not moves:
            break
        i, j, k = moves.pop(0)
        trial = clone(model).set_params(
            init=moved(parameters(current), i, j, k, halves[k]),
            max_iter=n_steps,
            tol=0.0,
            algorithm="em",
            callback=None,
        )
        trial.fit(X, sample_weight=weight)
        accepted.append(bool(trial.log_likelihoods_[-1] > level + posterior.TIE))  # not by rounding alone
        if accepted[-1]:
            current, moves, level = trial, None, float(trial.log_likelihoods_[-1])
        levels.append(level)
        passes.append(passes[-1] + cost + n_steps + 1)  # the last E-step is the likelihood's
    return current, Trace(np.array(levels), np.array(passes), np.array(accepted, dtype=bool))


def promising(model, X, weight, rng):
    """Moves (i, j, k) by falling promise, the halves of each component, and the passes this took."""
    joint = model.log_joint(X)
    resp = posterior.proba(joint) * weight[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):  # a component without weight has no samples
        densities = joint - np.log(model.weights_)
    halves, gains, work = [], [], 1.0
    for k in range(len(model.weights_)):
        half, gain, rows = split(model, X, resp[:, k], densities[:, k], rng)
        halves.append(half)
        gains.append(gain)
        work += 2 * (LOCAL_ITER + 1) * rows / resp.size  # two components and some rows, not K and N
    losses = merger_losses(model, resp.sum(axis=0))
    promise = np.array(gains) - losses[:, :, None]
    first, second, third = np.indices(promise.shape)
    valid = (first < second) & (third != first) & (third != second) & (promise > 0)
    order = np.argsort(-promise[valid], kind="stable")
    return [tuple(map(int, move)) for move in np.argwhere(valid)[order]], halves, work


def split(model, X, share, density, rng):
    """The two halves of a component of posteriors times weights `share` (N,), their gain, the rows used."""
    rows = np.flatnonzero(share > SEEN)
    if len(rows) < 2:
        return None, -np.inf, 0
    two = clone(model).set_params(
        n_components=2,
        init="random_from_data",
        max_iter=LOCAL_ITER,
        tol=0.0,
        algorithm="em",
        callback=None,
        random_state=int(rng.integers(2**31)),
    )
    two.fit(X[rows], sample_weight=share[rows])
    gain = share[rows].sum() * two.log_likelihoods_[-1] - share[rows] @ density[rows]
    return parameters(two), gain, len(rows)


def merger_losses(model, mass):
    """Nats (K, K) that the expected log joint loses where two components of masses (K,) become one."""
    learned = parameters(model)
    n_components = len(mass)
    volume = model.log_determinants(learned)
    losses = np.full((n_components, n_components), np.inf)
    for i in range(n_components):
        for j in range(i + 1, n_components):
            together = mass[i] + mass[j]
            if together > 0:
                both = model.log_determinants(merged(learned, i, j, mass[i] / together))[0]
                change = mass[i] * (both - volume[i]) + mass[j] * (both - volume[j])
                known = xlogy(together, together) - xlogy(mass[i], mass[i]) - xlogy(mass[j], mass[j])
                losses[i, j] = losses[j, i] = 0.5 * change - known
    return losses


def parameters(model):
    """What `init` takes: the learned arrays by name."""
    return model.learned()


def merged(learned, i, j, share):
    """One component, of the first two moments of two of which i has the given share of the mass."""
    of = {name: np.stack([values[i], values[j]]) for name, values in learned.items()}
    shares = np.array([share, 1 - share])
    one = {"weights": np.array([of["weights"].sum()])}
    for name in of.keys() - {"weights"}:
        one[name] = np.tensordot(shares, of[name], 1)[None]
    if "means" in of:
        difference = of["means"] - one["means"]
        one["covariances"] = one["covariances"] + (difference.T * shares) @ difference
    return one


def moved(learned, i, j, k, halves):
    """Parameters in which i holds what i and j did, and j and k the halves of k."""
    result = {name: values.copy() for name, values in learned.items()}
    together = learned["weights"][i] + learned["weights"][j]
    one = merged(learned, i, j, learned["weights"][i] / together)
    for name, values in result.items():
        values[i] = one[name][0]
        values[j], values[k] = halves[name]
    result["weights"][[j, k]] *= learned["weights"][k]
    return result


def _check_model(model):
    check_is_fitted(model)
    has_moments = hasattr(model, "learned") and hasattr(model, "log_determinants")
    if not has_moments or "algorithm" not in model.get_params() or getattr(model, "zero_means", False):
        raise ValueError(
            f"model must be a ConvolutionalGMM, or a FullGMM with free means; got {model!r}. "
            "Other mixtures have no moments to merge."
        )
    if getattr(model, "min_weight", None) is not None:
        raise ValueError(
            f"model must keep its number of components; got min_weight={model.min_weight!r}. Set it to None."
        )
