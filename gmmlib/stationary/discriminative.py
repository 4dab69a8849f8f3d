"""The estimator of mixtures trained for the class; its objective is in `gmmlib.stationary.conditional`."""

import math

import numpy as np
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, _contents, storage
from gmmlib.base import BayesRule, OfImages
from gmmlib.em.workers import Workers, block_size
from gmmlib.spectrum import fold
from gmmlib.stationary import conditional, steps
from gmmlib.stationary.convolutional import ConvolutionalGMM
from gmmlib.stationary.steps import Parameters


class DiscriminativeGMM(OfImages, ClassifierMixin, BayesRule, BaseEstimator):
    """A convolutional mixture a class, classified by Bayes' rule and trained for it.

    Parameters
    ----------
    n_components : int
        Components K of each class.
    shrinkage : float
        Strength alpha of the prior that keeps filters near the common one, nats per image.
    temperature : float
        What the log-odds of EM are divided by before the climb.
    max_iter : int
        L-BFGS iterations at most.
    em_iter : int
        EM iterations in each class before them.
    variance_floor : float
        As in `ConvolutionalGMM`, but above 0.
    random_state, chunk_size, callback
        As in `gmmlib.base.LearnedByEM`: the first for the starts of EM, the last with L-BFGS iterations.

    Attributes
    ----------
    classes_ : ndarray, (C,)
    mixture_ : ConvolutionalGMM
        The mixture of all C K components, ordered by class; without a trace.
    weights_ : ndarray, (C, K)
        Joint weights of class and component.
    spectra_, filters_ : ndarray, (C, K, H, W//2 + 1)
        As those of `ConvolutionalGMM`.
    objectives_ : ndarray, (number of iterations + 1,)
        J of `gmmlib.stationary.conditional`, nats per image; it never falls.
    n_iter_ : int
        L-BFGS iterations run.

    References
    ----------
    Bahl, Brown, de Souza and Mercer (1986), ICASSP, for training on the conditional likelihood.
    """

    def __init__(
        self,
        n_components=1,
        *,
        shrinkage=1e-3,
        temperature=10.0,
        max_iter=100,
        em_iter=20,
        variance_floor=1e-6,
        random_state=None,
        chunk_size=2048,
        callback=None,
    ):
        self.n_components = n_components
        self.shrinkage = shrinkage
        self.temperature = temperature
        self.max_iter = max_iter
        self.em_iter = em_iter
        self.variance_floor = variance_floor
        self.random_state = random_state
        self.chunk_size = chunk_size
        self.callback = callback

    def fit(self, X, y, sample_weight=None):
        """Fit by EM in each class, then by L-BFGS on all, to images X (N, H, W) of classes y (N,).

        Row weights (N,): 0 leaves a row out, an integer repeats it.  ValueError if an argument or the data
        cannot be used, FloatingPointError if the objective overflows.
        """
        self._check_settings()
        X = _checks.images(X)
        weight = _checks.sample_weight(sample_weight, len(X))
        y = _checks.array(y, "y")
        if y.shape != weight.shape:
            raise ValueError(f"y must hold the class of each of the {len(X)} images; got shape {y.shape}.")
        _checks.finite(y, "y")
        check_classification_targets(y)
        if not weight.all():
            X, y, weight = X[weight > 0], y[weight > 0], weight[weight > 0]
        classes, labels = self._numbered(y)
        layout = fold(X.shape[1:])
        by_em = self._start(X, labels, weight)
        with Workers(self.chunk_size, block_size(math.prod(layout.shape))) as workers:
            P = steps.all_powers(X, layout, workers)
            common = np.maximum(weight @ P / weight.sum(), self.variance_floor)
            w = layout.multiplicity
            problem = conditional.Problem(P, labels, weight, w, common, len(classes), float(self.shrinkage))

            def put(logits, filters, trace):
                self._set(classes, layout, conditional.mixture_of(logits, filters, common), trace)

            def report(logits, filters, trace):
                put(logits, filters, trace)
                return self.callback is not None and self.callback(self, len(trace) - 1)

            found = conditional.maximise(
                *conditional.tempered(by_em, common, w, self.temperature),
                lambda *where: conditional.objective(*where, problem, workers),
                common / self.variance_floor,
                self.max_iter,
                report,
            )
        put(*found)
        return self

    def log_joint(self, X):
        """Log density of image and class, (N, C), nats."""
        check_is_fitted(self)
        joint = self.mixture_.log_joint(X)
        return logsumexp(joint.reshape(len(joint), len(self.classes_), -1), axis=2)

    def score_samples(self, X):
        """Log-likelihood of each image, whatever its class, (N,), nats."""
        check_is_fitted(self)
        return self.mixture_.score_samples(X)

    @property
    def weights_(self):
        """Joint weights of class and component, (C, K)."""
        return self._by_class("weights_")

    @property
    def spectra_(self):
        """Power spectra of components, (C, K, H, W//2 + 1)."""
        return self._by_class("spectra_")

    @property
    def filters_(self):
        """Power spectra of the whitening filters, (C, K, H, W//2 + 1)."""
        return self._by_class("filters_")

    _array_names = ("classes", "weights", "spectra", "objectives", "image_shape")

    def to_arrays(self):
        """Settings and arrays that make the fitted model again."""
        check_is_fitted(self)
        if self.classes_.dtype.kind not in "iuf":
            raise ValueError(
                f"save needs classes that are numbers; got {self.classes_.tolist()}. Fit on numbers, as "
                "numpy.unique(y, return_inverse=True) makes them, and keep the names elsewhere."
            )
        dtype = np.float64 if self.classes_.dtype.kind == "f" else np.int64
        arrays = {"classes": self.classes_.astype(dtype), "objectives": self.objectives_}
        arrays |= {"weights": self.mixture_.weights_, "spectra": self.mixture_.spectra_}
        arrays["image_shape"] = np.array(self.image_shape_)
        return _contents.settings(self, n_components=self.weights_.shape[1]), arrays

    @classmethod
    def from_arrays(cls, settings, arrays, where):
        """The inverse of `to_arrays`; errors say `where` the arrays come from."""
        model = _contents.model(cls, settings)
        layout = fold(storage.image_shape(arrays["image_shape"], arrays, where))
        classes = arrays["classes"]
        if classes.ndim != 1 or len(classes) < 2 or not (np.diff(classes) > 0).all():
            raise ValueError(f"{where}['classes'] must be two numbers or more, rising. Save the model again.")
        _checks.finite(classes, f"{where}['classes']")
        parameters = steps.given(arrays, len(classes) * model.n_components, layout, where)
        objectives = _contents.trace(arrays["objectives"], f"{where}['objectives']")
        if not len(objectives):
            raise ValueError(f"{where}['objectives'] must hold that of the start. Save the model again.")
        model._set(classes, layout, parameters, objectives)
        _contents.whole_plane(arrays["spectra"], model.mixture_.spectra_, f"{where}['spectra']")
        return model

    def __sklearn_is_fitted__(self):
        return hasattr(self, "mixture_")

    def _check_settings(self):
        _checks.positive(self.variance_floor, "variance_floor")
        _checks.settings(self)
        _checks.positive_integer(self.em_iter, "em_iter")
        _checks.positive(self.temperature, "temperature")
        _checks.non_negative(self.shrinkage, "shrinkage")

    def _by_class(self, name):
        check_is_fitted(self)
        values = getattr(self.mixture_, name)
        return values.reshape(len(self.classes_), -1, *values.shape[1:])

    def _numbered(self, y):
        """Classes, sorted, and the number of each row's; each class needs images enough."""
        classes, labels, counts = np.unique(y, return_inverse=True, return_counts=True)
        if len(classes) < 2:
            raise ValueError(
                f"y must hold at least two classes; got only {classes.tolist()}. "
                "A mixture of one class is a ConvolutionalGMM."
            )
        fewest = counts.argmin()
        if counts[fewest] < self.n_components:
            raise ValueError(
                f"n_components={self.n_components} needs at least as many rows of positive weight in each "
                f"class; got {counts[fewest]} of class {classes[fewest]}. Pass more data or ask for fewer "
                "components."
            )
        return classes, labels

    def _start(self, X, labels, weight):
        """A mixture fitted to each class, weighted by how common it is."""
        rng = _checks.generator(self.random_state)
        weights, spectra = [], []
        for label in range(labels.max() + 1):
            rows = labels == label
            mixture = self._mixture(self.n_components, max_iter=self.em_iter, random_state=rng, tol=0.0)
            mixture.fit(X[rows], sample_weight=weight[rows])
            weights.append(weight[rows].sum() / weight.sum() * mixture.weights_)
            spectra.append(mixture._parameters.spectra)
        return Parameters(np.concatenate(weights), np.concatenate(spectra))

    def _mixture(self, n_components, **settings):
        shared = {"variance_floor": self.variance_floor, "chunk_size": self.chunk_size}
        return ConvolutionalGMM(n_components, **shared, **settings)

    def _set(self, classes, layout, parameters, objectives):
        self.classes_, self.mixture_ = classes, self._mixture(len(parameters.weights))
        self.mixture_._set(layout, parameters)
        self.objectives_ = np.array(objectives)
        self.n_iter_ = len(objectives) - 1
        self.image_shape_ = layout.shape
