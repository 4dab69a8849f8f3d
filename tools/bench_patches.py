"""Full covariances of patches of photographs: the regime of image priors."""

import numpy as np
from scipy.linalg.blas import dsyrk, dtrmm

from gmmlib import _kernels, patches
from gmmlib.em.workers import Workers
from gmmlib.full import screening, steps, whitening
from gmmlib.kmeans import kmeans
from tools import bench_data
from tools.bench_full import Ours, against_scikit_learn
from tools.timing import Row, compare

SIDE, RIDGE, FLAT = 8, 1e-5, 0.02
SETTLED = 3  # iterations before the time is taken: those from clusters of k-means are no typical ones


def drawn(n):
    """Patches (n, 64) without their means, the flattest left out."""
    found, _ = patches.sample_patches(bench_data.photographs(), SIDE, n, 0, min_std=FLAT)
    return patches.remove_mean(found).reshape(len(found), -1)


def start(X, n_components):
    """Components of rows by k-means on some of them."""
    few = X[:: max(1, len(X) // 20_000)]
    centres = kmeans(few, n_components, 0).centres
    return (X @ centres.T - 0.5 * (centres**2).sum(axis=1)).argmax(axis=1)


def floor(X, n_components, labels):
    """Our iteration beside the dense one that BLAS allows.

    A triangular product of all rows and their squares for each component, posteriors, and a symmetric product
    of the rows whose posterior is not 0.
    """
    ours = Ours(X, labels, n_components, RIDGE)
    for _ in range(SETTLED):
        ours()
    whiteners, Y = ours.parameters.whiteners, ours.run.Y
    triangles = [np.asfortranarray(whitening.triangle(whiteners, k)) for k in range(n_components)]

    def dense():
        def of(rows):
            joint = np.empty((rows.stop - rows.start, n_components))
            for k, W in enumerate(triangles):
                whitened = dtrmm(1.0, W, Y[rows].T, lower=1) - whiteners.offsets[k][:, None]
                joint[:, k] = whiteners.constants[k] - 0.5 * np.einsum("dn,dn->n", whitened, whitened)
            _, evidence = steps.normalised(joint)
            second = [dsyrk(1.0, Y[rows][joint[:, k] > 0].T, lower=1) for k in range(n_components)]
            first = joint.T @ Y[rows]
            return steps.Statistics(joint.sum(axis=0), first, np.array(second), evidence.sum(), len(joint))

        with Workers(steps.BLOCK_SIZE, steps.BLOCK_SIZE) as workers:
            workers.sum(of, len(Y))

    what = f"our iteration / a dense one, {len(X):,} x {X.shape[1]}, K = {n_components} (s)"
    return compare(what, ours, dense, "at most 1.3")


def survivors(X, n_components, labels):
    """Components of a row that are scored, beside those whose posterior is not 0."""
    ours = Ours(X, labels, n_components, RIDGE)
    for _ in range(SETTLED):
        ours()
    whiteners, rows = ours.parameters.whiteners, ours.run.Y[: steps.BLOCK_SIZE]
    scored = screening.candidates(rows, screening.of(whiteners)).sum(axis=1).mean()
    exact = whitening.log_joint(rows, whiteners, everything=True)
    needed = (exact > exact.max(axis=1, keepdims=True) - _kernels.NEGLIGIBLE).sum(axis=1).mean()
    what = f"components scored per row / with a posterior, {len(X):,} x {X.shape[1]}, K = {n_components}"
    return Row(what, scored, needed, scored / needed, "")


def rows():
    """Each row of the table."""
    for n, n_components in ((20_000, 32), (20_000, 100), (40_000, 200)):
        X = drawn(n)
        labels = start(X, n_components)
        for dtype in (np.float64, np.float32):
            yield beside(X, labels, n_components, "", dtype)
    yield floor(X, n_components, labels)
    yield survivors(X, n_components, labels)
    X = drawn(200_000)
    yield beside(X, start(X, 200), 200, "at least 10")


def beside(X, labels, n_components, bound, dtype=np.float64):
    """Scikit-learn's iteration over ours."""
    settings = dict(rounds=5, dtype=dtype, labels=labels, ridge=RIDGE, settled=SETTLED)
    return against_scikit_learn(X, n_components, bound, **settings)
