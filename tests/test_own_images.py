"""The program for one's own photographs, as the book prints it."""

import subprocess
import sys

import numpy as np
from PIL import Image

from gmmlib import datasets
from tools.project import REPOSITORY


def test_it_runs_on_a_folder_of_photographs(tmp_path):
    (tmp_path / "photographs").mkdir()
    for number, image in enumerate(datasets.load_bsds("train", "sample")[:3]):
        grey = (255 * image).astype(np.uint8)
        Image.fromarray(grey).convert("RGB").save(tmp_path / "photographs" / f"{number}.jpg")
    command = [sys.executable, str(REPOSITORY / "book" / "own.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "20,000 patches from 3 photographs"
    assert 0.5 < float(said[1].removesuffix(" nats a dimension")) < 3
    with Image.open(tmp_path / "components.png") as picture:
        assert picture.width > 500
