"""Slow answers by another derivation: dense covariances, written-out transforms, enumeration.

Nothing here imports gmmlib.  A stationary field of H x W pixels is described by its full-plane
spectrum (H, W), flattened to D = H W where a matrix is wanted.
"""

import statistics

import numpy as np
from scipy.linalg import null_space
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

# Settings of runs that are compared step by step: none ends early.
WHOLE_RUN = {"max_iter": 50, "tol": 0.0}


def fourier_matrix(shape):
    """Write out the unitary transform (D, D): ``(F @ x.ravel())[f]`` is the coefficient at frequency f."""
    height, width = shape
    row, column = np.divmod(np.arange(height * width), width)
    turns = np.outer(row, row) / height + np.outer(column, column) / width
    return np.exp(-2j * np.pi * turns) / np.sqrt(height * width)


def mirror(shape):
    """Give the flat index of -f for each full-plane frequency f, (D,)."""
    height, width = shape
    row, column = np.divmod(np.arange(height * width), width)
    return (-row % height) * width + (-column % width)


def real_basis(shape):
    """List an orthonormal real Fourier basis: vectors (D, D) in rows, and the frequency of each (D,)."""
    height, width = shape
    row, column = np.divmod(np.arange(height * width), width)
    partner = mirror(shape)
    vectors, frequency = [], []
    for f in range(height * width):
        angle = 2 * np.pi * (row[f] * row / height + column[f] * column / width)
        if partner[f] == f:
            waves = [np.cos(angle)]
        elif f < partner[f]:
            waves = [np.cos(angle), np.sin(angle)]
        else:
            waves = []
        vectors += [wave / np.sqrt(wave @ wave) for wave in waves]
        frequency += [f] * len(waves)
    return np.array(vectors), np.array(frequency)


def full_powers(images):
    """Powers of images (N, H, W) at all frequencies, (N, H, W), from the written-out transform."""
    n, *shape = images.shape
    return (np.abs(images.reshape(n, -1) @ fourier_matrix(shape).T) ** 2).reshape(n, *shape)


def full_from_half(half, width):
    """Spread a half-plane spectrum (H, W//2 + 1) over the plane (H, W), one frequency at a time."""
    height = len(half)
    full = np.empty((height, width))
    for h in range(height):
        for w in range(width):
            full[h, w] = half[h, w] if w <= width // 2 else half[-h % height, width - w]
    return full


def autocovariance(full):
    """Sum cosines: the autocovariance (H, W) of a full-plane spectrum (H, W)."""
    height, width = full.shape
    result = np.zeros((height, width))
    for h in range(height):
        for w in range(width):
            turns = h * np.arange(height)[:, None] / height + w * np.arange(width) / width
            result[h, w] = (full * np.cos(2 * np.pi * turns)).sum() / full.size
    return result


def dense_covariance(autocovariance):
    """Write out the (D, D) covariance of a stationary field from its (H, W) autocovariance."""
    height, width = autocovariance.shape
    rows, columns = np.divmod(np.arange(height * width), width)
    dh = (rows[:, None] - rows[None, :]) % height
    dw = (columns[:, None] - columns[None, :]) % width
    return autocovariance[dh, dw]


def log_joint(images, weights, full_spectra, mean_free=False):
    """Log weight plus log density (N, K), by scipy densities on dense covariances.

    With `mean_free`, the density is that of the coordinates in a basis of the images without mean.
    """
    x = images.reshape(len(images), -1)
    basis = null_space(np.ones((1, x.shape[1]))) if mean_free else np.eye(x.shape[1])
    joint = []
    for weight, full in zip(weights, full_spectra, strict=True):
        covariance = basis.T @ dense_covariance(autocovariance(full)) @ basis
        density = multivariate_normal(np.zeros(len(covariance)), covariance)
        joint.append(np.log(weight) + np.reshape(density.logpdf(x @ basis), len(x)))
    return np.stack(joint, axis=1)


def mixture_log_likelihood(images, weights, full_spectra, mean_free=False):
    """Log density of the mixture for each image, (N,)."""
    return np.logaddexp.reduce(log_joint(images, weights, full_spectra, mean_free), axis=1)


def em_step(images, row_weight, weights, full_spectra):
    """One dense EM step: new weights (K,) and full-plane spectra (K, H, W)."""
    shape = images.shape[1:]
    joint = log_joint(images, weights, full_spectra)
    resp = row_weight[:, None] * np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
    power = np.einsum("nk,nhw->khw", resp, full_powers(images)) / resp.sum(axis=0)[:, None, None]
    flat = power.reshape(len(weights), -1)
    power = (0.5 * (flat + flat[:, mirror(shape)])).reshape(len(weights), *shape)
    return resp.sum(axis=0) / row_weight.sum(), power


def normalise(joint, constants, negligible):
    """Twin of the compiled kernel: (posteriors (N, K), evidence (N,)) by broadcasts."""
    joint = joint + constants
    gap = joint - joint.max(axis=1, keepdims=True)
    kept = np.where(gap > -negligible, np.exp(gap), 0.0)
    return kept / kept.sum(axis=1, keepdims=True), logsumexp(joint, axis=1)


def all_patches(image, side):
    """Cut every patch out of an image by two loops, (M, side, side)."""
    height, width = image.shape
    return np.array(
        [
            image[top : top + side, left : left + side]
            for top in range(height - side + 1)
            for left in range(width - side + 1)
        ]
    )


def assert_never_falls(log_likelihoods, slack=1e-9):
    """Every step must gain; the message names the worst one."""
    gain = np.diff(log_likelihoods)
    assert len(gain), "a trace of one value shows no step"
    worst = gain.argmin()
    assert gain[worst] >= -slack, (
        f"log-likelihood fell by {-gain[worst]:.3g} nats at step {worst + 1} of {len(gain)}"
    )


def squared_norm(values, offset):
    """Twin of the compiled kernel: the squared distance of two vectors."""
    return ((values - offset) ** 2).sum()


def distances(whitened, offsets):
    """Twin of the compiled kernel: squared distances (N, K) of K blocks that lie side by side."""
    blocks = whitened.reshape(len(whitened), *offsets.shape)
    return np.einsum("nkd->nk", (blocks - offsets) ** 2)


def marginal_by_projection(whitened, offset, values, responses, inflation, constant, largest):
    """Twin of the compiled kernel: residuals of least squares on the columns that are missing."""
    out = np.empty(len(values))
    for n, residual in enumerate(whitened - offset):
        gone = np.isnan(values[n])
        columns = responses[gone].T
        left = residual - columns @ np.linalg.lstsq(columns, residual, rcond=None)[0]
        volume = 0.5 * np.linalg.slogdet(columns.T @ columns)[1]
        out[n] = constant + 0.5 * gone.sum() * np.log(2 * np.pi) - volume - 0.5 * left @ left
        taken = residual @ residual * inflation[gone].max(initial=1.0)
        out[n] = out[n] if taken <= largest * max(left @ left, 1.0) else np.nan
    return out


def advance(whitened, offset, rows, distance, constant, needed):
    """Twin of the compiled kernel: (rows, distances) of those whose bound still counts."""
    total = distance + ((whitened - offset) ** 2).sum(axis=1)
    counts = constant - 0.5 * total > needed[rows]
    return rows[counts], total[counts]


def gaussians(n_components, dimension, seed=0, apart=1.0):
    """Draw weights (K,), means (K, D) and covariances (K, D, D) whose axes have unequal variances."""
    rng = np.random.default_rng(seed)
    scale = np.sqrt(4.0 * np.geomspace(1.0, 0.02, dimension))
    roots = rng.standard_normal((n_components, dimension, 2 * dimension + 2)) * scale[:, None]
    covariances = roots @ roots.transpose(0, 2, 1) / (2 * dimension + 2)
    means = 1.0 + apart * rng.standard_normal((n_components, dimension)) * scale
    return rng.dirichlet(np.full(n_components, 5.0)), means, covariances


def draw(n, weights, means, covariances, seed=0):
    """Draw samples (n, D) of a mixture, in random order."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(weights), size=n, p=weights)
    noise, roots = rng.standard_normal((n, means.shape[1])), np.linalg.cholesky(covariances)
    return np.stack([means[k] + roots[k] @ e for k, e in zip(labels, noise, strict=True)])


def gaussian_log_joint(x, weights, means, covariances):
    """Log weight plus log density (N, K), a scipy density a component."""
    joint = []
    for weight, mean, covariance in zip(weights, means, covariances, strict=True):
        density = multivariate_normal(mean, covariance)
        joint.append(np.log(weight) + np.reshape(density.logpdf(x), len(x)))
    return np.stack(joint, axis=1)


def posteriors(joint):
    """Bayes' rule, rows that sum to 1."""
    return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))


def gaussian_m_step(x, resp, reg_covar, zero_means=False):
    """Weights, means and covariances of weighted posteriors (N, K), from raw sums over whole arrays."""
    mass = resp.sum(axis=0)
    means = np.zeros((len(mass), x.shape[1])) if zero_means else (resp.T @ x) / mass[:, None]
    apart = x[:, None] - means
    covariances = np.einsum("nk,nki,nkj->kij", resp, apart, apart, optimize=True) / mass[:, None, None]
    return mass / mass.sum(), means, covariances + reg_covar * np.eye(x.shape[1])


def observed_log_joint(x, weights, means, covariances):
    """Log weight plus log marginal density of what is not NaN, (N, K), a scipy density a sample."""
    joint = np.empty((len(x), len(weights)))
    for n, row in enumerate(x):
        there = np.flatnonzero(~np.isnan(row))
        for k, weight in enumerate(weights):
            joint[n, k] = np.log(weight)
            if len(there):
                covariance = covariances[k][np.ix_(there, there)]
                joint[n, k] += multivariate_normal(means[k][there], covariance).logpdf(row[there])
    return joint


def expected(x, weights, means, covariances):
    """Fill NaN with conditional means, by solves on blocks of the precisions."""
    filled = x.copy()
    share = posteriors(observed_log_joint(x, weights, means, covariances))
    precisions = np.linalg.inv(covariances)
    for n, row in enumerate(x):
        gone, there = np.flatnonzero(np.isnan(row)), np.flatnonzero(~np.isnan(row))
        filled[n, gone] = 0.0
        for k, precision in enumerate(precisions):
            pull = precision[np.ix_(gone, there)] @ (row[there] - means[k][there])
            conditional = means[k][gone] - np.linalg.solve(precision[np.ix_(gone, gone)], pull)
            filled[n, gone] += share[n, k] * conditional
    return filled


def bhattacharyya(first, second):
    """Log integral of the root of the product of two zero-mean Gaussians, from their covariances (D, D)."""
    determinants = [np.linalg.slogdet(matrix)[1] for matrix in (first, second, (first + second) / 2)]
    return determinants[0] / 4 + determinants[1] / 4 - determinants[2] / 2


def covariance_root(covariance):
    """The symmetric square root of a covariance (D, D), from its eigenvectors."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def code(joint, kind):
    """The code of log joints, a row at a time."""
    rows = []
    for row in joint:
        if kind == "posterior":
            rows.append([1 / sum(np.exp(other - value) for other in row) for value in row])
        elif kind == "standardised_log_joint":
            mean, deviation = statistics.fmean(row), statistics.pstdev(row)
            rows.append([(value - mean) / deviation for value in row])
        else:
            rows.append(list(row))
    return np.array(rows)


def cosines(side):
    """Orthonormal cosines (side, side) in columns, from their definition."""
    place, frequency = np.arange(side)[:, None] + 0.5, np.arange(side)
    return np.cos(np.pi * place * frequency / side) * np.sqrt(np.where(frequency, 2, 1) / side)


def transform_across(pixels, waves):
    """Twin of the compiled kernel, with whole waves: windows (H, n, side) of the rows, times each wave."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels, len(waves), axis=1)
    return np.einsum("rxj,jv->rvx", windows, waves)


def transform_down(across, waves):
    """Twin of the compiled kernel, with whole waves."""
    return np.einsum("ivx,iu->vux", across, waves)
