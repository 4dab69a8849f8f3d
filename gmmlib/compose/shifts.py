r"""A shift of the whole image as one more latent variable, above the root of a tree.

.. math:: p(x) = \sum_\tau \rho_\tau\, p_\text{tree}(T_{-\tau} x)

with :math:`T_\tau` a shift around the torus, which permutes the pixels, so that this is a density.  The first
axis of arrays here is that of the S shifts; with one of them all is as without.
"""

import numpy as np

from gmmlib import _kernels, posterior
from gmmlib.compose import messages


def move(images, offset):
    """Move images (..., H, W) around the torus, by pixels down and to the right."""
    return np.roll(images, offset, axis=(-2, -1)) if any(offset) else images


def move_back(images, offset):
    """The inverse of `move`."""
    return move(images, [-pixels for pixels in offset])


def log_joint(joints, weights):
    """Log joints (n, T) of images and states of the root, from those (S, n, T) of images moved back."""
    return np.logaddexp.reduce(joints + messages.logs(weights)[:, None, None], axis=0)


def share(evidence, weights):
    """Posteriors (S, n) of shifts and the log-likelihood (n,), from those of images moved back, (S, n)."""
    joint = np.ascontiguousarray(evidence.T + messages.logs(weights))
    total = np.empty(len(joint))
    _kernels.normalise(joint, np.zeros(len(weights)), total)
    return joint.T, total


def posteriors(parameters, shift_weights, log_density, weight, of_patches=True):
    """What n images are taken for, from log densities (C, n, K) of their patches under each shift.

    Returns
    -------
    share : ndarray, (S, n)
        Posteriors of shifts.
    evidence : ndarray, (n,)
        Log-likelihood, nats.
    under : list of messages.Posteriors
        Of the cells under each shift, with `weight` (n,) times its posterior for row weights.
    """
    upward = [messages.upward(parameters, of_shift) for of_shift in log_density]
    under_shifts = np.stack([messages.normalise(joint) for _, joint in upward])
    shares, evidence = share(under_shifts, shift_weights)
    under = [
        messages.downward(levels, root, weight * own, of_patches)
        for (levels, root), own in zip(upward, shares, strict=True)
    ]
    return shares, evidence, under


def draw(chances, rng):
    """Draw a shift from each column of chances (S, n), which need not sum to 1: (n,)."""
    if len(chances) == 1:
        return np.zeros(chances.shape[1], dtype=np.intp)
    return posterior.draw(chances.T, rng)
