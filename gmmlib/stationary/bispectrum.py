"""Shift-invariant averages that keep the phases, and the template behind them.

A shift of the torus turns the transform z(f) by a phase that is linear in f.  It cancels from the mean
z(0), from the power ``|z(f)|^2`` and from the bispectrum

.. math:: B(f, g) = z(f)\\, \\overline{z(g)}\\, z(g - f),

so that these can be averaged over images of unknown shifts.  The bispectrum determines all phases, up to
the linear phase of one shift.  Frequencies are those of the full plane, D = H W of them in the order of its
rows; transforms are unitary (`gmmlib.spectrum`).

References
----------
Bendory, Boumal, Ma, Zhao and Singer (2018), IEEE Transactions on Signal Processing 66, 1037-1050
(arXiv:1705.00641); Boumal, Bendory, Lederman and Singer (2018), arXiv:1710.02590, for several signals.
"""

from typing import NamedTuple

import numpy as np
from scipy import fft

from gmmlib import _checks
from gmmlib.em.workers import Workers
from gmmlib.spectrum import fold

LARGEST = 1024  # pixels; a bispectrum of so many has a million entries
ROWS = 512  # images at a time by one thread


class Invariants(NamedTuple):
    """Averages over images that no circular shift of any of them changes."""

    mean: float  # grey level
    power: np.ndarray  # (H, W)  |z(f)|^2, squared grey levels
    bispectrum: np.ndarray  # (D, D)  B(f, g), cubed grey levels


def invariants(X, noise_variance=0.0):
    """Average the invariants of shifted, noisy images, and remove what white noise adds to them.

    Noise of variance v adds v to each power, and v z(0) to the bispectrum where f = 0, g = 0 or f = g.
    Images (N, H, W) have at most 1,024 pixels; `noise_variance` is that of a pixel, squared grey levels.
    Powers of the `Invariants` are estimates for the image under the noise, and may come out negative.
    """
    X = _checks.images(X)
    noise_variance = _checks.non_negative(noise_variance, "noise_variance")
    shape, size = X.shape[1:], X[0].size
    if size > LARGEST:
        raise ValueError(
            f"X must hold images of at most {LARGEST} pixels, for a bispectrum has a row and a column a "
            f"pixel; got {shape[0]} x {shape[1]}. Shrink the images."
        )
    differences, half = _differences(shape), fold(shape)
    # Flat full-plane indices of one frequency of each pair f and -f; the other's row is the conjugate.
    row, column = np.divmod(half.bins, shape[1] // 2 + 1)
    first = row * shape[1] + column
    with Workers(ROWS, ROWS) as workers:
        total = workers.sum(lambda rows: _sums(X[rows], first, differences), len(X))
    mean, power, rows = (field / len(X) for field in total)
    B = np.empty((size, size), dtype=complex)
    mirror = differences[:, 0]
    B[mirror[first]] = rows[:, mirror].conj()
    B[first] = rows
    zero = mean * np.sqrt(size)
    for entries in (B[0], B[:, 0], np.einsum("ff->f", B)):  # views
        entries -= noise_variance * zero
    return Invariants(float(mean), power - noise_variance, B)


def recover(averages, n_starts=5, max_iter=300, random_state=None):
    r"""Find the image that has given invariants, up to a circular shift.

    Amplitudes a(f) are the roots of the powers.  With those held, least squares in the bispectrum is
    to maximise over the phases u(f), :math:`u(-f) = \bar u(f)`,

    .. math:: J(u) = \mathrm{Re}\sum_{f,g} \bar C(f, g)\, u(f)\, \bar u(g)\, u(g - f),
              \qquad C(f, g) = a(f)\, a(g)\, a(g - f)\, B(f, g).

    Each step puts the phase of u(f) where the other phases and C want it (iterative phase
    synchronisation, Bendory et al. 2018), at most `max_iter` times.  J has local maxima, so the best of
    `n_starts` random starts counts.

    Returns
    -------
    ndarray, (H, W)
        Grey levels.
    """
    n_starts = _checks.positive_integer(n_starts, "n_starts")
    max_iter = _checks.positive_integer(max_iter, "max_iter")
    rng = _checks.generator(random_state)
    shape = averages.power.shape
    differences = _differences(shape)
    amplitude = np.sqrt(np.maximum(averages.power, 0.0)).ravel()
    amplitude[0] = 0.0  # the mean has no phase, and its terms in B carry none
    C = averages.bispectrum * (amplitude[:, None] * amplitude * amplitude[differences])
    phases = [
        _synchronise(C, differences, _unit(fft.fft2(noise)).ravel(), max_iter)
        for noise in rng.standard_normal((n_starts, *shape))
    ]
    best = max(phases, key=lambda pair: pair[0])[1]
    image = fft.ifft2((amplitude * best).reshape(shape), norm="ortho").real
    return image + averages.mean


def agreement(C, differences, u):
    """J(u) of `recover`, and half its slope (D,): where C and the other phases want each u(f)."""
    wanted = (C * u[differences].conj()) @ u
    return float((u.conj() @ wanted).real), wanted


def _synchronise(C, differences, u, max_iter):
    """Climb from the phases u; return the agreement and the phases reached.

    A step that would lead down is taken again with more of the present phases in it, until it climbs.
    """
    before, wanted = agreement(C, differences, u)
    hold = 0.0
    for _ in range(max_iter):
        new = _unit(wanted + hold * u)
        after, new_wanted = agreement(C, differences, new)
        if after < before:
            hold = max(2 * hold, np.abs(wanted).mean())
            continue
        gain, before, u, wanted = after - before, after, new, new_wanted
        if gain <= 1e-12 * abs(before):
            break
    return before, u


def _sums(X, first, differences):
    """`Invariants` of a chunk of images, summed; of the bispectrum the rows `first` alone, (F, D)."""
    X = np.asarray(X, dtype=np.float64)
    z = fft.fft2(X, norm="ortho")
    power = (z.real**2 + z.imag**2).sum(axis=0)
    z = z.reshape(len(X), -1)
    conjugate = z.conj()
    rows = np.stack([z[:, f] @ (conjugate * z[:, differences[f]]) for f in first])
    return Invariants(X.mean(axis=(1, 2)).sum(), power, rows)


def _differences(shape):
    """Flat index of g - f for each pair of full-plane frequencies, (D, D) with f in rows."""
    height, width = shape
    row, column = np.divmod(np.arange(height * width), width)
    return (row - row[:, None]) % height * width + (column - column[:, None]) % width


def _unit(z):
    """Divide by the absolute value; 0 becomes 1."""
    size = np.abs(z)
    return np.where(size > 0, z / np.where(size > 0, size, 1.0), 1.0)
