"""What a tree asks of the mixture of its patches: densities, statistics from its own posteriors, draws.

A mixture is a leaf if it has `log_joint`, `statistics_given`, `m_step` and `sample_components`: it takes
patches as images if it is a mixture of images, and flattened otherwise.  The weights of its components do not
enter; they become those of the states of all patches.
"""

from copy import copy

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags

from gmmlib.full import missing

METHODS = ("fit", "log_joint", "statistics_given", "m_step", "sample_components")


def check(leaf, name="leaf"):
    """Refuse what is no mixture that can be a leaf, fitted or not."""
    mixture = thawed(leaf)
    lacking = [method for method in METHODS if not hasattr(mixture, method)]
    if lacking or isinstance(mixture, type):
        raise ValueError(
            f"{name} must be a mixture with the methods {', '.join(METHODS)}; got {leaf!r}. Pass one such as "
            "ConvolutionalGMM(32), or FullGMM(64), which takes patches as vectors."
        )


def thawed(leaf):
    """A mixture itself, or the one inside a ``FrozenEstimator``."""
    return leaf.estimator if isinstance(leaf, FrozenEstimator) else leaf


def check_fitted(mixture, patch, name):
    """Refuse a fitted mixture of other patches than (h, w), or with a component of weight 0."""
    if not hasattr(mixture, "weights_"):
        raise ValueError(
            f"{name} must be fitted; got {mixture!r}. A clone forgets its fit, unless that was wrapped in "
            "sklearn.frozen.FrozenEstimator."
        )
    own = tuple(mixture.image_shape_) if of_images(mixture) else mixture.n_features_in_
    expected = tuple(patch) if of_images(mixture) else patch[0] * patch[1]
    if own != expected:
        raise ValueError(
            f"{name} must take patches of {patch[0]} x {patch[1]} pixels; got one fitted on rows of shape "
            f"{own}. Fit it on such patches, or leave fitting to the tree."
        )
    if not (mixture.weights_ > 0).all():
        raise ValueError(f"{name} must have weights above 0; got {mixture.weights_.min():g}. Leave such out.")


def of_images(mixture):
    """Whether a mixture takes patches as images."""
    return bool(get_tags(mixture).input_tags.three_d_array)


def rows(mixture, patches):
    """Patches (C, n, h, w) as rows of a mixture: (C n, h, w) or (C n, h w)."""
    _, _, height, width = patches.shape
    return patches.reshape(-1, height, width) if of_images(mixture) else patches.reshape(-1, height * width)


def log_density(mixture, patches):
    """Log density of patches (C, n, h, w) under each component, (C, n, K), nats; NaN is missing."""
    X = rows(mixture, patches)
    holes = np.isnan(patches).any(axis=(2, 3)).ravel()
    joint = np.empty((len(X), len(mixture.weights_)))
    if not holes.all():
        joint[~holes] = mixture.log_joint(X[~holes] if holes.any() else X) - np.log(mixture.weights_)
    if holes.any():
        means, covariances = gaussians(mixture)
        joint[holes] = missing.log_joint(
            X[holes].reshape(holes.sum(), -1), np.ones(len(means)), means, covariances
        )
    return joint.reshape(*patches.shape[:2], -1)


def statistics(mixture, patches, posteriors):
    """Statistics of patches (C, n, h, w) under posteriors (C, n, K) of components, times row weights."""
    return mixture.statistics_given(rows(mixture, patches), posteriors.reshape(-1, posteriors.shape[2]))


def m_step(mixture, statistics):
    """The mixture after its M-step, a new one."""
    return copy(mixture).m_step(statistics)


def draw(mixture, states, patch, rng):
    """Draw a patch from each of the components `states` (C, n): (C, n, h, w)."""
    return mixture.sample_components(states.ravel(), rng).reshape(*states.shape, *patch)


def gaussians(mixture):
    """Means (K, D) and covariances (K, D, D) of a mixture whose components are Gaussians."""
    if hasattr(mixture, "covariances_"):
        return mixture.means_, mixture.covariances_
    if hasattr(mixture, "means_") or not getattr(mixture, "spectra_", np.zeros(1)).all():
        raise ValueError(
            "leaf must have components that are Gaussians of all pixels, for missing values; got "
            f"{mixture!r}. FullGMM and ConvolutionalGMM(zero_mean_patches=False) have."
        )
    covariances = mixture.pixel_covariances()
    return np.zeros(covariances.shape[:2]), covariances


def impute(mixture, patches, posteriors):
    """Fill NaN in patches (C, n, h, w) with the expectation under posteriors (C, n, K) of components."""
    filled, rows, holes = _holes(patches[None])
    if len(holes):
        share = posteriors.reshape(-1, posteriors.shape[2])[holes]
        learned = mixture.weights_, *gaussians(mixture)
        rows[0, holes] = missing.impute(rows[0, holes], *learned, share=share)
    return filled[0]


def sample_given(mixture, patches, states, rng):
    """Draw NaN in patches (C, n, h, w) under each of S choices of components (S, C, n): (S, C, n, h, w)."""
    filled, rows, holes = _holes(np.broadcast_to(patches, (len(states), *patches.shape)))
    if len(holes):
        chosen = states.reshape(len(states), -1)[:, holes]
        learned = mixture.weights_, *gaussians(mixture)
        rows[:, holes] = missing.sample(rows[0, holes], *learned, len(states), rng, chosen=chosen)
    return filled


def _holes(patches):
    """A copy of patches (S, C, n, h, w), its rows (S, C n, h w), and which of the C n have NaN."""
    filled = np.array(patches)
    rows = filled.reshape(len(patches), -1, filled[0, 0, 0].size)
    return filled, rows, np.flatnonzero(np.isnan(rows[0]).any(axis=1))
