"""Models within a model's file: a list of their kinds and settings, and their arrays under numbered names."""

import reprlib

from sklearn.frozen import FrozenEstimator

from gmmlib import ESTIMATORS, storage


def to_arrays(models, name):
    """Settings and arrays of fitted models, as `from_arrays` takes them; errors call the models `name`.

    Of a ``FrozenEstimator`` the model inside is stored.
    """
    entries, arrays = [], {}
    for number, model in enumerate(models):
        model = model.estimator if isinstance(model, FrozenEstimator) else model
        kind = type(model).__name__
        if storage.known(kind) is not type(model):
            raise ValueError(
                f"{name}[{number}] must be of a kind that has a file format, {', '.join(ESTIMATORS)}; "
                f"got a {kind}. Save the others one by one."
            )
        settings, model_arrays = model.to_arrays()
        entries.append({"kind": kind, "settings": settings})
        arrays |= {f"{number}.{key}": array for key, array in model_arrays.items()}
    return entries, arrays


def array_names(entries):
    """What the arrays are called that go with the entries of a file; ValueError if these are none."""
    return [
        f"{number}.{name}"
        for number, (kind, settings) in enumerate(_kinds(entries))
        for name in kind.array_names(settings)
    ]


def from_arrays(entries, arrays, where):
    """Fitted models, a list, from the entries and arrays of a file; errors say `where` they come from."""
    models = []
    for number, (kind, settings) in enumerate(_kinds(entries)):
        model_arrays = {name: arrays[f"{number}.{name}"] for name in kind.array_names(settings)}
        models.append(kind.from_arrays(settings, model_arrays, f"{where}[{number}]"))
    return models


def row_shape(model):
    """Shape of what a fitted model takes as a row: an image, or features; None if it does not say."""
    if hasattr(model, "image_shape_"):
        return tuple(model.image_shape_)
    return (model.n_features_in_,) if hasattr(model, "n_features_in_") else None


def _kinds(entries):
    """Class and settings of each entry."""
    try:
        if all(entry.keys() == {"kind", "settings"} for entry in entries):
            kinds = [(storage.known(entry["kind"]), entry["settings"]) for entry in entries]
            if all(kind is not None for kind, _ in kinds):
                return kinds
    except (AttributeError, TypeError):
        pass
    raise ValueError(
        'the models in it must be a list, each with a "kind" and "settings", and of the kinds '
        f"{', '.join(ESTIMATORS)}; got {reprlib.repr(entries)}. Save the model again."
    )
