"""The compiled loops that choose the most probable component of each row, and filter by it.

They obey the rules of `gmmlib._loops`.  Pairs of a row and a component are listed by component: those of
component k are rows[begins[k]], ..., rows[begins[k + 1] - 1].
"""

import numpy as np

from gmmlib._compiled import compiled


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
def whiten_twice(row, mean, precision, out):
    """out = P (row - mean) for a symmetric P; returns (row - mean)' P (row - mean)."""
    width = row.shape[0]
    out[:] = 0.0
    for i in range(0, width - 3, 4):  # four at a time, so that `out` is read and written less often
        a, b = row[i] - mean[i], row[i + 1] - mean[i + 1]
        c, d = row[i + 2] - mean[i + 2], row[i + 3] - mean[i + 3]
        for j in range(width):
            out[j] += (a * precision[i, j] + b * precision[i + 1, j]) + (
                c * precision[i + 2, j] + d * precision[i + 3, j]
            )
    for i in range(width - width % 4, width):
        a = row[i] - mean[i]
        for j in range(width):
            out[j] += a * precision[i, j]
    total = 0.0
    for j in range(width):
        total += (row[j] - mean[j]) * out[j]
    return total


@compiled
def filter_pairs(values, begins, rows, means, precisions, constants, noise_variance, out, scores):
    """For each pair (n, k): out[n] = values[n] - v P (values[n] - m), scores[n] = c - its quadratic form / 2.

    P, m and c are those of component k; v is the variance of the noise.
    """
    product = np.empty(values.shape[1])
    for k in range(means.shape[0]):
        for place in range(begins[k], begins[k + 1]):
            n = rows[place]
            square = whiten_twice(values[n], means[k], precisions[k], product)
            scores[n] = constants[k] - 0.5 * square
            for j in range(values.shape[1]):
                out[n, j] = values[n, j] - noise_variance * product[j]


@compiled
def challenge(values, begins, rows, means, precisions, constants, tie, scores, labels):
    """labels[n] becomes the first of the components in pairs and labels[n] whose scores tie with the best.

    scores[n] is that of labels[n], and becomes the best; scores within `tie` of the best tie with it.
    """
    product = np.empty(values.shape[1])
    found, before = np.empty(rows.shape[0]), scores.copy()
    for k in range(means.shape[0]):
        for place in range(begins[k], begins[k + 1]):
            n = rows[place]
            found[place] = constants[k] - 0.5 * whiten_twice(values[n], means[k], precisions[k], product)
            scores[n] = max(scores[n], found[place])
    undecided = means.shape[0]
    for n in range(labels.shape[0]):
        if not (before[n] >= scores[n] - tie):
            labels[n] = undecided
    for k in range(means.shape[0]):
        for place in range(begins[k], begins[k + 1]):
            if found[place] >= scores[rows[place]] - tie:
                labels[rows[place]] = min(labels[rows[place]], k)
