"""Picture files: read as they are stored, written as they were, whole or not at all."""

import io
import os
import stat
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gmmlib import storage
from gmmlib._extras import extra
from gmmlib.data import pictures
from gmmlib.restore import jpeg, png, tiff
from gmmlib.restore.picture import PictureError, as_stored, known_orientation, upright

with extra("data"):
    from PIL import ExifTags, Image, UnidentifiedImageError

LARGEST = 2**31  # bytes of a file
KINDS = {"PNG": png, "JPEG": jpeg, "TIFF": tiff}
WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}  # floats: 1


def read(path):
    """Read a PNG, JPEG or TIFF file, known by its content.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    Picture
        Levels as stored, of uint8, uint16 or floats; an orientation is noted, and applied to nothing.

    Raises
    ------
    PictureError
        If it is no such file, is damaged, or holds several pictures, other colours or another depth.
    """
    return decoded(contents(path))


def contents(path):
    """The bytes of a plain file; PictureError if there is none, or it is empty, too large or not readable."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise PictureError("is a folder; expected a picture file. Name the pictures in it.")
        if not stat.S_ISREG(status.st_mode):
            raise PictureError(
                "is no plain file (a device or a pipe); expected a picture file. Save it as one."
            )
        if status.st_size > LARGEST:
            raise PictureError(f"has {status.st_size} bytes; expected at most {LARGEST}. Make it smaller.")
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise PictureError("does not exist; expected a picture file. Check its name.") from None
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror}. Allow reading it.") from error
    if not data:
        raise PictureError("is empty, 0 bytes; expected a picture file. Save it or copy it again.")
    return data


def decoded(data):
    """The `Picture` that the bytes of a file hold; PictureError as of `read`."""
    if data.startswith(png.SIGNATURE):
        module = png
    elif data.startswith(b"\xff\xd8\xff"):
        module = jpeg
    elif data.startswith(tiff.MARKS):
        module = tiff
    else:
        raise PictureError(f"is no PNG, JPEG or TIFF file; got {_kind(data)}. Convert it to one of them.")
    with _damage():
        return module.read(data)


def encoded(picture):
    """The bytes of a file of a `Picture`, with all that came with it; PictureError if that fails."""
    try:
        return KINDS[picture.kind].write(picture)
    except MemoryError:
        raise
    except Exception as error:  # notes of the input that a library does not write, of any kind
        raise PictureError(
            f"cannot be written as {picture.kind}: {_words(error)}. Convert the input."
        ) from error


def save(data, path):
    """Write bytes to a file, whole or not at all; PictureError if that fails."""
    temporary = storage.private_name(path.parent)
    try:
        with open(temporary, "xb") as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise PictureError(
            f"cannot be written: {error.strerror or error}. Make room or allow writing there, or name "
            "another folder by -o."
        ) from error


def mask(path, picture):
    """Read a mask of a picture: bool (H, W), True where it is above half of white, which is missing.

    A mask without an orientation of its own lies on the stored pixels; one with it is rotated to them.
    PictureError if it cannot be read, has transparency, or another height and width than the picture.
    """
    data = contents(path)
    with _damage(), Image.open(io.BytesIO(data)) as image:
        own = known_orientation(image.getexif().get(ExifTags.Base.Orientation))
        if getattr(image, "n_frames", 1) > 1:
            raise PictureError("has several frames; expected one picture of black and white.")
        if image.has_transparency_data:
            raise PictureError("has transparency; expected black and white alone. Remove its channel alpha.")
    with _damage():
        levels = pictures.grey(io.BytesIO(data))  # upright
    if own is not None:
        levels = as_stored(levels, picture.orientation)
    _same_size(levels, picture)
    return levels > 0.5


def reference(path, picture):
    """Read the clean version of a picture: levels of 0 to 1, (H, W) or (H, W, 3), rotated as the picture is.

    PictureError if it cannot be read, or has another size or other colours.
    """
    clean = read(path)
    values = levels(clean)
    if clean.orientation is not None:
        values = as_stored(upright(values, clean.orientation), picture.orientation)
    _same_size(values, picture)
    expected = levels(picture).shape
    if values.shape != expected:
        names = {2: "grey levels", 3: "colours"}
        raise PictureError(
            f"has {names[values.ndim]}; expected {names[len(expected)]}, as the picture. Convert one of them."
        )
    return values


def levels(picture):
    """Grey levels or colours of a `Picture` from 0 to 1, (H, W) or (H, W, 3), without alpha."""
    pixels = picture.pixels
    if pixels.ndim == 3:
        pixels = pixels[:, :, 0] if pixels.shape[2] == 2 else pixels[:, :, :3]
    return pixels.astype(np.float64) / WHITE.get(pixels.dtype, 1)


def _same_size(values, picture):
    expected, got = picture.pixels.shape[:2], values.shape[:2]
    if got != expected:
        turned = got == expected[::-1] and (picture.orientation or 1) >= 5
        remedy = (
            f" The picture is stored on its side (Exif orientation {picture.orientation}): rotate this "
            "one alike."
            if turned
            else " Crop or scale it."
        )
        raise PictureError(
            f"has {got[0]} x {got[1]} pixels; expected height and width of the picture, {expected[0]} x "
            f"{expected[1]}.{remedy}"
        )


@contextmanager
def _damage():
    """Say of everything that a decoder raises what it means for the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they name no file, and what fails raises
        try:
            yield
        except PictureError:
            raise
        except pictures.NoGreyError as error:
            raise PictureError(f"has {error}.") from error
        except MemoryError:
            raise PictureError("needs more memory than there is. Cut it into smaller pictures.") from None
        except UnidentifiedImageError:
            raise PictureError(
                "is no picture of a known kind, or damaged. Save it or copy it again."
            ) from None
        except Exception as error:  # what is damaged raises nearly anything
            raise PictureError(
                f"is damaged, or of a variant that is not known: {_words(error)}. Save it or copy it again."
            ) from error


def _words(error):
    """What an error says, in one line."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def _kind(data):
    """What a file is that is no picture of the known kinds, in words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                return f"a {image.format} file"
    except Exception:  # what is no picture raises nearly anything
        return f"a file that begins with {data[:8]!r}"
