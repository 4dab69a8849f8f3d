"""The estimator of mixtures of Gaussians with full covariances; its steps are in `gmmlib.full.steps`."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, _contents
from gmmlib.base import Additive, Mixture, Online, Scoring
from gmmlib.em.checkpoint import Checkpoint
from gmmlib.em.loop import Saved, record, warn_of_empty
from gmmlib.em.workers import Workers
from gmmlib.full import inputs, missing, online, steps, whitening
from gmmlib.full import start as starts
from gmmlib.full.run import REMEDY, Run


class FullGMM(missing.Incomplete, Additive, Online, Mixture):
    """Gaussian mixture with full covariances, fitted by exact EM.

    The answers are those of scikit-learn's ``GaussianMixture(covariance_type="full")`` from the same
    start, for a fraction of the work where samples have many coordinates and few likely components.

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
        Take NaN as missing in `score_samples`, `score`, `predict`, `predict_proba`, `log_joint`,
        `impute` and `sample_given`.
    warm_start : bool
        Start `fit` from the parameters of the fit before.
    init : {"kmeans", "random_from_data"}, array-like of int (N,), or mapping
        Where EM starts: from the clusters of k-means; from random samples under the covariance of all,
        moved apart where they coincide; from a component for each sample; or from
        ``{"weights": (K,), "means": (K, D), "covariances" or "precisions": (K, D, D)}``, and then with an
        E-step.
    max_iter, tol, algorithm, random_state, callback, checkpoint, progress, chunk_size
        As in `gmmlib.base.LearnedByEM`.

    Attributes
    ----------
    weights_ : ndarray, (K,)
    means_ : ndarray, (K, D)
    covariances_ : ndarray, (K, D, D)
        With `reg_covar` on their diagonals.
    precisions_cholesky_ : ndarray, (K, D, D)
        Upper triangular U with ``U @ U.T`` the precision, as scikit-learn's; computed when asked for.
    component_counts_ : ndarray of int, (number of iterations + 1,)
        Components at the start and after each iteration; it falls where `min_weight` removed some.
    n_features_in_ : int
        D.
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
        if not weight.all():
            if isinstance(start, np.ndarray):
                start = start[weight > 0]
            X, weight = X[weight > 0], weight[weight > 0]
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

        def posteriors(rows, out):
            joint = whitening.log_joint(Y[rows], parameters.whiteners, out=out)
            _, evidence = steps.normalised(joint)
            joint *= weight[rows, None]
            return weight[rows] @ evidence

        with self._workers() as workers:
            return steps.e_step(posteriors, Y, weight, parameters.means, workers)

    def _set_from(self, statistics):
        before = self._parameters()
        with self._workers() as workers:
            whiteners = whitening.allocate(*before.means.shape)
            options = self.reg_covar, self.zero_means, workers
            weights, means = steps.m_step(
                statistics, before.means, whiteners, np.arange(len(before.means)), *options
            )
            if not weights.all():
                empty = np.flatnonzero(weights == 0)
                warn_of_empty(empty, "samples", REMEDY)
                steps.revive(whiteners, weights, means, empty, self.zero_means)
            learned = before._replace(weights=weights, means=means, whiteners=whiteners)
            self._set(steps.columns(learned, self.reg_covar, workers))

    def _take(self, X, weight, first):
        if first:
            start = inputs.start(self, len(X))
            if isinstance(start, np.ndarray):
                start = start[weight > 0]
        X, weight = X[weight > 0], weight[weight > 0]
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

    def n_parameters(self):
        """Free parameters: weights, means if they are free, and covariances."""
        check_is_fitted(self)
        n_components, dimension = self.means_.shape
        means = 0 if self.zero_means else n_components * dimension
        return n_components - 1 + means + n_components * dimension * (dimension + 1) // 2

    def learned(self):
        """What `init` takes to start here: the learned arrays by name."""
        check_is_fitted(self)
        return {"weights": self.weights_, "means": self.means_, "covariances": self.covariances_}

    def log_determinants(self, learned=None):
        """Log determinants of the covariances, (K,), or of those among other `learned` arrays."""
        covariances = (self.learned() if learned is None else learned)["covariances"]
        return np.linalg.slogdet(covariances)[1]

    @property
    def precisions_cholesky_(self):
        """Upper triangular factors of the precisions, (K, D, D)."""
        check_is_fitted(self)
        return np.stack([whitening.inverse_cholesky(covariance).T for covariance in self.covariances_])

    @property
    def precisions_(self):
        """Inverse covariances, (K, D, D)."""
        return np.stack([factor @ factor.T for factor in self.precisions_cholesky_])

    _array_names = (
        "weights",
        "means",
        "covariances",
        "log_likelihoods",
        "component_counts",
        "converged",
        "n_iter",
    )

    def to_arrays(self):
        """Settings and arrays that make the fitted model again."""
        check_is_fitted(self)
        arrays = {name: getattr(self, f"{name}_") for name in self._array_names}
        arrays |= {name: np.array(int(arrays[name])) for name in ("converged", "n_iter")}
        # Components may have been removed during the fit, but none are added.
        fitted = {"n_components": max(self.n_components, len(self.weights_))}
        settings = _contents.settings(self, **fitted | ({"zero_means": False} if self.means_.any() else {}))
        return settings | _contents.column_names(self), arrays

    @classmethod
    def from_arrays(cls, settings, arrays, where):
        """The inverse of `to_arrays`; errors say `where` the arrays come from."""
        settings, names = _contents.split_column_names(settings, where)
        model = _contents.model(cls, settings)
        n_components, dimension = arrays["means"].shape
        if not 0 < n_components <= model.n_components or dimension < 1:
            raise ValueError(
                f"{where}['means'] must hold from 1 to n_components={model.n_components} means of at least "
                f"one number; got shape {arrays['means'].shape}. Save the model again."
            )
        if model.zero_means and arrays["means"].any():
            raise ValueError(f"{where}['means'] must be 0 with zero_means=True. Save the model again.")
        model._set(starts.given(arrays, n_components, dimension, where))
        model._parameters()  # a covariance can be positive definite and yet not when it is rotated
        model.n_features_in_ = dimension
        _contents.set_column_names(model, names, where)
        model.log_likelihoods_, model.converged_, model.n_iter_ = _contents.run(arrays, where, online=True)
        counts, name = arrays["component_counts"], f"{where}['component_counts']"
        n_values = len(model.log_likelihoods_)
        model.component_counts_ = starts.given_counts(counts, n_values, n_components, name)
        return model

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = bool(self.allow_missing)
        return tags

    def _check_settings(self):
        inputs.check_settings(self)

    def _workers(self):
        return Workers(_checks.positive_integer(self.chunk_size, "chunk_size"), steps.BLOCK_SIZE)

    def _data(self, X, reset=False, missing=False):
        if not reset:
            check_is_fitted(self)
            self._parameters()  # what was set by hand has its sides checked before X has
        return inputs.samples(self, X, reset, missing)

    def _check_continuation(self):
        """Refuse settings that the learned parameters cannot take over."""
        self._parameters()
        _checks.unchanged("n_components", self.n_components, self._n_started)
        if self.zero_means and self.means_.any():
            _checks.unchanged("zero_means", True, False)

    def _set(self, learned, n_started=None):
        """Set parameters that are this model's own; `n_started` counts those removed by `min_weight` too."""
        for values in learned:
            values.flags.writeable = False  # a change in place would reach some methods only
        self.weights_, self.means_, self.covariances_ = self._own = tuple(learned)
        self._n_started = self.n_components if n_started is None else n_started
        self._scorer = []  # a list, so that scoring leaves the attributes as they are
        self._online = None  # moments of other parameters

    def _parameters(self):
        """The learned parameters in axes that suit the search: a function of the public ones alone."""
        learned = self.learned()
        if any(a is not b for a, b in zip(getattr(self, "_own", (None,) * 3), learned.values(), strict=True)):
            n_components, dimension = np.size(self.weights_), np.size(self.means_) // np.size(self.weights_)
            self._set(starts.given(learned, n_components, dimension, "the fitted model"), n_components)
            self.n_features_in_ = dimension
        if not self._scorer:
            self._scorer.append(steps.rotated(*self._own))
        return self._scorer[0]

    def __setstate__(self, state):
        """Make a copy: its arrays are read-only again, which pickles forget."""
        super().__setstate__(state)
        for values in getattr(self, "_own", ()):
            values.flags.writeable = False

    @staticmethod
    def _evidence(joint):
        return steps.normalised(joint)[1]

    @staticmethod
    def _posteriors(joint):
        return steps.normalised(joint)[0]

    def _scoring(self, X, everything):
        """How `Mixture` scores samples; unless `everything`, far components of a sample may be dropped."""
        X, parameters = self._data(X, missing=True), self._parameters()

        def log_joint(rows):
            if self.allow_missing and np.isnan(X[rows]).any():
                samples = np.asarray(X[rows], dtype=np.float64)
                return missing.log_joint(samples, self.weights_, self.means_, self.covariances_)
            return whitening.log_joint(
                parameters.axes.rotate(X[rows]), parameters.whiteners, everything=everything
            )

        return Scoring(len(X), len(self.weights_), log_joint, self._workers())
