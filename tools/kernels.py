"""Kernels that know this project's environment and none of the user's own settings."""

import os
import tempfile
from contextlib import contextmanager

import matplotlib

# Each of these lets a personal set-up into a kernel: another backend, start-up files, other kernels.
PERSONAL = ("MPLBACKEND", "PYTHONSTARTUP", "JUPYTER_PATH", "JUPYTER_CONFIG_PATH")


@contextmanager
def plain_settings():
    """Environment variables under which kernels start alike for everybody; restored at the end."""
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
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
