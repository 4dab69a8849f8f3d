"""Training of the priors that restoration uses."""

from gmmlib.data.catalogue import DatasetError


def command(arguments):
    """Run ``train`` of the command line; return its exit status."""
    raise DatasetError("this version trains no priors; fit a mixture and pass its file by --prior")
