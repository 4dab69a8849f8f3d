"""The compiled loops over all overlapping patches of an image, none of which is ever cut out.

A cosine transform of square patches goes first across and then down: what it makes of a row of pixels serves
all patches that share the row.  Coefficients of neighbouring patches are neighbours in memory, so that the
innermost loops run along rows of the image, in vector instructions.

Cosines are even or odd about the middle of a patch.  So `waves` are half the length, side / 2 rounded up: a
column for each frequency, first those that are even, as many as rows, then those that are odd.  Where the
side is odd its middle belongs to both halves, and its row counts half.

They obey the rules of `gmmlib._loops`.
"""

import numpy as np

from gmmlib._compiled import compiled


@compiled
def transform_across(pixels, waves, out):
    """out[r, v, x] = sum_j waves[j, v] (pixels[r, x + j] +- pixels[r, x + side - 1 - j]), - for odd v."""
    half, side = waves.shape
    n = out.shape[2]
    sums, differences = np.empty((half, n), out.dtype), np.empty((half, n), out.dtype)
    for r in range(pixels.shape[0]):
        row = pixels[r]
        for j in range(half):
            fold(row[j : j + n], row[side - 1 - j : side - 1 - j + n], sums[j], differences[j])
        for v in range(side):
            weighted_sum(waves[:, v], sums if v < half else differences, out[r, v])


@compiled
def transform_down(across, waves, left, out):
    """out[v, u, x] = sum_i waves[i, u] (across[i, v, left + x] +- across[side - 1 - i, v, left + x])."""
    half, side = waves.shape
    n = out.shape[2]
    sums, differences = np.empty((half, n), out.dtype), np.empty((half, n), out.dtype)
    for v in range(side):
        for i in range(half):
            near, far = across[i, v, left : left + n], across[side - 1 - i, v, left : left + n]
            fold(near, far, sums[i], differences[i])
        for u in range(side):
            weighted_sum(waves[:, u], sums if u < half else differences, out[v, u])


@compiled
def back_down(coefficients, waves, left, across):
    """Add to across[:, :, left:] what `transform_down`, transposed, makes of coefficients[v, u, x]."""
    half, side = waves.shape
    n = coefficients.shape[2]
    even, odd = np.empty(n, across.dtype), np.empty(n, across.dtype)
    for v in range(side):
        for i in range(half):
            weighted_sum(waves[i, :half], coefficients[v, :half], even)
            weighted_sum(waves[i, half:], coefficients[v, half:], odd)
            unfold(even, odd, across[i, v, left : left + n], across[side - 1 - i, v, left : left + n])


@compiled
def back_across(across, waves, pixels):
    """Add to pixels[r] what `transform_across`, transposed, makes of across[r, v, x]."""
    half, side = waves.shape
    n = across.shape[2]
    even, odd = np.empty(n, across.dtype), np.empty(n, across.dtype)
    for r in range(pixels.shape[0]):
        row = pixels[r]
        for j in range(half):
            weighted_sum(waves[j, :half], across[r, :half], even)
            weighted_sum(waves[j, half:], across[r, half:], odd)
            unfold(even, odd, row[j : j + n], row[side - 1 - j : side - 1 - j + n])


@compiled
def weighted_sum(weights, rows, out):
    """out[x] = sum_j weights[j] rows[j, x], four rows at a time."""
    out[:] = 0.0
    n_rows = weights.shape[0]
    for j in range(0, n_rows - 3, 4):
        a, b, c, d = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        first, second, third, fourth = rows[j], rows[j + 1], rows[j + 2], rows[j + 3]
        for x in range(out.shape[0]):
            out[x] += (a * first[x] + b * second[x]) + (c * third[x] + d * fourth[x])
    for j in range(n_rows - n_rows % 4, n_rows):
        weight, row = weights[j], rows[j]
        for x in range(out.shape[0]):
            out[x] += weight * row[x]


@compiled
def fold(near, far, sums, differences):
    """sums = near + far, differences = near - far."""
    for x in range(sums.shape[0]):
        sums[x] = near[x] + far[x]
        differences[x] = near[x] - far[x]


@compiled
def unfold(even, odd, near, far):
    """near += even + odd, and then far += even - odd, which may be the same numbers in part."""
    for x in range(even.shape[0]):
        near[x] += even[x] + odd[x]
    for x in range(even.shape[0]):
        far[x] += even[x] - odd[x]


@compiled
def largest(joint, best, labels):
    """labels[x] = the first k at which joint[k, x] is largest, and best[x] = that value."""
    for x in range(joint.shape[1]):
        best[x], labels[x] = joint[0, x], 0
    for k in range(1, joint.shape[0]):
        row = joint[k]
        for x in range(joint.shape[1]):
            if row[x] > best[x]:
                best[x], labels[x] = row[x], k


@compiled
def weigh(gains, labels, out):
    """out[f, x] <- gains[f, labels[x]] out[f, x]; quickest with labels of uint32."""
    for f in range(out.shape[0]):
        gain, row = gains[f], out[f]
        for x in range(out.shape[1]):
            row[x] *= gain[labels[x]]
