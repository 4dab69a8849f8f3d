"""The estimator of mixtures of stationary Gaussians; its steps are in `gmmlib.stationary.steps`.

The filter of a component is the one that whitens it: its power spectrum is ``1 / s``.
"""

import math

import numpy as np
from scipy import fft
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, _contents, storage
from gmmlib.base import Mixture, OfImages, Scoring
from gmmlib.em import checkpoint
from gmmlib.em.algorithm import Algorithm
from gmmlib.em.batches import Additive, Online, step_size
from gmmlib.em.checkpoint import Checkpoint
from gmmlib.em.loop import Saved, record, warn_of_empty
from gmmlib.em.workers import Workers, block_size
from gmmlib.spectrum import fold, multiplicity, powers, unfold
from gmmlib.stationary import steps


class ConvolutionalGMM(steps.Spectral, Additive, Online, OfImages, Mixture):
    """Gaussian mixture with circulant covariances, fitted to images by EM in the Fourier domain.

    Parameters
    ----------
    n_components : int
        Components K.
    zero_mean_patches : bool
        The images had their own mean removed: leave out the zero frequency and count
        H W - 1 dimensions.
    variance_floor : float
        No variance is let below it, in squared grey levels.  The default suits grey levels in
        [0, 1]: about the rounding noise of 8-bit pixels, 1 / (12 * 255^2) = 1.3e-6.
    init : "random_from_data" or mapping
        Where EM starts: from randomly chosen images, or from ``{"weights": (K,), "spectra":
        (K, H, W//2 + 1)}``.
    max_iter, tol, n_init, algorithm, random_state, callback, checkpoint, progress, chunk_size
        As in `gmmlib.base.LearnedByEM`.

    Attributes
    ----------
    weights_ : ndarray, (K,)
        Mixing weights.
    spectra_ : ndarray, (K, H, W//2 + 1)
        Power spectra in the unitary half-plane convention of `gmmlib.spectrum`, squared grey levels;
        0 at a frequency that is left out.
    filters_ : ndarray, (K, H, W//2 + 1)
        Power spectra of the whitening filters, ``1 / spectra_``; 0 at a frequency that is left out.
    image_shape_ : (int, int)
        H and W.
    n_dimensions_ : int
        Dimensions the density counts: H W, or H W - 1 with `zero_mean_patches`.
    log_likelihoods_, converged_, n_iter_
        As in `gmmlib.base.LearnedByEM`.

    References
    ----------
    Dempster, Laird and Rubin (1977), JRSS B 39, for EM; Goerg (2011), arXiv:1103.3300, for EM on
    periodograms, the one-dimensional ancestor of this model; Cappe and Moulines (2009), JRSS B 71,
    593-613, for `partial_fit`.
    """

    def __init__(
        self,
        n_components=1,
        *,
        zero_mean_patches=False,
        variance_floor=1e-6,
        max_iter=100,
        tol=1e-3,
        init="random_from_data",
        n_init=1,
        algorithm="em",
        random_state=None,
        callback=None,
        checkpoint=None,
        progress=False,
        chunk_size=2048,
    ):
        self.n_components = n_components
        self.zero_mean_patches = zero_mean_patches
        self.variance_floor = variance_floor
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

    def _fit(self, X, weight):
        layout = steps.layout_of(X.shape[1:], self.zero_mean_patches)
        file = Checkpoint(self, X, weight)  # before anybody draws from random_state
        algorithm = Algorithm(self.algorithm, len(X), self.random_state)
        with file, self._workers(layout) as workers:
            saved = self._saved(file, weight, layout, algorithm)
            P = steps.all_powers(X, layout, workers)
            steps.check_variance(P, weight, layout, self.variance_floor)
            start = self._start(P, weight, layout) if saved is None else saved
            self._run_em(
                start,
                lambda parameters: self._e_step(parameters, P, weight, layout, workers, algorithm),
                self._m_step,
                lambda parameters: self._set(layout, parameters),
                file=file,
                pack=steps.Statistics._asdict,
                algorithm=algorithm,
            )

    def _take(self, X, weight, first):
        layout = steps.layout_of(X.shape[1:], self.zero_mean_patches) if first else self._layout
        with self._workers(layout) as workers:
            P = steps.all_powers(X, layout, workers)
            if first:
                steps.check_variance(P, weight, layout, self.variance_floor)
            before = self._start(P, weight, layout) if first else self._parameters
            batch = steps.statistics(before, P, weight, layout, workers)
        if first or not self._goes_on(before):
            # A first batch counts in full, for the start came from it.
            average, n_steps, trace = steps.expected(before), 0 if first else 1, np.empty(0)
        else:
            (_, average, n_steps), trace = self._online, self.log_likelihoods_
        average = steps.blend(average, batch, step_size(n_steps + 1))
        parameters = self._m_step(average)
        if (average.mass <= steps.EMPTY).any():  # what was revived is not in the average
            average = steps.expected(parameters)
        self._set(layout, parameters)
        self._online = parameters, average, n_steps + 1
        record(self, np.append(trace, batch.log_likelihood / batch.weight))
        self.n_iter_ = n_steps + 1

    def _statistics_of(self, X, sample_weight):
        X, layout = self._data(X), self._layout
        weight = _checks.sample_weight(sample_weight, len(X))
        with self._workers(layout) as workers:
            P = steps.all_powers(X, layout, workers)
            return steps.statistics(self._parameters, P, weight, layout, workers)

    def statistics_given(self, X, posteriors):
        """Sufficient statistics of images whose components have posteriors (N, K), times row weights."""
        X, layout = self._data(X), self._layout

        def of(rows):
            resp = posteriors[rows]
            return steps.Statistics(resp.sum(axis=0), resp.T @ powers(X[rows], layout), 0.0, resp.sum())

        with self._workers(layout) as workers:
            return workers.sum(of, len(X))

    def _set_from(self, statistics):
        self._set(self._layout, self._m_step(statistics))

    def n_parameters(self):
        """Free parameters: weights and the distinct powers of each spectrum."""
        check_is_fitted(self)
        return len(self.weights_) * (1 + len(self._layout.bins)) - 1

    def learned(self):
        """What `init` takes to start here: the learned arrays by name; a frequency left out has power 1."""
        check_is_fitted(self)
        spectra = self.spectra_.copy()
        if self._leaves_out():
            spectra[:, 0, 0] = 1.0
        return {"weights": self.weights_, "spectra": spectra}

    def log_determinants(self, learned=None):
        """Log determinants of the covariances, (K,), or of those among other `learned` arrays."""
        with np.errstate(divide="ignore"):
            logs = np.log((self.learned() if learned is None else learned)["spectra"])
        if self._leaves_out():
            logs[:, 0, 0] = 0.0
        return (multiplicity(self.image_shape_) * logs).sum(axis=(1, 2))

    def _scoring(self, X, everything):
        """How `Mixture` scores images: one product of their powers per chunk."""
        X, layout = self._data(X), self._layout
        slope, constant = steps.coefficients(self._parameters, layout.multiplicity)

        def log_joint(rows):
            return powers(X[rows], layout) @ slope + constant

        return Scoring(len(X), len(constant), log_joint, self._workers(layout))

    def _draw(self, labels, rng):
        """Draw an image from each of the components `labels` (N,): (N, H, W)."""
        # White noise shaped by the square root of the spectrum has exactly the circulant covariance.
        noise = fft.rfft2(rng.standard_normal((len(labels), *self.image_shape_)))
        return fft.irfft2(noise * np.sqrt(self.spectra_)[labels], s=self.image_shape_)

    _array_names = ("weights", "spectra", "log_likelihoods", "converged", "n_iter", "image_shape")

    def to_arrays(self):
        """Settings and arrays that make the fitted model again."""
        check_is_fitted(self)
        arrays = {
            "weights": self.weights_,
            "spectra": self.spectra_,
            "log_likelihoods": getattr(self, self._trace),
            "converged": np.array(int(self.converged_)),
            "n_iter": np.array(self.n_iter_),
            "image_shape": np.array(self.image_shape_),
        }
        fitted = {"n_components": len(self.weights_)}
        fitted["zero_mean_patches"] = self._leaves_out()
        return _contents.settings(self, **fitted), arrays

    @classmethod
    def from_arrays(cls, settings, arrays, where):
        """The inverse of `to_arrays`; errors say `where` the arrays come from."""
        model = _contents.model(cls, settings)
        shape = storage.image_shape(arrays["image_shape"], arrays, where)
        layout = fold(shape, zero_frequency=not model.zero_mean_patches)
        model._set(layout, steps.given(arrays, model.n_components, layout, where))
        _contents.whole_plane(arrays["spectra"], model.spectra_, f"{where}['spectra']")
        values, converged, n_iter = _contents.run(arrays, where, online=True)
        record(model, values, converged)
        model.n_iter_ = n_iter
        return model

    def _check_settings(self):
        _checks.settings(self)
        Algorithm.checked(self.algorithm)

    def _workers(self, layout):
        chunk_size = _checks.positive_integer(self.chunk_size, "chunk_size")
        return Workers(chunk_size, block_size(math.prod(layout.shape)))

    @property
    def _parameters(self):
        """The learned parameters, folded: what is set by hand counts from then on."""
        learned = {"weights": self.weights_, "spectra": self.spectra_}
        return steps.given(learned, len(self.weights_), self._layout, "the fitted model")

    def _goes_on(self, before):
        """Whether the moments of `partial_fit` belong to the parameters of now."""
        online = getattr(self, "_online", None)
        return online is not None and all(map(np.array_equal, online[0], before))

    def _check_continuation(self):
        """Refuse settings that a fitted model cannot take over."""
        _checks.unchanged("n_components", self.n_components, len(self.weights_))
        _checks.unchanged("zero_mean_patches", bool(self.zero_mean_patches), self._leaves_out())

    def _set(self, layout, parameters):
        self._online = None  # moments of other parameters
        self.image_shape_ = layout.shape
        self.n_dimensions_ = layout.dimension
        self.weights_ = parameters.weights
        self.spectra_ = unfold(parameters.spectra, layout)

    def _saved(self, file, weight, layout, algorithm):
        """Where the checkpoint goes on from, or None."""
        shape = (self.n_components, len(layout.bins))

        def check(state):
            checkpoint.check_statistics(state, {"mass": shape[:1], "power": shape}, weight)
            algorithm.restore(state.algorithm, len(state.log_likelihoods))

        state = file.read(check)
        return None if state is None else Saved(steps.Statistics(**state.statistics), state.log_likelihoods)

    def _start(self, P, weight, layout):
        settings = self.init, self.n_components, self.variance_floor, self.random_state
        return steps.start(P, weight, layout, *settings)

    def _e_step(self, parameters, P, weight, layout, workers, algorithm):
        total = steps.statistics(parameters, P, weight, layout, workers, algorithm)
        return total, total.log_likelihood / total.weight

    def _m_step(self, statistics):
        parameters, empty = steps.revive(steps.m_step(statistics, self.variance_floor), self.variance_floor)
        warn_of_empty(empty, "images")
        steps.check_positive(parameters)
        return parameters
