"""The compiled loops of `gmmlib._loops`; numba is imported with the first of them that is used."""

from importlib import import_module


def __getattr__(name):
    return getattr(import_module("gmmlib._loops"), name)
