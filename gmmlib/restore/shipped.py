"""Priors by name: ``fast`` comes with the library, ``full`` is trained once; and model files."""

from pathlib import Path

from gmmlib import ConvolutionalGMM, FullGMM
from gmmlib.storage import ModelFileError


def place(name):
    """Path of the model file that a name stands for."""
    if name == "fast":
        return Path(__file__).with_name("fast.npz")
    if name == "full":
        from gmmlib.data import catalogue  # needs the extra `data`

        return catalogue.cache_folder() / "priors" / "full.npz"
    return Path(name)


def prior(name):
    """The fitted mixture of a name.

    The name is "fast", "full" or the path of a file that `save` of a FullGMM or a ConvolutionalGMM wrote;
    `gmmlib.storage.note` of its `place` says what it was trained on, and under which terms.
    FileNotFoundError if there is no such file, `ModelFileError` if it holds no such model.
    """
    path = place(name)
    if name == "full" and not path.is_file():
        raise FileNotFoundError(
            "it is not on this machine. Train it by python -m gmmlib.restore train, which takes some minutes."
        )
    try:
        return ConvolutionalGMM.load(path)
    except ModelFileError as error:
        if "holds a FullGMM" not in str(error):
            raise
        return FullGMM.load(path)
