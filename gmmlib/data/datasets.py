"""MNIST digits and BSDS500 photographs, found or downloaded, verified, decoded; and one's own pictures.

Two scales. ``"paper"`` is the data sets themselves. They are looked for

1. in the folder that the environment variable GMMLIB_DATA names; if it is set, only there;
2. in the user's cache folder;
3. on the network, from where they are downloaded into the cache folder.

Every file is checked against a pinned sha256 each time it is read. ``"sample"`` is a small stand-in
that comes with installed packages and never needs a network:

=====  ======================================================  ========================
split  photographs, in order                                   digits
=====  ======================================================  ========================
train  astronaut, brick, camera, china, coffee, grass          4,000, 400 of each class
val    coins, rocket                                           (none)
test   chelsea, flower, gravel                                 1,000, 100 of each class
=====  ======================================================  ========================

Brick, grass and gravel are textures. All 5,000 digits are from MNIST's training set.
`load_folder` takes the pictures of any folder.  A `DatasetError` says what is missing, wrong or cannot be
downloaded, and what to do about it.

``python -m gmmlib.data status`` says what is on the machine, ``... fetch`` gets what is not.
"""

import argparse
import hashlib
import io
import sys
import time
from collections import deque
from typing import NamedTuple

import numpy as np

from gmmlib.data import bsd68, bundled, catalogue, download, pictures, status
from gmmlib.data.catalogue import DATASETS, DatasetError
from gmmlib.data.folder import load_folder

__all__ = [
    "Availability",
    "DatasetError",
    "available",
    "digest",
    "fetch",
    "load_bsd68",
    "load_bsds",
    "load_folder",
    "load_mnist",
]

SCALES = ("paper", "sample")
MNIST_PARTS = {"train": "train", "test": "t10k"}
BSDS_SPLITS = ("train", "val", "test")
SAMPLE_DIGESTS = {
    "mnist": "e7898d4e0c6465af92b1ba72c54986012efe12d7c8a7084ccbea361ed85a1d12",
    "bsds": "8e42daa8ad4a295c2ba9173079c0d7a8ad465371613fa14474736cb75fa69c48",
}


class Availability(NamedTuple):
    """Whether the paper-scale data can be had, and why or why not, in words."""

    ok: bool
    reason: str


def load_mnist(split, scale="paper"):
    """Load handwritten digits and their classes.

    The `split` is "train" or "test": 60,000 and 10,000 digits at paper scale, 4,000 and 1,000 at "sample".

    Returns
    -------
    images : ndarray, (N, 28, 28)
        Grey levels from 0 (background) to 1 (ink).
    labels : ndarray of int64, (N,)
        The digit, 0 to 9.
    """
    _check("split", split, MNIST_PARTS)
    _check("scale", scale, SCALES)
    if scale == "sample":
        pixels, labels = bundled.digits()[split]
        return pixels / 255, labels.copy()
    names = (f"{MNIST_PARTS[split]}-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1"))
    images, labels = _read("mnist", names)
    # idx: four numbers of 32 bits before the pixels, two before the labels.
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
    return pixels / 255, np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)


def load_bsds(split, scale="paper"):
    """Load grey photographs.

    The `split` is "train", "val" or "test": 200, 100 and 200 photographs at paper scale, 321 x 481 or
    481 x 321 pixels, and 6, 2 and 3 at sample scale.

    Returns
    -------
    list of ndarray, (H, W)
        Luma, (0.299 R + 0.587 G + 0.114 B) / 255, in [0, 1], not rounded to 8 bits; in the order of
        the file names, compared as text.
    """
    _check("split", split, BSDS_SPLITS)
    _check("scale", scale, SCALES)
    if scale == "sample":
        return [pictures.grey(io.BytesIO(encoded)) for encoded in bundled.photographs(split)]
    names = sorted(name for name in DATASETS["bsds"].files if name.startswith(f"{split}/"))
    return [pictures.grey(io.BytesIO(encoded)) for encoded in _read("bsds", names)]


def load_bsd68(scale="paper"):
    """Load the grey photographs on which denoisers are compared, BSD68.

    At sample scale the photographs of the split "val" stand in for them.

    Returns
    -------
    list of ndarray, (H, W)
        Levels of 8 bits divided by 255, as published comparisons make them: (0.2989 R + 0.5870 G +
        0.1140 B), rounded.  68 of 321 x 481 or 481 x 321 pixels at paper scale, all of the split "val", in
        the order of the circulated files.
    """
    _check("scale", scale, SCALES)
    if scale == "sample":
        return [bsd68.grey(encoded) for encoded in bundled.photographs("val")]
    return [bsd68.grey(encoded) for encoded in _read("bsds", [f"val/{name}.jpg" for name in bsd68.NAMES])]


def digest(name, scale):
    """Identify the content of "mnist" or "bsds" without reading it: a sha256 in hexadecimal.

    At paper scale it is taken over the pinned digests of the files; at sample scale it is itself pinned: over
    every array of the splits train, val and test in this order (images, then labels), the text of its shape,
    then its bytes in C order.
    """
    _check("name", name, DATASETS)
    _check("scale", scale, SCALES)
    if scale == "sample":
        return SAMPLE_DIGESTS[name]
    lines = [f"{content}  {file}\n" for file, content in sorted(DATASETS[name].files.items())]
    return hashlib.sha256("".join(lines).encode("ascii")).hexdigest()


def available(timeout=8.0):
    """Say whether the paper-scale data are on this machine or can be downloaded now: an `Availability`.

    Files are only looked for, not verified. Of each data set that is missing, one mirror has to
    answer a HEAD request within `timeout` seconds in all.
    """
    deadline = time.monotonic() + timeout
    roots = {name: catalogue.locate(dataset) for name, dataset in DATASETS.items()}
    asked = {name: download.ask(DATASETS[name], timeout) for name in roots if roots[name] is None}
    notes, complaints = [], []
    for name, root in roots.items():
        if root is None:
            mirror, failed = download.answer(asked[name], deadline)
            complaints += failed
        where = f"found in {catalogue.place(root)}" if root else f"can be downloaded from {mirror}"
        notes.append(f"{DATASETS[name].title} {where}")
    if complaints:
        return Availability(False, "no download: " + "; ".join(complaints))
    return Availability(True, ", ".join(notes))


def fetch():
    """Download the paper-scale data sets that are not on this machine, and verify every file."""
    for name, dataset in DATASETS.items():
        deque(_read(name, sorted(dataset.files)), maxlen=0)


def _check(argument, got, allowed):
    if got not in tuple(allowed):
        expected = ", ".join(repr(value) for value in allowed)
        raise ValueError(f"{argument}: expected one of {expected}, got {got!r}")


def _read(name, files):
    """Yield the content of files of a data set, after a download if need be."""
    root = catalogue.locate(DATASETS[name])
    if root is None:
        root = catalogue.cache_folder()
        download.download(DATASETS[name], root)
    for file in files:
        yield catalogue.read(DATASETS[name], root, file)


def main(arguments=None):
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m gmmlib.data", description="The paper-scale data sets.")
    parser.add_argument("command", choices=("status", "fetch"), help="say what is here, or get what is not")
    command = parser.parse_args(arguments).command
    try:
        if command == "fetch":
            fetch()
        return 0 if status.show() else 1
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what had not arrived whole is not kept", file=sys.stderr)
        return 130
