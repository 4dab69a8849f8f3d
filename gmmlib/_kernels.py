"""The compiled loops of three modules; numba is imported with the first of them that is used."""

from importlib import import_module

HOME = dict.fromkeys(("window_powers", "encode_row", "pool", "HARD", "SOFT", "LOG_ODDS"), "_map_loops")
HOME |= dict.fromkeys(
    ("transform_across", "transform_down", "largest", "weigh", "back_down", "back_across"), "_patch_loops"
)


def __getattr__(name):
    return getattr(import_module(f"gmmlib.{HOME.get(name, '_loops')}"), name)
