r"""Densities of images that know amplitudes in any law, and phases not at all.

A circulant Gaussian gives each power an exponential law (or, at a frequency that is its own mirror image,
a chi-square law) and makes them independent; its phases are uniform.  Here only the last holds.  Any density
over the F distinct powers (see `gmmlib.spectrum`) times uniform phases is a density over pixels, by

.. math:: p(x) = p_P(P_1, \dots, P_F) \prod_{f: w(f) = 2} \frac{1}{2\pi} \prod_{f: w(f) = 1} \sqrt{P_f} .

The real orthonormal Fourier basis changes no volume.  A frequency with a mirror image owns two coordinates,
of squared length 2P: a ring between P and P + dP has the area 2 pi dP.  One that is its own mirror image owns
one, :math:`\pm\sqrt P`: two intervals of length :math:`dP / (2 \sqrt P)`.

Amplitudes, in units of their mean m, are mapped onto all real numbers, as a Gaussian needs,

.. math:: y_f = \sqrt{w(f)}\, m_f \big[ u + a \log(1 - e^{-u / a}) \big], \qquad u = \sqrt{P_f} / m_f,

close to the amplitude itself where u is above the softness a, and to its logarithm below; amplitudes below
`LEAST` of their mean are rounding, and taken to be there.  Then y is turned to its principal axes.  Its
leading coordinates have a mixture of Gaussians with full covariances; each of the others is an independent
Gaussian.  Densities of several classes of images share a `Frame`: all but the mixture.
"""

from typing import NamedTuple

import numpy as np
from scipy import fft
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, _contents, storage
from gmmlib.base import Mixture, OfImages
from gmmlib.em.loop import record
from gmmlib.em.workers import Workers
from gmmlib.full.estimator import FullGMM
from gmmlib.spectrum import fold, unfold
from gmmlib.stationary import steps

ROWS_AT_ONCE = 2048  # images transformed at a time by one thread
LEAST = 1e-9  # of a mean amplitude
TINY = 1e-150  # squares of what is above it do not vanish, and those of what is below 1 / TINY are finite


def softplus_inverse(u, softness):
    """Map positive numbers onto all real ones: the inverse of `softplus`."""
    return u + softness * np.log(-np.expm1(-u / softness))


def softplus(y, softness):
    """Map real numbers onto positive ones: a softplus, ``softness * log(1 + exp(y / softness))``."""
    return softness * np.logaddexp(0.0, y / softness)


def log_volume(u, scale, multiplicity, softness):
    r"""Log density of pixels over density of y, for relative amplitudes (N, F): (N,) nats.

    With A = m u and P = A^2 the density of P is that of y times ``sqrt(w) m dv/du / (2 m^2 u)``, where
    ``v = y / (sqrt(w) m)`` and ``dv/du = 1 / (1 - exp(-u / a))``.
    """
    of_powers = 0.5 * np.log(multiplicity) - np.log(-np.expm1(-u / softness)) - np.log(2 * scale * u)
    of_pixels = np.where(multiplicity == 2, -np.log(2 * np.pi), np.log(scale * u))
    return (of_powers + of_pixels).sum(axis=1)


class Frame(NamedTuple):
    """Coordinates for amplitude spectra, and the law of those that no mixture describes."""

    scale: np.ndarray  # (F,)    mean amplitude at each frequency, grey levels
    centre: np.ndarray  # (F,)    mean of y, grey levels
    axes: np.ndarray  # (F, F)  principal axes of y in columns, by falling variance
    rest: np.ndarray  # (F - D,)  variances along the last axes, squared grey levels
    softness: float

    @property
    def n_axes(self):
        """Leading coordinates D, which have a mixture."""
        return len(self.scale) - len(self.rest)


def frame(X, n_axes=None, *, softness=0.1, sample_weight=None):
    """Learn a `Frame`, coordinates of amplitude spectra, from images (N, H, W) of all classes to be compared.

    A mixture is to describe `n_axes` principal axes, all F by default; the map of amplitudes turns from
    linear to logarithmic at `softness`, in units of the mean amplitude.  ValueError if an argument or the
    data cannot be used.
    """
    softness = _checks.positive(softness, "softness")
    X = _checks.images(X)
    weight = _checks.sample_weight(sample_weight, len(X))
    layout = fold(X.shape[1:])
    most = len(layout.bins)
    n_axes = most if n_axes is None else _checks.positive_integer(n_axes, "n_axes")
    if n_axes > most:
        raise ValueError(
            f"n_axes must be at most {most}, the number of distinct frequencies; got {n_axes}. "
            "Leave it out to take all."
        )
    amplitudes = _amplitudes(X, layout)
    scale = weight @ amplitudes / weight.sum()
    _check_scale(scale, layout)
    y = _spread(amplitudes, scale, layout.multiplicity, softness)[1]
    centre = weight @ y / weight.sum()
    y -= centre
    variances, axes = np.linalg.eigh((y.T * (weight / weight.sum())) @ y)
    axes = axes[:, ::-1]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(len(axes))]
    rest = np.maximum(variances[::-1][n_axes:], LEAST * variances[-1])
    learned = Frame(scale, centre, axes * np.sign(largest), rest, softness)
    _check_range(learned, "X and softness must give", "Scale the images first.")
    return learned


def coordinates(X, frame):
    """Split images (N, H, W), of the size that the frame was learned from, or ValueError.

    Returns the leading coordinates (N, D), grey levels, which a mixture describes; and the log density of
    pixels less theirs, (N,) nats, the same for all classes: the Gaussians along the other axes, and the
    volume.
    """
    X = _checks.images(X)
    layout = fold(X.shape[1:])
    scale, centre, axes, rest, softness = _checked_frame(frame, layout)
    u, y = _spread(_amplitudes(X, layout), scale, layout.multiplicity, softness)
    lead, trailing = np.split((y - centre) @ axes, [frame.n_axes], axis=1)
    of_rest = -0.5 * (trailing**2 @ (1 / rest) + np.log(2 * np.pi * rest).sum())
    return lead, of_rest + log_volume(u, scale, layout.multiplicity, softness)


class PhaseBlindGMM(OfImages, Mixture):
    """Gaussian mixture over amplitude spectra with uniform phases: an exact density over pixels.

    Parameters
    ----------
    n_components : int
        Components K.
    frame : Frame, optional
        Coordinates of the amplitudes, as `frame` learns them from the images of all classes; by default from
        those that are fitted, with all axes.
    reg_covar : float
        Ridge on the covariances of the leading coordinates, squared grey levels.
    max_iter, tol, init, n_init, random_state, callback, progress
        As in `gmmlib.FullGMM`.

    Attributes
    ----------
    mixture_ : FullGMM
        The mixture over the leading coordinates (N, D).
    frame_ : Frame
    image_shape_, log_likelihoods_, converged_, n_iter_
        As in `ConvolutionalGMM`.
    """

    def __init__(
        self,
        n_components=1,
        *,
        frame=None,
        reg_covar=1e-2,
        max_iter=100,
        tol=1e-3,
        init="kmeans",
        n_init=1,
        random_state=None,
        callback=None,
        progress=False,
    ):
        self.n_components = n_components
        self.frame = frame
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.tol = tol
        self.init = init
        self.n_init = n_init
        self.random_state = random_state
        self.callback = callback
        self.progress = progress

    def _fit(self, X, weight):
        layout = fold(X.shape[1:])
        learned = frame(X, sample_weight=weight) if self.frame is None else _checked_frame(self.frame, layout)
        lead, common = coordinates(X, learned)
        common = float(weight @ common / weight.sum())

        def report(mixture, iteration):
            self._set(layout, learned, mixture, common)
            return self.callback(self, iteration)

        mixture = self._unfitted_mixture().set_params(callback=None if self.callback is None else report)
        try:
            mixture.fit(lead, sample_weight=weight)
        finally:
            mixture.set_params(callback=None)
            if hasattr(mixture, "n_iter_"):  # an interrupted fit counts as far as it went
                self._set(layout, learned, mixture, common)

    @property
    def weights_(self):
        """Mixing weights, (K,)."""
        return self.mixture_.weights_

    def n_parameters(self):
        """Free parameters of the mixture over the leading coordinates."""
        check_is_fitted(self)
        return self.mixture_.n_parameters()

    def _draw(self, labels, rng):
        lead, n_samples = self.mixture_.sample_components(labels, rng), len(labels)
        scale, centre, axes, rest, softness = self.frame_
        rotated = np.hstack([lead, np.sqrt(rest) * rng.standard_normal((n_samples, len(rest)))])
        y = rotated @ axes.T + centre
        u = softplus(y / (scale * np.sqrt(self._layout.multiplicity)), softness)
        amplitudes = unfold(u * scale, self._layout)
        # White noise has uniform phases with the symmetry of a real image: only its amplitudes are replaced.
        noise = fft.rfft2(rng.standard_normal((n_samples, *self.image_shape_)), norm="ortho")
        return fft.irfft2(noise / np.abs(noise) * amplitudes, s=self.image_shape_, norm="ortho")

    _array_names = ("image_shape", "common", *Frame._fields, *FullGMM.array_names())

    def to_arrays(self):
        """Settings and arrays that make the fitted model again."""
        check_is_fitted(self)
        arrays = {"image_shape": np.array(self.image_shape_), "common": np.array(self._common)}
        arrays |= {name: np.asarray(getattr(self.frame_, name)) for name in Frame._fields}
        return _contents.settings(self), arrays | self.mixture_.to_arrays()[1]

    @classmethod
    def from_arrays(cls, settings, arrays, where):
        """The inverse of `to_arrays`; errors say `where` the arrays come from."""
        layout = fold(storage.image_shape(arrays["image_shape"], arrays, where))
        learned = {name: arrays[name].astype(np.float64, copy=False) for name in Frame._fields}
        coords = _checked_frame(Frame(**learned | {"softness": float(arrays["softness"])}), layout, where)
        excess = np.abs(coords.axes.T @ coords.axes - np.eye(len(coords.axes))).max()
        if excess > 1e-6 or coords.rest.ndim != 1:
            raise ValueError(f"{where}['axes'] must be orthonormal columns. Save the model again.")
        model = _contents.model(cls, settings, frame=coords)
        mixture = FullGMM.from_arrays(_contents.settings(model._unfitted_mixture()), arrays, where)
        if mixture.means_.shape[1] != coords.n_axes:
            raise ValueError(f"{where}['means'] must have {coords.n_axes} columns.")
        common = _checks.parameter(arrays["common"], f"{where}['common']", ())
        _contents.trace(common[None], f"{where}['common']")
        model._set(layout, coords, mixture, float(common))
        return model

    def __sklearn_is_fitted__(self):
        return hasattr(self, "mixture_")

    @property
    def _layout(self):
        return fold(self.image_shape_)

    def _check_settings(self):
        _checks.settings(self)
        self._unfitted_mixture()._check_settings()

    def _unfitted_mixture(self):
        shared = "n_components", "max_iter", "tol", "reg_covar", "init", "random_state", "progress"
        return FullGMM(**{name: getattr(self, name) for name in shared})

    def _set(self, layout, frame, mixture, common):
        self._common = common  # mean log density of pixels less that of the leading coordinates, nats
        self.image_shape_, self.frame_, self.mixture_ = layout.shape, frame, mixture
        record(self, mixture.log_likelihoods_ + common, mixture.converged_)
        self.n_iter_ = mixture.n_iter_

    def _by_chunk(self, X, function, *, per_component=False, dtype=np.float64, everything=True):
        """One chunk after another: the threads are inside, in the coordinates and in the mixture."""
        X = self._data(X)
        columns = (len(self.mixture_.weights_),) if per_component else ()
        out = np.empty((len(X), *columns), dtype=dtype)
        for start in range(0, len(X), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            lead, common = coordinates(X[rows], self.frame_)
            joint = self.mixture_.log_joint(lead) + common[:, None]
            out[rows] = function(_checks.log_joints(joint, start))
        return out


def _amplitudes(X, layout):
    with Workers(ROWS_AT_ONCE, ROWS_AT_ONCE) as workers:
        P = steps.all_powers(X, layout, workers)
    return np.sqrt(P, out=P)


def _spread(amplitudes, scale, multiplicity, softness):
    """Relative amplitudes u and y, (N, F) each."""
    u = np.maximum(amplitudes / scale, LEAST)
    return u, np.sqrt(multiplicity) * scale * softplus_inverse(u, softness)


def _checked_frame(given, layout, where=None):
    name, size = where or "frame", len(layout.bins)
    if not isinstance(given, Frame):
        raise ValueError(f"{name} must be a Frame, as gmmlib.phaseblind.frame makes it; got {given!r}.")
    shapes = given.scale.shape, given.centre.shape, given.axes.shape
    if shapes != ((size,), (size,), (size, size)) or not given.rest.size < size:
        raise ValueError(
            f"{name} must be of images of {layout.shape[0]} x {layout.shape[1]} pixels, with {size} distinct "
            f"frequencies; got a scale of shape {given.scale.shape} and axes of shape {given.axes.shape}. "
            "Learn it from images of this size."
        )
    _check_range(given, f"{name} must hold", "Learn it again.")
    return given


def _check_range(given, must, remedy):
    """Refuse a frame whose numbers have no squares in float64."""
    numbers = np.hstack([np.ravel(values) for values in given])
    positive = np.concatenate([given.scale, given.rest, [given.softness]])
    if not ((np.abs(numbers) < 1 / TINY).all() and (positive > TINY).all()):
        raise ValueError(
            f"{must} numbers below {1 / TINY:g}, and a scale, variances and a softness above {TINY:g}; got "
            f"{numbers.min():g} to {numbers.max():g} and {positive.min():g} at least of these. {remedy}"
        )


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
