"""Packages that a plain install of gmmlib does not bring, and what is said where one of them is missing."""

from contextlib import contextmanager


@contextmanager
def extra(name):
    """Say which extra of gmmlib to install if an import inside finds no package.

    Raises
    ------
    ImportError
        Names the package, and the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{error.name} is not installed, and a plain install of gmmlib does not bring it; "
            f"run: pip install 'gmmlib[{name}]'",
            name=error.name,
        ) from error


def progress_bar(*, disable, **settings):
    """A bar of tqdm; if it is disabled, one that shows nothing and does not need tqdm."""
    if disable:
        return _NoBar()
    with extra("progress"):
        from tqdm import tqdm
    return tqdm(**settings)


class _NoBar:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def set_postfix(self, **_):
        pass

    def update(self):
        pass
