r"""Expected patch log-likelihood, maximised by half-quadratic splitting (Zoran and Weiss 2011, ICCV).

A restored image x is near what was seen, y, and its patches are probable.  Each patch :math:`P_i x` gets a
companion :math:`z_i` that is near it,

.. math:: \frac{1}{2 \sigma^2} |m \cdot (x - y)|^2 \cdot D + \sum_i \Big[ \frac{\beta}{2 \sigma^2}
          |P_i x - z_i|^2 - \log p(z_i) \Big],

with m = 1 where a pixel was seen and 0 elsewhere, and D pixels in a patch, so that both terms count a pixel
equally often.  For a given x the best companions are estimates of clean patches from those of x with noise of
variance :math:`\sigma^2 / \beta`; for given companions the best x is, where seen, the mean of y and the
companions' average with weights 1 and :math:`\beta`, else that average.  The weights :math:`\beta` rise from
step to step, as in Hurault, Ehret and Arias (2018, IPOL 8).
"""

import numpy as np

from gmmlib.data import overlap
from gmmlib.em.workers import Workers

STEPS = (1.0, 4.0, 8.0, 16.0, 32.0)
BAND = 2**16  # patches that are cut out at once, in whole strips: they bound the memory
BLOCK = 4096  # patches that a thread estimates at once; blocks count from the top of a band


def denoised(image, sigma, prior, steps=STEPS):
    """Grey image (H, W) without white noise of standard deviation sigma, in its own units, by a prior."""
    restored = image
    for weight in steps:
        average = companions(restored, prior.estimator(sigma**2 / weight), prior.side)
        restored = (image + weight * average) / (1 + weight)
    return restored


def filled(image, seen, start, levels, prior):
    """Image (H, W) whose pixels that were not `seen` (bool) are estimated, from a first guess of them.

    `levels` are standard deviations that patches are thought to be off by, one a step, falling.
    """
    restored = np.where(seen, image, start)
    for level in levels:
        average = companions(restored, prior.estimator(level**2), prior.side)
        restored = np.where(seen, image, average)
    return restored


def companions(image, estimate, side):
    """Average (H, W) of the estimates of all patches of an image continued by its mirror image.

    What estimates add to the patches is summed over `side` rows of patches at a time.  A pixel is in patches
    of at most two such strips, and a sum of two numbers has no order: neither bands nor threads change a bit.
    """
    wide = overlap.mirrored(image, side)
    total = np.zeros(wide.shape)
    with Workers(1, 1) as workers:
        added = _by_strips if hasattr(estimate, "strip") else _by_blocks
        for top, strip in added(wide, estimate, side, workers):
            total[top : top + len(strip)] += strip
    return image + overlap.inner(total, side) / side**2


def _by_strips(wide, estimate, side, workers):
    """Yield the top of each strip and its sum, from an estimate that cuts no patch out."""
    tops = range(0, len(wide) - side + 1, side)
    found = workers.each(lambda top: estimate.strip(wide[top : top + 2 * side - 1]), tops)
    yield from zip(tops, found, strict=True)


def _by_blocks(wide, estimate, side, workers):
    """The same from a function of a block of patches."""
    patches = overlap.extract(wide, side)
    step = max(1, BAND // (patches.shape[1] * side)) * side
    for start in range(0, len(patches), step):
        rows = patches[start : start + step]
        cut = rows.reshape(-1, side, side)
        blocks = [slice(first, first + BLOCK) for first in range(0, len(cut), BLOCK)]
        found = workers.each(lambda block, cut=cut: estimate(cut[block]) - cut[block], blocks)
        found = np.concatenate(list(found)).reshape(rows.shape)
        for top in range(0, len(rows), side):
            strip = found[top : top + side]
            yield start + top, overlap.total(strip, (len(strip) + side - 1, wide.shape[1]))
