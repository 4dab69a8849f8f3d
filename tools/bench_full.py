"""The full-covariance mixture beside scikit-learn's, its own floor, and its kernels' twins."""

import os
import subprocess
import sys
import tempfile
import tracemalloc

import numpy as np
from scipy.linalg.blas import dsyrk, dtrmm
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from gmmlib import FullGMM, _kernels, plotting
from gmmlib.full import run
from gmmlib.kmeans import kmeans
from tests import oracles
from tools import bench_data, timing
from tools.project import REPOSITORY
from tools.timing import Row, compare

RIDGE = 1e-2
FIRST_CALL = (
    "import time, numpy as np; from gmmlib import FullGMM; X = np.random.default_rng(0).random((500, 100));"
    "start = time.perf_counter(); FullGMM(2, max_iter=1, init='random_from_data', random_state=0).fit(X);"
    "print(time.perf_counter() - start)"
)


class Ours:
    """One iteration of EM at a time, from given clusters; BLAS has its threads back after each."""

    def __init__(self, X, labels, n_components, ridge=RIDGE):
        self.model = FullGMM(n_components, reg_covar=ridge)
        with self.model._workers() as workers:
            self.run = run.Run(self.model, X, np.ones(len(X)), workers, labels)
            self.parameters = self.run.start()

    def __call__(self):
        with self.model._workers() as self.run.workers:
            resp, self.log_likelihood = self.run.e_step(self.parameters)
            self.parameters = self.run.m_step(resp)


class Theirs:
    """The same iterations of scikit-learn's, through the two steps that its `fit` calls."""

    def __init__(self, X, labels, n_components, ridge=RIDGE):
        self.X, self.first = X, None
        resp = np.zeros((len(X), n_components), dtype=X.dtype)
        resp[np.arange(len(X)), labels] = 1
        self.model = GaussianMixture(n_components, reg_covar=ridge)
        self.model._initialize(X, resp)

    def __call__(self):
        self.log_likelihood, log_resp = self.model._e_step(self.X)
        self.first = self.log_likelihood if self.first is None else self.first
        self.model._m_step(self.X, log_resp)


def against_scikit_learn(
    X, n_components, bound, rounds=1, repeats=1, dtype=np.float64, labels=None, ridge=RIDGE, settled=1
):
    """Scikit-learn's iteration over the mean of some of ours, the first ones apart: nothing compiles in them.

    An iteration of scikit-learn's costs the same at every stage; ours gets cheaper as EM settles.
    """
    if labels is None:
        labels = kmeans(X, n_components, 0).labels
    ours = Ours(X, labels, n_components, ridge)
    theirs = Theirs(X.astype(dtype), labels, n_components, ridge)
    ours()
    first = ours.log_likelihood
    for _ in range(settled - 1):
        ours()
    name = np.dtype(dtype).name
    what = f"scikit-learn's iteration ({name}) / ours, {len(X):,} x {X.shape[1]}, K = {n_components} (s)"
    row = compare(what, theirs, ours, bound, rounds=rounds, warm_up=False, repeats=repeats)
    if abs(first - theirs.first) > (1e-9 if name == "float64" else 1e-3) * abs(first):
        raise AssertionError(f"not the same computation: {first} and {theirs.first}")
    return row


def floor(X, labels, n_components):
    """Our iteration beside what no exact one can do without.

    Each sample once under one component by a triangular product, one symmetric rank-k update a sample,
    and the factorisations.
    """
    ours = Ours(X, labels, n_components)
    ours()
    groups = [np.asfortranarray(X[labels == k].T) for k in range(n_components)]
    dimension = X.shape[1]
    factor = np.asfortranarray(np.tril(np.random.default_rng(0).random((dimension, dimension))))
    matrix = np.eye(dimension) + 0.1 / dimension

    def least():
        for group in groups:
            dtrmm(1.0, factor, group, lower=1)
            dsyrk(1.0, group, lower=1)
            np.linalg.cholesky(matrix)

    return compare(
        f"our iteration / its floor, {len(X):,} x {dimension}, K = {n_components} (s)",
        ours,
        least,
        "at most 6",
        rounds=3,
    )


def memory(X, n_components):
    """Peak memory of `fit` beyond its input, beside the input."""
    FullGMM(2, max_iter=1, random_state=0, init="random_from_data").fit(X[:500])  # compiles
    tracemalloc.start()
    FullGMM(n_components, max_iter=2, tol=0, reg_covar=RIDGE, init="random_from_data", random_state=0).fit(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    what = f"peak memory of fit beyond its input / the input, {len(X):,} x {X.shape[1]} (bytes)"
    return Row(what, peak, X.nbytes, peak / X.nbytes, "at most 1.2")


def small():
    """Whole fits of little data, where nothing but overhead is measured."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(3 * k, 1, size=(334, 2)) for k in range(3)])[:1000]
    start = {"weights": np.full(3, 1 / 3), "means": X[[0, 400, 900]]}
    identity = np.tile(np.eye(2), (3, 1, 1))

    def ours():
        FullGMM(3, max_iter=50, tol=0, init={**start, "covariances": identity}).fit(X)

    def theirs():
        GaussianMixture(
            3,
            max_iter=50,
            tol=0,
            weights_init=start["weights"],
            means_init=start["means"],
            precisions_init=identity,
        ).fit(X)

    return compare(
        "scikit-learn's fit / ours, 1,000 x 2, K = 3, 50 iterations (s)", theirs, ours, "at least 1"
    )


def whole_fits():
    """Fits of many rows from start to end, where one cluster needs no search; the search alone for few."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((8, 40))[rng.integers(8, size=60_000)]
    X += rng.standard_normal(X.shape) @ (np.eye(40) + 0.1 * rng.standard_normal((40, 40)))
    for n_components in (1, 2, 4, 8):
        settings = {"random_state": 0, "max_iter": 10}
        yield compare(
            f"scikit-learn's fit / ours, {len(X):,} x 40, K = {n_components}, from k-means (s)",
            lambda n=n_components, settings=settings: GaussianMixture(n, **settings).fit(X),
            lambda n=n_components, settings=settings: FullGMM(n, **settings).fit(X),
            "at least 1",
            rounds=3,
        )
    few = np.concatenate([rng.normal(3 * k, 1, size=(334, 2)) for k in range(3)])[:1000]
    yield compare(
        "scikit-learn's k-means / ours, 1,000 x 2, K = 3, one start (s)",
        lambda: KMeans(3, n_init=1, random_state=0).fit(few),
        lambda: kmeans(few, 3, 0),
        "at least 1",
        rounds=21,
    )


def missing(n_components):
    """Scores of samples of which 1 % of the values are missing, beside those of whole ones."""
    parameters = oracles.gaussians(n_components, 40, seed=3)
    X = np.tile(oracles.draw(2000, *parameters, seed=1), (100, 1))
    holed = X.copy()
    holed[np.random.default_rng(0).random(X.shape) < 0.01] = np.nan
    start = dict(zip(("weights", "means", "covariances"), parameters, strict=True))
    stopped = {"callback": lambda model, iteration: True}
    model = FullGMM(n_components, init=start, allow_missing=True, **stopped).fit(X[:2000])
    return compare(
        f"scores with 1 % of values missing / whole, {len(X):,} x 40, K = {n_components} (s)",
        lambda: model.score_samples(holed),
        lambda: model.score_samples(X),
        "at most 4",
        rounds=3,
    )


def first_call():
    """The first fit of a process with nothing compiled, beside one that finds the compiled code on disk."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        cold, warm = (
            float(
                subprocess.run(
                    [sys.executable, "-c", FIRST_CALL], env=environment, capture_output=True, check=True
                ).stdout
            )
            for _ in range(2)
        )
    return Row("first fit of a process: compiling / compiled code on disk (s)", cold, warm, cold / warm, "")


def kernels():
    """Each kernel beside its numpy twin."""
    rng = np.random.default_rng(0)
    values, rows = rng.standard_normal((20_000, 500)), np.flatnonzero(rng.random(20_000) < 0.05)
    centre, share = rng.standard_normal(500), rng.random(20_000)
    out = np.empty((len(rows), 400))
    yield compare(
        "kernel gather / numpy twin, 1,000 of 20,000 rows, 400 of 500 columns (s)",
        lambda: _kernels.gather(values, rows, out),
        lambda: values[rows, :400],
        "below 1, or the kernel goes",
    )
    wide = np.empty((len(rows), 500))
    yield compare(
        "kernel gather_centred / numpy twin, 1,000 of 20,000 rows (s)",
        lambda: _kernels.gather_centred(values, rows, centre, share, 1.0, wide),
        lambda: np.sqrt(share[rows])[:, None] * (values[rows] - centre),
        "below 1, or the kernel goes",
    )
    whitened, offsets, distance = (
        rng.standard_normal((512, 32 * 48)),
        rng.random((32, 48)),
        np.empty((512, 32)),
    )
    yield compare(
        "kernel distances / numpy twin, 512 x 32 blocks of 48 (s)",
        lambda: _kernels.distances(whitened, offsets, distance),
        lambda: ((whitened.reshape(512, 32, 48) - offsets) ** 2).sum(axis=2),
        "below 1, or the kernel goes",
    )
    many, centres, out = rng.standard_normal((512, 717)), rng.random((32, 717)), np.empty((512, 32))
    yield compare(
        "kernel distances_to / numpy twin, 512 x 717 to 32 (s)",
        lambda: _kernels.distances_to(many, centres, out),
        lambda: ((many[:, None] - centres) ** 2).sum(axis=2),
        "below 1, or the kernel goes",
    )
    few, pairs, products = rng.standard_normal((800, 16)), np.triu_indices(16), np.empty((800, 153))
    middle = rng.standard_normal(16)

    def monomials():
        y = few - middle
        return np.hstack([y[:, pairs[0]] * y[:, pairs[1]], y, np.ones((800, 1))])

    yield compare(
        "kernel monomials / numpy twin, 800 x 16 (s)",
        lambda: _kernels.monomials(few, middle, products),
        monomials,
        "below 1, or the kernel goes",
    )
    block, offset, needed = rng.standard_normal((512, 96)), rng.random(96), np.zeros(512)

    def kernel():
        _kernels.advance(block, offset, np.arange(512), np.zeros(512), 60.0, needed)

    def twin():
        total = ((block - offset) ** 2).sum(axis=1)
        left = 60.0 - 0.5 * total > needed
        return np.flatnonzero(left), total[left]

    yield compare("kernel advance / numpy twin, 512 x 96 (s)", kernel, twin, "below 1, or the kernel goes")
    yield from kernels_of_marginals()


def kernels_of_marginals():
    """Both on rows that miss one value in ten."""
    rng = np.random.default_rng(0)
    weights, means, covariances = oracles.gaussians(1, 40)
    holed = oracles.draw(1000, weights, means, covariances)
    holed[rng.random(holed.shape) < 0.1] = np.nan
    residuals, responses = rng.standard_normal((1000, 40)), rng.standard_normal((40, 40))
    arguments = np.zeros(40), holed, responses, np.ones(40), 0.0, np.inf
    out = np.empty(1000)
    yield compare(
        "kernel marginal_by_projection / numpy twin, 1,000 x 40 (s)",
        lambda: _kernels.marginal_by_projection(residuals.copy(), *arguments, out),
        lambda: oracles.marginal_by_projection(residuals, *arguments),
        "below 1, or the kernel goes",
    )
    unknown = np.empty(1000)

    def kernel():
        unknown[:] = np.nan
        _kernels.marginal_by_factor(holed, means[0], covariances[0], 0.0, 64, unknown)

    yield compare(
        "kernel marginal_by_factor / numpy twin, 1,000 x 40 (s)",
        kernel,
        lambda: oracles.observed_log_joint(holed, weights, means, covariances),
        "below 1, or the kernel goes",
        rounds=3,
    )


def starts(X, n_clusters):
    """Scikit-learn's k-means over ours, in seconds and in the sum of squares, from three seeds each."""
    pairs, squares = [], []
    for seed in range(3):
        theirs = KMeans(n_clusters, n_init=1, algorithm="elkan", random_state=seed)
        ours = []
        their_seconds = timing.seconds(lambda model=theirs: model.fit(X))
        our_seconds = timing.seconds(lambda found=ours, seed=seed: found.append(kmeans(X, n_clusters, seed)))
        pairs.append((their_seconds, our_seconds))
        squares.append((((X - ours[0].centres[ours[0].labels]) ** 2).sum(), theirs.inertia_))
    what = f"{len(X):,} x {X.shape[1]}, K = {n_clusters}"
    yield timing.row(f"scikit-learn's k-means / ours, {what} (s)", pairs, "at least 3")
    yield timing.row(f"sum of squares of our k-means / scikit-learn's, {what}", squares, "at most 1.001")


def growth(X):
    """Ratios over N, D and K, as rows and as a figure."""
    rows = []
    for n in (5_000, 15_000):
        rows.append(("N", n, against_scikit_learn(X[:n], 32, "at least 1")))
    turned = X[:10_000] - X[:10_000].mean(axis=0)
    turned = turned @ np.linalg.eigh(turned.T @ turned)[1][:, ::-1]
    for d in (64, 196, 784):
        rows.append(
            ("D", d, against_scikit_learn(turned[:, :d].copy(), 32, "at least 1", rounds=3 if d < 784 else 1))
        )
    for k in (8, 128):
        rows.append(("K", k, against_scikit_learn(X[:10_000], k, "at least 1")))
    return rows


def rows():
    """Each row of the table; the growth is drawn in ``_build/bench.png`` too."""
    X, n_components = bench_data.digits().reshape(-1, 784), 32
    labels = kmeans(X, n_components, 0).labels
    whole = against_scikit_learn(X, n_components, "at least 60", repeats=9, labels=labels)
    yield whole
    yield against_scikit_learn(X, n_components, "at least 14", repeats=9, dtype=np.float32, labels=labels)
    yield floor(X, labels, n_components)
    yield memory(X, n_components)
    yield from starts(X, n_components)
    points = growth(X)
    for *_, row in points:
        yield row
    yield small()
    yield from whole_fits()
    yield missing(8)
    yield missing(1)
    yield first_call()
    yield from kernels()
    points.append(("N", len(X), whole))
    points.append(("K", 32, next(row for name, value, row in points if (name, value) == ("D", 784))))
    draw(points)


def draw(points):
    """One panel for each of N, D and K: how many times faster."""
    for axis in "NDK":
        x, y = zip(*sorted((value, row.ratio) for name, value, row in points if name == axis), strict=True)
        figure = plotting.curves(x, {axis: y}, axis, "times scikit-learn's speed", marker="o", xscale="log")
        figure.savefig(REPOSITORY / "_build" / f"bench_{axis}.png", bbox_inches="tight")
