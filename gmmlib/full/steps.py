"""The steps of exact EM for mixtures of Gaussians with full covariances.

The samples are turned once into their principal axes, and columns that never vary are set aside; both
leave every density as it is.  In those coordinates the E-step drops components as soon as they are
provably out of reach (see `gmmlib.full.whitening`), and the M-step of a component visits only the samples
whose posterior is not 0.

With ``w[n]`` the row weights and ``r[n, k]`` the posteriors, the M-step is

- ``mass[k] = sum_n w[n] r[n, k]``, ``weights[k] = mass[k] / sum_n w[n]``;
- ``means[k] = sum_n w[n] r[n, k] x[n] / mass[k]``, or 0;
- ``covariances[k] = sum_n w[n] r[n, k] (x[n] - means[k]) (x[n] - means[k])' / mass[k] + reg_covar I``.
"""

import warnings
from collections import deque
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import euclidean_distances
from sklearn.utils import check_random_state
from sklearn.utils.extmath import row_norms
from threadpoolctl import threadpool_limits

from gmmlib import _checks, _kernels, posterior
from gmmlib.em.algorithm import Mechanism
from gmmlib.em.workers import Workers
from gmmlib.full import triangular, whitening

ASIDE = 0.1  # standard deviations between components that start at one place
EMPTY = 1e-10  # share of the weight below which a component has no samples left
REMEDIES = (
    "Set reg_covar above 0 (it is added to every variance, in squared units of the data), drop such "
    "columns, or ask for fewer components."
)
ROWS_AT_ONCE = 512  # rows of a component gathered for one rank-k update
WORTH_A_THREAD = 1_000_000  # multiplications above which handing work to threads pays
SMALL_COPY = 400_000  # numbers that may be copied at will


class Axes(NamedTuple):
    """Coordinates in which a component's first few tell most: y = (x - centre)[kept] @ axes."""

    centre: np.ndarray  # (D,)
    kept: np.ndarray  # (D,) of bool; the other columns are the centre's in every sample
    axes: np.ndarray | None  # (D', D') orthonormal columns by falling variance; None for the identity

    def turn(self, X):
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
        Y = plain.turn(X[rows][::every])
        Y *= np.sqrt(weight[rows][::every])[:, None]
        return Y.T @ Y

    return principal_axes(sum(workers.map(moment, len(X))), centre, kept)


def first_moments(Y, resp, workers):
    """Mass (K,) and sum (K, D') of the samples of each component, from posteriors (N, K)."""
    mass = sum(workers.map(lambda rows: resp[rows].sum(axis=0), len(resp)))
    return mass, sum(workers.map(lambda rows: resp[rows].T @ Y[rows], len(resp)))


def covariance_into(matrix, Y, resp, mass, mean, reg_covar):
    """Write the covariance of the samples of one component about its mean, from posteriors (N,).

    Only the rows of positive posterior are read, and only the lower triangle of the matrix (D', D') is
    written: it is all that a Cholesky factorisation looks at.
    """
    rows = np.flatnonzero(resp)
    gathered = np.empty((min(ROWS_AT_ONCE, len(rows)), Y.shape[1]))
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[begin : begin + ROWS_AT_ONCE]
        centred = gathered[: len(some)]
        _kernels.gather_centred(Y, some, mean, resp, 1 / mass, centred)
        triangular.add_gram(matrix, centred, fresh=begin == 0)
    np.einsum("ii->i", matrix)[...] += reg_covar


def apart(centres, deviation, rng):
    """Move centres (K, D) aside that coincide with an earlier one, by `ASIDE` standard deviations (D,).

    Components that start alike would be told apart by rounding alone, on each processor in another way.
    """
    for k in range(1, len(centres)):
        away = (((centres[:k] - centres[k]) / deviation) ** 2).sum(axis=1)
        if away.min() < ASIDE**2 * len(deviation):
            centres[k] += ASIDE * deviation * rng.standard_normal(len(deviation))
    return centres


def kmeans_labels(X, weight, n_components, random_state):
    """Cluster of each row by k-means, as scikit-learn's mixtures start.

    Clusters of equal size and distance are common where rows repeat each other, and which of them comes
    first must not hang on the last bits of the rows: they are rounded to 30 bits of the largest number.
    """
    if isinstance(random_state, np.random.Generator):
        random_state = int(random_state.integers(2**31))
    uniform = None if (weight == weight[0]).all() else weight
    rng = check_random_state(random_state)
    algorithm = "elkan" if n_components > 1 else "lloyd"  # the first is faster in many dimensions
    _, exponent = np.frexp(max(float(X.max()), -float(X.min())))
    rounded = np.ldexp(np.asarray(X, dtype=np.float64), 30 - exponent)
    np.rint(rounded, out=rounded)
    model = KMeans(
        n_components,
        init=lambda rows, count, random_state: spread_out(rows, weight, count, random_state),
        n_init=1,
        algorithm=algorithm,
        random_state=rng,
        copy_x=False,
    )
    # Its threads add centres in the order in which they finish: one thread, so that digits stay the same.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="openmp"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: see revive
        return model.fit(rounded, sample_weight=uniform).labels_


def spread_out(X, weight, count, random_state):
    """Rows from which k-means starts, (count, D), by greedy k-means++.

    The draws are scikit-learn's.  But where some of the rows drawn would serve equally well, it is the
    first that is taken, not one that rounding prefers.

    References
    ----------
    Arthur and Vassilvitskii (2007), SODA.
    """
    squares = row_norms(X, squared=True)

    def distances(rows):
        return euclidean_distances(X[rows], X, Y_norm_squared=squares, squared=True)

    chosen = [random_state.choice(len(X), p=weight / weight.sum())]
    nearest = distances(chosen)[0]
    for _ in range(1, count):
        upto = np.cumsum(weight * nearest)
        drawn = np.searchsorted(upto, random_state.uniform(size=2 + int(np.log(count))) * (nearest @ weight))
        drawn = np.minimum(drawn, len(X) - 1)
        within = np.minimum(nearest, distances(drawn))
        total = within @ weight
        best = int((total <= (1 + posterior.TIE) * total.min()).argmax())
        chosen.append(drawn[best])
        nearest = within[best]
    return X[chosen]


def turned(weights, means, covariances):
    """Parameters in the principal axes of the mixture itself; a function of the arguments alone."""
    centre = weights @ means
    apart = means - centre
    n_components, dimension = means.shape
    whiteners = whitening.allocate(n_components, dimension)
    with Workers(1) as workers:  # BLAS of one thread throughout, so that digits do not depend on its number
        total = np.tensordot(weights, covariances, 1) + (apart.T * weights) @ apart
        axes = principal_axes(total, centre, np.ones(dimension, dtype=bool))
        centres = axes.turn(means)

        def put(k):
            covariance = covariances[k]
            if axes.axes is not None:
                covariance = axes.axes.T @ covariance @ axes.axes
            whitening.put(whiteners, k, weights[k], centres[k], covariance)

        side_by_side(workers, put, range(n_components), n_components * dimension**3)
    return Parameters(weights, centres, whiteners, axes, 0.0)


def given(mapping, n_components, dimension, name):
    """Check weights, means and covariances from a caller or a file."""
    form = next((key for key in ("covariances", "precisions") if key in mapping), None)
    if form is None or "weights" not in mapping or "means" not in mapping:
        raise ValueError(
            f'{name} must hold "weights", "means" and "covariances" or "precisions"; got {sorted(mapping)}.'
        )
    shapes = {
        "weights": (n_components,),
        "means": (n_components, dimension),
        form: (n_components, dimension, dimension),
    }
    arrays = {}
    for key, shape in shapes.items():
        arrays[key] = _checks.parameter(mapping[key], f"{name}[{key!r}]", shape).copy()
        _checks.finite(arrays[key], f"{name}[{key!r}]")
    weights = arrays["weights"]
    if weights.min() < 0 or abs(weights.sum() - 1) > 1e-6:
        raise ValueError(
            f"{name}['weights'] must be >= 0 and sum to 1; "
            f"got {weights.min():g} at the least and the sum {weights.sum():g}."
        )
    for k, matrix in enumerate(arrays[form]):
        try:
            if not np.allclose(matrix, matrix.T, rtol=1e-8, atol=1e-12 * abs(matrix).max()):
                raise np.linalg.LinAlgError
            factor = whitening.inverse_cholesky(matrix)
        except np.linalg.LinAlgError:
            raise ValueError(
                f"{name}[{form!r}] must be symmetric and positive definite; number {k} is not. "
                "Add a small multiple of the identity."
            ) from None
        if form == "precisions":
            arrays[form][k] = factor.T @ factor
    return weights, arrays["means"], arrays[form]


def given_counts(counts, n_values, n_components, name):
    """Check the numbers of components of a stored run: one for each value of its trace, the last of now."""
    counts = np.asarray(counts)
    whole = counts.ndim == 1 and len(counts) == n_values and (counts == np.floor(counts)).all()
    if not whole or (len(counts) and (counts[-1] != n_components or (np.diff(counts) > 0).any())):
        raise ValueError(
            f"{name} must be {n_values} numbers of components, none above the one before it, the last "
            f"{n_components}; got shape {counts.shape}, {counts[-3:].tolist() if counts.ndim else counts}. "
            "Save the model again."
        )
    return counts.astype(np.int64, copy=False)


def check_state(state, weight, n_components):
    """Refuse a state of a fit that is not that of an E-step on rows of such weights (N,)."""
    if state.statistics.keys() != {"posteriors", "counts"}:
        raise ValueError(f"it must hold posteriors and counts; got {sorted(state.statistics)}.")
    posteriors, counts = state.statistics["posteriors"], state.statistics["counts"]
    if posteriors.ndim != 2 or len(posteriors) != len(weight) or not 0 < posteriors.shape[1] <= n_components:
        raise ValueError(
            f"its posteriors must have shape (N, K) for {len(weight)} rows and at most {n_components} "
            f"components; got {posteriors.shape}."
        )
    total = posteriors.sum(axis=1)
    if posteriors.dtype != np.float64 or posteriors.min() < 0 or not np.allclose(total, weight, 1e-6, 0):
        raise ValueError("its posteriors must be >= 0 and sum to the weight of each row.")
    given_counts(counts, len(state.log_likelihoods), posteriors.shape[1], "its counts")


def normalised(joint, beta=1.0):
    """Posteriors (n, K), in place and raised to beta, and log-likelihoods (n,) of log joints."""
    evidence = np.empty(len(joint))
    posterior.normalise(joint, np.zeros(joint.shape[1]), evidence, beta)
    return joint, evidence


class Run:
    """One fit: the samples in their axes, the posteriors of the last E-step, and the two steps."""

    def __init__(self, model, X, weight, workers, init):
        self.model, self.X, self.weight, self.workers, self.init = model, X, weight, workers, init
        self.zero_means = model.means == "zero"
        self.total = weight.sum()
        self.weighted = not (weight == 1).all()
        self.mechanism = Mechanism(model.mechanism, len(X), model.random_state)
        self.counts = []
        self.labels = init if isinstance(init, np.ndarray) else None
        if isinstance(init, str) and init == "kmeans":  # it copies the data, so before we do
            self.labels = kmeans_labels(X, weight, model.n_components, model.random_state)
        few = max(ROWS_AT_ONCE, SMALL_COPY // X.shape[1])  # rows: turning copies a chunk more than once
        with Workers(min(model.chunk_size, few)) as turning:
            self.axes = data_axes(X, weight, self.zero_means, turning)
            self.Y = turning.fill(
                lambda rows: self.axes.turn(X[rows]), np.empty((len(X), int(self.axes.kept.sum())))
            )
        self.n_set_aside = int((~self.axes.kept).sum())
        if self.n_set_aside and model.reg_covar == 0:
            columns = np.flatnonzero(~self.axes.kept)
            raise ValueError(
                f"X has {len(columns)} columns that never vary, the first at index {columns[0]}, so every "
                f"covariance is singular. {REMEDIES}"
            )
        self.resp = None
        self.whiteners = None

    def release(self):
        """Let go of everything of the size of the data."""
        self.X = self.Y = self.resp = None

    def state(self, resp):
        """What `resume` needs to make the M-step of these posteriors."""
        return {"posteriors": resp, "counts": np.array(self.counts)}

    def resume(self, state, file):
        """Posteriors of the last E-step of an earlier run, to go on from."""
        with file.judged():
            self.mechanism.restore(state.mechanism, len(state.log_likelihoods))
        self.counts = state.statistics["counts"].tolist()
        self.resp = state.statistics["posteriors"]
        return self.resp

    def start(self):
        """First parameters, from posteriors of 0 and 1 or from what the caller gives."""
        model, init, n_components = self.model, self.init, self.model.n_components
        if hasattr(init, "keys"):
            if init is not model.init:  # a warm start; components may have been removed before it
                n_components = len(init["weights"])
            weights, means, covariances = given(init, n_components, self.X.shape[1], "init")
            if self.zero_means and means.any():
                raise ValueError('init["means"] must be 0 everywhere with means="zero".')
            return turned(weights, means, covariances)
        if self.labels is not None:
            self.resp = np.zeros((len(self.X), n_components))
            self.resp[np.arange(len(self.X)), self.labels] = self.weight
            return self.m_step(self.resp)
        if isinstance(init, str) and init == "random_from_data":
            rng = _checks.generator(model.random_state)
            chosen = rng.choice(len(self.X), n_components, replace=False)
            mass, total = first_moments(self.Y, self.weight[:, None], self.workers)
            mean = np.zeros(self.Y.shape[1]) if self.zero_means else total[0] / mass[0]
            covariance = np.empty((len(mean), len(mean)))
            covariance_into(covariance, self.Y, self.weight, mass[0], mean, model.reg_covar)
            # Without means to tell them apart, components start at different scales.
            scales = 2.0 ** np.linspace(-1, 1, n_components) if self.zero_means else np.ones(n_components)
            centres = np.zeros((n_components, len(mean)))
            if not self.zero_means:
                centres = apart(self.Y[chosen], np.sqrt(covariance.diagonal()), rng)
            self.counts.append(n_components)
            weights = np.full(n_components, 1 / n_components)
            return self.parameters(weights, centres, covariance, scales)
        raise ValueError(
            'init must be "kmeans", "random_from_data", an array with a component for each row, or a mapping '
            f'with "weights", "means" and "covariances" or "precisions"; got {init!r}.'
        )

    def e_step(self, parameters):
        """Posteriors times row weights (N, K), and the mean log-likelihood."""
        own = parameters.axes is self.axes
        n_components = len(parameters.weights)
        guessed = self.resp is not None and self.resp.shape[1] == n_components
        if not guessed:
            self.resp = np.empty((len(self.X), n_components))

        def evaluate(rows):
            Y = self.Y[rows] if own else parameters.axes.turn(self.X[rows])
            resp, weight = self.resp[rows], self.weight[rows]
            guess = resp.argmax(axis=1) if guessed else None
            beta = self.mechanism.beta  # what beta brings within reach must not be dropped
            joint = whitening.log_joint(Y, parameters.whiteners, guess, out=resp, everything=beta < 1)
            _, evidence = normalised(joint, beta)
            self.mechanism(resp, rows)
            if self.weighted:
                resp *= weight[:, None]
            return weight @ evidence

        log_likelihood = sum(self.workers.map(evaluate, len(self.X))) / self.total
        if not self.counts:  # a given start, which no M-step has counted
            self.counts.append(n_components)
        return self.resp, log_likelihood + parameters.constant

    def m_step(self, resp):
        """Parameters of the largest expected log joint; prunes, and revives what has died."""
        mass, total = first_moments(self.Y, resp, self.workers)
        weights = mass / mass.sum()
        if self.model.min_weight is not None:
            # A weight that is a count of samples often is the limit itself, but for the last bit.
            stays = weights >= (1 - posterior.TIE) * self.model.min_weight
            stays[posterior.falling(weights)[0]] = True
            if not stays.all():
                self.resp = resp = np.ascontiguousarray(resp[:, stays])
                mass, total = mass[stays], total[stays]
                weights = weights[stays] / weights[stays].sum()
        self.counts.append(len(weights))

        whiteners = self.room(len(weights))
        empty = weights <= EMPTY
        if empty.any():  # the others take the little that is left there
            weights = np.where(empty, 0.0, weights)
            weights /= weights.sum()
        means = np.zeros_like(total)
        if not self.zero_means:
            np.divide(total, mass[:, None], out=means, where=~empty[:, None])

        def update(k):
            if empty[k]:
                return
            matrix = triangular.member(whiteners.triangles, k)
            covariance_into(matrix, self.Y, resp[:, k], mass[k], means[k], self.model.reg_covar)
            self.factorise(whiteners, k, weights[k], means[k])

        # The longest first, so that no thread is left with one at the end; the order changes no digit.
        longest_first = np.argsort(-mass, kind="stable")
        side_by_side(self.workers, update, longest_first, self.Y.size * self.Y.shape[1])
        if empty.any():
            weights, means = self.revive(whiteners, weights, means, np.flatnonzero(empty))
        return Parameters(weights, means, whiteners, self.axes, self.constant())

    def parameters(self, weights, means, covariance, scales):
        """Parameters in the axes of the data, of components whose covariances are multiples of one."""
        whiteners = self.room(len(weights))
        for k, weight in enumerate(weights):
            self.factorise(whiteners, k, weight, means[k], scales[k] * covariance)
        tied = whiteners._replace(tied=bool((scales == 1).all()))
        return Parameters(weights, means, tied, self.axes, self.constant())

    def room(self, n_components):
        """Whiteners to write into; an M-step overwrites those of the one before."""
        if self.whiteners is None or len(self.whiteners.constants) != n_components:
            self.whiteners = None  # let go of the old ones first
            self.whiteners = whitening.allocate(n_components, self.Y.shape[1])
        return self.whiteners

    def factorise(self, whiteners, k, weight, mean, covariance=None):
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

    def revive(self, whiteners, weights, means, empty):
        """Put each empty component in the place of half the heaviest one, a little aside or wider."""
        _checks.warn(
            f"Components {empty.tolist()} lost all their samples; each was put in the place of half the "
            "heaviest one. Fewer components may fit these data as well; min_weight removes such components.",
            ConvergenceWarning,
        )
        for k in empty:
            heaviest = posterior.falling(weights)[0]
            weights[[k, heaviest]] = weights[heaviest] / 2
            lower = whitening.root(whiteners, heaviest)
            covariance = lower @ lower.T
            means[k] = means[heaviest]
            if self.zero_means:
                self.factorise(whiteners, k, weights[k], means[k], 1.5 * covariance)
            else:
                means[k] += 0.5 * lower[:, 0] if len(lower) else 0.0
                self.factorise(whiteners, k, weights[k], means[k], covariance)
            self.factorise(whiteners, heaviest, weights[heaviest], means[heaviest], covariance)
        return weights, means

    def constant(self):
        """Log density of the columns set aside: they sit at the mean, under the ridge alone."""
        if not self.n_set_aside:
            return 0.0
        return -0.5 * self.n_set_aside * np.log(2 * np.pi * self.model.reg_covar)

    def unturned(self, parameters):
        """Weights, means and covariances in the columns of the data."""
        weights, centres, whiteners, axes, _ = parameters
        turn = np.eye(int(axes.kept.sum())) if axes.axes is None else axes.axes
        means = np.tile(axes.centre, (len(weights), 1))
        means[:, axes.kept] += centres @ turn.T
        dimension = len(axes.centre)
        covariances = np.zeros((len(weights), dimension, dimension))
        inside = np.ix_(axes.kept, axes.kept)

        def turn_back(k):
            covariances[k].flat[:: dimension + 1] = self.model.reg_covar
            lower = turn @ whitening.root(whiteners, k)
            covariances[k][inside] = lower @ lower.T

        side_by_side(self.workers, turn_back, range(len(weights)), len(weights) * dimension**3)
        return weights.copy(), means, covariances
