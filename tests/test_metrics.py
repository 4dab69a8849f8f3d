"""Overlaps against enumeration, dense covariances and laws that hold for any table or spectrum."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import null_space

from gmmlib import metrics
from tests import oracles

SHAPES = [(4, 6), (5, 4), (3, 5), (1, 7), (6, 1), (2, 2), (1, 2)]
TABLES = hnp.arrays(
    np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.integers(0, 9)
)
TABLES = TABLES.filter(lambda table: table.any())
LABELS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=30)


def halves(shape, n=3, seed=0):
    """Half-plane spectra of different shapes and contrasts."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n, 2, *shape)) * np.geomspace(0.3, 2.0, n)[:, None, None, None]
    return np.stack([oracles.full_powers(x).mean(axis=0) for x in noise])[:, :, : shape[1] // 2 + 1]


def covariances(spectra, shape):
    """Dense covariances (K, D, D) of half-plane spectra."""
    full = [oracles.full_from_half(half, shape[1]) for half in spectra]
    return np.stack([oracles.dense_covariance(oracles.autocovariance(plane)) for plane in full])


def posteriors(n=50, k=4, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(k, 0.3), size=n)


@given(LABELS)
def test_a_contingency_table_counts_pairs(pairs):
    labels, classes = zip(*pairs, strict=True)
    table = metrics.contingency(labels, classes, n_components=5, n_classes=4)
    expected = [[pairs.count((k, c)) for c in range(4)] for k in range(5)]
    assert table.dtype.kind == "i"
    assert_array_equal(table, expected)


def test_a_table_is_as_large_as_its_labels_unless_it_is_told_a_size():
    assert_array_equal(metrics.contingency([0, 2, 2], [1, 0, 0]), [[0, 1], [0, 0], [2, 0]])
    assert metrics.contingency([0], [0], n_classes=10).shape == (1, 10)


def test_small_integer_types_do_not_overflow():
    labels, classes = np.array([100, 100], dtype=np.int8), np.array([200, 3], dtype=np.uint8)
    table = metrics.contingency(labels, classes)
    assert table.shape == (101, 201)
    assert table[100, 200] == table[100, 3] == 1


def test_purity_by_hand():
    assert metrics.purity([[8, 2, 0], [1, 0, 1], [0, 0, 0]]) == 9 / 12
    assert metrics.purity(np.eye(3)) == 1.0


@given(TABLES)
def test_purity_counts_the_samples_that_their_components_class_names_right(table):
    right = 0
    for row in table:
        guess = row.argmax()
        right += sum(count for c, count in enumerate(row) if c == guess)
    assert metrics.purity(table) == pytest.approx(right / table.sum())
    assert table.sum(axis=0).max() / table.sum() <= metrics.purity(table) + 1e-12
    assert metrics.purity(table) <= 1


@given(TABLES, st.randoms(use_true_random=False))
def test_purity_knows_no_order_and_never_falls_when_a_component_is_split(table, random):
    rows, columns = list(range(len(table))), list(range(table.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    assert metrics.purity(table[rows][:, columns]) == metrics.purity(table)
    part = table[0] // 2
    split = np.vstack([part, table[0] - part, table[1:]])
    assert metrics.purity(split) >= metrics.purity(table)


def test_entropy_of_equal_shares_is_the_log_of_their_number():
    assert_allclose(metrics.entropy([3, 3, 3, 3]), np.log(4), rtol=1e-15)
    assert_allclose(metrics.entropy([0.5, 0.25, 0.25]), 1.5 * np.log(2), rtol=1e-15)
    assert_allclose(metrics.effective_number([5, 0, 5]), 2.0, rtol=1e-15)


def test_one_share_and_no_share_have_no_entropy_and_no_negative_zero():
    nothing = metrics.entropy([[0, 7], [0, 0]])
    assert_array_equal(nothing, [0.0, 0.0])
    assert not np.signbit(nothing).any()
    assert not np.signbit(metrics.entropy([7]))
    assert_array_equal(metrics.effective_number([[0, 7], [0, 0]]), [1.0, 1.0])


@given(TABLES)
def test_entropy_obeys_the_chain_rule(table):
    """The entropy of a pair is that of the component, and on average that of the class within it."""
    within = table.sum(axis=1) / table.sum() @ metrics.entropy(table, axis=1)
    assert_allclose(metrics.entropy(table.ravel()), metrics.entropy(table.sum(axis=1)) + within, atol=1e-12)
    assert_allclose(metrics.entropy(table, axis=0), metrics.entropy(table.T, axis=1), atol=1e-12)
    assert (metrics.entropy(table, axis=0) <= np.log(len(table)) + 1e-12).all()
    assert_allclose(metrics.entropy(3.5 * table), metrics.entropy(table), atol=1e-12)


def test_confusion_is_the_mean_posterior_of_what_a_component_holds():
    r = posteriors()
    expected = np.zeros((4, 4))
    for k in range(4):
        for row in r:
            expected[k] += row[k] * row
        expected[k] /= sum(row[k] for row in r)
    assert_allclose(metrics.confusion(r), expected, rtol=1e-12)
    assert_allclose(metrics.confusion(r).sum(axis=1), 1.0, rtol=1e-12)


def test_confusion_follows_a_relabelling_and_is_balanced_in_mass():
    r, order = posteriors(), [2, 0, 3, 1]
    confusion = metrics.confusion(r)
    assert_allclose(metrics.confusion(r[:, order]), confusion[order][:, order], rtol=1e-12)
    flow = r.sum(axis=0)[:, None] * confusion
    assert_allclose(flow, flow.T, rtol=1e-12)


def test_mean_confusion_weighs_the_diagonal_by_mass():
    r = posteriors()
    diagonal = metrics.confusion(r).diagonal()
    assert metrics.mean_confusion(r) == pytest.approx(1 - r.sum(axis=0) @ diagonal / len(r))
    assert 0 < metrics.mean_confusion(r) < 1


def test_certain_posteriors_confuse_nothing_and_equal_ones_everything():
    certain = np.eye(3)[[0, 1, 1, 2]]
    assert_array_equal(metrics.confusion(certain), np.eye(3))
    assert metrics.mean_confusion(certain) == 0.0
    assert_allclose(metrics.confusion(np.full((5, 4), 0.25)), 0.25)
    assert metrics.mean_confusion(np.full((5, 4), 0.25)) == 0.75


def test_tiny_confusions_are_not_rounded_away():
    r = np.array([[1.0, 1e-30], [1.0, 0.0]])
    assert_allclose(metrics.mean_confusion(r), 1e-30 / 2, rtol=1e-12)


def test_a_component_that_holds_nothing_has_a_row_of_nan_and_counts_nowhere():
    r = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], dtype=np.float32)
    confusion = metrics.confusion(r)
    assert np.isnan(confusion).tolist() == [[False] * 3, [False] * 3, [True] * 3]
    assert metrics.mean_off_diagonal(confusion) == pytest.approx((1 / 6 + 0 + 0.5 + 0) / 4)
    assert metrics.mean_confusion(r) == pytest.approx(0.25)


@pytest.mark.parametrize("shape", SHAPES)
def test_spectral_overlap_is_that_of_the_roots_of_dense_covariances(shape):
    spectra = halves(shape)
    roots = [oracles.covariance_root(c / np.trace(c)) for c in covariances(spectra, shape)]
    expected = [[np.trace(a @ b) for b in roots] for a in roots]
    assert_allclose(metrics.spectral_overlap(spectra, shape), expected, rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_density_overlap_is_that_of_dense_gaussians(shape):
    spectra = halves(shape)
    dense = covariances(spectra, shape)
    expected = [[oracles.bhattacharyya(a, b) for b in dense] for a in dense]
    assert_allclose(metrics.density_overlap(spectra, shape), expected, rtol=1e-9, atol=1e-11)
    assert metrics.density_overlap(spectra, shape)[0, 1] < -0.01


@pytest.mark.parametrize("shape", [(4, 6), (5, 3)])
def test_a_frequency_that_is_left_out_is_left_out_of_the_dense_gaussians_too(shape):
    spectra = halves(shape)
    spectra[:, 0, 0] = 0.0
    basis = null_space(np.ones((1, shape[0] * shape[1])))
    dense = [basis.T @ c @ basis for c in covariances(spectra, shape)]
    expected = [[oracles.bhattacharyya(a, b) for b in dense] for a in dense]
    assert_allclose(metrics.density_overlap(spectra, shape), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
def test_bandwidth_is_the_entropy_of_a_dense_covariances_eigenvalues(shape):
    spectra = halves(shape)
    values = np.linalg.eigvalsh(covariances(spectra, shape))
    p = values / values.sum(axis=1, keepdims=True)
    expected = np.exp(-(p * np.log(p)).sum(axis=1)) / (shape[0] * shape[1])
    assert_allclose(metrics.bandwidth(spectra, shape), expected, rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_contrast_moves_the_densities_apart_but_neither_shape_nor_bandwidth(shape):
    contrast, pixels = 9.0, shape[0] * shape[1]
    spectra = halves(shape, 1) * np.array([1.0, contrast])[:, None, None]
    assert_allclose(metrics.spectral_overlap(spectra, shape), 1.0, rtol=1e-12)
    assert np.ptp(metrics.bandwidth(spectra, shape)) < 1e-12
    apart = pixels / 2 * np.log(2 * np.sqrt(contrast) / (1 + contrast))
    assert_allclose(metrics.density_overlap(spectra, shape), [[0, apart], [apart, 0]], rtol=1e-12, atol=1e-12)


OVERLAPS = [metrics.spectral_overlap, metrics.density_overlap]


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_overlaps_are_symmetric_bounded_and_follow_a_relabelling(overlap, shape):
    spectra, order = halves(shape, 5), [3, 1, 4, 0, 2]
    matrix = overlap(spectra, shape)
    top = overlap(spectra[:1].repeat(2, axis=0), shape)[0, 1]
    assert_allclose(top, 1.0 if overlap is metrics.spectral_overlap else 0.0, rtol=1e-14)
    assert (matrix <= top + 1e-14).all()
    assert_allclose(matrix, matrix.T, rtol=1e-12)
    assert_allclose(overlap(spectra[order], shape), matrix[order][:, order], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_common_filter_changes_no_overlap_of_densities(shape):
    spectra = halves(shape)
    filtered = metrics.density_overlap(spectra * halves(shape, 1, seed=1), shape)
    assert_allclose(filtered, metrics.density_overlap(spectra, shape), rtol=1e-9, atol=1e-12)


def test_disjoint_bands_share_nothing():
    spectra = np.zeros((2, 4, 3))
    spectra[0, 1, 1] = spectra[1, 0, 2] = 1.0
    assert_array_equal(metrics.spectral_overlap(spectra, (4, 4)), np.eye(2))
    assert_array_equal(metrics.density_overlap(spectra, (4, 4)), [[0.0, -np.inf], [-np.inf, 0.0]])


@pytest.mark.parametrize(("shape", "frequencies"), [((4, 6), 24), ((3, 5), 15)])
def test_bandwidth_is_the_share_of_the_frequencies_that_a_band_covers(shape, frequencies):
    white, wave, dot = np.zeros((3, shape[0], shape[1] // 2 + 1))
    white[:] = 7.0
    wave[1, 1] = 0.2  # stands for itself and its mirror image
    dot[0, 0] = 3.0
    expected = [1.0, 2 / frequencies, 1 / frequencies]
    assert_allclose(metrics.bandwidth([white, wave, dot], shape), expected, rtol=1e-12)


def test_white_noise_without_mean_has_the_whole_bandwidth():
    white = np.ones((2, 4, 3))
    white[:, 0, 0] = 0.0
    assert_allclose(metrics.bandwidth(white, (4, 4)), 1.0, rtol=1e-14)


def test_the_mean_beside_the_diagonal():
    assert metrics.mean_off_diagonal([[9, 1, 2], [3, 9, 4], [5, 6, 9]]) == 21 / 6
    assert metrics.mean_off_diagonal([[np.nan, 1], [np.nan, 0]]) == 1.0


MESSAGES = [
    (
        metrics.contingency,
        ([0, 1, 2], [0, 1]),
        "labels and classes must hold one entry a sample; got 3 labels and 2 classes. "
        "Pass both for the same samples.",
    ),
    (
        metrics.contingency,
        ([0, 3, 1], [0, 1, 1], 3),
        "labels must be below n_components=3; got 3 at index 1. "
        "Pass a larger n_components, or None to take it from the labels.",
    ),
    (
        metrics.contingency,
        ([0, 1], [0, -1]),
        "classes must count from 0; got -1 at index 1. Leave out samples that have no label.",
    ),
    (
        metrics.contingency,
        ([0.0, 1.0], [0, 1]),
        "labels must be a vector of integers, one a sample; got shape (2,) of dtype float64. "
        "Posteriors (N, K) become labels by argmax(axis=1).",
    ),
    (
        metrics.contingency,
        ([], []),
        "labels must be a vector of integers, one a sample; got shape (0,) of dtype float64. "
        "Posteriors (N, K) become labels by argmax(axis=1).",
    ),
    (
        metrics.contingency,
        ([0], [0], 1, 0),
        "n_classes must be a positive integer; got 0.",
    ),
    (
        metrics.purity,
        ([[0, 0], [0, 0]],),
        "table must have shape (K, C) and count at least one sample; got shape (2, 2) and a total of 0. "
        "Make it with contingency(labels, classes).",
    ),
    (
        metrics.purity,
        ([3, 1],),
        "table must have shape (K, C) and count at least one sample; got shape (2,) and a total of 4. "
        "Make it with contingency(labels, classes).",
    ),
    (
        metrics.entropy,
        ([[1.0, 2.0], [0.5, -2.5]],),
        "shares must not be negative; got -2.5 at index (1, 1). "
        "Pass the values themselves, not their logarithms.",
    ),
    (
        metrics.entropy,
        (0.5,),
        "shares must be an array of real numbers; got shape () of dtype float64.",
    ),
    (
        metrics.effective_number,
        ([1.0, np.nan],),
        "shares must be finite; got 1 value that is NaN or infinite, the first at index (1,). "
        "Remove or replace them first.",
    ),
    (
        metrics.confusion,
        ([[0.5, 0.5], [0.9, 0.3]],),
        "posteriors must sum to 1 in every row; got 1.2 in row 1. Pass what predict_proba returns.",
    ),
    (
        metrics.mean_confusion,
        ([0.5, 0.5],),
        "posteriors must have a row a sample, shape (N, K); got shape (2,).",
    ),
    (
        metrics.spectral_overlap,
        (np.ones((2, 4, 4)), (4, 5)),
        "spectra must hold half-plane spectra of 4 x 5 pixels, shape (K, 4, 3); got shape (2, 4, 4). "
        "One spectrum is spectrum[None].",
    ),
    (
        metrics.bandwidth,
        (np.ones((4, 3)), (4, 5)),
        "spectra must hold half-plane spectra of 4 x 5 pixels, shape (K, 4, 3); got shape (4, 3). "
        "One spectrum is spectrum[None].",
    ),
    (
        metrics.density_overlap,
        (np.array([1.0, 0.0])[:, None, None] * np.ones((4, 3)), (4, 5)),
        "spectra must have power at some frequency; got none in the spectrum at index 1. "
        "Leave that component out.",
    ),
    (
        metrics.mean_off_diagonal,
        (np.ones((2, 3)),),
        "matrix must be square with at least two rows; got shape (2, 3). "
        "One component has no other to be compared with.",
    ),
]


@pytest.mark.parametrize(("function", "arguments", "text"), MESSAGES)
def test_the_message(function, arguments, text):
    with pytest.raises(ValueError) as caught:
        function(*arguments)
    assert str(caught.value) == text


def information_of(labels, classes):
    """Mutual information of two labellings in nats, written out."""
    total = 0.0
    for a in set(labels):
        for b in set(classes):
            joint = np.mean((np.array(labels) == a) & (np.array(classes) == b))
            if joint:
                total += joint * np.log(joint / np.mean(labels == a) / np.mean(np.array(classes) == b))
    return total


def test_agreement_gathers_the_four_measures():
    labels, classes = np.array([0, 0, 1, 1, 1, 3]), np.array([2, 2, 0, 0, 1, 1])
    found = metrics.agreement(labels, classes)
    # By hand: joint shares 1/3, 1/3, 1/6, 1/6; components 1/3, 1/2, 1/6; classes a third each.
    joint = np.array([1 / 3, 1 / 3, 1 / 6, 1 / 6])
    outer = np.array([1 / 9, 1 / 6, 1 / 6, 1 / 18])
    information = (joint * np.log(joint / outer)).sum()
    components = -sum(p * np.log(p) for p in (1 / 3, 1 / 2, 1 / 6))
    assert_allclose(found.purity, 5 / 6)
    assert_allclose(found.nmi, 2 * information / (components + np.log(3)))
    # By chance: the mean over all orders of the classes.
    chances = [information_of(labels, order) for order in permutations(classes)]
    entropies = (components + np.log(3)) / 2
    assert_allclose(found.ami, (information - np.mean(chances)) / (entropies - np.mean(chances)))
    # Pairs: 1 + 1 agree inside cells, of 1 + 3 in components and 3 in classes, of 15.
    assert_allclose(found.ari, (2 - 4 * 3 / 15) / ((4 + 3) / 2 - 4 * 3 / 15))


def test_effective_numbers_are_taken_along_the_axis_that_is_asked_for():
    table = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    assert_allclose(metrics.effective_number(table, axis=1), [1, 2])
    assert_allclose(metrics.effective_number(table.T, axis=0), [1, 2])
