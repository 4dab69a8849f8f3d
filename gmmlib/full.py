"""Mixtures of Gaussians with full covariances, by exact EM that skips what cannot be seen.

The samples are turned once into their principal axes, and columns that never vary are set aside; both
leave every density as it is.  In those coordinates the E-step drops components as soon as they are
provably out of reach (see `gmmlib.whitening`), and the M-step of a component visits only the samples
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
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from gmmlib import _checks, _kernels, missing, online, posterior, storage, whitening
from gmmlib.em import Workers, em

EMPTY = 1e-10  # share of the weight below which a component has no samples left
REMEDIES = (
    "Set reg_covar above 0 (it is added to every variance, in squared units of the data), drop such "
    "columns, or ask for fewer components."
)
ROWS_AT_ONCE = 512  # rows of a component gathered for one rank-k update
WORTH_A_THREAD = 1_000_000  # multiplications of an M-step above which handing it to threads pays
STRIPE = 128  # rows of a covariance updated by one product


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

    def moment(rows):
        Y = plain.turn(X[rows])
        Y *= np.sqrt(weight[rows])[:, None]
        return Y.T @ Y

    total = sum(workers.map(moment, len(X)))
    return principal_axes(total / weight.sum(), centre, kept)


def first_moments(Y, resp, workers):
    """Mass (K,) and sum (K, D') of the samples of each component, from posteriors (N, K)."""
    mass = sum(workers.map(lambda rows: resp[rows].sum(axis=0), len(resp)))
    return mass, sum(workers.map(lambda rows: resp[rows].T @ Y[rows], len(resp)))


def covariance_about(Y, resp, mass, mean):
    """Covariance (D', D') of the samples of one component about its mean, from posteriors (N,).

    Only the rows of positive posterior are read, and only the lower triangle is right: it is all that
    a Cholesky factorisation looks at.
    """
    rows = np.flatnonzero(resp)
    dimension = Y.shape[1]
    gathered = np.empty((min(ROWS_AT_ONCE, len(rows)), dimension))
    covariance = np.zeros((dimension, dimension))
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[begin : begin + ROWS_AT_ONCE]
        centred = gathered[: len(some)]
        _kernels.gather_centred(Y, some, mean, resp, centred)
        for start in range(0, dimension, STRIPE):
            stop = min(start + STRIPE, dimension)
            covariance[start:stop, :stop] += centred[:, start:stop].T @ centred[:, :stop]
    covariance /= mass
    return covariance


def kmeans_labels(X, weight, n_components, random_state):
    """Cluster of each row by k-means, as scikit-learn's mixtures start."""
    if isinstance(random_state, np.random.Generator):
        random_state = int(random_state.integers(2**31))
    uniform = None if (weight == weight[0]).all() else weight
    model = KMeans(n_components, n_init=1, random_state=check_random_state(random_state))
    # Its threads add centres in the order in which they finish: one thread, so that digits stay the same.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="openmp"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: see revive
        return model.fit(X, sample_weight=uniform).labels_


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

        deque(workers.each(put, range(n_components)), maxlen=0)
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
        arrays[key] = np.array(mapping[key], dtype=np.float64)
        if arrays[key].shape != shape:
            raise ValueError(f"{name}[{key!r}] must have shape {shape}; got {arrays[key].shape}.")
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


def normalised(joint):
    """Posteriors (n, K), in place, and log-likelihoods (n,) of log joints."""
    evidence = np.empty(len(joint))
    _kernels.normalise(joint, np.zeros(joint.shape[1]), evidence)
    return joint, evidence


class FullGMM(DensityMixin, BaseEstimator):
    """Gaussian mixture with full covariances, fitted by exact EM.

    The answers are those of scikit-learn's ``GaussianMixture(covariance_type="full")`` from the same
    start, for a fraction of the work where samples have many coordinates and few likely components.

    Parameters
    ----------
    n_components : int
        Components K.
    max_iter : int
        EM iterations at the most.
    tol : float
        Stop when an iteration changes the mean log-likelihood by less, in nats a sample; 0 never does.
    reg_covar : float
        Added to the diagonal of every covariance, in squared units of the data.
    means : {"free", "zero"}
        Whether components have means or are held at the origin.
    init : {"kmeans", "random_from_data"} or mapping
        Where EM starts: from the clusters of k-means; from random samples under the covariance of all;
        or from ``{"weights": (K,), "means": (K, D), "covariances" or "precisions": (K, D, D)}``, and
        then with an E-step.
    min_weight : float, optional
        A component whose weight falls below it is removed during EM.
    allow_missing : bool
        Take NaN as missing in `score_samples`, `score`, `predict`, `predict_proba`, `log_joint` and
        `impute`.
    warm_start : bool
        Start `fit` from the parameters of the fit before.
    random_state : int, Generator, RandomState or None
        Randomness of the start.
    chunk_size : int
        Samples handled at a time by one thread.
    callback : callable, optional
        ``callback(model, iteration)`` after the start and each iteration; a true result stops EM.
    progress : bool
        Show a progress bar.

    Attributes
    ----------
    weights_ : ndarray, (K,)
    means_ : ndarray, (K, D)
    covariances_ : ndarray, (K, D, D)
        With `reg_covar` on their diagonals.
    precisions_cholesky_ : ndarray, (K, D, D)
        Upper triangular U with ``U @ U.T`` the precision, as scikit-learn's; computed when asked for.
    log_likelihoods_ : ndarray, (number of iterations + 1,)
        Mean log-likelihood in nats a sample at the start and after each iteration; after `partial_fit`
        that of each batch before its step.
    component_counts_ : ndarray of int, (number of iterations + 1,)
        Components at the start and after each iteration; it falls where `min_weight` removed some.
    converged_ : bool
        Whether `tol` stopped the run.
    n_iter_ : int
        Iterations run.
    n_features_in_ : int
        D.

    References
    ----------
    Dempster, Laird and Rubin (1977), JRSS B 39; for the E-step see `gmmlib.whitening`; for
    `partial_fit` Cappe and Moulines (2009), JRSS B 71, 593-613.
    """

    def __init__(
        self,
        n_components=1,
        *,
        max_iter=100,
        tol=1e-3,
        reg_covar=1e-6,
        means="free",
        init="kmeans",
        min_weight=None,
        allow_missing=False,
        warm_start=False,
        random_state=None,
        chunk_size=15_000,
        callback=None,
        progress=False,
    ):
        self.n_components = n_components
        self.max_iter = max_iter
        self.tol = tol
        self.reg_covar = reg_covar
        self.means = means
        self.init = init
        self.min_weight = min_weight
        self.allow_missing = allow_missing
        self.warm_start = warm_start
        self.random_state = random_state
        self.chunk_size = chunk_size
        self.callback = callback
        self.progress = progress

    def fit(self, X, y=None, sample_weight=None):
        """Fit by EM.

        Parameters
        ----------
        X : array-like, (N, D)
        y : object
            Ignored.
        sample_weight : array-like, (N,), optional
            Row weights: 0 leaves a row out, an integer repeats it.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If an argument or the data cannot be used, or a covariance is singular with ``reg_covar=0``.

        Warns
        -----
        ConvergenceWarning
            If a component lost all its samples and was put elsewhere.
        """
        self._check_settings()
        try:
            self._fit(X, sample_weight)
        except BaseException:
            if hasattr(self, "means_"):  # what was learned before can still be used
                self.n_features_in_ = self.means_.shape[1]
            raise
        return self

    def _fit(self, X, sample_weight):
        start = self._learned() if self.warm_start and hasattr(self, "weights_") else self.init
        X = self._data(X, reset=True)
        weight = _checks.sample_weight(sample_weight, len(X))
        _checks.enough_rows(weight, self.n_components)
        if not weight.all():
            X, weight = X[weight > 0], weight[weight > 0]
        self._online = None
        with self._workers() as workers:
            run = _Run(self, X, weight, workers, start)
            parameters, trace = em(
                run.start(),
                run.e_step,
                run.m_step,
                max_iter=self.max_iter,
                tol=self.tol,
                callback=self._callback(run),
                progress=self.progress,
            )
            run.release()
            self._set(run.unturned(parameters))
        self.log_likelihoods_, self.converged_ = trace
        self.component_counts_ = np.array(run.counts)
        self.n_iter_ = len(trace.log_likelihoods) - 1

    def log_joint(self, X):
        """Log weight plus log density of each sample under each component, (N, K), nats."""
        return self._by_chunk(X, lambda joint: joint, per_component=True, everything=True)

    def score_samples(self, X):
        """Log-likelihood of each sample, (N,), nats; memory does not grow with N."""
        return self._by_chunk(X, lambda joint: normalised(joint)[1])

    def score(self, X, y=None):
        """Mean log-likelihood, nats a sample."""
        return float(self.score_samples(X).mean())

    def predict(self, X):
        """Most probable component of each sample, (N,); the lowest index among equals."""
        return self._by_chunk(X, lambda joint: joint.argmax(axis=1), dtype=np.int64)

    def predict_proba(self, X):
        """Posterior of each component, (N, K); exactly 0 where it is below exp(-40)."""
        return self._by_chunk(X, lambda joint: normalised(joint)[0], per_component=True)

    def predict_log_proba(self, X):
        """Log posteriors, (N, K), accurate even where the posterior rounds to 1."""
        return posterior.log_proba(self.log_joint(X))

    def partial_fit(self, X, y=None, sample_weight=None):
        """Take one step of online EM on a batch of samples.

        The sufficient statistics (mass, first and second moments of each component, a unit of weight)
        move towards those of the batch, ``s <- (1 - eta) s + eta s_batch``, with the step size
        ``eta = t^-0.6`` at the t-th step (Cappe and Moulines 2009); an M-step follows.  The first batch
        starts the components as `init` says, unless the model is fitted already.

        Parameters
        ----------
        X : array-like, (N, D)
            At least as many samples as components at the first call.
        y : object
            Ignored.
        sample_weight : array-like, (N,), optional

        Returns
        -------
        self
        """
        self._check_settings()
        first = not hasattr(self, "weights_")
        X = self._data(X, reset=first)
        weight = _checks.sample_weight(sample_weight, len(X))
        X, weight = X[weight > 0], weight[weight > 0]
        if first:
            _checks.enough_rows(weight, self.n_components)
            with self._workers() as workers:
                run = _Run(self, X, weight, workers, self.init)
                self._set(run.unturned(run.start()))
            self._online = None
        moments = self._online
        if moments is None:
            steps = 0 if first else 1  # a first batch counts in full, for the start came from it
            moments = online.start(self.weights_, self.means_, self.covariances_, self.reg_covar, steps)
            self.log_likelihoods_, self.component_counts_ = np.empty(0), np.empty(0, dtype=np.int64)
        joint = self.log_joint(X)
        resp, evidence = normalised(joint)
        moments = online.step(moments, X, resp * weight[:, None], weight.sum())
        learned = online.parameters(moments, self.reg_covar, self.means == "zero")
        try:
            scorer = turned(*learned)
        except np.linalg.LinAlgError:
            raise ValueError(f"A covariance is singular after this batch. {REMEDIES}") from None
        self._set(learned)
        self._scorer.append(scorer)
        self._online = moments
        self.log_likelihoods_ = np.append(self.log_likelihoods_, weight @ evidence / weight.sum())
        self.component_counts_ = np.append(self.component_counts_, len(self.weights_))
        self.converged_, self.n_iter_ = False, moments.steps
        return self

    def impute(self, X):
        """Fill NaN with the expectation given what is observed of each sample: a new array (N, D)."""
        check_is_fitted(self)
        if not self.allow_missing:
            raise ValueError("impute needs allow_missing=True: only then is NaN a missing value.")
        return missing.impute(self._data(X, missing=True), self.weights_, self.means_, self.covariances_)

    def fit_predict(self, X, y=None, sample_weight=None):
        """Fit, and return the most probable component of each sample, (N,)."""
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def sample(self, n_samples=1, random_state=None):
        """Draw samples: X (n_samples, D), grouped by component, and the component of each (n_samples,)."""
        check_is_fitted(self)
        n_samples = _checks.positive_integer(n_samples, "n_samples")
        rng = _checks.generator(random_state)
        counts = rng.multinomial(n_samples, self.weights_)
        labels = np.repeat(np.arange(len(counts)), counts)
        X = rng.standard_normal((n_samples, self.n_features_in_))
        for k in np.flatnonzero(counts):
            X[labels == k] = X[labels == k] @ np.linalg.cholesky(self.covariances_[k]).T + self.means_[k]
        return X, labels

    def n_parameters(self):
        """Free parameters: weights, means if they are free, and covariances."""
        check_is_fitted(self)
        n_components, dimension = self.means_.shape
        means = n_components * dimension if self.means == "free" else 0
        return n_components - 1 + means + n_components * dimension * (dimension + 1) // 2

    def aic(self, X):
        """Akaike's criterion of the samples X, in nats times two; lower is better."""
        return -2 * self.score_samples(X).sum() + 2 * self.n_parameters()

    def bic(self, X):
        """Schwarz's criterion of the samples X, in nats times two; lower is better."""
        scores = self.score_samples(X)
        return -2 * scores.sum() + self.n_parameters() * np.log(len(scores))

    @property
    def precisions_cholesky_(self):
        """Upper triangular factors of the precisions, (K, D, D)."""
        check_is_fitted(self)
        return np.stack([whitening.inverse_cholesky(covariance).T for covariance in self.covariances_])

    @property
    def precisions_(self):
        """Inverse covariances, (K, D, D)."""
        return np.stack([factor @ factor.T for factor in self.precisions_cholesky_])

    def save(self, path):
        """Write the fitted model to an npz file, whole or not at all."""
        check_is_fitted(self)
        settings = {name: getattr(self, name) for name in SETTINGS}
        arrays = {name: getattr(self, f"{name}_") for name in LEARNED}
        arrays |= {name: np.array(int(arrays[name])) for name in ("converged", "n_iter")}
        storage.write(path, type(self).__name__, settings, arrays)

    @classmethod
    def load(cls, path):
        """Read a model that `save` wrote; `gmmlib.storage.ModelFileError` if the file is not one.

        The start, the random state and the callback are not part of a file.
        """
        settings, arrays = storage.read(path, cls.__name__, LEARNED)
        try:
            model = cls(**settings)
            n_components, dimension = arrays["means"].shape
            weights, means, covariances = given(arrays, n_components, dimension, str(path))
        except (TypeError, ValueError) as error:
            raise storage.ModelFileError(f"{path} holds no usable {cls.__name__}: {error}") from error
        model._set((weights, means, covariances))
        model.n_features_in_ = dimension
        model.log_likelihoods_ = arrays["log_likelihoods"]
        model.component_counts_ = arrays["component_counts"]
        model.converged_ = bool(arrays["converged"])
        model.n_iter_ = int(arrays["n_iter"])
        model._online = None
        return model

    def __sklearn_is_fitted__(self):
        return hasattr(self, "weights_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = bool(self.allow_missing)
        return tags

    def _check_settings(self):
        _checks.positive_integer(self.n_components, "n_components")
        _checks.positive_integer(self.max_iter, "max_iter")
        _checks.non_negative(self.tol, "tol")
        _checks.non_negative(self.reg_covar, "reg_covar")
        if self.min_weight is not None and not 0 <= _checks.non_negative(self.min_weight, "min_weight") < 1:
            raise ValueError(f"min_weight must be below 1, a share of the weight; got {self.min_weight!r}.")
        if self.means not in ("free", "zero"):
            raise ValueError(f'means must be "free" or "zero"; got {self.means!r}.')

    def _workers(self):
        return Workers(_checks.positive_integer(self.chunk_size, "chunk_size"))

    def _data(self, X, reset=False, missing=False):
        if not reset:
            check_is_fitted(self)
        X = validate_data(self, X, reset=reset, dtype="numeric", ensure_all_finite=False)
        if missing and self.allow_missing:
            _checks.not_infinite(X, "X")
        else:
            _checks.finite(X, "X")
        return X

    def _learned(self):
        return {"weights": self.weights_, "means": self.means_, "covariances": self.covariances_}

    def _set(self, learned):
        self.weights_, self.means_, self.covariances_ = learned
        self._scorer = []

    def _callback(self, run):
        if self.callback is None:
            return None

        def report(parameters, log_likelihoods):
            self._set(run.unturned(parameters))
            self.log_likelihoods_ = np.array(log_likelihoods)
            self.component_counts_ = np.array(run.counts)
            return self.callback(self, len(log_likelihoods) - 1)

        return report

    def _parameters(self):
        """The learned parameters in axes that suit the search; a function of the public ones alone."""
        if not self._scorer:
            self._scorer.append(turned(self.weights_, self.means_, self.covariances_))
        return self._scorer[0]

    def _by_chunk(self, X, function, *, per_component=False, dtype=np.float64, everything=False):
        X = self._data(X, missing=True)
        parameters = self._parameters()

        def evaluate(rows):
            if self.allow_missing and np.isnan(X[rows]).any():
                return function(
                    missing.log_joint(
                        np.asarray(X[rows], dtype=np.float64), self.weights_, self.means_, self.covariances_
                    )
                )
            Y = parameters.axes.turn(X[rows])
            return function(whitening.log_joint(Y, parameters.whiteners, everything=everything))

        with self._workers() as workers:
            shape = (len(X), len(self.weights_)) if per_component else len(X)
            return workers.fill(evaluate, np.empty(shape, dtype=dtype))


SETTINGS = (
    "n_components",
    "max_iter",
    "tol",
    "reg_covar",
    "means",
    "min_weight",
    "allow_missing",
    "warm_start",
    "chunk_size",
)
LEARNED = ("weights", "means", "covariances", "log_likelihoods", "component_counts", "converged", "n_iter")


class _Run:
    """One fit: the samples in their axes, the posteriors of the last E-step, and the two steps."""

    def __init__(self, model, X, weight, workers, init):
        self.model, self.X, self.weight, self.workers, self.init = model, X, weight, workers, init
        self.zero_means = model.means == "zero"
        self.total = weight.sum()
        self.weighted = not (weight == 1).all()
        self.counts = []
        self.labels = None
        if isinstance(init, str) and init == "kmeans":  # it copies the data, so before we do
            self.labels = kmeans_labels(X, weight, model.n_components, model.random_state)
        with Workers(min(model.chunk_size, ROWS_AT_ONCE)) as turning:  # copies a chunk more than once
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
            covariance = covariance_about(self.Y, self.weight, mass[0], mean)
            covariance.flat[:: len(mean) + 1] += model.reg_covar
            # Without means to tell them apart, components start at different scales.
            scales = 2.0 ** np.linspace(-1, 1, n_components) if self.zero_means else np.ones(n_components)
            centres = np.zeros((n_components, len(mean))) if self.zero_means else self.Y[chosen]
            self.counts.append(n_components)
            return self.parameters(
                np.full(n_components, 1 / n_components),
                centres,
                lambda k: scales[k] * covariance,
            )
        raise ValueError(
            'init must be "kmeans", "random_from_data" or a mapping with "weights", "means" and '
            f'"covariances" or "precisions"; got {init!r}.'
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
            _, evidence = normalised(whitening.log_joint(Y, parameters.whiteners, guess, out=resp))
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
            stays = weights >= self.model.min_weight
            stays[weights.argmax()] = True
            if not stays.all():
                self.resp = resp = np.ascontiguousarray(resp[:, stays])
                mass, total = mass[stays], total[stays]
                weights = weights[stays] / weights[stays].sum()
        self.counts.append(len(weights))

        whiteners = self.room(len(weights))
        empty = weights <= EMPTY
        means = np.zeros_like(total)
        if not self.zero_means:
            np.divide(total, mass[:, None], out=means, where=~empty[:, None])

        def update(k):
            if empty[k]:
                return
            covariance = covariance_about(self.Y, resp[:, k], mass[k], means[k])
            covariance.flat[:: len(covariance) + 1] += self.model.reg_covar
            self.put(whiteners, k, weights[k], means[k], covariance)

        each = self.workers.each if self.Y.size * self.Y.shape[1] > WORTH_A_THREAD else map
        # The longest first, so that no thread is left with one at the end; the order changes no digit.
        deque(each(update, np.argsort(-mass, kind="stable")), maxlen=0)
        if empty.any():
            weights, means = self.revive(whiteners, weights, means, np.flatnonzero(empty))
        return Parameters(weights, means, whiteners, self.axes, self.constant())

    def parameters(self, weights, means, covariance_of):
        """Parameters in the axes of the data."""
        whiteners = self.room(len(weights))
        for k, weight in enumerate(weights):
            self.put(whiteners, k, weight, means[k], covariance_of(k))
        return Parameters(weights, means, whiteners, self.axes, self.constant())

    def room(self, n_components):
        """Whiteners to write into; an M-step overwrites those of the one before."""
        if self.whiteners is None or len(self.whiteners.constants) != n_components:
            self.whiteners = None  # let go of the old ones first
            self.whiteners = whitening.allocate(n_components, self.Y.shape[1])
        return self.whiteners

    def put(self, whiteners, k, weight, mean, covariance):
        """Factorise one component, or say why it cannot be done."""
        try:
            whitening.put(whiteners, k, weight, mean, covariance)
        except np.linalg.LinAlgError:
            raise ValueError(
                f"The covariance of component {k} is singular: its samples lie on a hyperplane, are too few "
                f"for {len(mean)} dimensions, or columns repeat each other. {REMEDIES}"
            ) from None

    def revive(self, whiteners, weights, means, empty):
        """Put each empty component in the place of half the heaviest one, a little aside or wider."""
        warnings.warn(
            f"Components {empty.tolist()} lost all their samples; each was put in the place of half the "
            "heaviest one. Fewer components may fit these data as well; min_weight removes such components.",
            ConvergenceWarning,
            stacklevel=6,
        )
        for k in empty:
            heaviest = weights.argmax()
            weights[[k, heaviest]] = weights[heaviest] / 2
            lower = whitening.inverse_triangle(whitening.triangle(whiteners, heaviest))
            covariance = lower @ lower.T
            means[k] = means[heaviest]
            if self.zero_means:
                self.put(whiteners, k, weights[k], means[k], 1.5 * covariance)
            else:
                means[k] += 0.5 * lower[:, 0] if len(lower) else 0.0
                self.put(whiteners, k, weights[k], means[k], covariance)
            self.put(whiteners, heaviest, weights[heaviest], means[heaviest], covariance)
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
            lower = turn @ whitening.inverse_triangle(whitening.triangle(whiteners, k))
            covariances[k][inside] = lower @ lower.T

        deque(self.workers.each(turn_back, range(len(weights))), maxlen=0)
        return weights.copy(), means, covariances
