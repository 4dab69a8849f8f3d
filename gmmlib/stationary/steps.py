"""The steps of EM for mixtures of zero-mean stationary Gaussians: each component is a power spectrum.

A component's covariance is circulant, so its density is a sum over frequencies (see `gmmlib.spectrum`), and
EM needs nothing of an image but its distinct powers P (N, F); those in another orthonormal basis than
Fourier's do as well (see `gmmlib.stationary.bases`):

- E-step: ``l[n, k] = constant[k] + sum_f P[n, f] slope[f, k]``, one matrix product;
- M-step: ``s[k, f] = sum_n r[n, k] P[n, f] / sum_n r[n, k]``, one more.
"""

from typing import NamedTuple

import numpy as np

from gmmlib import _checks, posterior
from gmmlib.stationary import bases

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
    spectra = 0.5 * (powers_of_chosen + mean * contrast[:, None])
    return Parameters(np.full(n_components, 1 / n_components), np.maximum(spectra, variance_floor))


def given(mapping, n_components, layout, name):
    """Check and fold the weights and half-plane spectra of a caller or a file."""
    parameters = folded(mapping, n_components, layout, name)
    spectra = parameters.spectra
    if not ((spectra > 0) & (spectra < np.inf)).all():
        raise ValueError(
            f"{name}['spectra'] must be positive and finite; got {spectra.min():g} to {spectra.max():g}."
        )
    return parameters


def folded(mapping, n_components, layout, name):
    """What `given` returns, with spectra of any sign."""
    if not {"weights", "spectra"} <= set(mapping):
        raise ValueError(f'{name} must hold "weights" and "spectra"; got {sorted(mapping)}.')
    weights = _checks.parameter(mapping["weights"], f"{name}['weights']", (n_components,))
    spectra = _checks.parameter(mapping["spectra"], f"{name}['spectra']", (n_components, *layout.plane))
    # Contiguous, as EM's own are: BLAS sums in another order otherwise.
    spectra = np.ascontiguousarray(spectra.reshape(n_components, -1)[:, layout.bins])
    _checks.mixing_weights(weights, f"{name}['weights']")
    return Parameters(weights, spectra)


def all_powers(X, layout, workers):
    """Powers (N, F) of all images, or (N, G, F) of all groups of images."""
    out = np.empty((*X.shape[:-2], len(layout.bins)))
    return workers.fill(lambda rows: powers_of(X[rows], layout), out)


def powers_of(X, layout):
    """Distinct powers (..., F) of images (..., H, W)."""
    return layout.powers(X.reshape(-1, *X.shape[-2:])).reshape(*X.shape[:-2], -1)


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


def layout_of(shape, zero_mean_patches, basis="fourier"):
    """Layout of images (H, W), without the zero frequency if they had their own mean removed."""
    layout = bases.layout(basis, shape, zero_mean_patches)
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
    most = variance[layout.varying].max(initial=0.0)
    if most <= variance_floor and layout.dimension > 1:
        raise ValueError(
            f"X must vary by more than variance_floor={variance_floor:g}; got images whose variance "
            f"is {most:.3g} at most at {layout.moving}. Are they constant, or in other "
            "units (variance_floor is in squared grey levels)?"
        )
    zero = int((variance == 0).sum())
    if zero and variance_floor == 0:
        raise ValueError(
            f"X has zero variance at {zero} of {len(variance)} {layout.several}, so its likelihood has no "
            "bound. Set variance_floor above 0 (in squared grey levels)."
        )


def check_positive(parameters, place="a frequency"):
    """Refuse components whose likelihood has no bound; the message calls a power a `place`."""
    if not (parameters.spectra > 0).all():
        worst = int((parameters.spectra <= 0).any(axis=1).argmax())
        raise ValueError(
            f"Component {worst} has collapsed: its variance is zero at {place}, so its likelihood "
            "has no bound. Set variance_floor above 0 (in squared grey levels), or ask for fewer "
            "components."
        )


def noise(spectra, labels, layout, rng):
    """Draw an image from each of the unfolded spectra `labels`, of any shape: (*labels.shape, H, W)."""
    # White noise shaped by the square root of the spectrum has exactly the component's covariance.
    white = rng.standard_normal((*labels.shape, *layout.shape))
    return layout.filtered(white, np.sqrt(spectra)[labels])
