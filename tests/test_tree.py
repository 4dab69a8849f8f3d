"""Trees of mixtures against the flat mixture of all their states, written out one by one."""

from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import block_diag
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from threadpoolctl import threadpool_limits

from gmmlib import ConvolutionalGMM, FullGMM, TransformedGMM, TreeGMM, storage
from gmmlib.compose import grid, messages, shifts
from gmmlib.compose.tree import SHARING
from tests import oracles

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# Image shape, levels, and how tables are shared.
TREES = [
    ((4, 3), [(2, 1, 3)], "none"),
    ((2, 6), [(1, 3, 2), (2, 1, 3)], "none"),
    ((2, 6), [(1, 3, 2), (2, 1, 3)], "cells"),
    ((4, 4), [(2, 2, 3)], "everywhere"),
    ((3, 4), [(1, 2, 2), (1, 1, 3), (1, 2, 2)], "cells"),
    ((3, 2), [], "none"),
]


def images(shape, n=60, seed=0):
    """Images whose halves have unlike contrast and level."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(3, size=(n, 1, 1))
    level = rng.standard_normal((3, *shape))[kind[:, 0, 0]]
    return rng.standard_normal((n, *shape)) * (0.5 + kind) + 2 * level


def small_leaf(kind, n_components=2, **settings):
    settings = {"max_iter": 2, "tol": 0, "random_state": 0} | settings
    if kind == "full":
        return FullGMM(n_components, **{"reg_covar": 0.05} | settings)
    return ConvolutionalGMM(n_components, **settings)


def fitted(tree, kind="full", n_components=2, **settings):
    shape, levels, sharing = tree
    settings = {"max_iter": 2, "tol": 0, "random_state": 0, "share_tables": sharing} | settings
    return TreeGMM(small_leaf(kind, n_components), levels, **settings).fit(images(shape))


class Flat:
    """The mixture of all states of all cells, which lie where they are seen.

    A state of the whole tree is a mapping of (level, row, column) to the state of that cell.
    """

    def __init__(self, model):
        levels, sharing = grid.checked_levels(model.levels), model.share_tables
        self.levels, self.sharing, self.model = levels, sharing, model
        grids = [(1, 1)]
        for rows, columns, _ in levels[::-1]:
            grids.insert(0, (grids[0][0] * rows, grids[0][1] * columns))
        self.grids = grids
        self.cells = [
            (level, row, column)
            for level, (rows, columns) in enumerate(grids)
            for row in range(rows)
            for column in range(columns)
        ]
        counts = [len(model.leaf_.weights_), *(level[2] for level in levels)]
        self.states = np.array(list(product(*(range(counts[cell[0]]) for cell in self.cells))))
        self.place = {cell: number for number, cell in enumerate(self.cells)}
        self.weights = self.prior()
        height, width = model.image_shape_
        self.patch = height // grids[0][0], width // grids[0][1]

    def column(self, cell):
        return self.states[:, self.place[cell]]

    def parent(self, cell):
        level, row, column = cell
        rows, columns, _ = self.levels[level]
        return level + 1, row // rows, column // columns

    def within(self, cell):
        level, row, column = cell
        rows, columns, _ = self.levels[level]
        return row % rows * columns + column % columns

    def number(self, cell):
        """The place of a cell in nested order."""
        if cell[0] == len(self.levels):
            return 0
        rows, columns, _ = self.levels[cell[0]]
        return self.number(self.parent(cell)) * rows * columns + self.within(cell)

    def table(self, cell):
        tables = self.model.tables_[cell[0]]
        return tables[
            {"none": self.number, "cells": self.within, "everywhere": lambda _: 0}[self.sharing](cell)
        ]

    def prior(self):
        weights = self.model.weights_[self.column(self.cells[-1])]
        for cell in self.cells[:-1]:
            weights = weights * self.table(cell)[self.column(self.parent(cell)), self.column(cell)]
        return weights

    def gaussians(self):
        """Means (S, D) and covariances (S, D, D) of whole images, pixel by pixel in rows."""
        leaf, (height, width) = self.model.leaf_, self.model.image_shape_
        side, other = self.patch
        if isinstance(leaf, FullGMM):
            means, covariances = leaf.means_, leaf.covariances_
        else:
            means = np.zeros((len(leaf.weights_), side * other))
            full = [oracles.autocovariance(full_plane(spectrum, self.patch)) for spectrum in leaf.spectra_]
            covariances = np.stack([oracles.dense_covariance(c) for c in full])
        pixels = []
        lowest = [cell for cell in self.cells if cell[0] == 0]
        for _, row, column in lowest:
            inside = np.arange(height * width).reshape(height, width)
            pixels.append(
                inside[row * side : (row + 1) * side, column * other : (column + 1) * other].ravel()
            )
        order = np.argsort(np.concatenate(pixels))
        states = np.stack([self.column(cell) for cell in lowest], axis=1)
        whole = np.stack([means[s].ravel()[order] for s in states])
        blocks = np.stack([block_diag(*covariances[s])[np.ix_(order, order)] for s in states])
        return whole, blocks

    def log_joint(self, X):
        """Of images and states of the whole tree, (N, S)."""
        rows = X.reshape(len(X), -1)
        densities = [multivariate_normal(m, c).logpdf(rows) for m, c in zip(*self.gaussians(), strict=True)]
        return np.log(self.weights) + np.stack(densities, axis=1)

    def marginal(self, share, cell, count):
        """Sums (N, count) of shares (N, S) over all states but those of a cell."""
        return np.stack([share[:, self.column(cell) == k].sum(axis=1) for k in range(count)], axis=1)


def full_plane(half, shape):
    """A spectrum at all frequencies, from a half plane: f and -f are alike."""
    height, width = shape
    plane = np.empty(shape)
    for row, column in np.ndindex(*shape):
        there = (row, column) if column <= width // 2 else (-row % height, width - column)
        plane[row, column] = half[there]
    return plane


CASES = [(tree, kind) for tree in TREES for kind in ("full", "convolutional")]


# ------------------------------------------------------------------------------ inference


@pytest.mark.parametrize(("tree", "kind"), CASES)
def test_likelihoods_and_posteriors_are_those_of_the_flat_mixture(tree, kind):
    model = fitted(tree, kind)
    X, flat = images(tree[0], 7, seed=5), Flat(model)
    joint = flat.log_joint(X)
    assert_allclose(model.score_samples(X), logsumexp(joint, axis=1), rtol=1e-11)
    share = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    of_levels = model.cell_posteriors(X)
    assert [values.shape[1:3] for values in of_levels] == flat.grids
    for level, row, column in flat.cells:
        values = of_levels[level][:, row, column]
        expected = flat.marginal(share, (level, row, column), values.shape[1])
        assert_allclose(values, expected, rtol=1e-9, atol=1e-13)
    assert_allclose(model.predict_proba(X), of_levels[-1][:, 0, 0], rtol=1e-9, atol=1e-13)
    root = flat.marginal(np.exp(joint), flat.cells[-1], len(model.weights_))
    assert_allclose(model.log_joint(X), np.log(root), rtol=1e-10)


@pytest.mark.parametrize(("tree", "kind"), CASES[:8])
def test_posteriors_from_below_see_the_pixels_of_the_cell_alone(tree, kind):
    model = fitted(tree, kind, allow_missing=True)
    X, flat = images(tree[0], 4, seed=6), Flat(model)
    own = model.cell_posteriors(X, refined=False)
    for level, row, column in flat.cells:
        rows, columns = flat.grids[level]
        height, width = tree[0][0] // rows, tree[0][1] // columns
        alone = np.full(X.shape, np.nan)
        inside = np.s_[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
        alone[inside] = X[inside]
        expected = model.cell_posteriors(alone)[level][:, row, column]
        assert_allclose(own[level][:, row, column], expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("tree", "kind"), CASES)
def test_the_most_probable_explanation_is_the_best_of_all_states(tree, kind):
    model = fitted(tree, kind)
    X, flat = images(tree[0], 9, seed=7), Flat(model)
    joint = flat.log_joint(X)
    states, moved, highest = model.most_probable_explanation(X)
    assert not moved.any()
    assert_allclose(highest, joint.max(axis=1), rtol=1e-11)
    best = joint.argmax(axis=1)
    for level, row, column in flat.cells:
        assert_array_equal(states[level][:, row, column], flat.column((level, row, column))[best])


def test_of_equal_states_the_lowest_explain():
    model = fitted(TREES[1])
    model.weights_ = np.full(3, 1 / 3)
    model.tables_ = [np.full_like(table, 1 / table.shape[2]) for table in model.tables_]
    states, _, _ = model.most_probable_explanation(images((2, 6), 5))
    assert not states[1].any()
    assert not states[2].any()


# ------------------------------------------------------------------------------ EM


@pytest.mark.parametrize(("tree", "kind"), CASES)
def test_an_iteration_of_em_is_that_of_the_flat_mixture(tree, kind):
    model = fitted(tree, kind)
    X, flat = images(tree[0], 50, seed=8), Flat(model)
    weight = np.random.default_rng(0).uniform(0.5, 2, len(X))
    statistics = model.statistics(X, sample_weight=weight)
    joint = flat.log_joint(X)
    evidence = logsumexp(joint, axis=1)
    share = np.exp(joint - evidence[:, None]) * weight[:, None]
    assert_allclose(statistics.log_likelihood, weight @ evidence, rtol=1e-11)
    expected = [np.zeros_like(table) for table in model.tables_]
    for cell in flat.cells[:-1]:
        counts = expected[cell[0]]
        which = {"none": flat.number, "cells": flat.within, "everywhere": lambda _: 0}[tree[2]](cell)
        np.add.at(counts[which], (flat.column(flat.parent(cell)), flat.column(cell)), share.sum(axis=0))
    assert_allclose(statistics.counts, np.concatenate([[], *map(np.ravel, expected)]), rtol=1e-8, atol=1e-12)
    old = model.leaf_
    model.m_step(statistics)
    assert model.leaf_ is not old
    assert_allclose(
        model.weights_, flat.marginal(share, flat.cells[-1], len(model.weights_)).sum(0) / weight.sum()
    )
    for table, counts in zip(model.tables_, expected, strict=True):
        assert_allclose(table, counts / counts.sum(axis=2, keepdims=True), rtol=1e-8, atol=1e-12)
    patches, shares = [], []
    side, other = flat.patch
    for _, row, column in [cell for cell in flat.cells if cell[0] == 0]:
        patches.append(X[:, row * side : (row + 1) * side, column * other : (column + 1) * other])
        shares.append(flat.marginal(share, (0, row, column), len(old.weights_)))
    patches, shares = np.concatenate(patches), np.concatenate(shares)
    if kind == "full":
        rows = patches.reshape(len(patches), -1)
        _, means, covariances = oracles.gaussian_m_step(rows, shares, 0.05)
        assert_allclose(model.leaf_.means_, means, rtol=1e-7, atol=1e-9)
        assert_allclose(model.leaf_.covariances_, covariances, rtol=1e-7, atol=1e-9)
    else:
        powers = np.abs(np.fft.fft2(patches, norm="ortho")) ** 2
        spectra = np.einsum("nk,nhw->khw", shares, powers) / shares.sum(axis=0)[:, None, None]
        assert_allclose(model.leaf_.spectra_, spectra[..., : other // 2 + 1], rtol=1e-7)


@pytest.mark.parametrize("kind", ["full", "convolutional"])
@pytest.mark.parametrize("init", ["kmeans", "random_from_data"])
@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("fit_leaves", [True, False])
def test_every_step_climbs(kind, init, sharing, fit_leaves):
    X = images((6, 10), 150, seed=3)
    weight = np.arange(150) % 4
    leaf = small_leaf(kind, 3, **({"reg_covar": 1e-9} if kind == "full" else {}))
    model = TreeGMM(
        leaf, [(3, 1, 4), (1, 2, 3)], share_tables=sharing, init=init, fit_leaves=fit_leaves, random_state=1
    )
    model.set_params(max_iter=12, tol=0).fit(X, sample_weight=weight)
    gains = np.diff(model.log_likelihoods_)
    assert gains.min() > -1e-10
    assert gains[0] > 1e-3
    assert_allclose(model.log_likelihoods_[-1], weight @ model.score_samples(X) / weight.sum(), rtol=1e-11)


@pytest.mark.parametrize("fit_leaves", [True, False])
def test_held_leaves_stay_and_others_move(fit_leaves):
    model = fitted(TREES[1], fit_leaves=fit_leaves, max_iter=1)
    alone = small_leaf("full").fit(
        grid.of_images((2, 6), ((1, 3), (2, 1))).split(images((2, 6))).reshape(-1, 2)
    )
    assert np.array_equal(model.leaf_.means_, alone.means_) is not fit_leaves


def test_a_frozen_leaf_is_held_and_left_as_it_is():
    X = images((4, 3))
    leaf = small_leaf("convolutional").fit(grid.of_images((4, 3), ((2, 1, 3),)).split(X).reshape(-1, 2, 3))
    before = leaf.spectra_.copy()
    model = TreeGMM(FrozenEstimator(leaf), [(2, 1, 3)], max_iter=3, tol=0, random_state=0).fit(X)
    assert_array_equal(model.leaf_.spectra_, before)
    moved = TreeGMM(
        small_leaf("convolutional"), [(2, 1, 3)], init={"leaf": leaf}, max_iter=3, tol=0, random_state=0
    )
    assert (moved.fit(X).leaf_.spectra_ != before).any()
    assert_array_equal(leaf.spectra_, before)
    assert_array_equal(moved.log_likelihoods_[0], model.log_likelihoods_[0])


def test_it_goes_on_from_what_it_has_learned():
    X = images((2, 6))
    model = fitted(TREES[1])
    longer = clone(model).set_params(max_iter=5).fit(X)
    again = clone(model).set_params(max_iter=3, init=model.learned()).fit(X)
    assert_allclose(again.log_likelihoods_, longer.log_likelihoods_[2:], rtol=1e-11)
    assert_allclose(again.tables_[0], longer.tables_[0], rtol=1e-8)


# ------------------------------------------------------------------------------ special cases


@pytest.mark.parametrize("kind", ["full", "convolutional"])
def test_without_levels_it_is_the_mixture(kind):
    X = images((3, 5), 200)
    leaf = small_leaf(kind, 3, max_iter=2)
    model = TreeGMM(leaf, [], max_iter=6, tol=0, random_state=0).fit(X)
    rows = X.reshape(len(X), -1) if kind == "full" else X
    flat = clone(leaf).set_params(max_iter=8).fit(rows)
    assert_allclose(model.log_likelihoods_, flat.log_likelihoods_[2:], rtol=1e-11)
    assert_allclose(model.score_samples(X), flat.score_samples(rows), rtol=1e-11)
    assert_allclose(model.predict_proba(X), flat.predict_proba(rows), rtol=1e-8, atol=1e-12)
    assert_allclose(model.weights_, flat.weights_, rtol=1e-9)
    assert model.n_parameters() == flat.n_parameters()


@pytest.mark.parametrize("kind", ["full", "convolutional"])
def test_a_root_of_one_state_takes_positions_as_independent(kind):
    model = fitted(((4, 6), [(2, 3, 1)], "everywhere"), kind, n_components=3, max_iter=1)
    model.tables_ = [model.leaf_.weights_[None, None]]
    X = images((4, 6), 20, seed=2)
    bag = 0
    for row, column in product((0, 2), (0, 2, 4)):
        patch = X[:, row : row + 2, column : column + 2]
        bag = bag + model.leaf_.score_samples(patch.reshape(20, -1) if kind == "full" else patch)
    assert_allclose(model.score_samples(X), bag, rtol=1e-11)


def test_parameters_are_counted():
    shape, levels = (2, 6), [(1, 3, 2), (2, 1, 3)]
    leaf = 2 * 2 + 2 * 3  # means and covariances of patches of 1 x 2 pixels
    counts = {"none": 6 * 2 * 1 + 2 * 3 * 1, "cells": 3 * 2 * 1 + 2 * 3 * 1, "everywhere": 2 * 1 + 3 * 1}
    for sharing, tables in counts.items():
        assert fitted((shape, levels, sharing)).n_parameters() == 2 + tables + leaf


def test_shifts_are_one_more_latent_variable_of_each_patch():
    X = images((4, 6), 80)
    leaf = TransformedGMM(2, max_shift=0, max_iter=2, tol=0, random_state=0)
    model = TreeGMM(leaf, [(2, 2, 3)], max_iter=10, tol=0, random_state=0).fit(X)
    assert np.diff(model.log_likelihoods_).min() > -1e-10
    shifted = clone(model).set_params(leaf=clone(leaf).set_params(max_shift=None)).fit(X)
    assert np.diff(shifted.log_likelihoods_).min() > -1e-10
    moved = X.reshape(-1, 2, 2, 2, 3)[:, :, ::-1][..., [2, 0, 1]].reshape(-1, 4, 6)  # each patch about itself
    assert_allclose(shifted.score_samples(moved), shifted.score_samples(X), rtol=1e-11)
    assert np.abs(model.score_samples(moved) - model.score_samples(X)).max() > 1e-3


# ------------------------------------------------------------------------------ digits


def test_sums_that_leave_float64_are_made_at_full_length():
    rng = np.random.default_rng(0)
    table = np.eye(3)[None] * np.ones((2, 1, 1))
    table[1] = [[1e-300, 1, 0], [0.5, 0, 0.5], [0, 1e-200, 1]]
    log_density = rng.standard_normal((2, 40, 3)) * 900
    top = messages.Parameters(np.array([0.2, 0.3, 0.5]), (table,), (2, 1))
    weight = rng.uniform(0.5, 2, 40)
    _, of_images, (found,) = shifts.posteriors(top, np.ones(1), [log_density], weight)
    with np.errstate(divide="ignore"):
        pairs = np.log(table)[:, None] + log_density[:, :, None]  # (C, n, T, K)
        below = logsumexp(pairs, axis=3)
        joint = np.log(top.weights) + below.sum(axis=0)
    evidence = logsumexp(joint, axis=1)
    assert np.isfinite(evidence).all()
    assert_allclose(of_images, evidence, rtol=1e-13)
    root = np.exp(joint - evidence[:, None])
    with np.errstate(invalid="ignore"):
        within = np.nan_to_num(np.exp(pairs - below[..., None])) * root[None, :, :, None]
    assert_allclose(found.cells[0], within.sum(axis=2), rtol=1e-9, atol=1e-15)
    assert_allclose(found.counts[0], np.einsum("n,cntk->ctk", weight, within), rtol=1e-9, atol=1e-15)
    assert (
        np.exp(log_density - log_density.max(axis=2, keepdims=True)) @ table.swapaxes(1, 2) < 1e-280
    ).any()


@pytest.mark.parametrize("chunk_size", [1, 5, 1000])
def test_neither_chunks_nor_threads_change_a_bit(chunk_size, monkeypatch):
    monkeypatch.setattr("gmmlib.compose.tree.block_size", lambda numbers: 16)
    X, found = images((4, 6), 90), []
    for threads, size in ((1, 1000), (2, chunk_size)):
        with threadpool_limits(threads, user_api="blas"):
            model = TreeGMM(small_leaf("full", 3), [(2, 1, 3), (1, 3, 2)], chunk_size=size, max_iter=4, tol=0)
            model.set_params(random_state=0, allow_missing=True).fit(X)
            holes = np.where(np.random.default_rng(0).random(X.shape) < 0.3, np.nan, X)
            outputs = (
                model.score_samples(X),
                model.impute(holes),
                model.sample_given(holes, 2, 0),
                model.tables_[0],
            )
            found.append((model.log_likelihoods_, model.leaf_.covariances_, *outputs))
    for one, other in zip(*found, strict=True):
        assert_array_equal(one, other)


# ------------------------------------------------------------------------------ samples and completion


@pytest.mark.parametrize(("tree", "kind"), [CASES[0], CASES[3], CASES[4], CASES[9]])
def test_samples_have_the_moments_of_the_flat_mixture(tree, kind):
    model = fitted(tree, kind)
    flat = Flat(model)
    means, covariances = flat.gaussians()
    mean = flat.weights @ means
    second = np.einsum("s,sij->ij", flat.weights, covariances + means[:, :, None] * means[:, None])
    rows = model.sample(40_000, random_state=3)[0].reshape(40_000, -1)
    deviation = np.sqrt(np.diag(second))
    assert_allclose(rows.mean(axis=0), mean, atol=5 * deviation.max() / 200)
    assert np.abs((rows.T @ rows / len(rows) - second) / np.outer(deviation, deviation)).max() < 0.05
    labels = np.arange(20_000) % len(model.weights_)
    _, states = model.sample_cells(labels, random_state=0)
    for cell in flat.cells:
        drawn = states[cell[0]][:, cell[1], cell[2]]
        for label in range(len(model.weights_)):
            under = flat.column(flat.cells[-1]) == label
            expected = np.bincount(flat.column(cell)[under], flat.weights[under], drawn.max() + 1)
            shares = np.bincount(drawn[labels == label], minlength=len(expected)) / (labels == label).sum()
            assert_allclose(shares, expected / expected.sum(), atol=0.03)


@pytest.mark.parametrize(("tree", "kind"), [CASES[0], CASES[3], CASES[4], CASES[6], CASES[9], CASES[10]])
def test_completion_is_that_of_the_flat_mixture(tree, kind):
    model = fitted(tree, kind, allow_missing=True)
    flat, X = Flat(model), images(tree[0], 6, seed=11)
    holes = np.random.default_rng(1).random(X.shape) < 0.4
    holes[0], holes[1] = True, False
    X[holes] = np.nan
    learned = flat.weights, *flat.gaussians()
    rows = X.reshape(len(X), -1)
    expected = oracles.expected(rows, *learned)
    assert_allclose(model.impute(X).reshape(len(X), -1), expected, rtol=1e-8, atol=1e-10)
    observed = logsumexp(oracles.observed_log_joint(rows, *learned), axis=1)
    assert_allclose(model.score_samples(X), observed, rtol=1e-10, atol=1e-12)
    draws = model.sample_given(X, 2000, random_state=4)
    assert_array_equal(draws[:, ~holes], np.broadcast_to(X[~holes], (2000, (~holes).sum())))
    spread = draws.std(axis=0).max()
    assert_allclose(draws.mean(axis=0).reshape(len(X), -1), expected, atol=5 * spread / np.sqrt(2000))


def test_draws_given_an_image_have_the_covariance_of_the_flat_mixture():
    model = fitted(TREES[1], allow_missing=True)
    flat, X = Flat(model), images((2, 6), 1, seed=3)
    X[0, 0, 1:5] = np.nan
    rows = X.reshape(1, -1)
    hidden, seen = np.flatnonzero(np.isnan(rows[0])), np.flatnonzero(~np.isnan(rows[0]))
    share = np.exp(oracles.observed_log_joint(rows, flat.weights, *flat.gaussians())[0])
    share /= share.sum()
    second = 0
    for q, mean, covariance in zip(share, *flat.gaussians(), strict=True):
        slope = covariance[np.ix_(hidden, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
        centre = mean[hidden] + slope @ (rows[0, seen] - mean[seen])
        left = covariance[np.ix_(hidden, hidden)] - slope @ covariance[np.ix_(seen, hidden)]
        second = second + q * (left + np.outer(centre, centre))
    draws = model.sample_given(X, 20_000, random_state=0).reshape(20_000, -1)[:, hidden]
    assert_allclose(draws.T @ draws / len(draws), second, atol=0.05 * np.diag(second).max())


# ------------------------------------------------------------------------------ statistics of leaves


@pytest.mark.parametrize(
    "leaf",
    [
        small_leaf("full", 3),
        small_leaf("convolutional", 3),
        TransformedGMM(3, max_iter=2, tol=0, random_state=0),
    ],
)
def test_statistics_given_its_own_posteriors_are_a_mixture_s_own(leaf):
    X = images((3, 5), 100)
    X = X.reshape(100, -1) if isinstance(leaf, FullGMM) else X
    weight = np.random.default_rng(1).uniform(0.5, 2, 100)
    model = clone(leaf).fit(X)
    own = model.statistics(X, sample_weight=weight)
    given = model.statistics_given(X, model.predict_proba(X) * weight[:, None])
    assert_allclose(given.mass, own.mass, rtol=1e-9)
    assert_allclose(given.weight, own.weight, rtol=1e-9)
    one, other = clone(leaf).fit(X).m_step(own), clone(leaf).fit(X).m_step(given)
    assert_allclose(one.score_samples(X), other.score_samples(X), rtol=1e-9)


# ------------------------------------------------------------------------------ files


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("tree", "leaf"),
    [
        (TREES[1], small_leaf("full")),
        (TREES[1], small_leaf("convolutional")),
        (TREES[5], small_leaf("full")),
        (TREES[0], TransformedGMM(2, max_iter=2, tol=0, random_state=0)),
    ],
)
@pytest.mark.parametrize("fit_leaves", [True, False])
def test_a_fit_that_is_killed_goes_on_to_the_same_bits(tree, leaf, fit_leaves, tmp_path):
    shape, levels, sharing = tree
    X, path = images(shape), tmp_path / "state.npz"

    def kill(model, iteration):
        if iteration == 3:
            raise Killed

    settings = {"share_tables": sharing, "fit_leaves": fit_leaves, "max_iter": 6, "tol": 0, "random_state": 0}
    whole = TreeGMM(leaf, levels, **settings).fit(X)
    with pytest.raises(Killed):
        TreeGMM(leaf, levels, checkpoint=path, callback=kill, **settings).fit(X)
    assert path.exists()
    with pytest.raises(storage.ModelFileError, match="belongs to another fit"):
        TreeGMM(clone(leaf).set_params(max_iter=3), levels, checkpoint=path, **settings).fit(X)
    resumed = TreeGMM(leaf, levels, checkpoint=path, **settings).fit(X)
    assert not path.exists()
    assert_array_equal(resumed.log_likelihoods_, whole.log_likelihoods_)
    assert_array_equal(resumed.score_samples(X), whole.score_samples(X))


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"levels": [(2, 2)]}, r"levels must be a sequence of \(rows, columns, states\), the lowest first"),
        ({"levels": 3}, "levels must be a sequence"),
        ({"levels": [(2, 0, 3)]}, r"levels\[0\] must be a positive integer; got 0"),
        ({"levels": [(2, 4, 3)]}, "width a multiple of 4, such as 4 or 8; got 4 x 6 pixels. Crop or pad"),
        (
            {"levels": [(2, 2, 2), (3, 2, 2)]},
            "6 x 4 patches of levels divide: height a multiple of 6, such as 6 and width a multiple of 4",
        ),
        (
            {"levels": [(2, 2, 99)]},
            "needs at least 99 images of positive weight in X, one for each state; got 60",
        ),
        ({"leaf": "full"}, "leaf must be a mixture with the methods fit, log_joint, statistics_given"),
        ({"leaf": FullGMM}, "leaf must be a mixture"),
        ({"share_tables": "all"}, 'share_tables must be "none", "cells" or "everywhere"; got \'all\''),
        ({"fit_leaves": 1}, "fit_leaves must be True or False; got 1"),
        (
            {"init": {"leaf": small_leaf("full")}},
            r"init\['leaf'\] must be fitted; got .* A clone forgets",
        ),
        ({"init": {"weights": [0.5, 0.5]}}, r"init must be a mapping with .*; got \['weights'\]"),
        ({"init": "clusters"}, 'init must be "kmeans" or "random_from_data"; got \'clusters\''),
        (
            {"init": {"weights": [1, 1], "tables": []}},
            r"init\['tables'\] must hold 1 arrays, one a level; got 0",
        ),
        (
            {"init": {"weights": [1, 1], "tables": [np.zeros((4, 2, 2))]}},
            r"init\['weights'\] must be >= 0 and sum to 1",
        ),
        (
            {"init": {"weights": [0.5, 0.5], "tables": [np.ones((4, 2, 2))]}},
            r"init\['tables'\]\[0\] must be >= 0 and sum to 1 along the last axis; got 1 at least",
        ),
        (
            {"init": {"leaf": small_leaf("full").fit(images((2, 2)).reshape(60, 4))}},
            r"init\['leaf'\] must take patches of 2 x 3 pixels; got one fitted on rows of shape 4",
        ),
    ],
)
def test_what_cannot_be_used_is_named(settings, text):
    model = TreeGMM(small_leaf("full"), [(2, 2, 2)], random_state=0).set_params(**settings)
    with pytest.raises(ValueError, match=text):
        model.fit(images((4, 6)))


def test_a_leaf_that_has_too_few_patches_says_whose_rows_they_are():
    with pytest.raises(ValueError, match="n_components=500 needs") as caught:
        TreeGMM(small_leaf("full", 500), [(2, 2, 2)]).fit(images((4, 6)))
    assert "the leaf of the tree" in caught.value.__notes__[0]


def test_missing_values_need_leave_and_components_that_are_gaussian():
    X = images((4, 3))
    X[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="X must be finite"):
        fitted(TREES[0]).score_samples(X)
    with pytest.raises(ValueError, match="impute needs allow_missing=True"):
        fitted(TREES[0]).impute(X)
    with pytest.raises(ValueError, match="X must be finite"):
        fitted(TREES[0], allow_missing=True).fit(X)
    leaf = TransformedGMM(2, max_iter=2, tol=0, random_state=0)
    model = TreeGMM(leaf, [(2, 1, 3)], allow_missing=True, max_iter=1, tol=0, random_state=0).fit(
        images((4, 3))
    )
    with pytest.raises(ValueError, match="leaf must have components that are Gaussians"):
        model.score_samples(X)


def test_tables_that_are_set_count_and_are_checked():
    model = fitted(TREES[0])
    X = images((4, 3), 5)
    before = model.score(X)
    model.tables_[0] = model.tables_[0][:, ::-1]
    assert model.score(X) != before
    model.tables_[0] = -model.tables_[0]
    with pytest.raises(ValueError, match=r"the fitted model\['tables'\]\[0\] must be >= 0"):
        model.score(X)


def test_components_of_the_leaf_without_patches_start_again():
    X = images((4, 6), 80)
    leaf = small_leaf("convolutional", 3).fit(grid.of_images((4, 6), ((2, 2, 2),)).split(X).reshape(-1, 2, 3))
    tables = np.tile([[0.0, 0.4, 0.6], [0.0, 0.7, 0.3]], (4, 1, 1))
    start = {"leaf": leaf, "weights": [0.5, 0.5], "tables": [tables]}
    model = TreeGMM(small_leaf("convolutional", 3), [(2, 2, 2)], init=start, max_iter=30, tol=0)
    with pytest.warns(ConvergenceWarning, match=r"Components \[0\] lost all their images"):
        model.fit(X)
    assert model.tables_[0][..., 0].sum() > 0.1
    assert model.log_likelihoods_[-1] > model.log_likelihoods_[0]
