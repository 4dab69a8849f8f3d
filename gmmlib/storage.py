"""Models on disk: one npz file each, written whole or not at all, never a pickle.

A file may come from anybody, so the memory that reading takes is bounded by what is allowed here, not by what
the file says of itself: the directory's place and length are looked at before the directory, the names of
the arrays before the arrays, and the bytes of an array before its shape.
"""

import json
import math
import os
import reprlib
import stat
import struct
import uuid
import zlib
from pathlib import Path

import numpy as np

import gmmlib

FORMAT = 2  # raised when a reader of today could not read the files of tomorrow
MOST_ARRAYS = 10_000
LONGEST_NAME = 100  # bytes
LONGEST_HEADER = 2**22  # bytes; the settings of a thousand densities are shorter
LONGEST_DESCRIPTION = 500  # characters; what the npy format says about an array of numbers is shorter

# The parts of an npz file, which is a zip archive without compression.
MEMBER = struct.Struct("<4s5H3L2H")
ENTRY = struct.Struct("<4s6H3L5H2L")  # of the directory
END = struct.Struct("<4s4H2LH")
LONG_END = struct.Struct("<4sQ2H2L4Q")  # of a large archive: before the end, with a locator between them
LOCATOR = struct.Struct("<4sLQL")
LONGEST_ENTRY = ENTRY.size + 28 + LONGEST_NAME  # 28: the sizes of a large member
FULL = 2**32 - 1  # stands for a number that is among those


class ModelFileError(ValueError):
    """A file that holds no model of the expected kind."""


def target(path, name="path"):
    """Check where a file is to be written, before anything is computed for it; errors call it `name`.

    Returns the absolute Path, with symbolic links followed: it is what they point to that will be replaced.
    ValueError if it is no path of a file; OSError if its folder is missing, or there is no plain file.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(
            f"{name} must be the path of a file; got {path!r}. Name a file in a folder that exists."
        )
    place = Path(os.path.realpath(text))
    if not place.parent.is_dir():
        kind = NotADirectoryError if place.parent.exists() else FileNotFoundError
        raise kind(
            f"{name} must name a file in a folder that exists; got {text!r}, and there is no folder "
            f"{place.parent}. Make it first."
        )
    if place.is_dir() or text.endswith(os.sep):
        raise IsADirectoryError(f"{name} must name a file; got the folder {text!r}. Add a file name to it.")
    if os.path.lexists(place) and not stat.S_ISREG(os.stat(place, follow_symlinks=False).st_mode):
        raise FileExistsError(f"{name} must name a plain file; got {text!r}, which is none. Name another.")
    return place


def private_name(folder):
    """Path in a folder for a file that is not whole yet; nobody else has that name."""
    return folder / f".gmmlib-{uuid.uuid4().hex}"


def write(path, kind, settings, arrays, temporary=None, note=""):
    """Write a model.

    The path is that of a `target`, replaced at once if it exists, left alone if writing fails; `kind` the
    name of the model's class; `settings` what JSON can hold; `arrays` numbers by name; `note` a text for
    those who find the file.  ValueError if these are more than `read` would take.  Until it is whole the file
    has the name `temporary`, a path beside it that nothing has, by default a `private_name`.
    """
    path = target(path)
    header = {"format": FORMAT, "kind": kind, "settings": settings} | ({"note": note} if note else {})
    header = json.dumps(header, sort_keys=True, default=_plain)
    if len(arrays) >= MOST_ARRAYS or 4 * len(header) > LONGEST_HEADER - 1000:  # `read` would refuse it
        raise ValueError(
            f"a model file holds fewer than {MOST_ARRAYS} arrays and settings of about {LONGEST_HEADER // 4} "
            f"characters; got {len(arrays)} arrays and {len(header)} characters. Save its parts one by one."
        )
    temporary = private_name(path.parent) if temporary is None else temporary
    try:
        with open(temporary, "xb") as file:
            try:
                np.savez(file, header=np.array(header), **arrays)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
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
    """Read a model of a class `kind` back as (settings, arrays).

    `names` is what the arrays must be called, or a function of the settings that returns it.
    FileNotFoundError if there is no such file; `ModelFileError` if it is damaged, holds another kind of
    model, another format, or anything but numbers, or cannot be read at all, which says nothing about what is
    in it.
    """
    with _opened_model(path, kind) as file:
        members, held = _head(path, kind, file)
        if held[0] != kind:
            other = held[0] if isinstance(held[0], str) and len(held[0]) < LONGEST_NAME else "other thing"
            raise ModelFileError(f"{path} holds a {other}; expected a {kind}. Load it with {other}.load.")
        if held[1] != FORMAT:
            raise ModelFileError(
                f"{path} has format {reprlib.repr(held[1])}; this version of gmmlib reads format {FORMAT}. "
                "Save it again with this version, or use the version that wrote it."
            )
        wanted = set(names(held[2]) if callable(names) else names)
        if members.keys() != wanted:
            raise _wrong_names(path, wanted, members)
        try:
            arrays = {name: _array(file, name, members[name]) for name in members}
        except Exception as error:
            raise _unreadable(path, kind, error) from error
    if any(array.dtype.kind not in "fi" for array in arrays.values()):
        raise _wrong_names(path, wanted, members)
    return held[2], arrays


def note(path):
    """The note in a model file, a text, empty if there is none; errors are those of `read`."""
    with _opened_model(path, "model") as file:
        found = _head(path, "model", file)[1][3]
    return found if isinstance(found, str) else ""


def _opened_model(path, kind):
    try:
        return _opened(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(path, kind, error) from error


def _head(path, kind, file):
    """What an open model file holds: where its arrays are; its kind, format, settings and note."""
    try:
        members = _members(file)
        header = json.loads(str(_array(file, "header", members.pop("header"))))
        held = header["kind"], header["format"], header["settings"], header.get("note", "")
    except Exception as error:  # what is damaged raises nearly anything
        raise _unreadable(path, kind, error) from error
    return members, held


def _unreadable(path, kind, error):
    if isinstance(error, OSError | MemoryError):
        why = getattr(error, "strerror", None) or error
        return ModelFileError(
            f"{path} cannot be read ({type(error).__name__}: {why}); what is in it is not known. Allow "
            "reading it, or try again when the machine has room for it."
        )
    return ModelFileError(
        f"{path} is no readable model file ({type(error).__name__}: {str(error)[:300]}). "
        f"Expected what {kind}.save writes; it may be truncated, damaged or hold pickled objects. "
        "Save the model again."
    )


def _wrong_names(path, wanted, members):
    shown = reprlib.Repr()
    shown.maxlist, shown.maxstring = 20, LONGEST_NAME
    return ModelFileError(
        f"{path} must hold numbers under the names {shown.repr(sorted(wanted))}; got "
        f"{shown.repr(sorted(members))}. Save the model again."
    )


def _opened(path):
    """A file to read; not a device or a pipe, which could keep us waiting for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        kind = IsADirectoryError if os.path.isdir(path) else OSError
        raise kind("it is no plain file")
    return open(path, "rb")


def _members(file):
    """Place of each array's bytes, how many there are and their checksum, by name."""
    directory, begins = _directory(file)
    members, place, total = {}, 0, 0
    while place < len(directory):
        (mark, _, _, flags, method, _, _, checksum, packed, size, n_name, n_extra, n_comment, *_, start) = (
            ENTRY.unpack_from(directory, place)
        )
        place += ENTRY.size
        name = directory[place : place + n_name].decode().removesuffix(".npy")
        extra = directory[place + n_name : place + n_name + n_extra]
        place += n_name + n_extra
        if mark != b"PK\x01\x02" or n_comment or n_name > LONGEST_NAME or n_extra > 28 or flags & 1:
            raise ValueError("a directory of another kind than save writes")
        if method:
            raise ValueError("compressed arrays")
        if name in members:
            raise ValueError("two arrays of one name")
        if len(members) == MOST_ARRAYS:
            raise ValueError(f"more than {MOST_ARRAYS} arrays")
        large = iter(struct.unpack(f"<{len(extra[4:]) // 8}Q", extra[4:]))
        size, packed, start = (next(large) if value == FULL else value for value in (size, packed, start))
        total += size
        if size != packed or start + MEMBER.size + size > begins or total > begins:
            raise ValueError("arrays that are larger than the file")
        members[name] = start, size, checksum
    return members


def _directory(file):
    """The directory of the archive, bytes, and where it begins: of no more than the allowed length."""
    size = file.seek(0, os.SEEK_END)
    last = min(size, END.size + LOCATOR.size + LONG_END.size)
    file.seek(size - last)
    tail = file.read(last)
    if len(tail) < END.size or not tail[-END.size :].startswith(b"PK\x05\x06"):
        raise ValueError("the end of the file is not that of an archive")
    *_, count, length, begins, comment = END.unpack(tail[-END.size :])
    end = size - END.size
    if tail[LONG_END.size :].startswith(b"PK\x06\x07") and tail.startswith(b"PK\x06\x06"):
        *_, count, length, begins = LONG_END.unpack(tail[: LONG_END.size])
        end = size - last
    if count > MOST_ARRAYS:
        raise ValueError(f"{count} arrays; expected at most {MOST_ARRAYS}")
    if comment or begins + length != end or length > count * LONGEST_ENTRY:
        raise ValueError(f"a directory of {length} bytes for {count} arrays")
    file.seek(begins)
    return file.read(length), begins


def _array(file, name, member):
    """One array of the archive, if its header agrees with the bytes that follow and no side is absurd."""
    start, size, checksum = member
    if name == "header" and size > LONGEST_HEADER:
        raise ValueError(f"a header of {size} bytes; expected at most {LONGEST_HEADER}")
    file.seek(start)
    mark, *_, n_name, n_extra = MEMBER.unpack(file.read(MEMBER.size))
    if mark != b"PK\x03\x04":
        raise ValueError(f"{name} is not where the directory says")
    start = file.seek(n_name + n_extra, os.SEEK_CUR)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name} in another version of the npy format")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file, LONGEST_DESCRIPTION)
    before = file.tell() - start
    if dtype.kind not in "fiU" or not dtype.itemsize:
        raise ValueError(f"{name} holds {dtype}, not numbers")
    here = size - before
    # An empty array has no bytes, but models make others by its sides.
    most = os.fstat(file.fileno()).st_size
    if math.prod(shape) * dtype.itemsize != here or math.prod(side or 1 for side in shape) > most:
        raise ValueError(f"{name} promises {shape} of {dtype} in {here} bytes")
    array = np.empty(shape, dtype, order="F" if by_columns else "C")
    file.seek(start)
    actual = zlib.crc32(file.read(before))
    if here:
        flat = (array.T if by_columns else array).reshape(-1).view(np.uint8)
        if file.readinto(flat) < here:
            raise ValueError(f"{name} is truncated")
        actual = zlib.crc32(flat, actual)
    if actual != checksum:
        raise ValueError(f"{name} does not have its checksum")
    return array


def image_shape(sides, arrays, where):
    """Height and width of the images of a stored model, refused if its arrays are too small for them."""
    height, width = (int(side) for side in sides)
    most = 2 * max(array.size for array in arrays.values())  # a half plane has at least half the pixels
    if min(height, width) < 1 or height * width > most or (height, width) != tuple(sides):
        raise ValueError(
            f"{where} must hold a model of images of at least one and at most {most} pixels; "
            f"got {height} x {width}. Save the model again."
        )
    return height, width


def known(kind):
    """Class of a name in `gmmlib.ESTIMATORS`, the kinds of model a file may hold; None of another name."""
    return getattr(gmmlib, kind) if isinstance(kind, str) and kind in gmmlib.ESTIMATORS else None


def load(path, model_class):
    """`read` a model of a class that is a `gmmlib.base.Stored`; `ModelFileError` if it makes none, too."""
    kind = model_class.__name__
    try:
        settings, arrays = read(path, kind, model_class.array_names)
        return model_class.from_arrays(settings, arrays, str(path))
    except (ModelFileError, FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # a file that was made to do harm raises nearly anything
        raise ModelFileError(f"{path} holds no usable {kind}: {error}") from error
