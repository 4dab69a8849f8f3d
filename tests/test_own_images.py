"""The pictures of a folder as grey levels, and the program for one's own photographs in the book."""

import errno
import io
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from gmmlib import datasets
from gmmlib.data import folder as reader
from gmmlib.data import pictures
from gmmlib.data.datasets import DatasetError, load_folder
from tests.test_archive import peak_of
from tests.test_datasets import few_files
from tools.project import REPOSITORY

# --- odd files, made here ---------------------------------------------------------------------------

H, W = 24, 32
ROW, COLUMN = np.mgrid[:H, :W]
# Smooth, so that what loses digits loses few; and no colour or grey is symmetric.
RGB = np.stack([8 * COLUMN + 2, 5 * ROW + 40, 200 - 3 * COLUMN - 2 * ROW], axis=2).astype(np.uint8)
L = (5 * COLUMN + 3 * ROW + 1).astype(np.uint8)
ALPHA = (7 * ROW + 40).astype(np.uint8)
WIDE = (900 * COLUMN + 300 * ROW + 17).astype(np.uint16)  # up to 34,817: less than the type holds
LUMA = RGB @ np.array([0.299, 0.587, 0.114]) / 255
EIGHT_BITS_OF_L = L / 255


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(array, mode=None):
    image = Image.fromarray(array)
    return image if mode is None else image.convert(mode)


def with_alpha(array):
    return Image.merge("LA" if array.ndim == 2 else "RGBA", [*picture(array).split(), picture(ALPHA)])


def over_white(levels, alpha=ALPHA):
    return levels * (alpha / 255) + (1 - alpha / 255)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


def png(bits, colour, rows, *chunks, size=(W, H)):
    """A PNG of any depth: rows of bytes without their filters, and chunks before them."""
    header = struct.pack(">2I5B", *size, bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def big_endian(array):
    return [row.astype(">u2").tobytes() for row in array]


def packed(levels, bits):
    """Rows of levels of 1 to 16 bits, each row filled up to whole bytes, the first bit highest."""
    places = (levels[:, :, None].astype(np.int64) >> np.arange(bits)[::-1]) & 1
    return [row.tobytes() for row in np.packbits(places.reshape(len(levels), -1).astype(np.uint8), axis=1)]


def tiff(data, bits, *, kind=1, white_is_zero=False, order="<", photometric=None, extra=None, more=()):
    """A TIFF of any type: one strip; `kind` is 1 for unsigned numbers, 2 for signed ones, 3 for floats."""
    samples = len(bits)
    photometric = (0 if white_is_zero else 1) if photometric is None else photometric
    tags = {256: [W], 257: [H], 258: bits, 259: [1], 262: [photometric], 273: [8], 277: [samples], 278: [H]}
    tags |= {279: [len(data)], 339: [kind] * samples, **({338: [extra]} if extra is not None else {})}
    tags |= dict(more)
    data += bytes(len(data) % 2)
    entries, beyond = b"", b""
    after = 8 + len(data) + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        body = struct.pack(f"{order}{len(values)}I", *values)
        if len(body) > 4:
            body, beyond = struct.pack(order + "I", after + len(beyond)), beyond + body
        entries += struct.pack(order + "2HI", tag, 4, len(values)) + body
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return (
        mark
        + struct.pack(order + "I", 8 + len(data))
        + data
        + struct.pack(order + "H", len(tags))
        + entries
        + bytes(4)
        + beyond
    )


def lab():
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(picture(RGB), *profiles, outputMode="LAB")


def palette(**_):
    """256 grey levels in a mixed order, and the indices that make L of them."""
    order = np.random.default_rng(0).permutation(256).astype(np.uint8)
    image = picture(np.argsort(order).astype(np.uint8)[L])
    image = Image.frombytes("P", (W, H), image.tobytes())
    image.putpalette(np.repeat(order, 3).tobytes())
    return image


TWELVE = (WIDE % 4096).astype(np.uint16)
FLOATS = (WIDE / 40_000).astype(np.float32)
OPAQUE_FROM = np.where(L == L[3, 4], 1.0, EIGHT_BITS_OF_L)
UNMULTIPLIED = (RGB.astype(int) * ALPHA[:, :, None] // 255).astype(np.uint8)
CLOSE, LOSSY = 1e-12, 0.03

# name: bytes, the grey levels that a viewer shows, and how exactly
SHOWN = {
    "png-L.png": (saved(picture(L), "PNG"), EIGHT_BITS_OF_L, CLOSE),
    "png-1.png": (saved(picture(L > 90), "PNG"), (L > 90) * 1.0, CLOSE),
    "png-2-bits": (png(2, 0, packed(L >> 6, 2)), (L >> 6) / 3, CLOSE),
    "png-4-bits": (png(4, 0, packed(L >> 4, 4)), (L >> 4) / 15, CLOSE),
    "png-16.png": (saved(picture(WIDE), "PNG"), WIDE / 65535, CLOSE),
    "png-16-clear": (
        png(16, 0, big_endian(WIDE), (b"tRNS", struct.pack(">H", WIDE[3, 4]))),
        np.where(WIDE == WIDE[3, 4], 1, WIDE / 65535),
        CLOSE,
    ),
    "png-L-clear.png": (saved(picture(L), "PNG", transparency=int(L[3, 4])), OPAQUE_FROM, CLOSE),
    "png-RGB.PNG": (saved(picture(RGB), "PNG"), LUMA, CLOSE),
    "png-RGB-clear.png": (
        saved(picture(RGB), "PNG", transparency=tuple(map(int, RGB[3, 4]))),
        np.where((RGB == RGB[3, 4]).all(axis=2), 1, LUMA),
        CLOSE,
    ),
    "png-RGBA.png": (saved(with_alpha(RGB), "PNG"), over_white(LUMA), CLOSE),
    "png-LA.png": (saved(with_alpha(L), "PNG"), over_white(EIGHT_BITS_OF_L), CLOSE),
    "png-all-clear.png": (saved(Image.new("RGBA", (W, H)), "PNG"), np.ones((H, W)), CLOSE),
    "png-P.png": (saved(palette(), "PNG"), EIGHT_BITS_OF_L, CLOSE),
    "png-P-clear.png": (
        saved(palette(), "PNG", transparency=int(np.asarray(palette())[3, 4])),
        OPAQUE_FROM,
        CLOSE,
    ),
    "png-P-alphas.png": (
        saved(palette(), "PNG", transparency=bytes([128]) * 256),
        over_white(EIGHT_BITS_OF_L, np.full((H, W), 128)),
        CLOSE,
    ),
    "png-RGB-16": (png(16, 2, big_endian(RGB.reshape(H, -1) * 257.0)), LUMA, CLOSE),
    "png-LA-16": (
        png(16, 4, big_endian(np.stack([L, ALPHA], 2).reshape(H, -1) * 257.0)),
        over_white(EIGHT_BITS_OF_L),
        CLOSE,
    ),
    "png-animated.png": (
        saved(picture(RGB), "PNG", save_all=True, append_images=[Image.new("RGB", (W, H))]),
        LUMA,
        CLOSE,
    ),
    "png-turned.png": (saved(picture(RGB), "PNG", **turned(6)), np.rot90(LUMA, -1), CLOSE),
    "png-bad-notes.png": (
        png(8, 0, packed(L, 8), (b"tEXt", b"Raw profile type exif\0\nexif\n8\nnonsense")),
        EIGHT_BITS_OF_L,
        CLOSE,
    ),
    "tiff-L.tif": (saved(picture(L), "TIFF"), EIGHT_BITS_OF_L, CLOSE),
    "tiff-1.tif": (saved(picture(L > 90), "TIFF"), (L > 90) * 1.0, CLOSE),
    "tiff-1-fax.tif": (
        saved(picture(L > 90), "TIFF", compression="group4"),
        (L > 90) * 1.0,
        CLOSE,
    ),
    "tiff-16.tiff": (saved(picture(WIDE), "TIFF"), WIDE / 65535, CLOSE),
    "tiff-16-big.tif": (tiff(WIDE.astype(">u2").tobytes(), [16], order=">"), WIDE / 65535, CLOSE),
    "tiff-16-lzw.tif": (saved(picture(WIDE), "TIFF", compression="tiff_lzw"), WIDE / 65535, CLOSE),
    "tiff-16-turned.tif": (
        tiff(WIDE.tobytes(), [16], more={274: [8]}.items()),
        np.rot90(WIDE / 65535),
        CLOSE,
    ),
    "tiff-12.tif": (tiff(b"".join(packed(TWELVE, 12)), [12]), TWELVE / 4095, CLOSE),
    "tiff-8-negative.tif": (tiff(L.tobytes(), [8], white_is_zero=True), 1 - EIGHT_BITS_OF_L, CLOSE),
    "tiff-16-negative.tif": (tiff(WIDE.tobytes(), [16], white_is_zero=True), 1 - WIDE / 65535, CLOSE),
    "tiff-32F-negative.tif": (
        tiff(FLOATS.tobytes(), [32], kind=3, white_is_zero=True),
        1 - FLOATS.astype(float),
        CLOSE,
    ),
    "tiff-16-signed.tif": (
        tiff((WIDE // 2).astype("<i2").tobytes(), [16], kind=2),
        (WIDE // 2) / 32767,
        CLOSE,
    ),
    "tiff-8-signed.tif": (tiff((L // 2).tobytes(), [8], kind=2), (L // 2) / 127, CLOSE),
    "tiff-32.tif": (saved(picture(WIDE.astype(np.int32) * 60_000), "TIFF"), WIDE * 6e4 / (2**31 - 1), CLOSE),
    "tiff-32-unsigned.tif": (
        tiff((WIDE.astype(np.uint32) * 120_000).tobytes(), [32]),
        WIDE * 1.2e5 / (2**32 - 1),
        CLOSE,
    ),
    "tiff-32F.tif": (saved(picture(FLOATS), "TIFF"), FLOATS.astype(float), CLOSE),
    "tiff-32F-big.tif": (
        tiff(FLOATS.astype(">f4").tobytes(), [32], kind=3, order=">"),
        FLOATS.astype(float),
        CLOSE,
    ),
    "tiff-RGB.tif": (saved(picture(RGB), "TIFF", compression="tiff_deflate"), LUMA, CLOSE),
    "tiff-RGB-16.tif": (
        tiff((RGB * np.uint16(257)).tobytes(), [16, 16, 16], photometric=2),
        LUMA,
        CLOSE,
    ),
    "tiff-RGBA.tif": (saved(with_alpha(RGB), "TIFF"), over_white(LUMA), CLOSE),
    "tiff-RGBa.tif": (
        tiff(np.dstack([UNMULTIPLIED, ALPHA]).tobytes(), [8] * 4, photometric=2, extra=1),
        over_white(LUMA),
        LOSSY,
    ),
    "tiff-RGBX.tif": (
        tiff(np.dstack([RGB, ALPHA]).tobytes(), [8] * 4, photometric=2, extra=0),
        LUMA,
        CLOSE,
    ),
    "tiff-LA.tif": (saved(with_alpha(L), "TIFF"), over_white(EIGHT_BITS_OF_L), CLOSE),
    "tiff-La.tif": (
        tiff(np.dstack([L.astype(int) * ALPHA // 255, ALPHA]).astype(np.uint8).tobytes(), [8, 8], extra=1),
        over_white(EIGHT_BITS_OF_L),
        LOSSY,
    ),
    "tiff-P.tif": (saved(palette(), "TIFF"), EIGHT_BITS_OF_L, CLOSE),
    "tiff-PA.tif": (
        saved(Image.merge("PA", [palette().convert("L"), picture(ALPHA)]), "TIFF"),
        None,  # its palette is another; only that it is taken
        None,
    ),
    "tiff-CMYK.tif": (saved(picture(RGB, "CMYK"), "TIFF"), LUMA, CLOSE),
    "tiff-YCbCr.tif": (saved(picture(RGB, "YCbCr"), "TIFF"), LUMA, LOSSY),
    "tiff-LAB.tif": (saved(lab(), "TIFF"), LUMA, 0.05),  # 8 bits of it do not hold all colours
    "tiff-pages.tif": (
        saved(picture(L), "TIFF", save_all=True, append_images=[Image.new("L", (9, 9))]),
        EIGHT_BITS_OF_L,
        CLOSE,
    ),
    "IMG_0001.JPG": (saved(picture(RGB), "JPEG", quality=95), LUMA, LOSSY),
    "jpeg-L.jpeg": (saved(picture(L), "JPEG", quality=95), EIGHT_BITS_OF_L, LOSSY),
    "jpeg-CMYK.jpe": (saved(picture(RGB, "CMYK"), "JPEG", quality=95), LUMA, LOSSY),
    "jpeg-progressive.jpg": (saved(picture(RGB), "JPEG", quality=95, progressive=True), LUMA, LOSSY),
    "jpeg-turned.jpg": (saved(picture(RGB), "JPEG", quality=95, **turned(8)), np.rot90(LUMA), LOSSY),
    "jpeg-bad-notes.jpg": (
        saved(picture(RGB), "JPEG", quality=95, exif=b"Exif\0\0nonsense" * 9),
        LUMA,
        LOSSY,
    ),
    "several-views.mpo": (
        saved(picture(RGB), "MPO", quality=95, save_all=True, append_images=[Image.new("RGB", (W, H))]),
        LUMA,
        LOSSY,
    ),
    "gif.gif": (saved(palette(), "GIF"), EIGHT_BITS_OF_L, CLOSE),
    "gif-clear.gif": (
        saved(palette(), "GIF", transparency=int(np.asarray(palette())[3, 4])),
        OPAQUE_FROM,
        CLOSE,
    ),
    "gif-animated.GIF": (
        saved(palette(), "GIF", save_all=True, append_images=[Image.new("L", (W, H), 9)]),
        EIGHT_BITS_OF_L,
        CLOSE,
    ),
    "webp.webp": (saved(picture(RGB), "WEBP", lossless=True), LUMA, CLOSE),
    "webp-alpha.webp": (saved(with_alpha(RGB), "WEBP", lossless=True, exact=True), over_white(LUMA), CLOSE),
    "webp-animated.webp": (
        saved(picture(RGB), "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (W, H))]),
        LUMA,
        CLOSE,
    ),
    "avif.avif": (saved(picture(RGB), "AVIF", quality=95), LUMA, LOSSY),
    "jpeg2000.jp2": (saved(picture(RGB), "JPEG2000"), LUMA, CLOSE),
    "jpeg2000-16.jp2": (saved(picture(WIDE), "JPEG2000"), WIDE / 65535, CLOSE),
    "bmp.bmp": (saved(picture(RGB), "BMP"), LUMA, CLOSE),
    "bmp-P.BMP": (saved(palette(), "BMP"), EIGHT_BITS_OF_L, CLOSE),
    "dib.dib": (saved(picture(RGB), "DIB"), LUMA, CLOSE),
    "tga.tga": (saved(with_alpha(RGB), "TGA"), over_white(LUMA), CLOSE),
    "pcx.pcx": (saved(picture(RGB), "PCX"), LUMA, CLOSE),
    "sgi.sgi": (saved(picture(RGB), "SGI"), LUMA, CLOSE),
    "qoi.qoi": (saved(picture(RGB), "QOI"), LUMA, CLOSE),
    "dds.dds": (saved(with_alpha(RGB), "DDS"), over_white(LUMA), CLOSE),
    "ico.ico": (saved(with_alpha(RGB), "ICO", sizes=[(W, H)]), over_white(LUMA), CLOSE),
    "xbm.xbm": (saved(picture(L > 90), "XBM"), None, None),
    "msp.msp": (saved(picture(L > 90), "MSP"), (L > 90) * 1.0, CLOSE),
    "ppm.ppm": (saved(picture(RGB), "PPM"), LUMA, CLOSE),
    "pbm.pbm": (saved(picture(L > 90), "PPM"), (L > 90) * 1.0, CLOSE),
    "pgm-16.pgm": (saved(picture(WIDE.astype(np.int32)), "PPM"), WIDE / 65535, CLOSE),
    "pgm-10.pgm": (
        b"P5 %d %d 1023\n" % (W, H) + (TWELVE // 4).astype(">u2").tobytes(),
        (TWELVE // 4) / 1023,
        1e-5,  # Pillow makes 16 bits of them
    ),
    "pgm-text.pgm": (b"P2 2 1 4\n1 3\n", np.array([[0.25, 0.75]]), 0.002),
    "pfm.pfm": (saved(picture(FLOATS), "PPM"), FLOATS.astype(float), CLOSE),
    "spider.spi": (saved(picture(FLOATS), "SPIDER"), FLOATS.astype(float), CLOSE),
}


def stub(kind):
    return {
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "mpeg": bytes([0, 0, 1, 0xB3, 20, 0, 240]) + bytes(99),
    }[kind]


def fits():
    cards = [
        "SIMPLE  =                    T",
        "BITPIX  =                   16",
        "NAXIS   =                    2",
    ]
    cards += [f"NAXIS1  = {W:20}", f"NAXIS2  = {H:20}", "END"]
    return "".join(card.ljust(80) for card in cards).encode().ljust(2880) + bytes(2 * W * H)


def other_floats(value):
    changed = FLOATS.copy()
    changed[3, 4] = value
    return saved(picture(changed), "TIFF")


ONE_PIXEL_ROW = [b"\0" * 8]
NO_PICTURE = "not a picture of a kind that Pillow reads, or damaged at its beginning"

# name: bytes, and why it is left out
LEFT_OUT = {
    "empty.jpg": (b"", "empty, 0 bytes"),
    "notes.txt": (b"three photographs of the harbour\n", NO_PICTURE),
    "page.jpg": (b"<!DOCTYPE html><title>Not found</title>", NO_PICTURE),
    "noise.png": (np.random.default_rng(3).bytes(999), NO_PICTURE),
    "film.mp4": (b"\0\0\0\x18ftypmp42" + bytes(99), NO_PICTURE),
    "tiff-10.tif": (tiff(b"".join(packed(TWELVE // 4, 10)), [10]), NO_PICTURE),
    "cut.jpg": (
        SHOWN["IMG_0001.JPG"][0][:-300],
        "cannot be decoded: image file is truncated|cannot be decoded: Truncated",
    ),
    "cut.png": (saved(picture(RGB), "PNG")[:70], "cannot be decoded: "),
    "cut.tif": (SHOWN["tiff-L.tif"][0][:60], NO_PICTURE),
    "cut-16.tif": (tiff(WIDE.tobytes(), [16], more={273: [2000]}.items()), "cannot be decoded: "),
    "cut.webp": (SHOWN["webp.webp"][0][:-40], "cannot be decoded: |not a picture"),
    "cut.qoi": (SHOWN["qoi.qoi"][0][:-40], "cannot be decoded: not enough image data"),
    "cut.gif": (SHOWN["gif.gif"][0][:14], "cannot be decoded: |not a picture"),
    "bad-sum.png": (saved(picture(RGB), "PNG").replace(b"IDAT", b"IDAT\1", 1), "cannot be decoded: "),
    "bomb.png": (
        png(8, 0, ONE_PIXEL_ROW, size=(60_000, 60_000)),
        "Image size (3600000000 pixels) exceeds limit",
    ),
    "bomb.tif": (tiff(b"\0" * 64, [16], more={256: [50_000], 257: [50_000]}.items()), "Image size (25000"),
    "bomb.gif": (
        b"GIF89a" + struct.pack("<2H3xc4HB", 65535, 65535, b",", 0, 0, 65535, 65535, 0) + bytes(99),
        "Image size (4294836225 pixels)",
    ),
    "nan.tif": (other_floats(np.nan), "floats that are NaN or infinite"),
    "inf.tif": (other_floats(np.inf), "floats that are NaN or infinite"),
    "hdr.tif": (other_floats(255), "floats from 0.000425 to 255; scale them to 0 (black) ... 1 (white)"),
    "dark.tif": (other_floats(-0.5), "floats from -0.5 to 0."),
    "signed.tif": (
        tiff((WIDE.astype(int) - 20_000).astype("<i2").tobytes(), [16], kind=2),
        "grey levels down to -19983; add to them, so that none is below 0 (black)",
    ),
    "signed-8.tif": (tiff(L.tobytes(), [8], kind=2), "grey levels down to -"),
    "raw.dng": (
        tiff(L.tobytes(), [8], more={254: [1]}.items()),
        "the first page is a preview of a larger picture; convert it to JPEG, PNG or TIFF",
    ),
    "stars.fits": (
        fits(),
        "what is white in a FITS file of this depth is not known; convert it to PNG or TIFF",
    ),
    "table.h5": (stub("hdf5"), "cannot be decoded: "),
    "film.mpg": (stub("mpeg"), "cannot be decoded: "),
    "tiny.png": (saved(Image.new("L", (40, 1)), "PNG"), "1 x 40 pixels; min_side=2"),
}
HIDDEN = ("._IMG_0001.JPG", ".DS_Store", ".hidden.png")


def fill(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (data, *_) in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = fill(tmp_path_factory.mktemp("odd"), SHOWN | LEFT_OUT)
    for name in HIDDEN:
        (folder / name).write_bytes(SHOWN["png-L.png"][0])
    everything = load_folder(folder, min_side=1)
    return folder, everything, load_folder(folder, min_side=2)


def test_there_are_sixty_odd_files():
    assert len(SHOWN) > 60
    assert len(LEFT_OUT) > 20


def test_every_file_is_taken_or_reported_and_hidden_ones_are_neither(loaded):
    folder, everything, few = loaded
    taken, skipped = [path.name for path in few.paths], [path.name for path, _ in few.skipped]
    assert set(taken) == SHOWN.keys() - {"pgm-text.pgm"}, few.skipped
    assert set(skipped) == LEFT_OUT.keys() | {"pgm-text.pgm"}
    assert (taken, skipped) == (sorted(taken), sorted(skipped))
    assert {path.parent for path in few.paths} == {folder}
    assert [path.name for path in everything.paths] == sorted(SHOWN.keys() | {"tiny.png"})


@pytest.mark.parametrize("name", SHOWN)
def test_a_picture_has_the_levels_that_a_viewer_shows(loaded, name):
    _, found, _ = loaded
    image = found.images[[path.name for path in found.paths].index(name)]
    _, expected, tolerance = SHOWN[name]
    assert image.dtype == np.float64
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert 0 <= image.min() <= image.max() <= 1
    if expected is not None:
        assert image.shape == expected.shape
        assert np.abs(image - expected).max() <= tolerance
    assert image.std() > 0.05 or name in ("png-all-clear.png",)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_file_that_is_left_out_is_reported_with_the_reason(loaded, name):
    _, _, found = loaded
    reasons = {path.name: reason for path, reason in found.skipped}
    assert any(reasons[name].startswith(start) for start in LEFT_OUT[name][1].split("|"))
    assert "\n" not in reasons[name]


def test_white_and_black_are_1_and_0_at_every_depth():
    """To the last bit: nothing is divided twice."""
    for dtype, kind in ((np.uint8, "PNG"), (np.uint16, "PNG"), (np.uint16, "TIFF"), (np.int32, "TIFF")):
        levels = np.array([[0, np.iinfo(dtype).max]], dtype=dtype)
        assert pictures.grey(io.BytesIO(saved(picture(levels), kind))).tolist() == [[0.0, 1.0]]
    clear = np.array([[[9, 9, 9, 0], [255, 255, 255, 255], [0, 0, 0, 255]]], dtype=np.uint8)
    assert pictures.grey(io.BytesIO(saved(picture(clear), "PNG"))).tolist() == [[1.0, 1.0, 0.0]]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_pictures_stand_upright(kind, orientation):
    """As Pillow's own function turns them; numbers that mean nothing turn nothing."""
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(picture(np.repeat(L[:, :, None], 3, axis=2)), kind, **turned(orientation), **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("L")) / 255
    assert (pictures.grey(io.BytesIO(data)) == expected).all()


def test_a_photograph_has_the_levels_that_load_bsds_gives_it(tmp_path):
    for number, image in enumerate(datasets.load_bsds("val", "sample")):
        levels = np.round(255 * image).astype(np.uint8)
        (tmp_path / f"{number}.png").write_bytes(saved(picture(levels), "PNG"))
    encoded = datasets.bundled.photographs("val")
    for number, data in enumerate(encoded):
        (tmp_path / f"sample-{number}").write_bytes(data)
    found = load_folder(tmp_path)
    for image, expected in zip(found.images[2:], datasets.load_bsds("val", "sample"), strict=True):
        assert image.tobytes() == expected.tobytes()


def test_random_damage_never_ends_the_run(tmp_path):
    """Of each file a few bytes changed or the end cut off: taken or reported, and levels stay in [0, 1]."""
    rng = np.random.default_rng(0)
    for name, (data, *_) in SHOWN.items():
        for copy in range(4):
            changed = bytearray(data)
            for place in rng.integers(len(changed), size=5):
                changed[place] = rng.integers(256)
            if copy % 2:
                changed = changed[: rng.integers(len(changed))]
            (tmp_path / f"{copy}-{name}").write_bytes(changed)
    found = load_folder(tmp_path)
    assert len(found.images) + len(found.skipped) == 4 * len(SHOWN)
    assert min(len(found.images), len(found.skipped)) > 20
    for image in found.images:
        assert 0 <= image.min() <= image.max() <= 1


def test_a_bomb_costs_no_memory(tmp_path):
    bombs = {name: data for name, data in LEFT_OUT.items() if name.startswith("bomb")}
    fill(tmp_path, bombs | {"good.png": SHOWN["png-L.png"]})
    load_folder(tmp_path)
    assert peak_of(lambda: load_folder(tmp_path)) < 2**22


def test_a_file_larger_than_any_picture_is_not_opened(tmp_path):
    fill(tmp_path, {"good.png": SHOWN["png-L.png"]})
    with open(tmp_path / "large.webp", "wb") as file:
        file.write(SHOWN["webp.webp"][0])
        file.truncate(reader.LARGEST + 1)  # no room on the disk is used
    ((path, reason),) = load_folder(tmp_path).skipped
    assert (path.name, reason) == ("large.webp", "a file of more than 2147483648 bytes")


# --- the folder -------------------------------------------------------------------------------------


@pytest.fixture
def nested(tmp_path):
    root = tmp_path / "photographs"
    one = {"b.png": SHOWN["png-L.png"]}
    for folder in ("", "2024", "2024/Summer", "2024-x", ".trash", "none"):
        fill(root / folder, one if folder != "none" else {})
    fill(root, {"a.png": SHOWN["png-L.png"]})
    return root


def names(root, paths):
    return [path.relative_to(root).as_posix() for path in paths]


def test_sub_folders_are_reported_or_entered(nested):
    found = load_folder(nested)
    assert names(nested, found.paths) == ["a.png", "b.png"]
    assert [(names(nested, [path])[0], reason) for path, reason in found.skipped] == [
        (folder, "a folder; recursive=True looks into it") for folder in ("2024", "2024-x", "none")
    ]
    found = load_folder(nested, recursive=True)
    assert names(nested, found.paths) == [
        "2024/Summer/b.png",
        "2024/b.png",
        "2024-x/b.png",
        "a.png",
        "b.png",
    ]
    assert found.skipped == []


def test_links_do_not_go_round_in_circles(nested):
    (nested / "2024" / "up").symlink_to(nested)
    (nested / "itself").symlink_to("itself")
    (nested / "picture").symlink_to("a.png")
    (nested / "gone.jpg").symlink_to("nowhere")
    found = load_folder(nested, recursive=True)
    assert "picture" in names(nested, found.paths)
    assert len(found.images) == 6
    assert [(names(nested, [path])[0], reason) for path, reason in found.skipped] == [
        ("2024/up", "a link to a folder, which is not followed"),
        ("gone.jpg", "cannot be read: No such file or directory"),
        ("itself", "cannot be read: Too many levels of symbolic links"),
    ]
    link = nested.parent / "link"
    link.symlink_to(nested)
    assert len(load_folder(link).images) == 3  # the folder that is named may be a link


def test_what_is_no_file_is_not_waited_for(nested):
    os.mkfifo(nested / "pipe.jpg")
    (nested / "endless.png").symlink_to("/dev/zero")
    reasons = {path.name: reason for path, reason in load_folder(nested).skipped}
    assert reasons["pipe.jpg"] == reasons["endless.png"] == "neither a file nor a folder"


def test_folders_deeper_than_the_stack_of_python(tmp_path, monkeypatch):
    """Not made, only pretended: folders of such depth cannot be removed from Python."""
    depth = 1200
    fill(tmp_path, {"a.png": SHOWN["png-L.png"]})
    (tmp_path / "d").mkdir()
    scandir = os.scandir
    left = iter(range(depth))

    def again(path):
        return scandir(tmp_path if next(left, None) is not None else tmp_path / "d")

    monkeypatch.setattr(os, "scandir", again)
    monkeypatch.setattr(reader, "_no_file", lambda path: None)
    monkeypatch.setattr(os.path, "isdir", lambda path: Path(path).name == "d")
    assert len(reader._search(tmp_path, recursive=True)) == depth


def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (tmp_path / name).write_bytes(SHOWN["png-L.png"][0])
    except OSError:
        pytest.skip("this file system takes text only")
    (tmp_path / os.fsdecode(b"two\nlines\xff")).write_bytes(b"")
    found = load_folder(tmp_path)
    assert [path.name for path in found.paths] == [name]
    assert len(found.skipped) == 1


def searched(place, held):
    return (
        f"no picture was found in {place}; looked there for files of any name that is not hidden and any "
        f"format that Pillow reads (JPEG, PNG, TIFF and others); {held}"
    )


def test_a_folder_without_pictures_is_named_with_what_was_looked_for(tmp_path, monkeypatch):
    with pytest.raises(DatasetError) as caught:
        load_folder(tmp_path)
    assert str(caught.value) == searched(tmp_path, "there is none")
    (tmp_path / "inner").mkdir()
    for name in ("a.txt", "b\nc.txt", "d.txt"):
        (tmp_path / name).write_bytes(b"text")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError) as caught:
        load_folder(".")
    assert str(caught.value) == searched(
        tmp_path,
        f"left out: 'a.txt': {NO_PICTURE}; 'b\\nc.txt': {NO_PICTURE}; 'd.txt': {NO_PICTURE}; and 1 more",
    )


def test_a_folder_that_is_not_there_and_a_file_in_its_place(tmp_path):
    (tmp_path / "file.jpg").write_bytes(SHOWN["IMG_0001.JPG"][0])
    for place, message in (
        (
            "nowhere",
            f"there is no folder {tmp_path}/nowhere; make it and put pictures into it, or name another",
        ),
        ("file.jpg", f"{tmp_path}/file.jpg is a file; name the folder that holds the pictures"),
        (
            "x" * 300,
            f"the folder {tmp_path}/{'x' * 300} cannot be opened: File name too long; mend that and try",
        ),
    ):
        with pytest.raises(DatasetError, match=re.escape(message)):
            load_folder(tmp_path / place)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ENFILE])
def test_a_folder_that_cannot_be_opened(nested, monkeypatch, code):
    real = os.scandir

    def scandir(path):
        if Path(path).name == closed:
            raise OSError(code, os.strerror(code))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    closed = "2024"
    found = load_folder(nested, recursive=True)
    assert names(nested, found.paths) == ["2024-x/b.png", "a.png", "b.png"]
    assert found.skipped == [(nested / "2024", f"cannot be opened: {os.strerror(code)}")]
    closed = "photographs"
    with pytest.raises(DatasetError) as caught:
        load_folder(nested)
    assert str(caught.value) == (
        f"the folder {nested} cannot be opened: {os.strerror(code)}; mend that and try again"
    )


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ENFILE])
def test_a_picture_that_cannot_be_read_is_not_called_damaged(nested, monkeypatch, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(pictures.Image, "open", fail)
    with pytest.raises(DatasetError, match=f"left out: 'b.png': cannot be read: {os.strerror(code)}"):
        load_folder(nested / "2024-x")


def test_too_many_open_files_and_too_little_memory_are_told(nested, monkeypatch):
    load_folder(nested)
    with few_files(), pytest.raises(DatasetError, match="cannot be opened: Too many open files; mend that"):
        load_folder(nested)
    monkeypatch.setattr(pictures, "grey", lambda _: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(DatasetError, match=r"left out: 'b\.png': needs more memory than there is"):
        load_folder(nested / "2024-x")


@pytest.mark.parametrize("path", ["", None, 5, b"photographs", "a\0b", ["photographs"]])
def test_what_is_no_name_of_a_folder_is_refused(path):
    with pytest.raises(ValueError) as caught:
        load_folder(path)
    assert str(caught.value) == f"path must be the name of a folder, a str or a Path; got {path!r}."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recursive": "yes"}, "recursive must be True or False; got 'yes'."),
        ({"min_side": 0}, "min_side must be a positive integer; got 0."),
        ({"min_side": 2.5}, "min_side must be a positive integer; got 2.5."),
    ],
)
def test_wrong_options(nested, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_folder(nested, **options)


def test_the_home_folder_has_its_sign(nested, monkeypatch):
    monkeypatch.setenv("HOME", str(nested.parent))
    assert len(load_folder("~/photographs").images) == 2


# --- the program ------------------------------------------------------------------------------------


def run_own(folder):
    command = [sys.executable, str(REPOSITORY / "book" / "own.py")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_it_runs_on_a_folder_of_photographs(tmp_path):
    inner = tmp_path / "photographs" / "more"
    inner.mkdir(parents=True)
    for number, image in enumerate(datasets.load_bsds("train", "sample")[:3]):
        grey = (255 * image).astype(np.uint8)
        place = inner / "0.JPG" if number == 0 else tmp_path / "photographs" / f"{number}.jpg"
        picture(grey).convert("RGB").save(place, "JPEG")
    fill(tmp_path / "photographs", {"cut.jpg": LEFT_OUT["cut.jpg"], "._1.jpg": LEFT_OUT["noise.png"]})
    (tmp_path / "photographs" / os.fsdecode(b"caf\xe9.png")).write_bytes(saved(Image.new("L", (9, 9)), "PNG"))
    done = run_own(tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[:3] == [
        "taken 'photographs/1.jpg': 512 x 512",
        "taken 'photographs/2.jpg': 512 x 512",
        "taken 'photographs/more/0.JPG': 512 x 512",
    ]
    assert said[3] == r"skipped 'photographs/caf\udce9.png': 9 x 9 pixels; min_side=16"
    assert said[4].startswith("skipped 'photographs/cut.jpg': cannot be decoded: ")
    assert said[5] == "20,000 patches from 3 photographs"
    assert 0.5 < float(said[6].removesuffix(" nats per dimension")) < 3
    with Image.open(tmp_path / "components.png") as sheet:
        assert sheet.width > 500


def test_it_names_the_folder_that_is_empty(tmp_path):
    (tmp_path / "photographs").mkdir()
    last = run_own(tmp_path).stderr.splitlines()[-1]
    assert last.endswith(searched(tmp_path / "photographs", "there is none"))
