r"""Log joints of full-covariance Gaussians, exact, from as few products as they need.

**The bound.** Write the precision of component k as :math:`W_k^\top W_k` with a lower triangular
:math:`W_k`, the inverse of the Cholesky factor of its covariance.  A sample's log joint is then

.. math:: \ell_k(y) = c_k - \tfrac12 \sum_{i=1}^{D} u_{ki}^2, \qquad u_k = W_k (y - m_k),
          \qquad c_k = \log \pi_k + \sum_i \log W_{k,ii} - \tfrac D2 \log 2\pi .

The i-th whitened coordinate needs only the first i coordinates of the sample.  So after d of them

.. math:: b_k(d) = c_k - \tfrac12 \sum_{i \le d} u_{ki}^2 \;\ge\; \ell_k(y),

an upper bound that falls to the log joint itself at d = D.  With L a lower bound on the best log joint, here
that of the component that won the sample last time, a component is dropped as soon as
:math:`b_k(d) < L - 40`.

**Why 40 nats are enough.** A dropped component holds less than exp(-40) = 4e-18 of the largest term of the
sum over components, 1/52 of the spacing of float64 at 1: below rounding for any number of them in use.

**Why it pays.** In the principal axes of the data most components are 40 nats behind after a few dozen of
several hundred coordinates.  They are read in blocks: one matrix product each over the rows that are left.

Partial distance search is Bei and Gray's (IEEE Trans. Commun. 1985); E-steps that leave components out are
Neal and Hinton's (1998), approximate ones Forster and Luecke's (arXiv:1711.03431) and Salwig et al.'s
(arXiv:2501.12299).
"""

from typing import NamedTuple

import numpy as np

from gmmlib import _kernels
from gmmlib.full import triangular

ENDS = (48, 96, 160, 240, 320, 400, 480, 560, 640)  # where blocks of coordinates end; the last ends at D
SMALL = 72  # up to here one block, without any search, is faster
ROWS_AT_ONCE = 512  # rows gathered for a product: enough for BLAS, few for the memory


class Whiteners(NamedTuple):
    """K Gaussians in the form that `log_joint` reads; build them with `allocate` and `put`."""

    blocks: list  # of (start, end) coordinates
    triangles: np.ndarray  # W of every component, as `triangular.member` finds them
    first: np.ndarray  # (D_1, K D_1), the first blocks, transposed, side by side
    offsets: np.ndarray  # (K, D)  W m
    constants: np.ndarray  # (K,)  c, nats
    tied: bool = False  # whether all W are the first one's, as at a random start: one product serves all


def allocate(n_components, dimension):
    """Make room for K whiteners of D coordinates."""
    ends = [end for end in ENDS if end < 0.93 * dimension] if dimension > SMALL else []
    blocks = list(zip([0, *ends], [*ends, dimension], strict=True))
    width = blocks[0][1]
    sides = (width, n_components * width), (n_components, dimension), n_components
    return Whiteners(blocks, triangular.allocate(n_components, dimension), *map(np.empty, sides))


def put(whiteners, k, weight, mean, covariance):
    """Set component k to a Gaussian; the arguments are those of `factorise`, and its covariance (D, D)."""
    lower = np.tri(len(mean), dtype=bool)
    np.copyto(triangular.member(whiteners.triangles, k), covariance, where=lower)
    factorise(whiteners, k, weight, mean)


def factorise(whiteners, k, weight, mean):
    """Whiten component k, of a weight and a mean (D,), in place; its covariance is in its triangle already.

    numpy.linalg.LinAlgError if the covariance is not positive definite in float64.
    """
    W = triangular.member(whiteners.triangles, k)
    triangular.cholesky(W)
    triangular.invert(W)
    half = 0.5 * len(mean) * np.log(2 * np.pi)
    with np.errstate(divide="ignore"):
        whiteners.constants[k] = np.log(weight) + np.log(W.diagonal()).sum() - half
    whiteners.offsets[k] = mean
    triangular.multiply(W, whiteners.offsets[k : k + 1])
    width = whiteners.blocks[0][1]
    whiteners.first[:, k * width : (k + 1) * width] = np.tril(W[:width, :width]).T


def inverse_cholesky(covariance):
    """Lower triangular W with W^T W the inverse of the covariance; LinAlgError if there is none."""
    W = np.tril(covariance)
    triangular.cholesky(W)
    triangular.invert(W)
    return W


def root(whiteners, k):
    """Lower triangular L with L L^T the covariance of component k: the inverse of its W, (D, D)."""
    lower = triangle(whiteners, k)
    triangular.invert(lower)
    return lower


def triangle(whiteners, k):
    """W of component k, (D, D), lower triangular."""
    return np.tril(triangular.member(whiteners.triangles, k))


def whitened(Y, whiteners, k):
    """W y of samples Y (n, D) under component k, a new array (n, D): residuals but for the offset W m."""
    dimension = Y.shape[1]
    if whiteners.blocks[0][1] == dimension:
        return Y @ whiteners.first[:, k * dimension : (k + 1) * dimension]
    out = np.array(Y, order="C")
    triangular.multiply(triangular.member(whiteners.triangles, k), out)
    return out


def log_joint(Y, whiteners, guess=None, out=None, everything=False):
    """Log weight plus log density (n, K) of samples Y (n, D) under each component, dropped ones -inf, nats.

    Every component within 40 nats of a sample's best is exact.  `guess` (n,) is a component for each sample
    that is likely its best (by default that of the best bound after the first block): the better, the less
    work.  With `everything` nothing is dropped.
    """
    n_rows, n_components = len(Y), len(whiteners.constants)
    out = np.empty((n_rows, n_components)) if out is None else out
    (_all_tied if whiteners.tied else _first_block)(Y, whiteners, out)
    out *= -0.5
    out += whiteners.constants
    if whiteners.tied or len(whiteners.blocks) == 1:
        return out

    buffer = np.empty(ROWS_AT_ONCE * Y.shape[1])
    if everything:
        for k in range(n_components):
            score(Y, whiteners, k, np.arange(n_rows), out, buffer)
        return out
    guess = out.argmax(axis=1) if guess is None else guess
    for k in range(n_components):
        score(Y, whiteners, k, np.flatnonzero(guess == k), out, buffer)
    needed = out[np.arange(n_rows), guess] - _kernels.NEGLIGIBLE
    for k in range(n_components):
        undecided = guess != k
        hopeless = undecided & (out[:, k] <= needed)
        rows = np.flatnonzero(undecided & ~hopeless)
        out[hopeless, k] = -np.inf
        _search(Y, whiteners, k, rows, needed, out, buffer)
        needed[rows] = np.maximum(needed[rows], out[rows, k] - _kernels.NEGLIGIBLE)
    return out


def _all_tied(Y, whiteners, out):
    """Squared whitened distance over all coordinates to components of one covariance, (n, K)."""
    W = triangular.member(whiteners.triangles, 0)
    for start in range(0, len(Y), ROWS_AT_ONCE):
        whitened = np.array(Y[start : start + ROWS_AT_ONCE], order="C")
        triangular.multiply(W, whitened)
        _kernels.distances_to(whitened, whiteners.offsets, out[start : start + len(whitened)])


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


def occupied(values):
    """For each column of values (n, K) the rows where it is not 0, K arrays; one pass over the rows."""
    counts = np.empty(values.shape[1], dtype=np.intp)
    _kernels.count_columns(values, counts)
    rows, ends = np.empty(counts.sum(), dtype=np.intp), np.cumsum(counts)
    _kernels.list_columns(values, ends - counts, rows)
    return np.split(rows, ends[:-1])


def score(Y, whiteners, k, rows, out, buffer):
    """Write the log joint of component k for some rows; the buffer has room for ROWS_AT_ONCE of them."""
    W, dimension = triangular.member(whiteners.triangles, k), Y.shape[1]
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        batch = rows[begin : begin + ROWS_AT_ONCE]
        whitened = buffer[: len(batch) * dimension].reshape(len(batch), dimension)
        _kernels.gather(Y, batch, whitened)
        triangular.multiply(W, whitened)
        _kernels.score(whitened, whiteners.offsets[k], batch, whiteners.constants[k], out[:, k])


def _search(Y, whiteners, k, rows, needed, out, buffer):
    """Follow component k block by block; write its log joint where it survives, else -inf."""
    W, constant = triangular.member(whiteners.triangles, k), whiteners.constants[k]
    so_far = 2 * (constant - out[rows, k])
    out[rows, k] = -np.inf
    for start, end in whiteners.blocks[1:]:
        n_left = 0
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            batch, distance = rows[begin : begin + ROWS_AT_ONCE], so_far[begin : begin + ROWS_AT_ONCE]
            before, whitened = (
                buffer[len(batch) * first : len(batch) * last].reshape(len(batch), last - first)
                for first, last in ((0, start), (start, end))
            )
            _kernels.gather(Y[:, :start], batch, before)
            _kernels.gather(Y[:, start:end], batch, whitened)
            triangular.multiply(W[start:end, start:end], whitened)
            triangular.add_product(whitened, before, W[start:end, :start])
            count = _kernels.advance(
                whitened, whiteners.offsets[k, start:end], batch, distance, constant, needed
            )
            rows[n_left : n_left + count], so_far[n_left : n_left + count] = batch[:count], distance[:count]
            n_left += count
        rows, so_far = rows[:n_left], so_far[:n_left]
    out[rows, k] = constant - 0.5 * so_far
