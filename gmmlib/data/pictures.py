"""One picture as grey levels: what a viewer shows, on the scale of the file's type.

Black is 0 and white is 1 whatever the depth of the file, and whatever levels the picture happens to use:
a 16-bit level is divided by 65535, a 12-bit one by 4095. Colour becomes luma, 0.299 R + 0.587 G + 0.114 B.
"""

import warnings

import numpy as np

from gmmlib._extras import extra

with extra("data"):
    from PIL import ExifTags, Image, ImageCms, ImageOps

LUMA = 299, 587, 114  # thousandths
WIDE = {"I", "I;16", "I;16L", "I;16B", "I;16N", "F"}  # Pillow's names of grey beyond 8 bits
# Bits of the whole numbers beyond 8, by format and the begin of Pillow's name; a TIFF states them itself.
BITS = {("PNG", "I;16"): 16, ("PNG", "I"): 16, ("PPM", "I"): 16, ("JPEG2000", "I;16"): 16}
BITS |= {("IM", "I;16"): 16, ("IM", "I"): 31}
WHITE_IS_ZERO = 0
SIGNED = 2


class NoGreyError(Exception):
    """A picture whose levels have no known black and white, in words that follow its name."""


def grey(file):
    """Read a picture from an open file: (H, W) in [0, 1], upright, transparency over white.

    Of several frames it is the first. What is damaged raises nearly anything.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's name no file, and what fails raises
        with Image.open(file) as image:
            tags = getattr(image, "tag_v2", {})  # of a TIFF
            if tags.get(ExifTags.Base.NewSubfileType, 0) & 1:
                raise NoGreyError(
                    "the first page is a preview of a larger picture; convert it to JPEG, PNG or TIFF"
                )
            image.load()
            try:
                ImageOps.exif_transpose(image, in_place=True)
            except Exception as error:  # damaged notes, of any kind, beside pixels that are whole
                if isinstance(error, MemoryError):
                    raise
            wide = image.mode in WIDE or _sample_format(tags) == SIGNED
            return _beyond_8_bits(image, tags) if wide else _luma(image)


def _luma(image):
    """Grey levels of a picture of 8 bits, or fewer, in any colours."""
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if image.mode == "La":
        image = image.convert("LA")
    transparent = image.has_transparency_data
    bands = np.asarray(image.convert("RGBA" if transparent else "RGB"))
    # Whole numbers up to the one division, so that white is 1 and every machine has the same bits.
    levels = np.zeros(bands.shape[:2])
    for band, weight in enumerate(LUMA):
        levels += np.multiply(bands[:, :, band], weight, dtype=np.float64)
    if not transparent:
        levels /= 255_000
        return levels
    alpha = bands[:, :, 3].astype(np.float64)
    return (levels * alpha + 255_000 * (255 - alpha)) / (255_000 * 255)


def _beyond_8_bits(image, tags):
    """Grey levels of a picture of whole numbers beyond 8 bits, of signed ones, or of floats."""
    stored = np.asarray(image)
    if image.mode == "F":
        if not np.isfinite(stored).all():
            raise NoGreyError("floats that are NaN or infinite")
        if stored.min() < 0 or stored.max() > 1:
            raise NoGreyError(
                f"floats from {stored.min():g} to {stored.max():g}; scale them to 0 (black) ... 1 (white)"
            )
        white = 1
    elif tags:
        bits, signed = int(tags.get(ExifTags.Base.BitsPerSample, (1,))[0]), _sample_format(tags) == SIGNED
        kind = f"{'i' if signed else 'u'}{stored.itemsize}"
        stored, white = stored.astype(stored.dtype.newbyteorder("=")).view(kind), 2 ** (bits - signed) - 1
    elif bits := BITS.get((image.format, image.mode[:4])):
        white = 2**bits - 1
    else:
        raise NoGreyError(
            f"what is white in a {image.format} file of this depth is not known; convert it to PNG or TIFF"
        )
    if stored.min() < 0:
        raise NoGreyError(f"grey levels down to {stored.min()}; add to them, so that none is below 0 (black)")
    levels = stored / np.float64(white)
    if tags and tags.get(ExifTags.Base.PhotometricInterpretation, WHITE_IS_ZERO) == WHITE_IS_ZERO:
        levels = 1 - levels  # Pillow turns these round at 8 bits only
    if isinstance(clear := image.info.get("transparency"), int):
        levels[stored == clear] = 1
    return levels


def _sample_format(tags):
    return tags.get(ExifTags.Base.SampleFormat, (1,))[0]
