"""The compiled loops of three modules; numba is imported with the first of them that is used."""

from importlib import import_module

OF_MAPS = ("window_powers", "encode_row", "pool", "HARD", "SOFT", "LOG_ODDS")
OF_CHOICES = (
    "list_labels",
    "count_reaching",
    "list_reaching",
    "keep_reaching",
    "gather_about",
    "score_product",
    "scatter_filtered",
    "raise_to",
    "first_of_ties",
)


def __getattr__(name):
    module = "_map_loops" if name in OF_MAPS else "_choice_loops" if name in OF_CHOICES else "_loops"
    return getattr(import_module(f"gmmlib.{module}"), name)
