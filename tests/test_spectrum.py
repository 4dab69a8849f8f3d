"""The Fourier convention against the written-out transform."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gmmlib import spectrum
from tests import oracles

SHAPES = [(4, 6), (5, 4), (3, 5), (1, 7), (6, 1), (2, 2), (1, 2), (1, 1), (6, 3)]


def noise(shape, n=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, *shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_written_out_transform_is_unitary_and_the_real_basis_orthonormal(shape):
    matrix = oracles.fourier_matrix(shape)
    basis, _ = oracles.real_basis(shape)
    assert_allclose(matrix @ matrix.conj().T, np.eye(len(matrix)), atol=1e-12)
    assert_allclose(basis @ basis.T, np.eye(len(matrix)), atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_real_basis_diagonalises_a_stationary_covariance(shape):
    full = oracles.full_powers(noise(shape)).mean(axis=0)
    basis, frequency = oracles.real_basis(shape)
    covariance = oracles.dense_covariance(oracles.autocovariance(full))
    assert_allclose(basis @ covariance @ basis.T, np.diag(full.ravel()[frequency]), atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_multiplicity_counts_the_mirror_pairs(shape):
    height, width = shape
    expected = np.zeros((height, width // 2 + 1))
    for w in range(width):
        expected[:, min(w, width - w)] += 1
    assert_array_equal(spectrum.multiplicity(shape), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("zero_frequency", [True, False])
def test_the_fold_holds_each_distinct_power_once(shape, zero_frequency):
    layout = spectrum.fold(shape, zero_frequency)
    mirror = oracles.mirror(shape)
    pairs = {(min(f, m), max(f, m)) for f, m in enumerate(mirror)}
    if not zero_frequency:
        pairs.remove((0, 0))
    sizes = sorted(1 if a == b else 2 for a, b in pairs)
    assert len(layout.bins) == len(pairs)
    assert sorted(layout.multiplicity) == sizes
    assert layout.dimension == sum(sizes)
    assert layout.shape == shape


@pytest.mark.parametrize(("side", "count"), [(8, 34), (16, 130), (28, 394)])
def test_the_fold_is_as_small_as_documented(side, count):
    assert len(spectrum.fold((side, side)).bins) == count


@pytest.mark.parametrize("shape", SHAPES)
def test_powers_equal_those_of_the_written_out_transform(shape):
    x = noise(shape)
    layout = spectrum.fold(shape)
    half = oracles.full_powers(x)[:, :, : shape[1] // 2 + 1]
    folded = spectrum.powers(x, layout)
    assert folded.shape == (len(x), len(layout.bins))
    assert_allclose(spectrum.unfold(folded, layout), half, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_powers_with_their_multiplicities_hold_the_energy_of_the_pixels(shape):
    x = noise(shape)
    layout = spectrum.fold(shape)
    assert_allclose(spectrum.powers(x, layout) @ layout.multiplicity, (x**2).sum(axis=(1, 2)), rtol=1e-12)


def test_unfold_fills_the_frequency_that_was_left_out_and_no_other():
    layout = spectrum.fold((3, 4), zero_frequency=False)
    values = 1.0 + np.arange(2 * len(layout.bins)).reshape(2, -1)
    half = spectrum.unfold(values, layout, left_out=-7.0)
    assert half.shape == (2, 3, 3)
    assert_array_equal(half[:, 0, 0], [-7.0, -7.0])
    assert (half == -7.0).sum() == 2
    assert_array_equal(half.reshape(2, -1)[:, layout.bins], values)
    assert_array_equal(spectrum.unfold(values[0], layout)[0, 0], 0.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_autocovariance_sums_the_cosines_of_the_spectrum_and_back(shape):
    full = oracles.full_powers(noise(shape)).mean(axis=0)
    half = full[:, : shape[1] // 2 + 1]
    covariance = spectrum.autocovariance(half, shape)
    assert_allclose(covariance, oracles.autocovariance(full), rtol=1e-10, atol=1e-13)
    assert_allclose(spectrum.from_autocovariance(covariance), half, rtol=1e-10, atol=1e-12)
    stack = spectrum.autocovariance(np.stack([half, 2 * half]), shape)
    assert_allclose(stack, [covariance, 2 * covariance], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_full_plane_puts_the_zero_frequency_in_the_middle(shape):
    full = oracles.full_powers(noise(shape))
    half = full[:, :, : shape[1] // 2 + 1]
    plane = spectrum.full_plane(half, shape)
    expected = np.roll(full, (shape[0] // 2, shape[1] // 2), axis=(1, 2))
    assert_allclose(plane, expected, rtol=1e-10, atol=1e-13)
    assert_array_equal(plane[:, shape[0] // 2, shape[1] // 2], half[:, 0, 0])


def test_frequencies_are_cycles_per_pixel():
    expected = [
        [0, 0.25, 0.5],
        [1 / 3, np.hypot(1 / 3, 0.25), np.hypot(1 / 3, 0.5)],
        [1 / 3, np.hypot(1 / 3, 0.25), np.hypot(1 / 3, 0.5)],
    ]
    assert_allclose(spectrum.frequencies((3, 4)), expected, rtol=1e-14)
