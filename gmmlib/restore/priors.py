"""What restoration asks of a mixture: estimates of clean patches from noisy ones.

A patch is its mean and the rest.  The mixture says how the rest is distributed; of the mean nothing is known
beforehand, and that of the noisy patch is kept.  The estimate is the Wiener filter of the component that is
most probable given the noisy patch (Zoran and Weiss 2011, ICCV).
"""

from sklearn.utils.validation import check_is_fitted

from gmmlib import ConvolutionalGMM, FullGMM
from gmmlib.restore.full_prior import OfFull
from gmmlib.restore.stationary_prior import OfCosines, OfStationary


def prior_of(mixture):
    """How a fitted mixture of patches serves as a prior; ValueError if it cannot."""
    if type(mixture) not in (FullGMM, ConvolutionalGMM):
        raise ValueError(f"prior must be a fitted FullGMM or ConvolutionalGMM of patches; got {mixture!r}.")
    check_is_fitted(mixture)
    if type(mixture) is FullGMM:
        return OfFull(mixture)
    return (OfCosines if mixture.basis_ == "cosine" else OfStationary)(mixture)
