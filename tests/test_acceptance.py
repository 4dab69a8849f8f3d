"""Statistical acceptance: what is drawn has the moments of its model, and planted mixtures are found again.

A statistic of independent samples is compared with its expectation in units of its standard error.  The
mean of n = 20,000 samples is close to Gaussian, so one comparison passes 5 standard errors by chance with a
probability of 6e-7, and m of them with at most 6e-7 m: below 1e-3 for all comparisons of this file
together, over its seeds, which are fixed.  Samples of a slightly wrong model fail the same tests.
"""

import copy
import itertools

import numpy as np
import pytest
from scipy.special import erfc

from gmmlib.compose.stack import StackedGMM
from gmmlib.full.estimator import FullGMM
from gmmlib.stationary.convolutional import ConvolutionalGMM
from gmmlib.stationary.hierarchical import HierarchicalGMM
from gmmlib.stationary.phaseblind import PhaseBlindGMM, coordinates
from gmmlib.stationary.transformed import TransformedGMM
from tests import oracles

N = 20_000
SIDES = (4, 5)
LIMIT = 5.0  # standard errors
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((60, *SIDES)).cumsum(axis=2) * np.repeat([1.0, 4.0], 30)[:, None, None]
ROWS = RNG.standard_normal((60, 3)) @ RNG.standard_normal((3, 3)) + np.repeat([0.0, 7.0], 30)[:, None]
SHORT = {"max_iter": 5, "random_state": 0}


def powers(X):
    """Powers at all frequencies of the plane, unitary, a row an image."""
    return np.abs(np.fft.fft2(X, norm="ortho")).reshape(len(X), -1) ** 2


def plane(half):
    """Half-plane spectra (K, H, W//2 + 1) at all frequencies (K, H W), by way of the autocovariance."""
    return np.fft.fft2(np.fft.irfft2(half, s=SIDES)).real.reshape(len(half), -1)


def indicators(labels, n_labels):
    return (labels[:, None] == np.arange(n_labels)).astype(float)


def pairs(X):
    """Products of all pairs of columns."""
    rows, columns = np.triu_indices(X.shape[1])
    return X[:, rows] * X[:, columns]


def of_gaussians(labels, X, means, covariances):
    """Means and covariances of the samples of each component."""
    upper = np.triu_indices(X.shape[1])
    for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
        own = X[labels == k] - mean
        yield own, np.zeros(len(mean))
        yield pairs(own), covariance[upper]


def errors(statistics, expected):
    """Distances of means from expectations, in standard errors; statistics that do not vary must agree."""
    spread = statistics.std(axis=0) / np.sqrt(len(statistics))
    gap = np.abs(statistics.mean(axis=0) - expected)
    spread = np.maximum(spread, 1e-9 * (np.abs(expected) + 1e-9))
    return gap / spread


# Each model has statistics of its samples, and what the model says of them.


def of_convolutional(model, drawn):
    X, labels = drawn
    P = powers(X)
    spectra, weights = plane(model.spectra_), model.weights_
    row, column = np.indices(SIDES).reshape(2, -1)
    mirrored = (-row % SIDES[0] == row) & (-column % SIDES[1] == column)
    fourth = np.where(mirrored, 3.0, 2.0)  # of a chi-square and an exponential law
    correlation = np.fft.irfft2(np.tensordot(weights, model.spectra_, 1), s=SIDES)
    return [
        (indicators(labels, len(weights)), weights),
        (X.reshape(len(X), -1), np.zeros(X[0].size)),
        (P, weights @ spectra),
        (P**2, fourth * (weights @ spectra**2)),
        ((X[:, :1, :1] * X).reshape(len(X), -1), correlation.ravel()),
    ]


def of_full(model, drawn):
    X, labels = drawn
    weights, means, covariances = model.weights_, model.means_, model.covariances_
    cubes = means**3 + 3 * means * np.einsum("kdd->kd", covariances)
    return [
        (indicators(labels, len(weights)), weights),
        (X**3, weights @ cubes),
        *of_gaussians(labels, X, means, covariances),
    ]


def of_templates(model, drawn):
    X, labels = drawn
    weights, means = model.weights_, model.means_
    reach = range(-model.max_shift, model.max_shift + 1)
    moved = [np.roll(means, shift, axis=(1, 2)) for shift in itertools.product(reach, reach)]
    return [
        (indicators(labels, len(weights)), weights),
        (X.reshape(len(X), -1), np.tensordot(weights, np.mean(moved, axis=0), 1).ravel()),
        *[(powers(X[labels == k]), (powers(means) + plane(model.spectra_))[k]) for k in range(len(weights))],
    ]


def of_groups(model, drawn):
    X, top, lower = drawn
    weights, conditionals = model.top_weights_, model.conditionals_
    both = np.einsum("t,tk,tj->kj", weights, conditionals, conditionals)
    spectra = plane(model.spectra_)
    size = len(spectra)
    first, second = powers(X[:, 0]), powers(X[:, 1])
    return [
        (indicators(top, len(weights)), weights),
        (indicators(size * lower[:, 0] + lower[:, 1], size**2), both.ravel()),
        (first, (weights @ conditionals) @ spectra),
        (second, (weights @ conditionals) @ spectra),
        (first * second, np.einsum("kj,kf,jf->f", both, spectra, spectra)),
    ]


def of_phaseblind(model, drawn):
    X, labels = drawn
    mixture = model.mixture_
    Y = coordinates(X, model.frame_)[0]
    F = np.fft.rfft2(X)[:, 1, 1:]
    phases = F / np.abs(F)
    return [
        (indicators(labels, len(mixture.weights_)), mixture.weights_),
        *of_gaussians(labels, Y, mixture.means_, mixture.covariances_),
        (np.hstack([phases.real, phases.imag]), np.zeros(2 * phases.shape[1])),
    ]


def of_missing(model, drawn):
    """Two missing columns of one row, from the joint Gaussians by the textbook's formulas."""
    seen, gone = [0], [1, 2]
    X = drawn[:, 0]
    value = X[0, seen]
    shares, centres, spreads = [], [], []
    for weight, mean, C in zip(model.weights_, model.means_, model.covariances_, strict=True):
        variance = C[0, 0]
        shares.append(weight * np.exp(-0.5 * (value[0] - mean[0]) ** 2 / variance) / np.sqrt(variance))
        slope = C[np.ix_(gone, seen)] / variance
        centres.append(mean[gone] + slope @ (value - mean[seen]))
        spreads.append(C[np.ix_(gone, gone)] - slope @ C[np.ix_(seen, gone)])
    shares, centres = np.array(shares) / np.sum(shares), np.array(centres)
    moments = np.array(spreads) + centres[:, :, None] * centres[:, None, :]
    return [
        (X[:, gone], shares @ centres),
        (pairs(X[:, gone]), np.tensordot(shares, moments, 1)[np.triu_indices(2)]),
    ]


def of_stack(model, drawn):
    """How often each lowest component is drawn, by quadrature over the codes that the top one draws."""
    X, top = drawn
    lowest, mixture = model.layers_
    noise = np.linspace(-8, 8, 4001)
    density = np.exp(-0.5 * noise**2) / np.exp(-0.5 * noise**2).sum()
    across = np.array([1.0, -1.0])
    share = 0.0
    for weight, mean, C in zip(mixture.weights_, mixture.means_, mixture.covariances_, strict=True):
        difference = mean @ across + np.sqrt(across @ C @ across) * noise
        share += weight * density @ np.clip((1 + difference) / 2, 0, 1)  # nearest point of the simplex
    return [
        (indicators(top, 2), mixture.weights_),
        (powers(X), np.array([share, 1 - share]) @ plane(lowest.spectra_)),
    ]


def drawn(model, seed):
    if isinstance(model, FullGMM) and model.allow_missing:
        return model.sample_given([[3.0, np.nan, np.nan]], N, random_state=seed)
    return model.sample(N, random_state=seed)


def changed(name, change):
    """Change one array of a model, and leave what is drawn from it consistent."""

    def apply(model):
        owner = getattr(model, "mixture_", getattr(model, "layers_", [model])[0])
        setattr(owner, name, change(getattr(owner, name)))
        return model

    return apply


def tilted(weights):
    return weights + 0.03 * np.array([1.0, -1.0])


def louder(values):
    return values * np.array([1.15, 1.0]).reshape(2, *[1] * (values.ndim - 1))


GROUPS = IMAGES.reshape(30, 2, *SIDES)
MODELS = {
    "ConvolutionalGMM": (ConvolutionalGMM(2, **oracles.WHOLE_RUN | SHORT), IMAGES, of_convolutional),
    "FullGMM": (FullGMM(2, **SHORT), ROWS, of_full),
    "FullGMM, values missing": (FullGMM(2, allow_missing=True, **SHORT), ROWS, of_missing),
    "HierarchicalGMM": (HierarchicalGMM(2, 2, **oracles.WHOLE_RUN | SHORT), GROUPS, of_groups),
    "PhaseBlindGMM": (PhaseBlindGMM(2, **oracles.WHOLE_RUN | SHORT), IMAGES, of_phaseblind),
    "StackedGMM": (
        StackedGMM([ConvolutionalGMM(2, **oracles.WHOLE_RUN | SHORT), FullGMM(2, reg_covar=1e-4, **SHORT)]),
        IMAGES,
        of_stack,
    ),
    "TransformedGMM": (TransformedGMM(2, max_shift=1, **oracles.WHOLE_RUN | SHORT), IMAGES, of_templates),
}
WRONG = [
    ("ConvolutionalGMM", changed("weights_", tilted)),
    ("ConvolutionalGMM", changed("spectra_", louder)),
    ("FullGMM", changed("weights_", tilted)),
    ("FullGMM", changed("means_", lambda means: means + 0.1 * means.std())),
    ("FullGMM", changed("covariances_", louder)),
    ("FullGMM, values missing", changed("covariances_", louder)),
    ("HierarchicalGMM", changed("top_weights_", tilted)),
    ("HierarchicalGMM", changed("conditionals_", lambda c: 0.9 * c + 0.1 * c[::-1])),
    ("HierarchicalGMM", changed("spectra_", louder)),
    ("PhaseBlindGMM", changed("means_", lambda means: means + 0.1 * means.std())),
    ("PhaseBlindGMM", changed("covariances_", louder)),
    ("StackedGMM", changed("spectra_", louder)),
    ("TransformedGMM", changed("weights_", tilted)),
    ("TransformedGMM", changed("means_", louder)),
    ("TransformedGMM", changed("spectra_", louder)),
]


@pytest.fixture(scope="module")
def fitted():
    return {name: copy.deepcopy(model).fit(X) for name, (model, X, _) in MODELS.items()}


def worst(model, seed, truth, of):
    found = [errors(statistics, expected) for statistics, expected in of(truth, drawn(model, seed))]
    return max(part.max() for part in found), sum(part.size for part in found)


@pytest.mark.parametrize("name", MODELS)
def test_samples_have_the_moments_of_their_model(fitted, name, record_property):
    model = fitted[name]
    largest, count = worst(model, 1, model, MODELS[name][2])
    record_property("comparisons", int(count))
    record_property("largest", float(largest))
    assert count * erfc(LIMIT / np.sqrt(2)) < 1e-3 / len(MODELS)
    assert largest < LIMIT


@pytest.mark.parametrize(("name", "change"), WRONG)
def test_samples_of_a_slightly_wrong_model_fail(fitted, name, change):
    model = fitted[name]
    largest, _ = worst(change(copy.deepcopy(model)), 1, model, MODELS[name][2])
    assert largest > LIMIT


# Planted mixtures


def matched(distance):
    """Assign components to planted ones at least total distance."""
    orders = itertools.permutations(range(len(distance)))
    return list(min(orders, key=lambda order: distance[np.arange(len(distance)), order].sum()))


def found_spectra(seed):
    rng = np.random.default_rng(seed)
    n, weights = 1500, np.array([0.5, 0.3, 0.2])
    spectra = np.exp(rng.standard_normal((3, 8, 5)))
    start = {"weights": weights, "spectra": spectra}
    truth = ConvolutionalGMM(3, init=start, callback=lambda *_: True, max_iter=50, tol=0.0).fit(
        rng.standard_normal((3, 8, 8))
    )
    X, _ = truth.sample(n, random_state=seed)
    model = ConvolutionalGMM(3, max_iter=60, random_state=seed, tol=0.0).fit(X)
    gaps = np.log(model.spectra_)[None] - np.log(truth.spectra_)[:, None]
    order = matched((gaps**2).sum(axis=(2, 3)))
    gap = np.abs(gaps[np.arange(3), order]).max(axis=(1, 2))
    # The log of a mean of n chi-squares of one degree of freedom has the deviation sqrt(2 / n).
    return (gap < 5 * np.sqrt(2 / (n * weights))).all() and close_weights(model, order, weights, n)


def found_covariances(seed):
    rng = np.random.default_rng(seed)
    n, weights = 1500, np.array([0.5, 0.3, 0.2])
    means = 4.0 * np.eye(3, 4) + rng.standard_normal((3, 4))
    roots = rng.standard_normal((3, 4, 4)) / 2
    covariances = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(4)
    labels = rng.choice(3, n, p=weights)
    factors = np.linalg.cholesky(covariances)
    X = means[labels] + np.einsum("nij,nj->ni", factors[labels], rng.standard_normal((n, 4)))
    model = FullGMM(3, max_iter=100, random_state=seed).fit(X)
    order = matched(((model.means_[None] - means[:, None]) ** 2).sum(axis=2))
    # In whitened coordinates means and covariances are off by about 1 / sqrt(n) each.
    whiten = np.linalg.inv(factors)
    gap = np.einsum("kij,kj->ki", whiten, model.means_[order] - means)
    turned = whiten @ model.covariances_[order] @ whiten.transpose(0, 2, 1) - np.eye(4)
    most = 5 * np.sqrt(2 / (n * weights))
    good = (np.abs(gap).max(axis=1) < most).all() and (np.abs(turned).max(axis=(1, 2)) < most).all()
    return good and close_weights(model, order, weights, n)


def found_templates(seed):
    rng = np.random.default_rng(seed)
    n, weights = 400, np.array([0.6, 0.4])
    means = 2.0 * rng.standard_normal((2, 6, 6))
    labels = rng.choice(2, n, p=weights)
    moved = [np.roll(means[k], rng.integers(0, 6, 2), axis=(0, 1)) for k in labels]
    X = np.stack(moved) + rng.standard_normal((n, 6, 6))
    model = TransformedGMM(2, max_iter=30, random_state=seed, tol=0.0).fit(X)
    everywhere = np.array([np.roll(model.means_, shift, axis=(1, 2)) for shift in np.ndindex(6, 6)])
    gaps = np.abs(everywhere[:, None] - means[None, :, None]).max(axis=(3, 4)).min(axis=0)
    order = matched(gaps)
    gap = gaps[np.arange(2), order]
    return (gap < 5 / np.sqrt(n * weights)).all() and close_weights(model, order, weights, n)


def close_weights(model, order, weights, n):
    return (np.abs(model.weights_[order] - weights) < 5 * np.sqrt(weights * (1 - weights) / n)).all()


# Share of the seeds at which EM must find what was planted; at the others it ends in a poorer optimum.
# Were it found at every other seed only, 15 of 20 would still pass with a probability of 0.02.
AT_LEAST = 0.75


@pytest.mark.parametrize("n_seeds", [5, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("found", [found_spectra, found_covariances, found_templates])
def test_planted_mixtures_are_found(found, n_seeds, record_property):
    rate = np.mean([found(seed) for seed in range(n_seeds)])
    record_property("success rate", float(rate))
    assert rate >= AT_LEAST
