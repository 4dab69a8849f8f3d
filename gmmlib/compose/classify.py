"""A density a class, and Bayes' rule: any density estimator makes a classifier.

Classes compare only if their densities are of the same variables in the same units, so whatever changes
the rows on their way to a density must be the same for all classes.
"""

import reprlib

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from gmmlib import _checks, _contents, posterior
from gmmlib.base import BayesRule
from gmmlib.compose import parts
from gmmlib.compose.convolutional_stack import ConvolutionalStack
from gmmlib.compose.stack import StackedGMM

SEEDS = 2**32  # seeds of densities lie below it
# What a file says of a run of EM, where there was none.
NO_RUN = {
    "n_iter": np.array(0),
    "converged": np.array(0),
    "log_likelihoods": np.empty(0),
    "component_counts": np.empty(0, dtype=np.int64),
}


class GenerativeClassifier(ClassifierMixin, BayesRule, BaseEstimator):
    r"""Classifier by Bayes' rule from one density a class.

    .. math:: p(c \mid x) = \frac{\pi_c \, p(x \mid c)}{\sum_b \pi_b \, p(x \mid b)}

    Parameters
    ----------
    density : estimator
        Unfitted, with `fit` and `score_samples` (log-densities in nats), such as `FullGMM` or scikit-learn's
        ``KernelDensity``; a clone is fitted to each class.  A ``Pipeline`` or `StackedGMM` scores transformed
        rows, so its transforms must learn nothing or be in a ``sklearn.frozen.FrozenEstimator``, fitted on
        all classes.  A `ConvolutionalStack` always learns some: it takes the classifier as its top.
    priors : array-like, (C,), optional
        Probability of each class, sorted as in `classes_`; by default its share of the rows or row weights.
    random_state : int, Generator, RandomState or None
        Gives each class a seed of its own for every ``random_state`` in `density`; None leaves them alone.

    Attributes
    ----------
    classes_ : ndarray, (C,)
        Sorted.
    densities_ : list
        The fitted density of each class.
    priors_ : ndarray, (C,)
    n_features_in_ : int
        Columns of X, where it has rows.

    Examples
    --------
    >>> from gmmlib import FullGMM, GenerativeClassifier
    >>> classifier = GenerativeClassifier(FullGMM(10, reg_covar=1e-2), random_state=0)
    """

    def __init__(self, density, *, priors=None, random_state=None):
        self.density = density
        self.priors = priors
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None):
        """Fit a clone of the density to the rows of each class.

        Classes y (N,) are integers, strings or truth values.  Row weights (N,) are for densities whose `fit`
        takes them; they count in the priors too.  ValueError if the density, the priors, the classes or the
        data cannot be used; if the density refuses a class, a note names it.
        """
        before = vars(self).copy()
        try:
            self._fit(X, y, sample_weight)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)  # what was learned before can still be used
            raise
        return self

    def _fit(self, X, y, sample_weight):
        _check_density(self.density, sample_weight)
        y = validate_data(self, y=_checks.readable(y, "y"))
        check_classification_targets(y)
        X = self._data(X, reset=True)
        if len(X) != len(y):
            raise ValueError(f"y must hold a class for each of the {len(X)} rows of X; got {len(y)}.")
        weight = _checks.sample_weight(sample_weight, len(X))
        classes, member = np.unique(y, return_inverse=True)
        mass = np.bincount(member, weight)
        if not mass.all():
            c = mass.argmin()
            raise ValueError(
                "sample_weight must be positive for a row of every class; got 0 for all "
                f"{(member == c).sum()} rows of class {classes[c]!s}. Leave the class out of X and y."
            )
        priors = mass / mass.sum() if self.priors is None else _checked_priors(self.priors, classes)
        rng = None if self.random_state is None else _checks.generator(self.random_state)
        densities = []
        for c, label in enumerate(classes):
            of_class = member == c
            weights = {} if sample_weight is None else {"sample_weight": weight[of_class]}
            try:
                densities.append(_seeded(self.density, rng).fit(X[of_class], **weights))
            except BaseException as error:
                error.add_note(
                    f"This is about class {label!s}, which has {of_class.sum()} rows; the classifier is "
                    "as before."
                )
                raise
        self.classes_, self.priors_, self.densities_ = classes, priors, densities

    def log_joint(self, X):
        """Log prior plus log density of each row in each class, (N, C), nats; X is like that of `fit`."""
        check_is_fitted(self)
        X = self._data(X)
        with np.errstate(divide="ignore"):
            log_prior = np.log(self.priors_)
        joint = np.column_stack([density.score_samples(X) for density in self.densities_]) + log_prior
        return _checks.log_joints(joint, 0)

    def decision_function(self, X):
        """Log-odds of each class against all others together, (N, C), nats.

        Of two classes, those of the second alone, (N,), as everywhere in scikit-learn.
        """
        odds = posterior.log_odds(self.log_joint(X))
        return odds[:, 1] if len(self.classes_) == 2 else odds

    def n_parameters(self):
        """Free parameters of all densities, and of the priors if they are learned."""
        check_is_fitted(self)
        free = len(self.classes_) - 1 if self.priors is None else 0
        return free + sum(density.n_parameters() for density in self.densities_)

    def mixture(self):
        """All components of all classes as one mixture: `mixture_of` priors and densities."""
        check_is_fitted(self)
        return mixture_of(self.priors_, self.densities_)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "densities_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if hasattr(self.density, "__sklearn_tags__") and not isinstance(self.density, type):
            tags.input_tags = get_tags(self.density).input_tags
        return tags

    @property
    def image_shape_(self):
        """H and W of the images that the densities take, if they take images."""
        return self.densities_[0].image_shape_

    def _data(self, X, reset=False):
        """Images, groups of images, or rows of numbers; what else they must be, the densities know."""
        values = _checks.array(X, "X")
        if values.ndim > 2:
            return _checks.images(values) if values.ndim == 3 else values
        return _checks.plain(validate_data(self, X, reset=reset, dtype="numeric", ensure_all_finite=False))

    def to_arrays(self):
        """Settings and arrays that make the fitted classifier again."""
        check_is_fitted(self)
        entries, arrays = parts.to_arrays(self.densities_, "densities_")
        given = None if self.priors is None else _checked_priors(self.priors, self.classes_).tolist()
        settings = {"kind": entries[0]["kind"], "classes": self.classes_.tolist(), "priors": given}
        settings["densities"] = [entry["settings"] for entry in entries]
        return settings | _contents.column_names(self), {"priors": self.priors_, **arrays}

    @classmethod
    def array_names(cls, settings):
        """What the arrays are called that go with these settings in a file."""
        return ["priors", *parts.array_names(_stored_densities(settings))]

    @classmethod
    def from_arrays(cls, settings, arrays, where):
        """The inverse of `to_arrays`; errors say `where` the arrays come from."""
        densities = parts.from_arrays(_stored_densities(settings), arrays, where)
        settings, names = _contents.split_column_names(settings, where)
        _check_alike(densities, where)
        classifier = cls(clone(densities[0]), priors=settings["priors"])
        classifier.classes_ = _stored_classes(settings["classes"])
        if classifier.priors is not None:
            _checked_priors(classifier.priors, classifier.classes_)
        classifier.priors_ = _checked_priors(arrays["priors"], classifier.classes_)
        classifier.densities_ = densities
        if hasattr(densities[0], "n_features_in_"):
            classifier.n_features_in_ = densities[0].n_features_in_
            _contents.set_column_names(classifier, names, where)
        return classifier


def mixture_of(priors, densities):
    """All components of C fitted mixtures of one class as one mixture of that class.

    Its density is the mean of theirs, weighted by the priors (C,), which sum to 1; components are in the
    order of the densities.  It has no trace, because no run of EM made it.  ValueError if the densities are
    of several classes, or lack a method ``learned``, or their components cannot be joined.
    """
    kinds = {type(density) for density in densities}
    if len(kinds) > 1 or not all(hasattr(density, "learned") for density in densities):
        raise ValueError(
            "densities must all be of one class that says what it has learned, such as ConvolutionalGMM or "
            f"FullGMM, to be one mixture; got {', '.join(sorted(kind.__name__ for kind in kinds))}. "
            "Add up their densities instead: logsumexp of log prior plus score_samples."
        )
    states = [density.to_arrays() for density in densities]
    settings, arrays = states[0]
    joined = {key: np.concatenate([arrays[key] for _, arrays in states]) for key in densities[0].learned()}
    sizes = [len(density.weights_) for density in densities]
    joined["weights"] = np.repeat(priors, sizes) * joined["weights"]
    no_run = {key: NO_RUN[key] for key in NO_RUN.keys() & arrays.keys()}
    settings = settings | {"n_components": sum(sizes)}
    return type(densities[0]).from_arrays(settings, arrays | joined | no_run, "mixture")


def _check_density(density, sample_weight):
    _check_scores(density)
    for step in _below(density):
        if not (step in (None, "passthrough") or isinstance(step, FrozenEstimator)) and (
            get_tags(step).requires_fit
        ):
            raise ValueError(
                "density must not fit a transform of its own to each class, for densities of different "
                f"variables do not compare; got {step!r} below the last step. Fit it to all classes "
                "once and wrap it in sklearn.frozen.FrozenEstimator; a ConvolutionalStack takes the "
                "classifier as its top."
            )
    if sample_weight is not None and not has_fit_parameter(density, "sample_weight"):
        raise ValueError(
            "sample_weight needs a density whose fit takes it; "
            f"got a {type(density).__name__}. Leave sample_weight out."
        )


def _check_scores(density):
    has_all = all(hasattr(density, name) for name in ("fit", "score_samples", "get_params"))
    if not has_all or isinstance(density, type):
        raise ValueError(
            "density must be an estimator with fit and score_samples; "
            f"got {density!r}. Pass an unfitted one such as FullGMM(10)."
        )


def _below(density):
    """What changes the rows before the last step of a density scores them."""
    steps = []
    if isinstance(density, Pipeline):
        steps = [step for _, step in density.steps]
    elif isinstance(density, StackedGMM):
        steps = density.layers
    elif isinstance(density, ConvolutionalStack):
        steps = [*density.layers, density.top]
    return [*steps[:-1], *_below(steps[-1])] if steps else []


def _checked_priors(priors, classes):
    priors = _checks.array(priors, "priors")
    _checks.real(priors, "priors")
    if priors.shape != classes.shape:
        raise ValueError(
            f"priors must hold one probability for each of the {len(classes)} classes, in the order of "
            f"classes_; got shape {priors.shape}."
        )
    if not (priors >= 0).all() or abs(priors.sum() - 1) > 1e-6:
        raise ValueError(
            f"priors must be >= 0 and sum to 1; got {priors.min():g} at least and the sum "
            f"{priors.sum():g}. Divide them by their sum."
        )
    return priors


def _seeded(density, rng):
    """A clone, with the next seeds of `rng` (if any) for all of its random states."""
    twin = clone(density)
    if rng is not None:
        names = sorted(n for n in twin.get_params() if n.split("__")[-1] == "random_state")
        twin.set_params(**{name: int(rng.integers(SEEDS)) for name in names})
    return twin


def _stored_classes(stored):
    """Classes of a file as `fit` leaves them: of one type, sorted, none twice."""
    kinds = {type(label) for label in stored}
    if len(kinds) == 1 and kinds <= {bool, int, float, str} and stored == sorted(set(stored)):
        classes = np.array(stored)
        if classes.dtype.kind in "biuU" or (classes.dtype.kind == "f" and np.isfinite(classes).all()):
            return classes
    raise ValueError(
        "its classes must be finite numbers, strings or truth values that rise; "
        f"got {reprlib.repr(stored)}. Save the classifier again."
    )


def _check_alike(densities, where):
    """Refuse what is no density among the models of a file, and densities that do not take the same rows."""
    for density in densities:
        _check_scores(density)
    takes = {parts.row_shape(density) for density in densities}
    if len(takes) > 1:
        raise ValueError(
            f"{where} must hold densities of the same rows for all classes; got densities of rows of shapes "
            f"{sorted(takes)}. Save the classifier again."
        )


def _stored_densities(settings):
    """Kind and settings of each density, from the settings of a classifier in a file."""
    try:
        kind, stored = settings["kind"], settings["densities"]
        if settings.keys() - {"feature_names_in"} == {"kind", "classes", "priors", "densities"} and (
            len(stored) == len(settings["classes"]) > 0
        ):
            return [{"kind": kind, "settings": entry} for entry in stored]
    except (AttributeError, LookupError, TypeError):
        pass
    raise ValueError(
        'its settings must be "classes", "priors", a "kind" of density and the settings of one of these for '
        f"each class; got {reprlib.repr(settings)}. Save the classifier again."
    )
