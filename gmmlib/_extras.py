"""Packages that a plain install of gmmlib does not bring, and what is said where one of them is missing."""

from contextlib import contextmanager


@contextmanager
def extra(name):
    """Say by an ImportError which extra of gmmlib to install if an import inside finds no package."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{error.name} is not installed, and a plain install of gmmlib does not bring it; "
            f"run: pip install 'gmmlib[{name}]'",
            name=error.name,
        ) from error


def progress_bar(**settings):
    """A bar of tqdm, imported when one is shown."""
    with extra("progress"):
        from tqdm import tqdm
    return tqdm(**settings)
