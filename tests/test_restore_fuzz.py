"""``python -m gmmlib.restore`` of random pictures, most of them damaged: a result or a line for each."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from gmmlib.restore import files
from tests import restoring
from tests.restoring import everything, png_file, program
from tests.test_restore_files import as_type, chunk, exif, pillow_file, scene, tiff_file, written

model, prior, run = restoring.model, restoring.prior, restoring.run  # fixtures


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
