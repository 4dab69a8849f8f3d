"""Whose turn it is: commands that use one folder go one after the other.

The locks are the system's (`flock`), which frees them when the process that holds them ends, however it
ends: nothing is left behind that could block the next one.
"""

import fcntl
import os
from contextlib import contextmanager


@contextmanager
def held(project, name, shared=False):
    """Use a folder of the project alone, or together with others that only read it.

    Says so in a line if another command has to be waited for. Whoever needs several takes them in the
    order runs of a scale, ``references``, ``published``, so that no two commands wait for each other.

    Parameters
    ----------
    project : tools.project.Project
    name : str
        What is used: a folder of ``_build``, or ``references`` for the stored notebooks.
    shared : bool
        Whether it is only read.

    Raises
    ------
    OSError
        If nothing can be written to ``_build``.
    """
    path = project.build(f"{name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(path, "a") as file:
            wait_for(file, name, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            if not is_there(file, path):
                continue  # `make clean` removed it meanwhile: the others lock another file by now
            yield
            return


def wait_for(file, name, kind):
    """Lock a file; if that takes waiting, say for what."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another command uses {name}; waiting until it has ended", flush=True)
        fcntl.flock(file, kind)


def is_there(file, path):
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
