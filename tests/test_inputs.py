"""Bad input: estimators times methods times arguments, generated from the classes themselves.

Whatever is passed, the answer is the documented error with a text that names the argument, and what was
learned before gives the same bits as before.
"""

import copy
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.base import BaseEstimator, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import KernelDensity

import gmmlib
from gmmlib import base
from gmmlib.compose.classify import GenerativeClassifier
from gmmlib.compose.tree import TreeGMM
from gmmlib.full.estimator import FullGMM
from gmmlib.stationary.convolutional import ConvolutionalGMM
from gmmlib.stationary.hierarchical import HierarchicalGMM
from gmmlib.stationary.phaseblind import PhaseBlindGMM
from gmmlib.stationary.transformed import TransformedGMM
from tests.subjects import CLASSES, LAYER, LEARNED, SUBJECTS, given, scores

LEARNING = ("fit", "partial_fit", "fit_predict", "fit_transform")
# Of scikit-learn: they concern settings and routing, and take no data.
ROUTING = re.compile(r"[gs]et_.*(params|request|routing|output)$")

# scikit-learn's own sentences about its two-dimensional arrays do not name X.
OF_SCIKIT_LEARN = (
    r"Expected 2D array|Found array with|dtype='numeric' is not compatible|Complex data not supported|"
    r"argument must be a string or a real number|Unable to convert array of bytes/strings|Sparse data|"
    r"setting an array element with a sequence|Singleton array|could not convert string to float|"
    r"Unknown label type|inconsistent numbers of samples|y should be a 1d array|Found input variables|DType"
)


def public_methods(cls):
    members = inspect.getmembers(cls, inspect.isfunction)  # not those of the class: they need no model
    return [name for name, _ in members if not name.startswith("_") and not ROUTING.match(name)]


def takes(method, argument):
    return argument in inspect.signature(method).parameters


@pytest.fixture(scope="module")
def fitted():
    return {name: copy.deepcopy(model).fit(X, CLASSES) for name, (model, X) in SUBJECTS.items()}


def test_every_estimator_is_in_the_table():
    modules = [
        importlib.import_module(module.name) for module in pkgutil.walk_packages(gmmlib.__path__, "gmmlib.")
    ]
    estimators = {
        value.__name__
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, BaseEstimator)
        and value.__module__ == module.__name__
        and module is not base
    }
    assert estimators - set(gmmlib.PARTS) == {type(model).__name__ for model, _ in SUBJECTS.values()}
    assert estimators == {*gmmlib.ESTIMATORS, *gmmlib.PARTS}


def with_value(X, value):
    X = X.copy()
    X[(1,) * X.ndim] = value
    return X


BAD_X = {
    "NaN": lambda X: with_value(X, np.nan),
    "infinity": lambda X: with_value(X, np.inf),
    "minus infinity in float32": lambda X: with_value(X, -np.inf).astype(np.float32),
    "an axis too few": lambda X: X[0],
    "an axis too many": lambda X: X[None],
    "no rows": lambda X: X[:0],
    "no columns": lambda X: X[..., :0],
    "numbers as strings": lambda X: X.astype(str),
    "words": lambda X: np.full(X.shape, "grey"),
    "bytes": lambda X: np.full(X.shape, b"grey"),
    "complex": lambda X: X + 1j,
    "objects": lambda X: np.full(X.shape, object()),
    "dates": lambda X: np.full(X.shape, np.datetime64("2020-01-01")),
    "records": lambda X: np.zeros(X.shape, dtype=[("grey", float)]),
    "ragged": lambda X: [*X.tolist(), [[0.0]]],
    "None": lambda X: None,
    "a number": lambda X: 3.0,
    "a word": lambda X: "X",
    "a mapping": lambda X: {"X": X},
    "sparse": lambda X: sparse.csr_array(X.reshape(len(X), -1)),
    "too large": lambda X: 1e200 * X,
    "other columns, and NaN": lambda X: with_value(X[..., :2], np.nan),
    "too large in one place": lambda X: with_value(X, 1e300),
}
BAD_SIZE = {
    "a column too few": lambda X: X[..., :-1],
    "a column too many": lambda X: np.concatenate([X, X[..., :1]], axis=-1),
}
NAN_IS_MISSING = ("FullGMM, values missing",)


def bad_data(name, method):
    bad = BAD_X if method in LEARNING and method != "partial_fit" else BAD_X | BAD_SIZE
    if name in NAN_IS_MISSING and method not in (*LEARNING, "posterior_mean"):
        bad = {what: make for what, make in bad.items() if what != "NaN"}
    return bad


def data_argument(method):
    """What a method calls its data; None if it takes none."""
    return next((argument for argument in ("X", "Y") if takes(method, argument)), None)


def methods_of_data(name):
    model = SUBJECTS[name][0]
    for method in public_methods(type(model)):
        needs_missing = method in ("impute", "sample_given")
        if data_argument(getattr(type(model), method)) and not (needs_missing and not model.allow_missing):
            yield method


# What methods take beside data.
BESIDE_DATA = {"posteriors": np.full((len(CLASSES), 2), 0.5), "noise_variance": 0.5}
CASES_OF_X = [(name, method) for name in SUBJECTS for method in methods_of_data(name)]


def call(model, method, X, **others):
    method = getattr(model, method)
    if takes(method, "y"):
        others.setdefault("y", CLASSES)
    for argument, value in BESIDE_DATA.items():
        if takes(method, argument):
            others.setdefault(argument, value)
    return method(X, **others)


def refused(model, X, argument, action):
    """Check that the action fails with an error that names the argument, and that the model is as before."""
    with pytest.raises((ValueError, TypeError, FloatingPointError)) as caught:
        action()
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert not isinstance(caught.value, NotFittedError)
    named = re.search(rf"\b{argument}\b", text)
    by_scikit_learn = X.ndim == 2 or isinstance(model, GenerativeClassifier) or argument == CLASS
    assert named or (by_scikit_learn and re.search(OF_SCIKIT_LEARN, text)), text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "method"), CASES_OF_X)
def test_bad_data_are_refused(fitted, name, method):
    X = SUBJECTS[name][1]
    model = copy.deepcopy(fitted[name])
    before = scores(model, X)
    for make in bad_data(name, method).values():
        argument = data_argument(getattr(model, method))
        refused(model, X, argument, lambda make=make: call(model, method, make(X)))
        if method in LEARNING:
            assert_array_equal(scores(model, X), before)
    assert_array_equal(scores(model, X), before)


# Row weights

ONES = np.ones(len(CLASSES))
BAD_WEIGHT = {
    "negative": with_value(ONES, -1.0),
    "NaN": with_value(ONES, np.nan),
    "infinity": with_value(ONES, np.inf),
    "all zero": 0 * ONES,
    "too many": np.ones(len(CLASSES) + 1),
    "too few": ONES[1:],
    "no weights": ONES[:0],
    "a column": ONES[:, None],
    "a number": 1.0,
    "too large": 1e200 * ONES,
    "words": ["heavy"] * len(ONES),
    "numbers as strings": ["1"] * len(ONES),
    "complex": ONES + 1j,
    "objects": [object()] * len(ONES),
    "dates": np.full(len(ONES), np.datetime64("2020-01-01")),
    "ragged": [[1.0], *ONES[1:]],
    "a mapping": {"weight": ONES},
    "one row left": np.where(np.arange(len(ONES)) < 23, 0.0, 1.0),
}
CASES_OF_WEIGHT = [
    (name, method)
    for name, (model, _) in SUBJECTS.items()
    for method in public_methods(type(model))
    if takes(getattr(type(model), method), "sample_weight") and method in LEARNING
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "method"), CASES_OF_WEIGHT)
def test_bad_row_weights_are_refused(fitted, name, method):
    X = SUBJECTS[name][1]
    model = copy.deepcopy(fitted[name])
    before = scores(model, X)
    for what, weight in BAD_WEIGHT.items():
        argument = "sample_weight"
        if what == "one row left":
            if method == "partial_fit":  # it is enough for a fitted model
                continue
            argument = "(X|y|sample_weight)"
        refused(model, X, argument, lambda weight=weight: call(model, method, X, sample_weight=weight))
        assert_array_equal(scores(model, X), before, err_msg=what)


# Classes

CLASS = "(y|class)"
BAD_CLASSES = {
    "none": None,
    "too few": CLASSES[1:],
    "too many": np.repeat(CLASSES, 2),
    "a matrix": np.eye(len(CLASSES)),
    "NaN": with_value(CLASSES.astype(float), np.nan),
    "infinity": with_value(CLASSES.astype(float), np.inf),
    "measurements": np.linspace(0.1, 0.9, len(CLASSES)),
    "complex": CLASSES + 1j,
    "mixed": [3] * 12 + ["7"] * 11 + [None],
    "a word": "three",
    "a class too small": np.where(np.arange(len(CLASSES)) < 1, 3, 7),
}
CLASSIFIERS = [name for name, (model, _) in SUBJECTS.items() if is_classifier(model)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_bad_classes_are_refused(fitted, name):
    X = SUBJECTS[name][1]
    model = copy.deepcopy(fitted[name])
    before = scores(model, X)
    for what, y in BAD_CLASSES.items():
        refused(model, X, CLASS, lambda y=y: model.fit(X, y))
        assert_array_equal(scores(model, X), before, err_msg=what)


# Settings

COUNT = (0, -1, 2.0, "2", None, True, np.nan, [2])
AMOUNT = (-1.0, np.nan, np.inf, "1", None, True, 1j, [1.0])
WORD = ("other", b"free", None, 3, ["free"])
SEED = (-1, 0.5, "0", np.nan, [1.0])
FUNCTION = (3, "print", [print])
START = ("other", None, 3, {}, {"weights": [1.0]})
BAD_SETTINGS = {
    "n_components": (*COUNT, 1000),
    "n_top": (*COUNT, 1000),
    "max_iter": COUNT,
    "n_init": COUNT,
    "em_iter": COUNT,
    "chunk_size": COUNT,
    "tol": AMOUNT,
    "reg_covar": AMOUNT,
    "shrinkage": AMOUNT,
    "strength": AMOUNT,
    "variance_floor": AMOUNT,
    "temperature": (*AMOUNT, 0.0),
    "min_weight": tuple(value for value in AMOUNT if value is not None) + (1.0,),
    "max_shift": (-1, 2, 0.5, "1", True, np.nan),
    "noise": WORD,
    "zero_means": ("other", None, 3, [True]),
    "by_position": ("other", None, 3, [True]),
    "penalty": WORD,
    "basis": WORD,
    "algorithm": (*WORD, {}, {"name": "annealed", "start": 2.0, "rate": 1.2}),
    "init": START,
    "frame": (3, "frame", {}, (1, 2, 3, 4, 5)),
    "random_state": SEED,
    "callback": FUNCTION,
    "checkpoint": [3, 2.5, True, [], object()],
    "density": (None, 3, FullGMM, "FullGMM"),
    "leaf": (None, 3, FullGMM, "FullGMM"),
    "levels": (None, 3, [3], [(2, 2)], [(1, 0, 2)], [(1, 2, 2.5)], [(1, 3, 2)], [(1, 2, 1000)]),
    "share_tables": ("other", None, 3, True),
    "fit_leaves": ("other", None, 3, [True]),
    "layers": (None, [], 3, [3], FullGMM(2), [FullGMM]),
    "codes": ("other", None, 3, ["posterior"] * 3, ["posterior", "other"]),
    "top": (3, FullGMM, "FullGMM"),
    "n_axes": (*(value for value in COUNT if value is not None), 1000),
    "whiten": ("other", None, 3, [True]),
    "priors": (
        [0.5],
        [0.5, 0.6],
        [-0.5, 1.5],
        [np.nan, 1.0],
        ["a", "b"],
        0.5,
        [0.5 + 1j, 0.5],
        [[0.5], [0.5]],
    ),
}
# Any object is true or false.
SWITCHES = {"zero_mean_patches", "allow_missing", "warm_start", "fixed_spectra", "progress"}
CASES_OF_SETTINGS = [
    (name, setting)
    for name, (model, _) in SUBJECTS.items()
    for setting in model.get_params(deep=False)
    if setting not in SWITCHES
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "setting"), CASES_OF_SETTINGS)
def test_bad_settings_are_refused(fitted, name, setting):
    X = SUBJECTS[name][1]
    model = copy.deepcopy(fitted[name])
    before, good = scores(model, X), model.get_params(deep=False)[setting]
    for value in BAD_SETTINGS[setting]:
        model.set_params(**{setting: value})
        refused(model, X, setting, lambda: model.fit(X, CLASSES))
        if setting != "chunk_size":  # it is one of scoring too
            assert_array_equal(scores(model, X), before, err_msg=repr(value))
    model.set_params(**{setting: good})
    assert_array_equal(scores(model, X), before)


# Starts

BAD_ARRAYS = {
    "NaN": lambda values: with_value(values, np.nan),
    "infinity": lambda values: with_value(values, np.inf),
    "negative": lambda values: -values - 1.0,
    "too few": lambda values: values[:1],
    "an axis too many": lambda values: values[None],
    "words": lambda values: np.full(values.shape, "grey"),
    "complex": lambda values: values + 1j,
    "objects": lambda values: np.full(values.shape, None),
    "ragged": lambda values: [*values.tolist(), [[0.0]]],
    "None": lambda values: None,
}
CASES_OF_STARTS = [(name, key.removesuffix("_")) for name, keys in LEARNED.items() for key in keys]


@pytest.mark.parametrize(("name", "key"), CASES_OF_STARTS)
def test_bad_starts_are_refused(fitted, name, key):
    X = SUBJECTS[name][1]
    model = copy.deepcopy(fitted[name])
    before = scores(model, X)
    start = given(model)
    for what, make in BAD_ARRAYS.items():
        if key == "means" and what == "negative":
            continue
        model.init = start | {key: make(start[key])}
        refused(model, X, "init", lambda: model.fit(X))
        assert_array_equal(scores(model, X), before, err_msg=what)


# What is drawn

BAD_OF_DRAWS = {
    "n_samples": COUNT,
    "n_views": tuple(value for value in COUNT if value is not None),
    "random_state": SEED,
    "labels": (None, 0, [], [0.5], [-1], [2], ["0"], [[0]], [np.nan], [1j]),
}
CASES_OF_DRAWS = [
    (name, method, argument)
    for name, (model, _) in SUBJECTS.items()
    for method in public_methods(type(model))
    for argument in BAD_OF_DRAWS
    if takes(getattr(type(model), method), argument)
    and not (method == "sample_given" and not model.allow_missing)
    and "Discriminative" not in name
]


@pytest.mark.parametrize(("name", "method", "argument"), CASES_OF_DRAWS)
def test_bad_draws_are_refused(fitted, name, method, argument):
    X = SUBJECTS[name][1]
    model = fitted[name]
    good = {"X": X, "labels": [0, 1]}
    needed = {key: good[key] for key in good if takes(getattr(model, method), key)}
    for value in BAD_OF_DRAWS[argument]:
        if argument == "random_state" and value is None:
            continue
        bad = needed | {argument: value}
        refused(model, X, argument, lambda bad=bad: getattr(model, method)(**bad))


# Rows that a fit of far smaller ones gives no density

SMALL = 1e-120
OUT_OF_REACH = {
    "ConvolutionalGMM": ConvolutionalGMM(2, variance_floor=SMALL**2, max_iter=1, random_state=0, tol=0.0),
    "FullGMM": FullGMM(2, reg_covar=SMALL**2, max_iter=1, random_state=0),
    "FullGMM, values missing": FullGMM(2, reg_covar=SMALL**2, max_iter=1, allow_missing=True, random_state=0),
    "GenerativeClassifier of rows": GenerativeClassifier(KernelDensity(kernel="tophat", bandwidth=SMALL)),
    "HierarchicalGMM": HierarchicalGMM(2, 2, variance_floor=SMALL**2, max_iter=1, random_state=0, tol=0.0),
    "PhaseBlindGMM": PhaseBlindGMM(2, reg_covar=SMALL**2, max_iter=1, random_state=0),
    "TransformedGMM": TransformedGMM(2, variance_floor=SMALL**2, max_iter=1, random_state=0, tol=0.0),
    "TreeGMM": TreeGMM(
        ConvolutionalGMM(2, variance_floor=SMALL**2, max_iter=1, tol=0.0),
        [(1, 2, 2)],
        max_iter=1,
        random_state=0,
        tol=0.0,
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OUT_OF_REACH)
def test_rows_out_of_reach_are_refused_and_not_nan(name):
    X = SUBJECTS[name][1]
    model = copy.deepcopy(OUT_OF_REACH[name]).fit(SMALL * X, CLASSES)
    far = SMALL * X
    far[3] = X[3] * 1e100
    for method in ("log_joint", "score_samples", "predict", "predict_proba"):
        if method in public_methods(type(model)):
            refused(model, SMALL * X, "X must have a density", lambda m=method: getattr(model, m)(far))
    if name == "FullGMM, values missing":
        far[3, 0] = np.nan
        refused(model, SMALL * X, "row 3", lambda: model.score_samples(far))


# Before any fit


@pytest.mark.parametrize("name", SUBJECTS)
def test_nothing_works_before_a_fit(name, tmp_path):
    model, X = SUBJECTS[name]
    good = {"X": X, "Y": X, "y": CLASSES, "labels": [0], "path": tmp_path / "model.npz", "statistics": None}
    good |= BESIDE_DATA
    expected = f"This {type(model).__name__} instance is not fitted yet"
    for method in public_methods(type(model)):
        if method in (*LEARNING, "merge"):
            continue
        function = getattr(copy.deepcopy(model), method)
        with pytest.raises(NotFittedError, match=expected):
            function(**{key: value for key, value in good.items() if takes(function, key)})
    assert not list(tmp_path.iterdir())


def test_a_layer_has_no_codes_before_a_fit():
    """A part of others, it is not in the table."""
    layer = copy.deepcopy(LAYER)
    calls = {"transform": (SUBJECTS["ConvolutionalGMM"][1],), "encoder": (), "pooling_of": (None, None)}
    calls |= {"maps": calls["transform"], "n_parameters": ()}
    for method, arguments in calls.items():
        with pytest.raises(NotFittedError, match="This PatchLayer instance is not fitted yet"):
            getattr(layer, method)(*arguments)


@pytest.mark.parametrize("name", SUBJECTS)
def test_learned_things_are_not_there_before_a_fit(name):
    model, X = copy.deepcopy(SUBJECTS[name])
    made = [name for name, _ in inspect.getmembers(type(model)) if re.fullmatch("[a-z].*_", name)]
    for attribute in (*made, *(a for a in vars(copy.deepcopy(model).fit(X, CLASSES)) if a.endswith("_"))):
        with pytest.raises(AttributeError):  # NotFittedError is one
            getattr(model, attribute)


def test_the_size_of_the_table(record_property):
    """A table that shrinks by accident would go unseen."""
    sizes = {
        "data": sum(len(bad_data(*case)) for case in CASES_OF_X),
        "row weights": len(CASES_OF_WEIGHT) * len(BAD_WEIGHT),
        "classes": len(CLASSIFIERS) * len(BAD_CLASSES),
        "settings": sum(len(BAD_SETTINGS[setting]) for _, setting in CASES_OF_SETTINGS),
        "starts": len(CASES_OF_STARTS) * len(BAD_ARRAYS),
        "draws": sum(len(BAD_OF_DRAWS[argument]) for *_, argument in CASES_OF_DRAWS),
    }
    for what, size in sizes.items():
        record_property(what, size)
    print(sizes)
    assert sum(sizes.values()) > 3000


@pytest.mark.parametrize("name", ["ConvolutionalGMM", "FullGMM"])
def test_a_refused_fit_leaves_the_moments_of_online_steps(name):
    model, X = copy.deepcopy(SUBJECTS[name][0]), SUBJECTS[name][1]
    model.partial_fit(X).partial_fit(X[::-2]).partial_fit(X[::3])  # the steps taken count
    other = copy.deepcopy(model)
    model.init = "other"
    refused(model, X, "init", lambda: model.fit(X))
    assert_array_equal(scores(model.partial_fit(X), X), scores(other.partial_fit(X), X))
