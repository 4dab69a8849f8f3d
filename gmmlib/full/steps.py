"""The steps of exact EM for mixtures of Gaussians with full covariances.

The samples are rotated once into their principal axes, and columns that never vary are set aside; both leave
every density as it is.  There the E-step drops components that are provably out of reach (see
`gmmlib.full.whitening`), and the moments of a component take the samples whose posterior is not 0 alone.

With ``w[n]`` the row weights, ``r[n, k]`` the posteriors and ``m[k]`` the means of the parameters that gave
them, the E-step leaves sums over rows, which add,

- ``mass[k] = sum_n w[n] r[n, k]`` and ``first[k] = sum_n w[n] r[n, k] x[n]``,
- ``second[k] = sum_n w[n] r[n, k] (x[n] - m[k]) (x[n] - m[k])'``, about means, so that no digits are lost,

and the M-step makes of them

- ``weights[k] = mass[k] / sum_k mass[k]``, ``means[k] = first[k] / mass[k]``, or 0;
- ``covariances[k] = second[k] / mass[k] - d[k] d[k]' + reg_covar I`` with ``d = means - m``.
"""

from collections import deque
from typing import NamedTuple

import numpy as np

from gmmlib import _kernels, posterior
from gmmlib.em.workers import Workers, joined
from gmmlib.full import triangular, whitening

BLOCK_SIZE = 4096  # rows scored at a time
LEAF = 16 * BLOCK_SIZE  # rows whose posteriors are held, and whose moments are summed in order
EMPTY = 1e-10  # share of the weight below which a component has no samples left
REMEDIES = (
    "Set reg_covar above 0 (it is added to every variance, in squared units of the data), drop such "
    "columns, or ask for fewer components."
)
ROWS_AT_ONCE = 512  # rows of a component gathered for one rank-k update
WORTH_A_THREAD = 1_000_000  # multiplications above which handing work to threads pays


class Axes(NamedTuple):
    """Coordinates in which a component's first few tell most: y = (x - centre)[kept] @ axes."""

    centre: np.ndarray  # (D,)
    kept: np.ndarray  # (D,) of bool; the other columns are the centre's in every sample
    axes: np.ndarray | None  # (D', D') orthonormal columns by falling variance; None for the identity

    def rotate(self, X):
        """Samples (n, D) to coordinates (n, D')."""
        Y = np.subtract(X, self.centre, dtype=np.float64)
        if not self.kept.all():
            Y = Y[:, self.kept]
        return Y if self.axes is None else Y @ self.axes


class Parameters(NamedTuple):
    """What an M-step hands to the E-step."""

    weights: np.ndarray  # (K,)
    means: np.ndarray  # (K, D'), coordinates of `axes`
    whiteners: whitening.Whiteners
    axes: Axes
    constant: float  # log density of the columns set aside, the same for every component, nats


class Statistics(NamedTuple):
    """What an E-step leaves of its rows; the fields of two sets of rows add."""

    mass: np.ndarray  # (K,)
    first: np.ndarray  # (K, D')
    second: np.ndarray  # as `triangular.allocate` makes it: lower triangles (D', D') of K components
    log_likelihood: float  # sum_n w[n] log p(x_n), nats
    weight: float  # sum_n w[n]


class Moments(NamedTuple):
    """Of some rows, up to the first."""

    mass: np.ndarray  # (K,)
    first: np.ndarray  # (K, D')


def side_by_side(workers, function, items, multiplications):
    """Call a function for each item, on threads if the work is worth one."""
    deque(
        workers.each(function, items) if multiplications > WORTH_A_THREAD else map(function, items), maxlen=0
    )


def principal_axes(second_moment, centre, kept):
    """Axes of falling variance of a (D', D') second moment about the centre."""
    if len(second_moment) <= whitening.SMALL:
        return Axes(centre, kept, None)  # one block holds all coordinates: their order does not matter
    return Axes(centre, kept, np.ascontiguousarray(np.linalg.eigh(second_moment)[1][:, ::-1]))


def data_axes(X, weight, zero_means, workers):
    """Principal axes of weighted samples about their mean (or 0), without the columns that never vary."""
    centre = np.zeros(X.shape[1]) if zero_means else weight @ X / weight.sum()
    first = np.zeros(X.shape[1]) if zero_means else np.asarray(X[0], dtype=np.float64)
    kept = np.zeros(X.shape[1], dtype=bool)
    for varies in workers.map(lambda rows: (X[rows] != first).any(axis=0), len(X)):
        kept |= varies
    centre[~kept] = first[~kept]
    if kept.sum() <= whitening.SMALL:
        return Axes(centre, kept, None)
    plain = Axes(centre, kept, None)
    every = max(1, len(X) // (10 * X.shape[1]))  # any axes are exact, so some of the rows will do

    def moment(rows):
        Y = plain.rotate(X[rows][::every])
        Y *= np.sqrt(weight[rows][::every])[:, None]
        return Y.T @ Y

    return principal_axes(workers.sum(moment, len(X)), centre, kept)


def first_moments(Y, resp, workers):
    """`Moments` of samples (N, D'), from posteriors (N, K) times row weights."""
    return workers.sum(lambda rows: Moments(resp[rows].sum(axis=0), resp[rows].T @ Y[rows]), len(Y))


def second_moment_into(matrix, Y, resp, about, rows):
    """Write the second moment of some rows of the samples about a point, from posteriors (N,).

    Only the lower triangle of the matrix (D', D') is written.
    """
    gathered = np.empty((min(ROWS_AT_ONCE, len(rows)), Y.shape[1]))
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        batch = rows[begin : begin + ROWS_AT_ONCE]
        centred = gathered[: len(batch)]
        _kernels.gather_centred(Y, batch, about, resp, 1.0, centred)
        triangular.add_gram(matrix, centred, fresh=begin == 0)
    if not len(rows):
        np.copyto(matrix, 0.0, where=np.tri(len(matrix), dtype=bool))


def e_step(posteriors, Y, weight, about, workers, room=None):
    """`Statistics` of samples Y (N, D') with row weights (N,); second moments are about points (K, D').

    `posteriors`, called with a slice of rows and a place (n, K), fills it with their posteriors times row
    weights and returns their weighted log-likelihood, nats.  `room` is what `triangular.allocate` made, for
    second moments.
    """
    n_components, dimension = about.shape
    resp = np.empty((min(LEAF, len(Y)), n_components))

    def leaf(start):
        samples, shares = Y[start : start + LEAF], resp[: len(Y) - start]
        second = triangular.allocate(n_components, dimension) if start or room is None else room

        def fill(rows):
            return posteriors(slice(start + rows.start, start + rows.stop), shares[rows])

        def update(k):
            second_moment_into(triangular.member(second, k), samples, shares[:, k], about[k], rows[k])

        log_likelihood = workers.sum(fill, len(samples))
        rows = whitening.occupied(shares)
        mass, first = first_moments(samples, shares, workers)
        # The longest first, so that no thread is left with one at the end; the order changes no digit.
        longest_first = np.argsort(-mass, kind="stable")
        side_by_side(workers, update, longest_first, samples.size * dimension)
        return Statistics(mass, first, second, log_likelihood, weight[start : start + LEAF].sum())

    return joined(leaf(start) for start in range(0, len(Y), LEAF))


def survivors(mass, min_weight):
    """Which components stay, (K,) of bool: those of at least `min_weight` of the mass, and the heaviest."""
    # A weight that is a count of samples often is the limit itself, but for the last bit.
    stays = mass / mass.sum() >= (1 - posterior.TIE) * min_weight
    stays[posterior.falling(mass)[0]] = True
    return stays


def m_step(statistics, about, whiteners, stays, reg_covar, zero_means, workers):
    """Weights (K,) and means (K, D') of the largest expected log joint; covariances, whitened, in place.

    `statistics` have second moments about the points `about`; `whiteners` have room for the components that
    stay, whose numbers are `stays`.  The weight is 0 of a component without samples, whose place is left as
    it was.
    """
    mass, first = statistics.mass[stays], statistics.first[stays]
    weights = mass / mass.sum()
    empty = weights <= EMPTY
    if empty.any():  # the others take the little that is left there
        weights[empty] = 0.0
        weights /= weights.sum()
    means = np.zeros_like(first)
    if not zero_means:
        np.divide(first, mass[:, None], out=means, where=~empty[:, None])

    def update(k):
        if empty[k]:
            return
        matrix = triangular.member(whiteners.triangles, k)
        second, difference = triangular.member(statistics.second, stays[k]), means[k] - about[stays[k]]
        _kernels.covariance(second, mass[k], difference, reg_covar, matrix)
        factorise(whiteners, k, weights[k], means[k])

    side_by_side(workers, update, range(len(weights)), len(weights) * first.shape[1] ** 3)
    return weights, means


def factorise(whiteners, k, weight, mean, covariance=None):
    """Whiten one component, or say why it cannot be done; its covariance stands there or is given."""
    try:
        if covariance is None:
            whitening.factorise(whiteners, k, weight, mean)
        else:
            whitening.put(whiteners, k, weight, mean, covariance)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"The covariance of component {k} is singular: its samples lie on a hyperplane, are too few "
            f"for {len(mean)} dimensions, or columns repeat each other. {REMEDIES}"
        ) from None


def revive(whiteners, weights, means, empty, zero_means):
    """Re-initialise empty components in place by splitting the heaviest, a little off its mean or wider."""
    for k in empty:
        heaviest = posterior.falling(weights)[0]
        weights[[k, heaviest]] = weights[heaviest] / 2
        lower = whitening.root(whiteners, heaviest)
        covariance = lower @ lower.T
        means[k] = means[heaviest]
        if zero_means:
            factorise(whiteners, k, weights[k], means[k], 1.5 * covariance)
        else:
            means[k] += 0.5 * lower[:, 0] if len(lower) else 0.0
            factorise(whiteners, k, weights[k], means[k], covariance)
        factorise(whiteners, heaviest, weights[heaviest], means[heaviest], covariance)


def unrotated(parameters):
    """Means (K, D) in the columns of the data."""
    axes, centres = parameters.axes, parameters.means
    means = np.tile(axes.centre, (len(centres), 1))
    means[:, axes.kept] += centres if axes.axes is None else centres @ axes.axes.T
    return means


def columns(parameters, reg_covar, workers):
    """Weights (K,), means (K, D) and covariances (K, D, D) in the columns of the data."""
    weights, _, whiteners, axes, _ = parameters
    means, dimension = unrotated(parameters), len(axes.centre)
    rotation = np.eye(int(axes.kept.sum())) if axes.axes is None else axes.axes
    covariances = np.zeros((len(weights), dimension, dimension))
    inside = np.ix_(axes.kept, axes.kept)

    def rotate_back(k):
        covariances[k].flat[:: dimension + 1] = reg_covar
        lower = rotation @ whitening.root(whiteners, k)
        covariances[k][inside] = lower @ lower.T

    side_by_side(workers, rotate_back, range(len(weights)), len(weights) * dimension**3)
    return weights.copy(), means, covariances


def rotated(weights, means, covariances):
    """Parameters in the principal axes of the mixture itself; a function of the arguments alone."""
    centre = weights @ means
    difference = means - centre
    n_components, dimension = means.shape
    whiteners = whitening.allocate(n_components, dimension)
    with Workers(1, 1) as workers:  # BLAS of one thread throughout: its number changes no digit
        total = np.tensordot(weights, covariances, 1) + (difference.T * weights) @ difference
        axes = principal_axes(total, centre, np.ones(dimension, dtype=bool))
        centres = axes.rotate(means)

        def put(k):
            covariance = covariances[k]
            if axes.axes is not None:
                covariance = axes.axes.T @ covariance @ axes.axes
            whitening.put(whiteners, k, weights[k], centres[k], covariance)

        side_by_side(workers, put, range(n_components), n_components * dimension**3)
    return Parameters(weights, centres, whiteners, axes, 0.0)


def normalised(joint, beta=1.0):
    """Posteriors (n, K), in place and raised to beta, and log-likelihoods (n,) of log joints."""
    evidence = np.empty(len(joint))
    posterior.normalise(joint, np.zeros(joint.shape[1]), evidence, beta)
    return joint, evidence
