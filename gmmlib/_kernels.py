"""The compiled loops of `_loops` and `_elkan`; numba is imported with the first of them that is used."""

from importlib import import_module

ELKAN = ("distance_by_fours", "first_centres", "nearest_centres", "loosen")


def __getattr__(name):
    return getattr(import_module("gmmlib._elkan" if name in ELKAN else "gmmlib._loops"), name)
