"""Slow answers by another derivation: dense covariances, written-out transforms, enumeration.

Nothing here imports gmmlib.  A stationary field of H x W pixels is described by its full-plane
spectrum (H, W), flattened to D = H W where a matrix is wanted.
"""

import numpy as np
from scipy.linalg import null_space
from scipy.special import logsumexp
from scipy.stats import multivariate_normal


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
