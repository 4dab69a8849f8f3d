"""K-means that does not hang on rounding, and is fast where many rows have many columns."""

import warnings
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import euclidean_distances
from sklearn.utils import check_random_state
from sklearn.utils.extmath import row_norms

from gmmlib import _checks, posterior
from gmmlib.em.workers import Shared, libraries

MANY = 10_000  # rows: of more, this many are clustered first
WIDE = 100  # columns: more are replaced by those principal axes that hold `VARIANCE` of the sum of squares
VARIANCE = 0.9


class Clusters(NamedTuple):
    """A partition of rows, and the means of its parts.

    Attributes
    ----------
    labels : ndarray of int, shape (N,)
    centres : ndarray, shape (K, D)
        In the units of the rows; NaN for a cluster that no row of positive weight is in.
    """

    labels: np.ndarray
    centres: np.ndarray


def kmeans(X, n_clusters, random_state=None, weight=None):
    """Cluster rows by k-means from one seeded start, alike on every machine.

    Of more than `MANY` rows a sample is clustered first, by greedy k-means++ and Elkan's algorithm, and all
    rows from its centres.  More than `WIDE` columns are replaced by their leading principal axes: what these
    leave out is far from all centres alike.  Rows are rounded to 30 bits of the largest number, because
    clusters tie where rows repeat each other, and which comes first must not hang on the last bits.
    Rows of weight 0 change nothing; their label is that of the nearest centre.

    Parameters
    ----------
    X : ndarray, shape (N, D)
    n_clusters : int
    random_state : int, RandomState, Generator or None
    weight : ndarray, shape (N,), optional
        Of the rows; equal by default.

    Returns
    -------
    Clusters

    Raises
    ------
    ValueError
        For rows that are not finite, and for fewer rows of positive weight than clusters.
    """
    weight = _checks.sample_weight(weight, len(X))
    _checks.enough_rows(weight, n_clusters)
    if (counted := weight > 0).all():
        labels = partition(X, n_clusters, random_state, weight)
        return Clusters(labels, means(X, labels, n_clusters, weight))
    own = partition(X[counted], n_clusters, random_state, weight[counted])
    centres = means(X[counted], own, n_clusters, weight[counted])
    some = np.flatnonzero(np.isfinite(centres).all(axis=1))
    labels = np.empty(len(X), dtype=own.dtype)
    labels[counted] = own
    labels[~counted] = some[euclidean_distances(X[~counted], centres[some]).argmin(axis=1)]
    return Clusters(labels, centres)


def partition(X, n_clusters, random_state, weight):
    """The labels that `kmeans` gives, (N,), for rows whose weights are all positive, (N,)."""
    if isinstance(random_state, np.random.Generator):
        random_state = int(random_state.integers(2**31))
    rng = check_random_state(random_state)
    if n_clusters == 1:
        _checks.finite(X, "X")
        rng.random_sample()  # as for a first centre, so that later draws from the stream stay the same
        return np.zeros(len(X), dtype=np.int32)
    rows = in_few_columns(X, weight)
    # Its threads add centres in the order in which they finish: one thread, so that digits stay the same.
    # The limit is that of the calling thread; the filter of warnings is the whole process's.
    with _quiet, libraries("openmp").limit(limits=1):
        init = partial(spread_out, weight=weight)
        if len(rows) > MANY:
            some = rng.choice(len(rows), MANY, replace=False)
            init = partial(spread_out, weight=weight[some])
            init = clustered(rows[some], n_clusters, init, weight[some], rng).cluster_centers_
        return clustered(rows, n_clusters, init, weight, rng).labels_


@contextmanager
def _without_warnings():
    """Of fewer distinct rows than clusters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


_quiet = Shared(_without_warnings)


def in_few_columns(X, weight):
    """Rows (N, at most D) whose distances are those of X but for their scale and what few axes leave out."""
    rows = rounded(X)
    every = -(-len(rows) // MANY)
    some, weight = rows[::every], weight[::every]
    if min(rows.shape) <= WIDE or (some == some[0]).all():
        return rows
    mean = np.average(some, axis=0, weights=weight)
    squares, axes = eigh((some - mean).T @ (weight[:, None] * (some - mean)))
    left_out = np.searchsorted(squares.clip(0).cumsum(), (1 - VARIANCE) * squares.sum())
    return rounded((rows - mean) @ axes[:, left_out:])


def rounded(X):
    """X times a power of two, as whole numbers of at most 30 bits."""
    largest = max(float(X.max()), -float(X.min()))
    if not np.isfinite(largest):
        _checks.finite(X, "X")
    rows = np.ldexp(np.asarray(X, dtype=np.float64), 30 - np.frexp(largest)[1])
    return np.rint(rows, out=rows)


def clustered(rows, n_clusters, init, weight, rng):
    """Scikit-learn's k-means from one start."""
    # Elkan's algorithm is faster in many dimensions.
    model = KMeans(n_clusters, init=init, n_init=1, random_state=rng, algorithm="elkan", copy_x=False)
    return model.fit(rows, sample_weight=None if (weight == weight[0]).all() else weight)


def means(X, labels, n_clusters, weight):
    """Mean of each cluster's rows, (K, D)."""
    centres = np.full((n_clusters, X.shape[1]), np.nan)
    for k in range(n_clusters):
        own = np.flatnonzero(labels == k)
        if len(own):
            centres[k] = np.average(X[own], axis=0, weights=weight[own])
    return centres


def spread_out(X, count, random_state, weight):
    """Rows from which k-means starts, (count, D), by greedy k-means++.

    The draws are scikit-learn's (Arthur and Vassilvitskii 2007, SODA); but where some of the rows drawn would
    serve equally well, the first is taken, not one that rounding prefers.
    """
    squares = row_norms(X, squared=True)

    def distances(rows):
        return euclidean_distances(X[rows], X, Y_norm_squared=squares, squared=True)

    chosen = [random_state.choice(len(X), p=weight / weight.sum())]
    nearest = distances(chosen)[0]
    for _ in range(1, count):
        upto = np.cumsum(weight * nearest)
        drawn = np.searchsorted(upto, random_state.uniform(size=2 + int(np.log(count))) * (nearest @ weight))
        drawn = np.minimum(drawn, len(X) - 1)
        within = np.minimum(nearest, distances(drawn))
        total = within @ weight
        best = int((total <= (1 + posterior.TIE) * total.min()).argmax())
        chosen.append(drawn[best])
        nearest = within[best]
    return X[chosen]
