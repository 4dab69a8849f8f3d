"""Create ``.venv`` from requirements.lock, with nothing but the Python of the system.

Old Pythons must be able to parse this file in order to be told that they are too old, so it uses no
syntax younger than 2.7.
"""

from __future__ import print_function

import hashlib
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, ".complete")


def read(*parts):
    """Bytes of a file of the project."""
    with open(os.path.join(ROOT, *parts), "rb") as file:
        return file.read()


def python_bounds(pyproject):
    """The (lowest, excluded) versions of ``requires-python``; None where there is no bound."""
    wanted = re.search(r'^requires-python\s*=\s*"([^"]*)"', pyproject, re.MULTILINE).group(1)

    def bound(operator):
        match = re.search(operator + r"\s*(\d+)\.(\d+)", wanted)
        return match and tuple(int(part) for part in match.groups())

    return bound(">="), bound("<(?!=)")


def complaint(version, bounds, modules):
    """One line saying why no environment can be made here, or None."""
    low, high = bounds
    if low and version < low or high and version >= high:
        wanted = "{}.{} or newer".format(*low) + (", below {}.{}".format(*high) if high else "")
        return "Python {} is needed, this is {}.{}; name one that fits: make env PYTHON=python{}.{}".format(
            wanted, version[0], version[1], *low
        )
    for module in modules:
        try:
            __import__(module)
        except ImportError:
            return (
                "this Python has no {0} module; install it (on Debian and Ubuntu: apt install "
                "python{1}.{2}-venv), or name another Python: make env PYTHON=...".format(module, *version)
            )
    return None


def fingerprint():
    """What the environment was made from, the lock and the Python that read it, and the folder it serves.

    An environment that was copied or moved with its checkout still runs the gmmlib of the first place.
    """
    lock = hashlib.sha256(read("requirements.lock")).hexdigest()
    return "{} {}\n{}\n".format(lock, sys.version.split()[0], ROOT)


def installed():
    """Whether a finished environment of this very lock, Python and folder is there."""
    try:
        return read(".venv", ".complete").decode("utf-8", "surrogateescape") == fingerprint()
    except IOError:
        return False


def pip(*arguments):
    """Install into the environment; a failure ends the set-up."""
    python = os.path.join(VENV, "bin", "python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.check_call(command + list(arguments), cwd=ROOT)


def main():
    """Set up the environment; 0 when it is complete."""
    bounds = python_bounds(read("pyproject.toml").decode("utf-8"))
    problem = complaint(sys.version_info[:2], bounds, ["venv", "ensurepip"])
    if problem:
        print(problem, file=sys.stderr)
        return 1
    whole = not installed()
    try:
        if whole:
            print("setting up .venv from requirements.lock (about a minute)", flush=True)
            if os.path.islink(VENV):  # what it points to may be the environment of another checkout
                os.remove(VENV)
            # From scratch: what an earlier lock or an interrupted set-up left behind must not stay.
            subprocess.check_call([sys.executable, "-m", "venv", "--clear", VENV])
            pip("--require-hashes", "-r", "requirements.lock")
        elif os.path.exists(STAMP):
            os.remove(STAMP)
        pip("--no-deps", "--no-build-isolation", "-e", ".")
    except subprocess.CalledProcessError as error:
        print(
            "set-up failed, exit status {} (see above); .venv is incomplete and will be made again".format(
                error.returncode
            ),
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("set-up interrupted; .venv is incomplete and will be made again", file=sys.stderr)
        return 130
    # Last: without the stamp the next call starts over.
    with open(STAMP, "wb") as stamp:
        stamp.write(fingerprint().encode("utf-8", "surrogateescape"))
    print(".venv is ready" if whole else ".venv is ready (requirements.lock has not changed)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
