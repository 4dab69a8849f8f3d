"""Picture files: what is read is what was stored, and what is written is as the input was."""

import io
import os
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image, ImageCms, ImageOps

from gmmlib.restore import files, picture, png, tiff
from gmmlib.restore.picture import Picture, PictureError

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DTYPES = [np.uint8, np.uint16, np.float16, np.float32, np.float64]
CHANNELS = [None, 2, 3, 4]


def scene(height=21, width=30, channels=None, seed=0, noise=0.05):
    """A picture of an edge and a wave, with noise: (H, W) or (H, W, channels), from 0 to 1."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:height, :width]
    planes = []
    for _ in range(channels or 1):
        edge = (column * rng.normal() + row * rng.normal() > rng.normal() * 8) * 0.4
        planes.append(0.3 + edge + 0.1 * np.sin(column / 5 + rng.normal()))
    levels = np.stack(planes, axis=2) + noise * rng.standard_normal((height, width, len(planes)))
    return levels.clip(0, 1)[:, :, 0] if channels is None else levels.clip(0, 1)


def as_type(levels, dtype):
    dtype = np.dtype(dtype)
    return (levels if dtype.kind == "f" else levels * np.iinfo(dtype).max).astype(dtype)


def tiff_file(pixels, **options):
    file = io.BytesIO()
    colour = pixels.ndim == 3 and pixels.shape[2] > 2
    options = {"photometric": "rgb" if colour else "minisblack", "metadata": None} | options
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        options = {"extrasamples": ["unassalpha"]} | options
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def pillow_file(pixels, kind, **options):
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, kind, **options)
    return file.getvalue()


def exif(orientation):
    notes = Image.Exif()
    notes[0x0112] = orientation
    return notes.tobytes()


def chunk(name, body):
    return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))


def with_chunk(data, name, body):
    """A PNG file with one chunk more, after its header."""
    return data[:33] + chunk(name, body) + data[33:]


def written(path, data):
    path.write_bytes(data)
    return path


# --- what is stored comes back ---------------------------------------------------------------------


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"bigtiff": True}], ids=str)
def test_tiff_comes_back(dtype, channels, options):
    pixels = as_type(scene(channels=channels), dtype)
    read = files.decoded(tiff_file(pixels, **options))
    again = files.encoded(read)
    for found in (read, files.decoded(again)):
        assert_array_equal(found.pixels, pixels)
        assert (found.kind, found.pixels.dtype, found.notes) == ("TIFF", pixels.dtype, ())
    with tifffile.TiffFile(io.BytesIO(again)) as file:
        assert file.byteorder == options.get("byteorder", "<")
        assert file.is_bigtiff == options.get("bigtiff", False)
        assert file.pages[0].extrasamples == (() if channels in (None, 3) else (2,))


@pytest.mark.parametrize("compression", ["lzw", "adobe_deflate", "packbits", "zstd"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}], ids=str)
def test_compressed_and_planar_tiff_comes_back(compression, planar, layout):
    pixels = as_type(scene(channels=3), np.uint16)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, 2, 0)
    data = tiff_file(stored, compression=compression, planarconfig=planar, photometric="rgb", **layout)
    read = files.decoded(data)
    assert_array_equal(read.pixels, pixels)
    again = files.encoded(read)
    assert_array_equal(files.decoded(again).pixels, pixels)
    with tifffile.TiffFile(io.BytesIO(again)) as file:
        assert file.pages[0].compression.name.lower() == compression
        assert file.pages[0].planarconfig.name.lower() == planar


def test_a_negative_stays_one():
    pixels = as_type(scene(), np.uint16)
    again = files.encoded(files.decoded(tiff_file(pixels, photometric="miniswhite")))
    with tifffile.TiffFile(io.BytesIO(again)) as file:
        assert file.pages[0].photometric == 0
        assert_array_equal(file.pages[0].asarray(), pixels)


def test_tags_of_tiff_are_kept():
    tags = [(274, 3, 1, 6, True), (700, 7, 4, b"<x/>", True), (315, 2, 0, "Mär".encode(), True)]
    options = {"resolution": (300, 150.5), "resolutionunit": 3, "iccprofile": PROFILE, "extratags": tags}
    data = tiff_file(as_type(scene(), np.uint8), software="a camera", description="a pier", **options)
    again = files.encoded(files.decoded(data))
    with tifffile.TiffFile(io.BytesIO(data)) as before, tifffile.TiffFile(io.BytesIO(again)) as after:
        old, new = ({t.code: t.value for t in file.pages[0].tags} for file in (before, after))
        assert before.pages[0].iccprofile == after.pages[0].iccprofile == PROFILE
    for code in (270, 274, 282, 283, 296, 305, 315, 700):
        assert new[code] == old[code]
    assert files.decoded(again).orientation == 6


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", CHANNELS)
def test_png_comes_back(dtype, channels):
    pixels = as_type(scene(channels=channels), dtype)
    data = imagecodecs.png_encode(pixels)
    texts = {b"iCCP": b"s\0\0" + zlib.compress(PROFILE), b"pHYs": struct.pack(">2LB", 3937, 3937, 1)}
    texts |= {b"eXIf": exif(8)[6:], b"tEXt": b"Title\0Pier"}
    for name, body in texts.items():
        data = with_chunk(data, name, body)
    read = files.decoded(data)
    again = files.encoded(read)
    for found in (read, files.decoded(again)):
        assert_array_equal(found.pixels, pixels)
        assert (found.kind, found.pixels.dtype, found.orientation) == ("PNG", pixels.dtype, 8)
    with Image.open(io.BytesIO(again)) as image:
        assert image.info["icc_profile"] == PROFILE
        assert image.info["dpi"] == pytest.approx((100, 100), abs=0.01)
        assert image.info["Title"] == "Pier"


@pytest.mark.parametrize("count", [2, 4, 16, 200])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_becomes_colours(count, transparent):
    image = Image.fromarray(as_type(scene(channels=3), np.uint8)).quantize(count)
    options = {"transparency": bytes(range(0, count, 2))} if transparent else {}
    read = files.decoded(data := pillow_file(image, "PNG", **options))
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.mode == "P"
        assert_array_equal(read.pixels, np.asarray(stored.convert("RGBA" if transparent else "RGB")))
    assert read.notes == ("its palette became RGB" + transparent * " and alpha",)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [None, 3])
def test_a_transparent_colour_becomes_alpha(dtype, channels):
    pixels = as_type(scene(channels=channels), dtype)
    clear = pixels[3, 4]
    body = np.atleast_1d(clear).astype(">u2").tobytes()
    read = files.decoded(with_chunk(imagecodecs.png_encode(pixels), b"tRNS", body))
    colours = pixels.reshape(*pixels.shape[:2], -1)
    assert_array_equal(read.pixels[:, :, :-1], colours)
    assert_array_equal(read.pixels[:, :, -1] == 0, (colours == clear).all(axis=2))
    assert read.pixels.max() <= np.iinfo(dtype).max
    assert files.decoded(files.encoded(read)).notes == ()


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_keeps_its_notes(channels, subsampling):
    pixels = as_type(scene(40, 50, channels), np.uint8)
    options = {"exif": exif(3), "icc_profile": PROFILE, "dpi": (96, 96), "comment": b"a pier"}
    data = pillow_file(pixels, "JPEG", quality=90, subsampling=subsampling, progressive=True, **options)
    read = files.decoded(data)
    again = files.encoded(read)
    assert np.abs(files.decoded(again).pixels.astype(int) - read.pixels).mean() < 4
    assert files.decoded(again).orientation == 3
    with Image.open(io.BytesIO(data)) as old, Image.open(io.BytesIO(again)) as new:
        for name in ("exif", "icc_profile", "dpi", "comment", "progressive"):
            assert new.info[name] == old.info[name]
        if channels:
            assert new.layer == old.layer  # with it the sampling of the colours


def test_of_a_jpeg_of_two_pictures_the_first_is_taken():
    first, second = (Image.fromarray(as_type(scene(seed=s), np.uint8)) for s in (0, 1))
    read = files.decoded(pillow_file(first, "MPO", save_all=True, append_images=[second]))
    assert read.notes == ("the first of its 2 pictures alone",)
    assert np.abs(read.pixels.astype(int) - np.asarray(first)).mean() < 20


# --- orientation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_pixels_are_rotated_as_pillow_does(orientation):
    pixels = as_type(scene(5, 7, 3), np.uint8)
    image = Image.fromarray(pixels)
    if orientation:
        image.getexif()[0x0112] = orientation
    shown = picture.upright(pixels, orientation)
    assert_array_equal(shown, np.asarray(ImageOps.exif_transpose(image)))
    assert_array_equal(picture.as_stored(shown, orientation), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_and_references_with_an_orientation_are_rotated_to_the_picture(orientation, tmp_path):
    stored = as_type(scene(9, 12), np.uint8)
    seen = Picture(stored, "PNG", orientation, {})
    shown = np.ascontiguousarray(picture.upright(stored, orientation))
    black = (shown > 128).astype(np.uint8) * 255
    for own in (1, orientation):
        kept = np.ascontiguousarray(picture.as_stored(shown, own))
        clean = with_chunk(imagecodecs.png_encode(kept), b"eXIf", exif(own)[6:])
        assert_array_equal(files.reference(written(tmp_path / "r.png", clean), seen) * 255, stored)
        kept = np.ascontiguousarray(picture.as_stored(black, own))
        mask = with_chunk(imagecodecs.png_encode(kept), b"eXIf", exif(own)[6:])
        assert_array_equal(files.mask(written(tmp_path / "m.png", mask), seen), stored > 128)


def test_a_mask_without_orientation_lies_on_stored_pixels(tmp_path):
    stored = as_type(scene(9, 12), np.uint8)
    mask = written(tmp_path / "m.png", imagecodecs.png_encode((stored > 128).astype(np.uint8) * 255))
    assert_array_equal(files.mask(mask, Picture(stored, "PNG", 3, {})), stored > 128)
    on_its_side = Picture(stored.T, "PNG", 6, {})
    with pytest.raises(PictureError, match=r"9 x 12 pixels.*12 x 9.*on its side \(Exif orientation 6\)"):
        files.mask(mask, on_its_side)


@pytest.mark.parametrize("kind", ["1", "L", "RGB", "P", "I;16"])
def test_masks_of_all_kinds(kind, tmp_path):
    hidden = scene(9, 12) > 0.5
    image = Image.fromarray(hidden.astype(np.uint16) * 65535 if kind == "I;16" else hidden)
    mask = tmp_path / "m.png"
    (image if kind == "I;16" else image.convert(kind)).save(mask)
    assert_array_equal(files.mask(mask, Picture(scene(9, 12), "TIFF", None, {})), hidden)


def test_masks_and_references_that_do_not_fit(tmp_path):
    seen = Picture(scene(9, 12), "TIFF", None, {})
    clear = written(tmp_path / "a.png", imagecodecs.png_encode(np.zeros((9, 12, 4), np.uint8)))
    with pytest.raises(PictureError, match="has transparency; expected black and white alone"):
        files.mask(clear, seen)
    with pytest.raises(PictureError, match="has colours; expected grey levels, as the picture"):
        files.reference(clear, seen)
    small = written(tmp_path / "b.png", imagecodecs.png_encode(np.zeros((9, 11), np.uint8)))
    for read in (files.mask, files.reference):
        with pytest.raises(PictureError, match="9 x 11 pixels; expected height and width .*, 9 x 12. Crop"):
            read(small, seen)
    moving = [Image.fromarray(as_type(scene(9, 12, seed=s), np.uint8)) for s in range(2)]
    several = pillow_file(moving[0], "TIFF", save_all=True, append_images=moving[1:])
    with pytest.raises(PictureError, match="has several frames"):
        files.mask(written(tmp_path / "c.tif", several), seen)


# --- what cannot be restored -----------------------------------------------------------------------

GREY = as_type(scene(), np.uint8)
COLOUR = as_type(scene(channels=3), np.uint8)
FOUR = as_type(scene(channels=4), np.uint8)
FRAMES = {"save_all": True, "append_images": [Image.fromarray(255 - GREY)]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pillow_file(GREY, "GIF"), "is no PNG, JPEG or TIFF file; got a GIF file. Convert it to one of them"),
        (b"hello, world", "is no PNG, JPEG or TIFF file; got a file that begins with b'hello, w'"),
        (pillow_file(Image.fromarray(GREY > 9), "PNG"), "has 1 bits per channel; expected 8 or 16"),
        (pillow_file(Image.fromarray(GREY > 9), "TIFF"), "has 1 bits per channel of dtype .*8 or 16 bits"),
        (pillow_file(Image.fromarray(FOUR, "CMYK"), "JPEG"), "has colours CMYK; expected grey or RGB"),
        (pillow_file(Image.fromarray(FOUR, "CMYK"), "TIFF"), "has colours of the kind CMYK; expected grey"),
        (pillow_file(Image.fromarray(COLOUR).convert("LAB"), "TIFF"), "of the kind CIELAB"),
        (
            pillow_file(Image.fromarray(COLOUR).quantize(9), "TIFF"),
            "of the kind a palette.*Convert it to RGB",
        ),
        (pillow_file(GREY, "PNG", **FRAMES), "is animated; expected one picture. Save its frames"),
        (pillow_file(GREY, "TIFF", **FRAMES), "has 2 pages; expected one picture. Save each page"),
        (tiff_file(GREY.astype(np.int16)), "has 16 bits per channel of dtype int16; .* without sign"),
        (tiff_file(GREY.astype(np.uint32)), "has 32 bits per channel of dtype uint32"),
        (tiff_file(GREY.astype(np.complex64)), "of dtype complex64"),
        (
            tiff_file(np.zeros((9, 9, 5), np.uint8), planarconfig="contig", extrasamples=[0, 0]),
            "has 5 channels",
        ),
        (tiff_file(GREY, subfiletype=1), "holds a preview of a larger picture"),
        (
            tiff_file(
                np.zeros((3, 9, 9), np.uint8), photometric="minisblack", tile=(16, 16, 16), volumetric=True
            ),
            "axes ZYX",
        ),
        (tiff_file(np.zeros((3, 9, 9), np.uint8), photometric="minisblack", imagej=True), "has 3 pages"),
        (tiff_file(GREY)[:-200], "some of its pixels are missing|is damaged"),
        (pillow_file(GREY, "JPEG")[:-200], "is damaged, or of a variant that is not known: .*[Tt]runcated"),
        (imagecodecs.png_encode(GREY)[:-200], "is damaged or cut short|is cut short"),
        (imagecodecs.png_encode(GREY)[:-12], "is cut short: it has no end"),
        (png.SIGNATURE, "is cut short"),
        (b"\xff\xd8\xff", "damaged"),
        (tiff.MARKS[0], "is damaged"),
    ],
)
def test_files_that_cannot_be_restored(data, message):
    with pytest.raises(PictureError, match=message) as caught:
        files.decoded(data)
    assert "\n" not in str(caught.value)


def test_a_png_file_that_lies_about_its_size():
    body = struct.pack(">2L5B", 2**31 - 1, 2**31 - 1, 8, 0, 0, 0, 0)
    data = png.SIGNATURE + chunk(b"IHDR", body) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(PictureError, match="must have 1 to 178956970 pixels; got 2147483647 x 2147483647"):
        files.decoded(data)
    short = data.replace(chunk(b"IHDR", body), chunk(b"IHDR", struct.pack(">2L5B", 30, 20, 8, 0, 0, 0, 0)))
    with pytest.raises(PictureError, match="is damaged.*Not enough image data"):
        files.decoded(short)


def test_a_flipped_bit_of_a_png_file_is_noticed():
    data = bytearray(imagecodecs.png_encode(GREY))
    data[len(data) // 2] ^= 4
    with pytest.raises(PictureError, match="is damaged or cut short: a checksum is wrong"):
        files.decoded(bytes(data))


def test_damaged_notes_are_kept_and_turn_nothing():
    read = files.decoded(with_chunk(imagecodecs.png_encode(GREY), b"eXIf", b"nonsense"))
    assert read.orientation is None
    assert (b"eXIf", b"nonsense") in read.extras["chunks"]


def test_paths_that_are_no_plain_files(tmp_path):
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in {
        ".": "is a folder; expected a picture file. Name the pictures in it.",
        "pipe.png": "is no plain file (a device or a pipe); expected a picture file. Save it as one.",
        "empty.png": "is empty, 0 bytes; expected a picture file. Save it or copy it again.",
        "none.png": "does not exist; expected a picture file. Check its name.",
        "x" * 300: "cannot be read: File name too long. Allow reading it.",
    }.items():
        with pytest.raises(PictureError) as caught:
            files.read(tmp_path / name)
        assert str(caught.value) == message


# --- writing ---------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = written(tmp_path / "a.png", b"before")

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PictureError, match="cannot be written: No space left on device. Make room"):
        files.save(b"after", path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"before"
    monkeypatch.undo()
    files.save(b"after", path)
    assert path.read_bytes() == b"after"
    with pytest.raises(PictureError, match="cannot be written: No such file"):
        files.save(b"after", tmp_path / "none" / "a.png")


def test_what_cannot_be_written_is_said():
    with pytest.raises(PictureError, match="cannot be written as PNG: .* Convert the input."):
        files.encoded(Picture(np.zeros((4, 4, 3), np.float32), "PNG", None, {"chunks": []}))
