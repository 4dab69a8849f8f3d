"""Trees under shifts of the whole image against the flat mixture of all their states and shifts."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from gmmlib import FullGMM, TreeGMM
from tests import oracles
from tests.test_tree import Flat, Killed, images, small_leaf

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

UP_TO_ONE = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
ALL = [(row, column) for row in (0, 1) for column in (0, 1, 2)]  # of 2 x 3 pixels
# Image shape, levels, how tables are shared, largest shift, and the shifts in the order of their weights.
TREES = [
    ((3, 5), [(3, 1, 3)], "none", 1, UP_TO_ONE),
    ((3, 4), [(1, 2, 2), (1, 1, 3)], "cells", 1, UP_TO_ONE),
    ((2, 3), [(2, 1, 2)], "everywhere", None, ALL),
]
CASES = [(tree, kind) for tree in TREES for kind in ("full", "convolutional")]


def fitted(tree, kind="full", **settings):
    shape, levels, sharing, max_shift, _ = tree
    settings = {"max_iter": 3, "tol": 0, "random_state": 0, "share_tables": sharing} | settings
    model = TreeGMM(small_leaf(kind), levels, max_shift=max_shift, **settings).fit(images(shape))
    ranks = np.arange(1, len(model.shift_weights_) + 1)
    model.shift_weights_ = ranks / ranks.sum()  # no two shifts alike
    return model


class FlatOfShifts(Flat):
    """The mixture of all states and shifts: each of its Gaussians has the pixels of a state, moved."""

    def __init__(self, model, offsets):
        super().__init__(model)
        n_states, n_shifts = len(self.states), len(offsets)
        self.offsets, self.shift = offsets, np.repeat(np.arange(n_shifts), n_states)
        self.states = np.tile(self.states, (n_shifts, 1))
        self.weights = np.outer(model.shift_weights_, self.weights).ravel()

    def source(self, offset):
        """Where the value of each pixel was before the image was moved, row by row."""
        height, width = self.model.image_shape_
        places = [(row, column) for row in range(height) for column in range(width)]
        return np.array([(r - offset[0]) % height * width + (c - offset[1]) % width for r, c in places])

    def gaussians(self):
        means, covariances = super().gaussians()
        for number, offset in enumerate(self.offsets):
            own, source = self.shift == number, self.source(offset)
            means[own] = means[own][:, source]
            covariances[own] = covariances[own][:, source][:, :, source]
        return means, covariances


# ------------------------------------------------------------------------------ inference


@pytest.mark.parametrize(("tree", "kind"), CASES)
def test_likelihoods_and_posteriors_are_those_of_the_flat_mixture(tree, kind):
    model = fitted(tree, kind)
    X, flat = images(tree[0], 7, seed=5), FlatOfShifts(model, tree[4])
    joint = flat.log_joint(X)
    evidence = logsumexp(joint, axis=1)
    assert_allclose(model.score_samples(X), evidence, rtol=1e-11)
    share = np.exp(joint - evidence[:, None])
    root = flat.marginal(share, flat.cells[-1], len(model.weights_))
    assert_allclose(model.predict_proba(X), root, rtol=1e-9, atol=1e-13)
    assert_array_equal(model.predict(X), root.argmax(axis=1))
    assert_allclose(model.log_joint(X), np.log(root) + evidence[:, None], rtol=1e-10)
    of_levels = model.cell_posteriors(X)
    for level, row, column in flat.cells:
        values = of_levels[level][:, row, column]
        expected = flat.marginal(share, (level, row, column), values.shape[1])
        assert_allclose(values, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("tree", "kind"), CASES)
def test_the_most_probable_explanation_is_the_best_of_all_states_and_shifts(tree, kind):
    model = fitted(tree, kind)
    X, flat = images(tree[0], 9, seed=7), FlatOfShifts(model, tree[4])
    joint = flat.log_joint(X)
    states, shifts, highest = model.most_probable_explanation(X)
    assert_allclose(highest, joint.max(axis=1), rtol=1e-11)
    best = joint.argmax(axis=1)
    assert_array_equal(shifts % tree[0], np.array(tree[4])[flat.shift[best]] % tree[0])
    assert np.abs(shifts).max() == 1
    for level, row, column in flat.cells:
        assert_array_equal(states[level][:, row, column], flat.column((level, row, column))[best])


@pytest.mark.parametrize("tree", TREES)
def test_completion_is_that_of_the_flat_mixture(tree):
    model = fitted(tree, allow_missing=True)
    flat, X = FlatOfShifts(model, tree[4]), images(tree[0], 5, seed=11)
    holes = np.random.default_rng(1).random(X.shape) < 0.4
    holes[0], holes[1] = True, False
    X[holes] = np.nan
    learned, rows = (flat.weights, *flat.gaussians()), X.reshape(len(X), -1)
    completed = model.impute(X)
    expected = oracles.expected(rows, *learned)
    assert_allclose(completed.reshape(len(X), -1), expected, rtol=1e-8, atol=1e-10)
    assert_array_equal(completed[~holes], X[~holes])
    observed = logsumexp(oracles.observed_log_joint(rows, *learned), axis=1)
    assert_allclose(model.score_samples(X), observed, rtol=1e-10, atol=1e-12)
    draws = model.sample_given(X, 2000, random_state=4)
    assert_array_equal(draws[:, ~holes], np.broadcast_to(X[~holes], (2000, (~holes).sum())))
    spread = draws.std(axis=0).max()
    assert_allclose(draws.mean(axis=0).reshape(len(X), -1), expected, atol=5 * spread / np.sqrt(2000))


@pytest.mark.parametrize("tree", TREES)
def test_samples_have_the_moments_of_the_flat_mixture(tree):
    model = fitted(tree)
    flat = FlatOfShifts(model, tree[4])
    means, covariances = flat.gaussians()
    second = np.einsum("s,sij->ij", flat.weights, covariances + means[:, :, None] * means[:, None])
    rows = model.sample(40_000, random_state=3)[0].reshape(40_000, -1)
    deviation = np.sqrt(np.diag(second))
    assert_allclose(rows.mean(axis=0), flat.weights @ means, atol=5 * deviation.max() / 200)
    assert np.abs((rows.T @ rows / len(rows) - second) / np.outer(deviation, deviation)).max() < 0.05


# ------------------------------------------------------------------------------ EM


@pytest.mark.parametrize("tree", TREES)
def test_an_iteration_of_em_is_that_of_the_flat_mixture(tree):
    model = fitted(tree)
    X, flat = images(tree[0], 50, seed=8), FlatOfShifts(model, tree[4])
    weight = np.random.default_rng(0).uniform(0.5, 2, len(X))
    joint = flat.log_joint(X)
    share = np.exp(joint - logsumexp(joint, axis=1, keepdims=True)) * weight[:, None]
    n_components, (side, other) = len(model.leaf_.weights_), flat.patch
    patches, shares = [], []
    for number, offset in enumerate(tree[4]):
        before = np.empty((len(X), X[0].size))
        before[:, flat.source(offset)] = X.reshape(len(X), -1)
        before, own = before.reshape(X.shape), share * (flat.shift == number)
        for level, row, column in flat.cells:
            if level == 0:
                patches.append(
                    before[:, row * side : (row + 1) * side, column * other : (column + 1) * other]
                )
                shares.append(flat.marginal(own, (level, row, column), n_components))
    expected = [np.zeros_like(table) for table in model.tables_]
    for cell in flat.cells[:-1]:
        which = {"none": flat.number, "cells": flat.within, "everywhere": lambda _: 0}[tree[2]](cell)
        states = flat.column(flat.parent(cell)), flat.column(cell)
        np.add.at(expected[cell[0]][which], states, share.sum(axis=0))
    model.m_step(model.statistics(X, sample_weight=weight))
    of_shifts = np.bincount(flat.shift, share.sum(axis=0)) / weight.sum()
    assert_allclose(model.shift_weights_, of_shifts, rtol=1e-9)
    for table, counts in zip(model.tables_, expected, strict=True):
        assert_allclose(table, counts / counts.sum(axis=2, keepdims=True), rtol=1e-8, atol=1e-12)
    rows = np.concatenate(patches).reshape(-1, side * other)
    _, means, covariances = oracles.gaussian_m_step(rows, np.concatenate(shares), 0.05)
    assert_allclose(model.leaf_.means_, means, rtol=1e-7, atol=1e-9)
    assert_allclose(model.leaf_.covariances_, covariances, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", ["full", "convolutional"])
@pytest.mark.parametrize("fit_leaves", [True, False])
@pytest.mark.parametrize("max_shift", [1, 2])
def test_every_step_climbs(kind, fit_leaves, max_shift):
    X, weight = images((6, 5), 120, seed=3), np.arange(120) % 4
    leaf = small_leaf(kind, 3, **({"reg_covar": 1e-9} if kind == "full" else {}))
    model = TreeGMM(leaf, [(3, 1, 4), (1, 1, 3)], max_shift=max_shift, fit_leaves=fit_leaves, random_state=1)
    model.set_params(max_iter=10, tol=0).fit(X, sample_weight=weight)
    gains = np.diff(model.log_likelihoods_)
    assert gains.min() > -1e-10
    assert gains[0] > 1e-3
    assert len(model.shift_weights_) == (2 * max_shift + 1) ** 2
    assert_allclose(model.log_likelihoods_[-1], weight @ model.score_samples(X) / weight.sum(), rtol=1e-11)


def test_it_finds_the_shifts_of_images_that_were_moved():
    rng = np.random.default_rng(0)
    offsets = np.array([(-1, 0), (0, 1)])[(rng.random(400) < 0.3).astype(int)]
    pattern = rng.standard_normal((4, 6)) * 3
    moved = [np.roll(pattern, offset, (0, 1)) for offset in offsets]
    X = np.stack(moved) + rng.standard_normal((400, 4, 6))
    start = {"weights": [1.0], "tables": [np.eye(6)[:, None]]}
    leaf = FullGMM(6, reg_covar=1e-3, init={
        "weights": np.full(6, 1 / 6),
        "means": np.stack([pattern[r : r + 2, c : c + 2].ravel() for r in (0, 2) for c in (0, 2, 4)]),
        "covariances": np.tile(np.eye(4), (6, 1, 1)),
    }, max_iter=1, tol=0)  # fmt: skip
    clean = pattern + rng.standard_normal((400, 4, 6))
    leaf.fit(clean.reshape(-1, 2, 2, 3, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4))
    model = TreeGMM(leaf, [(2, 3, 1)], max_shift=1, fit_leaves=False, init=start | {"leaf": leaf}, max_iter=5)
    model.set_params(tol=0).fit(X)
    assert_allclose(model.shift_weights_[[1, 5]], [0.7, 0.3], atol=0.05)
    assert (model.most_probable_explanation(X)[1] == offsets).all(axis=1).mean() > 0.99


# ------------------------------------------------------------------------------ special cases


def test_one_shift_alone_is_the_tree_without():
    X = images((3, 5))
    plain = TreeGMM(small_leaf("full"), [(3, 1, 3)], max_iter=2, tol=0, random_state=0).fit(X)
    start = plain.learned() | {"shift_weights": np.eye(9)[4]}
    model = clone(plain).set_params(max_shift=1, init=start, max_iter=3).fit(X)
    again = clone(plain).set_params(init=plain.learned(), max_iter=3).fit(X)
    assert_array_equal(model.shift_weights_, np.eye(9)[4])
    assert_allclose(model.log_likelihoods_, again.log_likelihoods_, rtol=1e-12)
    assert_allclose(model.score_samples(X), again.score_samples(X), rtol=1e-11)
    assert plain.shift_weights_ == [1.0]
    assert model.n_parameters() == plain.n_parameters() + 8


def test_under_all_shifts_alike_it_does_not_matter_where_an_image_lies():
    model = fitted(TREES[2])
    X = images((2, 3), 9, seed=2)
    moved = X[:, ::-1][..., [2, 0, 1]]
    assert np.abs(model.score_samples(moved) - model.score_samples(X)).max() > 1e-3
    model.shift_weights_ = np.full(6, 1 / 6)
    assert_allclose(model.score_samples(moved), model.score_samples(X), rtol=1e-11)


# ------------------------------------------------------------------------------ bits and files


@pytest.mark.parametrize("chunk_size", [1, 1000])
@pytest.mark.parametrize("fit_leaves", [True, False])
def test_neither_chunks_nor_threads_change_a_bit(chunk_size, fit_leaves, monkeypatch):
    monkeypatch.setattr("gmmlib.compose.tree.block_size", lambda numbers: 16)
    X, found = images((4, 6), 90), []
    for threads, size in ((1, 1000), (2, chunk_size)):
        with threadpool_limits(threads, user_api="blas"):
            model = TreeGMM(small_leaf("full", 3), [(2, 1, 3), (1, 3, 2)], chunk_size=size, max_iter=3, tol=0)
            model.set_params(max_shift=1, fit_leaves=fit_leaves, random_state=0, allow_missing=True).fit(X)
            holes = np.where(np.random.default_rng(0).random(X.shape) < 0.3, np.nan, X)
            outputs = model.score_samples(X), model.impute(holes), model.sample_given(holes, 2, 0)
            found.append((model.log_likelihoods_, model.shift_weights_, model.tables_[0], *outputs))
    for one, other in zip(*found, strict=True):
        assert_array_equal(one, other)


@pytest.mark.parametrize("fit_leaves", [True, False])
def test_a_fit_that_is_killed_goes_on_to_the_same_bits(fit_leaves, tmp_path):
    X, path = images((3, 5)), tmp_path / "state.npz"

    def kill(model, iteration):
        if iteration == 3:
            raise Killed

    model = TreeGMM(small_leaf("full"), [(3, 1, 3)], max_shift=1, fit_leaves=fit_leaves, random_state=0)
    model.set_params(max_iter=6, tol=0)
    whole = clone(model).fit(X)
    with pytest.raises(Killed):
        clone(model).set_params(checkpoint=path, callback=kill).fit(X)
    resumed = clone(model).set_params(checkpoint=path).fit(X)
    assert_array_equal(resumed.log_likelihoods_, whole.log_likelihoods_)
    assert_array_equal(resumed.shift_weights_, whole.shift_weights_)
    resumed.save(tmp_path / "model.npz")
    assert_array_equal(TreeGMM.load(tmp_path / "model.npz").score_samples(X), whole.score_samples(X))


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("max_shift", [-1, 2, 1.0, True, "1"])
def test_shifts_that_images_cannot_have_are_refused(max_shift):
    model = TreeGMM(small_leaf("full"), [(3, 1, 3)], max_shift=max_shift)
    with pytest.raises(ValueError, match="max_shift must be an integer from 0 to 1 for images of 3 x 5"):
        model.fit(images((3, 5)))


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        (np.ones(8) / 8, r"init\['shift_weights'\] must have shape \(9,\); got \(8,\)"),
        (np.ones(9), r"init\['shift_weights'\] must be >= 0 and sum to 1"),
    ],
)
def test_weights_of_shifts_that_cannot_be_used_are_named(weights, text):
    model = fitted(TREES[0])
    model.set_params(init=model.learned() | {"shift_weights": weights})
    with pytest.raises(ValueError, match=text):
        model.fit(images((3, 5)))


def test_posteriors_from_below_need_to_know_which_pixels_are_below():
    with pytest.raises(
        ValueError, match="refined must be True with max_shift other than 0, because the shift"
    ):
        fitted(TREES[0]).cell_posteriors(images((3, 5), 2), refined=False)


def test_a_model_is_saved_with_the_shifts_of_its_fit(tmp_path):
    model = fitted(TREES[0]).set_params(max_shift=0)
    with pytest.raises(ValueError, match="max_shift must be what it was in fit, 1, to save the model; got 0"):
        model.save(tmp_path / "model.npz")
