"""The compiled loops.

A kernel is here because a timing says so: ``make bench`` sets each beside its numpy twin.
Kernels check nothing, write into arrays the caller owns, add up in the order of their indices,
and release the interpreter lock so that chunks of rows can run side by side.
"""

import numpy as np

from gmmlib._compiled import compiled

# exp(-40) is below half a unit in the last place of 1: what it leaves out cannot be seen in float64.
NEGLIGIBLE = 40.0


@compiled
def normalise(joint, constants, evidence):
    """joint[n, k] <- exp(l[n, k] - evidence[n]), l = joint + constants, evidence[n] = log sum_k exp l[n, k].

    Posteriors more than NEGLIGIBLE nats below the row's best become exactly 0.
    """
    n_rows, n_components = joint.shape
    for n in range(n_rows):
        best = -np.inf
        for k in range(n_components):
            joint[n, k] += constants[k]
            best = max(best, joint[n, k])
        total = 0.0
        for k in range(n_components):
            gap = joint[n, k] - best
            if gap > -NEGLIGIBLE:
                joint[n, k] = np.exp(gap)
                total += joint[n, k]
            else:
                joint[n, k] = 0.0
        evidence[n] = best + np.log(total)
        scale = 1.0 / total
        for k in range(n_components):
            joint[n, k] *= scale


@compiled
def squared_norm(values, offset):
    """sum_j (values[j] - offset[j])^2, in eight interleaved sums whose order never changes."""
    a = b = c = d = e = f = g = h = 0.0
    n = values.shape[0]
    for j in range(0, n - 7, 8):
        a += (values[j] - offset[j]) ** 2
        b += (values[j + 1] - offset[j + 1]) ** 2
        c += (values[j + 2] - offset[j + 2]) ** 2
        d += (values[j + 3] - offset[j + 3]) ** 2
        e += (values[j + 4] - offset[j + 4]) ** 2
        f += (values[j + 5] - offset[j + 5]) ** 2
        g += (values[j + 6] - offset[j + 6]) ** 2
        h += (values[j + 7] - offset[j + 7]) ** 2
    total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for j in range(n - n % 8, n):
        total += (values[j] - offset[j]) ** 2
    return total


@compiled
def distances(whitened, offsets, out):
    """out[n, k] = |whitened[n, block k] - offsets[k]|^2, where K blocks of equal width lie side by side."""
    width = offsets.shape[1]
    for n in range(out.shape[0]):
        for k in range(out.shape[1]):
            out[n, k] = squared_norm(whitened[n, k * width : (k + 1) * width], offsets[k])


@compiled
def distances_to(values, offsets, out):
    """out[n, k] = |values[n] - offsets[k]|^2."""
    for n in range(out.shape[0]):
        for k in range(out.shape[1]):
            out[n, k] = squared_norm(values[n], offsets[k])


@compiled
def advance(whitened, offset, rows, distance, constant, needed):
    """Add |whitened[i] - offset|^2 to distance[i]; keep, packed, the rows whose bound still counts.

    The bound of row r = rows[i] is constant - distance[i] / 2; it counts while it exceeds needed[r].
    Returns how many rows are left at the front of `rows` and `distance`.
    """
    n_kept = 0
    for i in range(whitened.shape[0]):
        total = distance[i] + squared_norm(whitened[i], offset)
        row = rows[i]
        if constant - 0.5 * total > needed[row]:
            rows[n_kept] = row
            distance[n_kept] = total
            n_kept += 1
    return n_kept


@compiled
def score(whitened, offset, rows, constant, out):
    """out[rows[i]] = constant - |whitened[i] - offset|^2 / 2."""
    for i in range(whitened.shape[0]):
        out[rows[i]] = constant - 0.5 * squared_norm(whitened[i], offset)


@compiled
def gather(values, rows, out):
    """out[i, j] = values[rows[i], j] for the columns that `out` has."""
    for i in range(out.shape[0]):
        row = rows[i]
        for j in range(out.shape[1]):
            out[i, j] = values[row, j]


@compiled
def gather_centred(values, rows, centre, share, unit, out):
    """out[i, j] = sqrt(share[rows[i]] unit) (values[rows[i], j] - centre[j])."""
    for i in range(out.shape[0]):
        row = rows[i]
        scale = np.sqrt(share[row] * unit)
        for j in range(out.shape[1]):
            out[i, j] = scale * (values[row, j] - centre[j])


@compiled
def covariance(second, mass, difference, ridge, out):
    """out[i, j] = second[i, j] / mass - difference[i] difference[j], for j <= i; plus the ridge for j = i."""
    by_rows = out.strides[0] > out.strides[1]
    for i in range(out.shape[0]):
        for j in range(i + 1) if by_rows else range(i, out.shape[0]):
            row, column = (i, j) if by_rows else (j, i)
            out[row, column] = second[row, column] / mass - difference[row] * difference[column]
        out[i, i] += ridge
