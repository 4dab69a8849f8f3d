"""Stacks against their layers fitted by hand, against dense Gaussians and enumeration, and on disk."""

import json
import os
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from gmmlib import ESTIMATORS, ConvolutionalGMM, FullGMM, StackedGMM, _contents, storage
from gmmlib.compose.codes import CODES, decode, encode
from gmmlib.storage import ModelFileError
from tests import oracles

SHAPE = (4, 5)
METHODS = ("transform", "log_joint", "score_samples", "score", "predict", "predict_proba", "encodings")


def half(full):
    return full[..., : full.shape[-1] // 2 + 1]


def textures(n=150, n_kinds=4, seed=0):
    """Images of several textures that overlap, and the texture of each."""
    rng = np.random.default_rng(seed)
    full = oracles.full_powers(rng.standard_normal((n_kinds, *SHAPE))) + 0.1
    labels = rng.integers(n_kinds, size=n)
    noise = np.fft.fft2(rng.standard_normal((n, *SHAPE)))
    return np.fft.ifft2(noise * np.sqrt(full)[labels]).real, labels


IMAGES, LABELS = textures()


def lowest(n_components=4, **others):
    return ConvolutionalGMM(n_components, **{"max_iter": 5, "tol": 0.0, "random_state": 1} | others)


def upper(n_components=3, **others):
    others = {"max_iter": 4, "tol": 0.0, "reg_covar": 1e-2, "random_state": 2} | others
    return FullGMM(n_components, **others)


def fit(*layers, codes="posterior", X=IMAGES):
    return StackedGMM(layers or (lowest(), upper()), codes).fit(X)


@pytest.fixture(scope="module")
def stack():
    """Three layers, a code of each kind."""
    layers = (lowest(), upper(), upper(2))
    return fit(*layers, codes=["standardised_log_joint", "log_joint", "posterior"])


# Fitting


@pytest.mark.parametrize("code", CODES)
def test_two_layers_equal_two_fits_by_hand(code):
    below = lowest().fit(IMAGES)
    hidden = oracles.code(below.log_joint(IMAGES), code)
    top = upper().fit(hidden)
    stack = fit(codes=code)
    assert_array_equal(stack.layers_[0].spectra_, below.spectra_)
    assert_allclose(stack.layers_[1].means_, top.means_, rtol=1e-7, atol=1e-9)
    assert_allclose(stack.layers_[1].log_likelihoods_, top.log_likelihoods_, rtol=1e-7)
    assert_allclose(stack.encodings(IMAGES)[0], hidden, rtol=1e-9, atol=1e-12)
    assert_allclose(stack.log_joint(IMAGES), top.log_joint(hidden), rtol=1e-6)
    assert_allclose(stack.transform(IMAGES), oracles.code(top.log_joint(hidden), code), rtol=1e-5, atol=1e-9)


def test_three_layers_equal_dense_gaussians_and_enumeration(stack):
    """From the learned parameters alone: scipy's densities of dense covariances, and loops."""
    x, _ = textures(40, seed=9)
    full = [oracles.full_from_half(spectrum, SHAPE[1]) for spectrum in stack.layers_[0].spectra_]
    joint = oracles.log_joint(x, stack.layers_[0].weights_, full)
    expected = []
    for layer, code in zip((*stack.layers_[1:], None), stack.codes_, strict=True):
        expected.append(oracles.code(joint, code))
        if layer is not None:
            joint = oracles.gaussian_log_joint(expected[-1], layer.weights_, layer.means_, layer.covariances_)
    found = stack.encodings(x)
    assert [code.shape for code in found] == [(40, 4), (40, 3), (40, 2)]
    for code, other in zip(found, expected, strict=True):
        assert_allclose(code, other, rtol=1e-7, atol=1e-9)
    evidence = np.logaddexp.reduce(joint, axis=1)
    assert_allclose(stack.transform(x), expected[-1], rtol=1e-7, atol=1e-9)
    assert_allclose(stack.log_joint(x), joint, rtol=1e-7)
    assert_allclose(stack.score_samples(x), evidence, rtol=1e-7)
    assert_allclose(stack.score(x), evidence.mean(), rtol=1e-7)
    assert_allclose(stack.predict_proba(x), oracles.posteriors(joint), rtol=1e-6, atol=1e-12)
    assert_array_equal(stack.predict(x), joint.argmax(axis=1))
    assert len(set(stack.predict(x))) == 2


@pytest.mark.parametrize("layer", [lowest(), upper()], ids=["convolutional", "full"])
def test_a_stack_of_one_layer_is_the_layer(layer):
    x = IMAGES if isinstance(layer, ConvolutionalGMM) else IMAGES[:, 0]
    stack, alone = fit(layer, X=x), clone(layer).fit(x)
    for method in ("log_joint", "score_samples", "score", "predict", "predict_proba"):
        assert_array_equal(getattr(stack, method)(x), getattr(alone, method)(x))
    assert_array_equal(stack.transform(x), encode(alone.log_joint(x), "posterior"))
    assert len(stack.encodings(x)) == 1


def test_nothing_changes_when_images_are_shifted_round(stack):
    """The lowest layer sees powers alone, and the others what it says."""
    x, _ = textures(30, seed=5)
    shifted = np.roll(x, (1, 3), axis=(1, 2))
    assert_allclose(stack.transform(shifted), stack.transform(x), rtol=1e-7, atol=1e-10)
    assert np.ptp(stack.transform(x)) > 0.1


def test_the_order_of_the_lowest_components_does_not_matter():
    rng = np.random.default_rng(0)
    spectra = half(oracles.full_powers(rng.standard_normal((3, *SHAPE))) + 0.1)
    order = [2, 0, 1]

    def stack(spectra, means):
        eyes = np.stack([np.eye(3)] * 2)
        begin = {"weights": [0.5, 0.5], "means": means, "covariances": eyes}
        start = {"weights": np.full(3, 1 / 3), "spectra": spectra}
        return fit(lowest(3, init=start), upper(2, init=begin))

    means = rng.dirichlet(np.ones(3), size=2)
    one, other = stack(spectra, means), stack(spectra[order], means[:, order])
    assert_allclose(other.layers_[1].means_, one.layers_[1].means_[:, order], rtol=1e-6, atol=1e-9)
    assert_allclose(other.transform(IMAGES), one.transform(IMAGES), rtol=1e-6, atol=1e-9)


def test_components_that_die_at_the_top_leave_its_code():
    top = upper(8, min_weight=0.1, max_iter=10)
    stack = fit(lowest(), upper(), top)
    width = len(stack.layers_[-1].weights_)
    assert 1 <= width < 8
    assert stack.transform(IMAGES).shape == (len(IMAGES), width)
    assert stack.predict(IMAGES).max() < width


def test_components_that_die_in_the_middle_leave_the_data_of_the_next():
    stack = fit(lowest(), upper(8, min_weight=0.1, max_iter=10), upper(2))
    width = len(stack.layers_[1].weights_)
    assert width < 8
    assert stack.layers_[2].n_features_in_ == width


class Counted(FullGMM):
    """A mixture that counts how often it scores."""

    scored = 0

    def log_joint(self, X):
        Counted.scored += 1
        return super().log_joint(X)


def test_each_layer_scores_once():
    X = IMAGES[:, 0]
    layers = [Counted(n, max_iter=2, reg_covar=1e-2, random_state=0) for n in (4, 3, 2)]

    def count(call):
        before = Counted.scored
        return call(), Counted.scored - before

    stack, calls = count(lambda: StackedGMM(layers).fit(X))
    assert calls == 2
    code, calls = count(lambda: StackedGMM(layers).fit_transform(X))
    assert calls == 3
    assert_array_equal(code, stack.transform(X))
    assert count(lambda: stack.encodings(X))[1] == 3
    assert count(lambda: stack.score(X))[1] == 2


def test_codes_count_at_the_next_fit(stack):
    stack = clone(stack).fit(IMAGES)
    stack.set_params(codes="log_joint")
    assert_allclose(stack.transform(IMAGES).sum(axis=1), 1.0)
    assert_array_equal(stack.fit(IMAGES).transform(IMAGES), stack.log_joint(IMAGES))


# Samples


def planted(weights, means, covariances):
    """A full mixture that holds these parameters: stopped before its first iteration."""
    init = {"weights": weights, "means": means, "covariances": covariances}
    x = oracles.draw(20, np.asarray(weights), np.asarray(means), np.asarray(covariances))
    return FullGMM(len(weights), init=init, callback=lambda model, iteration: True).fit(x)


def assembled(*layers, codes):
    """A fitted stack of fitted layers."""
    stack = StackedGMM(layers, codes)
    stack.layers_, stack.codes_ = list(layers), (codes,) * len(layers)
    return stack


MEANING = {
    "posterior": lambda gap: np.clip((gap + 1) / 2, 0, 1),
    "log_joint": lambda gap: 1 / (1 + np.exp(-gap)),
    "standardised_log_joint": lambda gap: (gap > 0).astype(float),
}


@pytest.mark.parametrize("code", CODES)
def test_a_lower_component_is_drawn_as_often_as_quadrature_says(code):
    """Of two lower components, far apart; what a code (a, b) means depends on a - b, a Gaussian, alone."""
    below = planted([0.5, 0.5], [[-100.0], [100.0]], [[[1.0]], [[1.0]]])
    means = np.array([[0.7, 0.3], [0.1, 0.8]])
    covariances = np.array([[[0.2, 0.05], [0.05, 0.3]], [[0.5, -0.1], [-0.1, 0.1]]])
    n = 20_000
    stack = assembled(below, planted([0.4, 0.6], means, covariances), codes=code)
    x, labels = stack.sample(n, 0)
    assert x.shape == (n, 1)
    assert_array_equal(labels, np.sort(labels))
    grid = np.linspace(-8, 8, 20_001)
    for k, share in enumerate([0.4, 0.6]):
        assert abs((labels == k).mean() - share) < 5 * np.sqrt(0.24 / n)
        mean, C = means[k] @ [1, -1], covariances[k]
        gap = mean + np.sqrt(C[0, 0] + C[1, 1] - 2 * C[0, 1]) * grid
        expected = (MEANING[code](gap) * np.exp(-(grid**2) / 2)).sum() / np.exp(-(grid**2) / 2).sum()
        drawn = (x[labels == k] < 0).mean()
        assert 0.1 < expected < 0.9
        assert abs(drawn - expected) < 5 * np.sqrt(expected * (1 - expected) / (labels == k).sum())
    assert abs(np.abs(x).mean() - 100) < 5 / np.sqrt(n)  # and drawn from that component's Gaussian
    assert abs(np.abs(x).std() - 1) < 5 / np.sqrt(2 * n)


def test_draws_go_through_every_layer():
    """One-hot codes without noise: which bottom component belongs to which top one is known."""
    tiny = 1e-8 * np.eye(2)
    below = planted([0.5, 0.5], [[-9.0], [9.0]], [[[1.0]], [[1.0]]])
    swap = planted([0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]], [tiny, tiny])
    top = planted([0.3, 0.7], [[1.0, 0.0], [0.0, 1.0]], [tiny, tiny])
    x, labels = assembled(below, swap, top, codes="posterior").sample(400, 0)
    assert_array_equal(x[:, 0] > 0, labels == 0)
    x, labels = assembled(below, top, codes="posterior").sample(400, 0)
    assert_array_equal(x[:, 0] < 0, labels == 0)


def test_samples_are_images_where_the_lowest_layer_takes_images(stack):
    x, labels = stack.sample(50, 3)
    assert x.shape == (50, *SHAPE)
    assert np.isfinite(x).all()
    assert set(labels) == {0, 1}
    again, other = stack.sample(50, 3), stack.sample(50, 4)
    assert_array_equal(again[0], x)
    assert_array_equal(again[1], labels)
    assert (other[0] != x).any()
    assert stack.sample()[0].shape == (1, *SHAPE)


def test_one_layer_draws_what_the_layer_draws():
    stack = fit(lowest())
    for one, other in zip(stack.sample(30, 5), stack.layers_[0].sample(30, 5), strict=True):
        assert_array_equal(one, other)


def test_a_frozen_layer_draws_too():
    below = lowest().fit(IMAGES)
    frozen = fit(FrozenEstimator(below), upper())
    assert_array_equal(frozen.sample(9, 0)[0], fit(lowest(), upper()).sample(9, 0)[0])


def test_a_stack_of_posteriors_draws_the_lowest_components_in_proportion():
    """The mean code of a fitted top mixture is that of its data: no component is lost or gained."""
    stack = fit(lowest(max_iter=30), upper(3, max_iter=30))
    drawn = stack.layers_[1].sample(40_000, 0)[0]
    shares = decode(drawn, "posterior").mean(axis=0)
    assert_allclose(shares, stack.encodings(IMAGES)[0].mean(axis=0), atol=0.03)


def test_a_layer_that_cannot_draw_is_named(stack):
    class Silent:
        def __repr__(self):
            return "Silent()"

    broken = assembled(Silent(), stack.layers_[1], codes="posterior")
    message = (
        "layers_[0] must have a method sample_components to be sampled; got Silent(). "
        "ConvolutionalGMM and FullGMM have one."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        broken.sample()


# Messages

LAYERS = "layers must be a sequence of at least one mixture, the lowest first; got {}. "
MIXTURE = (
    "layers[{}] must be a mixture with the methods fit, log_joint, predict, predict_proba, "
    "score_samples; got {}. Pass an unfitted mixture such as FullGMM(10)."
)
NAMES = (
    "codes must be one of log_joint, standardised_log_joint, posterior, or a sequence of such names, one for "
    "each of the 2 layers; got {}."
)
FIT_MESSAGES = [
    ([], "posterior", LAYERS.format("[]") + "A single mixture goes into a list."),
    (None, "posterior", LAYERS.format("None") + "A single mixture goes into a list."),
    (
        FullGMM(2),
        "posterior",
        LAYERS.format("FullGMM(n_components=2)") + "A single mixture goes into a list.",
    ),
    ([lowest(), "top"], "posterior", MIXTURE.format(1, "'top'")),
    ([LogisticRegression()], "posterior", MIXTURE.format(0, "LogisticRegression()")),
    ([FullGMM], "posterior", MIXTURE.format(0, "<class 'gmmlib.full.estimator.FullGMM'>")),
    ([lowest(), upper()], "entropy", NAMES.format("'entropy'")),
    ([lowest(), upper()], ["posterior"], NAMES.format("['posterior']")),
    ([lowest(), upper()], ["posterior"] * 3, NAMES.format("['posterior', 'posterior', 'posterior']")),
    ([lowest(), upper()], ["posterior", "x"], NAMES.format("['posterior', 'x']")),
    ([lowest(), upper()], None, NAMES.format("None")),
    ([lowest(), upper()], [["posterior"], "posterior"], NAMES.format("[['posterior'], 'posterior']")),
]


@pytest.mark.parametrize(("layers", "codes", "message"), FIT_MESSAGES)
def test_the_messages_of_fit(layers, codes, message):
    stack = StackedGMM(layers, codes)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        stack.fit(IMAGES)
    assert not hasattr(stack, "layers_")


@pytest.mark.parametrize(
    ("layers", "number", "text"),
    [
        ((lowest(), lowest()), 1, "X must hold images in an array of shape (N, H, W); got shape (150, 4)."),
        ((lowest(), upper(), upper(200)), 2, "n_components=200 needs at least as many rows"),
        ((upper(), upper()), 0, "got shape (150, 4, 5). Images are flattened"),
        ((FrozenEstimator(lowest()),), 0, "This ConvolutionalGMM instance is not fitted yet"),
    ],
)
def test_a_layer_that_refuses_its_data_is_named(layers, number, text):
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        fit(*layers)
    assert caught.value.__notes__ == [
        f"This is about layers[{number}], counted from the lowest, 0; the stack is as before."
    ]


@pytest.mark.parametrize("layers", [[], None, ["x"]])
def test_an_unfitted_stack_of_no_layers_says_so_too(layers):
    with pytest.raises(NotFittedError, match="This StackedGMM instance is not fitted yet"):
        StackedGMM(layers).transform(IMAGES)


# Conventions of scikit-learn


def test_settings_of_layers_have_names():
    stack = StackedGMM([lowest(), upper()])
    assert set(stack.get_params(deep=False)) == {"layers", "codes"}
    params = stack.get_params()
    assert params["layer1"] is stack.layers[1]
    assert (params["layer0__n_components"], params["layer1__n_components"]) == (4, 3)
    assert stack.set_params(layer1__n_components=7, codes="log_joint") is stack
    assert (stack.layers[1].n_components, stack.codes) == (7, "log_joint")
    top = upper(5)
    stack.set_params(layer1=top, layer1__tol=0.5)
    assert stack.layers[1] is top
    assert top.tol == 0.5
    stack.set_params(layers=[upper(2)], layer0__n_components=6)
    assert [layer.n_components for layer in stack.layers] == [6]
    with pytest.raises(ValueError, match="Invalid parameter 'layer1' for estimator StackedGMM"):
        stack.set_params(layer1__n_components=7)


def test_a_frozen_layer_is_not_fitted_again():
    other, _ = textures(80, seed=7)
    below = lowest().fit(other)
    before = below.spectra_.copy()
    stack = fit(FrozenEstimator(below), upper())
    assert_array_equal(below.spectra_, before)
    assert stack.layers_[0].estimator is below
    assert clone(stack).fit(IMAGES).layers_[0].estimator is below
    top = upper().fit(oracles.code(below.log_joint(IMAGES), "posterior"))
    assert_allclose(stack.layers_[1].means_, top.means_, rtol=1e-7, atol=1e-9)


def test_a_stack_is_a_step_of_a_pipeline():
    steps = [("stack", StackedGMM([lowest(), upper()])), ("classify", LogisticRegression())]
    pipeline = Pipeline(steps).fit(IMAGES, LABELS)
    code = fit().transform(IMAGES)
    alone = LogisticRegression().fit(code, LABELS)
    assert_array_equal(pipeline.predict(IMAGES), alone.predict(code))
    assert pipeline.score(IMAGES, LABELS) > 0.35


def test_a_grid_search_reaches_the_layers():
    stack = StackedGMM([lowest(), upper()])
    pipeline = Pipeline([("stack", stack), ("classify", LogisticRegression())])
    grid = {"stack__layer1__n_components": [1, 4], "stack__codes": ["posterior", "standardised_log_joint"]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(IMAGES, LABELS)
    # One component has one posterior, 1, and so tells nothing.
    assert search.best_params_["stack__layer1__n_components"] == 4
    assert stack.layers[1].n_components == 3
    assert len(set(search.cv_results_["mean_test_score"])) > 1


@pytest.mark.parametrize("wrapper", [lambda layer: layer, FrozenEstimator])
def test_a_stack_takes_what_its_lowest_layer_takes(wrapper):
    images = get_tags(StackedGMM([wrapper(lowest()), upper()])).input_tags
    assert (images.three_d_array, images.two_d_array) == (True, False)
    vectors = get_tags(StackedGMM([wrapper(upper(allow_missing=True)), upper()])).input_tags
    assert (vectors.three_d_array, vectors.two_d_array, vectors.allow_nan) == (False, True, True)


def test_features_are_counted_where_the_lowest_layer_counts_them(stack):
    assert not hasattr(stack, "n_features_in_")
    assert fit(upper(), upper(2), X=IMAGES[:, 0]).n_features_in_ == 5


# Files


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


def assert_same_scores(a, b, x=IMAGES):
    for method in METHODS[:-1]:
        assert_array_equal(getattr(a, method)(x), getattr(b, method)(x))
    for one, other in zip(a.encodings(x), b.encodings(x), strict=True):
        assert_array_equal(one, other)


def test_a_pruned_stack_comes_back(path):
    stack = fit(lowest(), upper(8, min_weight=0.1, max_iter=10), upper(6, min_weight=0.2, max_iter=10))
    widths = [code.shape[1] for code in stack.encodings(IMAGES)]
    assert widths[1] < 8
    assert widths[2] < 6
    stack.save(path)
    assert_same_scores(StackedGMM.load(path), stack)


def test_one_layer_comes_back(path):
    stack = fit(upper(np.int64(2)), X=IMAGES[:, 0])
    stack.save(path)
    assert_same_scores(StackedGMM.load(path), stack, IMAGES[:, 0])


def test_eleven_layers_come_back(path):
    """More than ten names start with 1."""
    stack = fit(*[upper(2, max_iter=1)] * 11, X=IMAGES[:, 0])
    stack.save(path)
    assert_same_scores(StackedGMM.load(path), stack, IMAGES[:, 0])


def test_a_frozen_layer_is_saved_without_its_wrapper(path):
    stack = fit(FrozenEstimator(lowest().fit(IMAGES)), upper())
    stack.save(path)
    loaded = StackedGMM.load(path)
    assert type(loaded.layers_[0]) is ConvolutionalGMM
    assert_same_scores(loaded, stack)


def test_a_layer_without_a_file_format_is_refused(path):
    stack = fit(lowest(), Counted(2, reg_covar=1e-2, random_state=0))
    message = (
        f"layers_[1] must be of a kind that has a file format, {', '.join(ESTIMATORS)}; got a Counted. "
        "Save the others one by one."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        stack.save(path)
    assert os.listdir(path.parent) == []


def test_a_layer_that_only_shares_the_name_of_a_format_is_refused(path):
    impostor = type("FullGMM", (Counted,), {})
    stack = fit(lowest(), impostor(2, reg_covar=1e-2, random_state=0))
    with pytest.raises(ValueError, match=r"^layers_\[1\] must be of a kind that has a file format"):
        stack.save(path)


def test_the_lowest_layer_of_a_file_is_that_of_its_own_file(stack, path):
    """Both formats hold the same arrays, under names with and without a number."""
    stack.save(path)
    stack.layers_[0].save(path.parent / "alone.npz")
    with np.load(path) as file, np.load(path.parent / "alone.npz") as alone:
        names = set(alone.files) - {"header"}
        assert names == {name[2:] for name in file.files if name.startswith("0.")}
        for name in names:
            assert_array_equal(file[f"0.{name}"], alone[name])


# Damage


def change(path, settings=None, drop=(), **arrays):
    """Write a stack's file again with changes to its settings and arrays."""
    with np.load(path) as file:
        contents = {name: file[name] for name in file.files if name not in drop}
    header = json.loads(str(contents["header"]))
    if settings is not None:
        header["settings"] = settings(header["settings"])
    contents["header"] = np.array(json.dumps(header))
    with open(path, "wb") as file:
        np.savez(file, **(contents | arrays))


def refusal(path):
    with pytest.raises(ModelFileError) as caught:
        StackedGMM.load(path)
    return str(caught.value)


@pytest.fixture
def saved(stack, path):
    stack.save(path)
    return path


@pytest.mark.parametrize("name", ["0.spectra", "1.means", "2.converged"])
def test_a_missing_array_is_refused(saved, name):
    change(saved, drop=[name])
    assert "must hold numbers under the names ['0.converged', '0.image_shape', " in refusal(saved)


@pytest.mark.parametrize("name", ["3.means", "means", "0.means", "00.spectra"])
def test_an_array_too_many_is_refused(saved, name):
    change(saved, **{name: np.zeros(2)})
    assert "must hold numbers under the names" in refusal(saved)


def settings_of(mixture):
    """What a file holds of the settings of a mixture, whether they are right or not."""
    return {name: getattr(mixture, name) for name in _contents.setting_names(type(mixture))}


def layer(number, **changes):
    """Change what the settings say of one layer."""

    def changed(settings):
        settings["layers"][number] |= changes
        return settings

    return changed


SETTINGS = '{path} holds no usable StackedGMM: its settings must be "codes" and "layers"; got '
ENTRIES = (
    '{path} holds no usable StackedGMM: the models in it must be a list, each with a "kind" and "settings", '
    f"and of the kinds {', '.join(ESTIMATORS)}; got "
)
WRONG_SETTINGS = [
    (lambda settings: [1, 2], SETTINGS + "[1, 2]. Save the stack again."),
    (lambda settings: {}, SETTINGS + "{{}}. Save the stack again."),
    (lambda settings: {"codes": "posterior", "layers": 3}, ENTRIES + "3. Save the model again."),
    (lambda settings: {"layers": settings["layers"]}, SETTINGS),
    (lambda settings: settings | {"colour": 1}, SETTINGS),
    (lambda settings: settings | {"layers": ["FullGMM"] * 3}, ENTRIES),
    (layer(1, kind="OtherGMM"), ENTRIES),
    (layer(1, kind=["FullGMM"]), ENTRIES),
    (layer(1, kind="datasets"), ENTRIES),
    (layer(1, kind="__version__"), ENTRIES),
    (layer(1, kind="ConvolutionalGMM"), "{path} must hold numbers under the names"),
    (
        layer(1, settings={"colour": 1}),
        "{path} holds no usable StackedGMM: the settings of a FullGMM must be algorithm, allow_missing, ",
    ),
    (layer(1, settings=[1]), "{path} holds no usable StackedGMM: "),
    (
        layer(1, settings=settings_of(FullGMM(3, reg_covar=-1))),
        "{path} holds no usable StackedGMM: reg_covar must be a finite number >= 0; got -1.",
    ),
    (
        layer(0, settings=settings_of(ConvolutionalGMM(5, max_iter=50, tol=0.0))),
        "{path} holds no usable StackedGMM: {path}[0]['weights'] must",
    ),
    (
        lambda settings: settings | {"codes": ["posterior"]},
        "{path} holds no usable StackedGMM: codes must be one of log_joint, standardised_log_joint, "
        "posterior, or a sequence of such names, one for each of the 3 layers; got ['posterior'].",
    ),
    (
        lambda settings: settings | {"codes": None},
        "{path} holds no usable StackedGMM: codes must be one of",
    ),
    (
        lambda settings: settings | {"layers": settings["layers"][:2]},
        "{path} must hold numbers under the names",
    ),
]


@pytest.mark.parametrize(("settings", "message"), WRONG_SETTINGS)
def test_a_file_of_wrong_settings_is_refused(saved, settings, message):
    change(saved, settings)
    assert refusal(saved).startswith(message.format(path=saved))


def test_a_file_without_layers_is_refused(path):
    storage.write(path, "StackedGMM", {"codes": [], "layers": []}, {})
    assert refusal(path) == (
        f"{path} holds no usable StackedGMM: layers must be a sequence of at least one mixture, the lowest "
        "first; got []. A single mixture goes into a list."
    )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"0.weights": np.full(4, 0.5)}, "{path}[0]['weights'] must be >= 0 and sum to 1; got 0.5 at "),
        ({"2.means": np.zeros((2, 4))}, "{path}[2]['covariances'] must have shape (2, 4, 4); got (2, 3, 3)."),
        ({"1.means": np.zeros(3)}, "not enough values to unpack"),
        ({"1.n_iter": np.zeros(2)}, "{path}[1]['n_iter'] must be an integer from 0 "),
        ({"1.converged": np.zeros(2)}, "{path}[1]['converged'] must be an integer from 0 to 1; "),
        (
            {"0.log_likelihoods": np.array(1.0)},
            "{path}[0]['log_likelihoods'] must hold finite numbers along ",
        ),
        ({"0.image_shape": np.array([np.inf, 5.0])}, "cannot convert float infinity to integer"),
        ({"0.image_shape": np.array([0, 5])}, ""),
        ({"0.image_shape": np.array([-4, 5])}, ""),
    ],
)
def test_a_file_of_impossible_arrays_is_refused(saved, arrays, message):
    change(saved, **arrays)
    assert refusal(saved).startswith(f"{saved} holds no usable StackedGMM: {message.format(path=saved)}")


def test_layers_that_do_not_fit_on_each_other_are_refused(saved, path):
    eyes = np.stack([np.eye(5)] * 2)
    change(saved, **{"2.means": np.zeros((2, 5)), "2.covariances": eyes})
    assert refusal(saved) == (
        f"{saved} holds no usable StackedGMM: layers[2] must take the 3 components of the layer below it; "
        "got one that takes 5 features. Save the stack again."
    )


def test_a_convolutional_layer_on_another_is_refused(path):
    settings, arrays = lowest().fit(IMAGES).to_arrays()
    entries = [{"kind": "ConvolutionalGMM", "settings": settings}] * 2
    both = {f"{number}.{name}": array for number in (0, 1) for name, array in arrays.items()}
    storage.write(path, "StackedGMM", {"codes": "posterior", "layers": entries}, both)
    assert refusal(path) == (
        f"{path} holds no usable StackedGMM: layers[1] must take the 4 components of the layer below it; "
        "got one that takes images. Save the stack again."
    )
