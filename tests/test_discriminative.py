"""Conditional likelihoods against dense Gaussians, finite differences and EM's own fixed points."""

import re
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp

from gmmlib import ConvolutionalGMM, GenerativeClassifier, storage
from gmmlib.em.workers import Workers
from gmmlib.spectrum import fold, powers, unfold
from gmmlib.stationary.conditional import Problem, maximise, objective, tempered
from gmmlib.stationary.discriminative import DiscriminativeGMM
from gmmlib.stationary.steps import Parameters
from gmmlib.storage import ModelFileError
from tests import oracles

SHAPES = [(4, 6), (5, 4), (3, 5)]
N_CLASSES, N_COMPONENTS = 3, 2


def half(full):
    return full[..., : full.shape[-1] // 2 + 1]


def truth(shape, seed=0):
    """Joint weights and rough full-plane spectra of three classes of two components each."""
    rng = np.random.default_rng(seed)
    n = N_CLASSES * N_COMPONENTS
    full = oracles.full_powers(rng.standard_normal((n, *shape))) + 0.1
    return rng.dirichlet(np.full(n, 3.0)), full * 1.3 ** np.arange(n)[:, None, None]


def draw(shape, n=90, seed=0):
    """Images and their classes."""
    weights, full = truth(shape, seed)
    spectra = half(full)
    start = {"weights": weights, "spectra": spectra}
    noise = np.random.default_rng(1).standard_normal((len(weights), *shape))
    model = ConvolutionalGMM(len(weights), init=start, callback=lambda *_: True, max_iter=50, tol=0.0).fit(
        noise
    )
    x, components = model.sample(n, seed)
    order = np.random.default_rng(seed).permutation(n)
    return x[order], components[order] // N_COMPONENTS


def fit(x, y, weight=None, **settings):
    settings = {"max_iter": 15, "em_iter": 5, "random_state": 0, "shrinkage": 1e-3} | settings
    return DiscriminativeGMM(**({"n_components": N_COMPONENTS} | settings)).fit(x, y, weight)


def dense_objective(x, labels, weights, full, row_weight=None):
    """Mean log posterior of the classes, by scipy's densities and Bayes' rule written out."""
    joint = oracles.log_joint(x, weights, full).reshape(len(x), N_CLASSES, N_COMPONENTS)
    by_class = logsumexp(joint, axis=2)
    own = by_class[np.arange(len(x)), labels]
    return np.average(own - logsumexp(by_class, axis=1), weights=row_weight)


def prior(full, common):
    """The Gaussian prior's exponent over all frequencies of the full plane."""
    return 0.5 * sum(((common / spectrum - 1) ** 2).sum() for spectrum in full)


def row_weights(n):
    return 0.2 + np.arange(n) % 3


def evaluated(x, labels, logits, filters, shrinkage=0.0, weight=None, chunk_size=16):
    layout = fold(x.shape[1:])
    weight = np.ones(len(x)) if weight is None else weight
    common = folded(common_power(x.shape[1:]), layout)
    P = powers(x, layout)
    problem = Problem(P, labels, weight, layout.multiplicity, common, N_CLASSES, shrinkage)
    with Workers(chunk_size, 4) as workers:
        return objective(logits, filters, problem, workers)


def common_power(shape):
    """Some full-plane spectrum for filters to be measured by."""
    return oracles.full_powers(np.random.default_rng(9).standard_normal((1, *shape)))[0] + 0.3


def folded(full, layout):
    return half(full).reshape(*full.shape[:-2], -1)[..., layout.bins]


def point(shape):
    weights, full = truth(shape, seed=5)
    layout = fold(shape)
    return weights, full, np.log(weights), folded(common_power(shape), layout) / folded(full, layout)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_the_objective_is_bayes_rule_on_dense_gaussians_less_a_prior(shape, shrinkage):
    x, labels = draw(shape)
    weights, full, logits, filters = point(shape)
    for row_weight in (None, row_weights(len(x))):
        value, *_ = evaluated(x, labels, logits, filters, shrinkage, row_weight)
        expected = dense_objective(x, labels, weights, full, row_weight)
        assert_allclose(value, expected - shrinkage * prior(full, common_power(shape)), rtol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_gradients_equal_finite_differences(shape, shrinkage):
    x, labels = draw(shape)
    _, _, logits, filters = point(shape)
    weight = row_weights(len(x))
    _, by_logits, by_filters = evaluated(x, labels, logits, filters, shrinkage, weight)
    gradient = np.concatenate([by_logits, by_filters.ravel()])
    place, step = np.concatenate([logits, filters.ravel()]), 1e-6

    def value(vector):
        own, other = vector[: len(logits)], vector[len(logits) :].reshape(filters.shape)
        return evaluated(x, labels, own, other, shrinkage, weight)[0]

    for i in range(len(place)):
        aside = step * (np.arange(len(place)) == i)
        slope = (value(place + aside) - value(place - aside)) / (2 * step)
        assert_allclose(gradient[i], slope, rtol=1e-5, atol=1e-7, err_msg=f"coordinate {i}")
    assert np.abs(gradient).max() > 0.01


def test_chunks_change_no_value():
    x, labels = draw((5, 4))
    _, _, logits, filters = point((5, 4))
    parts = evaluated(x, labels, logits, filters, 0.2, chunk_size=7)
    whole = evaluated(x, labels, logits, filters, 0.2, chunk_size=1000)
    for part, all_at_once in zip(parts, whole, strict=True):
        assert_allclose(part, all_at_once, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_tempered_mixture_has_the_posteriors_of_divided_log_joints(shape):
    x, _ = draw(shape)
    weights, full = truth(shape)
    layout, common = fold(shape), common_power(shape)
    before = Parameters(weights, folded(full, layout))
    # Between the common filter and one above 0 every temperature from 1 on leaves filters above 0.
    logits, filters = tempered(before, folded(common, layout), layout.multiplicity, 4.0)
    after = [common / oracles.full_from_half(unfolded, shape[1]) for unfolded in unfold(filters, layout)]
    found = oracles.log_joint(x, np.exp(logits), after)
    expected = oracles.log_joint(x, weights, full) / 4.0
    gap = found - expected
    assert_allclose(gap, np.broadcast_to(gap[:, :1], gap.shape), rtol=1e-8)


def test_at_temperature_one_nothing_changes():
    weights, _, _, filters = point((4, 6))
    layout, common = fold((4, 6)), folded(common_power((4, 6)), fold((4, 6)))
    logits, same = tempered(Parameters(weights, common / filters), common, layout.multiplicity, 1.0)
    assert_allclose(same, filters, rtol=1e-12)
    assert_allclose(np.exp(logits), weights, rtol=1e-10)


def test_the_objective_climbs_and_its_trace_ends_at_the_result():
    x, y = draw((5, 4), n=300)
    model = fit(x, y)
    oracles.assert_never_falls(model.objectives_)
    assert len(model.objectives_) > 5
    weights, full = (
        model.weights_.ravel(),
        [oracles.full_from_half(s, 4) for s in np.concatenate(model.spectra_)],
    )
    common = oracles.full_powers(x).mean(axis=0)
    expected = dense_objective(x, y, weights, full) - 1e-3 * prior(full, common)
    assert_allclose(expected, model.objectives_[-1], rtol=1e-9)
    assert_allclose(model.weights_.sum(), 1.0, rtol=1e-12)
    assert model.n_iter_ == len(model.objectives_) - 1 <= 15


def test_training_on_the_class_raises_the_conditional_likelihood_at_the_price_of_the_other():
    x, y = draw((5, 4), n=300)

    def likelihoods(joint):
        own = joint[np.arange(len(x)), y]
        return (own - logsumexp(joint, axis=1)).mean(), own.mean()

    by_em = GenerativeClassifier(ConvolutionalGMM(2, max_iter=60, tol=0.0), random_state=0).fit(x, y)
    by_class = fit(x, y, max_iter=60, em_iter=60, shrinkage=0.0)
    before, after = likelihoods(by_em.log_joint(x)), likelihoods(by_class.log_joint(x))
    assert after[0] > before[0]
    assert after[1] < before[1]


def test_a_stronger_prior_keeps_filters_closer_to_the_common_one():
    x, y = draw((5, 4), n=300)
    common = oracles.full_powers(x).mean(axis=0)[:, :3]
    apart = [np.abs(common * fit(x, y, shrinkage=a).filters_ - 1).mean() for a in (1e-4, 1e-2, 1.0)]
    assert (np.diff(apart) < 0).all()


def test_scores_equal_dense_ones():
    x, y = draw((4, 6))
    model = fit(x, y)
    full = [oracles.full_from_half(s, 6) for s in np.concatenate(model.spectra_)]
    dense = oracles.log_joint(x, model.weights_.ravel(), full)
    joint = logsumexp(dense.reshape(len(x), N_CLASSES, -1), axis=2)
    assert_allclose(model.log_joint(x), joint, rtol=1e-9)
    assert_allclose(model.score_samples(x), logsumexp(joint, axis=1), rtol=1e-9)
    assert_allclose(model.predict_proba(x), oracles.posteriors(joint), rtol=1e-6, atol=1e-12)
    assert_allclose(np.exp(model.predict_log_proba(x)), model.predict_proba(x), rtol=1e-9)
    assert_array_equal(model.predict(x), joint.argmax(axis=1))
    assert_allclose(model.filters_ * model.spectra_, 1.0)
    assert model.score(x, y) == (model.predict(x) == y).mean()


def test_classes_may_have_any_names():
    x, y = draw((5, 4))
    named = np.array(["c", "a", "b"])[y]
    numbers, names = fit(x, np.array([2, 0, 1])[y]), fit(x, named)
    assert_array_equal(names.classes_, ["a", "b", "c"])
    assert_array_equal(names.predict(x), np.array(["a", "b", "c"])[numbers.predict(x)])


def test_a_weightless_class_is_no_class():
    x, y = draw((3, 5))
    model = fit(x, y, (y != 1).astype(float))
    assert_array_equal(model.classes_, [0, 2])
    left_out = fit(x[y != 1], y[y != 1])
    assert_array_equal(model.spectra_, left_out.spectra_)


def test_an_overflow_is_named():
    def broken(logits, filters):
        return np.nan, np.zeros(2), np.zeros((2, 3))

    message = (
        "The objective is nan after 0 iterations: a weight or a filter has overflowed. "
        "Raise shrinkage or the floor of the variances, or scale the data."
    )
    with pytest.raises(FloatingPointError, match=re.escape(message)):
        maximise(np.zeros(2), np.ones((2, 3)), broken, np.full(3, 9.0), 5)


def test_the_optimum_of_a_quadratic_is_found_within_its_bounds():
    aim = np.array([[2.0, 3.0, 0.5], [1.0, -0.2, 7.0]])

    def bowl(logits, filters):
        gap = filters - aim
        return -(gap**2).sum(), np.zeros(2), -2 * gap

    _, found, trace = maximise(np.zeros(2), np.ones((2, 3)), bowl, np.array([9.0, 9.0, 5.0]), 50)
    assert_allclose(found, [[2.0, 3.0, 0.5], [1.0, 0.01, 5.0]], rtol=1e-5)
    assert_allclose(trace[-1], -(0.21**2) - 4.0, rtol=1e-6)


def test_the_floor_holds():
    x, y = draw((5, 4))
    model = fit(x, y, variance_floor=0.5, shrinkage=0.0, temperature=1.0)
    assert model.spectra_.min() >= 0.5 * (1 - 1e-12)
    assert (model.spectra_ < 0.5 * (1 + 1e-12)).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_numbers_of_any_type_survive_the_disk(dtype, tmp_path):
    x, y = draw((3, 5))
    model = fit(x, y.astype(dtype))
    model.save(tmp_path / "model.npz")
    assert_array_equal(DiscriminativeGMM.load(tmp_path / "model.npz").predict(x), model.predict(x))


def test_names_do_not_go_to_disk(tmp_path):
    x, y = draw((3, 5))
    model = fit(x, np.array(["a", "b", "c"])[y])
    message = (
        "save needs classes that are numbers; got ['a', 'b', 'c']. Fit on numbers, as "
        "numpy.unique(y, return_inverse=True) makes them, and keep the names elsewhere."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        model.save(tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [{"classes": np.arange(2)}, {"weights": np.ones(6)}])
def test_a_file_that_fits_no_model_is_refused(damage, tmp_path):
    x, y = draw((3, 5))
    settings, arrays = fit(x, y).to_arrays()
    storage.write(tmp_path / "model.npz", "DiscriminativeGMM", settings, arrays | damage)
    with pytest.raises(ModelFileError, match="holds no usable DiscriminativeGMM"):
        DiscriminativeGMM.load(tmp_path / "model.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y[:3], "y must hold the class of each of the 90 images; got shape (3,)."),
        (
            lambda y: np.zeros(90, dtype=int),
            "y must hold at least two classes; got only [0]. A mixture of one class is a ConvolutionalGMM.",
        ),
        (
            lambda y: np.where(np.arange(90) == 4, 7, y),
            "n_components=2 needs at least as many rows of positive weight in each class; got 1 of class 7. "
            "Pass more data or ask for fewer components.",
        ),
        (
            lambda y: np.where(np.arange(90) == 4, np.nan, y),
            "y must be finite; got 1 value that is NaN or infinite, the first at index (4,). "
            "Remove or replace them first.",
        ),
    ],
)
def test_bad_classes_are_named(change, message):
    x, y = draw((3, 5))
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(x, change(y))


def test_rows_far_from_every_class_keep_finite_scores():
    x, y = draw((3, 5))
    model = fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        far = model.predict_log_proba(1e4 * x)
    assert np.isfinite(far).all()
