r"""A mixture of mixtures over groups of images: the images of a group share a top component.

A group, such as patches of one thing, draws its top component t once; each of its images then draws a lower
component k, whose spectrum s_k all top components share:

.. math:: p(x_1, \ldots, x_G) = \sum_t \pi_t \prod_{g=1}^G \sum_k A_{tk}\, N(x_g; s_k).

The top component explains which lower components come together; with one image per group what is left is
the mixture of the weights :math:`\sum_t \pi_t A_{tk}`, whatever :math:`\pi` and A.  The images of a group are
a bag; where their order has a meaning, each position g has a table of its own, :math:`A_{gtk}`.

EM is exact.  With :math:`u_{ngt} = \sum_k A_{tk} N(x_{ng}; s_k)` the E-step is

- :math:`r_{nt} \propto \pi_t \prod_g u_{ngt}`, the posterior of the top component of a group;
- :math:`q_{ngtk} = r_{nt} A_{tk} N(x_{ng}; s_k) / u_{ngt}`, that of both components of an image,

and the M-step takes :math:`\pi` from the sums of r, A from those of q over images (of one position, where
tables are by position), and s from those of q over t.  All these sums are matrix products.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from gmmlib import _checks, posterior
from gmmlib.spectrum import unfold
from gmmlib.stationary import steps

UNDERFLOW = 600.0  # nats below which a product of densities over their largest may leave float64


class Parameters(NamedTuple):
    """T mixtures of the same K stationary Gaussians of mean zero with F distinct powers each."""

    top_weights: np.ndarray  # (T,)    sum to 1
    conditionals: np.ndarray  # (T, K), or (G, T, K) by position: lower weights under t; rows sum to 1
    spectra: np.ndarray  # (K, F)  variance at each frequency, squared grey levels


class Statistics(NamedTuple):
    """What an E-step leaves of its groups; the fields of two sets of groups add."""

    top: np.ndarray  # (T,)    sum_n w[n] r[n, t]
    pairs: np.ndarray  # (T, K)  sum_ng w[n] q[n, g, t, k]; by position (G, T, K), not summed over g
    power: np.ndarray  # (K, F)  sum_ngt w[n] q[n, g, t, k] P[n, g, f]
    log_likelihood: float  # sum_n w[n] log p(group n), nats
    weight: float  # sum_n w[n]


class Posteriors(NamedTuple):
    """What n groups of G images are taken for."""

    evidence: np.ndarray  # (n,)       log-likelihood of the group, nats
    top: np.ndarray  # (n, T)     r; rows sum to 1
    lower: np.ndarray  # (n, G, K)  sum_t q; sums to 1 for each image
    pairs: np.ndarray  # (T, K)     sum_ng w[n] q; by position (G, T, K)


def log_densities(spectra, P, multiplicity):
    """Log density of images of powers P (..., F) under each lower component, (..., K), nats."""
    ones = np.ones(len(spectra))
    flat = P.reshape(-1, P.shape[-1])  # one product, not one a group
    joint = steps.log_joint(steps.Parameters(ones, spectra), flat, multiplicity)
    return joint.reshape(*P.shape[:-1], -1)


class Scaled(NamedTuple):
    """What densities of n groups of G images come to, over the largest density of each image."""

    best: np.ndarray  # (n, G, 1)  largest log densities
    scaled: np.ndarray  # (n, G, K)  densities over these
    mixed: np.ndarray  # (n, G, T)  u over these
    joint: np.ndarray  # (n, T)     log joints of groups, less the sum over images of `best`
    lost: np.ndarray  # groups whose products have left float64: their joints are made at full length


def mixed_by(tables, values):
    """Products of values (n, G, K) and transposed tables (T, K), or (G, T, K) by position: (n, G, T)."""
    if tables.ndim == 3:
        return np.stack([values[:, g] @ table.T for g, table in enumerate(tables)], axis=1)
    flat = values.reshape(-1, values.shape[2]) @ tables.T
    return flat.reshape(*values.shape[:2], -1)


def pairs_of(share, scaled, by_position):
    """Products of share (n, G, T) and scaled (n, G, K) summed over n: (G, T, K), or over g too: (T, K)."""
    if by_position:
        return np.stack([share[:, g].T @ scaled[:, g] for g in range(share.shape[1])])
    return share.reshape(-1, share.shape[2]).T @ scaled.reshape(-1, scaled.shape[2])


def scaled_densities(parameters, density):
    """`Scaled` of log densities (n, G, K)."""
    top_weights, conditionals, _ = parameters
    best = density.max(axis=2, keepdims=True)
    scaled = np.exp(density - best)
    mixed = mixed_by(conditionals, scaled)
    with np.errstate(divide="ignore"):
        joint = np.log(top_weights) + np.log(mixed).sum(axis=1)
    # No factor of a joint above -UNDERFLOW has lost digits; a joint far below the best is not seen.
    lost = np.flatnonzero(~(joint.max(axis=1) > -UNDERFLOW))
    for n in lost:
        joint[n] = _pairs(parameters, density[n] - best[n])[0]
    return Scaled(best, scaled, mixed, joint, lost)


def log_joint(parameters, density):
    """Log weight plus log density of groups of log densities (n, G, K) under top components, (n, T), nats."""
    scaled = scaled_densities(parameters, density)
    return scaled.joint + scaled.best.sum(axis=(1, 2))[:, None]


def posteriors(parameters, density, weight):
    """Posteriors of n groups with weights (n,), from the log densities (n, G, K) of their images."""
    conditionals = parameters.conditionals
    best, scaled, mixed, joint, lost = scaled_densities(parameters, density)
    top, evidence = steps.normalised(joint)
    seen = top > 0
    seen[lost] = False
    share = np.divide(top[:, None], mixed, out=np.zeros_like(mixed), where=seen[:, None])
    by_position = conditionals.ndim == 3
    lower = scaled * mixed_by(conditionals.swapaxes(-1, -2), share)
    share *= weight[:, None, None]
    pairs = conditionals * pairs_of(share, scaled, by_position)
    for n in lost:
        both = top[n][None, :, None] * _pairs(parameters, density[n] - best[n])[1]
        lower[n] = both.sum(axis=1)
        pairs += weight[n] * (both if by_position else both.sum(axis=0))
    return Posteriors(evidence + best.sum(axis=(1, 2)), top, lower, pairs)


def _pairs(parameters, density):
    """Log joint (T,) of one group, and its images' posteriors of k given t, (G, T, K), at full length."""
    with np.errstate(divide="ignore"):
        each = density[:, None] + np.log(parameters.conditionals)
        mixed = logsumexp(each, axis=2, keepdims=True)
        return np.log(parameters.top_weights) + mixed.sum(axis=(0, 2)), np.exp(each - mixed)


def e_step(parameters, density, P, weight):
    """Statistics of n groups of log densities (n, G, K) and powers P (n, G, F), or None: no power then."""
    evidence, top, lower, pairs = posteriors(parameters, density, weight)
    power = np.zeros(())
    if P is not None:
        lower *= weight[:, None, None]
        power = lower.reshape(-1, lower.shape[2]).T @ P.reshape(-1, P.shape[2])
    return Statistics(weight @ top, pairs, power, weight @ evidence, weight.sum())


def m_step(statistics, before, variance_floor):
    """Parameters of the largest expected log joint among those with no variance below the floor.

    Where nothing came to a component, the likelihood does not depend on what it is: it stays as before.
    Without powers the spectra stay, too.
    """
    top, pairs, power, _, weight = statistics
    mass = pairs.reshape(-1, pairs.shape[-1]).sum(axis=0)[:, None]
    rows = pairs.sum(axis=-1, keepdims=True)
    conditionals = np.divide(pairs, rows, out=before.conditionals.copy(), where=rows > 0)
    spectra = before.spectra
    if power.ndim:
        spectra = np.divide(power, mass, out=spectra.copy(), where=mass > 0)
        spectra = np.maximum(spectra, variance_floor)
    return Parameters(top / weight, conditionals, spectra)


def draw(parameters, layout, top, n_views, rng):
    """Draw a group under each of the top components (n,): images (n, G, H, W), lower components (n, G)."""
    upto = np.cumsum(parameters.conditionals, axis=-1)
    upto = upto.swapaxes(0, 1)[top] if upto.ndim == 3 else upto[top][:, None]
    height = rng.random((len(upto), n_views, 1)) * upto[..., -1:]
    lower = (upto <= height).sum(axis=2)
    return steps.noise(unfold(parameters.spectra, layout), lower, layout, rng), lower


def flat_weights(top_weights, conditionals):
    """Weights (K,) of the lower components for one image; by position, their mean over positions."""
    weights = top_weights @ conditionals
    return weights.mean(axis=0) if weights.ndim == 2 else weights


def random_top(flat, density, rows, n_top, rng, by_position=False):
    """Start each top component halfway between the lower components of one group and those of all.

    `density` makes log densities (n, G, K) of the indices of groups, which are chosen from `rows`; `flat` are
    `steps.Parameters` of single images.
    """
    chosen = rng.choice(rows, n_top, replace=False)
    with np.errstate(divide="ignore"):
        joint = density(chosen) + np.log(flat.weights)
    shares = posterior.proba(joint.reshape(-1, joint.shape[2])).reshape(joint.shape)
    shares = shares.swapaxes(0, 1) if by_position else shares.mean(axis=1)
    conditionals = 0.5 * (shares + flat.weights)
    return Parameters(np.full(n_top, 1 / n_top), conditionals, flat.spectra)


def given(mapping, n_top, n_components, layout, name, n_views=None):
    """Check and fold the parameters of a caller or a file; of tables by position, `n_views` of them."""
    if not {"top_weights", "conditionals", "spectra"} <= set(mapping):
        raise ValueError(
            f'{name} must hold "top_weights", "conditionals" and "spectra", or the "weights" and '
            f'"spectra" of a mixture of single images; got {sorted(mapping)}.'
        )
    positions = () if n_views is None else (n_views,)
    shapes = {"top_weights": (n_top,), "conditionals": (*positions, n_top, n_components)}
    arrays = {}
    for key, shape in shapes.items():
        arrays[key] = values = _checks.parameter(mapping[key], f"{name}[{key!r}]", shape)
        total = values.sum(axis=-1)
        if not (values >= 0).all() or np.abs(total - 1).max() > 1e-6:
            raise ValueError(
                f"{name}[{key!r}] must be >= 0 and sum to 1 in every row; got {values.min():g} at "
                f"least and sums from {total.min():g} to {total.max():g}."
            )
    weights = flat_weights(**arrays)
    flat = {"weights": weights / weights.sum(), "spectra": mapping["spectra"]}
    spectra = steps.given(flat, n_components, layout, name).spectra
    return Parameters(arrays["top_weights"], arrays["conditionals"], spectra)


def densities(X, spectra, layout):
    """Rows of groups (N, G, H, W) to the log densities (n, G, K) of their images."""

    def of(rows):
        values = log_densities(spectra, steps.powers_of(X[rows], layout), layout.multiplicity)
        _checks.log_joints(values.min(axis=1), rows.start)  # every image of the group needs a density
        return values

    return of


def lower_posteriors(parameters, X, layout, workers):
    """Posteriors (N, G, K) of the lower components of images in groups (N, G, H, W)."""
    density, weight = densities(X, parameters.spectra, layout), np.ones(len(X))
    out = np.empty((*X.shape[:2], len(parameters.spectra)))
    return workers.fill(lambda rows: posteriors(parameters, density(rows), weight[rows]).lower, out)


def start(model, P, weight, layout):
    """Parameters from which EM starts on powers (N, G, F), as the model's `init` says."""
    init, n_components = model.init, model.n_components
    if hasattr(init, "keys") and "conditionals" in init:
        n_views = P.shape[1] if model.by_position else None
        return given(init, model.n_top, n_components, layout, "init", n_views)
    rng = _checks.generator(model.random_state)
    views, view_weight = P.reshape(-1, P.shape[2]), np.repeat(weight, P.shape[1])
    if not hasattr(init, "keys"):
        _checks.enough_rows(view_weight, n_components)
    flat = steps.start(model, views, view_weight, layout, rng)

    def density(groups):
        return log_densities(flat.spectra, P[groups], layout.multiplicity)

    return random_top(flat, density, np.flatnonzero(weight), model.n_top, rng, model.by_position)


def e_steps(P, weight, layout, workers, fixed_spectra):
    """Parameters to (statistics, the parameters themselves) and the mean log-likelihood."""
    known = None

    def run(parameters):
        nonlocal known

        def densities(rows):
            return log_densities(parameters.spectra, P[rows], layout.multiplicity)

        if fixed_spectra and known is None:  # the same at every iteration
            known = workers.fill(densities, np.empty((*P.shape[:2], len(parameters.spectra))))

        def statistics(rows):
            if fixed_spectra:
                return e_step(parameters, known[rows], None, weight[rows])
            return e_step(parameters, densities(rows), P[rows], weight[rows])

        total = workers.sum(statistics, len(P))
        return (total, parameters), total.log_likelihood / total.weight

    return run
