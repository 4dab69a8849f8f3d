"""The compiled loops over all overlapping patches of an image, none of which is ever cut out.

A transform of square patches with separable waves goes first across and then down: what it makes of a row of
pixels serves all patches that share the row.  Coefficients of neighbouring patches are neighbours in memory,
so that the innermost loops run along rows of the image, in vector instructions.

They obey the rules of `gmmlib._loops`.
"""

from gmmlib._compiled import compiled


@compiled
def add_four(weights, first, second, third, fourth, out):
    """out[x] += sum_i weights[i] rows_i[x] over four rows, in two pairs."""
    a, b, c, d = weights[0], weights[1], weights[2], weights[3]
    for x in range(out.shape[0]):
        out[x] += (a * first[x] + b * second[x]) + (c * third[x] + d * fourth[x])


@compiled
def add_one(weight, row, out):
    """out[x] += weight row[x]."""
    for x in range(out.shape[0]):
        out[x] += weight * row[x]


@compiled
def transform_across(pixels, waves, out):
    """out[v, r, x] = sum_j waves[j, v] pixels[r, x + j]."""
    side, n = waves.shape[0], out.shape[2]
    for v in range(side):
        wave = waves[:, v]
        for r in range(pixels.shape[0]):
            row, total = pixels[r], out[v, r]
            total[:] = 0.0
            for j in range(0, side - 3, 4):
                a, b, c, d = row[j : j + n], row[j + 1 : j + 1 + n], row[j + 2 : j + 2 + n], row[j + 3 : j + 3 + n]
                add_four(wave[j : j + 4], a, b, c, d, total)
            for j in range(side - side % 4, side):
                add_one(wave[j], row[j : j + n], total)


@compiled
def transform_down(across, waves, top, left, out):
    """out[u, v, x] = sum_i waves[i, u] across[v, top + i, left + x]."""
    side, n = waves.shape[0], out.shape[2]
    right = left + n
    for v in range(side):
        rows = across[v]
        for u in range(side):
            wave, total = waves[:, u], out[u, v]
            total[:] = 0.0
            for i in range(0, side - 3, 4):
                r = top + i
                a, b, c, d = rows[r, left:right], rows[r + 1, left:right], rows[r + 2, left:right], rows[r + 3, left:right]
                add_four(wave[i : i + 4], a, b, c, d, total)
            for i in range(side - side % 4, side):
                add_one(wave[i], rows[top + i, left:right], total)


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
    """out[f, x] <- gains[f, labels[x]] out[f, x]."""
    for f in range(out.shape[0]):
        gain, row = gains[f], out[f]
        for x in range(out.shape[1]):
            row[x] *= gain[labels[x]]


@compiled
def back_down(coefficients, waves, top, left, across):
    """across[v, top + i, left + x] += sum_u waves[i, u] coefficients[u, v, x]: transform_down transposed."""
    side, n = waves.shape[0], coefficients.shape[2]
    for v in range(side):
        for i in range(side):
            wave, total = waves[i], across[v, top + i, left : left + n]
            for u in range(0, side - 3, 4):
                a, b, c, d = coefficients[u, v], coefficients[u + 1, v], coefficients[u + 2, v], coefficients[u + 3, v]
                add_four(wave[u : u + 4], a, b, c, d, total)
            for u in range(side - side % 4, side):
                add_one(wave[u], coefficients[u, v], total)


@compiled
def back_across(across, waves, pixels):
    """pixels[r, x + j] += sum_v waves[j, v] across[v, r, x], j by j: transform_across transposed."""
    side, n = waves.shape[0], across.shape[2]
    for r in range(pixels.shape[0]):
        for j in range(side):
            wave, total = waves[j], pixels[r, j : j + n]
            for v in range(0, side - 3, 4):
                add_four(wave[v : v + 4], across[v, r], across[v + 1, r], across[v + 2, r], across[v + 3, r], total)
            for v in range(side - side % 4, side):
                add_one(wave[v], across[v, r], total)
