"""What a model file may hold, which is what a fit could have made: all else is refused by a ValueError."""

import reprlib

import numpy as np

# Parameters that no file holds among its settings: they matter to a run alone, or are held as arrays.
LEFT_OUT = {"init", "n_init", "random_state", "callback", "checkpoint", "progress", "frame", "leaf"}
LARGEST_COUNT = 2**53


def setting_names(model_class):
    """Names of the parameters of an estimator that its files hold, sorted."""
    return sorted(set(model_class._get_param_names()) - LEFT_OUT)


def settings(model, **fitted):
    """Return those parameters of an estimator that its files hold; `fitted` must be as they were in fit."""
    model._check_settings()
    for name, value in fitted.items():
        if getattr(model, name) != value:
            raise ValueError(
                f"{name} must be what it was in fit, {value!r}, to save the model; got "
                f"{getattr(model, name)!r}. Set it back, or fit again."
            )
    return {name: getattr(model, name) for name in setting_names(type(model))}


def model(model_class, stored, **given):
    """Make an unfitted estimator of stored settings; `given` are parameters held elsewhere in the file.

    A class names in ``_added`` the settings that older files lack, with the values that they had in effect.
    """
    expected = set(setting_names(model_class))
    if isinstance(stored, dict):
        added = getattr(model_class, "_added", {})
        stored = {name: added[name] for name in added.keys() & expected} | stored
    names = set(stored) if isinstance(stored, dict) else set()
    if names != expected:
        raise ValueError(
            f"the settings of a {model_class.__name__} must be {', '.join(sorted(expected))}; got others, "
            f"{reprlib.repr(sorted(names - expected))}, and not {reprlib.repr(sorted(expected - names))}. "
            "Save the model again."
        )
    made = model_class(**stored, **given)
    made._check_settings()
    return made


def column_names(fitted):
    """Return the names of the columns of an estimator, if it was fitted on a table that had some."""
    names = getattr(fitted, "feature_names_in_", None)
    return {} if names is None else {"feature_names_in": names.tolist()}


def split_column_names(stored, where):
    """Split settings from a file into those of an estimator and the names of its columns, or None."""
    if not isinstance(stored, dict) or "feature_names_in" not in stored:
        return stored, None
    names = stored["feature_names_in"]
    if not isinstance(names, list) or not names or any(not isinstance(name, str) for name in names):
        raise ValueError(f"{where}['feature_names_in'] must be a list of names. Save the model again.")
    return {key: value for key, value in stored.items() if key != "feature_names_in"}, names


def set_column_names(fitted, names, where):
    """Give a loaded estimator of as many columns their names back."""
    if names is None:
        return
    if len(names) != fitted.n_features_in_:
        raise ValueError(
            f"{where}['feature_names_in'] must name {fitted.n_features_in_} columns; got {len(names)} names. "
            "Save the model again."
        )
    fitted.feature_names_in_ = np.array(names, dtype=object)


def count(value, name, most=LARGEST_COUNT):
    """Return a stored integer from 0 to `most` as int."""
    value = np.asarray(value)
    if value.ndim or value.dtype.kind not in "iuf" or not 0 <= value <= most or value != np.floor(value):
        raise ValueError(
            f"{name} must be an integer from 0 to {most}; got {_shown(value)}. Save the model again."
        )
    return int(value)


def trace(values, name):
    """Return a stored trace as float64 (T,), of finite numbers."""
    values = np.asarray(values)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(
            f"{name} must hold finite numbers along one axis; got {_shown(values)}. Save the model again."
        )
    return values.astype(np.float64, copy=False)


def run(arrays, where, online=False):
    """Check what a run of EM has left: its trace, whether it converged, and the iterations run."""
    values = trace(arrays["log_likelihoods"], f"{where}['log_likelihoods']")
    converged = bool(count(arrays["converged"], f"{where}['converged']", most=1))
    n_iter = count(arrays["n_iter"], f"{where}['n_iter']")
    # Online, the first step may be without a value, and a fitted model may count as one.
    steps = (n_iter + 1,) if converged or not online else (n_iter + 1, n_iter, n_iter - 1)
    if len(values) not in steps or (converged and n_iter == 0):
        raise ValueError(
            f"{where}['log_likelihoods'] must have a value at the start and after each iteration; got "
            f"{len(values)} of them, n_iter={n_iter} and converged={converged}. Save the model again."
        )
    return values, converged, n_iter


def whole_plane(stored, made, name):
    """Refuse spectra that are not those of real images: alike at mirrored frequencies, 0 where left out."""
    if not np.array_equal(stored, made):
        raise ValueError(
            f"{name} must be the same at frequencies that mirror each other, and 0 where one is left out. "
            "Save the model again."
        )


def _shown(values):
    if values.size == 1:
        return f"{values.reshape(-1)[0]!r}"
    return f"shape {values.shape} with {int((~np.isfinite(values)).sum())} that are not finite"
