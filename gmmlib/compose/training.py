"""The steps of exact EM on a tree of mixtures, and its state on disk.

The E-step counts, over images, the states of the root, the pairs of states of every parent and child, and
leaves what the M-step of the leaf takes of the patches under the posteriors of their states given the whole
image.  Every M-step is closed: weights and tables are counts, normalised; the leaf has its own.
"""

import math
from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gmmlib import _contents, posterior
from gmmlib.compose import grid, growth, leaves, messages, shifts
from gmmlib.em import checkpoint
from gmmlib.em.workers import merge

EMPTY = 1e-10  # share of the patches below which a component of the leaf starts again, as in its own M-step
KEPT = 2**27  # most log densities of held leaves that are kept between E-steps: 1 GB


class Tree(NamedTuple):
    """All parameters."""

    top: messages.Parameters
    leaf: object  # a fitted mixture of patches
    shift_weights: np.ndarray  # (S,)  of shifts of the image, sum to 1


class Statistics(NamedTuple):
    """What an E-step leaves of its images; the fields of two sets of images add."""

    mass: np.ndarray  # (T,)  sum_n w[n] q[n, t] at the root
    shifts: np.ndarray  # (S,)  sum_n w[n] q[n, s] of shifts
    counts: np.ndarray  # (M,)  sum_n w[n] q[n, c, t, k] of all tables (R, T, K), lowest first, flattened
    leaf: object  # statistics of the leaf; an array of no axis where it is held
    log_likelihood: float  # sum_n w[n] log p(x_n), nats
    weight: float  # sum_n w[n]


def flat(tables):
    """All tables one after the other, (M,)."""
    return np.concatenate([np.zeros(0), *(table.ravel() for table in tables)])


def in_shapes(shapes, values):
    """The inverse of `flat`."""
    ends = np.cumsum([0, *map(math.prod, shapes)])
    if values.shape != (ends[-1],):
        raise ValueError(f"its tables must be {ends[-1]} numbers; got shape {values.shape}.")
    return [values[a:b].reshape(shape) for (a, b), shape in zip(pairwise(ends), shapes, strict=True)]


def e_step(tree, moved, weight, trained, log_density=None):
    """`Statistics` of n images with row weights (n,), from their patches (C, n, h, w) under S shifts.

    The log densities (C, n, K) of the patches under each shift can be given instead, of a leaf that is held.
    """
    if log_density is None:
        log_density = [leaves.log_density(tree.leaf, patches) for patches in moved]
    share, evidence, under = shifts.posteriors(tree.top, tree.shift_weights, log_density, weight, trained)
    sums = []
    for number, (cells, counts) in enumerate(under):
        own = weight * share[number]
        tables = [
            c.reshape(-1, *table.shape).sum(axis=0) for c, table in zip(counts, tree.top.tables, strict=True)
        ]
        of_leaf = np.zeros(())
        if trained:
            of_leaf = leaves.statistics(tree.leaf, moved[number], cells[0] * own[:, None])
        sums.append((own @ cells[-1][0], flat(tables), of_leaf))
    mass, counts, of_leaf = (reduce(merge, parts) for parts in zip(*sums, strict=True))
    return Statistics(mass, share @ weight, counts, of_leaf, weight @ evidence, weight.sum())


def m_step(statistics, before):
    """Parameters of the largest expected log joint; where nothing was counted they stay as before."""
    top, leaf, _ = before
    tables, weights = [], statistics.mass / statistics.weight
    all_counts = in_shapes([table.shape for table in top.tables], statistics.counts)
    for counts, table in zip(all_counts, top.tables, strict=True):
        total = counts.sum(axis=-1, keepdims=True)
        tables.append(np.divide(counts, total, out=table.copy(), where=total > 0))
    if isinstance(statistics.leaf, tuple):
        leaf = leaves.m_step(leaf, statistics.leaf)
        _split(*((tables[0], all_counts[0]) if tables else (weights, weights)))
    top = messages.Parameters(weights / weights.sum(), tuple(tables), top.sizes)
    return Tree(top, leaf, statistics.shifts / statistics.shifts.sum())


def _split(probabilities, counts):
    """Share the probabilities (..., K) of a leaf's components as its M-step splits them: in place."""
    mass = counts.reshape(-1, counts.shape[-1]).sum(axis=0)
    mass /= mass.sum()
    for k in np.flatnonzero(mass <= EMPTY):
        both = [k, posterior.falling(mass)[0]]
        mass[both] = mass[both[1]] / 2
        probabilities[..., both] = probabilities[..., both].sum(axis=-1, keepdims=True) / 2


def held_density(leaf, X, cells, workers):
    """Log densities (S, C, N, K) of all patches under a held leaf, nats, or None where they are too many."""
    shape = len(cells.offsets), cells.sizes[0], len(X), len(leaf.weights_)
    if math.prod(shape) > KEPT:
        return None
    density = np.empty(shape)

    def of(rows):
        of_shifts = [leaves.log_density(leaf, patches) for patches in cells.moved(X[rows])]
        return np.stack(of_shifts).transpose(2, 0, 1, 3)

    workers.fill(of, density.transpose(2, 0, 1, 3))
    return density


def e_steps(X, weight, cells, workers, trained, density=None):
    """Trees to (statistics, the tree itself) and the mean log-likelihood, in nats per image.

    The log densities of a leaf that is held can be given, as `held_density` makes them.
    """

    def run(tree):
        def of(rows):
            if density is None:
                return e_step(tree, cells.moved(X[rows]), weight[rows], trained)
            return e_step(tree, None, weight[rows], False, density[:, :, rows])

        total = workers.sum(of, len(X))
        return (total, tree), total.log_likelihood / total.weight

    return run


LEAF, MIXTURE = "leaf.", "mixture."


def packed(expectation):
    """Statistics and the tree that gave them, as arrays by name."""
    statistics, tree = expectation
    arrays = statistics._asdict() | {"weights": tree.top.weights, "tables": flat(tree.top.tables)}
    arrays |= {"shift_weights": tree.shift_weights}
    of_leaf = arrays.pop("leaf")
    if isinstance(of_leaf, tuple):
        arrays |= {LEAF + name: _real(values) for name, values in of_leaf._asdict().items()}
    return arrays | {MIXTURE + name: values for name, values in tree.leaf.to_arrays()[1].items()}


def _real(values):
    """Complex numbers as pairs of real ones: files hold no others."""
    return np.ascontiguousarray(values).view(np.float64) if np.iscomplexobj(values) else np.asarray(values)


def unpacked(model, state, cells, moved, weight, trained):
    """The inverse of `packed`; ValueError if no E-step of the model can have left the state.

    Parameters
    ----------
    model : gmmlib.TreeGMM
    state : gmmlib.em.checkpoint.State
    cells : gmmlib.compose.grid.Cells
    moved : list of ndarray, (C, 1, h, w)
        Of any image, under each shift.
    weight : ndarray, (N,)
    trained : bool
    """
    arrays = {name: np.asarray(values) for name, values in state.statistics.items()}
    own = [name for name in arrays if name.startswith(MIXTURE)]
    mixture = {name.removeprefix(MIXTURE): arrays.pop(name) for name in own}
    leaf = leaves.thawed(model.leaf)
    leaf = type(leaf).from_arrays(_contents.settings(leaf), mixture, "its leaf")
    shapes = growth.table_shapes(
        grid.checked_levels(model.levels), model.share_tables, cells, len(leaf.weights_)
    )
    tables = in_shapes(shapes[:-1], arrays.pop("tables"))
    weights, of_shifts = arrays.pop("weights"), arrays.pop("shift_weights")
    tree = model._checked(leaf, weights, tables, of_shifts, cells, "its tree")
    like = e_step(tree, moved, np.ones(1), trained)
    of_leaf = {LEAF + name: values for name, values in like.leaf._asdict().items()} if trained else {}
    shapes = {name: getattr(like, name).shape for name in ("mass", "shifts", "counts")}
    shapes |= {name: np.shape(_real(values)) for name, values in of_leaf.items()}
    state = state._replace(statistics={name: values[()] for name, values in arrays.items()})
    any_sign = (*of_leaf, *(() if tree.top.tables else ("counts",)))  # without tables there are no counts
    checkpoint.check_statistics(state, shapes, weight, signed=any_sign)
    found = dict(state.statistics)
    fields = [found.pop(name) for name in of_leaf]
    fields = [
        f.view(v.dtype) if np.iscomplexobj(v) else f for f, v in zip(fields, of_leaf.values(), strict=True)
    ]
    return Statistics(**found, leaf=type(like.leaf)(*fields) if trained else np.zeros(())), tree
