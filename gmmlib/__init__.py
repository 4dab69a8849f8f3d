"""Gaussian mixture models of images and vectors, and what the book needs beside them.

Estimators and the modules that go with them are imported at their first use, so that a program pays for what
it uses alone.
"""

from importlib import import_module

__version__ = "0.6.0"

ESTIMATORS = {
    "ConvolutionalGMM": "stationary.convolutional",
    "ConvolutionalStack": "compose.convolutional_stack",
    "DiscriminativeGMM": "stationary.discriminative",
    "FullGMM": "full.estimator",
    "GenerativeClassifier": "compose.classify",
    "HierarchicalGMM": "stationary.hierarchical",
    "PenalisedGMM": "stationary.penalised",
    "PhaseBlindGMM": "stationary.phaseblind",
    "StackedGMM": "compose.stack",
    "TransformedGMM": "stationary.transformed",
    "TreeGMM": "compose.tree",
}
# Estimators that are parts of others and have no files of their own.
PARTS = {"PatchLayer": "compose.patch_layer"}
ROOMS = {
    "em": "checkpoint split_merge",
    "stationary": "bispectrum convolutional discriminative hierarchical penalised phaseblind transformed",
    "full": "missing online screening triangular whitening",
    "compose": "classify convolutional_stack patch_layer stack tree",
    "evaluation": "calibration evidence metrics twosample",
    "data": "datasets patches",
    "book": "gallery plotting report",
    "": "base posterior restore spectrum storage",
}
MODULES = {name: f"{room}.{name}".lstrip(".") for room, names in ROOMS.items() for name in names.split()}

__all__ = [*ESTIMATORS, *PARTS, *MODULES]


def __getattr__(name):
    if name in ESTIMATORS | PARTS:
        return getattr(import_module(f"gmmlib.{(ESTIMATORS | PARTS)[name]}"), name)
    if name in MODULES:
        return import_module(f"gmmlib.{MODULES[name]}")
    raise AttributeError(f"module 'gmmlib' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
