"""The estimator of mixtures of Gaussians with full covariances; its steps are in `gmmlib.full.steps`."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks
from gmmlib.base import Mixture, Scoring
from gmmlib.em.batches import Additive, Online
from gmmlib.em.checkpoint import Checkpoint
from gmmlib.em.loop import Saved, record
from gmmlib.em.workers import Workers
from gmmlib.full import inputs, missing, online, screening, steps, whitening
from gmmlib.full.learned import Learned
from gmmlib.full.marginal import Marginals
from gmmlib.full.run import Run, maximum
from gmmlib.full.wiener import Denoising


class FullGMM(Learned, missing.Incomplete, Denoising, Additive, Online, Mixture):
    """Gaussian mixture with full covariances, fitted by exact EM.

    The answers are those of scikit-learn's ``GaussianMixture(covariance_type="full")`` from the same start,
    for a fraction of the work where samples have many coordinates and few likely components.

    Parameters
    ----------
    n_components : int
        Components K.
    reg_covar : float
        Added to the diagonal of every covariance, in squared units of the data.
    zero_means : bool
        Hold all means at the origin.
    min_weight : float, optional
        A component whose weight falls below it is removed during EM.
    allow_missing : bool
        Take NaN as missing in all methods that score, in `impute` and in `sample_given`.
    warm_start : bool
        Start `fit` from the parameters of the fit before.
    init : {"kmeans", "random_from_data"}, array-like of int (N,), or mapping
        Where EM starts: from the clusters of k-means; from random samples under the covariance of all, moved
        apart where they coincide; from a component for each sample; or from
        ``{"weights": (K,), "means": (K, D), "covariances" or "precisions": (K, D, D)}``.
    max_iter, tol, n_init, algorithm, random_state, callback, checkpoint, progress, chunk_size
        As in `gmmlib.base.LearnedByEM`.

    Attributes
    ----------
    weights_, means_, covariances_ : ndarray, (K,), (K, D) and (K, D, D)
        The covariances with `reg_covar` on their diagonals.
    precisions_cholesky_ : ndarray, (K, D, D)
        Upper triangular U with ``U @ U.T`` the precision; computed when asked for.
    component_counts_ : ndarray of int, (number of iterations + 1,)
        Components at the start and after each iteration: fewer where `min_weight` removed some.
    log_likelihoods_, converged_, n_iter_
        As in `gmmlib.base.LearnedByEM`.

    References
    ----------
    Dempster, Laird and Rubin (1977), JRSS B 39; for the E-step see `gmmlib.full.whitening`; for
    `partial_fit` Cappe and Moulines (2009), JRSS B 71, 593-613.
    """

    def __init__(
        self,
        n_components=1,
        *,
        reg_covar=1e-6,
        zero_means=False,
        min_weight=None,
        allow_missing=False,
        warm_start=False,
        max_iter=100,
        tol=1e-3,
        init="kmeans",
        n_init=1,
        algorithm="em",
        random_state=None,
        callback=None,
        checkpoint=None,
        progress=False,
        chunk_size=4096,
    ):
        self.n_components = n_components
        self.reg_covar = reg_covar
        self.zero_means = zero_means
        self.min_weight = min_weight
        self.allow_missing = allow_missing
        self.warm_start = warm_start
        self.max_iter = max_iter
        self.tol = tol
        self.init = init
        self.n_init = n_init
        self.algorithm = algorithm
        self.random_state = random_state
        self.callback = callback
        self.checkpoint = checkpoint
        self.progress = progress
        self.chunk_size = chunk_size

    def fit(self, X, y=None, sample_weight=None):
        try:
            return super().fit(X, y, sample_weight)
        except BaseException:
            if hasattr(self, "means_"):  # what was learned before can still be used
                self.n_features_in_ = self.means_.shape[1]
            raise

    fit.__doc__ = Mixture.fit.__doc__

    def _fit(self, X, weight):
        warm = self.warm_start and hasattr(self, "weights_")
        if warm:
            self._check_continuation()
        start = self.learned() if warm else inputs.start(self, len(X))
        file = Checkpoint(self, X, weight, start if warm else None)
        X, weight, start = _rows_that_count(X, weight, start)
        with file, self._workers() as workers:
            most = len(start["weights"]) if warm else self.n_components
            state = file.read(lambda state: None)
            run = Run(self, X, weight, workers, start if state is None else None)
            if state is not None:
                with file.judged():
                    state = Saved(run.resume(state, most), state.log_likelihoods)
            self._run_em(
                run.start() if state is None else state,
                run.e_step,
                run.m_step,
                lambda parameters: self._put(run, parameters),
                file=file,
                pack=run.state,
                algorithm=run.algorithm,
                pruned=lambda: len(run.counts) > 1 and run.counts[-1] < run.counts[-2],
            )

    def _put(self, run, parameters):
        self._set(steps.columns(parameters, self.reg_covar, run.workers))
        self.component_counts_ = np.array(run.counts)

    def _statistics_of(self, X, sample_weight):
        """In the axes of the parameters of now."""
        X, parameters = self._data(X), self._parameters()
        weight = _checks.sample_weight(sample_weight, len(X))
        Y = parameters.axes.rotate(X)
        score = screening.scorer(parameters.whiteners, Y.__getitem__, len(X))

        def posteriors(rows, out):
            joint = score(Y[rows], out=out)
            _, evidence = steps.normalised(joint)
            joint *= weight[rows, None]
            return weight[rows] @ evidence

        with self._workers() as workers:
            return steps.e_step(posteriors, Y, weight, parameters.means, workers)

    def statistics_given(self, X, posteriors):
        """Sufficient statistics of samples whose components have posteriors (N, K), times row weights."""
        Y, parameters = self._parameters().axes.rotate(self._data(X)), self._parameters()

        def given(rows, out):
            out[...] = posteriors[rows]
            return 0.0

        with self._workers() as workers:
            return steps.e_step(given, Y, posteriors.sum(axis=1), parameters.means, workers)

    def _set_from(self, statistics):
        before = self._parameters()
        with self._workers() as workers:
            whiteners, stays = whitening.allocate(*before.means.shape), np.arange(len(before.means))
            weights, means = maximum(self, statistics, before.means, whiteners, stays, workers)
            learned = before._replace(weights=weights, means=means, whiteners=whiteners)
            self._set(steps.columns(learned, self.reg_covar, workers))

    def _take(self, X, weight, first):
        start = inputs.start(self, len(X)) if first else None
        # Contiguous: BLAS sums in another order otherwise.
        X, weight, start = _rows_that_count(np.ascontiguousarray(X), weight, start)
        if first:
            with self._workers() as workers:
                run = Run(self, X, weight, workers, start)
                self._set(steps.columns(run.start(), self.reg_covar, workers))
        moments = self._online
        if moments is None:
            n_steps = 0 if first else 1  # a first batch counts in full, for the start came from it
            moments = online.start(self.weights_, self.means_, self.covariances_, self.reg_covar, n_steps)
            record(self, np.empty(0))
            self.component_counts_ = np.empty(0, dtype=np.int64)
        joint = self.log_joint(X)
        resp, evidence = steps.normalised(joint)
        moments = online.step(moments, X, resp * weight[:, None], weight.sum())
        learned = online.parameters(moments, self.reg_covar, self.zero_means)
        try:
            scorer = steps.rotated(*learned)
        except np.linalg.LinAlgError:
            raise ValueError(f"A covariance is singular after this batch. {steps.REMEDIES}") from None
        self._set(learned)
        self._scorer.append(scorer)
        self._online = moments
        record(self, np.append(self.log_likelihoods_, weight @ evidence / weight.sum()))
        self.component_counts_ = np.append(self.component_counts_, len(self.weights_))
        self.n_iter_ = moments.steps

    def _draw(self, labels, rng):
        X = rng.standard_normal((len(labels), self.n_features_in_))
        for k in np.unique(labels):
            X[labels == k] = X[labels == k] @ np.linalg.cholesky(self.covariances_[k]).T + self.means_[k]
        return X

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = bool(self.allow_missing)
        return tags

    _check_settings = inputs.check_settings

    def _workers(self):
        return Workers(_checks.positive_integer(self.chunk_size, "chunk_size"), steps.BLOCK_SIZE)

    def _data(self, X, reset=False, missing=False, name="X"):
        if not reset:
            check_is_fitted(self)
            self._parameters()  # what was set by hand has its sides checked before X has
        return inputs.samples(self, X, reset, missing, name)

    @staticmethod
    def _evidence(joint):
        return steps.normalised(joint)[1]

    @staticmethod
    def _posteriors(joint):
        return steps.normalised(joint)[0]

    def _scoring(self, X, everything):
        """How `Mixture` scores samples; unless `everything`, far components of a sample may be dropped."""
        X, parameters = self._data(X, missing=True), self._parameters()
        marginals = Marginals(*self._own, parameters)

        def rotated(rows):
            return parameters.axes.rotate(X[rows])

        score = screening.scorer(parameters.whiteners, rotated, len(X), everything)

        def log_joint(rows):
            samples = X[rows]
            holes = np.isnan(samples).any(axis=1) if self.allow_missing else np.zeros(1, dtype=bool)
            if not holes.any():
                return score(rotated(rows))
            joint = np.empty((len(samples), len(self.weights_)))
            joint[holes] = marginals.log_joint(np.asarray(samples[holes], dtype=np.float64))
            if not holes.all():
                joint[~holes] = score(parameters.axes.rotate(samples[~holes]))
            return joint

        return Scoring(len(X), len(self.weights_), log_joint, self._workers())


def _rows_that_count(X, weight, start):
    """Rows of positive weight: samples, weights, and labels if EM starts from these."""
    if weight.all():
        return X, weight, start
    counts = weight > 0
    return X[counts], weight[counts], start[counts] if isinstance(start, np.ndarray) else start
