"""Models on disk: one npz file each, written whole or not at all, never a pickle."""

import json
import os
import uuid
import zipfile
import zlib
from pathlib import Path

import numpy as np

FORMAT = 1  # raised when a reader of today could not read the files of tomorrow


class ModelFileError(ValueError):
    """A file that holds no model of the expected kind."""


def write(path, kind, settings, arrays):
    """Write a model.

    Parameters
    ----------
    path : path-like
        Replaced at once if it exists; left alone if writing fails.
    kind : str
        Name of the model's class.
    settings : dict
        What JSON can hold.
    arrays : dict of str to ndarray
        Of numbers.
    """
    path = Path(path)
    header = json.dumps(
        {"format": FORMAT, "kind": kind, "settings": settings}, sort_keys=True, default=_plain
    )
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            np.savez(file, header=np.array(header), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _plain(value):
    """Turn a numpy scalar into what JSON can hold."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"settings must be numbers, strings or None; got {value!r}")


def read(path, kind, names):
    """Read a model back as (settings, arrays).

    Parameters
    ----------
    path : path-like
    kind : str
        Name of the model's class.
    names : collection of str, or callable
        What the arrays must be called; a function gets the settings and returns it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If it is damaged, holds another kind of model, another format, or anything but numbers.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ModelFileError(f"{path} is no model file: it holds a single array.")
        with loaded as file:
            contents = {name: file[name] for name in file.files}
        header = json.loads(str(contents.pop("header")))
        found = header["kind"], header["format"], header["settings"]
    except (ModelFileError, FileNotFoundError):
        raise
    # zipfile answers odd flags with RuntimeError.
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ModelFileError(
            f"{path} is no readable model file ({type(error).__name__}: {error}). "
            f"Expected what {kind}.save writes; it may be truncated, damaged or hold pickled objects. "
            "Save the model again."
        ) from error
    if found[0] != kind:
        raise ModelFileError(f"{path} holds a {found[0]}; expected a {kind}. Load it with {found[0]}.load.")
    if found[1] != FORMAT:
        raise ModelFileError(
            f"{path} has format {found[1]}; this version of gmmlib reads format {FORMAT}. "
            "Save it again with this version, or use the version that wrote it."
        )
    if callable(names):
        names = names(found[2])
    if set(contents) != set(names) or any(array.dtype.kind not in "fi" for array in contents.values()):
        raise ModelFileError(
            f"{path} must hold numbers under the names {sorted(names)}; got {sorted(contents)}. "
            "Save the model again."
        )
    return found[2], contents


def load(path, model_class):
    """Read a model of a class whose `_from_state` makes it from settings and the arrays `_array_names`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If `read` refuses it, or its settings and arrays make no model.
    """
    kind = model_class.__name__
    try:
        settings, arrays = read(path, kind, model_class._array_names)
        return model_class._from_state(settings, arrays, str(path))
    except ModelFileError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} holds no usable {kind}: {error}") from error
