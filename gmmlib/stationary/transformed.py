"""The estimator of mixtures of templates under shifts; its steps are in `gmmlib.stationary.templates`."""

import math

import numpy as np
from scipy import fft
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, posterior
from gmmlib.base import Mixture, OfImages, Scoring
from gmmlib.em.batches import Additive
from gmmlib.em.checkpoint import Checkpoint
from gmmlib.em.loop import warn_of_empty
from gmmlib.spectrum import fold, powers, unfold
from gmmlib.stationary import steps, templates
from gmmlib.stationary.spectral import Spectral, saved

NOISE = ("stationary", "white")


class TransformedGMM(Spectral, Additive, OfImages, Mixture):
    """Gaussian mixture whose components have a template under an unknown circular shift, fitted by EM.

    The shift is summed over: with all shifts allowed a density is the same wherever the template lies, as
    `ConvolutionalGMM`'s is.  But the template keeps the phases that a power spectrum leaves out.

    Parameters
    ----------
    n_components : int
        Components K.
    max_shift : int, optional
        Largest shift along either axis, in pixels; all are equally probable.  By default all H W circular
        shifts are allowed; 0 allows none.
    noise : {"stationary", "white"}
        Whether a component has a spectrum of its own or one variance at all frequencies.
    init : "random_from_data" or mapping
        Where EM starts: from randomly chosen images, or
        ``{"weights": (K,), "means": (K, H, W), "spectra": (K, H, W//2 + 1)}``.
    variance_floor, max_iter, tol, n_init, random_state, callback, checkpoint, progress
        As in `ConvolutionalGMM`.

    Attributes
    ----------
    weights_ : ndarray, (K,)
    means_ : ndarray, (K, H, W)
        Templates, grey levels.  With all shifts allowed each is known up to a shift only.
    spectra_ : ndarray, (K, H, W//2 + 1)
        Power spectra of the noise, squared grey levels, as those of `ConvolutionalGMM`.
    image_shape_, log_likelihoods_, converged_, n_iter_
        As in `ConvolutionalGMM`.

    References
    ----------
    Frey and Jojic (2003), IEEE TPAMI 25(1), 1-17, for EM over discrete transformations; the same (2002),
    NIPS 14, for shifts by the fast Fourier transform.
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
        layout, shifts = fold(X.shape[1:]), templates.window(X.shape[1:], self.max_shift)
        file = Checkpoint(self, X, weight)
        shapes = templates.packed_shapes(self.n_components, layout)
        with file, templates.workers(self.n_components, shifts) as workers:
            goes_on = saved(file, templates.unpacked, shapes, weight, signed=("transform",))
            self._run_em(
                templates.start(self, X, weight, layout) if goes_on is None else goes_on,
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
        """Find the most probable pair of component and shift of each image: labels (N,) and shifts (N, 2).

        Shifts are pixels down and to the right, from minus half to half of a side: ``shifted(X, -shifts)``
        lies on the templates.
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
        noise = steps.noise(self.spectra_, labels, self._layout, rng)
        shifts = np.stack([rng.choice(axis, len(labels)) for axis in self._shifts], axis=1)
        return templates.shifted(self.means_[labels], shifts) + noise

    _learned = ("weights", "means", "spectra")
    _array_names = (*_learned, "log_likelihoods", "converged")

    @classmethod
    def from_arrays(cls, settings, arrays, where):
        """The inverse of `to_arrays`; errors say `where` the arrays come from."""
        shape, n_values = arrays["means"].shape, arrays["log_likelihoods"].size
        if len(shape) != 3:
            raise ValueError(f"{where}['means'] must have shape (K, H, W); got {shape}.")
        implied = {"image_shape": np.array(shape[1:]), "n_iter": np.array(max(n_values - 1, 0))}
        return super().from_arrays(settings, arrays | implied, where)

    def _check_settings(self):
        _checks.settings(self)
        _checks.one_of(self.noise, "noise", NOISE)

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
            return steps.normalised(joint.reshape(-1, n_shifts))[1].reshape(n, n_components)

        return Scoring(len(X), len(self.weights_), summed, workers)

    @property
    def _shifts(self):
        """The shifts of the fit."""
        return templates.window(self.image_shape_, self._held()["max_shift"])

    def _held(self):
        # A model whose parameters were set by hand has the shifts of its setting.
        return {"n_components": len(self.weights_), "max_shift": getattr(self, "_max_shift", self.max_shift)}

    def _given(self, mapping, layout, name, settings):
        return templates.given(mapping, settings["n_components"], layout, name)

    def _set(self, layout, parameters):
        templates.window(layout.shape, self.max_shift)  # refuses shifts that such images cannot have
        self._max_shift = self.max_shift
        self.image_shape_ = layout.shape
        self.weights_, self.means_, _ = parameters
        self.spectra_ = unfold(parameters.spectra, layout)

    def _e_step(self, prepared, X, weight, workers):
        total = workers.sum(lambda rows: templates.e_step(prepared, X[rows], weight[rows]), len(X))
        return total, total.log_likelihood / total.weight

    def _m_step(self, statistics, layout):
        learned = templates.m_step(statistics, layout, self.variance_floor, self.noise)
        parameters, empty = templates.revive(learned, self.variance_floor)
        warn_of_empty(empty, "images")
        steps.check_positive(parameters)
        return parameters
