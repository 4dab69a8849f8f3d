r"""Densities of images that know amplitudes in any law, and phases not at all.

A circulant Gaussian gives each power an exponential law (or, at a frequency that is its own mirror image,
a chi-square law) and makes them independent; its phases are uniform.  Here only the last holds.  Any density
over the F distinct powers (see `gmmlib.spectrum`) times uniform phases is a density over pixels, by

.. math:: p(x) = p_P(P_1, \dots, P_F) \prod_{f: w(f) = 2} \frac{1}{2\pi} \prod_{f: w(f) = 1} \sqrt{P_f} .

For the real orthonormal Fourier basis turns an image without changing volume.  A frequency with a mirror
image owns two of its coordinates, of squared length 2P: a ring between P and P + dP has the area
2 pi dP.  A frequency that is its own mirror image owns one coordinate, :math:`\pm\sqrt P`, which two
intervals of length :math:`dP / (2 \sqrt P)` share.

The amplitudes, in units of their mean m, enter a mixture of Gaussians with full covariances as

.. math:: y_f = u + a \log(1 - e^{-u / a}), \qquad u = \sqrt{P_f} / m_f,

which maps positive numbers onto all real ones, as a Gaussian needs: close to u itself where u is above the
softness a, and to its logarithm below.  An amplitude of 0 has no logarithm; those below `LEAST` of their mean
are rounding of the transform, and are taken to be there.
"""

import numpy as np
from scipy import fft
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, posterior, storage
from gmmlib.em import Workers
from gmmlib.full import FullGMM
from gmmlib.spectrum import fold, powers, unfold

ROWS_AT_ONCE = 2048  # images transformed at a time by one thread
LEAST = 1e-9  # of a mean amplitude


def stretch(u, softness):
    """Map positive numbers onto all real ones: the inverse of `relax`."""
    return u + softness * np.log(-np.expm1(-u / softness))


def relax(y, softness):
    """Map real numbers onto positive ones: a softplus, ``softness * log(1 + exp(y / softness))``."""
    return softness * np.logaddexp(0.0, y / softness)


def log_volume(u, scale, multiplicity, softness):
    r"""Log density of pixels over density of y, for relative amplitudes (N, F): (N,) nats.

    With A = m u and P = A^2 the density of P is that of y times ``dy/du / (2 m^2 u)``, where
    ``dy/du = 1 / (1 - exp(-u / a))``.
    """
    of_powers = -np.log(-np.expm1(-u / softness)) - np.log(2 * scale**2 * u)
    of_pixels = np.where(multiplicity == 2, -np.log(2 * np.pi), np.log(scale * u))
    return (of_powers + of_pixels).sum(axis=1)


class PhaseBlindGMM(DensityMixin, BaseEstimator):
    """Gaussian mixture over amplitude spectra with uniform phases: an exact density over pixels.

    Parameters
    ----------
    n_components : int
        Components K.
    softness : float
        Where the map of amplitudes turns from linear to logarithmic, in units of the mean amplitude.
    reg_covar : float
        Ridge on the covariances of y, in squared units of the mean amplitude.
    max_iter, tol, init, random_state
        As in `gmmlib.FullGMM`.

    Attributes
    ----------
    mixture_ : FullGMM
        The mixture over y, (N, F); the density of pixels is its own times a factor that no parameter
        changes, so its `log_likelihoods_` differ from those of images by a constant.
    scale_ : ndarray, (F,)
        Mean amplitude at each distinct frequency, grey levels.
    image_shape_ : (int, int)
        H and W.
    """

    def __init__(
        self,
        n_components=1,
        *,
        softness=0.1,
        reg_covar=1e-2,
        max_iter=20,
        tol=1e-3,
        init="kmeans",
        random_state=None,
    ):
        self.n_components = n_components
        self.softness = softness
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.tol = tol
        self.init = init
        self.random_state = random_state

    def fit(self, X, y=None, sample_weight=None):
        """Fit by EM on the amplitudes.

        Parameters
        ----------
        X : array-like, (N, H, W)
            Real images of any one size.
        y : object
            Ignored.
        sample_weight : array-like, (N,), optional
            Row weights: 0 leaves a row out, an integer repeats it.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If an argument or the data cannot be used; the text says which and what to do.
        """
        _checks.positive(self.softness, "softness")
        X = _checks.images(X)
        weight = _checks.sample_weight(sample_weight, len(X))
        layout = fold(X.shape[1:])
        amplitudes = _amplitudes(X, layout)
        scale = weight @ amplitudes / weight.sum()
        _check_scale(scale, layout)
        mixture = FullGMM(
            self.n_components,
            max_iter=self.max_iter,
            tol=self.tol,
            reg_covar=self.reg_covar,
            init=self.init,
            random_state=self.random_state,
        )
        mixture.fit(stretch(_relative(amplitudes, scale), self.softness), sample_weight=weight)
        self._set(layout, scale, mixture)
        return self

    def log_joint(self, X):
        """Log weight plus log density of each image under each component, (N, K), nats."""
        u = self._relative(X)
        joint = self.mixture_.log_joint(stretch(u, self.softness))
        return joint + self._log_volume(u)[:, None]

    def score_samples(self, X):
        """Log-likelihood of each image, (N,), nats."""
        u = self._relative(X)
        return self.mixture_.score_samples(stretch(u, self.softness)) + self._log_volume(u)

    def score(self, X, y=None):
        """Mean log-likelihood, nats an image."""
        return float(self.score_samples(X).mean())

    def predict(self, X):
        """Most probable component of each image, (N,); the lowest index among equals."""
        return self.log_joint(X).argmax(axis=1)

    def predict_proba(self, X):
        """Posterior of each component, (N, K); rows sum to 1."""
        return posterior.proba(self.log_joint(X))

    def predict_log_proba(self, X):
        """Log posteriors, (N, K), accurate even where the posterior rounds to 1."""
        return posterior.log_proba(self.log_joint(X))

    def sample(self, n_samples=1, random_state=None):
        """Draw images (n_samples, H, W), grouped by component, and the component of each (n_samples,)."""
        check_is_fitted(self)
        rng = _checks.generator(random_state)
        y, labels = self.mixture_.sample(n_samples, rng)
        amplitudes = unfold(relax(y, self.softness) * self.scale_, self._layout)
        # White noise has uniform phases with the symmetry of a real image: only its amplitudes are replaced.
        noise = fft.rfft2(rng.standard_normal((n_samples, *self.image_shape_)), norm="ortho")
        return fft.irfft2(noise / np.abs(noise) * amplitudes, s=self.image_shape_, norm="ortho"), labels

    def save(self, path):
        """Write the fitted model to an npz file, whole or not at all."""
        storage.write(path, type(self).__name__, *self._state())

    @classmethod
    def load(cls, path):
        """Read a model that `save` wrote; `gmmlib.storage.ModelFileError` if the file is not one.

        The start and the random state are not part of a file.
        """
        return storage.load(path, cls)

    _array_names = ("scale", "image_shape", *FullGMM._array_names)

    def _state(self):
        """Settings and arrays that make the fitted model again."""
        check_is_fitted(self)
        names = ("n_components", "softness", "reg_covar", "max_iter", "tol")
        settings = {name: getattr(self, name) for name in names}
        arrays = {"scale": self.scale_, "image_shape": np.array(self.image_shape_)}
        return settings, arrays | self.mixture_._state()[1]

    @classmethod
    def _from_state(cls, settings, arrays, where):
        """The inverse of `_state`; errors say `where` the arrays come from."""
        model = cls(**settings)
        layout = fold(tuple(int(side) for side in arrays["image_shape"]))
        names = ("n_components", "max_iter", "tol", "reg_covar")
        own = {name: arrays[name] for name in FullGMM._array_names}
        mixture = FullGMM._from_state({name: settings[name] for name in names}, own, where)
        if not arrays["scale"].shape == mixture.means_.shape[1:] == layout.bins.shape:
            raise ValueError(f"{where}['scale'] must have shape {layout.bins.shape}.")
        model._set(layout, arrays["scale"], mixture)
        return model

    def __sklearn_is_fitted__(self):
        return hasattr(self, "mixture_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def _set(self, layout, scale, mixture):
        self._layout = layout
        self.image_shape_ = layout.shape
        self.scale_ = scale
        self.mixture_ = mixture

    def _relative(self, X):
        check_is_fitted(self)
        X = _checks.images(X, shape=self.image_shape_)
        return _relative(_amplitudes(X, self._layout), self.scale_)

    def _log_volume(self, u):
        return log_volume(u, self.scale_, self._layout.multiplicity, self.softness)


def _amplitudes(X, layout):
    with Workers(ROWS_AT_ONCE) as workers:
        out = np.empty((len(X), len(layout.bins)))
        return workers.fill(lambda rows: np.sqrt(powers(X[rows], layout)), out)


def _relative(amplitudes, scale):
    return np.maximum(amplitudes / scale, LEAST)


def _check_scale(scale, layout):
    """Refuse images that have nothing but rounding at a frequency: a density there has no bound."""
    empty = np.flatnonzero(scale <= LEAST * scale.max())
    if len(empty):
        row, column = np.divmod(layout.bins[empty[0]], layout.shape[1] // 2 + 1)
        raise ValueError(
            f"X must have some amplitude at every frequency; got none at {len(empty)} of {len(scale)}, the "
            f"first at row {row} and column {column} of the half plane. Are the images constant, or was "
            "their mean removed? Keep the mean, or add noise of the size of the rounding of grey levels."
        )
