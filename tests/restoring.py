"""Pictures, a small prior, and calls of ``python -m gmmlib.restore`` with it."""

import subprocess
import sys

import imagecodecs
import numpy as np
import pytest

from gmmlib import ConvolutionalGMM, patches
from gmmlib.restore import command
from tests.test_restore_files import as_type, scene

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


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


NOISE = 0.1
PLAIN = scene(40, 45, 3, noise=0)
NOISY = (PLAIN + NOISE * np.random.default_rng(1).standard_normal(PLAIN.shape)).clip(0, 1)


def png_file(levels, dtype=np.uint8):
    return imagecodecs.png_encode(as_type(levels, dtype))


def program(*arguments, **options):
    start = [sys.executable, "-m", "gmmlib.restore", *map(str, arguments)]
    return subprocess.run(start, capture_output=True, text=True, **options)
