"""How layers of patches are stacked: fitted from the lowest up, and read from images to codes in blocks."""

from collections.abc import Sequence
from copy import copy

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.frozen import FrozenEstimator

from gmmlib import _checks
from gmmlib.compose import patches
from gmmlib.compose.patch_layer import PatchLayer
from gmmlib.compose.principal_axes import principal_axes, project

AXES_ROWS = 10_000  # codes that the axes are of, at most: some hundred megabytes
TOP_METHODS = ("fit", "log_joint", "predict", "predict_proba", "predict_log_proba")


def maps_through(X, layers):
    """A function of a slice of rows to the maps that the layer above `layers` takes, (n, H, W, channels)."""
    encoders = [layer.encoder() for layer in layers]

    def maps(rows):
        found = X[rows][..., None]
        for encode in encoders:
            found = encode(found)
        return found

    return maps


def codes(X, layers, axes=None):
    """Cells of images (N, H, W) in the last layer, (N, cells K), or their coordinates along axes."""
    if not layers:
        return X.reshape(len(X), -1)
    maps = maps_through(X, layers)
    width = np.prod(layers[-1].cell_shape_) if axes is None else axes.basis.shape[1]

    def code(rows):
        cells = maps(rows)
        return project(axes, cells.reshape(len(cells), -1))

    with layers[0].workers(layers[0].map_shape_) as workers:
        return workers.fill(code, np.empty((len(X), width)))


def fitted_layers(layers, X, weight):
    """Fitted clones of layers, each on the cells of the one below, for images with weights (N,).

    Frozen layers are taken as they are.
    """
    fitted, shape = [], (*X.shape[1:], 1)
    for number, layer in enumerate(layers):
        frozen = isinstance(layer, FrozenEstimator)
        layer = copy(layer.estimator) if frozen else clone(layer)
        try:
            if frozen:
                _check_frozen(layer, shape)
            else:
                layer.fit_streamed(maps_through(X, fitted), shape, weight)
        except BaseException as error:
            error.add_note(
                f"This is about layers[{number}], counted from the lowest, 0; the stack is as before."
            )
            raise
        fitted.append(layer)
        shape = layer.cell_shape_
    return fitted


def _check_frozen(layer, shape):
    """Refuse maps (H, W, channels) that are not those of the fit, or settings that were changed since."""
    patches.check_settings(layer)
    layer.grid(layer.map_shape_)
    if tuple(shape) != layer.map_shape_:
        raise ValueError(
            f"A fitted layer must get maps as in its fit, {layer.map_shape_}; got {tuple(shape)}. Pass such "
            "maps, or the layer without its FrozenEstimator, to be fitted again."
        )


def axes_of_codes(layers, X, weight, n_axes, whiten, rng):
    """Principal axes of the codes of at most AXES_ROWS images; None without `n_axes`."""
    if n_axes is None:
        return None
    counted = np.flatnonzero(weight)
    if len(counted) > AXES_ROWS:
        counted = np.sort(rng.choice(counted, AXES_ROWS, replace=False))
    found = codes(X[counted], layers)
    with layers[0].workers(layers[0].map_shape_):  # BLAS has one thread there: its number changes no digit
        return principal_axes(found, weight[counted], n_axes, whiten)


def fitted_top(top, layers, axes, X, y, weight):
    """A fitted clone of the top, on the codes of images; None if there is no top."""
    if top is None:
        return None
    try:
        labels = (y,) if is_classifier(top) else ()
        return clone(top).fit(codes(X, layers, axes), *labels, sample_weight=weight)
    except BaseException as error:
        error.add_note("This is about the top, on the code of the last layer; the stack is as before.")
        raise


def check_labels(top, X, y):
    """Refuse to begin without a class for each image if the top needs them."""
    if top is None or not is_classifier(top):
        return
    if y is None:
        raise ValueError(
            "y must hold a class for each row of X with a classifier on top; got None. Pass labels, or "
            "take a mixture as top."
        )
    if np.shape(y)[:1] != X.shape[:1]:
        raise ValueError(f"y must hold a class for each of the {len(X)} rows of X; got shape {np.shape(y)}.")


def _is_layer(layer):
    """Whether a layer can be fitted, or is frozen and was."""
    frozen = isinstance(layer, FrozenEstimator)
    inside = layer.estimator if frozen else layer
    return isinstance(inside, PatchLayer) and (not frozen or hasattr(inside, "mixture_"))


def check_settings(stack):
    """Refuse settings of a stack that cannot be used."""
    _checks.settings(stack)
    _checks.truth(stack.whiten, "whiten")
    _checks.random_state(stack.random_state)
    if stack.n_axes is not None:
        _checks.positive_integer(stack.n_axes, "n_axes")
    layers, top = stack.layers, stack.top
    good = isinstance(layers, Sequence) and len(layers) > 0
    if not good or not all(map(_is_layer, layers)):
        raise ValueError(
            f"layers must be a sequence of at least one PatchLayer, the lowest first; got {layers!r}. A "
            "single layer goes into a list, and a fitted one that is to stay into a FrozenEstimator."
        )
    lacking = [method for method in TOP_METHODS if not hasattr(top, method)]
    if top is not None and (lacking or isinstance(top, type)):
        raise ValueError(
            f"top must be None or a model with the methods {', '.join(TOP_METHODS)}; got {top!r}. Pass "
            "an unfitted one such as GenerativeClassifier(FullGMM(8)) or FullGMM(10)."
        )
