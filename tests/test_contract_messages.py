"""What every estimator says about arguments that all of them share, to the letter."""

import re
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone, is_classifier

from tests.subjects import CLASSES, LEARNED, SUBJECTS
from tests.test_inputs import data_argument, methods_of_data

OF_IMAGES = [name for name, (_, X) in SUBJECTS.items() if X.ndim == 3]
DRAWING = [name for name, (model, _) in SUBJECTS.items() if hasattr(model, "sample")]
WITH_COMPONENTS = [name for name, (model, _) in SUBJECTS.items() if hasattr(model, "n_components")]


@cache
def fitted(name):
    """A subject after its fit, for tests that leave it as it is."""
    model, X = SUBJECTS[name]
    return clone(model).fit(X, CLASSES)


def refusal(action):
    """Text of the ValueError that an action raises."""
    with pytest.raises(ValueError) as caught:
        action()
    return str(caught.value)


def fitting(name, X=None, weight=None, **settings):
    """A fit of a subject, as a function."""
    model, own = SUBJECTS[name]
    model = clone(model).set_params(**settings)
    return lambda: model.fit(own if X is None else X, CLASSES, sample_weight=weight)


# ------------------------------------------------------------------------------ settings

SETTINGS = {
    "n_components": {0: "a positive integer", 2.0: "a positive integer"},
    "n_top": {0: "a positive integer"},
    "max_iter": {0: "a positive integer"},
    "em_iter": {0: "a positive integer"},
    "chunk_size": {0: "a positive integer", 1.5: "a positive integer"},
    "tol": {-1.0: "a finite number >= 0"},
    "reg_covar": {-1e-6: "a finite number >= 0"},
    "shrinkage": {-0.1: "a finite number >= 0"},
    "strength": {-1.0: "a finite number >= 0"},
    "variance_floor": {-1e-6: "a finite number >= 0"},
    "temperature": {0.0: "a finite number > 0"},
    "random_state": {
        -5: "None, an integer >= 0 or a numpy Generator or RandomState",
        "x": "None, an integer >= 0 or a numpy Generator or RandomState",
    },
}
ABOVE_ZERO = {("DiscriminativeGMM", "variance_floor"): "a finite number > 0"}
CASES = [
    (name, setting, value, ABOVE_ZERO.get((name, setting), expected))
    for name, (model, _) in SUBJECTS.items()
    for setting in model.get_params(deep=False)
    for value, expected in SETTINGS.get(setting, {}).items()
]


@pytest.mark.parametrize(("name", "setting", "value", "expected"), CASES)
def test_a_bad_setting_is_named_with_what_was_expected(name, setting, value, expected):
    settings = {setting: value}
    if setting == "random_state" and "init" in SUBJECTS[name][0].get_params():
        settings["init"] = "random_from_data"
    assert refusal(fitting(name, **settings)) == f"{setting} must be {expected}; got {value!r}."


@pytest.mark.parametrize("name", [name for name in WITH_COMPONENTS if name not in ("DiscriminativeGMM",)])
def test_more_components_than_rows_are_refused(name):
    rows = 48 if name.startswith("HierarchicalGMM") else 24  # it has as many rows as images
    assert refusal(fitting(name, n_components=50)) == (
        f"n_components=50 needs at least as many rows of positive weight in X; got {rows}. "
        "Pass more data or ask for fewer components."
    )


# ------------------------------------------------------------------------------ row weights

ONES = np.ones(24)
WEIGHTS = {
    "sample_weight must hold one weight a row, shape (24,); got shape (2,).": [1, 1],
    "sample_weight must not be negative; got -1 at index 4.": np.where(np.arange(24) == 4, -1.0, 1.0),
    "sample_weight must not be zero everywhere; got all zeros: no row would count.": 0 * ONES,
}


@pytest.mark.parametrize("text", WEIGHTS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_bad_row_weights_are_named(name, text):
    assert refusal(fitting(name, weight=WEIGHTS[text])) == text


# ------------------------------------------------------------------------------ data


def with_nan(X):
    X = X.copy()
    X[3, 1] = np.nan
    return X


IMAGE_TEXTS = {
    "X must hold images in an array of shape (N, H, W); got shape (24, 12). One image is image[None]; rows "
    "of pixels are reshaped with X.reshape(-1, H, W).": lambda X: X.reshape(24, 12),
    "X must hold real numbers; got dtype complex128.": lambda X: X + 1j,
    "X must hold real numbers; got dtype object.": lambda X: X.astype(object),
    "X must hold at least one image of at least one pixel; got shape (0, 3, 4).": lambda X: X[:0],
    "X must be finite; got 4 values that are NaN or infinite, the first at index (3, 1, 0). "
    "Remove or replace them first.": with_nan,
}
OWN_ROWS = ("GenerativeClassifier of images",)  # it looks at rows as rows, and at their number before that


@pytest.mark.parametrize("text", IMAGE_TEXTS)
@pytest.mark.parametrize("name", [name for name in OF_IMAGES if name not in OWN_ROWS])
def test_what_are_no_images_is_refused(name, text):
    assert refusal(fitting(name, IMAGE_TEXTS[text](SUBJECTS[name][1]))) == text


@pytest.mark.parametrize("name", SUBJECTS)
def test_numbers_that_would_overflow_are_refused(name):
    text = refusal(fitting(name, 1e200 * SUBJECTS[name][1]))
    assert text.startswith("X must be at most 1e+150 in size, so that products do not overflow; got ")
    assert text.endswith("Scale the data first.")


@pytest.mark.parametrize("name", ["FullGMM", "GenerativeClassifier of rows", "StackedGMM of rows"])
def test_rows_with_holes_are_refused(name):
    assert refusal(fitting(name, with_nan(SUBJECTS[name][1]))) == (
        "X must be finite; got 1 value that is NaN or infinite, the first at index (3, 1). "
        "Remove or replace them first."
    )


SCORING = [
    (name, method)
    for name in OF_IMAGES
    for method in methods_of_data(name)
    if "fit" not in method or method == "partial_fit"  # the others forget the size
]


@pytest.mark.parametrize(("name", "method"), SCORING)
def test_images_of_another_size_than_in_the_fit_are_refused(name, method):
    model, X = deepcopy(fitted(name)), SUBJECTS[name][1][..., :3]
    argument = data_argument(getattr(model, method))
    assert refusal(lambda: getattr(model, method)(X, *labels_for(model, method))) == (
        f"{argument} must hold images of 3 x 4 pixels, the size the model was fitted on; got 3 x 3. "
        "Crop or resize them, or fit a model on this size."
    )


def labels_for(model, method):
    """What a method takes beside data."""
    if method == "score" and is_classifier(model):
        return (CLASSES,)
    beside = {"statistics_given": (np.full((len(CLASSES), 2), 0.5),), "posterior_mean": (0.5,)}
    return beside.get(method, ())


COLUMNS = {
    "FullGMM": "FullGMM",
    "FullGMM, values missing": "FullGMM",
    "GenerativeClassifier of rows": "GenerativeClassifier",
    "StackedGMM of rows": "FullGMM",
}


@pytest.mark.parametrize("name", COLUMNS)
def test_rows_of_other_columns_than_in_the_fit_are_refused(name):
    expected = f"X has 2 features, but {COLUMNS[name]} is expecting 3 features as input."
    model, X = fitted(name), SUBJECTS[name][1][:, :2]
    for method in ("log_joint", "score_samples", "score", "predict", "predict_proba", "aic", "bic"):
        if hasattr(model, method):
            call, labels = getattr(model, method), labels_for(model, method)
            assert refusal(lambda call=call, labels=labels: call(X, *labels)) == expected


# ------------------------------------------------------------------------------ samples


@pytest.mark.parametrize("name", DRAWING)
def test_samples_have_the_shape_of_rows_and_repeat_with_their_seed(name):
    model, X = fitted(name), SUBJECTS[name][1]
    (x, labels, *_), (again, *_), (other, *_) = (model.sample(20, random_state=seed) for seed in (4, 4, 5))
    assert x.shape == (20, *X.shape[1:])
    assert labels.shape == (20,)
    assert np.isfinite(x).all()
    assert_array_equal(x, again)
    assert (x != other).any()
    rng = np.random.default_rng(4)
    assert_array_equal(model.sample(20, random_state=rng)[0], x)
    assert (model.sample(20, random_state=rng)[0] != x).any()
    assert model.sample()[0].shape == (1, *X.shape[1:])
    if not name.startswith("HierarchicalGMM"):  # its labels come as they are drawn
        assert_array_equal(labels, np.sort(labels))


@pytest.mark.parametrize("name", DRAWING)
def test_bad_samples_are_named(name):
    sample = fitted(name).sample
    assert refusal(lambda: sample(0)) == "n_samples must be a positive integer; got 0."
    assert refusal(lambda: sample(1, random_state="x")) == (
        "random_state must be None, an integer >= 0 or a numpy Generator or RandomState; got 'x'."
    )


@pytest.mark.parametrize(
    "name", [name for name in DRAWING if hasattr(SUBJECTS[name][0], "sample_components")]
)
def test_components_that_are_none_are_named(name):
    assert refusal(lambda: fitted(name).sample_components([0, 2])) == (
        "labels must be components of the fitted mixture, 0 to 1; got 2 at index 1. Components count from 0."
    )


# ------------------------------------------------------------------------------ ties


@pytest.mark.parametrize("name", LEARNED)
def test_of_equal_components_the_first_is_predicted(name):
    model, X = deepcopy(fitted(name)), SUBJECTS[name][1]
    for attribute in LEARNED[name]:
        values = getattr(model, attribute)
        equal = np.full(2, 0.5) if re.search("weights", attribute) else np.stack([values[0]] * 2)
        setattr(model, attribute, equal)
    assert_array_equal(model.predict(X), 0)
    np.testing.assert_allclose(model.predict_proba(X), 0.5, rtol=1e-12)
