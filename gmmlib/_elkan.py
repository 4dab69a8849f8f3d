"""The compiled loops of k-means by Elkan's bounds (ICML 2003), which obey the rules of `gmmlib._loops`."""

import numpy as np

from gmmlib._compiled import compiled


@compiled
def distance_by_fours(a, b):
    """|a - b|, four squares at a time: the order of scikit-learn's, to the last bit."""
    total, n = 0.0, a.shape[0]
    for j in range(0, n - 3, 4):
        total += (
            (a[j] - b[j]) * (a[j] - b[j])
            + (a[j + 1] - b[j + 1]) * (a[j + 1] - b[j + 1])
            + (a[j + 2] - b[j + 2]) * (a[j + 2] - b[j + 2])
            + (a[j + 3] - b[j + 3]) * (a[j + 3] - b[j + 3])
        )
    for j in range(n - n % 4, n):
        total += (a[j] - b[j]) * (a[j] - b[j])
    return np.sqrt(total)


@compiled
def first_centres(rows, centres, halves, labels, upper, lower):
    """Bounds of the distances of rows to centres, and the nearest; `halves` (K, K) are those of centres."""
    lower[:] = 0.0
    for n in range(rows.shape[0]):
        label, nearest = 0, distance_by_fours(rows[n], centres[0])
        lower[n, 0] = nearest
        for k in range(1, centres.shape[0]):
            if nearest > halves[label, k]:
                distance = distance_by_fours(rows[n], centres[k])
                lower[n, k] = distance
                if distance < nearest:
                    label, nearest = k, distance
        labels[n], upper[n] = label, nearest


@compiled
def nearest_centres(rows, weight, centres, halves, closest, labels, upper, lower, sums, mass):
    """labels[n] <- the nearest centre, itself among equals; sums and mass <- those of the rows of each.

    Bounds save distances: upper[n] of that to the own centre, lower[n, k] of those to
    others; halves[k, l] is half the distance of two centres and closest[k] the least of a row of these.
    Sums are of 256 rows at a time.
    """
    part = np.empty_like(sums)
    sums[:] = 0.0
    mass[:] = 0.0
    for start in range(0, rows.shape[0], 256):
        part[:] = 0.0
        for n in range(start, min(start + 256, rows.shape[0])):
            row, label, bound, exact = rows[n], labels[n], upper[n], False
            if closest[label] < bound:
                for k in range(centres.shape[0]):
                    if k == label or bound <= lower[n, k] or bound <= halves[label, k]:
                        continue
                    if not exact:
                        bound, exact = distance_by_fours(row, centres[label]), True
                        lower[n, label] = bound
                    if bound > lower[n, k] or bound > halves[label, k]:
                        distance = distance_by_fours(row, centres[k])
                        lower[n, k] = distance
                        if distance < bound:
                            label, bound = k, distance
                labels[n], upper[n] = label, bound
            mass[label] += weight[n]
            for j in range(rows.shape[1]):
                part[label, j] += row[j] * weight[n]
        for k in range(centres.shape[0]):
            for j in range(rows.shape[1]):
                sums[k, j] += part[k, j]


@compiled
def loosen(before, centres, labels, upper, lower):
    """Let bounds hold for centres that have moved; returns the sum of squares of how far."""
    shift, total = np.empty(centres.shape[0]), 0.0
    for k in range(centres.shape[0]):
        shift[k] = distance_by_fours(centres[k], before[k])
        total += shift[k] ** 2
    for n in range(labels.shape[0]):
        upper[n] += shift[labels[n]]
        for k in range(centres.shape[0]):
            lower[n, k] = max(lower[n, k] - shift[k], 0.0)
    return total
