"""``python -m gmmlib.restore``: every file gets what was asked for, or one line that says why not."""

import json
import os
import re
import subprocess
import sys

import imagecodecs
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from gmmlib import ConvolutionalGMM, FullGMM, patches
from gmmlib.restore import command, denoise, files, images, inpaint, noise_level, noise_levels, shipped
from tests.test_restore_files import (
    as_type,
    chunk,
    exif,
    pillow_file,
    scene,
    tiff_file,
    written,
)

SIDE = 4


@pytest.fixture(scope="module")
def model():
    drawn, _ = patches.sample_patches([scene(60, 70, seed=s, noise=0) for s in range(6)], SIDE, 1500, 0)
    mixture = ConvolutionalGMM(4, basis="cosine", zero_mean_patches=True, max_iter=10, tol=0, random_state=0)
    return mixture.fit(patches.remove_mean(drawn))


@pytest.fixture(scope="module")
def prior(model, tmp_path_factory):
    """The path of a small prior."""
    path = tmp_path_factory.mktemp("prior") / "prior.npz"
    model.save(path)
    return path


@pytest.fixture
def run(prior, tmp_path, capsys):
    """Run the command with the small prior and the folder out; return its status, lines and errors."""

    def call(*arguments, output="out", **others):
        arguments = [*arguments, "-o", tmp_path / output, "--prior", others.get("prior", prior)]
        status = command.main(list(map(str, arguments)))
        said = capsys.readouterr()
        return status, said.out.splitlines(), said.err.splitlines()

    return call


def refused(arguments, capsys):
    """What the command says of a wrong call."""
    with pytest.raises(SystemExit) as caught:
        command.main(list(map(str, arguments)))
    assert caught.value.code == 2
    return capsys.readouterr().err


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


NOISE = 0.1
PLAIN = scene(40, 45, 3, noise=0)
NOISY = (PLAIN + NOISE * np.random.default_rng(1).standard_normal(PLAIN.shape)).clip(0, 1)


def png_file(levels, dtype=np.uint8):
    return imagecodecs.png_encode(as_type(levels, dtype))


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


# --- where outputs go ------------------------------------------------------------------------------


def test_nothing_is_overwritten_unless_told_to(run, tmp_path):
    path = written(tmp_path / "a.png", png_file(NOISY))
    (tmp_path / "out").mkdir()
    old = written(tmp_path / "out" / "a.png", b"old")
    status, lines, errors = run("denoise", path)
    assert (status, lines, old.read_bytes()) == (1, [], b"old")
    assert errors == [f"{path}: {old} is there already. Remove it, name another folder, or pass --overwrite."]
    assert run("denoise", path, "--overwrite")[0] == 0
    assert files.read(old).pixels.shape == NOISY.shape


@pytest.mark.parametrize("way", ["folder", "link to the folder", "link to the file", "another input", "mask"])
def test_what_the_call_reads_is_never_written(way, run, tmp_path):
    path = written(tmp_path / "a.png", png_file(NOISY))
    output, call = "out", ["denoise", path]
    if way == "folder":
        output = "."
    elif way == "link to the folder":
        (tmp_path / "out").symlink_to(tmp_path)
    elif way == "link to the file":
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a.png").symlink_to(path)
    else:
        (tmp_path / "out").mkdir()
        other = written(tmp_path / "out" / "a.png", png_file(PLAIN))
        call = ["denoise", path, other] if way == "another input" else ["inpaint", path, "--mask", other]
    before = everything(tmp_path)
    status, lines, errors = run(*call, "--overwrite", output=output)
    assert (status, lines) == (1, [])
    assert "which this call reads. Name another folder by -o." in errors[0]
    assert everything(tmp_path) == before


def test_two_inputs_of_one_name(run, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / "a.png", png_file(NOISY))
    first, second = tmp_path / "one" / "a.png", tmp_path / "two" / "a.png"
    status, lines, errors = run("denoise", first, second, "--overwrite")
    assert (status, len(lines)) == (1, 1)
    assert errors == [
        f"{second}: has the name of {first}, and both would be written to one file. Restore it to another "
        "folder."
    ]


@pytest.mark.parametrize("way", ["a file", "under a file", "a folder of that name", "a pipe of that name"])
def test_folders_that_cannot_be_written_to(way, run, tmp_path):
    path, output = written(tmp_path / "a.png", png_file(NOISY)), "out"
    if way.endswith("of that name"):
        (tmp_path / "out").mkdir()
        (os.mkfifo if "pipe" in way else os.mkdir)(tmp_path / "out" / "a.png")
    else:
        written(tmp_path / "out", b"here")
        output = "out/deeper" if way == "under a file" else "out"
    status, lines, errors = run("denoise", path, "--overwrite", output=output)
    assert (status, lines, len(errors)) == (1, [], 1)
    assert "-o must name" in errors[0]


def test_a_folder_that_may_not_be_written_to(run, tmp_path, monkeypatch):
    path = written(tmp_path / "a.png", png_file(NOISY))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    status, _, errors = run("denoise", path)
    assert (status, len(errors)) == (1, 1)
    assert "out may not be written to. Name another by -o." in errors[0]


def test_a_file_that_comes_to_be_there_meanwhile_stays(run, tmp_path, monkeypatch):
    path = written(tmp_path / "a.png", png_file(NOISY))

    def slow(*arguments, **options):
        written(tmp_path / "out" / "a.png", b"theirs")
        return denoise(*arguments, **options)

    monkeypatch.setattr(images, "denoise", slow)
    assert run("denoise", path)[0] == 1
    assert everything(tmp_path / "out") == {(tmp_path / "a.png").relative_to(tmp_path): b"theirs"}


# --- what is said ----------------------------------------------------------------------------------


def test_a_broken_file_does_not_stop_the_others(run, tmp_path):
    good = [written(tmp_path / f"{i}.png", png_file(NOISY)) for i in range(2)]
    bad = written(tmp_path / "bad.png", png_file(NOISY)[:500])
    status, lines, errors = run("denoise", good[0], bad, tmp_path, tmp_path / "none.png", good[1], "--json")
    results = json.loads("\n".join(lines))["files"]
    assert status == 1
    assert [r["status"] for r in results] == ["ok", "error", "error", "error", "ok"]
    assert [r["error"] for r in results if r["error"]] == errors
    assert len(errors) == 3
    keys = ["input", "output", "status", "error", "sigma", "seconds", "psnr_before", "psnr_after", "notes"]
    assert all(list(r) == keys for r in results)
    assert sorted(os.listdir(tmp_path / "out")) == ["0.png", "1.png"]


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


def test_wrong_calls(tmp_path, capsys):
    common = ["a.png", "-o", tmp_path]
    for sigma in ("-1", "nan", "256", "inf", "much", ""):
        said = refused(["denoise", *common, f"--sigma={sigma}"], capsys)
        assert f"must be auto or a number from 0 to 255, in grey levels of 0 to 255; got '{sigma}'" in said
    assert "required: --mask" in refused(["inpaint", *common], capsys)
    assert "required: -o" in refused(["denoise", "a.png"], capsys)
    assert "required: IN" in refused(["denoise", "-o", tmp_path], capsys)
    assert "invalid choice: 'sharpen'" in refused(["sharpen", *common], capsys)
    clean = written(tmp_path / "c.png", png_file(PLAIN))
    said = refused(["denoise", "b.png", *common, "--reference", clean], capsys)
    assert "--reference must be a folder if there are several inputs; got the file" in said


def test_help_states_the_units(capsys):
    with pytest.raises(SystemExit):
        command.main(["denoise", "--help"])
    assert "grey levels of 0 to 255" in " ".join(capsys.readouterr().out.split())


def test_priors_that_cannot_be(run, model, tmp_path):
    path, wrong = written(tmp_path / "a.png", png_file(NOISY)), tmp_path / "wrong.npz"
    rows = np.random.default_rng(0).standard_normal((60, 16))
    FullGMM(1, max_iter=1, tol=0).fit(rows).save(tmp_path / "wide.npz")
    written(wrong, b"no model")
    cases = {
        wrong: "is no readable model file",
        tmp_path / "none.npz": "there is no such file; name a model file, fast or full",
        tmp_path: "cannot be read",
        tmp_path / "wide.npz": "grey levels from 0 to 1",
    }
    for name, message in cases.items():
        status, lines, (error,) = run("denoise", path, "--json", prior=name)
        assert (status, message in error, error.startswith(f"--prior {name}: ")) == (1, True, True)
        (result,) = json.loads("\n".join(lines))["files"]
        assert (result["status"], result["error"]) == ("error", error)
    assert not (tmp_path / "out").exists()


def test_a_full_mixture_is_a_prior(run, tmp_path):
    rows = patches.sample_patches([PLAIN[:, :, 0], PLAIN[:, :, 1]], SIDE, 800, 0)[0]
    rows = patches.remove_mean(rows).reshape(len(rows), -1)
    settings = {"zero_means": True, "reg_covar": 1e-5, "max_iter": 5, "tol": 0, "random_state": 0}
    FullGMM(2, **settings).fit(rows).save(tmp_path / "full.npz")
    path = written(tmp_path / "a.png", png_file(NOISY))
    assert run("denoise", path, prior=tmp_path / "full.npz")[0] == 0


@pytest.mark.parametrize("when", ["first", "second"])
def test_an_interrupt_leaves_nothing_half_written(when, run, tmp_path, monkeypatch):
    paths = [written(tmp_path / f"{i}.png", png_file(NOISY)) for i in range(3)]
    calls = []

    def stop(*arguments):
        calls.append(arguments)
        if len(calls) == {"first": 1, "second": 2}[when]:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    status, lines, errors = run("denoise", *paths, "--json")
    assert status == 130
    assert errors == ["interrupted; files that were not finished have not been written"]
    done = [] if when == "first" else ["0.png"]
    assert os.listdir(tmp_path / "out") == done
    assert [r["status"] for r in json.loads("\n".join(lines))["files"]] == ["ok"] * len(done)


def test_names_of_any_characters(run, tmp_path):
    names = ["a b.png", "zwei\nZeilen.png", "über.png", os.fsdecode(b"\xff\x1b[31m.png")]
    paths = [written(tmp_path / name, png_file(NOISY)) for name in names]
    status, lines, errors = run("denoise", *paths)
    assert (status, len(lines), errors) == (0, 4, [])
    assert r"zwei\nZeilen.png" in lines[1]
    assert r"\udcff\x1b[31m.png" in lines[3]
    assert sorted(os.listdir(tmp_path / "out")) == sorted(names)
    status, lines, _ = run("denoise", *paths, "--json", "--overwrite")
    assert [r["input"] for r in json.loads("\n".join(lines))["files"]] == list(map(str, paths))


def test_what_is_not_known_to_fail_is_said_too(run, tmp_path, monkeypatch):
    path = written(tmp_path / "a.png", png_file(NOISY))
    faults = {"needs more memory": MemoryError(), "ZeroDivisionError: by 0": ZeroDivisionError("by 0")}
    for words, error in faults.items():

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(images, "denoise", fail)
        status, lines, errors = run("denoise", path)
        assert (status, lines) == (1, [])
        assert words in errors[0]


def test_a_prior_is_loaded_from_its_file(prior, model):
    assert_array_equal(shipped.prior(str(prior)).spectra_, model.spectra_)


# --- as a program ----------------------------------------------------------------------------------


def program(*arguments, **options):
    start = [sys.executable, "-m", "gmmlib.restore", *map(str, arguments)]
    return subprocess.run(start, capture_output=True, text=True, **options)


def test_the_program(prior, tmp_path):
    path = written(tmp_path / "a.png", png_file(NOISY))
    done = program("denoise", path, "-o", tmp_path / "out", "--prior", prior)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path} -> ")
    assert program("denoise", path, "-o", tmp_path / "out", "--prior", prior).returncode == 1
    assert program("denoise", path).returncode == 2


def test_a_reader_that_stops(prior, tmp_path):
    path = written(tmp_path / "a.png", png_file(NOISY))
    start = [sys.executable, "-m", "gmmlib.restore", "denoise", path, "-o", tmp_path / "o", "--prior", prior]
    with subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


# --- files of any damage ---------------------------------------------------------------------------


def odd_file(rng):
    """A picture of random kind, size and depth, damaged more often than not: its bytes and a suffix."""
    height, width = (int(rng.choice([1, 3, 7, 8, 9, 13, 21, 34])) for _ in range(2))
    channels = [None, 2, 3, 4][rng.integers(4)]
    levels = scene(height, width, channels, seed=int(rng.integers(100)))
    kind = rng.integers(6)
    if kind == 0:
        data, suffix = png_file(levels, rng.choice([np.uint8, np.uint16])), "png"
    elif kind == 1:
        pixels = as_type(levels if channels in (None, 3) else levels[:, :, 0], np.uint8)
        data, suffix = pillow_file(pixels, "JPEG", exif=exif(int(rng.integers(1, 9)))), "jpg"
    elif kind in (2, 3):
        dtype = rng.choice([np.uint8, np.uint16, np.float16, np.float32, np.float64, np.int32])
        options = {"compression": [None, "lzw", "adobe_deflate", "packbits", "zstd"][rng.integers(5)]}
        data, suffix = tiff_file(as_type(levels, dtype), byteorder="<>"[rng.integers(2)], **options), "tif"
    elif kind == 4:
        grey = Image.fromarray(as_type(levels if channels in (None, 3) else levels[:, :, 0], np.uint8))
        mode = str(rng.choice(["1", "P", "L", "CMYK", "LA"]))
        suffix = "tif" if mode == "CMYK" else str(rng.choice(["png", "tif"]))
        data = pillow_file(grey.convert(mode), {"png": "PNG", "tif": "TIFF"}[suffix])
    else:
        data, suffix = rng.bytes(int(rng.integers(200))), "png"
        data = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0\x08\0\0\0"][rng.integers(4)] + data
    return damaged(data, rng), suffix


def damaged(data, rng):
    way = rng.integers(6)
    if way == 1:
        return data[: rng.integers(len(data) + 1)]
    if way in (2, 3) and data:
        data = bytearray(data)
        within = min(len(data), 64) if way == 3 else len(data)  # the beginning holds the sizes
        for place in rng.integers(within, size=rng.integers(1, 6)):
            data[place] = rng.integers(256)
        if way == 3 and data.startswith(b"\x89PNG") and len(data) > 33:  # with a sum that is right
            return bytes(data[:8]) + chunk(b"IHDR", bytes(data[16:29])) + bytes(data[33:])
    return bytes(data)


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 40), pytest.param(1, 200, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_damaged_files_give_a_line_each(seed, count, run, prior, tmp_path):
    rng, paths = np.random.default_rng(seed), []
    sources, masks = tmp_path / "in", tmp_path / "masks"
    for folder in (sources, masks):
        folder.mkdir()
    for number in range(count):
        data, suffix = odd_file(rng)
        paths.append(written(sources / f"{number}.{suffix}", data))
        try:
            shape = files.decoded(data).pixels.shape[:2]
        except files.PictureError:
            shape = 9, 9
        written(masks / paths[-1].name, png_file(rng.random(shape) < 0.3))
    before = everything(sources)
    for number, call in enumerate((["denoise"], ["denoise", "--sigma", 30], ["inpaint", "--mask", masks])):
        output = tmp_path / f"out{number}"
        if number == 1:  # as a program, so that what libraries write themselves is seen
            done = program(*call, *paths, "--json", "-o", output, "--prior", prior)
            status, lines, errors = done.returncode, done.stdout.splitlines(), done.stderr.splitlines()
        else:
            status, lines, errors = run(*call, *paths, "--json", output=output.name)
        results = json.loads("\n".join(lines))["files"]
        good = [result for result in results if result["status"] == "ok"]
        assert [result["input"] for result in results] == list(map(str, paths))
        assert [result["error"] for result in results if result["error"]] == errors
        assert (status, len(good) + len(errors)) == (int(bool(errors)), count)
        # None is of a fault that nobody thought of.
        assert [error for error in errors if re.match(r"[^:]+: \w+Error: ", error)] == []
        assert sorted(os.listdir(output)) == sorted(os.path.basename(result["input"]) for result in good)
        assert len(good) > count / 10
        for result in good:
            old, new = files.read(result["input"]), files.read(result["output"])
            assert (old.kind, old.orientation) == (new.kind, new.orientation)
            assert (old.pixels.shape, old.pixels.dtype) == (new.pixels.shape, new.pixels.dtype)
    assert everything(sources) == before
