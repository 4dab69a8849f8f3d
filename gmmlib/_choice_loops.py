"""The compiled loops that choose the most probable component of each row, and filter by it.

They obey the rules of `gmmlib._loops`.  Pairs of a row and a component are listed by component: those of
component k are rows[begins[k]], ..., rows[begins[k + 1] - 1].
"""

import numpy as np

from gmmlib._compiled import compiled
from gmmlib._loops import inner


@compiled
def list_labels(labels, begins, rows):
    """The pairs (n, labels[n]), without those where labels[n] < 0; a row comes before those below it."""
    begins[:] = 0
    for n in range(labels.shape[0]):
        if labels[n] >= 0:
            begins[labels[n] + 1] += 1
    places = np.empty_like(begins)
    for k in range(begins.shape[0] - 1):
        begins[k + 1] += begins[k]
        places[k] = begins[k]
    for n in range(labels.shape[0]):
        if labels[n] >= 0:
            rows[places[labels[n]]] = n
            places[labels[n]] += 1


@compiled
def count_reaching(bounds, needed, labels, begins):
    """begins of the pairs (n, k), k != labels[n], without those where bounds[n, k] < needed[n]."""
    begins[:] = 0
    for n in range(bounds.shape[0]):
        least = needed[n]
        for k in range(bounds.shape[1]):
            if not (bounds[n, k] < least):  # what is not a number is not known to be below
                begins[k + 1] += 1
        if not (bounds[n, labels[n]] < least):
            begins[labels[n] + 1] -= 1
    for k in range(begins.shape[0] - 1):
        begins[k + 1] += begins[k]


@compiled
def list_reaching(bounds, needed, labels, begins, rows):
    """The pairs that `count_reaching` counted."""
    places = begins.copy()
    for n in range(bounds.shape[0]):
        least = needed[n]
        for k in range(bounds.shape[1]):
            if not (bounds[n, k] < least) and k != labels[n]:
                rows[places[k]] = n
                places[k] += 1


@compiled
def keep_reaching(bounds, rows, shared, best, tie):
    """Move to the front the n = rows[i] with bounds[n] - shared[n] >= best[n] - tie; return their number."""
    count = 0
    for i in range(rows.shape[0]):
        n = rows[i]
        if not (bounds[n] - shared[n] < best[n] - tie):
            rows[count] = n
            count += 1
    return count


@compiled
def gather_about(values, rows, centre, out):
    """out[i] = values[rows[i]] - centre."""
    for i in range(rows.shape[0]):
        row = rows[i]
        for j in range(values.shape[1]):
            out[i, j] = values[row, j] - centre[j]


@compiled
def score_product(deviations, product, constant, out):
    """out[i] = constant - deviations[i] . product[i] / 2."""
    for i in range(out.shape[0]):
        out[i] = constant - 0.5 * inner(deviations[i], product[i])


@compiled
def scatter_filtered(values, rows, product, noise_variance, out):
    """out[n] = values[n] - noise_variance product[i], n = rows[i]."""
    for i in range(rows.shape[0]):
        row = rows[i]
        for j in range(values.shape[1]):
            out[row, j] = values[row, j] - noise_variance * product[i, j]


@compiled
def raise_to(rows, scores, best):
    """best[n] = the larger of best[n] and scores[i], n = rows[i]."""
    for i in range(rows.shape[0]):
        best[rows[i]] = max(best[rows[i]], scores[i])


@compiled
def first_of_ties(begins, ends, rows, scores, first, best, tie, labels):
    """labels[n] becomes the first of the components that tie with the best: itself, of first[n], and pairs.

    The pairs of component k are rows[begins[k]], ..., rows[ends[k] - 1].
    """
    for n in range(labels.shape[0]):
        if first[n] < best[n] - tie:
            labels[n] = begins.shape[0]
    for k in range(begins.shape[0]):
        for i in range(begins[k], ends[k]):
            n = rows[i]
            if scores[i] >= best[n] - tie and k < labels[n]:
                labels[n] = k
