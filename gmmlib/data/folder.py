"""All pictures of a folder as grey levels, and what was left out, with the reason."""

import os
import stat
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gmmlib import _checks
from gmmlib._extras import extra
from gmmlib.data import catalogue, pictures
from gmmlib.data.catalogue import DatasetError

with extra("data"):
    from PIL import Image, UnidentifiedImageError

LARGEST = 2**31  # bytes of a file; the largest picture of 16-bit colours that Pillow opens has fewer


class Skipped(NamedTuple):
    """A file or sub-folder that was left out, and why, in words."""

    path: Path
    reason: str


class Photographs(NamedTuple):
    """The pictures of a folder, and the report on what was left out."""

    images: list[np.ndarray]  # (H, W) each, in [0, 1]
    paths: list[Path]  # where each comes from
    skipped: list[Skipped]


def load_folder(path, *, recursive=False, min_side=1):
    """Load all pictures of a folder as grey levels.

    A picture is known by its content, whatever its name: every format that Pillow reads is taken, at
    every depth and in every mode. It is shown as a viewer shows it: upright by the orientation that the
    camera noted, the first frame of several, transparency over white. Colour profiles are not applied.
    The result is a `Photographs`; DatasetError if there is no such folder, it cannot be opened, or no picture
    in it could be taken.

    Parameters
    ----------
    path : str or path-like
        The folder. ``~`` stands for the home folder.
    recursive : bool
        Whether to look into sub-folders too. Links to folders are not followed.
    min_side : int
        Pictures of fewer pixels than this in height or width are skipped: the side of the patches that
        are to be drawn from them.

    Returns
    -------
    images : list of ndarray, (H, W)
        Float64, luma as of `load_bsds`, from 0 (black) to 1 (white) by the type of the file: levels of 8 bits
        are divided by 255, of 12 by 4095, of 16 by 65535, of 32 by 2**32 - 1 (signed ones by 2**15 - 1 or
        2**31 - 1), and floats are as they are; nothing is stretched to the levels that a picture uses.
        Colours of 16 bits are read to 8. A picture of 12 million pixels takes 96 MB.
    paths : list of Path
        The file of each image, in the order of the names, compared as text, folder by folder.
    skipped : list of (path, reason)
        What was left out, in the same order: files that are no pictures, are damaged or cannot be read;
        pictures with floats outside [0, 1], with levels below 0, or of more pixels than Pillow opens
        (178 million); sub-folders that were not entered. Hidden files and folders, whose names begin with
        a dot, are left out without mention.
    """
    folder = _folder(path)
    _checks.truth(recursive, "recursive")
    min_side = _checks.positive_integer(min_side, "min_side")
    photographs = Photographs([], [], [])
    for file, reason in _search(folder, recursive):
        image, reason = _read(file, min_side) if reason is None else (None, reason)
        if image is None:
            photographs.skipped.append(Skipped(file, reason))
        else:
            photographs.images.append(image)
            photographs.paths.append(file)
    if not photographs.images:
        raise DatasetError(_nothing(folder, photographs.skipped))
    return photographs


def _folder(path):
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"path must be the name of a folder, a str or a Path; got {path!r}.")
    return Path(os.path.expanduser(name))


def _search(folder, recursive):
    """What a folder holds, [(path, None or the reason to skip it)], in order."""
    files, folders = [], [folder]
    while folders:  # no recursion: folders can be nested deeper than Python's stack
        inside = folders.pop()
        try:
            entries = sorted(os.scandir(inside), key=lambda entry: entry.name)
        except OSError as error:
            if inside is folder:
                raise _not_opened(folder, error) from error
            files.append((inside, f"cannot be opened: {error.strerror}"))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            file = inside / entry.name
            reason = _no_file(file)
            if recursive and os.path.isdir(file) and not os.path.islink(file):
                folders.append(file)
            else:
                files.append((file, reason))
    return sorted(files, key=lambda item: item[0].parts)


def _no_file(path):
    """Why a path is not a file to open, or None; a pipe, say, would never end."""
    try:
        status = os.stat(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(status.st_mode):
        if path.is_symlink():
            return "a link to a folder, which is not followed"
        return "a folder; recursive=True looks into it"
    if not stat.S_ISREG(status.st_mode):
        return "neither a file nor a folder"
    if status.st_size == 0:
        return "empty, 0 bytes"
    if status.st_size > LARGEST:
        return f"a file of more than {LARGEST} bytes"
    return None


def _read(path, min_side):
    """The picture, or None and the reason why it is left out."""
    try:
        with open(path, "rb") as file:
            image = pictures.grey(file)
    except UnidentifiedImageError:
        return None, "not a picture of a kind that Pillow reads, or damaged at its beginning"
    except (pictures.NoGreyError, Image.DecompressionBombError) as error:
        return None, str(error)
    except MemoryError:
        return None, "needs more memory than there is"
    except Exception as error:  # what is damaged raises nearly anything
        if catalogue.is_of_the_system(error):
            return None, f"cannot be read: {error.strerror}"
        return None, f"cannot be decoded: {' '.join(str(error).split()) or type(error).__name__}"
    if min(image.shape) < min_side:
        return None, f"{image.shape[0]} x {image.shape[1]} pixels; min_side={min_side}"
    return image, None


def _not_opened(folder, error):
    place = os.path.abspath(folder)
    if isinstance(error, FileNotFoundError):
        return DatasetError(f"there is no folder {place}; make it and put pictures into it, or name another")
    if isinstance(error, NotADirectoryError):
        return DatasetError(f"{place} is a file; name the folder that holds the pictures")
    return DatasetError(f"the folder {place} cannot be opened: {error.strerror}; mend that and try again")


def _nothing(folder, skipped):
    shown = "; ".join(f"{str(path.relative_to(folder))!r}: {reason}" for path, reason in skipped[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    held = f"left out: {shown}{more}" if skipped else "there is none"
    return (
        f"no picture was found in {os.path.abspath(folder)}; looked there for files of any name that is not "
        f"hidden and any format that Pillow reads (JPEG, PNG, TIFF and others); {held}"
    )
