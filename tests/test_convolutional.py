"""Mixtures of stationary Gaussians against dense Gaussians, enumeration and their own symmetries."""

import re
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linear_sum_assignment
from sklearn.exceptions import ConvergenceWarning

from gmmlib import ConvolutionalGMM
from gmmlib.stationary import steps
from tests import oracles

SHAPES = [(4, 6), (5, 4), (3, 5), (1, 7), (6, 1), (4, 4), (3, 2)]
WEIGHTS = np.array([0.2, 0.5, 0.3])


def full_spectra(shape, n_components=3, seed=0):
    """Rough spectra over the full plane, symmetric in f and -f, of unequal variance."""
    rng = np.random.default_rng(seed)
    rough = oracles.full_powers(rng.standard_normal((n_components, *shape)))
    return (rough + 0.1) * 3.0 ** np.arange(n_components)[:, None, None]


def half(full):
    return full[..., : full.shape[-1] // 2 + 1]


def start(weights, full):
    return {"weights": np.asarray(weights), "spectra": half(full)}


def planted(weights, full, **settings):
    """A model that holds exactly these parameters: stopped before its first iteration."""
    x = np.random.default_rng(99).standard_normal((len(weights), *full.shape[1:]))
    if settings.get("zero_mean_patches"):
        x -= x.mean(axis=(1, 2), keepdims=True)
    model = ConvolutionalGMM(
        len(weights),
        init=start(weights, full),
        callback=lambda model, iteration: True,
        **oracles.WHOLE_RUN | settings,
    )
    return model.fit(x)


def textures(n=240, shape=(5, 4), seed=0):
    """Images of three textures, in an order drawn at random."""
    rng = np.random.default_rng(seed)
    x, _ = planted(WEIGHTS, full_spectra(shape)).sample(n, rng)
    return x[rng.permutation(n)]


def fit(x, n_components=3, **settings):
    weight = settings.pop("sample_weight", None)
    settings = {"max_iter": 12, "random_state": 3, "variance_floor": 0.0} | settings
    return ConvolutionalGMM(n_components, **oracles.WHOLE_RUN | settings).fit(x, sample_weight=weight)


def assert_same_fit(a, b, rtol=1e-9):
    assert_allclose(a.log_likelihoods_, b.log_likelihoods_, rtol=rtol)
    assert_allclose(a.weights_, b.weights_, rtol=rtol)
    assert_allclose(a.spectra_, b.spectra_, rtol=rtol)


# The density


@pytest.mark.parametrize("shape", SHAPES)
def test_densities_equal_those_of_dense_gaussians(shape):
    full = full_spectra(shape)
    model = planted(WEIGHTS, full)
    x, _ = model.sample(30, 1)
    assert_allclose(model.log_joint(x), oracles.log_joint(x, WEIGHTS, full), rtol=1e-10)
    expected = oracles.mixture_log_likelihood(x, WEIGHTS, full)
    assert_allclose(model.score_samples(x), expected, rtol=1e-10)
    assert_allclose(model.score(x), expected.mean(), rtol=1e-10)
    assert model.n_dimensions_ == shape[0] * shape[1]


@pytest.mark.parametrize("shape", SHAPES)
def test_densities_of_mean_free_patches_are_those_on_their_subspace(shape):
    full = full_spectra(shape)
    model = planted(WEIGHTS, full, zero_mean_patches=True)
    x, _ = model.sample(30, 1)
    expected = oracles.log_joint(x, WEIGHTS, full, mean_free=True)
    assert_allclose(model.log_joint(x), expected, rtol=1e-10)
    assert_allclose(model.score_samples(x), np.logaddexp.reduce(expected, axis=1), rtol=1e-10)
    assert model.n_dimensions_ == shape[0] * shape[1] - 1
    assert_array_equal(model.spectra_[:, 0, 0], 0.0)
    assert_array_equal(model.filters_[:, 0, 0], 0.0)


def test_a_density_integrates_to_one():
    model = planted([0.3, 0.7], full_spectra((1, 2), 2))
    grid = np.linspace(-25, 25, 501)
    x = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 1, 2)
    total = np.exp(model.score_samples(x)).sum() * (grid[1] - grid[0]) ** 2
    assert_allclose(total, 1.0, rtol=1e-6)


def test_the_filter_whitens():
    model = planted(WEIGHTS, full_spectra((4, 5)))
    assert_allclose(model.filters_ * model.spectra_, 1.0, rtol=1e-14)


def test_a_component_of_weight_zero_changes_no_density():
    full = full_spectra((3, 5))
    x = textures(20, (3, 5))
    with_it, without = planted([0.4, 0.0, 0.6], full), planted([0.4, 0.6], full[[0, 2]])
    assert_allclose(with_it.score_samples(x), without.score_samples(x), rtol=1e-12)
    assert_array_equal(with_it.predict_proba(x)[:, 1], 0.0)


def test_predictions_agree_with_the_dense_posterior():
    full = full_spectra((3, 5))
    model = planted(WEIGHTS, full)
    x = textures(60, (3, 5))
    joint = oracles.log_joint(x, WEIGHTS, full)
    expected = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
    assert_allclose(model.predict_proba(x), expected, rtol=1e-8)
    assert_allclose(model.predict_log_proba(x), np.log(expected), rtol=1e-8, atol=1e-12)
    assert_array_equal(model.predict(x), expected.argmax(axis=1))
    assert len(set(model.predict(x))) == 3


# One step


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_equals_the_dense_one(shape, weighted):
    x = textures(60, shape)
    row_weight = np.random.default_rng(5).random(60) * 3 if weighted else np.ones(60)
    full = full_spectra(shape, seed=8)
    model = fit(x, init=start(WEIGHTS, full), max_iter=1, sample_weight=row_weight if weighted else None)
    weights, spectra = oracles.em_step(x, row_weight, WEIGHTS, full)
    assert_allclose(model.weights_, weights, rtol=1e-9)
    assert_allclose(model.spectra_, half(spectra), rtol=1e-9)
    before, after = (oracles.mixture_log_likelihood(x, *p) for p in ((WEIGHTS, full), (weights, spectra)))
    expected = [np.average(before, weights=row_weight), np.average(after, weights=row_weight)]
    assert_allclose(model.log_likelihoods_, expected, rtol=1e-10)


def test_a_floor_in_force_is_the_larger_of_both():
    x = textures(60, (3, 5))
    full = full_spectra((3, 5), seed=8)
    _, spectra = oracles.em_step(x, np.ones(60), WEIGHTS, full)
    floor = float(np.median(spectra))
    model = fit(x, init=start(WEIGHTS, full), max_iter=1, variance_floor=floor)
    assert_allclose(model.spectra_, half(np.maximum(spectra, floor)), rtol=1e-9)
    assert (model.spectra_ == floor).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_one_component_has_the_mean_spectrum_after_one_step(shape):
    x = textures(50, shape)
    model = fit(x, 1, max_iter=3)
    assert_allclose(model.spectra_[0], half(oracles.full_powers(x).mean(axis=0)), rtol=1e-10)
    assert_array_equal(model.weights_, [1.0])
    assert_allclose(model.log_likelihoods_[1:], model.score(x), rtol=1e-12)


# Whole runs

RUNS = {
    "plain": {},
    "odd": {"shape": (3, 5)},
    "a column": {"shape": (6, 1)},
    "floor": {"variance_floor": 1.0},
    "weights": {"sample_weight": np.random.default_rng(6).random(240) * 2},
    "weights and floor": {"sample_weight": np.arange(240) % 3, "variance_floor": 0.5},
    "mean-free": {"zero_mean_patches": True},
    "chunks": {"chunk_size": 17},
    "many components": {"n_components": 9},
}


@pytest.mark.parametrize("name", RUNS)
def test_every_step_climbs_and_the_trace_is_that_of_the_models(name):
    settings = {"n_components": 3, "max_iter": 30} | RUNS[name]
    x = textures(shape=settings.pop("shape", (5, 4)))
    if settings.get("zero_mean_patches"):
        x = x - x.mean(axis=(1, 2), keepdims=True)
    scores = []

    def callback(model, iteration):
        assert iteration == len(scores)
        scores.append(np.average(model.score_samples(x), weights=settings.get("sample_weight")))
        assert_allclose(model.weights_.sum(), 1.0, rtol=1e-12)
        assert model.log_likelihoods_[-1] == pytest.approx(scores[-1], rel=1e-11)

    model = fit(x, callback=callback, **settings)
    oracles.assert_never_falls(model.log_likelihoods_)
    assert model.log_likelihoods_[-1] > model.log_likelihoods_[0] + 0.1
    assert model.n_iter_ == 30
    assert len(model.log_likelihoods_) == model.n_iter_ + 1
    assert_allclose(model.log_likelihoods_, scores, rtol=1e-11)
    final = np.average(model.score_samples(x), weights=settings.get("sample_weight"))
    assert_allclose(model.log_likelihoods_[-1], final, rtol=1e-11)
    assert model.converged_ is False
    if settings.get("variance_floor"):
        assert (model.spectra_ == settings["variance_floor"]).any()
        assert model.spectra_.min() == settings["variance_floor"]


# Symmetries


def test_components_may_come_in_any_order():
    x = textures()
    full = full_spectra((5, 4), seed=8)
    order = [2, 0, 1]
    one, other = fit(x, init=start(WEIGHTS, full)), fit(x, init=start(WEIGHTS[order], full[order]))
    assert_allclose(other.log_likelihoods_, one.log_likelihoods_, rtol=1e-11)
    assert_allclose(other.weights_, one.weights_[order], rtol=1e-9)
    assert_allclose(other.spectra_, one.spectra_[order], rtol=1e-9)


@pytest.mark.parametrize("shape", [(5, 4), (3, 5)])
def test_circular_shifts_change_nothing(shape):
    x = textures(shape=shape)
    rng = np.random.default_rng(2)
    shifted = np.array([np.roll(image, rng.integers(0, 5, 2), axis=(0, 1)) for image in x])
    one, other = fit(x), fit(shifted)
    assert (shifted != x).any()
    assert_same_fit(one, other)
    assert_allclose(other.predict_proba(shifted), one.predict_proba(x), rtol=1e-6, atol=1e-12)


def test_the_sign_and_the_order_of_the_images_change_nothing_but_their_order():
    x = textures()
    begin = start(WEIGHTS, full_spectra((5, 4), seed=8))
    order = np.random.default_rng(0).permutation(len(x))
    assert_same_fit(fit(x, init=begin), fit(-x[order], init=begin))


@pytest.mark.parametrize("zero_mean_patches", [False, True])
def test_scaling_pixels_moves_the_log_likelihood_by_the_dimensions(zero_mean_patches):
    x = textures()
    if zero_mean_patches:
        x = x - x.mean(axis=(1, 2), keepdims=True)
    a = 255.0
    one = fit(x, zero_mean_patches=zero_mean_patches, variance_floor=0.5)
    other = fit(a * x, zero_mean_patches=zero_mean_patches, variance_floor=0.5 * a**2)
    dimension = 19 if zero_mean_patches else 20
    assert_allclose(other.log_likelihoods_, one.log_likelihoods_ - dimension * np.log(a), rtol=1e-10)
    assert_allclose(other.spectra_, a**2 * one.spectra_, rtol=1e-9)
    assert_allclose(other.weights_, one.weights_, rtol=1e-9)


# Reproducibility


def test_a_random_start_takes_the_contrast_of_distinct_images_that_count():
    x = textures(6)
    weight = np.array([1.0, 0.0, 2.0, 0.5, 0.0, 1.0])
    model = fit(x, 4, sample_weight=weight, callback=lambda model, iteration: True)
    assert_array_equal(model.weights_, [0.25] * 4)
    energy = [oracles.full_from_half(s, 4).sum() for s in model.spectra_]
    assert_allclose(np.sort(energy), np.sort((x[weight > 0] ** 2).sum(axis=(1, 2))), rtol=1e-10)


def test_a_random_start_keeps_to_the_floor():
    x = textures()
    model = fit(x, variance_floor=2.0, callback=lambda model, iteration: True)
    assert model.spectra_.min() == 2.0
    assert model.spectra_.max() > 2.0


# Samples


def energy_off(model, x, labels, full):
    """Largest deviation of sampled powers from spectra (K, H, W), in standard errors from n."""
    worst = 0.0
    self_mirrored = (oracles.mirror(x.shape[1:]) == np.arange(full[0].size)).reshape(full[0].shape)
    for k in range(len(full)):
        powers = oracles.full_powers(x[labels == k])
        variance = np.where(self_mirrored, 2.0, 1.0) * full[k] ** 2 / len(powers)
        keep = full[k] > 0
        worst = max(worst, np.abs((powers.mean(axis=0) - full[k])[keep] / np.sqrt(variance[keep])).max())
    return worst


@pytest.mark.parametrize("shape", [(4, 6), (3, 5), (1, 7), (6, 1)])
def test_samples_have_the_spectra_they_were_drawn_from(shape):
    full = full_spectra(shape)
    model = planted(WEIGHTS, full)
    x, labels = model.sample(30_000, 0)
    assert energy_off(model, x, labels, full) < 5
    assert energy_off(model, x, labels, 1.15 * full) > 5  # negative control


def test_samples_have_mean_zero_and_the_autocovariance_of_their_component():
    shape, n = (4, 5), 20_000
    full = full_spectra(shape, 1)
    x, _ = planted([1.0], full).sample(n, 1)
    covariance = oracles.autocovariance(full[0])
    assert np.abs(x.mean(axis=0)).max() < 5 * np.sqrt(covariance[0, 0] / n)
    displaced = 0
    for h, w in np.ndindex(shape):
        products = (x * np.roll(x, (-h, -w), axis=(1, 2))).mean(axis=(1, 2))
        waves = np.cos(2 * np.pi * (h * np.arange(4)[:, None] / 4 + w * np.arange(5) / 5))
        error = np.sqrt(2 * (full[0] ** 2 * waves**2).sum()) / full[0].size / np.sqrt(n)
        assert abs(products.mean() - covariance[h, w]) < 5 * error
        displaced += abs(products.mean() - covariance[0, 0]) > 5 * error
    assert displaced >= 10  # negative control: white or constant images would give 0


def test_labels_come_in_proportion_and_in_groups():
    n = 10_000
    _, labels = planted(WEIGHTS, full_spectra((2, 2))).sample(n, 2)
    counts = np.bincount(labels, minlength=3)
    assert (np.abs(counts - n * WEIGHTS) < 5 * np.sqrt(n * WEIGHTS * (1 - WEIGHTS))).all()
    assert (np.abs(counts - n / 3) > 5 * np.sqrt(n * 2 / 9)).any()  # negative control
    assert_array_equal(labels, np.sort(labels))


def test_samples_of_given_components_have_their_spectra():
    full = full_spectra((3, 5))
    model = planted(WEIGHTS, full)
    labels = np.random.default_rng(1).permutation(np.repeat([0, 1, 2], 5000))
    x = model.sample_components(labels, 0)
    assert x.shape == (15_000, 3, 5)
    assert energy_off(model, x, labels, full) < 5
    assert energy_off(model, x, np.roll(labels, 1), full) > 5  # negative control


def test_samples_of_mean_free_patches_have_no_mean():
    full = full_spectra((4, 5))
    model = planted(WEIGHTS, full, zero_mean_patches=True)
    x, labels = model.sample(5000, 0)
    assert np.abs(x.mean(axis=(1, 2))).max() < 1e-14
    full[:, 0, 0] = 0
    assert energy_off(model, x, labels, full) < 5


# Recovery


def match(model, full):
    """Distance of log spectra under the best relabelling, and that relabelling."""
    gap = np.abs(np.log(half(full))[:, None] - np.log(model.spectra_)[None]).mean(axis=(2, 3))
    rows, columns = linear_sum_assignment(gap)
    return gap[rows, columns].max(), columns


def test_fit_recovers_a_planted_mixture_up_to_relabelling():
    full = full_spectra((6, 5))
    x, labels = planted(WEIGHTS, full).sample(3000, 6)
    model = fit(x, max_iter=100, random_state=1)
    gap, order = match(model, full)
    assert gap < 0.1
    assert match(model, full_spectra((6, 5), seed=1))[0] > 0.5  # negative control
    assert (np.abs(model.weights_[order] - WEIGHTS) < 5 * np.sqrt(WEIGHTS * (1 - WEIGHTS) / 3000)).all()
    assert (order[labels] == model.predict(x)).mean() > 0.95


# Components without images


@pytest.mark.parametrize("case", ["weight 0", "enormous spectrum"])
def test_an_empty_component_is_put_elsewhere_with_a_warning(case):
    x = textures()
    full = full_spectra((5, 4), 2, seed=8)
    weights = [1.0, 0.0] if case == "weight 0" else [0.5, 0.5]
    full[1] *= 1e100 if case == "enormous spectrum" else 1.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fit(x, 2, init=start(weights, full))
    (warning,) = caught
    assert warning.category is ConvergenceWarning
    assert warning.filename == __file__
    assert str(warning.message) == (
        "Components [1] lost all their images; each was re-initialised by splitting the heaviest one. "
        "Fewer components may fit these data as well."
    )
    assert np.isfinite(model.spectra_).all()
    assert (model.spectra_ > 0).all()
    assert_allclose(model.weights_.sum(), 1.0, rtol=1e-12)
    assert (model.weights_ > 0.01).all()
    assert np.isfinite(model.log_likelihoods_).all()
    oracles.assert_never_falls(model.log_likelihoods_[1:])
    assert_allclose(model.log_likelihoods_[-1], model.score(x), rtol=1e-11)


def test_several_empty_components_are_all_put_elsewhere():
    x = textures()
    full = full_spectra((5, 4), 4, seed=8)
    with pytest.warns(ConvergenceWarning, match=re.escape("Components [0, 1, 3] lost all their images;")):
        model = fit(x, 4, init=start([0.0, 0.0, 1.0, 0.0], full), max_iter=1)
    assert_array_equal(np.sort(model.weights_), [0.25, 0.25, 0.25, 0.25])
    assert len({tuple(s.ravel()) for s in model.spectra_}) == 4


def test_no_variance_is_below_the_floor_even_when_a_component_was_put_elsewhere():
    x = textures()
    full = full_spectra((5, 4), 2, seed=8)
    floor = float(np.median(oracles.full_powers(x).mean(axis=0)))
    with pytest.warns(ConvergenceWarning):
        model = fit(x, 2, init=start([1.0, 0.0], full), max_iter=1, variance_floor=floor)
    assert model.spectra_.min() >= floor


# Messages

FLAT = np.ones((6, 4, 4))
NOISE = np.random.default_rng(0).standard_normal((6, 4, 4))
STRIPES = np.repeat(NOISE[:, :, :1], 4, axis=2)
FULL = full_spectra((4, 4), 2)


def begin(weights=(0.5, 0.5), spectra=None):
    return {"weights": np.array(weights), "spectra": half(FULL) if spectra is None else spectra}


FIT_MESSAGES = [
    (
        {"zero_mean_patches": True},
        np.zeros((3, 1, 1)),
        "X must hold images of at least 2 pixels with zero_mean_patches; got 1 x 1.",
    ),
    (
        {},
        FLAT,
        "X must vary by more than variance_floor=1e-06; got images whose variance is 0 at most at "
        "every frequency but zero. Are they constant, or in other units (variance_floor is in squared grey "
        "levels)?",
    ),
    (
        {"variance_floor": 1e3},
        FLAT,
        "X must vary by more than variance_floor=1000; got images whose variance is 0 at most at "
        "every frequency but zero. Are they constant, or in other units (variance_floor is in squared grey "
        "levels)?",
    ),
    (
        {"variance_floor": 0.0},
        STRIPES,
        "X has zero variance at 7 of 10 frequencies, so its likelihood has no bound. "
        "Set variance_floor above 0 (in squared grey levels).",
    ),
    (
        {"init": "k-means"},
        NOISE,
        'init must be "random_from_data" or a mapping with "weights" and "spectra"; got \'k-means\'.',
    ),
    (
        {"init": None},
        NOISE,
        'init must be "random_from_data" or a mapping with "weights" and "spectra"; got None.',
    ),
    ({"init": {"weights": [0.5, 0.5]}}, NOISE, 'init must hold "weights" and "spectra"; got [\'weights\'].'),
    ({"init": begin([1.0])}, NOISE, "init['weights'] must have shape (2,); got (1,)."),
    (
        {"init": begin(spectra=FULL)},
        NOISE,
        "init['spectra'] must have shape (2, 4, 3); got (2, 4, 4).",
    ),
    (
        {"init": begin([0.5, 0.6])},
        NOISE,
        "init['weights'] must be >= 0 and sum to 1; got 0.5 at least and the sum 1.1.",
    ),
    (
        {"init": begin([-0.5, 1.5])},
        NOISE,
        "init['weights'] must be >= 0 and sum to 1; got -0.5 at least and the sum 1.",
    ),
    (
        {"init": begin([np.nan, 1.0])},
        NOISE,
        "init['weights'] must be >= 0 and sum to 1; got nan at least and the sum nan.",
    ),
    (
        {"init": begin(spectra=np.stack([np.full((4, 3), 2.0), np.zeros((4, 3))]))},
        NOISE,
        "init['spectra'] must be positive and finite; got 0 to 2.",
    ),
    (
        {"init": begin(spectra=np.stack([np.full((4, 3), 2.0), np.full((4, 3), np.inf)]))},
        NOISE,
        "init['spectra'] must be positive and finite; got 2 to inf.",
    ),
]


@pytest.mark.parametrize(("settings", "x", "text"), FIT_MESSAGES)
def test_the_message_of_fit(settings, x, text):
    with pytest.raises(ValueError) as caught:
        ConvolutionalGMM(**({"n_components": 2, "random_state": 0} | oracles.WHOLE_RUN | settings)).fit(x)
    assert str(caught.value) == text


def test_a_collapsing_component_is_named_when_nothing_holds_it():
    spectra = np.stack([np.full((4, 3), 1.0), np.full((4, 3), 1e-9)])
    spectra[:, 0, 0] = 1.0
    with pytest.raises(ValueError) as caught:
        fit(np.concatenate([NOISE, FLAT]), 2, init=begin(spectra=spectra))
    assert str(caught.value) == (
        "Component 1 has collapsed: its variance is zero at a frequency, so its likelihood has no bound. "
        "Set variance_floor above 0 (in squared grey levels), or ask for fewer components."
    )


def test_a_floor_holds_the_component_that_would_collapse():
    model = fit(np.concatenate([NOISE, FLAT]), 2, variance_floor=1e-6)
    assert np.isfinite(model.log_likelihoods_).all()
    assert model.spectra_.min() == 1e-6


# Conventions of scikit-learn


@pytest.mark.parametrize("last_bit", [-1e-16, 0.0, 1e-16])
def test_of_two_heaviest_components_the_first_is_split(last_bit):
    weights = np.array([0.5, 0.5 + last_bit, 0.0])
    (split, _), empty = steps.revive(steps.Parameters(weights, np.ones((3, 4))), 0.0)
    assert_array_equal(empty, [2])
    assert_allclose(split, [0.25, 0.5, 0.25], rtol=1e-12)
