"""Only what `save` writes is loaded, and only what a fit could have left: of every estimator, every part."""

import inspect
import json

import numpy as np
import pytest

from gmmlib import ConvolutionalGMM, FullGMM, GenerativeClassifier, StackedGMM, _contents
from gmmlib.stationary.discriminative import DiscriminativeGMM
from gmmlib.stationary.hierarchical import HierarchicalGMM
from gmmlib.stationary.transformed import TransformedGMM
from gmmlib.storage import ModelFileError
from tests.test_fuzz import IMAGES, LABELS, MODELS, ROWS, saved  # noqa: F401  a fixture used by its name

POSITIVE = {"weights", "spectra", "top_weights", "conditionals", "scale", "priors", "covariances", "tables"}
COUNTS = {"n_iter", "converged", "component_counts", "image_shape"}
SUMS = {"weights", "top_weights", "conditionals", "priors", "tables"}
TRACES = {"log_likelihoods", "objectives", "component_counts"}


def kind_of(name):
    """Name of an array without the number of its layer or class."""
    return name.split(".")[-1]


def written(path, contents):
    with open(path, "wb") as file:
        np.savez(file, **contents)
    return path


def with_settings(contents, change):
    """Contents whose header has been changed by a function of its settings."""
    header = json.loads(str(contents["header"]))
    change(header["settings"])
    return contents | {"header": np.array(json.dumps(header))}


def own_settings(settings):
    """All settings of estimators in those of a file: its own, and those of its layers or densities."""
    if "models" in settings:
        return [entry["settings"] for entry in settings["models"]]
    if "layers" in settings:
        return [entry["settings"] for entry in settings["layers"]]
    return settings.get("densities", [settings])


def damages(name, array, counted):
    """Yield what may stand wrongly in an array, and the array; `counted` if the file has its iterations."""
    kind, numbers = kind_of(name), array.astype(np.float64)
    if array.size:
        for value in (np.nan, np.inf, -np.inf):
            changed = numbers.copy()
            changed.flat[-1] = value
            yield f"{value}", changed
    yield "an axis more", array[None]
    if array.ndim and array.size and kind not in TRACES:
        yield "an entry less", array[:-1]
        yield "an entry more", np.concatenate([array, array[-1:]])
        yield "none at all", array[:0]
    if array.ndim and kind in TRACES and counted:
        yield "entries more", np.concatenate([array, np.repeat(array[-1:], 3)])
    if kind in POSITIVE | COUNTS and array.size:
        yield "negative", -numbers - 1
    if kind in SUMS:
        yield "another sum", 1.1 * numbers
    if kind in COUNTS:
        yield "halves", numbers + 0.5
        yield "huge", np.full(array.shape, 2**62)
    if kind == "converged":
        yield "two", np.array(2)
    if kind in ("covariances", "axes", "spectra"):
        changed = array.copy()
        changed[..., -1, 0] += 0.1 * abs(changed).max()
        yield "no symmetry", changed
    if kind == "component_counts":
        yield "others than there are", array + 1
        yield "rising", np.concatenate([array[:-1] - 1, array[-1:]])


def test_every_impossible_array_is_refused(saved, tmp_path):  # noqa: F811  a fixture, not the name imported
    model_class, _, contents = saved
    model_class.load(written(tmp_path / "model.npz", contents))
    loaded, tried = [], 0
    counted = any(kind_of(name) == "n_iter" for name in contents)
    for name in sorted(contents.keys() - {"header"}):
        for what, array in damages(name, contents[name], counted):
            path = written(tmp_path / "model.npz", contents | {name: array})
            tried += 1
            try:
                model_class.load(path)
            except ModelFileError:
                continue
            loaded.append(f"{name}: {what}")
    assert tried > 20
    assert loaded == []


def parameters(model_class):
    return set(inspect.signature(model_class).parameters)


def test_no_parameter_is_loaded_that_save_does_not_write(saved, tmp_path):  # noqa: F811  a fixture, not the name imported
    """A path, a function or a start of somebody else's choice above all."""
    model_class, _, contents = saved
    names = {
        "checkpoint",
        "callback",
        "init",
        "random_state",
        "progress",
        "frame",
        "layers",
        "density",
        "colour",
    }
    names |= parameters(model_class)
    names.discard("basis")  # which files of version 0.4.0 lack: tests/test_bases.py
    count = len(own_settings(json.loads(str(contents["header"]))["settings"]))
    tried = 0
    for number in range(count):
        for name in sorted(names):

            def plant(settings, name=name, number=number):
                own = own_settings(settings)[number]
                own.pop(name, None) if name in own else own.update({name: str(tmp_path / "planted")})

            path = written(tmp_path / "model.npz", with_settings(contents, plant))
            with pytest.raises(ModelFileError, match="holds no usable"):
                model_class.load(path)
            tried += 1
    assert tried >= len(names)


def test_nothing_is_loaded_beside_the_settings_of_a_file(saved, tmp_path):  # noqa: F811  a fixture, not the name imported
    model_class, _, contents = saved
    path = written(tmp_path / "model.npz", with_settings(contents, lambda own: own.update(checkpoint="a")))
    with pytest.raises(ModelFileError, match="holds no usable .*checkpoint"):
        model_class.load(path)


WRONG = [
    None,
    True,
    "text",
    "",
    -1,
    0,
    1.5,
    float("nan"),
    float("inf"),
    10**400,
    1e400,
    2**63,
    [],
    [1],
    {},
    {"a": 1},
]
# What is taken of these, by a caller's checks as well; the rest is refused.
TAKEN = {
    "tol": (0, 1.5, 2**63),
    "variance_floor": (0, 1.5, 2**63),
    "reg_covar": (0, 1.5, 2**63),
    "strength": (0, 1.5, 2**63),
    "shrinkage": (0, 1.5, 2**63),
    "temperature": (1.5, 2**63),
    "min_weight": (None, 0),
    "max_shift": (None, 0),
    "zero_mean_patches": (True,),
    "allow_missing": (True,),
    "warm_start": (True,),
    "fixed_spectra": (True,),
    "fit_leaves": (True,),
}


def test_settings_are_checked_as_those_of_a_caller(saved, tmp_path):  # noqa: F811  a fixture, not the name imported
    model_class, _, contents = saved
    first = own_settings(json.loads(str(contents["header"]))["settings"])[0]
    loaded, tried = [], 0
    for name in first:
        if name in ("kind", "classes", "priors", "densities", "codes", "layers"):
            continue
        for value in WRONG:

            def plant(settings, name=name, value=value):
                own_settings(settings)[0][name] = value

            if any(
                value is taken or (value == taken and type(value) is type(taken))
                for taken in TAKEN.get(name, ())
            ):
                continue
            tried += 1
            path = written(tmp_path / "model.npz", with_settings(contents, plant))
            try:
                model_class.load(path)
            except ModelFileError:
                continue
            loaded.append((name, value))
    assert tried > 50
    assert loaded == []


def test_what_has_no_power_at_zero_frequency_is_not_loaded_as_if_it_had(tmp_path):
    model = ConvolutionalGMM(2, zero_mean_patches=True, max_iter=2, random_state=0, tol=0.0).fit(IMAGES)
    model.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as file:
        contents = dict(file)
    for other in (False, 1):
        changed = with_settings(contents, lambda own, other=other: own.update(zero_mean_patches=other))
        with pytest.raises(ModelFileError):
            ConvolutionalGMM.load(written(tmp_path / "other.npz", changed))


CLASSES = [
    [0, 0],
    [1, 0],
    [0, True],
    [0, "a"],
    [0, None],
    [[0], [1]],
    [0, float("nan")],
    [0, 2**70],
    {"0": 1, "1": 2},
    "01",
]
PRIORS = [[0.5], [0.5, 0.6], [-0.5, 1.5], [0.5, float("nan")], ["a", "b"], 0.5, True, {"a": 1}]
CLASSIFIER = (
    [{"classes": c} for c in CLASSES]
    + [{"priors": p} for p in PRIORS]
    + [{"kind": k} for k in (None, [], "X")]
)


@pytest.mark.parametrize("change", CLASSIFIER, ids=repr)
def test_a_classifier_of_impossible_classes_is_refused(tmp_path, change):
    GenerativeClassifier(FullGMM(1, max_iter=2, random_state=0)).fit(ROWS, LABELS).save(
        tmp_path / "model.npz"
    )
    with np.load(tmp_path / "model.npz") as file:
        contents = with_settings(dict(file), lambda own: own.update(change))
    with pytest.raises(ModelFileError, match="holds no usable"):
        GenerativeClassifier.load(written(tmp_path / "model.npz", contents))


def test_densities_of_rows_of_different_widths_make_no_classifier(tmp_path):
    def saved_of(rows):
        path = tmp_path / "model.npz"
        GenerativeClassifier(FullGMM(1, max_iter=2, random_state=0)).fit(rows, LABELS).save(path)
        with np.load(path) as file:
            return dict(file)

    wide, narrow = saved_of(ROWS), saved_of(ROWS[:, :2])
    mixed = wide | {name: values for name, values in narrow.items() if name.startswith("1.")}
    with pytest.raises(ModelFileError, match=r"densities of rows of shapes \[\(2,\), \(3,\)\]"):
        GenerativeClassifier.load(written(tmp_path / "model.npz", mixed))


@pytest.mark.parametrize(
    "codes", [[], ["posterior"], ["posterior", "other"], [1, 2], {"a": 1, "b": 2}, None, 3]
)
def test_a_stack_of_impossible_codes_is_refused(tmp_path, codes):
    layers = [
        ConvolutionalGMM(3, max_iter=2, random_state=0, tol=0.0),
        FullGMM(2, max_iter=2, random_state=0),
    ]
    StackedGMM(layers).fit(IMAGES).save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as file:
        contents = with_settings(dict(file), lambda own: own.update(codes=codes))
    with pytest.raises(ModelFileError):
        StackedGMM.load(written(tmp_path / "model.npz", contents))


def loaded_like(model, path):
    model.save(path)
    return type(model).load(path)


def test_models_of_all_ways_to_learn_come_back(tmp_path):
    """Runs, single steps, steps after a run and after loading, pruned components, and sums of mixtures."""
    path = tmp_path / "model.npz"
    for make, X in (
        (lambda: ConvolutionalGMM(2, max_iter=2, random_state=0, tol=0.0), IMAGES),
        (lambda: FullGMM(2, random_state=0), ROWS),
    ):
        models = [
            make().fit(X),
            make().partial_fit(X),
            make().partial_fit(X).partial_fit(X),
            make().fit(X).partial_fit(X),
        ]
        models += [loaded_like(make().fit(X), path).partial_fit(X).partial_fit(X)]
        for model in models:
            found = loaded_like(model, path)
            np.testing.assert_array_equal(found.score_samples(X), model.score_samples(X))
            assert found.n_iter_ == model.n_iter_
    pruned = FullGMM(6, min_weight=0.2, random_state=0).fit(ROWS)
    assert len(pruned.weights_) < 6
    assert loaded_like(pruned, path).n_components == 6
    both = GenerativeClassifier(FullGMM(1, random_state=0)).fit(ROWS, LABELS).mixture()
    np.testing.assert_array_equal(loaded_like(both, path).score_samples(ROWS), both.score_samples(ROWS))
    zero = loaded_like(FullGMM(2, zero_means=True, random_state=0).fit(ROWS), path)
    assert zero.zero_means is True


CHANGED = [
    (lambda: ConvolutionalGMM(2, max_iter=2, random_state=0, tol=0.0).fit(IMAGES), {"n_components": 3}),
    (
        lambda: ConvolutionalGMM(2, max_iter=2, random_state=0, tol=0.0).fit(IMAGES),
        {"zero_mean_patches": True},
    ),
    (lambda: FullGMM(2, max_iter=2, random_state=0).fit(ROWS), {"n_components": 1}),
    (lambda: FullGMM(2, max_iter=2, random_state=0).fit(ROWS), {"zero_means": True}),
    (lambda: FullGMM(2, max_iter=2, random_state=0).fit(ROWS), {"max_iter": -1}),
    (lambda: TransformedGMM(2, max_iter=1, random_state=0, tol=0.0).fit(IMAGES), {"max_shift": 1}),
    (lambda: TransformedGMM(2, max_iter=1, random_state=0, tol=0.0).fit(IMAGES), {"n_components": 1}),
    (MODELS["HierarchicalGMM"], {"n_top": 3}),
    (MODELS["HierarchicalGMM"], {"n_components": 3}),
    (MODELS["HierarchicalGMM"], {"by_position": True}),
    (MODELS["DiscriminativeGMM"], {"n_components": 3}),
    (MODELS["PhaseBlindGMM"], {"max_iter": 0}),
    (MODELS["GenerativeClassifier"], {"priors": [0.5, 0.6]}),
]


@pytest.mark.parametrize(
    ("make", "change"), CHANGED, ids=lambda value: repr(value) if isinstance(value, dict) else ""
)
def test_what_load_would_refuse_or_take_for_another_model_is_not_saved(tmp_path, make, change):
    model, path = make(), tmp_path / "model.npz"
    model.save(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=next(iter(change))):
        model.set_params(**change).save(path)
    assert path.read_bytes() == before


def test_settings_are_all_parameters_but_those_of_a_run():
    assert _contents.setting_names(HierarchicalGMM) == sorted(
        parameters(HierarchicalGMM) - {"init", "n_init", "random_state", "callback", "progress"}
    )
    assert not {"checkpoint", "callback", "init"} & set(_contents.setting_names(DiscriminativeGMM))
