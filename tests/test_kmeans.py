"""K-means: against scikit-learn's where nothing is left out, and what leaving out costs where it is."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_info

from gmmlib import kmeans as module
from gmmlib.kmeans import kmeans


def blobs(n_rows=700, n_columns=130, n_clusters=7, spread=1.0, seed=0):
    """Rows around centres that are far apart, and the centre of each."""
    rng = np.random.default_rng(seed)
    centres = 6 * rng.normal(size=(n_clusters, n_columns))
    label = rng.integers(n_clusters, size=n_rows)
    return centres[label] + spread * rng.normal(size=(n_rows, n_columns)), label


def inertia(X, labels):
    """Sum of squared distances to the mean of the own cluster."""
    parts = [X[labels == k] for k in np.unique(labels)]
    return sum(((part - part.mean(axis=0)) ** 2).sum() for part in parts)


def one_hot(n_rows, n_columns, noise, seed=0):
    """Vectors of 0 and 1, each as often as the others, with something in the last digits."""
    rows = np.eye(n_columns)[np.random.default_rng(seed).permutation(np.arange(n_rows) % n_columns)]
    own = np.random.default_rng([seed, 1]).normal(size=rows.shape)
    own[::3] = 0.0  # most rows have none
    return rows + noise * own


@pytest.mark.parametrize("seed", range(5))
def test_it_is_blind_to_rounding(seed):
    labels = kmeans(one_hot(200, 20, 0.0), 12, seed).labels
    for noise in (1e-16, 1e-15, -1e-15, 1e-14, 1e-13):
        assert_array_equal(kmeans(one_hot(200, 20, noise), 12, seed).labels, labels)


@pytest.mark.parametrize("n_clusters", [1, 2, 9])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_that_of_scikit_learn_where_nothing_ties(n_clusters, weighted):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(3.0, 1.0, size=(300, 5)), rng.gamma(2.0, size=300) if weighted else np.ones(300)
    algorithm = "elkan" if n_clusters > 1 else "lloyd"
    theirs = KMeans(n_clusters, n_init=1, random_state=3, algorithm=algorithm).fit(
        x, sample_weight=weight if weighted else None
    )
    ours = kmeans(x, n_clusters, 3, weight)
    assert_array_equal(ours.labels, theirs.labels_)
    assert_allclose(ours.centres, theirs.cluster_centers_, rtol=1e-3)


def test_one_cluster_has_all_rows_and_needs_no_search(monkeypatch):
    monkeypatch.setattr(module, "clustered", None)
    x, _ = blobs(50, 4)
    found = kmeans(x, 1, 0, np.arange(50.0))
    assert_array_equal(found.labels, 0)
    assert found.labels.dtype == np.int32
    assert_allclose(found.centres[0], np.average(x, axis=0, weights=np.arange(50.0)), rtol=1e-12)


def test_threads_side_by_side_leave_the_filters_of_warnings_and_the_threads_as_they_were():
    before, limits = list(warnings.filters), [(i["filepath"], i["num_threads"]) for i in threadpool_info()]
    x = np.repeat(np.eye(5), 40, axis=0)  # fewer distinct rows than clusters
    with ThreadPoolExecutor(8) as pool:
        labels = list(pool.map(lambda seed: kmeans(x, 7, seed).labels, range(40)))
    assert all(len(set(found)) == 5 for found in labels)
    assert list(warnings.filters) == before
    assert [(i["filepath"], i["num_threads"]) for i in threadpool_info()] == limits


@pytest.mark.parametrize(
    ("dtype", "exponent"),
    [(np.float64, -1000), (np.float64, 490), (np.float32, -120), (np.float32, 120), (np.float64, 3)],
)
def test_it_does_not_depend_on_the_units(dtype, exponent):
    x = np.random.default_rng(0).normal(size=(90, 4)).astype(dtype)
    x[::3] += 5
    labels = kmeans(x, 4, 0).labels
    assert len(set(labels)) == 4
    assert_array_equal(kmeans(np.ldexp(x, exponent), 4, 0).labels, labels)


@pytest.mark.parametrize("n_columns", [2, 130])
def test_rows_that_are_all_alike(n_columns):
    found = kmeans(np.zeros((150, n_columns)), 2, 0)
    assert_array_equal(found.labels, 0)
    assert_array_equal(found.centres[0], 0.0)
    assert np.isnan(found.centres[1]).all()


def test_leading_axes_find_the_same_clusters(monkeypatch):
    x, label = blobs()
    wide = kmeans(x, 7, 0).labels
    assert module.in_few_columns(x, np.ones(len(x))).shape[1] < 50
    monkeypatch.setattr(module, "WIDE", 1000)
    assert module.in_few_columns(x, np.ones(len(x))).shape == x.shape
    assert adjusted_rand_score(kmeans(x, 7, 0).labels, wide) == 1.0
    assert adjusted_rand_score(label, wide) == 1.0


def test_noise_alone_keeps_most_of_its_columns():
    x = np.random.default_rng(0).normal(size=(5000, 120))
    assert module.in_few_columns(x, np.ones(len(x))).shape[1] > 95


@pytest.mark.parametrize("weighted", [False, True])
def test_a_sample_first_costs_little(weighted, monkeypatch):
    x, _ = blobs(3001, 37, 11, spread=4.0)
    weight = (
        np.random.default_rng(1).gamma(2.0, size=len(x)) * (np.arange(len(x)) % 5 > 0) if weighted else None
    )
    whole = [inertia(x, kmeans(x, 11, s, weight).labels) for s in range(8)]
    monkeypatch.setattr(module, "MANY", 500)
    sampled = [inertia(x, kmeans(x, 11, s, weight).labels) for s in range(8)]
    assert min(sampled) < 1.001 * min(whole)
    assert np.median(sampled) < 1.01 * np.median(whole)


def test_centres_are_means_of_the_rows_with_their_weights(monkeypatch):
    monkeypatch.setattr(module, "MANY", 200)
    x, _ = blobs(601, 110)
    weight = np.arange(601) % 4.0
    found = kmeans(x, 7, 0, weight)
    for k in range(7):
        own = found.labels == k
        assert_allclose(found.centres[k], (weight[own] @ x[own]) / weight[own].sum(), rtol=1e-12)


def test_rows_beyond_the_sample_that_weigh_nothing_change_nothing(monkeypatch):
    """The sample is drawn from rows that count."""
    monkeypatch.setattr(module, "MANY", 100)
    x, _ = blobs(300, 5)
    weight = np.r_[np.ones(40), np.zeros(260)]
    assert len(set(kmeans(x, 7, 0, weight).labels[:40])) == 7


@pytest.mark.parametrize("n_columns", [5, 130])
@pytest.mark.parametrize("value", [3.0, 1e9])
def test_rows_that_weigh_nothing_change_nothing(n_columns, value, monkeypatch):
    """Neither the draws, nor the axes, nor the unit of rounding."""
    monkeypatch.setattr(module, "MANY", 170)
    x, _ = blobs(420, n_columns, 5, spread=6.0)
    weight = np.random.default_rng(2).integers(0, 3, size=420) * 1.5
    counted = weight > 0
    alone = kmeans(x[counted], 5, 0, weight[counted])
    x[~counted] *= value
    found = kmeans(x, 5, 0, weight)
    assert_array_equal(found.centres, alone.centres)
    assert_array_equal(found.labels[counted], alone.labels)
    nearest = ((x[~counted, None] - alone.centres) ** 2).sum(axis=2).argmin(axis=1)
    assert_array_equal(found.labels[~counted], nearest)


def test_axes_are_those_of_rows_as_often_as_they_weigh():
    x, _ = blobs(150, 105, 5, spread=6.0)
    weight = np.random.default_rng(2).integers(1, 4, size=150)
    often = module.in_few_columns(np.repeat(x, weight, axis=0), np.ones(weight.sum()))
    once = module.in_few_columns(x, weight.astype(float))
    assert once.shape[1] == often.shape[1] < 105
    first = np.cumsum(weight) - weight
    assert_allclose(
        once @ once.T, (often @ often.T)[np.ix_(first, first)], rtol=1e-6, atol=1e-6 * once.max() ** 2
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite(bad):
    x = np.ones((20, 3))
    x[7, 1] = bad
    with pytest.raises(ValueError, match=r"X must be finite.*first at index \(7, 1\)"):
        kmeans(x, 2, 0)


def test_fewer_rows_of_positive_weight_than_clusters():
    with pytest.raises(ValueError, match="n_components=4 needs at least as many rows of positive weight"):
        kmeans(np.arange(10.0).reshape(5, 2), 4, 0, np.array([1.0, 0, 2, 0, 3]))
