"""What is timed: the paper's data if they are here, else the bundled sample."""

from gmmlib import datasets


def _scale():
    try:
        return "paper" if datasets.available().ok else "sample"
    except datasets.DatasetError:
        return "sample"


def photographs():
    """Training photographs."""
    return datasets.load_bsds("train", _scale())


def digits():
    """Training digits, (N, 28, 28)."""
    return datasets.load_mnist("train", _scale())[0]
