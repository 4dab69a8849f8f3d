"""Penalised mixtures against the metrics, numerical minima and their own limits."""

import re
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar
from sklearn.exceptions import ConvergenceWarning

from gmmlib import ConvolutionalGMM, metrics
from gmmlib.spectrum import fold, unfold
from gmmlib.stationary.penalised import PenalisedGMM, banded, common_spectrum, mean_overlap, separate
from tests import oracles

SHAPES = [(4, 6), (5, 4), (3, 5)]


def textures(shape=(5, 4), n=240, n_components=3, seed=0):
    rng = np.random.default_rng(seed)
    full = oracles.full_powers(rng.standard_normal((n_components, *shape))) + 0.1
    roots = [oracles.covariance_root(oracles.dense_covariance(oracles.autocovariance(f))) for f in full]
    labels = rng.integers(0, n_components, n)
    noise = rng.standard_normal((n, roots[0].shape[0]))
    return np.stack([roots[k] @ e for k, e in zip(labels, noise, strict=True)]).reshape(n, *shape)


def fit(x, weight=None, **settings):
    settings = {"max_iter": 12, "random_state": 3, "variance_floor": 1e-3} | settings
    return PenalisedGMM(3, **oracles.WHOLE_RUN | settings).fit(x, sample_weight=weight)


def statistics(n_components=4, n_powers=7, seed=0):
    rng = np.random.default_rng(seed)
    mass = rng.dirichlet(np.full(n_components, 3.0))
    return mass, mass[:, None] * rng.gamma(1.0, size=(n_components, n_powers)) * np.geomspace(
        5, 0.1, n_powers
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_the_overlap_is_that_of_the_metrics(shape):
    layout = fold(shape)
    theta = np.random.default_rng(0).normal(size=(4, len(layout.bins)))
    filters = unfold(np.exp(-theta), layout)
    expected = metrics.mean_off_diagonal(metrics.spectral_overlap(filters, shape))
    assert_allclose(mean_overlap(theta, layout.multiplicity)[0], expected, rtol=1e-12)
    assert_allclose(mean_overlap(theta[:1], layout.multiplicity)[0], 0, atol=1e-12)


def test_its_gradient_equals_finite_differences():
    layout = fold((3, 5))
    theta = np.random.default_rng(0).normal(size=(3, len(layout.bins)))
    gradient, step = mean_overlap(theta, layout.multiplicity)[1], 1e-6
    for index in np.ndindex(theta.shape):
        aside = np.zeros_like(theta)
        aside[index] = step
        up, down = (mean_overlap(theta + sign * aside, layout.multiplicity)[0] for sign in (1, -1))
        assert_allclose(gradient[index], (up - down) / (2 * step), rtol=1e-5, atol=1e-9)
    assert np.abs(gradient).max() > 1e-3


def band_objective(theta, common, mass, power, price):
    return 0.5 * (mass * theta + power * np.exp(-theta)) + price * np.abs(theta - common)


@pytest.mark.parametrize("price", [0.0, 0.02, 0.08, 0.3])
def test_deviations_are_the_numerical_minima(price):
    mass, power = statistics()
    common = power.sum(axis=0)
    spectra = banded(common, mass, power, price, 1e-9)
    for (k, f), value in np.ndenumerate(spectra):
        argument = np.log(common[f]), mass[k], power[k, f], price
        grid = np.linspace(-6, 6, 2001) + np.log(common[f])
        best = band_objective(grid, *argument).min()
        assert band_objective(np.log(value), *argument) <= best + 1e-12


@pytest.mark.parametrize("price", [0.02, 0.08, 0.3])
def test_the_common_spectrum_is_the_numerical_minimum(price):
    mass, power = statistics()
    common = common_spectrum(mass, power, price, 1e-9)
    for f in range(power.shape[1]):

        def cost(theta, f=f):
            level = np.array([np.exp(theta)])
            spectra = banded(level, mass, power[:, [f]], price, 1e-9)[:, 0]
            return band_objective(np.log(spectra), theta, mass, power[:, f], price).sum()

        found = minimize_scalar(cost, bounds=(np.log(common[f]) - 3, np.log(common[f]) + 3), method="bounded")
        assert cost(np.log(common[f])) <= found.fun + 1e-10


def test_a_prohibitive_price_leaves_the_mean_spectrum():
    mass, power = statistics()
    common = common_spectrum(mass, power, 10.0, 1e-9)
    assert_allclose(common, power.sum(axis=0) / mass.sum(), rtol=1e-10)
    assert_array_equal(banded(common, mass, power, 10.0, 1e-9), np.tile(common, (len(mass), 1)))


@pytest.mark.parametrize("penalty", ["overlap", "band"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_step_climbs(penalty, shape):
    x = textures(shape)
    for strength in (0.05, 0.2, 0.5):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no component may be lost: that is no step of EM
            model = fit(x, penalty=penalty, strength=strength)
        oracles.assert_never_falls(model.objectives_)
        assert len(model.objectives_) == 13
        assert model.objectives_[-1] > model.objectives_[0]


@pytest.mark.parametrize("penalty", ["overlap", "band"])
def test_the_trace_is_the_likelihood_less_the_penalty(penalty):
    x = textures()
    model = fit(x, penalty=penalty, strength=0.3)
    if penalty == "overlap":
        cost = metrics.mean_off_diagonal(metrics.spectral_overlap(model.filters_, (5, 4)))
    else:
        gaps = [
            oracles.full_from_half(g, 4).sum()
            for g in np.abs(np.log(model.spectra_ / model.common_spectrum_))
        ]
        cost = sum(gaps) / 6
    assert_allclose(model.objectives_[-1], model.score(x) - 0.3 * cost, rtol=1e-10)


@pytest.mark.parametrize("penalty", ["overlap", "band"])
def test_without_strength_it_is_the_plain_mixture(penalty):
    x = textures()
    plain = ConvolutionalGMM(3, max_iter=12, random_state=3, variance_floor=1e-3, tol=0.0).fit(x)
    model = fit(x, penalty=penalty, strength=0.0)
    assert_allclose(model.objectives_, plain.log_likelihoods_, rtol=1e-7)


def test_strength_buys_less_overlap():
    x = textures()
    overlap = [
        metrics.mean_off_diagonal(metrics.spectral_overlap(fit(x, strength=s).filters_, (5, 4)))
        for s in (0.0, 0.2, 0.5)
    ]
    assert (np.diff(overlap) < -0.002).all()


def test_strength_buys_narrower_bands():
    x = textures()
    filled = [fit(x, penalty="band", strength=s).bands_.mean() for s in (0.01, 0.3, 0.8)]
    assert (np.diff(filled) < -0.05).all()
    everything = fit(x, penalty="band", strength=50.0)
    assert not everything.bands_.any()


def test_row_weights_repeat_rows_where_bands_cost():
    x = textures(n=60)
    weight = np.arange(60) % 3
    rng = np.random.default_rng(0)
    start = {"weights": np.full(3, 1 / 3), "spectra": rng.gamma(3.0, size=(3, 5, 3))}
    by_weight = fit(x, weight, penalty="band", strength=0.3, init=start)
    repeated = fit(np.repeat(x, weight, axis=0), penalty="band", strength=0.3, init=start)
    assert_allclose(by_weight.objectives_, repeated.objectives_, rtol=1e-6)


@pytest.mark.parametrize("penalty", ["overlap", "band"])
def test_an_empty_component_is_put_elsewhere_and_says_so(penalty):
    x = textures()
    rng = np.random.default_rng(0)
    spectra = rng.gamma(3.0, size=(3, 5, 3))
    spectra[2] = 1e9
    start = {"weights": np.array([0.5, 0.5, 0.0]), "spectra": spectra}
    with pytest.warns(ConvergenceWarning, match=re.escape("Components [2] lost all their images")):
        model = fit(x, penalty="band", strength=0.3, init=start)
    assert model.weights_.min() > 0.01
    assert np.isfinite(model.objectives_).all()
    oracles.assert_never_falls(model.objectives_[1:])


def test_the_common_spectrum_is_where_most_components_are():
    model = fit(textures(), penalty="band", strength=0.3)
    on = (model.spectra_ == model.common_spectrum_).sum(axis=0)
    assert (on >= 1).all()
    assert (on < 3).any()


@pytest.mark.parametrize("penalty", ["overlap", "band"])
def test_the_floor_holds(penalty):
    assert fit(textures(), penalty=penalty, variance_floor=0.3).spectra_.min() >= 0.3 * (1 - 1e-12)


@pytest.mark.parametrize("penalty", ["overlap", "band"])
def test_a_model_survives_the_disk(penalty, tmp_path):
    x = textures()
    model = fit(x, penalty=penalty, strength=0.3)
    model.save(tmp_path / "model.npz")
    read = PenalisedGMM.load(tmp_path / "model.npz")
    assert_array_equal(read.log_joint(x), model.log_joint(x))
    assert_array_equal(read.bands_, model.bands_)
    assert (read.penalty, read.strength) == (penalty, 0.3)


def test_patches_without_mean_fit():
    x = textures()
    without = x - x.mean(axis=(1, 2), keepdims=True)
    for penalty in ("overlap", "band"):
        oracles.assert_never_falls(fit(without, penalty=penalty, zero_mean_patches=True).objectives_)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"penalty": "width"}, 'penalty must be "overlap" or "band"; got \'width\'.'),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(textures(), **settings)


def test_images_without_their_mean_are_fitted_without_the_zero_frequency():
    rng = np.random.default_rng(4)
    X = rng.standard_normal((60, 4, 5))
    X -= X.mean(axis=(1, 2), keepdims=True)
    model = PenalisedGMM(2, zero_mean_patches=True, strength=1.0, max_iter=2, random_state=0, tol=0.0).fit(X)
    assert model.n_dimensions_ == 19
    assert (model.spectra_[:, 0, 0] == 0).all()


def test_the_penalised_m_step_ends_where_its_objective_is_flat():
    """Central differences of an objective written from the definition, not the code's gradient."""
    rng = np.random.default_rng(6)
    w = np.array([1.0, 2.0, 2.0, 1.0])
    mass, power = np.array([0.6, 0.4]), rng.uniform(0.1, 1.0, (2, 4))
    start = power / mass[:, None]
    spectra = separate((start, start), mass, power, w, 0.3, 1e-6)

    def cost(theta):
        shares = w * np.exp(-theta) / (w * np.exp(-theta)).sum(axis=1, keepdims=True)
        together = np.sqrt(shares[0] * shares[1]).sum()
        return 0.5 * (w * (mass[:, None] * theta + power * np.exp(-theta))).sum() + 0.3 * together

    def slopes(theta):
        found = np.empty_like(theta)
        for index in np.ndindex(theta.shape):
            step = np.zeros_like(theta)
            step[index] = 1e-5
            found[index] = (cost(theta + step) - cost(theta - step)) / 2e-5
        return found

    before, after = slopes(np.log(start)), slopes(np.log(spectra))
    assert cost(np.log(spectra)) < cost(np.log(start))
    assert np.abs(after).max() < 0.02 * np.abs(before).max()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rounding_is_not_magnified(seed):
    """Under a strong penalty ten steps of L-BFGS an M-step let the last bits decide where EM ends."""
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.standard_normal((120, 12, 12)) * rng.gamma(1.0, size=(120, 1, 1)), axis=2)
    settings = dict(penalty="overlap", strength=300.0, max_iter=12, tol=0, random_state=0)
    first, other = (
        PenalisedGMM(4, **settings).fit(values)
        for values in (x, x * (1 + 2e-16 * rng.standard_normal(x.shape)))
    )
    assert_allclose(other.spectra_, first.spectra_, rtol=1e-9)
