"""Shifted templates against dense Gaussians and the enumeration of all shifts."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning

from gmmlib import ConvolutionalGMM
from gmmlib.stationary import templates
from gmmlib.stationary.transformed import TransformedGMM
from tests import oracles

SHAPES = [(4, 6), (5, 4), (3, 5), (1, 7), (6, 1), (4, 4)]
WEIGHTS = np.array([0.2, 0.5, 0.3])


def planted_parameters(shape, n_components=3, seed=0):
    """Templates (K, H, W) and full-plane spectra (K, H, W), symmetric in f and -f."""
    rng = np.random.default_rng(seed)
    rough = oracles.full_powers(rng.standard_normal((n_components, *shape)))
    means = 2.0 * rng.standard_normal((n_components, *shape)) + 1.0
    return means, (0.3 * rough + 0.2) * 1.5 ** np.arange(n_components)[:, None, None]


def half(full):
    return full[..., : full.shape[-1] // 2 + 1]


def start(weights, means, full):
    return {"weights": np.asarray(weights), "means": means, "spectra": half(full)}


def planted(weights, means, full, **settings):
    """A model that holds exactly these parameters: stopped before its first iteration."""
    x = np.random.default_rng(99).standard_normal((len(weights), *means.shape[1:]))
    return TransformedGMM(
        len(weights),
        init=start(weights, means, full),
        callback=lambda *_: True,
        **oracles.WHOLE_RUN | settings,
    ).fit(x)


def pictures(n=150, shape=(5, 4), seed=0, **settings):
    """Noisy templates at random places, in random order."""
    rng = np.random.default_rng(seed)
    x, _ = planted(WEIGHTS, *planted_parameters(shape), **settings).sample(n, rng)
    return x[rng.permutation(n)]


def fit(x, n_components=3, **settings):
    weight = settings.pop("sample_weight", None)
    settings = {"max_iter": 15, "random_state": 3, "variance_floor": 1e-6} | settings
    return TransformedGMM(n_components, **oracles.WHOLE_RUN | settings).fit(x, sample_weight=weight)


def all_shifts(shape, max_shift=None):
    if max_shift is None:
        return [(down, right) for down in range(shape[0]) for right in range(shape[1])]
    reach = range(-max_shift, max_shift + 1)
    return [(down, right) for down in reach for right in reach]


def enumerated(x, weights, means, full, max_shift=None):
    """Log joint (N, K, S) by a dense density for each component and shift."""
    shape = x.shape[1:]
    flat, shifts = x.reshape(len(x), -1), all_shifts(shape, max_shift)
    joint = np.empty((len(x), len(weights), len(shifts)))
    for k, weight in enumerate(weights):
        covariance = oracles.dense_covariance(oracles.autocovariance(full[k]))
        for s, shift in enumerate(shifts):
            template = np.roll(means[k], shift, axis=(0, 1)).ravel()
            density = multivariate_normal(template, covariance).logpdf(flat)
            joint[:, k, s] = np.log(weight / len(shifts)) + density
    return joint


def lse(joint, axis):
    return np.logaddexp.reduce(joint, axis=axis)


WINDOWED = [(shape, None) for shape in SHAPES] + [((5, 4), 0), ((5, 4), 1), ((3, 5), 1), ((6, 5), 2)]


# Shifts


def test_shifted_is_a_roll_of_each_image():
    x = np.random.default_rng(0).standard_normal((4, 5, 6))
    shifts = np.array([[0, 0], [1, -2], [-7, 3], [4, 11]])
    for image, moved, shift in zip(x, templates.shifted(x, shifts), shifts, strict=True):
        assert_array_equal(moved, np.roll(image, shift, axis=(0, 1)))


@pytest.mark.parametrize("shape", SHAPES)
def test_register_undoes_a_shift(shape):
    rng = np.random.default_rng(1)
    reference = rng.standard_normal(shape)
    shifts = rng.integers(-9, 9, (12, 2))
    x = 3.0 * templates.shifted(np.repeat(reference[None], 12, axis=0), shifts) - 2.0
    found, correlation = templates.register(x, reference)
    assert_allclose(templates.shifted(x, found), np.repeat(3.0 * reference[None] - 2.0, 12, axis=0))
    assert_allclose(correlation, 1.0)
    assert (np.abs(found) <= np.array(shape) / 2).all()


def test_register_gives_the_largest_of_the_enumerated_correlations():
    rng = np.random.default_rng(2)
    x, reference = rng.standard_normal((5, 4, 3)), rng.standard_normal((4, 3))
    for image, correlation in zip(x, templates.register(x, reference)[1], strict=True):
        rolled = [np.roll(image, shift, axis=(0, 1)) for shift in all_shifts((4, 3))]
        expected = [np.corrcoef(r.ravel(), reference.ravel())[0, 1] for r in rolled]
        assert_allclose(correlation, max(expected))
    assert_array_equal(templates.register(np.ones((1, 4, 3)), reference)[1], 0.0)


# The density


@pytest.mark.parametrize(("shape", "max_shift"), WINDOWED)
def test_densities_equal_the_enumeration_of_all_shifts(shape, max_shift):
    means, full = planted_parameters(shape)
    model = planted(WEIGHTS, means, full, max_shift=max_shift)
    x, _ = model.sample(20, 1)
    joint = enumerated(x, WEIGHTS, means, full, max_shift)
    assert_allclose(model.log_joint(x), lse(joint, 2), rtol=1e-10)
    expected = lse(joint.reshape(len(x), -1), 1)
    assert_allclose(model.score_samples(x), expected, rtol=1e-10)
    assert_allclose(model.score(x), expected.mean(), rtol=1e-10)
    assert_allclose(model.predict_proba(x), np.exp(lse(joint, 2) - expected[:, None]), rtol=1e-8, atol=1e-14)
    assert_array_equal(model.predict(x), lse(joint, 2).argmax(axis=1))
    labels, shifts = model.predict_shift(x)
    best_label, best = np.divmod(joint.reshape(len(x), -1).argmax(axis=1), joint.shape[2])
    assert_array_equal(labels, best_label)
    expected_shifts = np.array(all_shifts(shape, max_shift))[best]
    assert_array_equal(shifts % shape, expected_shifts % shape)
    assert (np.abs(shifts) <= np.array(shape) / 2).all()


def test_a_shift_of_the_image_changes_nothing_but_the_shift_found():
    x = pictures(30, (5, 6))
    model = fit(x)
    moved = templates.shifted(x, np.tile([[2, -1]], (30, 1)))
    assert_allclose(model.log_joint(moved), model.log_joint(x), rtol=1e-10)
    (label, shift), (same, later) = model.predict_shift(x), model.predict_shift(moved)
    assert_array_equal(label, same)
    assert_array_equal((later - shift) % (5, 6), np.tile([[2, 5]], (30, 1)))


def test_without_templates_it_is_the_convolutional_mixture():
    means, full = planted_parameters((4, 5))
    model = planted(WEIGHTS, 0 * means, full)
    x, _ = model.sample(20, 0)
    other = ConvolutionalGMM(
        3,
        init={"weights": WEIGHTS, "spectra": half(full)},
        callback=lambda *_: True,
        max_iter=50,
        tol=0.0,
    ).fit(x)
    assert_allclose(model.log_joint(x), other.log_joint(x), rtol=1e-10)


def test_samples_have_the_first_and_second_moments_of_the_model():
    means, full = planted_parameters((3, 4), 1)
    x, labels = planted([1.0], means, full, max_shift=1).sample(20_000, 5)
    rolled = np.array([np.roll(means[0], shift, axis=(0, 1)) for shift in all_shifts((3, 4), 1)])
    assert_array_equal(labels, 0)
    pixel_variance = full[0].mean() + rolled.var(axis=0)
    error = np.abs(x.mean(axis=0) - rolled.mean(axis=0)) / np.sqrt(pixel_variance / len(x))
    assert error.max() < 5
    power = oracles.full_powers(x)
    expected = full[0] + oracles.full_powers(means)[0]
    assert (np.abs(power.mean(axis=0) - expected) < 5 * power.std(axis=0) / np.sqrt(len(x))).all()


# One step


def dense_step(x, row_weight, parameters, max_shift, noise, floor):
    """One EM step by enumeration: posteriors of all shifts, images rolled back, residual powers."""
    weights, means, full = parameters
    shape, shifts = x.shape[1:], all_shifts(x.shape[1:], max_shift)
    joint = enumerated(x, *parameters, max_shift)
    evidence = lse(joint.reshape(len(x), -1), 1)
    resp = np.exp(joint - evidence[:, None, None]) * row_weight[:, None, None]
    back = np.stack([np.roll(x, (-down, -right), axis=(1, 2)) for down, right in shifts], axis=1)
    mass = resp.sum(axis=(0, 2))
    new = np.einsum("nks,nshw->khw", resp, back) / mass[:, None, None]
    spectra = np.zeros_like(full)
    for k in range(len(weights)):
        power = oracles.full_powers((back - new[k]).reshape(-1, *shape)).reshape(back.shape)
        spectra[k] = np.einsum("ns,nshw->hw", resp[:, k], power) / mass[k]
    if noise == "white":
        spectra[...] = spectra.mean(axis=(1, 2), keepdims=True)
    return mass / row_weight.sum(), new, np.maximum(spectra, floor)


@pytest.mark.parametrize("noise", ["stationary", "white"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("shape", "max_shift"), WINDOWED[:4] + WINDOWED[-3:])
def test_a_step_equals_the_enumerated_one(shape, max_shift, weighted, noise):
    x = pictures(40, shape)
    row_weight = np.random.default_rng(5).random(40) * 3 if weighted else np.ones(40)
    means, full = planted_parameters(shape, seed=8)
    parameters = (WEIGHTS, means, 30 * full)  # so wide that every component has a share of every image
    settings = {"max_shift": max_shift, "noise": noise, "max_iter": 1, "variance_floor": 0.3}
    model = fit(x, init=start(*parameters), sample_weight=row_weight if weighted else None, **settings)
    weights, means, spectra = dense_step(x, row_weight, parameters, max_shift, noise, 0.3)
    assert_allclose(model.weights_, weights, rtol=1e-9)
    assert_allclose(model.means_, means, rtol=1e-8, atol=1e-10)
    assert_allclose(model.spectra_, half(spectra), rtol=1e-8)
    scores = [
        lse(enumerated(x, *p, max_shift).reshape(len(x), -1), 1)
        for p in (parameters, (weights, means, spectra))
    ]
    assert_allclose(model.log_likelihoods_, [np.average(s, weights=row_weight) for s in scores], rtol=1e-9)


def test_one_template_without_shifts_is_the_mean_image():
    x = pictures(50, (3, 5))
    model = fit(x, 1, max_shift=0, max_iter=2)
    assert_allclose(model.means_[0], x.mean(axis=0), atol=1e-12)
    assert_allclose(model.spectra_[0], half(oracles.full_powers(x - x.mean(axis=0)).mean(axis=0)), rtol=1e-9)


# Whole runs

RUNS = {
    "plain": {},
    "odd": {"shape": (3, 5)},
    "a column": {"shape": (6, 1)},
    "white": {"noise": "white"},
    "floor": {"variance_floor": 0.5},
    "white and floor": {"variance_floor": 0.5, "noise": "white"},
    "weights": {"sample_weight": np.random.default_rng(6).random(150) * 2},
    "window": {"max_shift": 1},
    "no shift": {"max_shift": 0},
    "many components": {"n_components": 7},
}


@pytest.mark.parametrize("name", RUNS)
def test_every_step_climbs_and_the_trace_is_that_of_the_models(name):
    settings = {"n_components": 3, "max_iter": 25} | RUNS[name]
    x = pictures(shape=settings.pop("shape", (5, 4)))
    scores, weight = [], settings.get("sample_weight")

    def callback(model, iteration):
        assert iteration == len(scores)
        scores.append(np.average(model.score_samples(x), weights=weight))

    model = fit(x, callback=callback, **settings)
    oracles.assert_never_falls(model.log_likelihoods_)
    assert_allclose(model.log_likelihoods_, scores, rtol=1e-10)
    assert model.log_likelihoods_[-1] > model.log_likelihoods_[0] + 0.1
    assert model.n_iter_ == 25


def test_planted_templates_are_found_up_to_their_places():
    rng = np.random.default_rng(4)
    means = rng.standard_normal((3, 7, 6))
    x, truth = planted(WEIGHTS, means, np.full((3, 7, 6), 0.25)).sample(600, 2)
    models = [fit(x, noise="white", random_state=s, max_iter=30) for s in range(4)]
    model = max(models, key=lambda m: m.log_likelihoods_[-1])
    correlation = np.array([templates.register(model.means_, m)[1] for m in means])
    match = correlation.argmax(axis=1)
    assert sorted(match) == [0, 1, 2]
    assert correlation.max(axis=1).min() > 0.98
    assert_allclose(model.weights_[match], np.bincount(truth) / 600, atol=0.02)
    assert_allclose(model.spectra_[match], 0.25, rtol=0.1)


def test_an_empty_component_is_revived_with_a_warning():
    x = pictures(60)
    means, full = planted_parameters((5, 4))
    init = start([1.0, 0.0, 0.0], means, full)
    with pytest.warns(ConvergenceWarning, match=r"Components \[1, 2\] lost all their images"):
        model = fit(x, init=init, max_iter=8)
    assert model.weights_.min() > 0


def test_the_warning_names_the_line_that_called_fit():
    means, full = planted_parameters((5, 4))
    with pytest.warns(ConvergenceWarning) as caught:
        fit(pictures(60), init=start([1.0, 0.0, 0.0], means, full), max_iter=1)
    assert [warning.filename for warning in caught] == [__file__]


# Conventions


@pytest.mark.parametrize("max_shift", [None, 1])
def test_a_loaded_model_scores_to_the_last_bit(tmp_path, max_shift):
    x = pictures(40)
    saved = fit(x, noise="white", max_shift=max_shift)
    saved.save(tmp_path / "model.npz")
    loaded = TransformedGMM.load(tmp_path / "model.npz")
    assert_array_equal(loaded.score_samples(x), saved.score_samples(x))
    assert_array_equal(loaded.sample(9, 0)[0], saved.sample(9, 0)[0])
    for name in ("weights_", "means_", "spectra_", "log_likelihoods_"):
        assert_array_equal(getattr(loaded, name), getattr(saved, name))
    assert loaded.get_params() == saved.get_params() | {"random_state": None}
    assert (loaded.converged_, loaded.n_iter_) == (saved.converged_, saved.n_iter_)


GIVEN = start(WEIGHTS, *planted_parameters((5, 4)))
MESSAGES = [
    ({"noise": "pink"}, 'noise must be "stationary" or "white"; got \'pink\'.'),
    (
        {"max_shift": 2},
        "max_shift must be an integer from 0 to 1 for images of 5 x 4 pixels, so that no shift occurs "
        "twice; got 2. None allows all shifts.",
    ),
    ({"max_shift": -1}, "from 0 to 1 for images of 5 x 4 pixels, so that no shift occurs twice; got -1."),
    ({"max_shift": 1.0}, "so that no shift occurs twice; got 1.0."),
    ({"max_shift": True}, "so that no shift occurs twice; got True."),
    (
        {"init": "zero"},
        'init must be "random_from_data" or a mapping with "weights", "means" and "spectra"; got \'zero\'.',
    ),
    (
        {"init": {"weights": WEIGHTS}},
        'init must hold "weights", "means" and "spectra"; got [\'weights\'].',
    ),
    (
        {"init": GIVEN | {"means": np.zeros((3, 4, 5))}},
        "init['means'] must have shape (3, 5, 4); got (3, 4, 5).",
    ),
    (
        {"init": GIVEN | {"weights": [0.5, 0.7, -0.2]}},
        "init['weights'] must be >= 0 and sum to 1; got -0.2 at least and the sum 1.",
    ),
    ({"init": GIVEN | {"spectra": np.zeros((3, 5, 3))}}, "init['spectra'] must be positive; got 0."),
    (
        {"init": GIVEN | {"means": np.full((3, 5, 4), np.nan)}},
        "init['means'] must be finite; got 60 values that are NaN or infinite, the first at index (0, 0, 0).",
    ),
]


@pytest.mark.parametrize(("settings", "message"), MESSAGES)
def test_messages(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(pictures(20), **settings)


def test_a_collapse_says_what_to_do():
    with pytest.raises(ValueError, match="Set variance_floor above 0"):
        fit(np.zeros((5, 3, 3)), 1, variance_floor=0)


def test_white_noise_starts_white():
    X = np.random.default_rng(2).standard_normal((30, 4, 6)).cumsum(axis=2)
    starts = []
    TransformedGMM(
        2,
        noise="white",
        max_iter=1,
        random_state=0,
        callback=lambda m, t: starts.append(m.spectra_.copy()),
        tol=0.0,
    ).fit(X)
    assert np.ptp(starts[0]) < 1e-12
    assert starts[0][0, 0, 0] == pytest.approx((X**2).mean())
