"""Bispectra against written-out sums and exact moments, and templates found from them."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose
from threadpoolctl import threadpool_limits

from gmmlib import bispectrum
from gmmlib.stationary import templates
from tests import oracles

SHAPES = [(4, 6), (5, 4), (3, 5), (1, 7), (6, 1), (4, 4)]


def noise(n, shape, seed=0):
    return np.random.default_rng(seed).standard_normal((n, *shape))


def written_out(image):
    """B(f, g) of one image from three loops over written-out transforms."""
    height, width = image.shape
    z = (oracles.fourier_matrix(image.shape) @ image.ravel()).reshape(height, width)
    B = np.empty((image.size, image.size), dtype=complex)
    for f in np.ndindex(height, width):
        for g in np.ndindex(height, width):
            h = (g[0] - f[0]) % height, (g[1] - f[1]) % width
            B[f[0] * width + f[1], g[0] * width + g[1]] = z[f] * z[g].conj() * z[h]
    return B


@pytest.mark.parametrize("shape", SHAPES)
def test_invariants_equal_the_written_out_sums(shape):
    x = noise(5, shape) + 0.5
    found = bispectrum.invariants(x)
    assert_allclose(found.mean, x.mean())
    assert_allclose(found.power, oracles.full_powers(x).mean(axis=0), atol=1e-12)
    assert_allclose(found.bispectrum, np.mean([written_out(image) for image in x], axis=0), atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_shifts_change_nothing(shape):
    x = noise(5, shape) + 0.5
    moved = templates.shifted(x, np.random.default_rng(1).integers(0, 9, (5, 2)))
    for a, b in zip(bispectrum.invariants(x), bispectrum.invariants(moved), strict=True):
        assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bias_of_noise_is_removed_exactly(shape):
    """Plus and minus each unit vector, scaled, has the first three moments of white noise."""
    image = noise(1, shape)[0] + 0.5
    variance, size = 0.7, image.size
    units = np.sqrt(variance * size) * np.eye(size).reshape(size, *shape)
    x = np.concatenate([image + units, image - units])
    clean, found = bispectrum.invariants(image[None]), bispectrum.invariants(x, variance)
    for a, b in zip(clean, found, strict=True):
        assert_allclose(a, b, atol=1e-11)
    biased = bispectrum.invariants(x)
    assert np.abs(biased.bispectrum - clean.bispectrum).max() > 0.1


def test_threads_change_no_digit(monkeypatch):
    monkeypatch.setattr(bispectrum, "ROWS", 7)
    x = noise(50, (4, 5))
    with threadpool_limits(1):
        one = bispectrum.invariants(x)
    with threadpool_limits(2):
        two = bispectrum.invariants(x)
    np.testing.assert_array_equal(one.bispectrum, two.bispectrum)


@pytest.mark.parametrize("shape", [*SHAPES, (8, 7), (9, 9)])
def test_a_template_is_found_from_its_invariants(shape):
    image = noise(1, shape, 3)[0] + 0.5
    found = bispectrum.recover(bispectrum.invariants(image[None]), 20, random_state=0)
    shift, correlation = templates.register(found[None], image)
    assert correlation > 0.9999
    assert_allclose(templates.shifted(found[None], shift)[0], image, atol=0.02)


def test_a_template_is_found_in_noise():
    image = noise(1, (7, 8), 5)[0]
    rng = np.random.default_rng(6)
    x = templates.shifted(np.repeat(image[None], 4000, axis=0), rng.integers(0, 56, (4000, 2)))
    x = x + rng.standard_normal(x.shape)
    found = bispectrum.recover(bispectrum.invariants(x, 1.0), 10, random_state=0)
    assert templates.register(found[None], image)[1] > 0.95


@pytest.mark.parametrize("shape", [(4, 5), (5, 4)])
def test_the_slope_is_that_of_finite_differences(shape):
    image, other, step = noise(3, shape)
    size = image.size
    B = bispectrum.invariants(image[None]).bispectrum
    apart = bispectrum._differences(shape)
    phase, direction = (np.angle(np.fft.fft2(x)).ravel() for x in (other, step))

    def along(t):
        return bispectrum.agreement(B, apart, np.exp(1j * (phase + t * direction)))

    value, wanted = along(0.0)
    numeric = (along(1e-6)[0] - along(-1e-6)[0]) / 2e-6
    # Each phase occurs in three places of every term, which are alike.
    analytic = 3 * (direction * (wanted.conj() * 1j * np.exp(1j * phase)).real).sum()
    assert abs(numeric) > 0.1
    assert_allclose(analytic, numeric, rtol=1e-5)
    terms = [
        (B[f, g].conj() * np.exp(1j * (phase[f] - phase[g] + phase[apart[f, g]]))).real
        for f in range(size)
        for g in range(size)
    ]
    assert_allclose(value, sum(terms))


MESSAGES = [
    (
        lambda: bispectrum.invariants(np.zeros((2, 40, 30))),
        "X must hold images of at most 1024 pixels, for a bispectrum has a row and a column a pixel; "
        "got 40 x 30. Shrink the images.",
    ),
    (
        lambda: bispectrum.invariants(np.zeros((2, 4, 3)), -1.0),
        "noise_variance must be a finite number >= 0; got -1.0.",
    ),
    (
        lambda: bispectrum.recover(bispectrum.invariants(np.ones((2, 4, 3))), 0),
        "n_starts must be a positive integer; got 0.",
    ),
]


@pytest.mark.parametrize(("call", "message"), MESSAGES)
def test_messages(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
