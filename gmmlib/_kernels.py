"""The compiled loops of four modules; numba is imported with the first of them that is used."""

from importlib import import_module

OF = {
    "_map_loops": ("window_powers", "encode_row", "pool", "HARD", "SOFT", "LOG_ODDS"),
    "_patch_loops": (
        *("transform_across", "transform_down", "back_down", "back_across"),
        *("weighted_sum", "fold", "unfold", "largest", "weigh"),
    ),
    "_choice_loops": (
        *("list_labels", "count_reaching", "list_reaching", "keep_reaching", "gather_about"),
        *("score_product", "scatter_filtered", "raise_to", "first_of_ties"),
    ),
}
HOME = {name: module for module, names in OF.items() for name in names}


def __getattr__(name):
    return getattr(import_module(f"gmmlib.{HOME.get(name, '_loops')}"), name)
