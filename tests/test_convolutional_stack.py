"""Convolutional stacks against loops over patches, and what they promise about shifts, shapes and files."""

import tracemalloc
import warnings
from copy import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp, softmax
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from threadpoolctl import threadpool_limits

from gmmlib import (
    ConvolutionalGMM,
    ConvolutionalStack,
    FullGMM,
    GenerativeClassifier,
    PatchLayer,
    PenalisedGMM,
    _kernels,
    spectrum,
    storage,
)
from gmmlib.compose import cells, patches, principal_axes
from tests import oracles

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((30, 11, 9)) * (RNG.random((30, 1, 9)) > 0.4)
LABELS = np.repeat([3, 5], 15)
CIRCULANT = ConvolutionalGMM(4, max_iter=3, tol=0.0, random_state=0, variance_floor=1e-3)
FULL = FullGMM(3, max_iter=3, tol=0.0, random_state=0, reg_covar=0.1)


def log_joint_by_hand(mixture, patch):
    """Log joints (K,) of one patch, from dense covariances."""
    if isinstance(mixture, ConvolutionalGMM):
        full = [oracles.full_from_half(half, mixture.image_shape_[1]) for half in mixture.spectra_]
        images = patch.reshape(1, *mixture.image_shape_)
        return oracles.log_joint(images, mixture.weights_, full, mixture.zero_mean_patches)[0]
    learned = mixture.weights_, mixture.means_, mixture.covariances_
    return oracles.gaussian_log_joint(patch[None], *learned)[0]


def code_by_hand(joint, layer):
    if layer.encoding == "hard":
        return np.eye(len(joint))[joint.argmax()]
    if layer.encoding == "soft":
        return softmax(layer.inverse_temperature * joint)
    odds = [joint[k] - logsumexp(np.delete(joint, k)) for k in range(len(joint))]
    return np.clip(odds, -40, 40)


def maps_by_hand(layer, maps):
    """Codes of all patches, one after the other."""
    (h, w), (s, t), (a, b) = (
        cells.pair(v, "", lambda v, _: v) for v in (layer.side, layer.stride, layer.border)
    )
    maps = np.pad(maps, [(0, 0), (a, a), (b, b), (0, 0)], mode=layer.padding)
    n_rows, n_columns = (maps.shape[1] - h) // s + 1, (maps.shape[2] - w) // t + 1
    out = np.zeros((len(maps), n_rows, n_columns, len(layer.mixture_.weights_)))
    for n, y, x in np.ndindex(out.shape[:3]):
        patch = maps[n, y * s : y * s + h, x * t : x * t + w].ravel()
        if np.sqrt(np.mean((patch - patch.mean()) ** 2)) < layer.min_std:
            continue
        if layer.remove_mean:
            patch = patch - patch.mean()
        if layer.axes_ is not None:
            patch = layer.axes_.basis.T @ (patch - layer.axes_.mean)
        out[n, y, x] = code_by_hand(log_joint_by_hand(layer.mixture_, patch), layer)
    return out


def cells_by_hand(layer, codes):
    n_rows, n_columns = codes.shape[1:3]
    down, across = (n_rows, n_columns) if layer.cells is None else layer.cells
    out = np.zeros((len(codes), down, across, codes.shape[3]))
    for r, c in np.ndindex(down, across):
        if layer.window is None:
            top, left = r * n_rows // down, c * n_columns // across
            bottom, right = (r + 1) * n_rows // down, (c + 1) * n_columns // across
        else:
            top = r * (n_rows - layer.window[0]) // max(1, down - 1)
            left = c * (n_columns - layer.window[1]) // max(1, across - 1)
            bottom, right = top + layer.window[0], left + layer.window[1]
        inside = codes[:, top:bottom, left:right]
        out[:, r, c] = inside.max(axis=(1, 2)) if layer.pooling == "max" else inside.sum(axis=(1, 2))
    if layer.pooling == "max":
        out = np.maximum(out, 0)
    return np.sqrt(out) if layer.pooling == "sqrt" else out


LAYERS = {
    "circulant": PatchLayer(CIRCULANT, side=(3, 4), min_std=0.5, cells=(3, 2), window=(5, 4)),
    "circulant, strides": PatchLayer(CIRCULANT, side=(5, 3), stride=(3, 2), cells=(2, 3), encoding="hard"),
    "circulant, borders": PatchLayer(
        CIRCULANT, side=4, border=(2, 3), padding="reflect", cells=(3, 4), pooling="max"
    ),
    "circulant, means removed": PatchLayer(CIRCULANT, side=3, remove_mean=True, cells=(4, 2)),
    "circulant without its zero frequency": PatchLayer(
        clone(CIRCULANT).set_params(zero_mean_patches=True), side=(2, 3), min_std=0.4, remove_mean=True
    ),
    "penalised": PatchLayer(
        PenalisedGMM(3, max_iter=2, tol=0.0, random_state=0), side=4, cells=(1, 2), inverse_temperature=0.3
    ),
    "full": PatchLayer(
        FULL, side=(3, 2), min_std=0.5, cells=(2, 4), encoding="log_odds", pooling="sum", remove_mean=True
    ),
    "full on axes": PatchLayer(
        FULL, side=3, stride=2, border=1, padding="edge", n_axes=4, cells=(3, 2), inverse_temperature=0.2
    ),
    "full on white axes": PatchLayer(
        FULL, side=3, n_axes=3, whiten=True, min_std=0.3, encoding="log_odds", pooling="max", cells=(1, 1)
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_what_loops_over_patches_make_of_it(name):
    layer = clone(LAYERS[name]).set_params(random_state=1).fit(IMAGES)
    expected = maps_by_hand(layer, IMAGES[:2, :, :, None])
    assert_allclose(layer.maps(IMAGES[:2]), expected, rtol=1e-8, atol=1e-10)
    pooled = cells_by_hand(layer, expected)
    assert_allclose(layer.transform(IMAGES[:2]), pooled, rtol=1e-8, atol=1e-7)
    assert np.std(pooled) > 0.05
    if layer.min_std and name != "circulant without its zero frequency":
        assert (expected == 0).all(axis=3).any()


def test_channels_of_a_map_are_parts_of_one_patch():
    maps = RNG.standard_normal((8, 4, 4, 3))
    layer = PatchLayer(FULL, side=2, cells=(2, 3), pooling="sum", random_state=0).fit(maps)
    expected = maps_by_hand(layer, maps)
    assert_allclose(layer.transform(maps), cells_by_hand(layer, expected), rtol=1e-8, atol=1e-10)
    assert layer.mixture_.n_features_in_ == 12


# ------------------------------------------------------------------------------ the fit


@pytest.mark.parametrize("n_patches", [50, 10_000])
def test_the_mixture_is_fitted_to_patches_that_vary(n_patches):
    layer = PatchLayer(CIRCULANT, side=3, min_std=0.6, n_patches=n_patches, random_state=3).fit(IMAGES)
    windows = np.lib.stride_tricks.sliding_window_view(IMAGES, (3, 3), axis=(1, 2)).reshape(-1, 3, 3)
    if n_patches < len(windows):
        assert 3 < layer.n_patches_ < n_patches
        return
    alone = clone(CIRCULANT).fit(windows[windows.std(axis=(1, 2)) >= 0.6])
    assert_allclose(layer.mixture_.spectra_, alone.spectra_, rtol=1e-10)
    assert layer.n_patches_ == (windows.std(axis=(1, 2)) >= 0.6).sum()


def test_patches_are_drawn_once_each_and_evenly():
    rng, seen = np.random.default_rng(0), np.zeros(60)
    for _ in range(2000):
        places = patches.draw(rng, np.array([0, 2, 5]), 10, 7)
        assert (np.diff(places) > 0).all()
        seen[places] += 1
    drawn = np.concatenate([seen[:10], seen[20:30], seen[50:]])
    assert seen.sum() == drawn.sum() == 14_000
    assert np.abs(drawn / 14_000 * 30 - 1).max() < 0.2
    assert_array_equal(patches.draw(rng, np.array([1, 3]), 2, 9), [2, 3, 6, 7])


def test_axes_are_principal_ones():
    X = RNG.standard_normal((50, 6)) @ RNG.standard_normal((6, 6)) + 3
    for whiten in (False, True):
        pca = PCA(3, whiten=whiten).fit(X)
        axes = principal_axes.principal_axes(X, np.ones(50), 3, whiten)
        scale = np.sqrt(50 / 49) if whiten else 1  # scikit-learn divides by N - 1
        found, expected = principal_axes.project(axes, X), pca.transform(X) * scale
        assert_allclose(np.abs(found), np.abs(expected), rtol=1e-8, atol=1e-10)
    times = RNG.integers(0, 4, 50)
    one = principal_axes.principal_axes(X, times.astype(float), 2, True)
    other = principal_axes.principal_axes(np.repeat(X, times, axis=0), np.ones(times.sum()), 2, True)
    assert_allclose(one.basis, other.basis, rtol=1e-9)


def test_a_stack_is_its_layers_one_after_the_other():
    stack = deep().fit(IMAGES, LABELS)
    X = IMAGES
    for number, layer in enumerate(stack.layers_):
        assert_allclose(stack.maps(IMAGES[:4], number), layer.maps(X[:4]), rtol=1e-12, atol=1e-14)
        X = layer.transform(X)
    assert_allclose(stack.transform(IMAGES), X.reshape(30, -1), rtol=1e-12)
    assert stack.transform(IMAGES).shape == (30, 2 * 1 * 3)
    code = principal_axes.project(stack.axes_, X.reshape(30, -1))
    assert_allclose(stack.log_joint(IMAGES), stack.top_.log_joint(code), rtol=1e-8)
    assert_array_equal(stack.predict(IMAGES), stack.top_.predict(code))
    assert_allclose(stack.score_samples(IMAGES), logsumexp(stack.log_joint(IMAGES), axis=1))
    assert stack.score(IMAGES, LABELS) == np.mean(stack.predict(IMAGES) == LABELS)
    parts = sum(layer.mixture_.n_parameters() for layer in stack.layers_) + stack.top_.n_parameters()
    assert stack.n_parameters() == parts + (12 * 5 + 12) + (6 * 3 + 6)


def deep(**settings):
    layers = [
        PatchLayer(CIRCULANT, side=4, min_std=0.2, cells=(4, 3), window=3, n_patches=500),
        PatchLayer(FULL, side=(2, 1), cells=(3, 3), pooling="sum", inverse_temperature=0.1),
        PatchLayer(FULL, side=(2, 2), n_axes=5, whiten=True, cells=(2, 1), inverse_temperature=0.1),
    ]
    top = GenerativeClassifier(FullGMM(1, reg_covar=0.1))
    options = {"layers": layers, "top": top, "n_axes": 3, "random_state": 0}
    return ConvolutionalStack(**options | settings)


def test_the_top_can_be_fitted_to_labelled_images_alone():
    stack = deep(top=None).fit(IMAGES)
    assert not hasattr(stack, "top_")
    with pytest.raises(ValueError, match=r"^top must be a fitted model for predict; got none"):
        stack.predict(IMAGES)
    stack.set_params(top=GenerativeClassifier(FullGMM(1, reg_covar=0.1)))
    few = np.r_[:5, 20:25]
    codes = principal_axes.project(stack.axes_, stack.transform(IMAGES))
    alone = GenerativeClassifier(FullGMM(1, reg_covar=0.1)).fit(codes[few], LABELS[few])
    stack.fit_top(IMAGES[few], LABELS[few])
    assert_allclose(stack.log_joint(IMAGES), alone.log_joint(codes), rtol=1e-8)


def test_a_fitted_layer_can_be_the_lowest_with_other_cells():
    lowest = deep().layers[0].set_params(random_state=3).fit(IMAGES)
    spectra = lowest.mixture_.spectra_.copy()
    frozen = FrozenEstimator(copy(lowest).set_params(cells=(3, 3), window=4))
    second = PatchLayer(FULL, side=(2, 1), cells=2, random_state=1)
    stack = ConvolutionalStack([frozen, second], top=FullGMM(1), n_axes=2).fit(IMAGES)
    alone = second.fit(frozen.transform(IMAGES))
    assert_allclose(stack.transform(IMAGES), alone.transform(frozen.transform(IMAGES)).reshape(30, -1))
    assert stack.layers_[0].cell_shape_ == (3, 3, 4)
    assert lowest.cell_shape_ == (4, 3, 4)
    assert_array_equal(stack.layers_[0].mixture_.spectra_, spectra)
    again = clone(stack).set_params(random_state=5, layer1__n_patches=40).fit(IMAGES)
    assert_array_equal(again.layers_[0].mixture_.spectra_, spectra)
    assert refusal(lambda: stack.fit(IMAGES[:, :9])).startswith(
        "A fitted layer must get maps as in its fit, (11, 9, 1); got (9, 9, 1). Pass such maps, or the layer"
    )
    frozen.estimator.cells = 20
    assert refusal(lambda: stack.fit(IMAGES)).startswith("cells must be at most 8")
    unfitted = ConvolutionalStack([FrozenEstimator(clone(second))])
    assert refusal(lambda: unfitted.fit(IMAGES)).startswith("layers must be a sequence of at least one")


def test_a_stack_on_a_frozen_layer_comes_back(tmp_path):
    frozen = FrozenEstimator(deep().layers[0].set_params(random_state=3).fit(IMAGES))
    stack = ConvolutionalStack([frozen], top=FullGMM(2, reg_covar=0.1), n_axes=2, random_state=0).fit(IMAGES)
    stack.save(tmp_path / "stack.npz")
    loaded = ConvolutionalStack.load(tmp_path / "stack.npz")
    assert_array_equal(loaded.log_joint(IMAGES), stack.log_joint(IMAGES))


def test_a_seed_reaches_every_part():
    one, other, third = (deep(random_state=seed).fit(IMAGES, LABELS) for seed in (4, 4, 5))
    assert_array_equal(one.transform(IMAGES), other.transform(IMAGES))
    assert (one.layers_[0].mixture_.spectra_ != third.layers_[0].mixture_.spectra_).any()
    seeds = {name: v for name, v in one._seeded()[0].get_params().items() if name.endswith("__random_state")}
    assert len(seeds) == len(set(seeds.values())) == 8  # six in layers, two in the top
    assert all(layer.random_state is None for layer in one.layers)


# ------------------------------------------------------------------------------ shifts, chunks and threads


@pytest.mark.parametrize("mixture", [CIRCULANT, FULL], ids=["circulant", "full"])
def test_an_image_moved_by_strides_moves_its_maps(mixture):
    image = np.zeros((1, 20, 18))
    image[0, 6:13, 4:12] = RNG.standard_normal((7, 8))
    layer = PatchLayer(mixture, side=4, stride=2, min_std=0.1).fit(IMAGES[:, :10, :8])
    layer.map_shape_ = (20, 18, 1)
    moved = np.roll(image, (2, 4), axis=(1, 2))
    found, expected = layer.maps(moved), np.roll(layer.maps(image), (1, 2), axis=(1, 2))
    assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert found.std() > 0.1


def test_a_circulant_layer_sees_a_patch_and_its_cyclic_shift_alike():
    layer = PatchLayer(CIRCULANT, side=(5, 4)).fit(IMAGES)
    layer.map_shape_ = (5, 4, 1)
    one = IMAGES[:, :5, :4]
    assert_allclose(layer.maps(np.roll(one, (2, 3), axis=(1, 2))), layer.maps(one), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
@pytest.mark.parametrize("threads", [1, 2])
def test_bits_do_not_depend_on_chunks_and_threads(chunk_size, threads, monkeypatch):
    monkeypatch.setattr(patches, "BLOCK", 3 * 48)  # three images of 48 patches
    monkeypatch.setattr(patches, "AT_ONCE", 100)

    def run(chunk_size, threads):
        layers = [clone(layer).set_params(chunk_size=chunk_size) for layer in deep().layers]
        with threadpool_limits(threads, user_api="blas"):
            stack = deep(layers=layers).fit(IMAGES, LABELS)
            return stack.transform(IMAGES), stack.log_joint(IMAGES), stack.maps(IMAGES, 1)

    for found, expected in zip(run(chunk_size, threads), run(64, 1), strict=True):
        assert_array_equal(found, expected)


def test_maps_are_never_kept_whole():
    X = RNG.random((8000, 16, 16)).astype(np.float32)
    layer = PatchLayer(
        ConvolutionalGMM(8, max_iter=1, tol=0.0, random_state=0), side=4, cells=2, n_patches=500
    ).fit(X[:50])
    tracemalloc.start()
    layer.transform(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    returned, whole = (8000 * n_codes * 8 * 8 for n_codes in (2 * 2, 13 * 13))
    assert peak < returned + 1.5e7 < whole / 4


# ------------------------------------------------------------------------------ kernels


@pytest.mark.parametrize("shape", [(3, 4), (5, 2), (1, 3), (8, 8)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_window_powers_are_those_of_each_window(shape, stride):
    images = RNG.standard_normal((2, 14, 11))
    layout = spectrum.fold(shape)
    model = ConvolutionalGMM(1, init={"weights": [1.0], "spectra": np.ones((1, shape[0], shape[1] // 2 + 1))})
    windows = np.lib.stride_tricks.sliding_window_view(images, shape, axis=(1, 2))
    windows = windows[:, :: stride[0], :: stride[1]].reshape(-1, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scorer = model.set_params(max_iter=1).fit(windows).windows(stride)
    expected = spectrum.powers(windows, layout)[:, scorer._by_column]
    assert_allclose(scorer._powers(images).T, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["HARD", "SOFT", "LOG_ODDS"])
@pytest.mark.parametrize("spread", [0.1, 3.0, 300.0])
def test_rows_are_encoded_as_their_twin_says(kind, spread):
    from gmmlib import _map_loops

    joint = RNG.normal(-1000, spread, size=(60, 5))
    joint[3, 2] = joint[3, 4] = joint[3].max() + 1
    layer = PatchLayer(FULL, side=1, encoding=kind.lower(), inverse_temperature=0.7)
    for row in joint:
        found = row.copy()
        _kernels.encode_row(found, getattr(_map_loops, kind), 0.7, 1e-8)
        assert_allclose(found, code_by_hand(row, layer), rtol=1e-9, atol=1e-12)
    one = np.array([-5.0])
    _kernels.encode_row(one, _map_loops.LOG_ODDS, 1.0, 1e-8)
    assert one == 40


# ------------------------------------------------------------------------------ errors


def refusal(action):
    with pytest.raises(ValueError) as caught:
        action()
    return str(caught.value)


TEXTS = {
    "X must hold maps that stride=3 divides into patches of side 4 with border=0; got 11 in height. Sizes "
    "that do are 10 and 13: crop or pad the maps, or change stride or border.": {"side": 4, "stride": (3, 1)},
    "X must hold maps of at least 12 in height, so that a patch of side 12 fits with border=0; got 11. Pass "
    "larger maps, or take smaller patches.": {"side": 12},
    "cells must be at most 6, the columns of patches on a map; got 7. Ask for fewer cells, or take a smaller "
    "stride.": {"cells": 7},
    "window must be from 3 to 8 for 3 cells to cover the 8 rows of patches on a map; got 2.": {
        "cells": 3,
        "window": 2,
    },
    "side must be one number, or two for rows and columns; got (1, 2, 3).": {"side": (1, 2, 3)},
    "border must be a positive integer; got -1.": {"border": -1},
    'border must be smaller than the map with padding="reflect"; got (9, 9) for maps of 11 x 9. Take a '
    "smaller border, or another padding.": {"border": 9, "side": 10, "padding": "reflect"},
    "border must be smaller than side=(4, 4), for every patch to hold a part of the map; got (4, 0). Take a "
    "smaller border.": {"border": (4, 0)},
    'encoding must be "hard", "soft" or "log_odds"; got \'soft max\'.': {"encoding": "soft max"},
    'pooling must be "sum" or "max" with encoding="log_odds", which may be negative; got "sqrt".': {
        "encoding": "log_odds"
    },
    "window needs cells, how many windows there are; got window=3 and cells=None.": {"window": 3},
    "inverse_temperature must be a finite number > 0; got 0.": {"inverse_temperature": 0},
    "n_axes must be at most 16, the directions in which the 300 rows of length 16 vary; got 17. Ask for "
    "fewer axes, or pass more rows of X.": {"mixture": FULL, "n_axes": 17, "n_patches": 300},
    "min_std=99 must leave patches to fit; got none of 300 that reaches it, the largest standard deviation "
    "being ": {"min_std": 99.0, "n_patches": 300},
}


@pytest.mark.parametrize("text", TEXTS)
def test_layers_say_what_does_not_fit(text):
    layer = PatchLayer(CIRCULANT, side=4, random_state=0).set_params(**TEXTS[text])
    found = refusal(lambda: layer.fit(IMAGES))
    assert found.startswith(text) if text.endswith("being ") else found == text
    stack = ConvolutionalStack([layer], FULL)
    with pytest.raises(ValueError, match="^") as caught:
        stack.fit(IMAGES)
    assert caught.value.__notes__ == [
        "This is about layers[0], counted from the lowest, 0; the stack is as before."
    ]


def test_mixtures_say_which_maps_they_take():
    maps = RNG.standard_normal((9, 6, 6, 2))
    assert refusal(lambda: PatchLayer(CIRCULANT, side=3).fit(maps)).startswith(
        "mixture must take vectors where maps have 2 channels; got ConvolutionalGMM("
    )
    assert refusal(lambda: PatchLayer(CIRCULANT, side=3, n_axes=2).fit(IMAGES)).startswith(
        "n_axes must be None for a mixture of images; got 2 and ConvolutionalGMM("
    )
    assert refusal(lambda: PatchLayer(FULL.fit, side=3).fit(IMAGES)).startswith(
        "mixture must be an estimator with fit and log_joint; got "
    )
    layer = PatchLayer(FULL, side=3).fit(maps)
    assert refusal(lambda: layer.transform(maps[..., :1])) == (
        "X must hold maps of 6 x 6 with 2 channels, as in the fit; got 6 x 6 with 1. Pass maps of that "
        "shape, or fit another layer."
    )
    maps[3, 2, 1, 0] = np.nan
    assert refusal(lambda: layer.transform(maps)) == (
        "X must be finite; got 1 value that is NaN or infinite, the first at index (3, 2, 1, 0). Remove or "
        "replace them first."
    )


def test_stacks_say_what_they_need():
    assert refusal(lambda: ConvolutionalStack([]).fit(IMAGES)) == (
        "layers must be a sequence of at least one PatchLayer, the lowest first; got []. A single layer goes "
        "into a list, and a fitted one that is to stay into a FrozenEstimator."
    )
    layer = PatchLayer(CIRCULANT, side=4, random_state=0)
    assert refusal(lambda: ConvolutionalStack([layer], FullGMM).fit(IMAGES)).startswith(
        "top must be None or a model with the methods fit, log_joint, predict, predict_proba, "
        "predict_log_proba; got <class "
    )
    stack = ConvolutionalStack([layer], GenerativeClassifier(FULL))
    assert refusal(lambda: stack.fit(IMAGES)) == (
        "y must hold a class for each row of X with a classifier on top; got None. Pass labels, or take a "
        "mixture as top."
    )
    assert refusal(lambda: stack.fit(IMAGES, LABELS[:9])) == (
        "y must hold a class for each of the 30 rows of X; got shape (9,)."
    )
    fitted = deep().fit(IMAGES, LABELS)
    assert refusal(lambda: fitted.maps(IMAGES, 3)) == "layer must be an integer from 0 to 2; got 3."
    before = fitted.log_joint(IMAGES)
    with pytest.raises(ValueError, match="n_components=4 needs"):
        fitted.set_params(layer0__n_patches=2).fit(IMAGES, LABELS)
    assert_array_equal(fitted.log_joint(IMAGES), before)


# ------------------------------------------------------------------------------ files


def test_a_deep_stack_comes_back(tmp_path):
    stack = deep().fit(IMAGES, LABELS)
    stack.save(tmp_path / "stack.npz")
    loaded = ConvolutionalStack.load(tmp_path / "stack.npz")
    assert_array_equal(loaded.log_joint(IMAGES), stack.log_joint(IMAGES))
    assert_array_equal(loaded.maps(IMAGES, 2), stack.maps(IMAGES, 2))
    assert loaded.n_parameters() == stack.n_parameters()
    bare = deep(top=None, n_axes=None).fit(IMAGES)
    bare.save(tmp_path / "bare.npz")
    assert_array_equal(
        ConvolutionalStack.load(tmp_path / "bare.npz").transform(IMAGES), bare.transform(IMAGES)
    )


def damaged_side(settings, arrays):
    settings["layers"][0]["side"] = 3


def damaged_stride(settings, arrays):
    settings["layers"][1]["stride"] = 5


def damaged_axes(settings, arrays):
    arrays["axestop.basis"] = arrays["axestop.basis"][:-1]


def damaged_top(settings, arrays):
    settings["n_axes"] = 2
    arrays["axestop.basis"] = arrays["axestop.basis"][:, :2]


def damaged_layers(settings, arrays):
    settings["layers"] = settings["layers"][:1]


def damaged_values(settings, arrays):
    arrays["axes2.mean"] = arrays["axes2.mean"] * np.nan


def damaged_names(settings, arrays):
    del settings["layers"][0]["side"]


@pytest.mark.parametrize("value", ["text", -1, 1.5, [1], [], {}, float("nan"), 10**400])
def test_settings_of_layers_in_files_are_checked(value, tmp_path):
    settings, arrays = deep().fit(IMAGES, LABELS).to_arrays()
    loaded = []
    for name in settings["layers"][1]:
        layers = [entry | ({name: value} if i == 1 else {}) for i, entry in enumerate(settings["layers"])]
        storage.write(tmp_path / "stack.npz", "ConvolutionalStack", settings | {"layers": layers}, arrays)
        try:
            ConvolutionalStack.load(tmp_path / "stack.npz")
        except storage.ModelFileError:
            continue
        loaded.append(name)
    assert set(loaded) <= ({"min_std", "inverse_temperature"} if value == 1.5 else set())


@pytest.mark.parametrize(
    "damage",
    [
        damaged_side,
        damaged_stride,
        damaged_axes,
        damaged_top,
        damaged_layers,
        damaged_values,
        damaged_names,
    ],
)
def test_files_that_no_fit_can_have_made_are_refused(damage, tmp_path):
    settings, arrays = deep().fit(IMAGES, LABELS).to_arrays()
    damage(settings, arrays)
    storage.write(tmp_path / "stack.npz", "ConvolutionalStack", settings, arrays)
    with pytest.raises(storage.ModelFileError):
        ConvolutionalStack.load(tmp_path / "stack.npz")
