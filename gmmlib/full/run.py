"""One fit of full covariances: the samples in their axes, and the two steps on them."""

import numpy as np

from gmmlib import _checks, _kernels
from gmmlib.em.algorithm import Algorithm
from gmmlib.em.checkpoint import check_statistics
from gmmlib.em.loop import warn_of_empty
from gmmlib.em.workers import Workers
from gmmlib.full import screening, start, steps, triangular, whitening
from gmmlib.kmeans import partition

SMALL_COPY = 400_000  # numbers that may be copied at will


def maximum(model, statistics, about, whiteners, stays, workers):
    """Weights and means of `steps.m_step`, and whiteners in place; revives what has died, and says so."""
    zero_means = bool(model.zero_means)
    weights, means = steps.m_step(statistics, about, whiteners, stays, model.reg_covar, zero_means, workers)
    empty = np.flatnonzero(weights == 0)
    warn_of_empty(empty, "samples", "; min_weight removes such components")
    steps.revive(whiteners, weights, means, empty, zero_means)
    return weights, means


class Run:
    """One fit.  What it hands from E- to M-step is a pair: statistics, and the means that they are about."""

    def __init__(self, model, X, weight, workers, init):
        self.model, self.X, self.weight, self.workers, self.init = model, X, weight, workers, init
        self.zero_means = bool(model.zero_means)
        self.algorithm = Algorithm(model.algorithm, len(X), model.random_state)
        self.counts = []
        self.labels = init if isinstance(init, np.ndarray) else None
        if isinstance(init, str) and init == "kmeans":  # it copies the data, so before we do
            self.labels = partition(X, model.n_components, model.random_state, weight)
        few = max(steps.ROWS_AT_ONCE, SMALL_COPY // X.shape[1])  # rows: rotating copies them more than once
        with Workers(few, min(few, steps.BLOCK_SIZE)) as rotating:
            self.axes = steps.data_axes(X, weight, self.zero_means, rotating)
            self.Y = rotating.fill(
                lambda rows: self.axes.rotate(X[rows]), np.empty((len(X), int(self.axes.kept.sum())))
            )
        columns = np.flatnonzero(~self.axes.kept)
        if len(columns) and model.reg_covar == 0:
            raise ValueError(
                f"X has {len(columns)} columns that never vary, the first at index {columns[0]}, so every "
                f"covariance is singular. {steps.REMEDIES}"
            )
        # Columns set aside sit at the mean, under the ridge alone.
        self.constant = -0.5 * len(columns) * np.log(2 * np.pi * model.reg_covar) if len(columns) else 0.0
        self.likely = None  # a component for each row that is likely its best: the last winner
        self.whiteners = self.second = None

    def state(self, expectation):
        """What `resume` needs to make the M-step."""
        statistics, about = expectation
        return statistics._asdict() | {"about": about, "counts": np.array(self.counts)}

    def resume(self, state, most):
        """Statistics of the last E-step of an earlier run, to go on from; ValueError if they are not such."""
        statistics = dict(state.statistics)
        counts, dimension = np.asarray(statistics.pop("counts", 0)), self.Y.shape[1]
        n_components = int(counts[-1]) if counts.ndim == 1 and counts.size else 0
        if not 0 < n_components <= most:
            raise ValueError(f"it must have from 1 to {most} components; got {n_components}.")
        start.given_counts(counts, len(state.log_likelihoods), n_components, "its counts")
        shapes = dict.fromkeys(("first", "about"), (n_components, dimension))
        shapes |= {"mass": (n_components,), "second": triangular.shape(n_components, dimension)}
        signed = "first", "second", "about"
        check_statistics(state._replace(statistics=statistics), shapes, self.weight, signed)
        self.algorithm.restore(state.algorithm, len(state.log_likelihoods))
        about = statistics.pop("about")
        statistics = steps.Statistics(**statistics), about
        self.m_step(statistics)  # second moments that no samples can have are refused
        self.counts = counts.tolist()
        return statistics

    def start(self):
        """First parameters, from posteriors of 0 and 1 or from what the caller gives."""
        model, init, n_components = self.model, self.init, self.model.n_components
        if hasattr(init, "keys"):
            if init is not model.init:  # a warm start; components may have been removed before it
                n_components = len(init["weights"])
            weights, means, covariances = start.given(init, n_components, self.X.shape[1], "init")
            if self.zero_means and means.any():
                raise ValueError('init["means"] must be 0 everywhere with zero_means=True.')
            return steps.rotated(weights, means, covariances)
        if self.labels is not None:
            return self.m_step(self.of_labels())
        if isinstance(init, str) and init == "random_from_data":
            return self.at_random()
        raise ValueError(
            'init must be "kmeans", "random_from_data", an array with a component for each row, or a mapping '
            f'with "weights", "means" and "covariances" or "precisions"; got {init!r}.'
        )

    def of_labels(self):
        """Statistics of rows that have a component each, about the means of these."""

        def posteriors(rows, out):
            out[...] = 0.0
            out[np.arange(len(out)), self.labels[rows]] = self.weight[rows]
            return 0.0

        n_components = self.model.n_components
        mass = np.bincount(self.labels, self.weight, n_components)
        about = np.zeros((n_components, self.Y.shape[1]))
        if not self.zero_means:
            for k in np.flatnonzero(mass):
                rows = np.flatnonzero(self.labels == k)
                about[k] = self.weight[rows] @ self.Y[rows] / mass[k]
        self.likely = np.array(self.labels, dtype=np.intp)
        room = self.room_for_moments(n_components)
        return steps.e_step(posteriors, self.Y, self.weight, about, self.workers, room), about

    def at_random(self):
        """Components at randomly chosen samples, all of the covariance of the data."""
        n_components, dimension = self.model.n_components, self.Y.shape[1]
        rng = _checks.generator(self.model.random_state)
        chosen = rng.choice(len(self.X), n_components, replace=False)
        mass, first = steps.first_moments(self.Y, self.weight[:, None], self.workers)
        mean = np.zeros(dimension) if self.zero_means else first[0] / mass[0]
        second, covariance = np.zeros((2, dimension, dimension))
        steps.second_moment_into(second, self.Y, self.weight, mean, np.arange(len(self.Y)))
        _kernels.covariance(second, mass[0], np.zeros(dimension), self.model.reg_covar, covariance)
        # Without means to separate them, components start at different scales.
        scales = 2.0 ** np.linspace(-1, 1, n_components) if self.zero_means else np.ones(n_components)
        centres = np.zeros((n_components, dimension))
        if not self.zero_means:
            centres = start.jittered(self.Y[chosen], np.sqrt(covariance.diagonal()), rng)
        self.counts.append(n_components)
        weights, whiteners = np.full(n_components, 1 / n_components), self.room(n_components)
        for k, scale in enumerate(scales):
            steps.factorise(whiteners, k, weights[k], centres[k], scale * covariance)
        tied = whiteners._replace(tied=bool((scales == 1).all()))
        return steps.Parameters(weights, centres, tied, self.axes, self.constant)

    def e_step(self, parameters):
        """Statistics with the means that they are about, and the mean log-likelihood."""
        in_own_axes = parameters.axes is self.axes
        about = parameters.means if in_own_axes else self.axes.rotate(steps.unrotated(parameters))
        n_components, beta = len(about), self.algorithm.beta
        if not self.counts:  # a given start, which no M-step has counted
            self.counts.append(n_components)
        guessed = self.likely is not None
        if not guessed:
            self.likely = np.empty(len(self.X), dtype=np.intp)

        def samples(rows):
            return self.Y[rows] if in_own_axes else parameters.axes.rotate(self.X[rows])

        # What beta brings within reach must not be dropped.
        log_joint = screening.scorer(parameters.whiteners, samples, len(self.X), everything=beta < 1)

        def posteriors(rows, out):
            joint = log_joint(samples(rows), self.likely[rows] if guessed else None, out)
            self.likely[rows] = joint.argmax(axis=1)
            _, evidence = steps.normalised(joint, beta)
            self.algorithm(joint, rows)
            joint *= self.weight[rows, None]
            return self.weight[rows] @ (evidence + parameters.constant)

        room = self.room_for_moments(n_components)
        statistics = steps.e_step(posteriors, self.Y, self.weight, about, self.workers, room)
        return (statistics, about), statistics.log_likelihood / statistics.weight

    def m_step(self, expectation):
        """Parameters of the largest expected log joint; prunes, and revives what has died."""
        (statistics, about), model = expectation, self.model
        stays = np.arange(len(about))
        if model.min_weight is not None:
            stays = np.flatnonzero(steps.survivors(statistics.mass, model.min_weight))
        self.counts.append(len(stays))
        if len(stays) < len(about):
            self.likely = None  # components have other numbers now
        whiteners = self.room(len(stays))
        weights, means = maximum(model, statistics, about, whiteners, stays, self.workers)
        return steps.Parameters(weights, means, whiteners, self.axes, self.constant)

    def room(self, n_components):
        """Whiteners to write into; an M-step overwrites those of the one before."""
        if self.whiteners is None or len(self.whiteners.constants) != n_components:
            self.whiteners = None  # let go of the old ones first
            self.whiteners = whitening.allocate(n_components, self.Y.shape[1])
        return self.whiteners

    def room_for_moments(self, n_components):
        """Second moments to write into, likewise."""
        shape = triangular.shape(n_components, self.Y.shape[1])
        if self.second is None or self.second.shape != shape:
            self.second = None
            self.second = np.zeros(shape)
        return self.second
