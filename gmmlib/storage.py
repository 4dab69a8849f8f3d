"""Models on disk: one npz file each, written whole or not at all, never a pickle."""

import json
import math
import os
import uuid
import zipfile
from pathlib import Path

import numpy as np

FORMAT = 1  # raised when a reader of today could not read the files of tomorrow
MOST_ARRAYS = 10_000
LONGEST_HEADER = 2**22  # bytes; the settings of a thousand densities are shorter
LONGEST_DESCRIPTION = 500  # characters; what the npy format says about an array of numbers is shorter


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
    if len(arrays) >= MOST_ARRAYS or 4 * len(header) > LONGEST_HEADER - 1000:  # `read` would refuse it
        raise ValueError(
            f"a model file holds fewer than {MOST_ARRAYS} arrays and settings of about {LONGEST_HEADER // 4} "
            f"characters; got {len(arrays)} arrays and {len(header)} characters. Save its parts one by one."
        )
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            np.savez(file, header=np.array(header), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.add_note(
                f"{path} was not written; what was there before is as it was. Make room or allow writing "
                "there, or save to another place."
            )
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
        contents = _contents(path)
        header = json.loads(str(contents.pop("header")))
        found = header["kind"], header["format"], header["settings"]
    except FileNotFoundError:
        raise
    except Exception as error:  # what is damaged raises nearly anything
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


def _contents(path):
    """Arrays by name, from a file that is not trusted: memory for no more than it really holds.

    np.load would allocate what an array's header promises before it looks for the data, and unpack
    whatever has been compressed.
    """
    size = os.path.getsize(path)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        if len(members) > MOST_ARRAYS:
            raise ValueError(f"{len(members)} arrays; expected at most {MOST_ARRAYS}")
        if len(set(names)) < len(names):
            raise ValueError("two arrays of one name")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("compressed arrays")
        if sum(max(member.file_size, member.compress_size) for member in members) > size:
            raise ValueError("arrays that are larger than the file")
        return {
            name: _array(archive, member, name, size) for name, member in zip(names, members, strict=True)
        }


def _array(archive, member, name, size):
    """One array of the archive, if its header agrees with the bytes that follow and no side is absurd."""
    if name == "header" and member.file_size > LONGEST_HEADER:
        raise ValueError(f"a header of {member.file_size} bytes; expected at most {LONGEST_HEADER}")
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name} in another version of the npy format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file, LONGEST_DESCRIPTION)
        here = member.file_size - file.tell()
    if dtype.kind not in "fiU":
        raise ValueError(f"{name} holds {dtype}, not numbers")
    # An empty array has no bytes, but models make others by its sides.
    if math.prod(shape) * dtype.itemsize != here or math.prod(side or 1 for side in shape) > size:
        raise ValueError(f"{name} promises {shape} of {dtype} in {here} bytes")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def image_shape(sides, arrays, where):
    """Height and width of the images of a stored model, refused if its arrays are too small for them."""
    height, width = (int(side) for side in sides)
    most = 2 * max(array.size for array in arrays.values())  # a half plane has at least half the pixels
    if min(height, width) < 1 or height * width > most:
        raise ValueError(
            f"{where} must hold a model of images of at least one and at most {most} pixels; "
            f"got {height} x {width}. Save the model again."
        )
    return height, width


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
    except (ModelFileError, FileNotFoundError):
        raise
    except Exception as error:  # a file that was made to do harm raises nearly anything
        raise ModelFileError(f"{path} holds no usable {kind}: {error}") from error
