"""Mixtures of templates that lie somewhere on the torus: stationary Gaussians that have a mean.

A component is a template m_k (H, W), shifted by an unknown displacement tau that is uniform over S
circular shifts, plus stationary noise with the power spectrum s_k:

.. math:: x = T_\\tau m_k + e, \\qquad (T_\\tau m)(h) = m(h - \\tau), \\qquad e \\sim N(0; s_k).

A shift multiplies the transform by ``exp(-2 pi i f.tau)``, which changes no power.  So the log joint of
an image, a component and a shift is that of `gmmlib.stationary.convolutional`, a constant, and the
cross-correlation of the image with the template divided by the spectrum, which one inverse transform
gives at all shifts:

.. math:: l_{nk\\tau} = \\log\\frac{\\pi_k}{S} - \\frac12\\sum_f w_f\\Big[\\log 2\\pi s_{kf} +
          \\frac{P_{nf} + |m_{kf}|^2}{s_{kf}}\\Big]
          + \\sum_f w_f \\mathrm{Re}\\frac{z_{nf}\\,\\bar m_{kf}}{s_{kf}} e^{2\\pi i f\\tau}.

Both M-steps are closed: a template is the mean of the images shifted back, a spectrum the mean power
less the template's.  Without templates this is `gmmlib.ConvolutionalGMM`.
"""

from typing import NamedTuple

import numpy as np
from scipy import fft

from gmmlib import _checks, posterior
from gmmlib.em.workers import Workers
from gmmlib.spectrum import powers, unfold
from gmmlib.stationary import steps

TRIPLES = 2**19  # (image, component, shift) triples at a time by one thread: 4 MB


class Parameters(NamedTuple):
    """K templates of H x W pixels in noise with F distinct powers each."""

    weights: np.ndarray  # (K,)       mixing weights, sum to 1
    means: np.ndarray  # (K, H, W)  templates, grey levels
    spectra: np.ndarray  # (K, F)     variance of the noise at each frequency, squared grey levels


class Statistics(NamedTuple):
    """What an E-step leaves of its rows; the fields of two sets of rows add."""

    mass: np.ndarray  # (K,)              sum_n w[n] r[n, k]
    transform: np.ndarray  # (K, H, W//2 + 1)  sum_n w[n] r[n, k, tau] z[n] shifted back by tau
    power: np.ndarray  # (K, F)            sum_n w[n] r[n, k] P[n, f]
    log_likelihood: float  # sum_n w[n] log p(x_n), nats
    weight: float  # sum_n w[n]


class Window(NamedTuple):
    """The S = R C shifts that an image may have, as residues modulo its sides."""

    rows: np.ndarray  # (R,)
    columns: np.ndarray  # (C,)

    @property
    def size(self):
        """Count the shifts."""
        return len(self.rows) * len(self.columns)


class Bank(NamedTuple):
    """Parameters in the form in which an E-step uses them."""

    slope: np.ndarray  # (F, K)            factor of the powers
    constant: np.ndarray  # (K,)              what depends on neither image nor shift
    kernels: np.ndarray  # (K, H, W//2 + 1)  conjugate template over spectrum, to be correlated with
    layout: object  # Fold of the images
    window: Window


def window(shape, max_shift=None):
    """List the shifts by at most `max_shift` pixels along each axis; None means all H W of them."""
    if max_shift is None:
        return Window(*map(np.arange, shape))
    most = (min(shape) - 1) // 2
    valid = isinstance(max_shift, (int, np.integer)) and not isinstance(max_shift, bool)
    if not valid or not 0 <= max_shift <= most:
        raise ValueError(
            f"max_shift must be an integer from 0 to {most} for images of {shape[0]} x {shape[1]} "
            f"pixels, so that no shift occurs twice; got {max_shift!r}. None allows all shifts."
        )
    return Window(*(np.arange(-int(max_shift), int(max_shift) + 1) % side for side in shape))


def shifted(images, shifts):
    """Move images (N, H, W) around the torus by shifts (N, 2), integers of pixels down and to the right."""
    n, height, width = images.shape
    row = (np.arange(height) - shifts[:, :1]) % height
    column = (np.arange(width) - shifts[:, 1:]) % width
    return images[np.arange(n)[:, None, None], row[:, :, None], column[:, None, :]]


def register(images, reference):
    """Find the circular shift at which each image (N, H, W) correlates most with a reference (H, W).

    Returns the shifts (N, 2), such that ``shifted(images, shifts)`` lies on the reference, and Pearson's
    coefficient of the pixels there, (N,).
    """
    images, reference = _checks.images(images, "images"), _checks.images(reference[None], "reference")[0]
    images, reference = images.astype(np.float64, copy=False), reference.astype(np.float64, copy=False)
    height, width = reference.shape
    a = images - images.mean(axis=(1, 2), keepdims=True)
    b = reference - reference.mean()
    # At tau: the product of the image, moved by tau, with the reference.
    products = fft.irfft2(fft.rfft2(a).conj() * fft.rfft2(b), s=(height, width)).reshape(len(a), -1)
    best = products.argmax(axis=1)
    norms = np.sqrt((a**2).sum(axis=(1, 2)) * (b**2).sum())
    correlation = products[np.arange(len(a)), best] / np.where(norms > 0, norms, 1.0)
    return signed(np.stack(np.divmod(best, width), axis=1), (height, width)), correlation


def bank(parameters, layout, window):
    """Prepare parameters for an E-step."""
    weights, means, spectra = parameters
    slope, constant = steps.coefficients(steps.Parameters(weights, spectra), layout.multiplicity)
    constant = constant + np.einsum("kf,fk->k", powers(means, layout), slope) - np.log(window.size)
    kernels = fft.rfft2(means, norm="ortho").conj() / unfold(spectra, layout)
    return Bank(slope, constant, kernels, layout, window)


def log_joints(bank, z, P):
    """Log joint of each image, component and shift, (n, K, S), nats.

    Takes transforms z (n, H, W//2 + 1) and powers P (n, F).
    """
    rows, columns = bank.window
    shape = bank.layout.shape
    joint = np.empty((len(z), len(bank.kernels), len(rows), len(columns)))
    whole = bank.window.size == shape[0] * shape[1]
    for k, kernel in enumerate(bank.kernels):
        # No factor: the sum over all H W frequencies is wanted, and z and the template are unitary.
        correlation = fft.irfft2(z * kernel, s=shape, norm="forward", overwrite_x=True)
        joint[:, k] = correlation if whole else correlation[:, rows[:, None], columns]
    joint += (P @ bank.slope + bank.constant)[:, :, None, None]
    return joint.reshape(len(z), len(bank.kernels), -1)


def e_step(bank, X, weight, given=None):
    """Statistics of images (n, H, W) with row weights (n,), under their own or `given` posteriors (n, K)."""
    X = np.asarray(X, dtype=np.float64)
    z, P = fft.rfft2(X, norm="ortho"), powers(X, bank.layout)
    resp = log_joints(bank, z, P)
    if given is None:
        _, evidence = steps.normalised(resp.reshape(len(X), -1))
    else:
        evidence = np.zeros(len(X))
        steps.normalised(resp.reshape(-1, resp.shape[2]))
        resp *= given[:, :, None]
    mass = resp.sum(axis=2) * weight[:, None]
    transform = np.zeros(bank.kernels.shape, dtype=complex)
    for k in np.flatnonzero(mass.any(axis=0)):
        rows = np.flatnonzero(mass[:, k])
        share = np.zeros((len(rows), *bank.layout.shape))
        places = bank.window.rows[:, None], bank.window.columns
        share[:, *places] = resp[rows, k].reshape(len(rows), len(bank.window.rows), -1)
        share *= weight[rows, None, None]
        # The conjugate moves each image back by the shifts its posteriors name.
        transform[k] = np.einsum("nhw,nhw->hw", z[rows], fft.rfft2(share, overwrite_x=True).conj())
    return Statistics(mass.sum(axis=0), transform, mass.T @ P, weight @ evidence, weight.sum())


def m_step(statistics, layout, variance_floor, noise="stationary"):
    """Parameters of the largest expected log joint among those with no variance below the floor.

    For any spectrum the best template is the mean of the images shifted back; the best spectrum is then the
    power left about it, and for white noise the average of that over all frequencies.
    """
    mass, transform, power, _, weight = statistics
    held = np.where(mass > 0, mass, 1.0)
    means = fft.irfft2(transform / held[:, None, None], s=layout.shape, norm="ortho")
    residual = power / held[:, None] - powers(means, layout)
    if noise == "white":
        residual = level(residual, layout)
    return Parameters(mass / weight, means, np.maximum(residual, variance_floor))


def revive(parameters, variance_floor):
    """Split the heaviest component into two of unlike noise for each empty one: see `steps.revive`."""
    means, heavy = parameters.means.copy(), parameters.weights.copy()
    convolved = steps.Parameters(parameters.weights, parameters.spectra)
    (weights, spectra), empty = steps.revive(convolved, variance_floor)
    for k in empty:  # in the order in which the spectra were split
        heaviest = posterior.falling(heavy)[0]
        heavy[[k, heaviest]] = heavy[heaviest] / 2
        means[k] = means[heaviest]
    return Parameters(weights, means, spectra), empty


def random_start(X, layout, n_components, weight, variance_floor, noise, rng):
    """Start each template at one image, all in noise with the mean power of the data."""
    chosen = rng.choice(np.flatnonzero(weight), n_components, replace=False)
    mean = np.zeros(len(layout.bins))
    for start in range(0, len(X), _checks.ROWS_AT_ONCE):
        rows = slice(start, start + _checks.ROWS_AT_ONCE)
        mean += weight[rows] @ powers(X[rows], layout)
    spectra = np.maximum(mean / weight.sum(), variance_floor)[None]
    if noise == "white":
        spectra = level(spectra, layout)
    weights, means = np.full(n_components, 1 / n_components), np.asarray(X[chosen], dtype=np.float64)
    return Parameters(weights, means, np.repeat(spectra, n_components, axis=0))


def start(model, X, weight, layout):
    """Parameters from which EM starts, as the model's `init` says."""
    init, n_components = model.init, model.n_components
    if hasattr(init, "keys"):
        return given(init, n_components, layout, "init")
    steps.check_random(init, '"weights", "means" and "spectra"')
    rng = _checks.generator(model.random_state)
    parameters = random_start(X, layout, n_components, weight, model.variance_floor, model.noise, rng)
    steps.check_positive(parameters)
    return parameters


def given(mapping, n_components, layout, name):
    """Check weights, templates and half-plane spectra of a caller or a file, and fold the spectra."""
    if not {"weights", "means", "spectra"} <= set(mapping):
        raise ValueError(f'{name} must hold "weights", "means" and "spectra"; got {sorted(mapping)}.')
    means = _checks.parameter(mapping["means"], f"{name}['means']", (n_components, *layout.shape))
    weights, spectra = steps.folded(mapping, n_components, layout, name)
    for key in ("means", "spectra"):  # at every frequency, also where folding leaves its mirror image
        _checks.finite(np.asarray(mapping[key]), f"{name}[{key!r}]")
    if not (spectra > 0).all():
        raise ValueError(f"{name}['spectra'] must be positive; got {spectra.min():g}.")
    return Parameters(weights, means, spectra)


def packed(statistics):
    """Statistics by name, in real numbers: files hold no others."""
    return statistics._asdict() | {"transform": np.ascontiguousarray(statistics.transform).view(np.float64)}


def unpacked(arrays):
    """The inverse of `packed`."""
    return Statistics(**arrays)._replace(transform=arrays["transform"].view(np.complex128))


def packed_shapes(n_components, layout):
    """Shapes of what `packed` returns, by name."""
    height, width = layout.shape
    transform = n_components, height, 2 * (width // 2 + 1)
    return {"mass": (n_components,), "power": (n_components, len(layout.bins)), "transform": transform}


def workers(n_components, window):
    """Workers that hold the log joints of a block of images under each component and shift."""
    size = max(1, TRIPLES // (n_components * window.size))
    return Workers(size, size)


def level(spectra, layout):
    """Replace folded spectra (K, F) by their means over all frequencies of the plane."""
    level = spectra @ layout.multiplicity / layout.dimension
    return np.repeat(level[:, None], len(layout.bins), axis=1)


def signed(shifts, shape):
    """Write residues (N, 2) as the shifts of least size."""
    half = np.array(shape) // 2
    return (shifts + half) % np.array(shape) - half
