"""Phase-blind densities against integrals over pixels, dense Gaussians and numerical derivatives."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chi2, expon, multivariate_normal, norm

from gmmlib import ConvolutionalGMM, storage
from gmmlib.spectrum import fold, powers
from gmmlib.stationary.phaseblind import (
    PhaseBlindGMM,
    coordinates,
    frame,
    log_volume,
    softplus,
    softplus_inverse,
)
from gmmlib.storage import ModelFileError
from tests import oracles

SHAPES = [(4, 6), (5, 4), (3, 5), (1, 7)]


def textures(shape, n=300, seed=0):
    """Images of stationary noise, and the full-plane spectrum it has."""
    rng = np.random.default_rng(seed)
    full = oracles.full_powers(rng.standard_normal((1, *shape)))[0] + 0.3
    root = oracles.covariance_root(oracles.dense_covariance(oracles.autocovariance(full)))
    return (rng.standard_normal((n, root.shape[0])) @ root).reshape(n, *shape), full


def fit(x, **settings):
    """A model in a frame of its own images; n_axes and softness are the frame's."""
    settings = {"n_components": 2, "max_iter": 5, "random_state": 0} | settings
    own = {name: settings.pop(name) for name in ("n_axes", "softness") if name in settings}
    return PhaseBlindGMM(**oracles.WHOLE_RUN | settings, frame=frame(x, **own) if own else None).fit(x)


# The map


@pytest.mark.parametrize("softness", [0.01, 0.2, 3.0])
def test_the_map_and_its_inverse_undo_each_other(softness):
    u = np.geomspace(1e-3, 30, 50)
    y = softplus_inverse(u, softness)
    assert_allclose(softplus(y, softness), u, rtol=1e-9)
    assert (np.diff(y) > 0).all()
    assert_allclose(y[-1], u[-1], rtol=1e-3)


@pytest.mark.parametrize("softness", [0.05, 0.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_exponential_powers_make_a_circulant_gaussian(shape, softness):
    """With the laws of a Gaussian's powers, and dP/dy by differences, pixels have the Gaussian's density."""
    x, full = textures(shape, n=20)
    layout = fold(shape)
    variance = full[:, : shape[1] // 2 + 1].ravel()[layout.bins]
    P, scale = powers(x, layout), 0.7 + np.arange(len(variance)) / 10
    u = np.sqrt(P) / scale
    law = np.where(
        layout.multiplicity == 2,
        expon(scale=variance).logpdf(P),
        chi2(1, scale=variance).logpdf(P),
    )
    unit, step = np.sqrt(layout.multiplicity) * scale, 1e-5
    v = softplus_inverse(u, softness)
    slope = ((softplus(v + step, softness) * scale) ** 2 - (softplus(v - step, softness) * scale) ** 2) / (
        2 * step
    )
    slope /= unit
    density = (law + np.log(slope)).sum(axis=1) + log_volume(u, scale, layout.multiplicity, softness)
    covariance = oracles.dense_covariance(oracles.autocovariance(full))
    dense = multivariate_normal(np.zeros(len(covariance)), covariance).logpdf(x.reshape(len(x), -1))
    assert_allclose(density, dense, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 2), (2, 1)])
def test_a_density_over_two_pixels_integrates_to_one(shape):
    x = np.random.default_rng(0).gamma(3.0, size=(200, *shape)) * np.array([1.0, -0.4]).reshape(shape)
    model = fit(x, softness=0.3, reg_covar=0.05)
    side = np.arange(-30, 30, 0.05) + 0.0123
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, *shape)
    assert_allclose(np.exp(model.score_samples(grid)).sum() * 0.05**2, 1.0, atol=5e-3)


def test_a_density_over_three_pixels_integrates_to_one():
    """One real frequency and one complex one: the integral is taken over its two parts, in polar form."""
    x = np.random.default_rng(0).gamma(3.0, size=(200, 1, 3))
    model = fit(x, softness=0.3, reg_covar=0.05)
    real, radius = np.meshgrid(np.arange(-30, 30, 0.05) + 0.0123, np.arange(0.0125, 12, 0.025))
    along = np.array([1.0, 1.0, 1.0]) / np.sqrt(3)
    across = np.array([1.0, -1.0, 0.0]) / np.sqrt(2)
    grid = real[..., None] * along + radius[..., None] * across
    density = np.exp(model.score_samples(grid.reshape(-1, 1, 3))).reshape(real.shape)
    assert_allclose((density * 2 * np.pi * radius).sum() * 0.05 * 0.025, 1.0, atol=5e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_phases_do_not_matter(shape):
    x, _ = textures(shape)
    model = fit(x)
    moved = np.roll(x[:20], (1, 2), axis=(1, 2))
    assert_allclose(model.score_samples(moved), model.score_samples(x[:20]), rtol=1e-9)
    assert_allclose(model.score_samples(x[:20, ::-1, ::-1]), model.score_samples(x[:20]), rtol=1e-9)
    assert_allclose(model.score_samples(-x[:20]), model.score_samples(x[:20]), rtol=1e-9)


def test_larger_grey_levels_only_change_the_volume():
    x, _ = textures((5, 4))
    model, larger = fit(x), fit(8 * x, reg_covar=64 * 1e-2)
    assert_allclose(larger.score_samples(8 * x), model.score_samples(x) - 20 * np.log(8), rtol=1e-9)


def test_scores_are_those_of_the_mixture_times_the_volume():
    x, _ = textures((4, 6))
    model = fit(x, n_axes=5)
    layout = fold((4, 6))
    scale, centre, axes, rest, softness = model.frame_
    u = np.sqrt(powers(x, layout)) / scale
    turned = (np.sqrt(layout.multiplicity) * scale * softplus_inverse(u, softness) - centre) @ axes
    common = log_volume(u, scale, layout.multiplicity, softness)
    common += norm(scale=np.sqrt(rest)).logpdf(turned[:, 5:]).sum(axis=1)
    joint = model.mixture_.log_joint(turned[:, :5]) + common[:, None]
    assert_allclose(model.log_joint(x), joint, rtol=1e-10)
    assert_allclose(model.score_samples(x), np.logaddexp.reduce(joint, axis=1), rtol=1e-9)
    assert_allclose(model.score(x), model.score_samples(x).mean())
    assert_allclose(model.predict_proba(x), oracles.posteriors(joint), atol=1e-12)
    assert_allclose(np.exp(model.predict_log_proba(x)), model.predict_proba(x), rtol=1e-9)
    assert_array_equal(model.predict(x), joint.argmax(axis=1))
    assert_allclose(scale, np.sqrt(powers(x, layout)).mean(axis=0), rtol=1e-9)


@pytest.mark.parametrize("shape", [(4, 6), (3, 5)])
def test_axes_are_principal_and_the_rest_has_their_variances(shape):
    x, _ = textures(shape)
    layout, own = fold(shape), frame(x, 3, softness=0.2)
    u = np.sqrt(powers(x, layout)) / own.scale
    y = np.sqrt(layout.multiplicity) * own.scale * softplus_inverse(u, 0.2)
    assert_allclose(own.axes.T @ own.axes, np.eye(len(layout.bins)), atol=1e-12)
    covariance = np.cov(((y - own.centre) @ own.axes).T, bias=True)
    assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-10)
    assert (np.diff(np.diag(covariance)) <= 1e-12).all()
    assert_allclose(own.rest, np.diag(covariance)[3:], rtol=1e-9)
    assert own.n_axes == 3


def test_with_one_component_fewer_axes_and_all_are_the_same_density():
    """A Gaussian along principal axes has no correlations to lose."""
    x, _ = textures((4, 6))
    some, whole = (fit(x, n_axes=n, n_components=1, reg_covar=0.0, max_iter=1) for n in (4, 14))
    assert_allclose(some.score_samples(x), whole.score_samples(x), rtol=1e-8)


def test_classes_in_one_frame_differ_by_their_mixtures_alone():
    x, _ = textures((4, 6))
    own = frame(x, 4)
    one, other = (
        PhaseBlindGMM(2, frame=own, random_state=0, max_iter=20).fit(part) for part in (x[:150], x[150:])
    )
    lead = coordinates(x, one.frame_)[0]
    gap = one.mixture_.score_samples(lead) - other.mixture_.score_samples(lead)
    assert_allclose(one.score_samples(x) - other.score_samples(x), gap, rtol=1e-7, atol=1e-9)


def test_a_better_law_than_the_exponential_scores_better_on_other_powers():
    """Amplitudes that hardly vary are no Gaussian's."""
    rng = np.random.default_rng(0)
    noise = np.fft.rfft2(rng.standard_normal((2000, 4, 6)))
    x = np.fft.irfft2(noise / np.abs(noise) * rng.normal(1.0, 0.05, noise.shape), s=(4, 6))
    train, test = x[:1000], x[1000:]
    gaussian = ConvolutionalGMM(1, max_iter=1, tol=0.0).fit(train).score(test)
    assert fit(train, n_components=1, reg_covar=1e-4).score(test) > gaussian + 5


@pytest.mark.parametrize("shape", [(4, 6), (3, 5)])
def test_samples_have_the_law_of_the_mixture_and_any_phase(shape):
    x, _ = textures(shape)
    model = fit(x, n_components=2, n_axes=4)
    drawn, labels = model.sample(4000, 1)
    assert_array_equal(np.unique(labels), [0, 1])
    layout = fold(shape)
    scale, centre, axes, _, softness = model.frame_
    y = (
        np.sqrt(layout.multiplicity)
        * scale
        * softplus_inverse(np.sqrt(powers(drawn, layout)) / scale, softness)
    )
    turned = (y - centre) @ axes
    mean = np.zeros(len(axes))
    mean[:4] = model.mixture_.weights_ @ model.mixture_.means_
    assert np.abs((turned.mean(axis=0) - mean) / (turned.std(axis=0) / np.sqrt(len(y)))).max() < 5
    z = np.fft.rfft2(drawn).reshape(len(drawn), -1)[:, layout.bins]
    turned = (z / np.abs(z)).mean(axis=0)
    assert np.abs(turned).max() < 5 / np.sqrt(len(z))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"softness": 0}, "softness must be a finite number > 0; got 0."),
        ({"n_axes": 0}, "n_axes must be a positive integer; got 0."),
        (
            {"n_axes": 9},
            "n_axes must be at most 8, the number of distinct frequencies; got 9. Leave it out to take all.",
        ),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(textures((3, 5))[0], **settings)


def test_the_trace_climbs_and_is_the_likelihood_of_images_but_for_a_constant():
    x, _ = textures((4, 6))
    short, long = (fit(x, max_iter=n, tol=0, reg_covar=1e-9) for n in (3, 12))
    oracles.assert_never_falls(long.mixture_.log_likelihoods_)
    assert len(long.mixture_.log_likelihoods_) == 13
    gain = long.mixture_.log_likelihoods_[-1] - short.mixture_.log_likelihoods_[-1]
    assert_allclose(long.score(x) - short.score(x), gain, atol=1e-8)
    assert gain > 1e-3


@pytest.mark.parametrize("constant", [False, True])
def test_images_without_power_at_a_frequency_are_refused(constant):
    x, _ = textures((4, 6))
    x = np.ones_like(x) if constant else x - x.mean(axis=(1, 2), keepdims=True)
    missing, place = (13, "row 0 and column 1") if constant else (1, "row 0 and column 0")
    message = (
        f"X must have some amplitude at every frequency; got none at {missing} of 14, the first at {place} "
        "of the half plane. Are the images constant, or was their mean removed? Keep the mean, or add "
        "noise of the size of the rounding of grey levels."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(x)


@pytest.mark.parametrize(("exponent", "n_axes"), [(-152, None), (-80, 3)])
def test_images_whose_amplitudes_or_variances_vanish_are_refused(exponent, n_axes):
    x, _ = textures((3, 5))
    with pytest.raises(ValueError, match=r"X and softness must give numbers below .* Scale the images first"):
        frame(x * 10.0**exponent, n_axes)


def test_a_blank_image_has_a_finite_score_that_rounding_does_not_change():
    x, _ = textures((4, 6))
    model = fit(x)
    rounding = 1e-14 * np.random.default_rng(0).standard_normal((1, 4, 6))
    blank = model.score_samples(np.zeros((1, 4, 6)))
    assert np.isfinite(blank).all()
    assert_array_equal(model.score_samples(rounding), blank)


def test_a_damaged_file_is_refused(tmp_path):
    settings, arrays = fit(textures((3, 5))[0]).to_arrays()
    damaged = arrays | {"scale": arrays["scale"][:-1]}
    storage.write(tmp_path / "model.npz", "PhaseBlindGMM", settings, damaged)
    message = "model.npz must be of images of 3 x 5 pixels, with 8 distinct frequencies"
    with pytest.raises(ModelFileError, match=re.escape(message)):
        PhaseBlindGMM.load(tmp_path / "model.npz")


@pytest.mark.parametrize(
    ("name", "value"),
    [("scale", 0.0), ("scale", np.nan), ("softness", -1.0), ("axes", np.inf), ("centre", 1e200)],
)
def test_a_frame_of_absurd_numbers_is_refused(tmp_path, name, value):
    settings, arrays = fit(textures((3, 5))[0]).to_arrays()
    damaged = np.array(arrays[name])
    damaged.flat[0] = value
    storage.write(tmp_path / "model.npz", "PhaseBlindGMM", settings, arrays | {name: damaged})
    with pytest.raises(ModelFileError, match=r"model\.npz must hold numbers below 1e\+150, and a scale"):
        PhaseBlindGMM.load(tmp_path / "model.npz")
