"""The steps of EM for mixtures of zero-mean stationary Gaussians: each component is a power spectrum.

A component's covariance is circulant, so its density is a sum over frequencies (see `gmmlib.spectrum`),
and EM needs nothing of an image but its distinct powers P (N, F):

- E-step: ``l[n, k] = constant[k] + sum_f P[n, f] slope[f, k]``, one matrix product;
- M-step: ``s[k, f] = sum_n r[n, k] P[n, f] / sum_n r[n, k]``, one more.
"""

from typing import NamedTuple

import numpy as np
from scipy import fft

from gmmlib import _checks, posterior
from gmmlib.spectrum import fold, powers, take

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
    slope = np.divide((-0.5 * multiplicity)[:, None], spectra.T, order="C")
    logs = 2 * np.pi * spectra
    np.log(logs, out=logs)  # in place: of a large image they are many
    logs *= 0.5
    with np.errstate(divide="ignore"):
        constant = np.log(weights) - logs @ multiplicity
    return slope, constant


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
    # A sum over no mass is 0; divided by 1, it stays so.
    spectra = power / np.where(mass > 0, mass, 1.0)[:, None]
    return Parameters(mass / weight, np.maximum(spectra, variance_floor, out=spectra))


def revive(parameters, variance_floor):
    """Split the heaviest component into two of unlike contrast for each empty one.

    Returns the parameters, and the indices of what was empty.
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
    powers_of_chosen = P[chosen]
    mean = weight @ P / weight.sum()
    contrast = powers_of_chosen @ multiplicity / (mean @ multiplicity)
    spectra = mean * contrast[:, None]
    spectra += powers_of_chosen
    spectra *= 0.5
    np.maximum(spectra, variance_floor, out=spectra)
    return Parameters(np.full(n_components, 1 / n_components), spectra)


def given(mapping, n_components, layout, name):
    """Check and fold the weights and half-plane spectra of a caller or a file."""
    parameters = folded(mapping, n_components, layout, name)
    spectra = parameters.spectra
    if not (spectra.min() > 0 and spectra.max() < np.inf):
        raise ValueError(
            f"{name}['spectra'] must be positive and finite; got {spectra.min():g} to {spectra.max():g}."
        )
    return parameters


def folded(mapping, n_components, layout, name):
    """What `given` returns, with spectra of any sign."""
    if not {"weights", "spectra"} <= set(mapping):
        raise ValueError(f'{name} must hold "weights" and "spectra"; got {sorted(mapping)}.')
    height, width = layout.shape
    weights = _checks.parameter(mapping["weights"], f"{name}['weights']", (n_components,))
    shape = n_components, height, width // 2 + 1
    spectra = _checks.parameter(mapping["spectra"], f"{name}['spectra']", shape)
    spectra = take(spectra, layout)  # contiguous, as EM's own are: BLAS sums in another order otherwise
    _checks.mixing_weights(weights, f"{name}['weights']")
    return Parameters(weights, spectra)


def all_powers(X, layout, workers):
    """Powers (N, F) of all images, or (N, G, F) of all groups of images."""
    out = np.empty((*X.shape[:-2], len(layout.bins)))
    return workers.fill(lambda rows: powers_of(X[rows], layout), out)


def powers_of(X, layout):
    """Distinct powers (..., F) of images (..., H, W)."""
    return powers(X.reshape(-1, *X.shape[-2:]), layout).reshape(*X.shape[:-2], -1)


def expected(parameters):
    """Statistics of unit weight whose M-step gives back the parameters."""
    weights, spectra = parameters
    return Statistics(weights, weights[:, None] * spectra, 0.0, 1.0)


def statistics(parameters, P, weight, layout, workers, algorithm=None):
    """`Statistics` of all powers P (N, F)."""
    slope, constant = coefficients(parameters, layout.multiplicity)
    beta = 1.0 if algorithm is None else algorithm.beta

    def of(rows):
        assign = None if algorithm is None else lambda resp: algorithm(resp, rows)
        return e_step(slope, constant, P[rows], weight[rows], assign, beta)

    return workers.sum(of, len(P))


def start(model, P, weight, layout, random_state):
    """Parameters from which EM starts on powers (N, F), as the model's `init` says."""
    init, n_components = model.init, model.n_components
    if hasattr(init, "keys"):
        return given(init, n_components, layout, "init")
    check_random(init, '"weights" and "spectra"')
    rng = _checks.generator(random_state)
    return random_start(P, layout.multiplicity, n_components, weight, model.variance_floor, rng)


def check_random(init, names):
    """Refuse an `init` that is neither a mapping with these names nor "random_from_data"."""
    if not isinstance(init, str) or init != "random_from_data":
        raise ValueError(f'init must be "random_from_data" or a mapping with {names}; got {init!r}.')


def layout_of(shape, zero_mean_patches):
    """Fold of images (H, W), without the zero frequency if they had their own mean removed."""
    layout = fold(shape, zero_frequency=not zero_mean_patches)
    if layout.dimension == 0:
        raise ValueError("X must hold images of at least 2 pixels with zero_mean_patches; got 1 x 1.")
    return layout


def normalised(joint):
    """Posteriors, in place, and log-likelihoods (n,) of contiguous log joints (n, K)."""
    evidence = np.empty(len(joint))
    posterior.normalise(joint, np.zeros(joint.shape[1]), evidence)
    return joint, evidence


def check_variance(P, weight, layout, variance_floor):
    """Refuse powers (N, F) that leave nothing to learn, or whose likelihood has no bound."""
    variance = weight @ P / weight.sum()
    most = variance[int(layout.bins[0] == 0) :].max(initial=0.0)
    if most <= variance_floor and layout.dimension > 1:
        raise ValueError(
            f"X must vary by more than variance_floor={variance_floor:g}; got images whose variance "
            f"is {most:.3g} at most at every frequency but zero. Are they constant, or in other "
            "units (variance_floor is in squared grey levels)?"
        )
    zero = int((variance == 0).sum())
    if zero and variance_floor == 0:
        raise ValueError(
            f"X has zero variance at {zero} of {len(variance)} frequencies, so its likelihood has no "
            "bound. Set variance_floor above 0 (in squared grey levels)."
        )


def check_positive(parameters):
    """Refuse components whose likelihood has no bound."""
    if not (parameters.spectra > 0).all():
        worst = int((parameters.spectra <= 0).any(axis=1).argmax())
        raise ValueError(
            f"Component {worst} has collapsed: its variance is zero at a frequency, so its likelihood "
            "has no bound. Set variance_floor above 0 (in squared grey levels), or ask for fewer "
            "components."
        )


def noise(spectra, labels, shape, rng):
    """Draw an image from each of the half-plane spectra `labels`, of any shape: (*labels.shape, H, W)."""
    # White noise shaped by the square root of the spectrum has exactly the circulant covariance.
    white = fft.rfft2(rng.standard_normal((*labels.shape, *shape)))
    return fft.irfft2(white * np.sqrt(spectra)[labels], s=shape)
