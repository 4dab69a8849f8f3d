"""What estimators share: scores by Bayes' rule, draws, files, and the run of EM.

A mixture of a new kind brings its settings, a start, statistics and an M-step for `Mixture._run_em`, and

- ``_scoring(X, everything)``: how rows are scored, a `Scoring`;
- ``_draw(labels, rng)``: rows drawn from components;
- ``n_parameters()``: how many numbers are learned;
- ``to_arrays``, ``from_arrays`` and ``_array_names``: what a file holds, see `Stored`.

All else is inherited.
"""

from copy import copy
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, posterior, storage
from gmmlib.em.loop import em, record
from gmmlib.em.workers import Workers


class Scoring(NamedTuple):
    """How the rows of a data set are scored: in blocks, which threads share."""

    n_rows: int
    n_components: int
    log_joint: object  # slice of rows -> log joints (n, K), nats
    workers: Workers


class Stored:
    """Estimators that can be written to a file and read back, alone or as part of another one.

    A subclass brings

    - ``to_arrays()``: settings, a dict that JSON can hold, and arrays of numbers by name, which together
      make the fitted model again; NotFittedError before a fit, ValueError if they would not;
    - ``from_arrays(settings, arrays, where)``, a class method, its inverse: a fitted model, or an error if
      no fit can have made it, which says `where` the arrays come from;
    - ``_array_names``, a tuple, or `array_names` if names depend on the settings.
    """

    def save(self, path, note=""):
        """Write the fitted model to an npz file, whole or not at all; `storage.note` reads the note back."""
        if not isinstance(note, str):
            raise ValueError(f"note must be a text; got {note!r}. Say in it what the model was fitted to.")
        storage.write(path, type(self).__name__, *self.to_arrays(), note=note)

    @classmethod
    def load(cls, path):
        """Read a model that `save` wrote; `gmmlib.storage.ModelFileError` if the file is not one.

        What matters to a run alone (start, random state, callback, checkpoint, progress) is not part of a
        file.
        """
        return storage.load(path, cls)

    @classmethod
    def array_names(cls, settings=None):
        """What the arrays are called that go with these settings in a file."""
        return cls._array_names


class Scored:
    """Densities, which score rows one by one."""

    def score(self, X, y=None):
        """Mean log-likelihood, nats per row."""
        return float(self.score_samples(X).mean())


class OfImages:
    """Estimators whose rows are images (N, H, W)."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def _data(self, X, reset=False):
        if reset:
            return _checks.images(X)
        check_is_fitted(self)
        return _checks.images(X, shape=self.image_shape_)


class BayesRule(Stored):
    """Classifiers that score each row in each class: `log_joint` (N, C) in the order of `classes_`."""

    def predict(self, X):
        """Most probable class of each row, (N,); the first in `classes_` among equals."""
        best = posterior.most_probable(self.log_joint(X))
        return self.classes_[best]

    def predict_proba(self, X):
        """Posterior of each class, (N, C); rows sum to 1."""
        return posterior.proba(self.log_joint(X))

    def predict_log_proba(self, X):
        """Log posteriors, (N, C), accurate even where the posterior rounds to 1."""
        return posterior.log_proba(self.log_joint(X))


class LearnedByEM(Stored):
    """Estimators whose `fit` is a run of EM (Dempster, Laird and Rubin 1977, JRSS B 39).

    Parameters
    ----------
    max_iter : int
        EM iterations at most.
    tol : float
        Stop when an iteration changes the mean log-likelihood by less, in nats per row; 0 never stops early.
    n_init : int
        Starts, one after the other from one random stream; the fit of the highest log-likelihood is kept.
    random_state : int, Generator, RandomState or None
        Randomness of the start, and of an algorithm that draws.
    algorithm : {"em", "sem", "cem", "annealed"} or mapping
        What the M-step is given: all posteriors, one component drawn from each row's, the most probable one,
        or posteriors of a temperature that falls; see `gmmlib.em.algorithm.Algorithm`.
    callback : callable, optional
        ``callback(model, iteration)`` after the start and each iteration, with the model usable as it
        stands; a true result stops EM.
    checkpoint : path-like, optional
        File that keeps the state of a fit after each iteration.  If it is there, `fit` goes on from it, to
        the same result bit for bit, or refuses it as that of another fit; at the end `fit` removes it.
    progress : bool
        Show a progress bar.
    chunk_size : int
        Rows that a thread takes at a time, in whole blocks; no digit depends on it.

    Attributes
    ----------
    log_likelihoods_ : ndarray, (iterations + 1,)
        Mean log-likelihood in nats per row at the start and after each iteration; after `partial_fit` that
        of each batch before its step.
    converged_ : bool
        Whether `tol` stopped the run.
    n_iter_ : int
    """

    _trace = "log_likelihoods_"

    def fit(self, X, y=None, sample_weight=None):
        """Fit by EM; return self.

        The rows X are images (N, H, W) of any one size, groups of them (N, G, H, W), or samples (N, D), as
        the class says.  `sample_weight` (N,) are row weights: 0 leaves a row out, an integer repeats it; `y`
        is ignored.  ValueError says which argument cannot be used and what to do; ConvergenceWarning that a
        component lost all its rows and was re-initialised, `max_iter` ended a run that `tol` was to end, or
        the log-likelihood fell.
        """
        self._check_settings()
        X = self._data(X, reset=True)
        weight = _checks.sample_weight(sample_weight, len(X))
        self._check_enough(weight)
        if getattr(self, "n_init", 1) == 1:
            self._fit(X, weight)
        else:
            self._fit_often(X, weight)
        return self

    def _fit_often(self, X, weight):
        """Fit from each of `n_init` starts; the first of the best that tie is taken over."""
        if getattr(self, "checkpoint", None) is not None:
            raise ValueError(
                f"checkpoint must be None with n_init={self.n_init}, for it holds one fit; got "
                f"{self.checkpoint!r}. Fit from one start after the other, each with its own file."
            )
        best, highest, rng = None, -np.inf, _checks.generator(self.random_state)
        for _ in range(self.n_init):
            one = copy(self).set_params(n_init=1, random_state=rng)
            try:
                one._fit(X, weight)
            except KeyboardInterrupt:
                self._take_over(one)
                raise
            value = getattr(one, self._trace)[-1]
            if value > highest + posterior.TIE:
                best, highest = one, value
        self._take_over(best)

    def _take_over(self, other):
        """Learn what another one has learned."""
        learned = vars(other).keys() - set(self._get_param_names())
        vars(self).update({name: vars(other)[name] for name in learned})

    def _check_enough(self, weight):
        _checks.enough_rows(weight, self.n_components)

    def _run_em(self, start, e_step, m_step, put, *, file=None, pack=None, **options):
        """Run `gmmlib.em.loop.em` with this model's settings, and keep what it comes to, Ctrl-C or not.

        `put` turns parameters into public attributes, `pack` statistics into arrays by name, for the file.
        """

        def report(parameters, log_likelihoods):
            put(parameters)
            record(self, log_likelihoods)
            return self.callback(self, len(log_likelihoods) - 1)

        parameters, trace = em(
            start,
            e_step,
            m_step,
            max_iter=self.max_iter,
            tol=self.tol,
            callback=None if self.callback is None else report,
            save=None if file is None else file.writer(pack, options.get("algorithm")),
            progress=self.progress,
            **options,
        )
        put(parameters)
        record(self, trace.log_likelihoods, trace.converged)
        if file is not None and not trace.interrupted:
            file.remove()
        trace.pass_on_interrupt()


class Mixture(LearnedByEM, Scored, DensityMixin, BaseEstimator):
    """Mixtures of K components that are scored row by row."""

    # Evidence (n,) and posteriors (n, K) of log joints (n, K), which they may overwrite.
    _evidence = staticmethod(posterior.evidence)
    _posteriors = staticmethod(posterior.proba)

    def log_joint(self, X):
        """Log weight plus log density of each row (as in `fit`) under each component, (N, K), nats."""
        return self._by_chunk(X, lambda joint: joint, per_component=True, everything=True)

    def score_samples(self, X):
        """Log-likelihood of each row, (N,), nats; memory does not grow with N."""
        return self._by_chunk(X, self._evidence)

    def predict(self, X):
        """Most probable component of each row, (N,); the lowest index among equals."""
        return self._by_chunk(X, posterior.most_probable, dtype=np.intp)

    def predict_proba(self, X):
        """Posterior of each component, (N, K); rows sum to 1."""
        return self._by_chunk(X, self._posteriors, per_component=True)

    def predict_log_proba(self, X):
        """Log posteriors, (N, K), accurate even where the posterior rounds to 1."""
        return self._by_chunk(X, posterior.log_proba, per_component=True, everything=True)

    def fit_predict(self, X, y=None, sample_weight=None):
        """Fit, and return the most probable component of each row, (N,)."""
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def sample(self, n_samples=1, random_state=None):
        """Draw rows, (n_samples, ...), grouped by component, and the component of each, (n_samples,)."""
        check_is_fitted(self)
        n_samples = _checks.positive_integer(n_samples, "n_samples")
        rng = _checks.generator(random_state)
        counts = rng.multinomial(n_samples, self.weights_)
        labels = np.repeat(np.arange(len(counts)), counts)
        return self._draw(labels, rng), labels

    def sample_components(self, labels, random_state=None):
        """Draw a row from each of the components `labels`, integers (N,): X (N, ...)."""
        check_is_fitted(self)
        labels = _checks.components(labels, len(self.weights_))
        return self._draw(labels, _checks.generator(random_state))

    def aic(self, X):
        """Akaike's criterion of the rows X, in nats times two; lower is better."""
        return -2 * self.score_samples(X).sum() + 2 * self.n_parameters()

    def bic(self, X):
        """Schwarz's criterion of the rows X, in nats times two; lower is better."""
        scores = self.score_samples(X)
        return -2 * scores.sum() + self.n_parameters() * np.log(len(scores))

    def __sklearn_is_fitted__(self):
        return hasattr(self, "weights_")

    def _by_chunk(self, X, function, *, per_component=False, dtype=np.float64, everything=False):
        """Fill an array (N,) or (N, K) with a function of the log joints of each block."""
        check_is_fitted(self)
        scoring = self._scoring(X, everything)

        def evaluate(rows):
            return function(_checks.log_joints(scoring.log_joint(rows), rows.start))

        with scoring.workers as workers:
            shape = (scoring.n_rows, scoring.n_components) if per_component else scoring.n_rows
            return workers.fill(evaluate, np.empty(shape, dtype=dtype))
