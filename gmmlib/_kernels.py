"""The compiled loops of three modules; numba is imported with the first of them that is used."""

from importlib import import_module

OF_MAPS = ("window_powers", "encode_row", "pool", "HARD", "SOFT", "LOG_ODDS")
OF_PATCHES = (
    *("transform_across", "transform_down", "back_down", "back_across"),
    *("weighted_sum", "fold", "unfold", "largest", "weigh"),
)
HOME = dict.fromkeys(OF_MAPS, "_map_loops") | dict.fromkeys(OF_PATCHES, "_patch_loops")


def __getattr__(name):
    return getattr(import_module(f"gmmlib.{HOME.get(name, '_loops')}"), name)
