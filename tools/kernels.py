"""Kernels that know this project's environment and none of the user's own settings."""

import os
import tempfile
from contextlib import contextmanager

import matplotlib

# Each of these lets a personal set-up into a kernel: another backend, start-up files, other kernels.
PERSONAL = ("MPLBACKEND", "PYTHONSTARTUP", "JUPYTER_PATH", "JUPYTER_CONFIG_PATH")
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")


@contextmanager
def plain_settings(at_once=1):
    """Environment variables under which kernels start alike for everybody; restored at the end.

    Kernels that run `at_once` share the cores: threads that outnumber them wait for each other.
    """
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="gmmlib-") as empty:
        for name in PERSONAL:
            os.environ.pop(name, None)
        os.environ.update(
            IPYTHONDIR=empty,
            JUPYTER_CONFIG_DIR=empty,
            JUPYTER_PREFER_ENV_PATH="1",  # the kernel `python3` of this environment comes first
            MATPLOTLIBRC=os.path.join(matplotlib.get_data_path(), "matplotlibrc"),
        )
        if at_once > 1:
            for name in THREADS:
                os.environ.setdefault(name, str(max(1, os.cpu_count() // at_once)))
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
