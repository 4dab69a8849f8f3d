"""The compiled loops of two modules; numba is imported with the first of them that is used."""

from importlib import import_module

OF_MAPS = ("window_powers", "encode_row", "pool", "HARD", "SOFT", "LOG_ODDS")


def __getattr__(name):
    return getattr(import_module("gmmlib._map_loops" if name in OF_MAPS else "gmmlib._loops"), name)
