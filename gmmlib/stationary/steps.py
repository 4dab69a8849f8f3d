"""The steps of EM for mixtures of zero-mean stationary Gaussians: each component is a power spectrum.

A component's covariance is circulant, so its density is a sum over frequencies (see `gmmlib.spectrum`),
and EM needs nothing of an image but its distinct powers P (N, F):

- E-step: ``l[n, k] = constant[k] + sum_f P[n, f] slope[f, k]``, one matrix product;
- M-step: ``s[k, f] = sum_n r[n, k] P[n, f] / sum_n r[n, k]``, one more.
"""

from typing import NamedTuple

import numpy as np

from gmmlib import _checks, posterior
from gmmlib.spectrum import powers

EMPTY = 1e-10  # share of the weight below which a component has no images left


class Parameters(NamedTuple):
    """K stationary Gaussians of mean zero with F distinct powers each."""

    weights: np.ndarray  # (K,)    mixing weights, sum to 1
    spectra: np.ndarray  # (K, F)  variance at each frequency, squared grey levels


class Statistics(NamedTuple):
    """What an E-step leaves of its rows; the fields of two sets of rows add."""

    mass: np.ndarray  # (K,)    sum_n w[n] r[n, k]
    power: np.ndarray  # (K, F)  sum_n w[n] r[n, k] P[n, f]
    log_likelihood: float  # sum_n w[n] log p(x_n), nats
    weight: float  # sum_n w[n]


def coefficients(parameters, multiplicity):
    """Write the log joint as ``P @ slope + constant``: slope (F, K), constant (K,)."""
    weights, spectra = parameters
    slope = -0.5 * multiplicity / spectra
    with np.errstate(divide="ignore"):
        constant = np.log(weights) - 0.5 * np.log(2 * np.pi * spectra) @ multiplicity
    return np.ascontiguousarray(slope.T), constant


def log_joint(parameters, P, multiplicity):
    """Log weight plus log density of each image under each component, (N, K), nats."""
    slope, constant = coefficients(parameters, multiplicity)
    return P @ slope + constant


def e_step(slope, constant, P, weight, assign=None, beta=1.0):
    """Statistics of a chunk of powers P (n, F) with row weights (n,).

    Its posteriors are raised to `beta` and normalised again; `assign` changes them.
    """
    resp = P @ slope
    evidence = np.empty(len(P))
    posterior.normalise(resp, constant, evidence, beta)
    if assign is not None:
        assign(resp)
    resp *= weight[:, None]
    return Statistics(resp.sum(axis=0), resp.T @ P, weight @ evidence, weight.sum())


def blend(average, batch, eta):
    """Move statistics of unit weight by a step `eta` towards those of a batch."""
    return Statistics(*((1 - eta) * a + eta * b / batch.weight for a, b in zip(average, batch, strict=True)))


def m_step(statistics, variance_floor):
    """Parameters of the largest expected log joint among those with no variance below the floor.

    Each frequency's objective rises up to the weighted mean power and falls after it, so the
    constrained maximum is the larger of that mean and the floor, and EM still climbs.
    """
    mass, power, _, weight = statistics
    spectra = np.divide(power, mass[:, None], out=np.zeros_like(power), where=mass[:, None] > 0)
    return Parameters(mass / weight, np.maximum(spectra, variance_floor))


def revive(parameters, variance_floor):
    """Re-initialise each empty component by splitting the heaviest one into two of unlike contrast.

    Returns the parameters and the indices of the components that were empty.
    """
    empty = np.flatnonzero(parameters.weights <= EMPTY)
    if not len(empty):
        return parameters, empty
    weights, spectra = parameters.weights.copy(), parameters.spectra.copy()
    for k in empty:
        heaviest = posterior.falling(weights)[0]
        weights[[k, heaviest]] = weights[heaviest] / 2
        spectra[k] = 1.25 * spectra[heaviest]
        spectra[heaviest] *= 0.8
    return Parameters(weights / weights.sum(), np.maximum(spectra, variance_floor)), empty


def random_start(P, multiplicity, n_components, weight, variance_floor, rng):
    """Start each component halfway between one image's powers and their mean, at that image's contrast."""
    chosen = rng.choice(np.flatnonzero(weight), n_components, replace=False)
    own = P[chosen]
    mean = weight @ P / weight.sum()
    contrast = own @ multiplicity / (mean @ multiplicity)
    spectra = 0.5 * (own + mean * contrast[:, None])
    return Parameters(np.full(n_components, 1 / n_components), np.maximum(spectra, variance_floor))


def given(mapping, n_components, layout, name):
    """Check and fold the weights and half-plane spectra of a caller or a file."""
    height, width = layout.shape
    expected = {"weights": (n_components,), "spectra": (n_components, height, width // 2 + 1)}
    arrays = {}
    for key, shape in expected.items():
        if key not in mapping:
            raise ValueError(f'{name} must hold "weights" and "spectra"; got {sorted(mapping)}.')
        arrays[key] = _checks.parameter(mapping[key], f"{name}[{key!r}]", shape)
    weights = arrays["weights"]
    # Contiguous, as EM's own are: BLAS sums in another order otherwise.
    spectra = np.ascontiguousarray(arrays["spectra"].reshape(n_components, -1)[:, layout.bins])
    if not (weights >= 0).all() or abs(weights.sum() - 1) > 1e-6:
        raise ValueError(
            f"{name}['weights'] must be >= 0 and sum to 1; "
            f"got {weights.min():g} at the least and the sum {weights.sum():g}."
        )
    if not ((spectra > 0) & (spectra < np.inf)).all():
        raise ValueError(
            f"{name}['spectra'] must be positive and finite; got {spectra.min():g} to {spectra.max():g}."
        )
    return Parameters(weights, spectra)


def all_powers(X, layout, workers):
    """Powers (N, F) of all images."""
    return workers.fill(lambda rows: powers(X[rows], layout), np.empty((len(X), len(layout.bins))))


def expected(parameters):
    """Statistics of unit weight whose M-step gives back the parameters."""
    weights, spectra = parameters
    return Statistics(weights, weights[:, None] * spectra, 0.0, 1.0)
