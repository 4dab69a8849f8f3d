"""What a mixture of full covariances has learned: its public arrays, what is made of them, and its file."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, _contents
from gmmlib.full import quadratic, start, steps, whitening


class Learned:
    """The learned parameters of `gmmlib.FullGMM`."""

    def n_parameters(self):
        """Free parameters: weights, means if they are free, and covariances."""
        check_is_fitted(self)
        n_components, dimension = self.means_.shape
        means = 0 if self.zero_means else n_components * dimension
        return n_components - 1 + means + n_components * dimension * (dimension + 1) // 2

    def learned(self):
        """What `init` takes to start here: the learned arrays by name."""
        check_is_fitted(self)
        return {name: getattr(self, f"{name}_") for name in self._learned}

    def log_determinants(self, learned=None):
        """Log determinants of the covariances, (K,), or of those among other `learned` arrays."""
        covariances = (self.learned() if learned is None else learned)["covariances"]
        return np.linalg.slogdet(covariances)[1]

    def quadratic(self):
        """Log joints of complete rows by one product, a `gmmlib.full.quadratic.Quadratic`, or None.

        None where it is slower or loses digits: for many coordinates, or narrow covariances far apart.
        """
        check_is_fitted(self)
        return quadratic.of(self._parameters(), self.covariances_)

    @property
    def precisions_cholesky_(self):
        """Upper triangular factors of the precisions, (K, D, D)."""
        check_is_fitted(self)
        return np.stack([whitening.inverse_cholesky(covariance).T for covariance in self.covariances_])

    @property
    def precisions_(self):
        """Inverse covariances, (K, D, D)."""
        return np.stack([factor @ factor.T for factor in self.precisions_cholesky_])

    _learned = ("weights", "means", "covariances")
    _array_names = (*_learned, "log_likelihoods", "component_counts", "converged", "n_iter")

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
        model._set(start.given(arrays, n_components, dimension, where))
        model._parameters()  # a covariance can be positive definite and yet not when it is rotated
        model.n_features_in_ = dimension
        _contents.set_column_names(model, names, where)
        model.log_likelihoods_, model.converged_, model.n_iter_ = _contents.run(arrays, where, online=True)
        n_values, name = len(model.log_likelihoods_), "component_counts"
        counts = start.given_counts(arrays[name], n_values, n_components, f"{where}[{name!r}]")
        model.component_counts_ = counts
        return model

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
            self._set(start.given(learned, n_components, dimension, "the fitted model"), n_components)
            self.n_features_in_ = dimension
        if not self._scorer:
            self._scorer.append(steps.rotated(*self._own))
        return self._scorer[0]

    def __setstate__(self, state):
        """Make a copy: its arrays are read-only again, which pickles forget."""
        super().__setstate__(state)
        for values in getattr(self, "_own", ()):
            values.flags.writeable = False
