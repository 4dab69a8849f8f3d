"""Kernels that know this project's environment and none of the user's own settings."""

import json
import os
import re
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import matplotlib

from tools.project import REPOSITORY

# Each of these lets a personal set-up into a kernel: another backend, start-up files, other kernels.
PERSONAL = ("MPLBACKEND", "PYTHONSTARTUP", "JUPYTER_PATH", "JUPYTER_CONFIG_PATH")
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
# Files and folders named in the environment.  A kernel works in another folder than the command that
# starts it, so a relative one would be another place there.
PATHS = ("GMMLIB_DATA", "HOME", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR", "NUMBA_CACHE_DIR")
PATHS += ("PYTHONPYCACHEPREFIX", "SCIKIT_LEARN_DATA", "SKIMAGE_DATADIR", "TMPDIR", "XDG_CACHE_HOME")
PATHS += ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "COVERAGE_PROCESS_START")
PATHS += ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE")

QUESTION = """
import json, sys
files = {n: getattr(m, "__dict__", {}).get("__file__") for n, m in list(sys.modules.items())}
files = {name: file for name, file in files.items() if isinstance(file, str)}
with open(answer, "w", encoding="utf-8") as out:
    json.dump({"prefixes": [sys.prefix, sys.base_prefix], "files": files}, out)
"""


@contextmanager
def plain_settings(at_once=1, root=REPOSITORY):
    """Environment variables under which kernels start alike for everybody; restored at the end.

    Kernels that run `at_once` share the cores: threads that outnumber them wait for each other.  They
    import the gmmlib of the project folder `root`, whatever is installed.
    """
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="gmmlib-") as empty:
        for name in PERSONAL:
            os.environ.pop(name, None)
        for name in PATHS:
            if value := os.environ.get(name):
                os.environ[name] = os.path.abspath(os.path.expanduser(value))
        os.environ.update(
            IPYTHONDIR=empty,
            JUPYTER_CONFIG_DIR=empty,
            JUPYTER_PREFER_ENV_PATH="1",  # the kernel `python3` of this environment comes first
            MATPLOTLIBRC=os.path.join(matplotlib.get_data_path(), "matplotlibrc"),
            PYTHONNOUSERSITE="1",
            PYTHONPATH=str(root),
        )
        if at_once > 1:
            for name in THREADS:
                os.environ.setdefault(name, str(max(1, os.cpu_count() // at_once)))
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def question(answer):
    """Code that lets a kernel write into a file what it has imported; it leaves no name behind."""
    return f"exec({QUESTION!r}, {{'answer': {str(answer)!r}}})"


def complaint(answer, library):
    """What a kernel runs on besides this environment and the library, in one line; None if nothing.

    Parameters
    ----------
    answer : Path
        The file that `question` wrote.
    library : Path
        The only folder that may hold gmmlib.
    """
    try:
        seen = json.loads(Path(answer).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "the kernel does not say which files it has imported"
    environment, base = seen["prefixes"]
    if not _inside(sys.prefix, environment):
        return f"the kernel belongs to the environment {environment}, not to {sys.prefix}"
    for name, file in sorted(seen["files"].items()):
        if name.partition(".")[0] == "gmmlib":
            if not _inside(file, library):
                return f"the kernel has imported {name} from {file}, not from {library}: make env"
        elif not _inside(file, environment) and not _inside(file, base):
            return f"the kernel has imported {name} from {file}, outside of the environment {environment}"
    return None


def imported(answer, library):
    """The files of the library that a kernel has imported, by their paths within it, in order.

    What it imports at its first use is among them, because the kernel is asked at the end of a run.
    """
    files = json.loads(Path(answer).read_text(encoding="utf-8"))["files"]
    found = [os.path.realpath(file) for name, file in files.items() if name.partition(".")[0] == "gmmlib"]
    return sorted(Path(os.path.relpath(file, os.path.realpath(library))).as_posix() for file in found)


def plain(text):
    """What a kernel or a program says, without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _inside(path, folder):
    """Whether a path lies in a folder as it is written, or where links lead."""
    written, followed = (
        (Path(form(path)), Path(form(folder))) for form in (os.path.abspath, os.path.realpath)
    )
    return any(path.is_relative_to(folder) for path, folder in (written, followed))
