"""The paper-scale files: their names, the digest of their content, their mirrors, and where they lie.

Both data sets have the same shape on disk, whether the folder is the user's own or the cache::

    mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz
    bsds500/{train,val,test}/*.jpg

A digest pins the *content* and is checked before use: an MNIST file is decompressed first, because the gzip
around the same bytes differs from one source to the next.
"""

import errno
import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from gmmlib._extras import extra

with extra("data"):
    import platformdirs

VARIABLE = "GMMLIB_DATA"
LARGEST = 64 * 2**20  # bytes; no file of either data set is larger, decompressed


class DatasetError(RuntimeError):
    """Data are missing, wrong, or cannot be downloaded; the message says what to do about it."""


class WrongContentError(Exception):
    """Bytes that are not the pinned ones."""


class Mirror(NamedTuple):
    """An address to download from: a folder of files, or one tgz archive that holds them."""

    url: str
    inside: str | None = None  # where the files lie in the archive; None for a folder of files


class Dataset(NamedTuple):
    title: str
    folder: str  # below the data folder
    files: Mapping[str, str]  # path below `folder` -> sha256 of the content
    containers: Mapping[str, str]  # path -> sha256 of the gzip file as the mirrors serve it
    mirrors: tuple[Mirror, ...]  # in the order in which they are tried


def _pins(name):
    """Digests by file name, from a list in the format of sha256sum."""
    lines = resources.files("gmmlib.data").joinpath(name).read_text(encoding="ascii").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


_MNIST = _pins("mnist.sha256")  # of the files as the mirrors serve them, *.gz, and of their content
_GZIPPED = {name: digest for name, digest in _MNIST.items() if name.endswith(".gz")}

DATASETS = {
    "mnist": Dataset(
        title="MNIST",
        folder="mnist",
        files={name: _MNIST[name.removesuffix(".gz")] for name in _GZIPPED},
        containers=_GZIPPED,
        mirrors=(
            Mirror("https://ossci-datasets.s3.amazonaws.com/mnist/"),
            Mirror("https://storage.googleapis.com/cvdf-datasets/mnist/"),
        ),
    ),
    "bsds": Dataset(
        title="BSDS500",
        folder="bsds500",
        files=_pins("bsds500.sha256"),
        containers={},  # no archive is pinned: the second is packed again on request; what they hold is
        mirrors=(
            Mirror(
                "https://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz",
                inside="BSR/BSDS500/data/images/",
            ),
            Mirror(
                "https://github.com/BIDS/BSDS500/archive/refs/heads/master.tar.gz",
                inside="BSDS500-master/BSDS500/data/images/",
            ),
        ),
    ),
}


def named_folder():
    """The folder that the user names in GMMLIB_DATA, or None; DatasetError if it is not a folder."""
    value = os.environ.get(VARIABLE)
    if not value:
        return None
    named = Path(os.path.expanduser(value))
    if not stat.S_ISDIR(_mode(named)):
        raise DatasetError(
            f"{VARIABLE}={named} is not a folder; point it at one that holds mnist/ and bsds500/, "
            f"or unset it to download the data"
        )
    return named


def cache_folder():
    """The folder that downloads go to."""
    return platformdirs.user_cache_path("gmmlib")


def place(root):
    """Name a data folder as the user knows it."""
    return f"{VARIABLE}={root}" if named_folder() else str(root)


def locate(dataset):
    """Find the folder that holds a whole data set, or None if it has to be downloaded.

    DatasetError if GMMLIB_DATA lacks a file (nothing else is searched then), or a folder cannot be searched.
    """
    named = named_folder()
    root = named or cache_folder()
    missing = absent(dataset, root)
    if missing and named:
        shown = ", ".join(f"{dataset.folder}/{name}" for name in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DatasetError(
            f"{VARIABLE}={named} lacks {len(missing)} of the {len(dataset.files)} files of {dataset.title}: "
            f"{shown}{more}; add them, or unset {VARIABLE} to download the data"
        )
    return None if missing else root


def absent(dataset, root):
    """Names of the files of a data set that `root` lacks, sorted; DatasetError if it cannot be searched."""
    return [name for name in sorted(dataset.files) if not is_file(root / dataset.folder / name)]


def is_file(path):
    """Whether there is such a file; one that may not be looked for is an error, not one that is missing."""
    return stat.S_ISREG(_mode(path))


def _mode(path):
    """What the system says of a path; 0 if there is nothing."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise unreadable(path, error) from error


def read(dataset, root, name):
    """Content of one file of a data set; DatasetError if it is not the pinned one, or cannot be read."""
    path = root / dataset.folder / name
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            # What is longer than the limit is cut, and its digest wrong: a gzip bomb does no harm.
            return verified(file.read(LARGEST), dataset.files[name])
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:  # before OSError, which the first of them is
        wrong = f"it is damaged: {error}"
    except WrongContentError as error:
        wrong = str(error)
    except (OSError, MemoryError) as error:
        raise unreadable(path, error) from error
    raise DatasetError(f"{path} is not the {dataset.title} file: {wrong}; remove it and get it again")


def verified(data, expected):
    """Return `data` if its sha256 is the expected one."""
    digest = hashlib.sha256(data).hexdigest()
    if digest != expected:
        raise WrongContentError(f"expected sha256 {expected}, found {digest}")
    return data


def unreadable(path, error):
    """The DatasetError that says why a path cannot be read, and nothing against what it holds."""
    return DatasetError(
        f"{path} cannot be read: {reason(error)}; what it holds may be right: mend that and try again"
    )


def reason(error):
    """What went wrong, in the words of the system where it has some."""
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    return getattr(error, "strerror", None) or str(error)


def is_of_the_system(error):
    """Whether an error is the machine's (rights, open files, a failing disk), and no matter of content."""
    # Readers of damaged files raise OSError too, without a number, or jump to where no file can be (EINVAL).
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
