"""A disk that fills up in the middle of a file: a clear error, old files intact, nothing left behind."""

import errno
import os
import resource
import subprocess
from contextlib import contextmanager

import nbformat
import numpy as np
import pytest

from gmmlib import FullGMM, storage
from gmmlib.data.catalogue import DatasetError
from gmmlib.data.datasets import load_mnist
from tests.test_datasets import GZIPPED, cache, mirrors, server, tiny  # noqa: F401  fixtures used by their names
from tools import notebooks

ROOM = 2**16  # bytes that a file may have, or that the whole disk has
NOISE = np.random.default_rng(0).bytes(2 * ROOM)


@contextmanager
def small_files():
    """No file of this process may grow beyond ROOM; Python ignores the signal, so that writing fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, before[1]))
    try:
        yield errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def small_disk():
    """Nothing to do: the folder is one that is nearly full."""
    yield errno.ENOSPC


@pytest.fixture(params=["a limit on files", "a small disk"])
def full(request, tmp_path):
    """A folder, and a context in which little can be written to it, which gives the error of the system."""
    if request.param == "a limit on files":
        yield tmp_path, small_files
        return
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("only root may mount a small disk")
    yield folder, small_disk
    subprocess.run(["umount", str(folder)], check=True)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_that_does_not_fit_leaves_the_old_one(full):
    folder, context = full
    rows = np.random.default_rng(0).standard_normal((400, 100))
    small, large = (FullGMM(1, max_iter=1, random_state=0).fit(rows[:, :d]) for d in (2, 100))
    path = folder / "model.npz"
    small.save(path)
    before = files(folder)
    with context() as expected, pytest.raises(OSError, match="large|space") as caught:
        large.save(path)  # 80 kB
    assert caught.value.errno == expected
    assert caught.value.__notes__ == [
        f"{path} was not written; what was there before is as it was. Make room or allow writing there, or "
        "save to another place."
    ]
    assert files(folder) == before
    assert FullGMM.load(path).n_features_in_ == 2
    small.save(path)  # there is room again for what fits


def test_a_model_that_fits_but_for_its_last_bytes_leaves_the_old_one(full):
    """The directory of the archive is written last; without it there is no model."""
    folder, context = full
    path = folder / "model.npz"
    storage.write(path, "Toy", {}, {"a": np.zeros(2)})
    before = files(folder)
    used = os.sysconf("SC_PAGESIZE") if context is small_disk else 0  # by the old file, on a disk
    besides = os.path.getsize(path) - 16  # bytes that are not numbers
    size = (ROOM - used - besides) // 8
    with context(), pytest.raises(OSError, match="large|space"):
        storage.write(path, "Toy", {}, {"a": np.zeros(size + 1)})
    assert files(folder) == before
    with context():
        storage.write(folder / "other.npz", "Toy", {}, {"a": np.zeros(size)})


def notebook(text):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    return notebooks.normalise(nb)


def test_a_notebook_that_does_not_fit_leaves_the_old_one(full):
    folder, context = full
    path = folder / "chapter.ipynb"
    notebooks.write(notebook("short"), path)
    before = files(folder)
    with context() as expected, pytest.raises(OSError, match="large|space") as caught:
        notebooks.write(notebook("x" * 2 * ROOM), path)
    assert caught.value.errno == expected
    assert caught.value.__notes__ == [f"{path} was not written; what was there before is as it was."]
    assert files(folder) == before
    assert notebooks.write(notebook("also short"), path)


def test_a_download_that_does_not_fit_is_one_clear_error(full, server, mirrors, monkeypatch):  # noqa: F811  a fixture, not the name imported
    """The files before the one that does not fit go, too; those of earlier downloads stay."""
    folder, context = full
    monkeypatch.setattr("gmmlib.data.catalogue.cache_folder", lambda: folder)
    old = folder / "mnist" / "t10k-labels-idx1-ubyte.gz"
    old.parent.mkdir()
    old.write_bytes(GZIPPED[old.name])
    before = files(folder)
    large = GZIPPED | {"train-images-idx3-ubyte.gz": NOISE}
    mirrors("mnist", server.folder("first", large), server.folder("second", large))
    with context() as expected, pytest.raises(DatasetError) as caught:
        load_mnist("train")
    told = str(caught.value)
    assert told.startswith(f"MNIST cannot be stored in {folder}: {os.strerror(expected)}; make room")
    assert told.endswith(
        "; make room or allow writing there, or set GMMLIB_DATA to a folder that holds the data"
    )
    assert not any("second" in path for path in server.gets)  # another mirror makes no room
    assert files(folder) == before
    assert [path.name for path in folder.iterdir()] == ["mnist"]
    mirrors("mnist", server.folder("first", GZIPPED))
    assert load_mnist("train")[1].tolist() == [7, 0, 9]
