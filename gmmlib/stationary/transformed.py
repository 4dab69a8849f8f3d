"""The estimator of mixtures of templates under shifts; its steps are in `gmmlib.stationary.templates`."""

import math

import numpy as np
from scipy import fft
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, _contents, posterior, storage
from gmmlib.base import Mixture, OfImages, Scoring
from gmmlib.em import checkpoint
from gmmlib.em.batches import Additive
from gmmlib.em.checkpoint import Checkpoint
from gmmlib.em.loop import Saved, warn_of_empty
from gmmlib.spectrum import fold, powers, unfold
from gmmlib.stationary import steps, templates

NOISE = ("stationary", "white")


class TransformedGMM(Additive, OfImages, Mixture):
    """Gaussian mixture whose components have a template under an unknown circular shift, fitted by EM.

    The shift is summed over, so a density is the same wherever the template lies (as long as all shifts
    are allowed), as `ConvolutionalGMM`'s is; but the template keeps the phases that a power spectrum
    leaves out.

    Parameters
    ----------
    n_components : int
        Components K.
    max_shift : int, optional
        Largest shift along either axis, in pixels; all are equally probable.  By default every one of
        the H W circular shifts is; 0 allows none.
    noise : {"stationary", "white"}
        Whether a component has a spectrum of its own or one variance at all frequencies.
    variance_floor : float
        No variance is let below it, in squared grey levels.
    init : "random_from_data" or mapping
        Where EM starts: from randomly chosen images, or from ``{"weights": (K,), "means": (K, H, W),
        "spectra": (K, H, W//2 + 1)}``.
    max_iter, tol, n_init, random_state, callback, checkpoint, progress
        As in `gmmlib.base.LearnedByEM`.

    Attributes
    ----------
    weights_ : ndarray, (K,)
        Mixing weights.
    means_ : ndarray, (K, H, W)
        Templates, grey levels.  With all shifts allowed each is known up to a shift only.
    spectra_ : ndarray, (K, H, W//2 + 1)
        Power spectra of the noise in the unitary half-plane convention of `gmmlib.spectrum`, squared
        grey levels.
    image_shape_ : (int, int)
        H and W.
    log_likelihoods_, converged_, n_iter_
        As in `gmmlib.base.LearnedByEM`.

    References
    ----------
    Frey and Jojic (2003), IEEE TPAMI 25(1), 1-17, for EM over discrete transformations; the same
    (2002), Advances in Neural Information Processing Systems 14, for shifts by the fast Fourier
    transform.
    """

    def __init__(
        self,
        n_components=1,
        *,
        max_shift=None,
        noise="stationary",
        variance_floor=1e-6,
        max_iter=100,
        tol=1e-3,
        init="random_from_data",
        n_init=1,
        random_state=None,
        callback=None,
        checkpoint=None,
        progress=False,
    ):
        self.n_components = n_components
        self.max_shift = max_shift
        self.noise = noise
        self.variance_floor = variance_floor
        self.max_iter = max_iter
        self.tol = tol
        self.init = init
        self.n_init = n_init
        self.random_state = random_state
        self.callback = callback
        self.checkpoint = checkpoint
        self.progress = progress

    def _fit(self, X, weight):
        layout, shifts = fold(X.shape[1:]), self._window(X.shape[1:])
        file = Checkpoint(self, X, weight)
        with file, templates.workers(self.n_components, shifts) as workers:
            saved = self._saved(file, weight, layout)
            self._run_em(
                templates.start(self, X, weight, layout) if saved is None else saved,
                lambda parameters: self._e_step(
                    templates.bank(parameters, layout, shifts), X, weight, workers
                ),
                lambda statistics: self._m_step(statistics, layout),
                lambda parameters: self._set(layout, parameters),
                file=file,
                pack=templates.packed,
            )

    def _statistics_of(self, X, sample_weight):
        X = self._data(X)
        weight = _checks.sample_weight(sample_weight, len(X))
        prepared = templates.bank(self._parameters, self._layout, self._shifts)
        with templates.workers(len(self.weights_), self._shifts) as workers:
            return self._e_step(prepared, X, weight, workers)[0]

    def statistics_given(self, X, posteriors):
        """Sufficient statistics of images whose components have posteriors (N, K), times row weights."""
        X, prepared = self._data(X), templates.bank(self._parameters, self._layout, self._shifts)
        ones = np.ones(len(X))
        with templates.workers(len(self.weights_), self._shifts) as workers:
            total = workers.sum(
                lambda rows: templates.e_step(prepared, X[rows], ones[rows], posteriors[rows]), len(X)
            )
        return total._replace(weight=total.mass.sum())

    def _set_from(self, statistics):
        self._set(self._layout, self._m_step(statistics, self._layout))

    def predict_shift(self, X):
        """Find the most probable pair of component and shift of each image.

        Parameters
        ----------
        X : array-like, (N, H, W)

        Returns
        -------
        labels : ndarray of int, (N,)
        shifts : ndarray of int, (N, 2)
            Pixels down and to the right, between minus half and half of a side;
            ``shifted(X, -shifts)`` lies on the templates.
        """
        X, log_joint, workers = self._over_shifts(X)
        with workers:
            best = workers.fill(
                lambda rows: posterior.most_probable(log_joint(rows).reshape(rows.stop - rows.start, -1)),
                np.empty(len(X), dtype=np.intp),
            )
        rows, columns = self._shifts
        label, shift = np.divmod(best, len(rows) * len(columns))
        row, column = np.divmod(shift, len(columns))
        return label, templates.signed(np.stack([rows[row], columns[column]], axis=1), self.image_shape_)

    def n_parameters(self):
        """Free parameters: weights, templates, and a spectrum or a variance each."""
        check_is_fitted(self)
        noise = 1 if self.noise == "white" else len(self._layout.bins)
        return len(self.weights_) * (1 + math.prod(self.image_shape_) + noise) - 1

    def _draw(self, labels, rng):
        noise = fft.rfft2(rng.standard_normal((len(labels), *self.image_shape_)))
        noise = fft.irfft2(noise * np.sqrt(self.spectra_)[labels], s=self.image_shape_)
        shifts = np.stack([rng.choice(axis, len(labels)) for axis in self._shifts], axis=1)
        return templates.shifted(self.means_[labels], shifts) + noise

    _array_names = ("weights", "means", "spectra", "log_likelihoods", "converged")

    def to_arrays(self):
        """Settings and arrays that make the fitted model again."""
        check_is_fitted(self)
        arrays = {name: getattr(self, f"{name}_") for name in self._array_names}
        arrays["converged"] = np.array(int(self.converged_))
        fitted = {"n_components": len(self.weights_), "max_shift": self._max_shift}
        return _contents.settings(self, **fitted), arrays

    @classmethod
    def from_arrays(cls, settings, arrays, where):
        """The inverse of `to_arrays`; errors say `where` the arrays come from."""
        model = _contents.model(cls, settings)
        if arrays["means"].ndim != 3:
            raise ValueError(f"{where}['means'] must have shape (K, H, W); got {arrays['means'].shape}.")
        layout = fold(storage.image_shape(arrays["means"].shape[1:], arrays, where))
        model._window(layout.shape)
        model._set(layout, templates.given(arrays, model.n_components, layout, where))
        _contents.whole_plane(arrays["spectra"], model.spectra_, f"{where}['spectra']")
        iterations = {"n_iter": max(arrays["log_likelihoods"].size - 1, 0)}
        model.log_likelihoods_, model.converged_, model.n_iter_ = _contents.run(arrays | iterations, where)
        return model

    def _check_settings(self):
        _checks.settings(self)
        _checks.one_of(self.noise, "noise", NOISE)

    def _window(self, shape):
        if self.max_shift is None:
            return templates.window(shape)
        most = (min(shape) - 1) // 2
        valid = isinstance(self.max_shift, (int, np.integer)) and not isinstance(self.max_shift, bool)
        if not valid or not 0 <= self.max_shift <= most:
            raise ValueError(
                f"max_shift must be an integer from 0 to {most} for images of {shape[0]} x {shape[1]} "
                f"pixels, so that no shift occurs twice; got {self.max_shift!r}. None allows all shifts."
            )
        return templates.window(shape, int(self.max_shift))

    def _over_shifts(self, X):
        """Rows to log joints (n, K, S) of images, components and shifts, and the workers for them."""
        X = self._data(X)
        layout, shifts = self._layout, self._shifts
        prepared = templates.bank(self._parameters, layout, shifts)

        def log_joint(rows):
            images = np.asarray(X[rows], dtype=np.float64)
            return templates.log_joints(prepared, fft.rfft2(images, norm="ortho"), powers(images, layout))

        return X, log_joint, templates.workers(len(self.weights_), shifts)

    def _scoring(self, X, everything):
        """How `Mixture` scores images: the shifts are summed over."""
        X, log_joint, workers = self._over_shifts(X)

        def summed(rows):
            joint = log_joint(rows)
            n, n_components, n_shifts = joint.shape
            return templates.normalise(joint.reshape(-1, n_shifts)).reshape(n, n_components)

        return Scoring(len(X), len(self.weights_), summed, workers)

    @property
    def _layout(self):
        return fold(self.image_shape_)

    @property
    def _shifts(self):
        """The shifts of the fit; of a model whose parameters were set by hand, those of `max_shift`."""
        return getattr(self, "_fitted_shifts", None) or self._window(self.image_shape_)

    @property
    def _parameters(self):
        """The learned parameters, folded: what is set by hand counts from then on."""
        learned = {"weights": self.weights_, "means": self.means_, "spectra": self.spectra_}
        return templates.given(learned, len(self.weights_), self._layout, "the fitted model")

    def _set(self, layout, parameters):
        self._fitted_shifts, self._max_shift = self._window(layout.shape), self.max_shift
        self.image_shape_ = layout.shape
        self.weights_, self.means_, _ = parameters
        self.spectra_ = unfold(parameters.spectra, layout)

    def _saved(self, file, weight, layout):
        """Where the checkpoint goes on from, or None."""
        (height, width), n_components = layout.shape, self.n_components
        shapes = {"mass": (n_components,), "power": (n_components, len(layout.bins))}
        shapes |= {"transform": (n_components, height, 2 * (width // 2 + 1))}
        state = file.read(
            lambda state: checkpoint.check_statistics(state, shapes, weight, signed=("transform",))
        )
        return None if state is None else Saved(templates.unpacked(state.statistics), state.log_likelihoods)

    def _e_step(self, prepared, X, weight, workers):
        total = workers.sum(lambda rows: templates.e_step(prepared, X[rows], weight[rows]), len(X))
        return total, total.log_likelihood / total.weight

    def _m_step(self, statistics, layout):
        learned = templates.m_step(statistics, layout, self.variance_floor, self.noise)
        parameters, empty = templates.revive(learned, self.variance_floor)
        warn_of_empty(empty, "images")
        steps.check_positive(parameters)
        return parameters
