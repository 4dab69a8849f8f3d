"""The same numbers give the same bits, however they lie in memory."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from gmmlib import (
    ConvolutionalGMM,
    FullGMM,
    GenerativeClassifier,
    StackedGMM,
    bispectrum,
    metrics,
    patches,
    split_merge,
    twosample,
)
from gmmlib.stationary.discriminative import DiscriminativeGMM
from gmmlib.stationary.hierarchical import HierarchicalGMM
from gmmlib.stationary.penalised import PenalisedGMM
from gmmlib.stationary.phaseblind import PhaseBlindGMM
from gmmlib.stationary.transformed import TransformedGMM

RNG = np.random.default_rng(0)
IMAGES = RNG.gamma(2.0, size=(3, 1, 1, 1)) * RNG.normal(0.1, 1.0, size=(3, 30, 7, 6)).cumsum(axis=3)
IMAGES = RNG.permutation(IMAGES.reshape(90, 7, 6))
GROUPS = IMAGES.reshape(45, 2, 7, 6)
ROWS = IMAGES[:, :, :5].reshape(90, -1) @ RNG.normal(size=(35, 80))  # wide enough for a search in blocks
LABELS = np.arange(90) % 3
WEIGHT = RNG.gamma(2.0, size=90)

MODELS = {
    "convolutional": (ConvolutionalGMM(3, max_iter=5, random_state=0, chunk_size=32, tol=0.0), IMAGES),
    "penalised": (PenalisedGMM(3, max_iter=3, random_state=0, tol=0.0), IMAGES),
    "templates": (TransformedGMM(2, max_iter=3, random_state=0, tol=0.0), IMAGES),
    "phase-blind": (PhaseBlindGMM(2, max_iter=3, random_state=0), IMAGES),
    "hierarchical": (HierarchicalGMM(3, 2, max_iter=3, random_state=0, tol=0.0), GROUPS),
    "discriminative": (DiscriminativeGMM(1, max_iter=3, random_state=0), IMAGES),
    "by class": (GenerativeClassifier(ConvolutionalGMM(2, max_iter=2, tol=0.0), random_state=0), IMAGES),
    "rows by class": (GenerativeClassifier(FullGMM(1, reg_covar=0.1), random_state=0), ROWS),
    "stack": (StackedGMM([ConvolutionalGMM(3, random_state=0), FullGMM(2, random_state=0)]), IMAGES),
    "full": (FullGMM(3, max_iter=5, reg_covar=0.1, init="random_from_data", random_state=0), ROWS),
    "full, few columns": (FullGMM(3, max_iter=5, random_state=0, chunk_size=32), ROWS[:, :9].copy()),
    "full, zero means": (FullGMM(3, max_iter=5, zero_means=True, reg_covar=0.1, random_state=0), ROWS),
}  # fmt: skip


def spread(X):
    """Every second entry of a larger array, along each axis."""
    large = np.full([2 * side for side in X.shape], np.nan, dtype=X.dtype)
    view = large[tuple(slice(None, None, 2) for _ in X.shape)]
    view[...] = X
    return view


FORMS = {
    "fortran": np.asfortranarray,
    "reversed": lambda X: np.flip(np.flip(X).copy()),
    "strided": spread,
    "other bytes": lambda X: X.astype(X.dtype.newbyteorder()),
    "axes moved": lambda X: np.moveaxis(np.moveaxis(X, 0, -1).copy(), -1, 0),
}


def learned(model):
    """Every array that a fit leaves, layers and densities included."""
    arrays = {}
    for name, value in vars(model).items():
        for number, part in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(part, np.ndarray) and part.dtype != object:
                arrays[f"{name}{number}"] = part
            elif hasattr(part, "fit") and name.endswith("_"):
                arrays |= {f"{name}{number}.{key}": array for key, array in learned(part).items()}
    return arrays


def results(model, X, weight=None, **others):
    """Bits of all that the model learns and says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if weight is None or isinstance(model, StackedGMM):
            model.fit(X, LABELS[: len(X)], **others)
        else:
            model.fit(X, LABELS[: len(X)], sample_weight=weight, **others)
    found = learned(model)
    assert len(found) > 2
    for name in ("log_joint", "score_samples", "predict_proba", "predict", "transform"):
        if hasattr(model, name):
            found[name] = getattr(model, name)(X)
    if hasattr(model, "predict_shift"):
        found["shift"] = model.predict_shift(X)[1]
    return {name: array.tobytes() for name, array in found.items()}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_the_bits_do_not_depend_on_the_order_in_memory(name, form, dtype):
    model, X = MODELS[name]
    X, weight = X.astype(dtype), WEIGHT[: len(X)]
    other = FORMS[form](X)
    assert (other == X).all()
    assert not other.flags.c_contiguous or not other.dtype.isnative
    assert results(model, other, FORMS[form](weight)) == results(model, X, weight)


@pytest.mark.parametrize("name", ["full", "full, few columns", "rows by class"])
def test_a_frame_gives_the_bits_of_its_array(name):
    model, X = MODELS[name]
    frame = pd.DataFrame(X)
    assert results(model, frame) == results(model, X)
    columns = {f"c{number}": X[:, number].copy() for number in range(X.shape[1])}
    assert results(model, pd.DataFrame(columns)) == results(model, X)


@pytest.mark.parametrize("form", FORMS)
def test_a_start_gives_the_same_bits(form):
    of = FORMS[form]
    start = {"weights": np.full(3, 1 / 3), "spectra": RNG.gamma(2.0, size=(3, 7, 4))}
    other = {key: of(value) for key, value in start.items()}
    model = ConvolutionalGMM(3, max_iter=2, tol=0.0)
    assert results(model.set_params(init=other), IMAGES) == results(model.set_params(init=start), IMAGES)
    start = {
        "weights": start["weights"],
        "means": ROWS[:3, :9].copy(),
        "covariances": np.stack([np.eye(9)] * 3),
    }
    other = {key: of(value) for key, value in start.items()}
    model, X = FullGMM(3, max_iter=2), ROWS[:, :9].copy()
    assert results(model.set_params(init=other), X) == results(model.set_params(init=start), X)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["convolutional", "full"])
def test_batches_give_the_same_bits(name, form):
    model, X = MODELS[name]

    def bits(batch):
        found = learned(clone(model).partial_fit(batch).partial_fit(batch))
        return {name: array.tobytes() for name, array in found.items()}

    assert bits(FORMS[form](X)) == bits(X)


@pytest.mark.parametrize("form", FORMS)
def test_functions_give_the_same_bits(form):
    of = FORMS[form]
    resp = RNG.dirichlet(np.ones(5), size=70)
    for function, X in [
        (lambda x: bispectrum.invariants(x).bispectrum, IMAGES[:5]),
        (patches.remove_mean, IMAGES),
        (metrics.confusion, resp),
        (metrics.mean_confusion, resp),
        (metrics.entropy, resp),
        (lambda x: twosample.nearest(x, ROWS, 3)[0], ROWS + 0.1),
        (lambda x: twosample.spectrum_error(x, IMAGES[::-1].copy() + 0.1), IMAGES),
    ]:
        assert np.asarray(function(of(X))).tobytes() == np.asarray(function(X)).tobytes()


def test_split_and_merge_gives_the_same_bits():
    model = ConvolutionalGMM(3, max_iter=3, random_state=0, tol=0.0).fit(IMAGES)
    found = [
        split_merge.improve(model, X, n_moves=2, random_state=0)[0].spectra_.tobytes()
        for X in (IMAGES, np.asfortranarray(IMAGES))
    ]
    assert found[0] == found[1]
