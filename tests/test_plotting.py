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


def test_a_sheets_last_columns_are_of_choice():
    rng = np.random.default_rng(0)
    patches, means = rng.random((3, 4, 8, 6)), rng.random((3, 8, 6))
    filters = isotropic((8, 6), 2.0)[None].repeat(3, axis=0)
    titles = ["4 images of highest posterior", "filter", "mean"]
    for chosen, expected in [
        ({}, titles[:1]),
        ({"means": means}, titles[::2]),
        ({"filters": filters}, titles[:2]),
    ]:
        figure = plotting.component_sheet(patches, **chosen)
        assert [axes.get_title() or axes.get_title("left") for axes in figure.axes] == expected
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["1", "2", "3"]
    with pytest.raises(ValueError, match="number of"):
        plotting.component_sheet(patches, labels=["too", "few"])
    both = plotting.component_sheet(patches, filters, means=means)
    assert both.axes[2].images[0].get_cmap().name == "gray"
    assert_allclose(both.axes[2].images[0].get_array()[18:], plotting.unit_range(means[2]))


def names(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_a_heat_map_draws_its_matrix_and_writes_its_numbers_where_they_can_be_read():
    matrix = [[0, 7, 2], [9, 1, 0]]
    figure = plotting.heat_map(matrix, "digit", "component", "count", xticks="abc", values="d")
    axes, bar = figure.axes
    assert_array_equal(axes.images[0].get_array(), matrix)
    assert axes.images[0].get_clim() == (0, 9)
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == ("digit", "component", "count")
    assert (names(axes.xaxis), names(axes.yaxis)) == (["a", "b", "c"], ["1", "2"])
    written = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    assert len(written) == 6
    assert written[0, 0] == ("0", "white")
    assert written[0, 1] == ("9", "black")


def test_a_heat_map_leaves_empty_what_is_not_finite():
    figure = plotting.heat_map([[0.0, -np.inf], [np.nan, -3.0]], "l", "k", "nats", values=".1f")
    axes = figure.axes[0]
    assert axes.images[0].get_clim() == (-3.0, 0.0)
    assert sorted(text.get_text() for text in axes.texts) == ["-3.0", "0.0"]
    assert axes.images[0].get_array().mask.tolist() == [[False, True], [True, False]]
    assert plotting.heat_map(np.eye(2), "l", "k", "", vmin=-1, vmax=2).axes[0].images[0].get_clim() == (-1, 2)


@pytest.mark.parametrize("shape", [(2, 2), (10, 10), (32, 10), (10, 32), (32, 32), (128, 10), (128, 128)])
def test_the_names_of_cells_never_touch_and_name_the_right_cell(shape):
    figure = plotting.heat_map(np.zeros(shape), "l", "k", "share")
    figure.canvas.draw()
    axes = figure.axes[0]
    for axis, count, ends in [(axes.xaxis, shape[1], "intervalx"), (axes.yaxis, shape[0], "intervaly")]:
        assert_array_equal(np.array(names(axis), dtype=int), axis.get_ticklocs() + 1)
        assert len(names(axis)) >= min(count, 5)
        boxes = [sorted(getattr(label.get_window_extent(), ends)) for label in axis.get_ticklabels()]
        boxes = np.array(sorted(boxes))
        assert (boxes[1:, 0] > boxes[:-1, 1]).all()


def test_long_names_leave_others_out_but_never_all_of_them():
    axes = plotting.heat_map(np.eye(2), "model", "k", "share", xticks=["a long name", "another name"]).axes[0]
    assert names(axes.xaxis) == ["another name"]
    axes = plotting.heat_map(np.eye(2), "model", "k", "share", xticks=["conv\n32", "full\n32"]).axes[0]
    assert names(axes.xaxis) == ["conv\n32", "full\n32"]


@pytest.mark.parametrize("shape", [(10, 10), (10, 32), (32, 32), (128, 128)])
def test_cells_are_nearly_square(shape):
    figure = plotting.heat_map(np.zeros(shape), "l", "k", "share")
    figure.canvas.draw()
    box = figure.axes[0].get_window_extent()
    assert 0.85 < box.width / shape[1] / (box.height / shape[0]) < 1.15


def test_heat_maps_share_one_scale():
    matrices = {"a": np.eye(3), "b": 2 * np.eye(3)}
    first, second, bar = plotting.heat_maps(matrices, "l", "k", "share", yticks="xyz").axes
    assert [axes.get_title("left") for axes in (first, second)] == ["a", "b"]
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0, 2)
    assert_array_equal(second.images[0].get_array(), 2 * np.eye(3))
    assert names(first.yaxis) == ["x", "y", "z"]
    assert bar.get_ylabel() == "share"


def test_grouped_bars_stand_beside_each_other_with_their_errors():
    series = {"NMI": [0.3, 0.6], "ARI": [0.1, -0.1], "purity": [0.4, 0.8]}
    errors = {"NMI": [0.01, 0.02], "ARI": [0.0, 0.1], "purity": [0.2, 0.0]}
    axes = plotting.grouped_bars(["first", "second"], series, "agreement", errors).axes[0]
    bars = [container for container in axes.containers if hasattr(container, "patches")]
    assert [[bar.get_height() for bar in group] for group in bars] == list(series.values())
    edges = np.sort([(bar.get_x(), bar.get_x() + bar.get_width()) for group in bars for bar in group], axis=0)
    assert (edges[1:, 0] > edges[:-1, 1] - 1e-12).all()
    assert_allclose(edges[[0, 2, 3, 5], [0, 1, 0, 1]], [-0.4, 0.4, 0.6, 1.4])
    for group, name in zip(bars, series, strict=True):
        (lines,) = group.errorbar[2]
        half = [np.ptp(segment[:, 1]) / 2 for segment in lines.get_segments()]
        assert_allclose(half, errors[name], atol=1e-12)
    assert (names(axes.xaxis), axes.get_ylabel()) == (["first", "second"], "agreement")


def test_grouped_bars_are_told_apart_in_grey_by_a_legend_outside_the_data():
    figure = plotting.grouped_bars(["a", "b"], {str(n): [n, 1.0] for n in range(5)}, "score")
    figure.canvas.draw()
    colours = [bar.get_facecolor()[:3] for bar in figure.axes[0].patches[::2]]
    assert (np.diff(colours @ np.array([0.299, 0.587, 0.114])) > 0.1).all()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list("01234")
    assert not legend.get_window_extent().overlaps(figure.axes[0].get_window_extent())
    assert not plotting.grouped_bars(["a"], {"alone": [1.0]}, "score").legends


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


def test_named_bars_run_downwards_and_say_their_length():
    axes = plotting.named_bars(["first", "second"], [3.0, 1.25], "%", errors=[0.5, 0], values=".1f").axes[0]
    assert [bar.get_width() for bar in axes.patches] == [3.0, 1.25]
    assert (names(axes.yaxis), axes.get_xlabel()) == (["first", "second"], "%")
    assert axes.yaxis.get_inverted()
    assert [text.get_text() for text in axes.texts] == ["3.0", "1.2"]
