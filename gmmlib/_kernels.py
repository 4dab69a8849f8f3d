"""The compiled loops, and the only importer of numba.

A kernel is here because a timing says so: ``make bench`` sets each beside its numpy twin.
Kernels check nothing, write into arrays the caller owns, add up in the order of their indices,
and release the interpreter lock so that chunks of rows can run side by side.
"""

import numpy as np
from numba import njit

# exp(-40) is below half a unit in the last place of 1: what it leaves out cannot be seen in float64.
NEGLIGIBLE = 40.0


@njit(cache=True, nogil=True, error_model="numpy")
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
