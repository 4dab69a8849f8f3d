"""What a stored run depends on, and whether it still stands.

Every executed notebook carries in its metadata a record ``provenance``. Its key (scale, code of the
chapter, library, lock, parameters, data) decides whether the run is stale. Versions and the digest of
the outputs are recorded beside it: the lock already fixes the versions.
"""

import hashlib
import json
import platform
from importlib import metadata

from tools import notebooks

DATASETS = ("mnist", "bsds")
PACKAGES = ("numpy", "scipy", "numba", "matplotlib", "scikit-learn", "scikit-image", "pillow", "mlxtend")


def parameters(scale):
    """What papermill sets: nothing at the paper's scale, so that its notebooks hold no injected cell."""
    return {} if scale == "paper" else {"scale": scale}


def key(project, source, scale):
    """Everything that decides the outputs of a chapter.

    Parameters
    ----------
    project : tools.project.Project
    source : Path
        The ``.md`` of the chapter. Only its code counts: prose is taken over without a run.
    scale : str

    Returns
    -------
    dict
    """
    return {
        "scale": scale,
        "source": source_digest(notebooks.convert(source)),
        "library": library_digest(project.library),
        "lock": hashlib.sha256(project.lock.read_bytes()).hexdigest(),
        "parameters": parameters(scale),
        "data": data_digests(scale),
    }


def source_digest(nb):
    """SHA-256 over the code of a chapter."""
    return hashlib.sha256(json.dumps(notebooks.program(nb)).encode()).hexdigest()


def library_digest(folder):
    """SHA-256 over names and contents of all files of the library that can change a result."""
    total = hashlib.sha256()
    files = [path for pattern in ("*.py", "*.mplstyle", "*.sha256") for path in folder.rglob(pattern)]
    for path in sorted(files):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return total.hexdigest()


def data_digests(scale):
    """Digest of each dataset at a scale."""
    from gmmlib import datasets

    return {name: datasets.digest(name, scale) for name in DATASETS}


def versions():
    """Python without its patch version, and the packages that compute or draw."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python} | {name: metadata.version(name) for name in PACKAGES}


def record(nb, made_from, occasion=None):
    """Write into a finished run what it was made from, and on which occasion; return it.

    The occasion (date, commit, seconds, cores) is for the reader: nothing compares it.
    """
    outputs = notebooks.outputs_digest(nb)
    nb.metadata.provenance = {**made_from, "versions": versions(), "outputs": outputs}
    if occasion:
        nb.metadata.provenance.occasion = occasion
    return nb


def changes(nb, wanted):
    """Names of what differs between a stored run and a key; empty if the run still stands."""
    stored = nb.metadata.get("provenance", {})
    changed = [name for name, value in wanted.items() if stored.get(name) != value]
    if stored.get("outputs") != notebooks.outputs_digest(nb):
        changed.append("outputs")
    return changed
