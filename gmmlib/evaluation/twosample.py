r"""Two sets of vectors, one of data and one drawn from a model: can they be told apart, and where?

No single number settles it, so there are several, each blind to something:

- *different bins* compares how often each region of the data is visited; within a region it sees nothing;
- *told apart* asks a classifier, and sees what that classifier can see;
- *nearest distances* to the training data find copies, and samples that are far from anything;
- *spectrum error* and *marginals* look at second moments and at single pixels, and at nothing else.

A likelihood is none of them: a model may have a high one and poor samples, or the other way round
(Theis, van den Oord and Bethge 2016, arXiv:1511.01844).  Vectors are arrays (N, D), images (N, H, W); a
ValueError names the argument that cannot be compared.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from gmmlib import _checks
from gmmlib.spectrum import fold, powers


def vectors(X, name="X", dimension=None):
    """Return (N, D) real, finite vectors as float64; a `dimension` must be D."""
    X = _checks.array(X, name)
    if X.ndim != 2 or X.size == 0 or X.dtype.kind not in "buif":
        raise ValueError(
            f"{name} must hold real vectors, shape (N, D); got shape {X.shape} of dtype {X.dtype}. "
            f"Images become vectors by {name}.reshape(len({name}), -1)."
        )
    if dimension is not None and X.shape[1] != dimension:
        raise ValueError(
            f"{name} must have as many coordinates as the vectors it is compared with, {dimension}; "
            f"got {X.shape[1]}. Turn both into vectors in the same way."
        )
    _checks.finite(X, name)
    return X.astype(np.float64, copy=False)


def proportion_z(counts, others):
    r"""Compare how two sets fall into the same bins: the two-proportion z score of each.

    With p and q the two shares of a bin, of n and m vectors, and r their pooled share,

    .. math:: z = \frac{q - p}{\sqrt{r (1 - r) (1/n + 1/m)}},

    which is close to a standard normal where both sets come from one distribution.  `counts` and `others` say
    how many of each set fall into each bin, (B,), and so is the result: above 0 where the others visit a bin
    more often, 0 for a bin that holds none of both, or all.
    """
    counts, others = _checks.amounts(counts, "counts"), _checks.amounts(others, "others")
    if counts.ndim != 1 or counts.shape != others.shape or not counts.any() or not others.any():
        raise ValueError(
            "counts and others must count two sets, neither empty, in the same bins, shape (B,) each; got "
            f"shapes {counts.shape} and {others.shape} and totals {counts.sum():g} and {others.sum():g}."
        )
    n, m = counts.sum(), others.sum()
    pooled = (counts + others) / (n + m)
    deviation = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    gap = others / m - counts / n
    return np.divide(gap, deviation, out=np.zeros_like(gap), where=deviation > 0)


def ndb(counts, others, level=0.05):
    """Share of statistically different bins, NDB (Richardson and Weiss 2018, arXiv:1805.12462).

    The bins are cells of the training data, such as the clusters of k-means, and their counts those of
    `proportion_z`.  A bin is different if a difference as large has by chance a probability below `level`, so
    where both sets come from one distribution a share of about `level` differs.  More vectors find smaller
    differences, so shares compare only between sets of one size.
    """
    if not 0 < _checks.non_negative(level, "level") < 1:
        raise ValueError(f"level must be a probability between 0 and 1; got {level!r}.")
    critical = stats.norm.isf(level / 2)
    return float((np.abs(proportion_z(counts, others)) > critical).mean())


class Told(NamedTuple):
    """How well a classifier tells two sets apart, on vectors that it was not trained on."""

    accuracy: float  # 0.5 where it cannot, 1 where it always can
    first: float  # share of the first set that it gets right
    second: float  # the same of the second
    chance_deviation: float  # standard deviation of the accuracy where both are one distribution


def classifier_two_sample_test(first, second, classifier=None, random_state=None):
    """`Told` by a classifier trained on half of two sets (Lopez-Paz and Oquab 2017, arXiv:1610.06545).

    A linear classifier sees little of a mixture that EM has fitted, however poor its samples: at an
    M-step the mixture takes over the mean and, but for the ridge, the covariance of its training data.

    Data and samples are at least 4 each; the longer set is cut to the length of the shorter, so that guessing
    is right half of the time.  The classifier is cloned before it is trained, and is by default 15 nearest
    neighbours; `random_state` decides which half is which.
    """
    first = vectors(first, "first")
    second = vectors(second, "second", first.shape[1])
    length = min(len(first), len(second))
    if length < 4:
        raise ValueError(
            f"first and second must hold at least 4 vectors each; got {len(first)} and {len(second)}."
        )
    rng = _checks.generator(random_state)
    half = length // 2
    first, second = (X[rng.permutation(len(X))[: 2 * half]] for X in (first, second))
    if classifier is None:
        classifier = KNeighborsClassifier(min(15, half), algorithm="brute")
    labels = np.repeat([0, 1], half)
    model = clone(classifier).fit(np.concatenate([first[:half], second[:half]]), labels)
    right = model.predict(np.concatenate([first[half:], second[half:]])) == labels
    shares = (part.mean() for part in (right, right[:half], right[half:]))
    return Told(*map(float, shares), float(0.5 / np.sqrt(2 * half)))


def nearest(X, references, count=1):
    """Find the `count` nearest references (M, D) of each vector (N, D).

    Returns their Euclidean distances, rising, and their indices, both (N, count).
    """
    references = vectors(references, "references")
    X = vectors(X, "X", references.shape[1])
    if _checks.positive_integer(count, "count") > len(references):
        raise ValueError(f"count must be at most the number of references, {len(references)}; got {count}.")
    return NearestNeighbors(n_neighbors=count, algorithm="brute").fit(references).kneighbors(X)


def distance_ratio(samples, held_out, training):
    """How far samples lie from the training data, beside data that were held out: three sets of vectors.

    The ratio of the median distances to the nearest training vector: 0 for copies, well below 1 for a
    model that remembers, 1 for new data, above 1 for samples that resemble nothing.
    """
    usual = np.median(nearest(held_out, training)[0])
    if usual == 0:
        raise ValueError(
            "held_out must not repeat the training vectors; half of them or more do, to the last digit. "
            "Pass data that the model was not trained on."
        )
    return float(np.median(nearest(samples, training)[0]) / usual)


def spectrum_error(images, others):
    r"""Root mean square difference of log mean power spectra, in nats, over all frequencies but zero.

    .. math:: \Big[\frac{1}{D - 1} \sum_{f \ne 0} w(f)
              \Big(\log \frac{\overline{|z'(f)|^2}}{\overline{|z(f)|^2}}\Big)^2\Big]^{1/2}

    0 for equal spectra; about 0.1 where powers are ten percent off.  Both sets are images of one size, of at
    least 2 pixels, with power at every frequency but zero.
    """
    images = _checks.images(images, "images")
    others = _checks.images(others, "others", images.shape[1:])
    layout = fold(images.shape[1:], zero_frequency=False)
    if not len(layout.bins):
        raise ValueError("images must have at least 2 pixels; got 1 x 1.")
    means = [powers(X, layout).mean(axis=0) for X in (images, others)]
    if not all(mean.all() for mean in means):
        raise ValueError(
            "images and others must have power at every frequency but zero; got none at one of them. "
            "Constant images have none, and few blurred ones may have too little for a float."
        )
    ratio = np.log(means[1] / means[0])
    return float(np.sqrt(layout.multiplicity @ ratio**2 / layout.dimension))


class Marginals(NamedTuple):
    """Statistics of the single pixels of a set of images."""

    outside: float  # share of the pixels outside the range of grey levels
    deviation: float  # standard deviation of all pixels, grey levels
    kurtosis: float  # excess kurtosis of all pixels, 0 for a Gaussian
    step_kurtosis: float  # the same of the differences between neighbours in a row


def marginals(images, low=0.0, high=1.0):
    """Describe the pixels of images with at least two columns, which vary along a row.

    `low` and `high` are the ends of the range of grey levels, both inside.
    """
    images = _checks.images(images, "images").astype(np.float64, copy=False)
    steps = np.diff(images, axis=2)
    if not steps.any():
        raise ValueError("images must vary along a row of at least two pixels; got constant rows.")
    outside = ((images < low) | (images > high)).mean()
    kurtoses = (stats.kurtosis(values, axis=None) for values in (images, steps))
    return Marginals(*map(float, (outside, images.std(), *kurtoses)))
