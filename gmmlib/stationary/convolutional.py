"""The estimator of mixtures of stationary Gaussians; its steps are in `gmmlib.stationary.steps`.

The filter of a component is the one that whitens it: its power spectrum is ``1 / s``.
"""

import math

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks
from gmmlib.base import Mixture, OfImages, Scoring
from gmmlib.em.algorithm import Algorithm
from gmmlib.em.batches import Additive, Online, step_size
from gmmlib.em.checkpoint import Checkpoint
from gmmlib.em.loop import record, warn_of_empty
from gmmlib.em.workers import Workers, block_size
from gmmlib.stationary import bases, steps
from gmmlib.stationary.spectral import Filtering, saved
from gmmlib.stationary.wiener import Denoising
from gmmlib.stationary.windows import OfWindows


class ConvolutionalGMM(Filtering, OfWindows, Denoising, Additive, Online, OfImages, Mixture):
    """Gaussian mixture with circulant covariances, fitted to images by EM in the Fourier domain.

    In another `basis` than Fourier's covariances are diagonal there, and everything else stays.

    Parameters
    ----------
    n_components : int
        Components K.
    zero_mean_patches : bool
        The images had their own mean removed: leave out the zero frequency and count H W - 1 dimensions.
        Not with ``basis="pixel"``.
    basis : {"fourier", "cosine", "pixel"}
        In which orthonormal basis coefficients are independent: the unitary Fourier transform; the cosine
        transform of type II, which mirrors images at their border instead of wrapping them around; or the
        pixels themselves, a plain diagonal mixture.  See `gmmlib.stationary.bases`.
    variance_floor : float
        No variance is let below it, in squared grey levels.  The default suits grey levels in [0, 1]: about
        the rounding noise of 8-bit pixels, 1 / (12 * 255^2) = 1.3e-6.
    init : "random_from_data" or mapping
        Where EM starts: from randomly chosen images, or ``{"weights": (K,), "spectra": (K, H, W//2 + 1)}``,
        spectra of (K, H, W) in another basis than Fourier's.
    max_iter, tol, n_init, algorithm, random_state, callback, checkpoint, progress, chunk_size
        As in `gmmlib.base.LearnedByEM`.

    Attributes
    ----------
    weights_ : ndarray, (K,)
    spectra_, filters_ : ndarray, (K, H, W//2 + 1), or (K, H, W) in another basis than Fourier's
        Power spectra in the unitary half-plane convention of `gmmlib.spectrum`, squared grey levels, and
        those of the whitening filters, one by them; 0 at a frequency that is left out.  In another basis
        the variance of each coefficient, and one by it.
    basis_ : str
        The basis of `spectra_`.
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
    593-613, for `partial_fit`; Ahmed, Natarajan and Rao (1974), IEEE Trans. Comput. C-23, 90-93, for the
    cosine basis.
    """

    def __init__(
        self,
        n_components=1,
        *,
        zero_mean_patches=False,
        basis="fourier",
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
        self.basis = basis
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
        layout = steps.layout_of(X.shape[1:], self.zero_mean_patches, self.basis)
        file = Checkpoint(self, X, weight)  # before anybody draws from random_state
        algorithm = Algorithm(self.algorithm, len(X), self.random_state)
        with file, self._workers(layout) as workers:
            shape = self.n_components, len(layout.bins)
            shapes = {"mass": shape[:1], "power": shape}
            goes_on = saved(file, lambda arrays: steps.Statistics(**arrays), shapes, weight, (), algorithm)
            P = steps.all_powers(X, layout, workers)
            steps.check_variance(P, weight, layout, self.variance_floor)
            self._run_em(
                steps.start(self, P, weight, layout, self.random_state) if goes_on is None else goes_on,
                lambda parameters: self._e_step(parameters, P, weight, layout, workers, algorithm),
                self._m_step,
                lambda parameters: self._set(layout, parameters),
                file=file,
                pack=steps.Statistics._asdict,
                algorithm=algorithm,
            )

    def _take(self, X, weight, first):
        layout = steps.layout_of(X.shape[1:], self.zero_mean_patches, self.basis) if first else self._layout
        with self._workers(layout) as workers:
            P = steps.all_powers(X, layout, workers)
            if first:
                steps.check_variance(P, weight, layout, self.variance_floor)
            before = steps.start(self, P, weight, layout, self.random_state) if first else self._parameters
            batch = steps.statistics(before, P, weight, layout, workers)
        online = None if first else getattr(self, "_online", None)
        # Moments belong to the parameters of now, or count no more.
        if online is None or not all(map(np.array_equal, online[0], before)):
            # A first batch counts in full, for the start came from it.
            average, n_steps, trace = steps.expected(before), 0 if first else 1, np.empty(0)
        else:
            (_, average, n_steps), trace = online, self.log_likelihoods_
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
        check_is_fitted(self)
        X, layout = self._data(X), self._layout

        def of(rows):
            resp = posteriors[rows]
            return steps.Statistics(resp.sum(axis=0), resp.T @ layout.powers(X[rows]), 0.0, resp.sum())

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
        return (self._layout.counts * logs).sum(axis=(1, 2))

    def pixel_covariances(self):
        """Covariances of the pixels, row by row, (K, H W, H W), in squared grey levels."""
        check_is_fitted(self)
        return self._layout.covariances(self.spectra_)

    def _scoring(self, X, everything):
        """How `Mixture` scores images: one product of their powers per chunk."""
        X, layout = self._data(X), self._layout
        slope, constant = steps.coefficients(self._parameters, layout.multiplicity)

        def log_joint(rows):
            return layout.powers(X[rows]) @ slope + constant

        return Scoring(len(X), len(constant), log_joint, self._workers(layout))

    def _draw(self, labels, rng):
        return steps.noise(self.spectra_, labels, self._layout, rng)

    _learned = ("weights", "spectra")
    _added = {"basis": "fourier"}  # files of version 0.4.0 have no basis
    _array_names = (*_learned, "log_likelihoods", "converged", "n_iter", "image_shape")

    def _check_settings(self):
        _checks.settings(self)
        bases.check(self.basis, self.zero_mean_patches)
        Algorithm.checked(self.algorithm)

    def _workers(self, layout):
        chunk_size = _checks.positive_integer(self.chunk_size, "chunk_size")
        return Workers(chunk_size, block_size(math.prod(layout.shape)))

    def _held(self):
        learned = {"n_components": len(self.weights_), "zero_mean_patches": self._leaves_out()}
        return learned | {"basis": self._basis()}

    def _layout_of(self, shape):
        return bases.layout(self.basis, shape, self.zero_mean_patches)

    def _given(self, mapping, layout, name, settings):
        return steps.given(mapping, settings["n_components"], layout, name)

    def _check_continuation(self):
        """Refuse settings that a fitted model cannot take over."""
        _checks.unchanged("n_components", self.n_components, len(self.weights_))
        _checks.unchanged("zero_mean_patches", bool(self.zero_mean_patches), self._leaves_out())
        _checks.unchanged("basis", self.basis, self._basis())

    def _set(self, layout, parameters):
        self._online = None  # moments of other parameters
        self.basis_ = layout.name
        self.image_shape_ = layout.shape
        self.n_dimensions_ = layout.dimension
        self.weights_ = parameters.weights
        self.spectra_ = layout.unfold(parameters.spectra)

    def _e_step(self, parameters, P, weight, layout, workers, algorithm):
        total = steps.statistics(parameters, P, weight, layout, workers, algorithm)
        return total, total.log_likelihood / total.weight

    def _m_step(self, statistics):
        parameters, empty = steps.revive(steps.m_step(statistics, self.variance_floor), self.variance_floor)
        warn_of_empty(empty, "images")
        steps.check_positive(parameters, bases.LAYOUTS[self.basis].one)
        return parameters
