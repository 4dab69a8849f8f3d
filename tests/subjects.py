"""One small example of every estimator, and data that it can be fitted to: what contract tests run over."""

import numpy as np

from gmmlib.compose.classify import GenerativeClassifier
from gmmlib.compose.convolutional_stack import ConvolutionalStack
from gmmlib.compose.patch_layer import PatchLayer
from gmmlib.compose.stack import StackedGMM
from gmmlib.compose.tree import TreeGMM
from gmmlib.full.estimator import FullGMM
from gmmlib.stationary.convolutional import ConvolutionalGMM
from gmmlib.stationary.discriminative import DiscriminativeGMM
from gmmlib.stationary.hierarchical import HierarchicalGMM
from gmmlib.stationary.penalised import PenalisedGMM
from gmmlib.stationary.phaseblind import PhaseBlindGMM
from gmmlib.stationary.transformed import TransformedGMM

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((24, 3)) + np.repeat([0.0, 6.0], 12)[:, None]
IMAGES = RNG.standard_normal((24, 3, 4)) * np.repeat([1.0, 5.0], 12)[:, None, None]
GROUPS = RNG.standard_normal((24, 2, 3, 4)) * np.repeat([1.0, 5.0], 12)[:, None, None, None]
CLASSES = np.repeat([3, 7], 12)

CONVOLUTIONAL = ConvolutionalGMM(2, max_iter=2, random_state=0, tol=0.0)
FULL = FullGMM(2, max_iter=2, random_state=0)
LAYER = PatchLayer(CONVOLUTIONAL, side=2, cells=(2, 1), pooling="sum")
SUBJECTS = {
    "ConvolutionalGMM": (CONVOLUTIONAL, IMAGES),
    "ConvolutionalGMM of cosines": (
        ConvolutionalGMM(2, basis="cosine", max_iter=2, random_state=0, tol=0.0),
        IMAGES,
    ),
    "ConvolutionalGMM of pixels": (
        ConvolutionalGMM(2, basis="pixel", max_iter=2, random_state=0, tol=0.0),
        IMAGES,
    ),
    "ConvolutionalStack": (ConvolutionalStack([LAYER], FULL, random_state=0), IMAGES),
    "ConvolutionalStack of classes": (
        ConvolutionalStack([LAYER], GenerativeClassifier(FULL), n_axes=2, random_state=0),
        IMAGES,
    ),
    "DiscriminativeGMM": (DiscriminativeGMM(2, max_iter=2, em_iter=2, random_state=0), IMAGES),
    "FullGMM": (FULL, ROWS),
    "FullGMM, values missing": (FullGMM(2, max_iter=2, allow_missing=True, random_state=0), ROWS),
    "GenerativeClassifier of images": (GenerativeClassifier(CONVOLUTIONAL, random_state=0), IMAGES),
    "GenerativeClassifier of rows": (GenerativeClassifier(FULL, random_state=0), ROWS),
    "HierarchicalGMM": (HierarchicalGMM(2, 2, max_iter=2, random_state=0, tol=0.0), GROUPS),
    "HierarchicalGMM, by position": (
        HierarchicalGMM(2, 2, by_position=True, max_iter=2, random_state=0, tol=0.0),
        GROUPS,
    ),
    "PenalisedGMM": (PenalisedGMM(2, max_iter=2, random_state=0, tol=0.0), IMAGES),
    "PhaseBlindGMM": (PhaseBlindGMM(2, max_iter=2, random_state=0), IMAGES),
    "StackedGMM of images": (StackedGMM([CONVOLUTIONAL, FULL]), IMAGES),
    "StackedGMM of rows": (StackedGMM([FULL, FULL]), ROWS),
    "TransformedGMM": (TransformedGMM(2, max_iter=2, random_state=0, tol=0.0), IMAGES),
    "TreeGMM": (TreeGMM(CONVOLUTIONAL, [(1, 2, 2)], max_iter=2, random_state=0, tol=0.0), IMAGES),
    "TreeGMM of vectors": (
        TreeGMM(FullGMM(2, max_iter=2, tol=0.0), [(3, 1, 3), (1, 2, 2)], max_shift=1).set_params(
            max_iter=2, random_state=0, tol=0.0
        ),
        IMAGES,
    ),
}

# What a fit learns and `init` takes, by the names of the attributes.
LEARNED = {
    "ConvolutionalGMM": ("weights_", "spectra_"),
    "FullGMM": ("weights_", "means_", "covariances_"),
    "HierarchicalGMM": ("top_weights_", "conditionals_", "spectra_"),
    "PenalisedGMM": ("weights_", "spectra_"),
    "TransformedGMM": ("weights_", "means_", "spectra_"),
}


def given(model):
    """The parameters of a fitted model as `init` takes them."""
    return {name.removesuffix("_"): getattr(model, name) for name in LEARNED[type(model).__name__]}


def scores(model, X):
    """What a model says of rows: log-likelihoods (N,), or log joints (N, C) where it has none."""
    return model.score_samples(X) if hasattr(model, "score_samples") else model.log_joint(X)


def trace(model):
    """What each iteration of a fit has come to."""
    return model.objectives_ if hasattr(model, "objectives_") else model.log_likelihoods_
