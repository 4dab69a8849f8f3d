r"""Log joints of full-covariance Gaussians, exact, from as few products as they need.

**The bound.** Write the precision of component k as :math:`W_k^\top W_k` with a lower triangular
:math:`W_k`, the inverse of the Cholesky factor of its covariance.  A sample's log joint is then

.. math:: \ell_k(y) = c_k - \tfrac12 \sum_{i=1}^{D} u_{ki}^2, \qquad u_k = W_k (y - m_k),
          \qquad c_k = \log \pi_k + \sum_i \log W_{k,ii} - \tfrac D2 \log 2\pi .

The i-th whitened coordinate needs only the first i coordinates of the sample, and every further one
can only lower the sum.  So after d coordinates

.. math:: b_k(d) = c_k - \tfrac12 \sum_{i \le d} u_{ki}^2 \;\ge\; \ell_k(y),

an upper bound that falls to the log joint itself at d = D.  Let L be a lower bound on the best log
joint, here that of the component that won the sample last time.  As soon as
:math:`b_k(d) < L - 40` the component is dropped.

**Why 40 nats are enough.** A dropped component holds less than exp(-40) = 4e-18 of the largest term of
the sum over components, 1/52 of the spacing of float64 at 1.  Leaving K of them out changes the
log-likelihood by less than 4e-18 K nats: below rounding for any K in use.  A posterior of a dropped
component is exactly 0.  Nothing here is approximate beyond float64 itself.

**Why it pays.** In the principal axes of the data, where the first coordinates hold most of the
variance, most components are 40 nats behind after a few dozen of several hundred coordinates.  The
coordinates are read in blocks, so that each step is one matrix product over the rows that are left.

Partial distance search is Bei and Gray's (IEEE Trans. Commun. 1985); E-steps that leave components out
are Neal and Hinton's (1998), and approximate ones Forster and Luecke's (arXiv:1711.03431) and Salwig et
al.'s (arXiv:2501.12299).  This one leaves out only what cannot be seen.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg.lapack import dtrtri

from gmmlib import _kernels

ENDS = (48, 96, 160, 240, 320, 400, 480, 560, 640)  # where blocks of coordinates end; the last ends at D
SMALL = 72  # up to here one block, without any search, is faster
LEAF = 96  # triangular matrices up to this size are inverted by LAPACK
ROWS_AT_ONCE = 512  # rows gathered for a product: enough for BLAS, few for the memory


class Whiteners(NamedTuple):
    """K Gaussians in the form that `log_joint` reads; build them with `allocate` and `put`."""

    blocks: list  # of (start, end) coordinates
    panels: list  # a block: (K, end, end - start), W[start:end, :end] transposed
    first: np.ndarray  # (D_1, K D_1), the first panels side by side
    offsets: np.ndarray  # (K, D)  W m
    constants: np.ndarray  # (K,)  c, nats


def allocate(n_components, dimension):
    """Make room for K whiteners of D coordinates."""
    ends = [end for end in ENDS if end < 0.93 * dimension] if dimension > SMALL else []
    blocks = list(zip([0, *ends], [*ends, dimension], strict=True))
    panels = [np.empty((n_components, end, end - start)) for start, end in blocks]
    width = blocks[0][1]
    first = np.empty((width, n_components * width))
    return Whiteners(blocks, panels, first, np.empty((n_components, dimension)), np.empty(n_components))


def put(whiteners, k, weight, mean, covariance):
    """Factorise component k.

    Parameters
    ----------
    whiteners : Whiteners
        Changed in place.
    k : int
    weight : float
    mean : ndarray, (D,)
    covariance : ndarray, (D, D)

    Raises
    ------
    numpy.linalg.LinAlgError
        If the covariance is not positive definite in float64.
    """
    W = inverse_cholesky(covariance)
    dimension = len(mean)
    with np.errstate(divide="ignore"):
        whiteners.constants[k] = (
            np.log(weight) + np.log(W.diagonal()).sum() - 0.5 * dimension * np.log(2 * np.pi)
        )
    whiteners.offsets[k] = W @ mean
    for (start, end), panel in zip(whiteners.blocks, whiteners.panels, strict=True):
        panel[k] = W[start:end, :end].T
    width = whiteners.blocks[0][1]
    whiteners.first[:, k * width : (k + 1) * width] = whiteners.panels[0][k]


def inverse_cholesky(covariance):
    """Lower triangular W with W^T W the inverse of the covariance; LinAlgError if there is none."""
    lower = np.linalg.cholesky(covariance)
    if not np.isfinite(lower).all():
        raise np.linalg.LinAlgError("the covariance is not finite")
    return inverse_triangle(lower)


def inverse_triangle(lower):
    """Inverse of a lower triangular matrix, in its place.

    By halves, for products let other threads run, which scipy's LAPACK calls do not.
    """
    size = len(lower)
    if size > LEAF:
        top, bottom, corner = np.s_[: size // 2], np.s_[size // 2 :], lower[size // 2 :, : size // 2]
        inverse_triangle(lower[top, top])
        inverse_triangle(lower[bottom, bottom])
        corner[...] = lower[bottom, bottom] @ (corner @ lower[top, top])
        corner *= -1
    elif size:  # LAPACK refuses to do nothing
        lower[...] = dtrtri(lower, lower=1)[0]
    return lower


def triangle(whiteners, k):
    """Put the panels of component k together again: W, (D, D), lower triangular."""
    dimension = whiteners.offsets.shape[1]
    W = np.zeros((dimension, dimension))
    for (start, end), panel in zip(whiteners.blocks, whiteners.panels, strict=True):
        W[start:end, :end] = panel[k].T
    return W


def log_joint(Y, whiteners, guess=None, out=None, everything=False):
    """Log weight plus log density of samples under each component, dropped ones -inf.

    Parameters
    ----------
    Y : ndarray, (n, D)
        Samples in the coordinates of the whiteners.
    whiteners : Whiteners
    guess : ndarray of int, (n,), optional
        A component for each sample that is likely its best; the better, the less work. By default
        the one of the best bound after the first block.
    out : ndarray, (n, K), optional
    everything : bool
        Drop nothing.

    Returns
    -------
    ndarray, (n, K)
        Nats.  Every component within 40 nats of a sample's best is exact; others may be -inf.
    """
    n_rows, n_components = len(Y), len(whiteners.constants)
    out = np.empty((n_rows, n_components)) if out is None else out
    _first_block(Y, whiteners, out)
    out *= -0.5
    out += whiteners.constants
    if len(whiteners.blocks) == 1:
        return out
    _, dimension = whiteners.offsets.shape
    gathered = np.empty(ROWS_AT_ONCE * dimension)
    product = np.empty(ROWS_AT_ONCE * max(end - start for start, end in whiteners.blocks[1:]))

    buffers = gathered, product
    needed = np.full(n_rows, -np.inf)
    if everything:
        for k in range(n_components):
            _finish(Y, whiteners, k, np.arange(n_rows), needed, out, buffers)
        return out
    guess = out.argmax(axis=1) if guess is None else guess
    for k in range(n_components):
        _finish(Y, whiteners, k, np.flatnonzero(guess == k), needed, out, buffers)
    needed = out[np.arange(n_rows), guess] - _kernels.NEGLIGIBLE
    for k in range(n_components):
        undecided = guess != k
        hopeless = undecided & (out[:, k] <= needed)
        rows = np.flatnonzero(undecided & ~hopeless)
        out[hopeless, k] = -np.inf
        _finish(Y, whiteners, k, rows, needed, out, buffers)
        needed[rows] = np.maximum(needed[rows], out[rows, k] - _kernels.NEGLIGIBLE)
    return out


def _first_block(Y, whiteners, out):
    """Squared whitened distance over the first block, (n, K)."""
    _, width = whiteners.blocks[0]
    n_components = len(whiteners.constants)
    step = max(1, 512 * 512 // max(whiteners.first.shape[1], 1))
    product = np.empty((min(step, len(Y)), whiteners.first.shape[1]))
    offsets = np.ascontiguousarray(whiteners.offsets[:, :width])
    for start in range(0, len(Y), step):
        rows = Y[start : start + step, :width]
        whitened = np.matmul(rows, whiteners.first, out=product[: len(rows)])
        _kernels.distances(whitened, offsets, out[start : start + step, :n_components])


def _finish(Y, whiteners, k, rows, needed, out, buffers):
    """Follow component k through the other blocks; write its log joint where it survives, else -inf."""
    if whiteners.constants[k] == -np.inf:  # of no weight
        return
    gathered, product = buffers
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        left = rows[begin : begin + ROWS_AT_ONCE]
        so_far = 2 * (whiteners.constants[k] - out[left, k])
        out[left, k] = -np.inf
        nothing_drops = needed[left[0]] == -np.inf
        if nothing_drops:  # then the samples are copied once, not once a block
            whole = gathered[: len(left) * Y.shape[1]].reshape(len(left), -1)
            _kernels.gather(Y, left, whole)
        for block, (start, end) in enumerate(whiteners.blocks[1:], 1):
            if not len(left):
                break
            if nothing_drops:
                samples = whole[:, :end]
            else:
                samples = gathered[: len(left) * end].reshape(len(left), end)
                _kernels.gather(Y, left, samples)
            whitened = product[: len(left) * (end - start)].reshape(len(left), end - start)
            np.matmul(samples, whiteners.panels[block][k], out=whitened)
            count = _kernels.advance(
                whitened, whiteners.offsets[k, start:end], left, so_far, whiteners.constants[k], needed
            )
            left, so_far = left[:count], so_far[:count]
        out[left, k] = whiteners.constants[k] - 0.5 * so_far
