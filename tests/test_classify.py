"""Classifiers against dense Gaussians and Bayes' rule written out, and on disk."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from gmmlib import (
    ESTIMATORS,
    ConvolutionalGMM,
    ConvolutionalStack,
    FullGMM,
    GenerativeClassifier,
    PatchLayer,
    StackedGMM,
)
from gmmlib.stationary.penalised import PenalisedGMM
from gmmlib.storage import ModelFileError
from tests import oracles

SHAPE = (3, 5)


def gauss(**others):
    return FullGMM(1, **{"max_iter": 2, "reg_covar": 0.0, "init": "random_from_data"} | others)


def vectors(n=300, dimension=4, seed=0):
    """Rows of three Gaussians of unequal size, in random order, and their classes by name."""
    weights, means, covariances = oracles.gaussians(3, dimension, seed, apart=0.8)
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=weights)
    X = np.stack([rng.multivariate_normal(means[k], covariances[k]) for k in labels])
    return X, np.array(["b", "c", "a"])[labels]


def textures(n=120, seed=0):
    """Images of two textures, and their classes."""
    rng = np.random.default_rng(seed)
    full = oracles.full_powers(rng.standard_normal((2, *SHAPE))) + 0.1
    labels = rng.permutation(np.arange(n) % 3 % 2)
    noise = np.fft.fft2(rng.standard_normal((n, *SHAPE)))
    return np.fft.ifft2(noise * np.sqrt(full)[labels]).real, labels


X, Y = vectors()
IMAGES, TEXTURE = textures()
LAYER = PatchLayer(ConvolutionalGMM(2, max_iter=2, tol=0.0, random_state=0), side=2, cells=(2, 2))


def by_bayes(X, Y, new):
    """Posteriors (N, C) of one Gaussian a class, by scipy's densities and products of probabilities."""
    columns = []
    for label in sorted(set(Y)):
        own = X[Y == label]
        density = multivariate_normal(own.mean(axis=0), np.cov(own.T, bias=True))
        columns.append(len(own) / len(X) * density.pdf(new))
    joint = np.stack(columns, axis=1)
    return joint, joint / joint.sum(axis=1, keepdims=True)


def test_one_gaussian_a_class_is_bayes_rule_written_out():
    classifier = GenerativeClassifier(gauss()).fit(X, Y)
    new = vectors(50, seed=0)[0] + 0.1
    joint, posteriors = by_bayes(X, Y, new)
    assert classifier.classes_.tolist() == ["a", "b", "c"]
    assert_allclose(classifier.log_joint(new), np.log(joint), rtol=1e-9)
    assert_allclose(classifier.predict_proba(new), posteriors, rtol=1e-8)
    assert_allclose(classifier.predict_log_proba(new), np.log(posteriors), rtol=1e-8, atol=1e-12)
    assert classifier.predict(new).tolist() == [["a", "b", "c"][i] for i in posteriors.argmax(axis=1)]
    assert_allclose(classifier.decision_function(new), np.log(posteriors / (1 - posteriors)), rtol=1e-6)
    assert 0 < posteriors.max(axis=1).min() < 0.9
    assert classifier.score(X, Y) == (classifier.predict(X) == Y).mean()


def test_one_gaussian_a_class_is_quadratic_discriminant_analysis():
    theirs = QuadraticDiscriminantAnalysis(priors=[0.2, 0.3, 0.5]).fit(X, Y)
    ours = GenerativeClassifier(gauss(), priors=[0.2, 0.3, 0.5]).fit(X, Y)
    # Theirs divides covariances by n - 1, so it agrees up to 1/n.
    assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=0.05)
    assert (ours.predict(X) == theirs.predict(X)).mean() > 0.98


def test_images_are_scored_by_dense_stationary_gaussians():
    classifier = GenerativeClassifier(ConvolutionalGMM(1, max_iter=1, tol=0.0)).fit(IMAGES, TEXTURE)
    expected = []
    for c in range(2):
        own = oracles.full_powers(IMAGES[TEXTURE == c]).mean(axis=0)
        own = 0.5 * (own + own.ravel()[oracles.mirror(SHAPE)].reshape(SHAPE))
        expected.append(oracles.log_joint(IMAGES, [(TEXTURE == c).mean()], [own])[:, 0])
    assert_allclose(classifier.log_joint(IMAGES), np.stack(expected, axis=1), rtol=1e-9)
    assert classifier.priors_.tolist() == [2 / 3, 1 / 3]
    assert classifier.score(IMAGES, TEXTURE) > 0.7
    assert_allclose(classifier.decision_function(IMAGES), expected[1] - expected[0], rtol=1e-8, atol=1e-9)


def test_priors_move_the_log_joint_and_nothing_else():
    equal = GenerativeClassifier(gauss(), priors=np.ones(3) / 3).fit(X, Y)
    given = GenerativeClassifier(gauss(), priors=[0.5, 0.5, 0.0]).fit(X, Y)
    assert_allclose(given.log_joint(X)[:, :2] - equal.log_joint(X)[:, :2], np.log(1.5), rtol=1e-9)
    assert_array_equal(given.predict_proba(X)[:, 2], 0.0)
    assert set(given.predict(X)) == {"a", "b"}
    assert_allclose(given.predict_proba(X).sum(axis=1), 1.0, rtol=1e-12)


def test_each_class_has_a_seed_of_its_own():
    twice = np.concatenate([X, X]), np.repeat([0, 1], len(X))
    density = FullGMM(4, max_iter=1, init="random_from_data", reg_covar=0.1, random_state=5)

    def fit(random_state):
        return GenerativeClassifier(density, random_state=random_state).fit(*twice).densities_

    left_alone, seeded = fit(None), fit(0)
    assert_array_equal(left_alone[0].means_, left_alone[1].means_)
    assert not np.allclose(seeded[0].means_, seeded[1].means_)
    for a, b in zip(seeded, fit(0), strict=True):
        assert_array_equal(a.means_, b.means_)
    assert not np.allclose(seeded[0].means_, fit(1)[0].means_)
    assert_array_equal(seeded[0].means_, fit(np.random.default_rng(0))[0].means_)
    assert density.random_state == 5
    assert not hasattr(density, "means_")


def test_random_states_are_found_inside_a_stack():
    stack = StackedGMM([FullGMM(2, init="random_from_data"), FullGMM(2)])
    single = GenerativeClassifier(StackedGMM([stack.layers[0]]), random_state=3).fit(X, Y)
    states = [d.layers_[0].random_state for d in single.densities_]
    assert len(set(states)) == 3
    assert None not in states


@pytest.mark.parametrize(
    "density", [KernelDensity(bandwidth=0.5), GaussianMixture(2, random_state=0), FullGMM(2, random_state=0)]
)
def test_any_density_will_do(density):
    classifier = GenerativeClassifier(density).fit(X, Y)
    expected = [clone(density).fit(X[Y == c]).score_samples(X) for c in "abc"]
    priors = [(Y == c).mean() for c in "abc"]
    assert_allclose(classifier.log_joint(X), np.stack(expected, axis=1) + np.log(priors), rtol=1e-9)


def test_a_shared_projection_is_that_outside():
    turn = PCA(2).fit(X)
    inside = GenerativeClassifier(make_pipeline(FrozenEstimator(turn), gauss())).fit(X, Y)
    outside = GenerativeClassifier(gauss()).fit(turn.transform(X), Y)
    assert_allclose(inside.log_joint(X), outside.log_joint(turn.transform(X)), rtol=1e-12)


def test_what_learns_nothing_may_stand_before_the_density():
    flat = make_pipeline(FunctionTransformer(lambda x: x.reshape(len(x), -1)), "passthrough", gauss())
    inside = GenerativeClassifier(flat).fit(IMAGES, TEXTURE)
    rows = IMAGES.reshape(len(IMAGES), -1)
    outside = GenerativeClassifier(gauss()).fit(rows, TEXTURE)
    assert_allclose(inside.log_joint(IMAGES), outside.log_joint(rows), rtol=1e-12)


def test_one_class_is_certain():
    classifier = GenerativeClassifier(gauss()).fit(X, np.zeros(len(X), dtype=int))
    assert_array_equal(classifier.predict_proba(X), 1.0)
    assert_array_equal(classifier.predict_log_proba(X), 0.0)


def test_classifiers_are_searched_and_validated_by_scikit_learn():
    classifier = GenerativeClassifier(FullGMM(1, reg_covar=0.1), random_state=0)
    search = GridSearchCV(classifier, {"density__n_components": [1, 2]}, cv=2).fit(X, Y)
    assert search.best_params_["density__n_components"] in (1, 2)
    assert cross_val_score(classifier, X, Y, cv=3).min() > 0.5


# Disk

LAYERS = [FrozenEstimator(FullGMM(3, random_state=0).fit(X)), FullGMM(1, reg_covar=0.1)]
STORED = [
    (FullGMM(2, reg_covar=0.1), X, Y),
    (ConvolutionalGMM(2, max_iter=3, tol=0.0), IMAGES, TEXTURE),
    (StackedGMM(LAYERS, "log_joint"), X, Y == "a"),
]


@pytest.mark.parametrize(("density", "X", "y"), STORED)
def test_a_classifier_comes_back_from_disk(density, X, y, tmp_path):
    path = tmp_path / "model.npz"
    classifier = GenerativeClassifier(density, random_state=1).fit(X, y)
    classifier.save(path)
    back = GenerativeClassifier.load(path)
    assert_array_equal(back.log_joint(X), classifier.log_joint(X))
    assert_array_equal(back.predict(X), classifier.predict(X))
    assert back.classes_.dtype == classifier.classes_.dtype
    assert_allclose(back.priors_, classifier.priors_, rtol=1e-15)
    assert getattr(back, "n_features_in_", None) == getattr(classifier, "n_features_in_", None)
    assert type(clone(back).density) is type(density)


def test_given_priors_come_back_too(tmp_path):
    path = tmp_path / "model.npz"
    GenerativeClassifier(gauss(), priors=np.array([0.2, 0.3, 0.5])).fit(X, Y).save(path)
    back = GenerativeClassifier.load(path)
    assert back.priors == [0.2, 0.3, 0.5]
    assert_allclose(back.fit(X, Y).priors_, [0.2, 0.3, 0.5])


def test_a_density_without_a_file_format_is_not_saved(tmp_path):
    classifier = GenerativeClassifier(KernelDensity()).fit(X, Y)
    with pytest.raises(ValueError) as caught:
        classifier.save(tmp_path / "model.npz")
    assert str(caught.value) == (
        f"densities_[0] must be of a kind that has a file format, {', '.join(ESTIMATORS)}; "
        "got a KernelDensity. Save the others one by one."
    )
    assert not list(tmp_path.iterdir())


OTHER_SETTINGS = [
    ({"kind": "os"}, "the models in it must be a list"),
    ({"kind": "DiscriminativeGMM"}, "must hold numbers under the names"),
    *(
        (change, 'its settings must be "classes", "priors", a "kind"')
        for change in ({"classes": [1]}, {"densities": 3}, {"more": 1}, {"classes": None})
    ),
]


@pytest.mark.parametrize(("change", "text"), OTHER_SETTINGS)
def test_a_file_with_other_settings_is_refused(change, text, tmp_path):
    path = tmp_path / "model.npz"
    GenerativeClassifier(gauss()).fit(X, Y).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays.pop("header")))
    header["settings"] |= change
    np.savez(path, header=np.array(json.dumps(header)), **arrays)
    with pytest.raises(ModelFileError, match=text):
        GenerativeClassifier.load(path)


# Messages

OWN = (
    "density must not fit a transform of its own to each class, for densities of different variables do not "
    "compare; got {} below the last step. Fit it to all classes once and wrap it in "
    "sklearn.frozen.FrozenEstimator; a ConvolutionalStack takes the classifier as its top."
)
MESSAGES = [
    (
        {"density": PCA},
        (X, Y),
        f"density must be an estimator with fit and score_samples; got {PCA!r}. "
        "Pass an unfitted one such as FullGMM(10).",
    ),
    (
        {"density": "full"},
        (X, Y),
        "density must be an estimator with fit and score_samples; got 'full'. "
        "Pass an unfitted one such as FullGMM(10).",
    ),
    ({"density": make_pipeline(PCA(2), gauss())}, (X, Y), OWN.format("PCA(n_components=2)")),
    (
        {"density": StackedGMM([FullGMM(2), FullGMM(1)])},
        (X, Y),
        OWN.format("FullGMM(n_components=2)"),
    ),
    (
        {"density": make_pipeline("passthrough", StackedGMM([StackedGMM([FullGMM(2), FullGMM(1)])]))},
        (X, Y),
        OWN.format("FullGMM(n_components=2)"),
    ),
    (
        {"density": ConvolutionalStack([LAYER], FullGMM(1))},
        (IMAGES, TEXTURE),
        OWN.format(repr(LAYER)),
    ),
    (
        {"density": make_pipeline("passthrough", ConvolutionalStack([LAYER]))},
        (X, Y),
        OWN.format(repr(LAYER)),
    ),
    (
        {"density": make_pipeline("passthrough", gauss())},
        (X, Y, np.ones(len(X))),
        "sample_weight needs a density whose fit takes it; got a Pipeline. Leave sample_weight out.",
    ),
    (
        {},
        (X, Y, (Y != "b").astype(float)),
        f"sample_weight must be positive for a row of every class; got 0 for all {(Y == 'b').sum()} rows of "
        "class b. Leave the class out of X and y.",
    ),
    ({}, (X, Y[:-1]), f"y must hold a class for each of the {len(X)} rows of X; got {len(X) - 1}."),
    (
        {"priors": [0.5, 0.5]},
        (X, Y),
        "priors must hold one probability for each of the 3 classes, in the order of classes_; got shape "
        "(2,).",
    ),
    (
        {"priors": [0.5, 0.25, 0.5]},
        (X, Y),
        "priors must be >= 0 and sum to 1; got 0.25 at least and the sum 1.25. Divide them by their sum.",
    ),
]


@pytest.mark.parametrize(("settings", "arguments", "text"), MESSAGES)
def test_the_message(settings, arguments, text):
    with pytest.raises(ValueError) as caught:
        GenerativeClassifier(**{"density": gauss()} | settings).fit(*arguments)
    assert str(caught.value) == text


def test_a_class_too_small_for_its_density_is_named():
    few = np.array(["few"] * 3 + ["many"] * (len(X) - 3))
    with pytest.raises(ValueError, match=r"n_components=5 needs at least as many rows .* got 3\.") as caught:
        GenerativeClassifier(FullGMM(5)).fit(X, few)
    assert caught.value.__notes__ == [
        "This is about class few, which has 3 rows; the classifier is as before."
    ]


def test_a_fitted_stack_below_a_density_is_the_classifier_on_top_of_it():
    layers = ConvolutionalStack([LAYER], random_state=0).fit(IMAGES)
    density = make_pipeline(FrozenEstimator(layers), gauss(reg_covar=0.1))
    below = GenerativeClassifier(density).fit(IMAGES, TEXTURE)
    top = GenerativeClassifier(gauss(reg_covar=0.1))
    on_top = ConvolutionalStack([LAYER], top, random_state=0).fit(IMAGES, TEXTURE)
    assert_allclose(below.log_joint(IMAGES), on_top.log_joint(IMAGES), rtol=1e-10)


def test_other_sizes_than_those_of_the_fit_are_refused():
    classifier = GenerativeClassifier(ConvolutionalGMM(1, max_iter=50, tol=0.0)).fit(IMAGES, TEXTURE)
    with pytest.raises(ValueError, match="X must hold images of 3 x 5 pixels"):
        classifier.predict(np.zeros((2, 5, 3)))
    with pytest.raises(ValueError, match=r"array of shape \(N, H, W\); got shape \(2, 15\)"):
        classifier.predict(np.zeros((2, 15)))
    rows = GenerativeClassifier(gauss()).fit(X, Y)
    with pytest.raises(ValueError, match="X has 3 features, but GenerativeClassifier is expecting 4"):
        rows.predict(X[:, :3])


@pytest.mark.parametrize(
    ("density", "rows"),
    [
        (ConvolutionalGMM(2, max_iter=3, random_state=0, tol=0.0), lambda X: X),
        (PenalisedGMM(2, max_iter=3, random_state=0, tol=0.0), lambda X: X),
        (FullGMM(3, max_iter=3, reg_covar=1e-2, random_state=0), lambda X: X.reshape(len(X), -1)),
    ],
    ids=["convolutional", "penalised", "full"],
)
def test_one_mixture_has_the_density_of_all_classes_together(density, rows):
    rng = np.random.default_rng(8)
    y = np.repeat([3, 5, 9], [30, 20, 25])
    X = rows(rng.standard_normal((75, 4, 5)) * y[:, None, None])
    classifier = GenerativeClassifier(density).fit(X, y)
    mixture = classifier.mixture()
    assert_allclose(mixture.score_samples(X), logsumexp(classifier.log_joint(X), axis=1), rtol=1e-9)
    n_components = density.n_components
    by_class = mixture.predict_proba(X).reshape(75, 3, n_components).sum(axis=2)
    assert_allclose(by_class, classifier.predict_proba(X), atol=1e-12)


def test_classes_of_other_densities_make_no_mixture():
    X = np.random.default_rng(0).standard_normal((40, 3))
    classifier = GenerativeClassifier(GaussianMixture(2)).fit(X, np.arange(40) % 2)
    with pytest.raises(
        ValueError, match="densities must all be of one class that says what .*; got GaussianMixture"
    ):
        classifier.mixture()
