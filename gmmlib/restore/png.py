"""PNG files of 8 and 16 bits per channel, with the chunks that say how they are to be shown."""

import struct
import zlib

import numpy as np

from gmmlib._extras import extra
from gmmlib.restore.picture import Picture, PictureError, check_size, known_orientation

with extra("data"):
    import imagecodecs
    from PIL import ExifTags, Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Colours, resolution, orientation and texts; the others say what the restored levels may not keep.
KEPT = {b"cHRM", b"gAMA", b"iCCP", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs", b"eXIf", b"tEXt", b"zTXt"}
KEPT |= {b"iTXt"}
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}


def read(data):
    """Decode bytes to a `Picture`; a palette, and one colour that is transparent, become channels.

    PictureError if they are damaged, animated, or of fewer than 8 bits per channel.
    """
    chunks = list(_chunks(data))
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13 or chunks[-1][0] != b"IEND":
        raise PictureError(
            "is damaged or cut short: a PNG file begins with IHDR and ends with IEND. Save again."
        )
    first = dict(reversed(chunks))
    width, height, bits, colour, *rest = struct.unpack(">2L5B", first[b"IHDR"])
    check_size(width, height)
    if b"acTL" in first:
        raise PictureError("is animated; expected one picture. Save its frames as files of their own.")
    if colour != PALETTE and bits not in (8, 16):
        raise PictureError(f"has {bits} bits per channel; expected 8 or 16. Convert it to grey of 8 bits.")
    # Grey stands for a palette, so that the decoder gives its indices; other chunks it shall not apply.
    header = struct.pack(">2L5B", width, height, bits, GREY if colour == PALETTE else colour, *rest)
    bare = [(b"IHDR", header), *((name, body) for name, body in chunks if name == b"IDAT"), (b"IEND", b"")]
    pixels = imagecodecs.png_decode(_file(bare))
    notes = []
    if colour == PALETTE:
        pixels = _by_palette(pixels, bits, first.get(b"PLTE", b""), first.get(b"tRNS"))
        notes.append("its palette became " + ("RGB and alpha" if pixels.shape[2] == 4 else "RGB"))
    elif b"tRNS" in first and colour in (GREY, RGB):
        pixels = _with_alpha(pixels, first[b"tRNS"])
        notes.append("its transparent colour became a channel alpha")
    if pixels.shape[:2] != (height, width):
        raise PictureError("is damaged: its pixels are not as many as it says. Save it again.")
    kept = [(name, body) for name, body in chunks if name in KEPT]
    return Picture(pixels, "PNG", _orientation(first.get(b"eXIf")), {"chunks": kept}, tuple(notes))


def write(picture):
    """Encode a `Picture` to bytes."""
    chunks = list(_chunks(imagecodecs.png_encode(np.ascontiguousarray(picture.pixels))))
    before = [chunk for chunk in chunks if chunk[0] == b"IHDR"]
    return _file([*before, *picture.extras["chunks"], *(chunk for chunk in chunks if chunk[0] != b"IHDR")])


def _chunks(data):
    """Yield the name and the body of each chunk up to IEND, checked against its sum."""
    place = len(SIGNATURE)
    while place + 12 <= len(data):
        length, name = struct.unpack_from(">L4s", data, place)
        body = data[place + 8 : place + 8 + length]
        end = data[place + 8 + length : place + 12 + length]
        if end != struct.pack(">L", zlib.crc32(body, zlib.crc32(name))):
            raise PictureError("is damaged or cut short: a checksum is wrong. Save it or copy it again.")
        yield name, body
        if name == b"IEND":
            return
        place += 12 + length
    raise PictureError("is cut short: it has no end. Save it or copy it again.")


def _file(chunks):
    packed = (
        struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(body, zlib.crc32(name)))
        for name, body in chunks
    )
    return SIGNATURE + b"".join(packed)


def _by_palette(pixels, bits, palette, alpha):
    """Colours (H, W, 3) or (H, W, 4) of indices."""
    colours = np.frombuffer(palette[: len(palette) // 3 * 3], np.uint8).reshape(-1, 3)
    indices = (
        pixels if bits == 8 else pixels // (255 // (2**bits - 1))
    )  # the decoder stretches them to 8 bits
    if indices.max() >= len(colours):
        raise PictureError("is damaged: its palette lacks colours that pixels have. Save it again.")
    if alpha is not None:
        opaque = np.full((len(colours), 1), 255, np.uint8)
        given = np.frombuffer(alpha, np.uint8)[: len(colours)]
        opaque[: len(given), 0] = given
        colours = np.concatenate([colours, opaque], axis=1)
    return colours[indices]


def _with_alpha(pixels, clear):
    """Pixels with a channel that is 0 where they have the transparent colour, else its largest level."""
    channels = pixels.reshape(*pixels.shape[:2], -1)
    if len(clear) != 2 * channels.shape[2]:
        raise PictureError("is damaged: its chunk tRNS has a wrong length. Save it again.")
    opaque = (channels != np.frombuffer(clear, ">u2")).any(axis=2, keepdims=True)
    return np.concatenate([channels, opaque * np.array(np.iinfo(pixels.dtype).max, pixels.dtype)], axis=2)


def _orientation(exif):
    if exif is None:
        return None
    notes = Image.Exif()
    try:
        notes.load(exif)
    except Exception:  # damaged notes, of any kind, beside pixels that are whole
        return None
    return known_orientation(notes.get(ExifTags.Base.Orientation))
