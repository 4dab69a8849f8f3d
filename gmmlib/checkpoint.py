"""A fit that is killed goes on where it was: its state after each E-step, on disk.

The M-step that follows is a function of the statistics alone, so a fit that goes on from a checkpoint
takes the steps, to the last bit, that it would have taken.
"""

import hashlib
import numbers
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gmmlib import storage

ROWS_AT_ONCE = 4096  # rows whose bytes are looked at at a time
# What may change between a fit and its continuation.
FREE = ("max_iter", "tol", "checkpoint", "callback", "progress")


class State(NamedTuple):
    """What a fit needs to go on: it has made an E-step, and its M-step is to come."""

    statistics: dict  # arrays and numbers by name
    log_likelihoods: np.ndarray  # (iterations so far + 1,)
    mechanism: dict  # of `gmmlib.em.Mechanism.state`


class Checkpoint:
    """The file of one fit, and beside it, as ``<name>.previous``, the state before the last.

    Parameters
    ----------
    model : estimator
        Its `checkpoint` is the path, or None: then there is never a state, and nothing is written.  Its
        class and settings tell one fit from another, with the exception of `FREE`, and of arrays and
        random streams.
    X, weight : ndarray
        Data and row weights; their bytes tell one fit from another, too.
    """

    def __init__(self, model, X, weight):
        self.path = None
        if model.checkpoint is None:
            return
        if not isinstance(model.checkpoint, (str, os.PathLike)):
            raise ValueError(
                f"checkpoint must be the path of a file, or None; got {model.checkpoint!r}. Name a file in a "
                "folder that exists."
            )
        self.path = Path(model.checkpoint)
        self.previous = self.path.with_name(f"{self.path.name}.previous")
        self.kind = f"{type(model).__name__} checkpoint"
        settings = model.get_params(deep=False)
        settings = {name: settings[name] for name in sorted(settings.keys() - set(FREE))}
        self.settings = {name: value for name, value in settings.items() if _is_plain(value)}
        self.data = _digest(X, weight)

    def read(self):
        """The `State` to go on from, or None if there is no file.

        Raises
        ------
        gmmlib.storage.ModelFileError
            If the file is unreadable or belongs to another fit.  Nothing is removed.
        """
        if self.path is None:
            return None
        path = self.path if self.path.exists() else self.previous
        if not path.exists():  # between two renames there is only the previous one
            return None
        try:
            record, arrays = storage.read(path, self.kind, lambda record: record["names"])
            self._compare(record)
            trace = arrays.pop("log_likelihoods")
            return State({name: values[()] for name, values in arrays.items()}, trace, record["mechanism"])
        except (storage.ModelFileError, LookupError, TypeError) as error:
            kept = f" The state before it is in {self.previous}: rename it to go on from there." * (
                path != self.previous and self.previous.exists()
            )
            raise storage.ModelFileError(
                f"checkpoint={str(path)!r} must be a checkpoint of this fit, or no file yet; got: {error} "
                f"To begin anew, remove it or name another file.{kept}"
            ) from error

    def _compare(self, record):
        mine = {"settings": self.settings, "data": self.data}
        for what, value in mine.items():
            if record[what] != value:
                raise storage.ModelFileError(
                    f"it was written with other {what}"
                    + (f" ({_differences(record[what], value)})." if what == "settings" else ".")
                )

    def writer(self, pack, mechanism=None):
        """What `gmmlib.em.em` calls to save statistics, which `pack` turns into arrays by name; or None."""
        if self.path is None:
            return None
        state = dict if mechanism is None else mechanism.state
        return lambda statistics, trace: self.write(pack(statistics), trace, state())

    def write(self, statistics, log_likelihoods, mechanism):
        """Replace the state; at every moment there is a whole one on the disk."""
        arrays = {**statistics, "log_likelihoods": np.asarray(log_likelihoods)}
        record = {"names": sorted(arrays), "settings": self.settings, "data": self.data}
        new = self.path.with_name(f"{self.path.name}.next")
        storage.write(new, self.kind, record | {"mechanism": mechanism}, arrays)
        if self.path.exists():
            os.replace(self.path, self.previous)
        os.replace(new, self.path)

    def remove(self):
        """Remove what is no longer needed: the fit has come to its end."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            self.previous.unlink(missing_ok=True)


def _is_plain(value):
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, (bool, str, numbers.Real))


def _differences(stored, mine):
    names = [name for name in sorted({*stored, *mine}) if stored.get(name) != mine.get(name)]
    return ", ".join(f"{name}: {stored.get(name)!r} there, {mine.get(name)!r} here" for name in names)


def _digest(X, weight):
    total = hashlib.sha256(f"{X.shape} {X.dtype.str}".encode())
    for values in (X, weight):
        for start in range(0, len(values), ROWS_AT_ONCE):
            total.update(np.ascontiguousarray(values[start : start + ROWS_AT_ONCE]))
    return total.hexdigest()
