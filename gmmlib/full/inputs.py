"""What a mixture of full covariances takes: samples, settings and starts, checked."""

import numpy as np
from sklearn.utils.validation import validate_data

from gmmlib import _checks
from gmmlib.em.algorithm import Algorithm

NOT_IN_FIT = (
    "allow_missing=True holds for scoring, impute and sample_given alone: fit on complete rows, "
    "X[~numpy.isnan(X).any(axis=1)], or on filled ones."
)


def samples(model, X, reset, missing, name="X"):
    """Samples (N, D); with `reset` their columns become the model's, with `missing` NaN may be allowed.

    Errors call them `name`.
    """
    X = _checks.readable(X, name, missing=missing and model.allow_missing)
    if isinstance(X, (list, tuple)):
        X = _checks.array(X, name)
    if getattr(X, "ndim", 2) > 2:
        raise ValueError(
            f"{name} must hold a sample per row in an array of shape (N, D); got shape {X.shape}. Images "
            f"are flattened by {name}.reshape(len({name}), -1). {_checks.BATCHES}"
        )
    if name != "X" and getattr(X, "ndim", 0) == 2 and X.shape[1] != model.n_features_in_:
        raise ValueError(  # scikit-learn would call it X
            f"{name} must have {model.n_features_in_} columns, as in fit; got {X.shape[1]}. Pass those "
            "columns, or fit a model on these."
        )
    X = _checks.plain(validate_data(model, X, reset=reset, dtype="numeric", ensure_all_finite=False))
    _checks.real(X, name)  # dates pass for numbers up to here
    if missing and model.allow_missing:
        _checks.not_infinite(X, name)
    elif model.allow_missing:
        _checks.finite(X, name, NOT_IN_FIT)
    else:
        _checks.finite(X, name)
    _checks.moderate(X, name)
    return X


def start(model, n_rows):
    """The model's `init`, with labels as a checked array."""
    if not isinstance(model.init, (np.ndarray, list, tuple)):
        return model.init
    labels, _ = _checks.labels(model.init, "init", model.n_components, "n_components")
    if len(labels) != n_rows:
        raise ValueError(f"init must hold a component for each of the {n_rows} rows of X; got {len(labels)}.")
    return labels


def check_settings(model):
    """Refuse settings that cannot be used."""
    _checks.settings(model)
    if model.min_weight is not None and not 0 <= _checks.non_negative(model.min_weight, "min_weight") < 1:
        raise ValueError(f"min_weight must be below 1, a share of the weight; got {model.min_weight!r}.")
    for name in ("zero_means", "allow_missing", "warm_start"):
        _checks.truth(getattr(model, name), name)
    Algorithm.checked(model.algorithm)
    _checks.random_state(model.random_state)
