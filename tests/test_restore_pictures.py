"""Pictures of every kind by ``python -m gmmlib.restore``: their pixels are those of the functions."""

import json

import imagecodecs
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from gmmlib.restore import denoise, files, inpaint, noise_level, noise_levels
from tests import restoring
from tests.restoring import NOISE, NOISY, PLAIN, png_file
from tests.test_restore_files import as_type, exif, scene, tiff_file, written

model, prior, run = restoring.model, restoring.prior, restoring.run  # fixtures


# --- denoise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", ["auto", "20"])
@pytest.mark.parametrize("channels", [None, 2, 3, 4])
@pytest.mark.parametrize("kind", ["uint8 png", "uint16 png", "uint8 tif", "uint16 tif", "float32 tif"])
def test_a_file_is_restored_as_its_pixels_are(kind, channels, sigma, run, model, tmp_path):
    dtype, suffix = kind.split()
    pixels = as_type(scene(20, 23, channels), dtype)
    data = imagecodecs.png_encode(pixels) if suffix == "png" else tiff_file(pixels)
    path = written(tmp_path / f"a.{suffix}", data)
    status, lines, errors = run("denoise", path, "--sigma", sigma)
    assert (status, errors, len(lines)) == (0, [], 1)
    read = files.read(tmp_path / "out" / path.name)
    unit = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    given = None if sigma == "auto" else 20 * unit / 255
    colours = pixels[:, :, 0] if channels == 2 else pixels
    expected = denoise(colours, given, prior=model)
    assert_array_equal(read.pixels[:, :, 0] if channels == 2 else read.pixels, expected)
    if channels in (2, 4):
        assert_array_equal(read.pixels[:, :, -1], pixels[:, :, -1])
    level = noise_levels(colours) * 255 / unit if sigma == "auto" else [20] * (3 if channels in (3, 4) else 1)
    words = ", ".join(f"{value:.2f}" for value in level)
    assert lines[0].startswith(f"{path} -> {tmp_path / 'out' / path.name}: sigma {words}; ")


def test_the_levels_of_colours_are_those_of_the_opponent_planes():
    first = NOISY.sum(axis=2) / np.sqrt(3)
    found = noise_levels(NOISY)
    assert found.shape == (3,)
    np.testing.assert_allclose(found[0], noise_level(first), rtol=1e-9)
    np.testing.assert_allclose(found, NOISE, rtol=0.3)
    np.testing.assert_allclose(noise_levels(as_type(NOISY, np.uint8)) / 255, found, rtol=0.02)


def test_jpeg_and_palettes(run, tmp_path):
    colours = Image.fromarray(as_type(NOISY, np.uint8))
    colours.save(tmp_path / "a.jpg", exif=exif(6), dpi=(72, 72))
    colours.quantize(30).save(tmp_path / "b.png")
    status, lines, _ = run("denoise", tmp_path / "a.jpg", tmp_path / "b.png", "--sigma", 25)
    assert status == 0
    assert lines[1].endswith("; its palette became RGB")
    with Image.open(tmp_path / "out" / "a.jpg") as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", colours.size)
        assert (image.getexif()[0x0112], image.info["dpi"]) == (6, (72, 72))
    with Image.open(tmp_path / "out" / "b.png") as image:
        assert (image.format, image.mode) == ("PNG", "RGB")


def test_psnr_rises_and_is_that_of_the_written_file(run, tmp_path):
    path, clean = tmp_path / "a.png", written(tmp_path / "clean.png", png_file(PLAIN))
    path.write_bytes(png_file(NOISY))
    status, lines, errors = run("denoise", path, "--reference", clean, "--json")
    (result,) = json.loads("\n".join(lines))["files"]
    assert (status, errors) == (0, [])
    before, after = (files.levels(files.read(p)) for p in (path, tmp_path / "out" / "a.png"))
    wanted = files.levels(files.read(clean))
    psnr = [round(float(10 * np.log10(1 / ((found - wanted) ** 2).mean())), 3) for found in (before, after)]
    assert [result["psnr_before"], result["psnr_after"]] == psnr
    assert psnr[1] > psnr[0] + 3
    _, lines, _ = run("denoise", path, "--reference", clean, output="again")
    assert f"; PSNR {psnr[0]:.2f} -> {psnr[1]:.2f} dB" in lines[0]


def test_equal_pictures_have_a_psnr_of_200_db(run, tmp_path):
    path, clean = (written(tmp_path / name, png_file(PLAIN)) for name in ("a.png", "clean.png"))
    _, lines, _ = run("denoise", path, "--reference", clean, "--sigma", 0)
    assert lines[0].endswith("PSNR 200.00 -> 200.00 dB; no noise to remove: the file was copied as it is")
    assert (tmp_path / "out" / "a.png").read_bytes() == path.read_bytes()


def test_references_in_a_folder(run, tmp_path):
    (tmp_path / "clean").mkdir()
    for name in ("a.png", "b.png"):
        written(tmp_path / name, png_file(NOISY))
    written(tmp_path / "clean" / "a.png", png_file(PLAIN))
    first, second, clean = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "clean"
    status, lines, errors = run("denoise", first, second, "--reference", clean)
    assert (status, len(lines)) == (1, 1)
    missing = "does not exist; expected a picture file. Check its name."
    assert errors == [f"{second}: --reference {clean / 'b.png'} {missing}"]


# --- inpaint ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [None, 2, 3, 4])
@pytest.mark.parametrize("folder", [False, True])
def test_gaps_are_filled(channels, folder, run, model, tmp_path):
    pixels = as_type(scene(20, 23, channels), np.uint16)
    path = written(tmp_path / "a.png", imagecodecs.png_encode(pixels))
    hidden = np.random.default_rng(0).random(pixels.shape[:2]) < 0.2
    (tmp_path / "masks").mkdir()
    Image.fromarray(hidden).save(tmp_path / "masks" / "a.png")
    place = tmp_path / "masks" if folder else tmp_path / "masks" / "a.png"
    status, lines, errors = run("inpaint", path, "--mask", place)
    assert (status, errors, len(lines)) == (0, [], 1)
    found = files.read(tmp_path / "out" / "a.png").pixels
    colours = pixels[:, :, 0] if channels == 2 else pixels
    assert_array_equal(found[:, :, 0] if channels == 2 else found, inpaint(colours, hidden, prior=model))
    assert_array_equal(found[~hidden], pixels[~hidden])


def test_masks_that_hide_nothing_or_everything(run, tmp_path):
    path = written(tmp_path / "a.png", png_file(NOISY))
    mask = written(tmp_path / "m.png", png_file(np.zeros(NOISY.shape[:2])))
    status, lines, _ = run("inpaint", path, "--mask", mask)
    assert status == 0
    assert lines[0].endswith("; the mask hides nothing: the file was copied as it is")
    assert (tmp_path / "out" / "a.png").read_bytes() == path.read_bytes()
    written(mask, png_file(np.ones(NOISY.shape[:2])))
    status, lines, errors = run("inpaint", path, "--mask", mask, output="other")
    assert (status, lines) == (1, [])
    assert errors == [f"{path}: mask must leave some pixels; got one that hides them all."]
    assert list((tmp_path / "other").iterdir()) == []


# --- what cannot be restored, and what stays ------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (np.full((12, 12), np.nan, np.float32), "image must be finite; got 144 values"),
        (np.full((12, 12), 7, np.float32), "image must have grey levels from 0 to 1 if it holds floats"),
        (
            np.zeros((6, 6), np.uint8),
            "of at least 7 x 7 pixels; got shape (6, 6). Pass one channel",
        ),
        (np.zeros((1, 1, 3), np.uint8), "of at least 7 x 7 pixels; got shape (1, 1)"),
    ],
)
def test_pictures_that_cannot_be_restored(levels, message, run, tmp_path):
    path = written(tmp_path / "a.tif", tiff_file(levels))
    status, lines, (error,) = run("denoise", path)
    assert (status, lines) == (1, [])
    assert error.startswith(f"{path}: ")
    assert message in error


@pytest.mark.parametrize("shape", [(1, 1), (3, 12), (12, 3, 3)])
def test_pictures_smaller_than_a_patch(shape, run, tmp_path):
    path = written(tmp_path / "a.png", imagecodecs.png_encode(np.zeros(shape, np.uint8)))
    _, _, (error,) = run("denoise", path, "--sigma", 9)
    size = f"{shape[0]} x {shape[1]}"
    assert error == f"{path}: image must be at least 4 x 4 pixels, as the prior's patches; got {size}."


@pytest.mark.parametrize("level", [0, 0.5, 1])
@pytest.mark.parametrize("sigma", ["auto", 0.001, 255])
def test_constant_pictures_stay(level, sigma, run, tmp_path):
    pixels = as_type(np.full((12, 13, 3), level), np.uint16)
    path = written(tmp_path / "a.png", imagecodecs.png_encode(pixels))
    status, _, errors = run("denoise", path, "--sigma", sigma)
    assert (status, errors) == (0, [])
    assert_array_equal(files.read(tmp_path / "out" / "a.png").pixels, pixels)
