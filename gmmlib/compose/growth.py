"""Where EM of a tree starts: a leaf fitted to patches of all positions, and tables from the lowest up.

A level of cells is started from the posteriors of the level below: those of a random cell for each state, or
the clusters that k-means finds among the cells.  The tables then say what the posteriors of the level are.
"""

from itertools import pairwise

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from gmmlib import _checks, posterior
from gmmlib.compose import leaves, messages
from gmmlib.kmeans import kmeans

IMAGES = 5_000  # of which tables are made: a start need not see more
MARGINAL = 0.1  # share of the mean table in each cluster's, so that no state is impossible at the start


def check_init(init):
    """Refuse starts of another form than the three there are."""
    if not hasattr(init, "keys"):
        _checks.one_of(init, "init", ("kmeans", "random_from_data"))
    elif set(init) - {"leaf", "shift_weights"} not in (set(), {"weights", "tables"}) or not init:
        raise ValueError(
            'init must be a mapping with "weights" and "tables", with a fitted "leaf", or with all three, '
            f'and may have "shift_weights"; got {sorted(map(str, init))}.'
        )


def fitted_leaf(model, X, weight, cells, rng):
    """The mixture of patches from which EM starts: given, frozen, or fitted to patches of all positions."""
    patch = cells.patch
    if hasattr(model.init, "keys") and "leaf" in model.init:
        leaf = leaves.thawed(model.init["leaf"])
        leaves.check(leaf, "init['leaf']")
        leaves.check_fitted(leaf, patch, "init['leaf']")
        return leaf
    if isinstance(model.leaf, FrozenEstimator):
        leaves.check_fitted(model.leaf.estimator, patch, "leaf")
        return model.leaf.estimator
    leaf = clone(model.leaf)
    if "random_state" in leaf.get_params() and leaf.random_state is None:
        leaf.set_params(random_state=int(rng.integers(2**32)))
    patches = cells.split(X)
    try:
        return leaf.fit(leaves.rows(leaf, patches), sample_weight=np.tile(weight, len(patches)))
    except ValueError as error:
        error.add_note("This is about the leaf of the tree, whose rows are the patches of all images.")
        raise


def table_shapes(levels, sharing, cells, n_components):
    """Shapes (R, T, K) of the tables of all levels, lowest first, and at last that of the root's weights."""
    states, shapes = [n_components, *(level[2] for level in levels)], []
    for number, (n_cells, n_parents) in enumerate(pairwise(cells.sizes)):
        n_tables = {"everywhere": 1, "cells": n_cells // n_parents, "none": n_cells}[sharing]
        shapes.append((n_tables, states[number + 1], states[number]))
    return [*shapes, (states[-1],)]


def grow(leaf, X, weight, cells, density, model, rng):
    """`messages.Parameters` from which EM starts, over a fitted leaf.

    The log densities (S, C, N, K) of the patches can be given as `density`; else it is None.
    """
    if not cells.groups:
        return messages.Parameters(leaf.weights_ / leaf.weights_.sum(), (), (1,))
    *shapes, _ = table_shapes(model.levels, model.share_tables, cells, len(leaf.weights_))
    chosen = slice(None)
    if len(X) > IMAGES:
        chosen = np.sort(rng.choice(len(X), IMAGES, replace=False))
    weight = weight[chosen]
    if density is None:
        log_density = leaves.log_density(leaf, cells.split(X[chosen]))
    else:
        log_density = density[cells.offsets.index((0, 0))][:, chosen]
    prior, tables = leaf.weights_[None], []  # (C, K), or (1, K) where it is the same for all cells
    for shape, n_parents in zip(shapes, cells.sizes[1:], strict=True):
        share = posterior.proba((log_density + np.log(prior)[:, None]).reshape(-1, log_density.shape[2]))
        share = share.reshape(log_density.shape)
        table, prior = _level(share, weight, shape, n_parents, model.init, rng)
        tables.append(table)
        log_density = messages.up(log_density, messages.in_turns(table, len(share)), n_parents)[1]
    return messages.Parameters(prior[0], tuple(tables), cells.sizes)


def _level(share, weight, shape, n_parents, init, rng):
    """Tables (R, T, K) from posteriors (C, n, K) of cells, and weights (P, T) of their parents' states."""
    (n_cells, n, _), (n_tables, n_states, _) = share.shape, shape
    of_parents = share.reshape(n_parents, n_cells // n_parents, n, -1)
    own = n_tables == n_cells  # then states of one parent have nothing to do with those of another
    at_random = isinstance(init, str) and init == "random_from_data"
    if at_random:
        labels = np.full((n_parents, n), -1)
        for group in range(n_parents) if own else [slice(None)]:
            flat = labels[group].reshape(-1)
            flat[rng.choice(flat.size, n_states, replace=False)] = np.arange(n_states)
            labels[group] = flat.reshape(labels[group].shape)
        kept = 0.5
    else:
        features = np.sqrt(of_parents.swapaxes(1, 2).reshape(n_parents, n, -1))
        parts = features if own else features.reshape(1, n_parents * n, -1)
        labels = np.concatenate([_clusters(part, weight, n_states, rng) for part in parts]).reshape(-1, n)
        kept = 1 - MARGINAL
    chosen = (labels[:, :, None] == np.arange(n_states)) * weight[:, None]  # (P, n, T)
    counts = chosen[:, None].swapaxes(2, 3) @ of_parents  # (P, children, T, K)
    counts = counts.reshape(-1, n_tables, n_states, share.shape[2]).sum(axis=0)
    mean = (weight @ share).reshape(-1, n_tables, 1, share.shape[2]).sum(axis=0)
    table = kept * _normalised(counts, mean) + (1 - kept) * _normalised(mean, mean)
    mass = chosen.sum(axis=1) if own else chosen.sum(axis=(0, 1))[None]
    if at_random:
        mass = np.ones_like(mass)
    mass = np.maximum(mass, messages.INVISIBLE * mass.sum())  # k-means may leave a cluster empty
    return table, mass / mass.sum(axis=1, keepdims=True)


def _clusters(features, weight, n_states, rng):
    """The cluster of each cell by k-means of the roots of its children's posteriors."""
    return kmeans(features, n_states, rng, np.tile(weight, len(features) // len(weight))).labels


def _normalised(counts, fallback):
    """Rows that sum to 1; those of `fallback` where nothing was counted."""
    counts = np.where(counts.sum(axis=-1, keepdims=True) > 0, counts, fallback)
    return counts / counts.sum(axis=-1, keepdims=True)


def given(weights, tables, shapes, cells, name):
    """Check weights and tables, of these shapes, of a caller or a file: `messages.Parameters` of them."""
    if len(tables) != len(shapes) - 1:
        raise ValueError(
            f"{name}['tables'] must hold {len(shapes) - 1} arrays, one a level; got {len(tables)}."
        )
    weights = _checks.parameter(weights, f"{name}['weights']", shapes[-1])
    _checks.mixing_weights(weights, f"{name}['weights']")
    checked = []
    for number, (values, shape) in enumerate(zip(tables, shapes, strict=False)):
        label = f"{name}['tables'][{number}]"
        table = _checks.parameter(values, label, shape)
        total = table.sum(axis=-1)
        if not (table >= 0).all() or not np.abs(total - 1).max() <= 1e-6:
            raise ValueError(
                f"{label} must be >= 0 and sum to 1 along the last axis; got {table.min():g} at least and "
                f"sums from {total.min():g} to {total.max():g}."
            )
        checked.append(np.ascontiguousarray(table))
    return messages.Parameters(weights, tuple(checked), cells.sizes)
