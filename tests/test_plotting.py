"""Figures are looked at by people; these tests hold what a glance would miss."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gmmlib import plotting

mpl.use("agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def isotropic(shape, power):
    """A half-plane spectrum that depends on the distance from zero alone."""
    height, width = shape
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    radius[0, 0] = 0.5 * radius.ravel()[1:].min()
    return radius**power


def test_a_mosaic_puts_each_tile_where_its_row_and_column_say():
    tiles = np.arange(2 * 3).reshape(2, 3, 1, 1) * np.ones((1, 1, 4, 5)) / 10
    sheet = plotting.mosaic(tiles)
    assert sheet.shape == (2 * 4 + 1, 3 * 5 + 2)
    assert_array_equal(sheet[5:, 12:], 0.5)
    assert_array_equal(sheet[:4, 6:11], 0.1)
    assert_array_equal(sheet[4], 1.0)
    assert_array_equal(sheet[:, [5, 11]], 1.0)


def test_each_image_is_scaled_to_its_own_range():
    images = np.stack([np.array([[1.0, 3.0], [2.0, np.nan]]), np.full((2, 2), 7.0)])
    scaled = plotting.unit_range(images)
    assert_array_equal(scaled[0], [[0.0, 1.0], [0.5, 0.0]])
    assert_array_equal(scaled[1], 0.5)


@pytest.mark.parametrize("shape", [(16, 16), (9, 9), (8, 12)])
def test_a_power_law_has_a_straight_radial_profile(shape):
    centres, profiles = plotting.radial_profile(isotropic(shape, -2.0)[None], shape)
    slope = np.polyfit(np.log(centres), np.log(profiles[0]), 1)[0]
    assert len(centres) > 2
    assert (np.diff(centres) > 0).all()
    assert_allclose(slope, -2.0, atol=0.2)


def test_log_spectra_have_zero_in_the_middle_and_nothing_where_a_frequency_is_left_out():
    half = isotropic((6, 5), -2.0)
    half[0, 0] = 0.0
    plane = plotting.log_spectra(half[None], (6, 5))[0]
    assert plane.shape == (6, 5)
    assert np.argwhere(np.isnan(plane)).tolist() == [[3, 2]]
    assert_allclose(plane[1:, :], plane[1:, :][::-1, ::-1])


def test_a_sheet_has_a_label_a_row_and_brighter_filters_outside():
    rng = np.random.default_rng(0)
    filters = isotropic((8, 6), 2.0)[None].repeat(3, axis=0)
    figure = plotting.component_sheet(rng.random((3, 4, 8, 6)), filters, ["a", "b", "c"])
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["a", "b", "c"]
    assert left.images[0].get_array().shape == (3 * 8 + 2, 4 * 6 + 3)
    spectrum = right.images[0].get_array()[:8]
    assert spectrum[4, 3] < spectrum[0, 0]


def test_the_other_figures_draw_what_they_are_given():
    spectra = isotropic((8, 8), -2.0)[None].repeat(3, axis=0)
    grid = plotting.spectra_grid(spectra, (8, 8), ["a", "b", "c"], columns=2)
    assert sum(bool(axes.images) for axes in grid.axes[:4]) == 3
    lines = plotting.curves([1, 2, 4], {"x": [1, 2, 3], "y": [0, 1, 2]}, "n", "nats", xscale="log")
    assert [line.get_ydata().tolist() for line in lines.axes[0].lines] == [[1, 2, 3], [0, 1, 2]]
    assert len(plotting.bars([3.0, 1.0], "k", "%", 2.0, "mean").axes[0].patches) == 2
    rows = plotting.image_rows(np.zeros((2, 3, 4, 4)), ["a", "b"])
    assert rows.axes[0].images[0].get_array().shape == (9, 14)


def test_drawing_leaves_the_callers_settings_alone():
    before = dict(mpl.rcParams)
    plotting.bars([1.0], "k", "%")
    assert dict(mpl.rcParams) == before
