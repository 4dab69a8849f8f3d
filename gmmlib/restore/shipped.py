"""Priors by name: the path of a model file."""

from gmmlib import ConvolutionalGMM, FullGMM
from gmmlib.storage import ModelFileError


def prior(name):
    """The fitted mixture that a file holds.

    `name` is the path of a file that `save` of a FullGMM or a ConvolutionalGMM wrote.  FileNotFoundError if
    there is none, `ModelFileError` if it holds no such model.
    """
    try:
        return ConvolutionalGMM.load(name)
    except ModelFileError as error:
        if "holds a FullGMM" not in str(error):
            raise
        return FullGMM.load(name)
