"""What every estimator owes its users on disk, alone and as part of another one."""

import inspect

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from gmmlib import ESTIMATORS, storage
from gmmlib.compose.classify import GenerativeClassifier
from gmmlib.compose.convolutional_stack import ConvolutionalStack
from gmmlib.compose.stack import METHODS, StackedGMM
from gmmlib.full.estimator import FullGMM
from gmmlib.stationary.hierarchical import HierarchicalGMM
from tests.subjects import CLASSES, ROWS, SUBJECTS


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


@pytest.fixture(params=sorted(SUBJECTS))
def subject(request):
    model, X = SUBJECTS[request.param]
    return clone(model), X


def assert_same(one, other):
    if isinstance(one, (list, tuple)):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif hasattr(one, "get_params"):
        assert_same_learned(one, other)
    else:
        assert_array_equal(one, other)


def assert_same_learned(model, loaded):
    names = [name for name in vars(model) if name.endswith("_") and not name.startswith("_")]
    assert names
    assert sorted(names) == sorted(n for n in vars(loaded) if n.endswith("_") and not n.startswith("_"))
    for name in names:
        assert_same(getattr(model, name), getattr(loaded, name))


def test_a_loaded_model_is_the_model_that_was_saved(subject, path):
    model, X = subject
    model.fit(X, CLASSES).save(path)
    loaded = type(model).load(path)
    assert_same_learned(model, loaded)
    for method in (
        "predict",
        "predict_proba",
        "score_samples",
        "log_joint",
        "transform",
        "decision_function",
    ):
        if hasattr(model, method):
            assert_array_equal(getattr(loaded, method)(X), getattr(model, method)(X))


def test_a_loaded_model_has_forgotten_what_matters_to_a_run_alone(subject, path):
    model, X = subject
    model.fit(X, CLASSES).save(path)
    loaded, own = type(model).load(path), inspect.signature(type(model)).parameters
    for name, value in model.get_params(deep=False).items():
        if name in {"init", "random_state", "callback", "checkpoint", "progress"}:
            assert getattr(loaded, name) == own[name].default
        elif name not in {"frame", "density", "layers", "codes", "top", "leaf"}:
            assert np.array_equal(getattr(loaded, name), value)
    loaded.save(path)
    assert_array_equal(type(model).load(path).predict(X), model.predict(X))
    if hasattr(model, "sample"):
        assert_array_equal(loaded.sample(5, random_state=0)[0], model.sample(5, random_state=0)[0])


def test_a_file_of_another_class_is_refused(subject, path):
    model, X = subject
    model.fit(X, CLASSES).save(path)
    kind = type(model).__name__
    other = FullGMM if kind != "FullGMM" else HierarchicalGMM
    with pytest.raises(storage.ModelFileError) as caught:
        other.load(path)
    expected = f"{path} holds a {kind}; expected a {other.__name__}. Load it with {kind}.load."
    assert str(caught.value) == expected


# ------------------------------------------------------------------------------ as part of another model

SCORED = [name for name, (model, _) in SUBJECTS.items() if not is_classifier(model)]
LAYERS = [name for name in SCORED if all(hasattr(SUBJECTS[name][0], method) for method in METHODS)]
# A classifier stands on top of a convolutional stack, and is not made of some.
DENSITIES = [name for name in SCORED if not isinstance(SUBJECTS[name][0], ConvolutionalStack)]


def test_every_estimator_has_a_file_format_and_nothing_else():
    assert {type(model).__name__ for model, _ in SUBJECTS.values()} == set(ESTIMATORS)
    assert all(storage.known(name).__name__ == name for name in ESTIMATORS)
    for name in ("datasets", "__version__", "os", "", None, ["FullGMM"]):
        assert storage.known(name) is None


@pytest.mark.parametrize("name", DENSITIES)
def test_a_classifier_of_any_of_our_densities_comes_back(name, path):
    density, X = SUBJECTS[name]
    if isinstance(density, StackedGMM):  # what is below the top must be the same for all classes
        density = StackedGMM([FrozenEstimator(clone(density.layers[0]).fit(X)), *density.layers[1:]])
    classifier = GenerativeClassifier(density, random_state=0).fit(X, CLASSES)
    classifier.save(path)
    loaded = GenerativeClassifier.load(path)
    assert_array_equal(loaded.log_joint(X), classifier.log_joint(X))
    assert {type(density) for density in loaded.densities_} == {type(density)}
    loaded.save(path)
    assert_array_equal(GenerativeClassifier.load(path).predict(X), classifier.predict(X))


@pytest.mark.parametrize("name", LAYERS)
def test_a_stack_on_any_of_our_mixtures_comes_back(name, path):
    layer, X = SUBJECTS[name]
    stack = StackedGMM([layer, FullGMM(2, reg_covar=0.1, random_state=0)]).fit(X)
    stack.save(path)
    loaded = StackedGMM.load(path)
    assert_array_equal(loaded.log_joint(X), stack.log_joint(X))
    assert type(loaded.layers_[0]) is type(layer)
    assert stack.transform(X).shape == (len(X), len(stack.weights_))
    assert len(stack.get_feature_names_out()) == len(stack.weights_)


def test_groups_of_more_top_components_than_lower_ones_make_a_layer(path):
    X = SUBJECTS["HierarchicalGMM"][1]
    below = HierarchicalGMM(2, 3, max_iter=1, random_state=0, tol=0.0)
    stack = StackedGMM([below, FullGMM(2, reg_covar=0.1, random_state=0)]).fit(X)
    stack.save(path)
    assert_array_equal(StackedGMM.load(path).predict(X), stack.predict(X))


def test_a_model_that_is_no_density_is_none_in_a_file_either(path):
    settings, arrays = GenerativeClassifier(FullGMM(2, random_state=0)).fit(ROWS, CLASSES).to_arrays()
    stored = {"kind": "GenerativeClassifier", "classes": [0], "priors": None, "densities": [settings]}
    own = {f"0.{name}": array for name, array in arrays.items()}
    storage.write(path, "GenerativeClassifier", stored, {"priors": np.ones(1), **own})
    with pytest.raises(storage.ModelFileError, match="density must be an estimator with fit and score_"):
        GenerativeClassifier.load(path)


@pytest.mark.parametrize("depth", [3, 240, 5000])
def test_stacks_in_stacks_without_a_mixture_are_refused_however_many(depth, path):
    header = '{"codes": "posterior", "layers": []}'
    for _ in range(depth):
        header = f'{{"codes": "posterior", "layers": [{{"kind": "StackedGMM", "settings": {header}}}]}}'
    header = f'{{"format": {storage.FORMAT}, "kind": "StackedGMM", "settings": {header}}}'
    with open(path, "wb") as file:
        np.savez(file, header=np.array(header))
    with pytest.raises(storage.ModelFileError):
        StackedGMM.load(path)


def test_a_stack_in_a_stack_comes_back(path):
    inner = StackedGMM([SUBJECTS["ConvolutionalGMM"][0], FullGMM(2, reg_covar=0.1, random_state=0)])
    stack = StackedGMM([inner, FullGMM(2, reg_covar=0.1, random_state=0)], codes="log_joint")
    X = SUBJECTS["ConvolutionalGMM"][1]
    stack.fit(X).save(path)
    assert_array_equal(StackedGMM.load(path).log_joint(X), stack.log_joint(X))


def test_a_name_of_a_class_is_no_leave_to_store_another(path):
    impostor = type("FullGMM", (FullGMM,), {})
    classifier = GenerativeClassifier(impostor(2, random_state=0)).fit(ROWS, CLASSES)
    with pytest.raises(ValueError, match=r"^densities_\[0\] must be of a kind that has a file format"):
        classifier.save(path)
    assert not path.exists()


# ------------------------------------------------------------------------------ names of columns


def frame():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(ROWS * [1, 10, 100], columns=list("abc"))


def test_a_stack_is_a_step_of_a_pipeline():
    X = frame()
    stack = StackedGMM([FullGMM(3, random_state=0), FullGMM(2, random_state=0, reg_covar=0.1)])
    pipeline = make_pipeline(stack).fit(X)
    assert pipeline.get_feature_names_out().tolist() == ["stackedgmm0", "stackedgmm1"]
    assert pipeline[0].feature_names_in_.tolist() == ["a", "b", "c"]
    table = pipeline.set_output(transform="pandas").transform(X)
    assert table.columns.tolist() == ["stackedgmm0", "stackedgmm1"]
    assert not hasattr(StackedGMM([FullGMM(2)]).fit(ROWS), "feature_names_in_")
    assert not hasattr(HierarchicalGMM(2, 2, max_iter=50, tol=0.0), "feature_names_in_")


@pytest.mark.parametrize(
    "model",
    [
        FullGMM(2, random_state=0),
        StackedGMM([FullGMM(3, random_state=0), FullGMM(2, random_state=0, reg_covar=0.1)]),
        GenerativeClassifier(FullGMM(2, random_state=0)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_loaded_model_knows_its_columns(model, path):
    X = frame()
    model = clone(model).fit(X, CLASSES)
    model.save(path)
    loaded = type(model).load(path)
    assert_array_equal(loaded.feature_names_in_, model.feature_names_in_)
    assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    for one in (model, loaded):
        with pytest.raises(ValueError, match="feature names should match"):
            one.predict(X[list("cba")])


@pytest.mark.parametrize("names", ["abc", [1, 2, 3], ["a", "b"], [], {"a": 0}])
def test_impossible_names_of_columns_are_refused(names, path):
    settings, arrays = FullGMM(2, random_state=0).fit(frame()).to_arrays()
    storage.write(path, "FullGMM", settings | {"feature_names_in": names}, arrays)
    with pytest.raises(storage.ModelFileError, match="feature_names_in"):
        FullGMM.load(path)
