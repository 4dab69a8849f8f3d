"""The convolutional mixture beside its own products, scikit-learn's diagonal one, and its kernel's twin."""

import tracemalloc

import numpy as np
from scipy import fft
from sklearn.mixture import GaussianMixture

from gmmlib import ConvolutionalGMM, _kernels, patches
from gmmlib.em.workers import Workers
from gmmlib.spectrum import fold, powers
from gmmlib.stationary import steps
from tests import oracles
from tools import bench_data
from tools.timing import Row, compare, row, seconds

N_PATCHES, SIDE, N_COMPONENTS = 200_000, 16, 32
CHUNK = ConvolutionalGMM(1).chunk_size


def normalise_kernel(n_rows, n_components):
    """The kernel that turns log joints into posteriors, beside its numpy twin."""
    rng = np.random.default_rng(0)
    joint = 20 * rng.standard_normal((n_rows, n_components))
    constants = rng.standard_normal(n_components)
    work, evidence = np.empty_like(joint), np.empty(n_rows)

    def kernel():
        np.copyto(work, joint)
        _kernels.normalise(work, constants, evidence)

    return compare(
        f"kernel normalise / numpy twin, {n_rows:,} x {n_components}, one thread (s)",
        kernel,
        lambda: oracles.normalise(joint, constants, _kernels.NEGLIGIBLE),
        "below 1, or the kernel goes",
    )


def iteration(P, layout, parameters, bound):
    """One EM iteration beside its own two matrix products, in the same chunks and threads."""
    weight, n_components = np.ones(len(P)), len(parameters.weights)
    resp = np.random.default_rng(0).random((CHUNK, n_components))
    height, width = layout.shape

    def products(slope, chunk):
        chunk @ slope
        return steps.Statistics(0.0, resp[: len(chunk)].T @ chunk, 0.0, 0.0)

    with Workers(CHUNK, CHUNK) as workers:

        def em():
            slope, constant = steps.coefficients(parameters, layout.multiplicity)
            total = workers.sum(lambda rows: steps.e_step(slope, constant, P[rows], weight[rows]), len(P))
            steps.m_step(total, 1e-6)

        def floor():
            slope, _ = steps.coefficients(parameters, layout.multiplicity)
            workers.sum(lambda rows: products(slope, P[rows]), len(P))

        return compare(
            f"EM iteration / its two products, {len(P):,} x {height} x {width}, K = {n_components} (s)",
            em,
            floor,
            bound,
        )


def against_scikit_learn(X):
    """One iteration, from the difference between fits of 4 and 1, beside scikit-learn's diagonal mixture."""
    flat = X.reshape(len(X), -1)

    def ours(n):
        ConvolutionalGMM(N_COMPONENTS, zero_mean_patches=True, max_iter=n, random_state=0, tol=0.0).fit(X)

    def theirs(n):
        model = GaussianMixture(
            N_COMPONENTS, covariance_type="diag", init_params="random_from_data", tol=0, random_state=0
        )
        model.set_params(max_iter=n).fit(flat)

    rows = []
    for fit in (theirs, ours):
        fit(1)
        rows.append([(seconds(lambda f=fit: f(4)) - seconds(lambda f=fit: f(1))) / 3 for _ in range(5)])
    return row(
        "scikit-learn's diagonal iteration / ours, the same patches (s)", np.transpose(rows), "at least 6"
    )


def memory(X, n_powers):
    """Peak memory of `fit` beyond its input, beside the array of powers."""
    tracemalloc.start()
    ConvolutionalGMM(N_COMPONENTS, zero_mean_patches=True, max_iter=2, random_state=0, tol=0.0).fit(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    array = len(X) * n_powers * 8
    return Row(
        "peak memory of fit beyond its input / the powers (bytes)", peak, array, peak / array, "at most 1.5"
    )


def large(side):
    """Scoring one large image, and fitting a component to it, beside transform, powers and products."""
    X = np.random.default_rng(0).standard_normal((1, side, side))
    slope = np.random.default_rng(1).random((side * (side // 2 + 1), 1))
    model = ConvolutionalGMM(1, max_iter=1, random_state=0, tol=0.0).fit(X)

    def image_powers():
        z = fft.rfft2(X, norm="ortho")
        return (z.real**2 + z.imag**2).reshape(1, -1)

    def iterations():  # the start's and one more
        P = image_powers()
        return [(P @ slope).T @ P for _ in range(2)]

    yield compare(
        f"scores / transform, powers and product, an image of {side:,} x {side:,} (s)",
        lambda: model.score_samples(X),
        lambda: image_powers() @ slope,
        "at most 2",
        rounds=5,
    )
    yield compare(
        "fit of 1 iteration / transform, powers and products, the same image (s)",
        lambda: model.fit(X),
        iterations,
        "at most 2",
        rounds=5,
    )


def tiny_chunks(X):
    """Scores a row at a time, beside their transforms, powers and products in the usual chunks."""
    model = ConvolutionalGMM(N_COMPONENTS, max_iter=1, random_state=0, tol=0.0, chunk_size=1).fit(X)
    layout = fold(X.shape[1:])
    slope, _ = steps.coefficients(model._parameters, layout.multiplicity)

    def floor():
        with Workers(CHUNK, CHUNK) as workers:
            workers.fill(lambda rows: powers(X[rows], layout) @ slope, np.empty((len(X), N_COMPONENTS)))

    what = f"scores, chunk_size=1 / transform, powers and product, {len(X):,} patches (s)"
    return compare(what, lambda: model.score_samples(X), floor, "at most 2")


def all_powers(X, layout):
    """Powers of images, a chunk at a time."""
    return np.concatenate([powers(X[i : i + CHUNK], layout) for i in range(0, len(X), CHUNK)])


def rows():
    """Each row of the table."""
    drawn, _ = patches.sample_patches(bench_data.photographs(), SIDE, N_PATCHES, 0, min_std=0.04)
    X = patches.remove_mean(drawn)
    layout = fold((SIDE, SIDE), zero_frequency=False)
    P = all_powers(X, layout)
    model = ConvolutionalGMM(N_COMPONENTS, zero_mean_patches=True, max_iter=10, random_state=0, tol=0.0).fit(
        X
    )
    yield iteration(P, layout, model._parameters, "at most 2, goal 1.5")
    yield against_scikit_learn(X)
    yield memory(X, P.shape[1])
    yield tiny_chunks(X[:50_000])
    for side in (2048, 4096):
        yield from large(side)
    digits = bench_data.digits()
    layout = fold(digits.shape[1:])
    P = all_powers(digits, layout)
    for n_components in (32, 128):
        model = ConvolutionalGMM(n_components, variance_floor=1e-4, max_iter=10, random_state=0, tol=0.0).fit(
            digits
        )
        yield iteration(P, layout, model._parameters, "at most 1.6")
    yield normalise_kernel(20_000, 32)
    yield normalise_kernel(20_000, 128)
