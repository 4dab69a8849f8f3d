"""TIFF files of one page: 8 and 16 bits per channel, and floats."""

import io

import numpy as np

from gmmlib._extras import extra
from gmmlib.restore.picture import Picture, PictureError, check_size, known_orientation

with extra("data"):
    import tifffile

MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WHITE_IS_ZERO, BLACK_IS_ZERO, COLOUR = 0, 1, 2
GREYS = (WHITE_IS_ZERO, BLACK_IS_ZERO)  # the same restoration: a negative has the same statistics
NAMES = {3: "a palette", 4: "a mask", 5: "CMYK", 6: "YCbCr", 8: "CIELAB", 9: "ICCLAB", 32803: "raw colours"}
JPEG = (6, 7)  # compressions
LOSSLESS = {1, 5, 8, 32773, 32946, 50000}  # none, LZW, deflate, packbits, old deflate, zstd
DEFLATE, OLD_DEFLATE = 8, 32946
PREDICTED = {5, 8, 50000}
ORIENTATION, PREVIEW = 274, 1
TEXTS = (269, 270, 271, 272, 305, 306, 315, 33432)  # name, description, camera, program, date, artist, rights
BYTES = (700, 33723)  # XMP, IPTC
EXIF, GPS = 34665, 34853
TYPES = "u1 u2 f2 f4 f8"


def read(data):
    """Decode bytes to a `Picture`; PictureError for several pages, other colours and other depths."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        images = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
        count = max(len(file.pages), images if isinstance(images, int) else 1)
        if count > 1:
            raise PictureError(
                f"has {count} pages; expected one picture. Save each page as a file of its own."
            )
        if page.subfiletype & PREVIEW:
            raise PictureError("holds a preview of a larger picture. Convert it to a plain TIFF of one page.")
        _check(page, len(data))
        pixels = page.asarray()
        pixels = np.moveaxis(pixels, 0, 2) if page.axes == "SYX" else pixels
        pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))
        tags = page.tags
        notes = []
        if page.compression not in LOSSLESS:
            notes.append("its compression became deflate, which loses nothing")
        if EXIF in tags or GPS in tags:
            notes.append("the notes of its camera (Exif) are left out")
        return Picture(
            pixels, "TIFF", known_orientation(tags.valueof(ORIENTATION)), _extras(file, page), tuple(notes)
        )


def write(picture):
    """Encode a `Picture` to bytes, compressed as it was where that loses nothing."""
    extras, pixels, stream = dict(picture.extras), picture.pixels, io.BytesIO()
    order, big = extras.pop("byteorder"), extras.pop("bigtiff")
    if extras["planarconfig"] == tifffile.PLANARCONFIG.SEPARATE:
        pixels = np.moveaxis(pixels, 2, 0)
    with tifffile.TiffWriter(stream, byteorder=order, bigtiff=big) as file:
        file.write(np.ascontiguousarray(pixels), metadata=None, **extras)
    return stream.getvalue()


def _check(page, size):
    """Refuse pages that hold no picture of grey levels or RGB, or whose strips are not all in the file."""
    check_size(page.imagewidth, page.imagelength)
    jpeg = page.compression in JPEG and page.photometric == 6  # which is decoded to RGB
    if page.photometric not in (*GREYS, COLOUR) and not jpeg:
        name = NAMES.get(int(page.photometric), f"photometric interpretation {int(page.photometric)}")
        raise PictureError(f"has colours of the kind {name}; expected grey or RGB. Convert it to RGB.")
    bits = page.bitspersample
    if page.dtype is None or page.dtype.str[1:] not in TYPES.split() or bits != 8 * page.dtype.itemsize:
        raise PictureError(
            f"has {bits} bits per channel of dtype {page.dtype}; expected 8 or 16 bits without sign, or "
            "floats. Convert it to 16 bits."
        )
    colours = 1 if page.photometric in GREYS else 3
    if page.axes not in ("YX", "YXS", "SYX") or page.samplesperpixel not in (colours, colours + 1):
        raise PictureError(
            f"has {page.samplesperpixel} channels and axes {page.axes}; expected grey or RGB, and alpha if "
            "any. Save other channels as files of their own."
        )
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if not places or any(not count or offset + count > size for offset, count in places):
        raise PictureError(
            "is damaged or cut short: some of its pixels are missing. Save it or copy it again."
        )


def _extras(file, page):
    """What `write` passes to tifffile."""
    tags, compression = page.tags, int(page.compression)
    extras = {"byteorder": file.byteorder, "bigtiff": file.is_bigtiff}
    extras["photometric"] = COLOUR if page.photometric == 6 else int(page.photometric)
    extras["planarconfig"] = page.planarconfig if page.samplesperpixel > 1 else None
    extras["extrasamples"] = [int(kind) for kind in page.extrasamples] or None
    extras["compression"] = compression if compression in LOSSLESS - {OLD_DEFLATE} else DEFLATE
    if compression in PREDICTED and page.predictor in (2, 3):
        extras["predictor"] = int(page.predictor)
    extras["iccprofile"] = page.iccprofile
    across, down = tags.valueof(282), tags.valueof(283)
    if all(isinstance(side, tuple) and len(side) == 2 and all(side) for side in (across, down)):
        unit = tags.valueof(296)
        extras["resolution"], extras["resolutionunit"] = (across, down), unit if unit in (1, 2, 3) else 2
    more = []
    for code in TEXTS:
        if isinstance(text := tags.valueof(code), str):
            more.append((code, 2, 0, text.encode(), True))
    for code in BYTES:
        if isinstance(held := tags.valueof(code), bytes):
            more.append((code, 7, len(held), held, True))
    if orientation := known_orientation(tags.valueof(ORIENTATION)):
        more.append((ORIENTATION, 3, 1, orientation, True))
    extras["extratags"], extras["software"] = more, False
    return extras
