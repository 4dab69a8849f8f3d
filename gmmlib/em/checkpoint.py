"""A fit that is killed goes on where it was: its state after each E-step, on disk.

The M-step that follows is a function of the statistics alone, so a fit goes on as it would have, to the last
bit.  A checkpoint knows all that decides those bits, and no other fit is given it.
"""

import hashlib
import numbers
import os
import re
import stat
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np

import gmmlib
from gmmlib import _contents, storage
from gmmlib.em import streams

try:
    import fcntl
except ImportError:  # there is none on Windows, where two fits on one path are not kept apart
    fcntl = None

FORMAT = 3  # raised when what a checkpoint holds means something else
ROWS_AT_ONCE = 4096  # rows whose bytes are looked at at a time
# What decides nothing, or only when a fit ends: see `Checkpoint.read`.
FREE = ("max_iter", "tol", "n_init", "checkpoint", "callback", "progress")
NO_SURPRISES = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # links, pipes
LOCK = "lock of a gmmlib checkpoint, which is written as "


class State(NamedTuple):
    """What a fit needs to go on: it has made an E-step, and its M-step is to come."""

    statistics: dict  # arrays and numbers by name
    log_likelihoods: np.ndarray  # (iterations so far + 1,)
    algorithm: dict  # of `gmmlib.em.algorithm.Algorithm.state`


class Checkpoint:
    """The file of one fit, which has it for itself inside a ``with`` block.

    `model.checkpoint` is the path, or None: then there is never a state, and nothing is written.  The class
    of the model and all its settings, with the exception of `FREE`, tell one fit from another, and so do the
    data, the row weights and the parameters that a warm `start` begins with: numbers and text by value,
    arrays by type, shape and digest, random streams by state.  ValueError or OSError if the path cannot be
    one of a file (`gmmlib.storage.target`), a setting cannot be told from another, or, on entering the block,
    if another fit has the file or the folder cannot be written to.
    """

    def __init__(self, model, X, weight, start=None):
        self.path = None
        if model.checkpoint is None:
            return
        self.path = storage.target(model.checkpoint, "checkpoint")
        self.kind = f"{type(model).__name__} checkpoint"
        self.model = model
        settings = model.get_params(deep=False)
        self.fit = {
            "class": f"{type(model).__module__}.{type(model).__qualname__}",
            "gmmlib": f"{gmmlib.__version__}, checkpoints of format {FORMAT}",
        }
        known = {name: settings[name] for name in settings.keys() - set(FREE)}
        known |= {"X": X, "sample_weight": weight, "warm start": start}
        for name in sorted(known):
            self.fit.update(_described(name, known[name]))
        self._seen = None  # of the file that we have read or written last

    def __enter__(self):
        self._lock = nullcontext() if self.path is None else _alone(self.path)
        self._temporary = self._lock.__enter__()
        return self

    def __exit__(self, *error):
        self._lock.__exit__(*error)

    def read(self, check):
        """The `State` to go on from, or None if there is no file.

        It is that of this very fit, but that `max_iter` may have risen and `tol` fallen.  A random stream
        of the model is put where the start of the fit has left it.  ``check(state)`` raises ValueError if no
        fit can have left it.  `gmmlib.storage.ModelFileError` if the file is unreadable, belongs to another
        fit or is no checkpoint; nothing is removed.
        """
        if self.path is None or not self.path.exists():
            return None
        with self.judged():
            seen = _signature(self.path)
            record, arrays = storage.read(self.path, self.kind, self._names)
            trace = _contents.trace(arrays.pop("log_likelihoods"), "its log_likelihoods")
            if not 0 < len(trace) <= self.model.max_iter:
                raise ValueError(
                    f"it belongs to a longer fit (max_iter: iteration {len(trace)} comes next there, "
                    f"{self.model.max_iter!r} is the last here)."
                )
            statistics = {name: values[()] for name, values in arrays.items()}
            state = State(statistics, trace, record["algorithm"])
            check(state)
            streams.restore(self.model.random_state, record["stream"])
            self._seen = seen
            return state

    @contextmanager
    def judged(self):
        """Say of what is wrong with a state inside the block whose state it is, and what can be done."""
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:  # a file that was made to do harm raises nearly anything
            unread = isinstance(error.__cause__, OSError | MemoryError)
            remedy = "" if unread else " To begin again, name another file, or move this one away."
            raise storage.ModelFileError(
                f"checkpoint={str(self.path)!r} must be a checkpoint of this fit, or no file yet; got: "
                f"{str(error) or type(error).__name__}{remedy}"
            ) from error

    def _names(self, record):
        """Names of the arrays, once the fit is known to be this one: before any of them is read."""
        if record.keys() != {"names", "fit", "tol", "algorithm", "stream"}:
            raise ValueError("it was written by another version of gmmlib.")
        there = record["fit"]
        differ = [name for name in sorted({*there, *self.fit}) if there.get(name) != self.fit.get(name)]
        if differ:
            told = [f"{name}: {there.get(name)!r} there, {self.fit.get(name)!r} here" for name in differ[:5]]
            more = f", and {len(differ) - 5} more" * (len(differ) > 5)
            raise ValueError(f"it belongs to another fit ({'; '.join(told)}{more}).")
        # With a smaller tol the fit would have come here, too; with a larger one it might have ended before.
        if not self.model.tol <= record["tol"]:
            raise ValueError(
                f"it belongs to another fit (tol: {record['tol']!r} there, {self.model.tol!r} here; it may "
                "fall, not rise)."
            )
        return record["names"]

    def writer(self, pack, algorithm=None):
        """What `em` calls to save statistics, which `pack` turns into arrays by name; or None."""
        if self.path is None:
            return None
        state = dict if algorithm is None else algorithm.state
        return lambda statistics, trace: self.write(pack(statistics), trace, state())

    def write(self, statistics, log_likelihoods, algorithm):
        """Replace the state; at every moment there is a whole one on the disk, or none yet."""
        arrays = {**statistics, "log_likelihoods": np.asarray(log_likelihoods)}
        record = {"names": sorted(arrays), "fit": self.fit, "tol": float(self.model.tol)}
        record |= {"algorithm": algorithm, "stream": streams.state(self.model.random_state)}
        if not self._ours():
            raise FileExistsError(
                f"checkpoint={str(self.path)!r} must be left to the fit that writes it; got another file put "
                "there during the fit. It is as it was. Move it away, and start the fit again."
            )
        storage.write(self.path, self.kind, record, arrays, self._temporary)
        self._seen = _signature(self.path)

    def remove(self):
        """Remove what is no longer needed: the fit has come to its end."""
        if self.path is not None and self._ours():
            self.path.unlink(missing_ok=True)

    def _ours(self):
        """Whether at the path there is nothing, or what this fit has read or written there."""
        return _signature(self.path) in (None, self._seen)


def check_statistics(state, shapes, weight, signed=()):
    """Refuse a `State` that is not that of an E-step on rows of such weights (N,): ValueError.

    `shapes` are those of its arrays by name; "mass" (K,) is one of them, and beside them there are the sums
    "log_likelihood" and "weight".  `signed` names arrays that may hold numbers below 0.
    """
    statistics = state.statistics
    expected = shapes | {"log_likelihood": (), "weight": ()}
    got = {name: np.shape(values) for name, values in statistics.items()}
    if got != expected:
        raise ValueError(f"its arrays must have the shapes {expected}; got {got}.")
    for name, values in statistics.items():
        if values.dtype != np.float64 or not np.isfinite(values).all():
            raise ValueError(f"its {name} must be finite numbers in float64.")
        if name not in (*signed, "log_likelihood") and np.min(values) < 0:
            raise ValueError(f"its {name} must not be negative; got {np.min(values):g}.")
    sums = np.array([statistics["weight"], statistics["mass"].sum()])
    if not np.allclose(sums, weight.sum(), 1e-6, 0):
        raise ValueError(f"its mass and weight must sum to {weight.sum():g}; got {sums.tolist()}.")
    if statistics["log_likelihood"] / statistics["weight"] != state.log_likelihoods[-1]:
        raise ValueError("its log_likelihood must be the last of its trace.")


def _described(name, value):
    """Yield what tells a setting from another, by name: a value itself, or its type, shape and digest."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, (bool, str)):
        yield name, value
    elif isinstance(value, numbers.Real):
        yield name, int(value) if isinstance(value, numbers.Integral) else float(value)
    elif isinstance(value, streams.STREAMS):
        digest = hashlib.sha256(streams.identity(value).encode()).hexdigest()
        yield name, f"{type(value).__name__} in state {digest[:16]}"
    elif hasattr(value, "get_params") and not isinstance(value, type):
        learned = value.to_arrays()[1] if hasattr(value, "weights_") else {}
        inside = value.get_params(deep=False) | learned
        yield name, f"{type(value).__name__} of {sorted(inside)}"
        for key in sorted(inside.keys() - set(FREE[3:])):
            yield from _described(f"{name}.{key}", inside[key])
    elif hasattr(value, "keys") and not hasattr(value, "__array__"):
        yield name, f"mapping of {sorted(map(str, value))}"
        for key in value:
            yield from _described(f"{name}[{key!r}]", value[key])
    elif isinstance(value, (list, tuple)) and any(np.ndim(part) for part in value):
        yield name, f"list of {len(value)}"
        for number, part in enumerate(value):
            yield from _described(f"{name}[{number}]", part)
    else:
        yield name, _digest(name, value)


def _digest(name, values):
    try:
        values = np.asarray(values)
    except ValueError:  # ragged lists
        values = np.array(None)
    if values.dtype.kind not in "biufcSUmM":
        raise ValueError(
            f"{name} must be a number, text, an array, a mapping of such or a random stream, for a "
            f"checkpoint to tell it from others; got dtype {values.dtype}. Leave checkpoint out."
        )
    total = hashlib.sha256()
    for start in range(0, len(values) if values.ndim else 1, ROWS_AT_ONCE):
        rows = values[start : start + ROWS_AT_ONCE] if values.ndim else values
        total.update(np.ascontiguousarray(rows).reshape(-1).view(np.uint8) if rows.size else b"")
    return f"{values.dtype.str} {values.shape} {total.hexdigest()[:16]}"


def _signature(path):
    """What changes when another file is put at a path, or this one is written to; None if there is none."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns


@contextmanager
def _alone(path):
    """Have a path for oneself; yields the private name under which to write what is to be put there."""
    # A file beside it is locked by the kernel, so that a process that is killed holds it no longer.  It names
    # the private file, so that what a killed fit leaves is found and removed, and nothing else ever is.
    lock = path.with_name(f".{path.name}.lock")
    try:
        handle, ours = _locked(lock)
    except BlockingIOError:
        raise ValueError(
            f"checkpoint={str(path)!r} must be the file of one fit at a time; got one that another fit, in "
            "this process or another, is using now. Wait for its end, or name another file."
        ) from None
    except OSError as error:
        raise type(error)(
            f"checkpoint={str(path)!r} must be in a folder where files can be made and locked; got {error}. "
            "Allow writing there, or name another place."
        ) from error
    try:
        temporary = storage.private_name(path.parent)
        if ours:
            os.write(handle, (LOCK + temporary.name).encode())
        elif stat.S_ISREG(os.fstat(handle).st_mode):
            named = re.fullmatch(LOCK + r"(\.gmmlib-[0-9a-f]{32})", os.read(handle, 200).decode("latin1"))
            if named:
                ours, temporary = True, path.with_name(named[1])
                temporary.unlink(missing_ok=True)
        yield temporary
    finally:
        if ours:
            lock.unlink(missing_ok=True)
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_UN)  # closing is not enough where a fork has the handle, too
        os.close(handle)


def _locked(lock):
    """Open and lock a file, made if there is none: its handle, and whether it was made."""
    while True:
        try:
            handle, made = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            try:
                handle, made = os.open(lock, os.O_RDONLY | NO_SURPRISES), False
            except FileNotFoundError:  # its owner has just removed it
                continue
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(lock, follow_symlinks=False)):
                return handle, made
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # that of a file which its owner has removed
