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
def inner(a, b):
    """sum_j a[j] b[j], in eight interleaved sums whose order never changes."""
    c = d = e = f = g = h = p = q = 0.0
    n = a.shape[0]
    for j in range(0, n - 7, 8):
        c += a[j] * b[j]
        d += a[j + 1] * b[j + 1]
        e += a[j + 2] * b[j + 2]
        f += a[j + 3] * b[j + 3]
        g += a[j + 4] * b[j + 4]
        h += a[j + 5] * b[j + 5]
        p += a[j + 6] * b[j + 6]
        q += a[j + 7] * b[j + 7]
    total = ((c + d) + (e + f)) + ((g + h) + (p + q))
    for j in range(n - n % 8, n):
        total += a[j] * b[j]
    return total


@compiled
def marginal_by_projection(whitened, offset, values, responses, inflation, constant, largest, out):
    """out[n] = log joint of what is not NaN in values[n], from the whitened sample with any filling.

    responses[j] (D,) is what a unit of column j adds to the whitened sample; the residual, whitened[n] -
    offset, loses what it has along those of the missing columns, by Gram and Schmidt.  `constant` is that of
    the whole sample, and inflation[j] the variance of column j over what is left of it given all others.
    out[n] is NaN if the squared residual, times the largest inflation, exceeds `largest` times what is left.
    """
    width = offset.shape[0]
    basis = np.empty((width, width))
    gone = np.empty(width, dtype=np.intp)
    half = 0.5 * np.log(2 * np.pi)
    for n in range(values.shape[0]):
        count = 0
        for j in range(width):
            if np.isnan(values[n, j]):
                gone[count] = j
                count += 1
        row = whitened[n]
        for j in range(width):
            row[j] -= offset[j]
        before = inner(row, row)
        value, worst = constant + count * half, 1.0
        for i in range(count):
            vector = basis[i]
            for j in range(width):
                vector[j] = responses[gone[i], j]
            for other in range(i):
                share = inner(basis[other], vector)
                for j in range(width):
                    vector[j] -= share * basis[other, j]
            length = np.sqrt(inner(vector, vector))
            for j in range(width):
                vector[j] /= length
            share = inner(vector, row)
            for j in range(width):
                row[j] -= share * vector[j]
            value -= np.log(length)
            worst = max(worst, inflation[gone[i]])
        distance = inner(row, row)
        out[n] = value - 0.5 * distance if before * worst <= largest * max(distance, 1.0) else np.nan


@compiled
def marginal_by_factor(values, mean, covariance, log_weight, most, out):
    """Where out[n] is NaN: the log joint of what is not NaN in values[n], by a factorisation for each row.

    A row stays NaN if it has more than `most` values, or if their covariance is not positive definite.
    """
    width = mean.shape[0]
    side = min(most, width)
    factor, whitened = np.empty((side, side)), np.empty(side)
    there = np.empty(width, dtype=np.intp)
    half = 0.5 * np.log(2 * np.pi)
    for n in range(values.shape[0]):
        if not np.isnan(out[n]):
            continue
        count = 0
        for j in range(width):
            if not np.isnan(values[n, j]):
                there[count] = j
                count += 1
        if count > most:
            continue
        value = log_weight - count * half
        for i in range(count):
            row = factor[i]
            for j in range(i):
                row[j] = (covariance[there[i], there[j]] - inner(row[:j], factor[j, :j])) / factor[j, j]
            pivot = np.sqrt(covariance[there[i], there[i]] - inner(row[:i], row[:i]))
            row[i] = pivot
            difference = values[n, there[i]] - mean[there[i]]
            whitened[i] = (difference - inner(row[:i], whitened[:i])) / pivot
            value -= np.log(pivot)
        # A pivot that is 0 or NaN leaves no number.
        value -= 0.5 * inner(whitened[:count], whitened[:count])
        if value < np.inf:
            out[n] = value


@compiled
def distances(whitened, offsets, out):
    """out[n, k] = |whitened[n, block k] - offsets[k]|^2, where K blocks of equal width lie side by side."""
    width = offsets.shape[1]
    for n in range(out.shape[0]):
        for k in range(out.shape[1]):
            out[n, k] = squared_norm(whitened[n, k * width : (k + 1) * width], offsets[k])


@compiled
def monomials(values, centre, out):
    """out[n] holds y_i y_j for i <= j row by row, the y_i, and 1, where y = values[n] - centre."""
    width = centre.shape[0]
    first = width * (width + 1) // 2
    y = np.empty(width, out.dtype)  # apart from `out`, or the compiler has to fear that they overlap
    for n in range(values.shape[0]):
        for i in range(width):
            y[i] = values[n, i] - centre[i]
            out[n, first + i] = y[i]
        place = 0
        for i in range(width):
            for j in range(i, width):
                out[n, place + j - i] = y[i] * y[j]
            place += width - i
        out[n, first + width] = 1.0


@compiled
def within_reach(bounds, rows, spread, gap, near):
    """near[n, k]: whether bounds[n, k] comes within NEGLIGIBLE of a lower bound of the largest in its row.

    The bound of component k is above its lower bound by spread[k] @ rows[n]^2 + gap[k].  What has
    overflowed is near.
    """
    for n in range(bounds.shape[0]):
        best, highest = 0, bounds[n, 0]
        for k in range(1, bounds.shape[1]):
            if bounds[n, k] > highest:
                best, highest = k, bounds[n, k]
        between = gap[best]
        for i in range(rows.shape[1]):
            between += spread[best, i] * rows[n, i] ** 2
        needed = highest - between - NEGLIGIBLE
        for k in range(bounds.shape[1]):
            near[n, k] = not (bounds[n, k] < needed and np.isfinite(bounds[n, k]))


@compiled
def count_columns(values, counts):
    """counts[k] = how many values[n, k] are not 0."""
    counts[:] = 0
    for n in range(values.shape[0]):
        for k in range(values.shape[1]):
            if values[n, k]:
                counts[k] += 1


@compiled
def list_columns(values, places, rows):
    """rows[places[k]], rows[places[k] + 1], ... = the n at which values[n, k] is not 0; moves the places."""
    for n in range(values.shape[0]):
        for k in range(values.shape[1]):
            if values[n, k]:
                rows[places[k]] = n
                places[k] += 1


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


@compiled
def squares(values, places, out):
    """out[n, f] = |values[n, places[f]]|^2 of complex values."""
    for n in range(out.shape[0]):
        for f in range(out.shape[1]):
            z = values[n, places[f]]
            out[n, f] = z.real**2 + z.imag**2
