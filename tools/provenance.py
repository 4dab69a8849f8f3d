"""What a stored run depends on, and whether it still stands.

Every executed notebook carries in its metadata a record ``provenance``. Its key (scale, code of the
chapter, library, lock, parameters, data) decides whether the run is stale. Versions and the digest of
the outputs are recorded beside it: the lock already fixes the versions.

Of the library only the modules count that the run imported, and the files beside them that are not Python
(styles, digests of data); the record lists these modules.
"""

import hashlib
import json
import platform
from importlib import metadata
from pathlib import PurePosixPath

from tools import notebooks

LIBRARY = ("*.py", "*.mplstyle", "*.sha256")  # the files of gmmlib that can change a result
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
        Under ``library``, the digest of each of its files: which of them count depends on the run.
    """
    return {
        "scale": scale,
        "source": source_digest(notebooks.convert(source)),
        "library": file_digests(project.library, *LIBRARY),
        "lock": hashlib.sha256(project.lock.read_bytes()).hexdigest(),
        "parameters": parameters(scale),
        "data": data_digests(scale),
    }


def source_digest(nb):
    """SHA-256 over the code of a chapter."""
    return hashlib.sha256(json.dumps(notebooks.program(nb)).encode()).hexdigest()


def file_digests(folder, *patterns):
    """SHA-256 of each file whose name fits a pattern, by its path in the folder."""
    paths = [path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def library_digest(files, modules=None):
    """SHA-256 over names and contents of modules and of what lies beside them; of all files by default.

    Parameters
    ----------
    files : dict of str
        Digests by path, as `file_digests` gives them.
    modules : collection of str, optional
        Paths of the modules that a run imported. One that is gone changes the digest.
    """
    counted = set(files)
    if modules is not None:
        rooms = {PurePosixPath(module).parent for module in modules}
        beside = {path for path in files if PurePosixPath(path).parent in rooms and not path.endswith(".py")}
        counted = beside.union(modules)
    lines = "".join(f"{path} {files.get(path)}\n" for path in sorted(counted))
    return hashlib.sha256(lines.encode()).hexdigest()


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
    modules = nb.metadata.get("provenance", {}).get("modules")
    stored = {**judged(made_from, modules), "versions": versions(), "outputs": notebooks.outputs_digest(nb)}
    nb.metadata.provenance = stored if modules is None else {**stored, "modules": modules}
    if occasion:
        nb.metadata.provenance.occasion = occasion
    return nb


def judged(made_from, modules):
    """A key with one digest of the library: of these modules, or of all of it where nobody recorded any."""
    return {**made_from, "library": library_digest(made_from.get("library", {}), modules)}


def changes(nb, wanted):
    """Names of what differs between a stored run and a key; empty if the run still stands."""
    stored = nb.metadata.get("provenance", {})
    wanted = judged(wanted, stored.get("modules"))
    changed = [name for name, value in wanted.items() if stored.get(name) != value]
    if stored.get("outputs") != notebooks.outputs_digest(nb):
        changed.append("outputs")
    return changed
