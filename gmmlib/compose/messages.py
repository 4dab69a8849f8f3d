r"""Exact inference on a tree of mixtures: messages up and down, and the most probable states.

A cell c whose parent is in state t is in state k with probability :math:`A_{ctk}`.  With
:math:`\ell_c(k)` the log density of all pixels below c given its state, that of a parent p is

.. math:: \ell_p(t) = \sum_{c \in p} \log \sum_k A_{ctk} \exp \ell_c(k) ,

up to the root, where the log joint is :math:`\log \pi_t + \ell(t)`.  Downwards, from the posterior
:math:`q_p(t)` of a parent given the whole image, that of a child and of the pair are

.. math:: q_c(t, k) = q_p(t)\, A_{ctk} \exp \ell_c(k) \Big/ \sum_j A_{ctj} \exp \ell_c(j) .

Both are products of matrices, since no pair is formed: what is wanted are the sums of q over t and over
images.  Densities are taken relative to the largest of their cell; where so little is left of a sum that
float64 has lost digits, it is made once more at full length from logarithms.  Cells come first in all arrays,
in the nested order of `gmmlib.compose.grid`.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from gmmlib import _kernels, posterior

SMALL = 1e-280  # a sum of densities over their largest that is below it may have lost digits
AT_ONCE = 2**20  # numbers that are made at full length at a time
INVISIBLE = np.exp(-40.0)  # a posterior below it cannot be seen beside 1


class Parameters(NamedTuple):
    """A tree of L tables under a root of T states."""

    weights: np.ndarray  # (T,)  of the root's states, sum to 1
    tables: tuple  # L of (R, T, K), lowest first: the C cells of a level take the R tables in turns
    sizes: tuple  # L + 1 numbers of cells, lowest first; the last is 1


class Level(NamedTuple):
    """What the C cells of a level say upwards, of n images."""

    log_density: np.ndarray  # (C, n, K)  less the largest of each cell
    scaled: np.ndarray  # (C, n, K)  its exponential
    table: np.ndarray  # (C, T, K)
    mixed: np.ndarray  # (C, n, T)  scaled, summed by the table
    log_mixed: np.ndarray  # (C, n, T)  accurate also where `mixed` is not


def in_turns(table, n_cells):
    """One table for each cell, (C, T, K), from (R, T, K)."""
    return np.tile(table, (n_cells // len(table), 1, 1))


def logs(values):
    """Natural logarithms, -inf of 0."""
    with np.errstate(divide="ignore"):
        return np.log(values)


def up(log_density, table, n_parents):
    """Take log densities of cells (C, n, K) to those of their parents (P, n, T), nats; and their `Level`."""
    best = log_density.max(axis=2, keepdims=True)
    relative = log_density - best
    scaled = np.exp(relative)
    mixed = scaled @ table.swapaxes(1, 2)
    log_mixed = logs(mixed)
    for cell, row, parent in _entries(mixed < SMALL, table.shape[2]):
        log_mixed[cell, row, parent] = logsumexp(relative[cell, row] + logs(table[cell, parent]), axis=1)
    of_children = (log_mixed + best).reshape(n_parents, -1, *mixed.shape[1:])
    return Level(relative, scaled, table, mixed, log_mixed), of_children.sum(axis=1)


def _entries(mask, n_states):
    """Yield the indices where a mask (C, n, T) holds, few enough at a time for K numbers each."""
    if not mask.any():
        return
    where, step = np.nonzero(mask), max(1, AT_ONCE // n_states)
    for start in range(0, len(where[0]), step):
        yield tuple(index[start : start + step] for index in where)


def upward(parameters, log_density):
    """Take the log densities of patches (C, n, K) to the root.

    Returns
    -------
    levels : list of Level
        Lowest first.
    joint : ndarray, (n, T)
        Log weight plus log density of each image under each state of the root, nats.
    """
    levels = []
    for table, n_parents in zip(parameters.tables, parameters.sizes[1:], strict=True):
        level, log_density = up(log_density, in_turns(table, len(log_density)), n_parents)
        levels.append(level)
    return levels, log_density[0] + logs(parameters.weights)


def down(level, parents, weight, of_cells=True):
    """Posteriors of the cells of a level, from those of their parents.

    Parameters
    ----------
    level : Level
    parents : ndarray, (P, n, T)
        Posteriors given the whole image.
    weight : ndarray, (n,)
        Row weights.
    of_cells : bool
        Whether `cells` are wanted, which takes one of the three products; else they are None.

    Returns
    -------
    cells : ndarray, (C, n, K)
        Posteriors given the whole image; 0 where they cannot be seen.
    counts : ndarray, (C, T, K)
        Posteriors of the states of parent and cell together, times row weights, summed over images.
    """
    parents = np.repeat(parents, len(level.mixed) // len(parents), axis=0)
    lost = level.mixed < SMALL
    share = np.divide(parents, level.mixed, out=np.zeros_like(parents), where=~lost)
    cells = share @ level.table if of_cells else None
    if of_cells:
        cells *= level.scaled
    share *= weight[:, None]
    counts = share.swapaxes(1, 2) @ level.scaled
    counts *= level.table
    for cell, row, parent in _entries(lost & (parents > 0), level.table.shape[2]):
        relative = level.log_density[cell, row] + logs(level.table[cell, parent])
        pairs = np.exp(relative - level.log_mixed[cell, row, parent][:, None])
        pairs *= parents[cell, row, parent][:, None]
        if of_cells:
            np.add.at(cells, (cell, row), pairs)
        np.add.at(counts, (cell, parent), weight[row][:, None] * pairs)
    if of_cells:
        cells[cells < INVISIBLE] = 0.0
    return cells, counts


class Posteriors(NamedTuple):
    """What n images are taken for, given the whole of each."""

    cells: list  # L + 1 of (C, n, K), lowest first; the last is the root's, (1, n, T); the first may be None
    counts: list  # L of (C, T, K), as `down` makes them


def normalise(joint):
    """Turn log joints (n, T) of the root into posteriors in place; return the log-likelihood (n,)."""
    evidence = np.empty(len(joint))
    _kernels.normalise(joint, np.zeros(joint.shape[1]), evidence)
    return evidence


def downward(levels, root, weight, of_patches=True):
    """`Posteriors` from the levels of `upward`, posteriors (n, T) of the root, and row weights (n,).

    Those of the patches can be left out where counts alone are wanted.
    """
    cells, counts = [root[None]], []
    for number in reversed(range(len(levels))):
        of_level, of_pairs = down(levels[number], cells[-1], weight, of_cells=of_patches or number > 0)
        cells.append(of_level)
        counts.append(of_pairs)
    return Posteriors(cells[::-1], counts[::-1])


def priors(parameters):
    """Probabilities of the states of all cells before anything is seen: L + 1 of (C, K), lowest first."""
    found = [parameters.weights[None]]
    for table, size in _downwards(parameters):
        parents = np.repeat(found[-1], size // len(found[-1]), axis=0)
        found.append((parents[:, None] @ in_turns(table, size))[:, 0])
    return found[::-1]


def own_posteriors(parameters, log_density):
    """Posteriors of all cells given the pixels below each alone: L + 1 of (C, n, K), lowest first."""
    levels = upward(parameters, log_density)[0]
    found = []
    for number, of_states in enumerate(priors(parameters)):
        if number:
            below = levels[number - 1].log_mixed
            log_density = below.reshape(parameters.sizes[number], -1, *below.shape[1:]).sum(axis=1)
        joint = log_density + logs(of_states)[:, None]
        found.append(posterior.proba(joint.reshape(-1, joint.shape[2])).reshape(joint.shape))
    return found


def most_probable(parameters, log_density):
    """The most probable states of all cells together; the lowest among equals.

    Returns
    -------
    states : list of ndarray of int
        L + 1 of (C, n), lowest first.
    joint : ndarray, (n,)
        Log joint of these states and the image, nats.
    """
    choices = []
    for table, n_parents in zip(parameters.tables, parameters.sizes[1:], strict=True):
        log_table = logs(in_turns(table, len(log_density)))
        choice = np.empty((*log_density.shape[:2], table.shape[1]), dtype=np.intp)
        value = np.empty(choice.shape)
        for parent in range(table.shape[1]):
            joint = log_density + log_table[:, None, parent]
            chosen = posterior.most_probable(joint.reshape(-1, joint.shape[2])).reshape(choice.shape[:2])
            choice[..., parent] = chosen
            value[..., parent] = _taken(joint, chosen)
        choices.append(choice)
        log_density = value.reshape(n_parents, -1, *value.shape[1:]).sum(axis=1)
    joint = log_density + logs(parameters.weights)
    states = [posterior.most_probable(joint[0])[None]]
    highest = _taken(joint, states[0])[0]
    for choice in reversed(choices):
        states.append(_taken(choice, np.repeat(states[-1], len(choice) // len(states[-1]), axis=0)))
    return states[::-1], highest


def _taken(values, states):
    """values[c, n, states[c, n]]."""
    return np.take_along_axis(values, states[..., None], axis=2)[..., 0]


def _downwards(parameters):
    """Yield the tables of each level and how many cells it has, from the highest down."""
    return zip(reversed(parameters.tables), parameters.sizes[-2::-1], strict=True)


def draw(parameters, root, rng):
    """Draw the states of all cells under states of the root (n,): L + 1 of (C, n), lowest first."""
    states = [root[None]]
    for table, size in _downwards(parameters):
        parents = np.repeat(states[-1], size // len(states[-1]), axis=0)
        chances = in_turns(table, size)[np.arange(size)[:, None], parents]
        states.append(_drawn(chances, rng))
    return states[::-1]


def draw_given(levels, joint, rng):
    """Draw the states of all cells given the images that gave `upward`: L + 1 of (C, n), lowest first."""
    states = [_drawn(posterior.proba(joint)[None], rng)]
    for level in reversed(levels):
        size = len(level.table)
        parents = np.repeat(states[-1], size // len(states[-1]), axis=0)
        log_joint = level.log_density + logs(level.table[np.arange(size)[:, None], parents])
        states.append(_drawn(np.exp(log_joint - log_joint.max(axis=2, keepdims=True)), rng))
    return states[::-1]


def _drawn(chances, rng):
    """Draw a state from each of (C, n, K) chances, which need not sum to 1: (C, n)."""
    return posterior.draw(chances.reshape(-1, chances.shape[2]), rng).reshape(chances.shape[:2])
