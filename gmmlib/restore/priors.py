"""What restoration asks of a mixture: estimates of clean patches from noisy ones.

A patch is its mean and the rest.  The mixture says how the rest is distributed; of the mean nothing is known
beforehand, and that of the noisy patch is kept.  The estimate is the Wiener filter of the component that is
most probable given the noisy patch (Zoran and Weiss 2011, ICCV).
"""

import math
import os

from sklearn.utils.validation import check_is_fitted

from gmmlib import ConvolutionalGMM, FullGMM
from gmmlib.restore import shipped
from gmmlib.restore.full_prior import OfFull
from gmmlib.restore.stationary_prior import OfCosines, OfStationary
from gmmlib.stationary import bases

LARGEST_VARIANCE = 0.25  # of values from 0 to 1, whatever their distribution


def prior_of(mixture):
    """How a fitted mixture of patches, or a name of one, serves as a prior; ValueError if it cannot."""
    if isinstance(mixture, str | os.PathLike):
        mixture = shipped.prior(mixture)
    if type(mixture) not in (FullGMM, ConvolutionalGMM):
        raise ValueError(
            "prior must be a fitted FullGMM or ConvolutionalGMM of patches, or the name of one; got "
            f"{mixture!r}."
        )
    check_is_fitted(mixture)
    if type(mixture) is FullGMM:
        prior = OfFull(mixture)
    else:
        prior = (OfCosines if mixture.basis_ == "cosine" else OfStationary)(mixture)
    of_pixels, of_means = _variances(mixture)
    if not of_pixels <= LARGEST_VARIANCE:
        raise ValueError(
            f"prior must be fitted to patches of grey levels from 0 to 1, whose variance is at most "
            f"{LARGEST_VARIANCE:g}; got {of_pixels:.3g} per pixel. Divide the training patches by their "
            "white and fit it again."
        )
    if of_means > of_pixels:
        raise ValueError(
            "prior must be fitted to patches without their means; got one whose means have a variance of "
            f"{of_means / prior.side**2:.3g}. Apply gmmlib.patches.remove_mean and fit it again."
        )
    return prior


def _variances(mixture):
    """Variance about 0 per pixel, and in the direction of constant patches."""
    if type(mixture) is ConvolutionalGMM:  # has no power in the means, which is checked
        layout = bases.layout(mixture.basis_, mixture.image_shape_, True)
        spectra = mixture.spectra_.reshape(len(mixture.weights_), -1)[:, layout.bins]
        return mixture.weights_ @ spectra @ layout.multiplicity / math.prod(mixture.image_shape_), 0.0
    covariances, means, weights = mixture.covariances_, mixture.means_, mixture.weights_
    squares = covariances.diagonal(axis1=1, axis2=2).mean(axis=1) + (means**2).mean(axis=1)
    constant = covariances.mean(axis=(1, 2)) + means.mean(axis=1) ** 2
    return weights @ squares, weights @ constant * means.shape[1]
