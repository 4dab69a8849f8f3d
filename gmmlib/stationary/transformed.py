"""Mixtures of templates that lie somewhere on the torus: stationary Gaussians that have a mean.

A component is a template m_k (H, W), shifted by an unknown displacement tau that is uniform over S
circular shifts, plus stationary noise with the power spectrum s_k:

.. math:: x = T_\\tau m_k + e, \\qquad (T_\\tau m)(h) = m(h - \\tau), \\qquad e \\sim N(0; s_k).

A shift multiplies the transform by ``exp(-2 pi i f.tau)``, which changes no power.  So the log joint of
an image, a component and a shift is that of `gmmlib.stationary.convolutional`, a constant, and the
cross-correlation of the image with the template divided by the spectrum, which one inverse transform
gives at all shifts:

.. math:: l_{nk\\tau} = \\log\\frac{\\pi_k}{S} - \\frac12\\sum_f w_f\\Big[\\log 2\\pi s_{kf} +
          \\frac{P_{nf} + |m_{kf}|^2}{s_{kf}}\\Big]
          + \\sum_f w_f \\mathrm{Re}\\frac{z_{nf}\\,\\bar m_{kf}}{s_{kf}} e^{2\\pi i f\\tau}.

Both M-steps are closed: a template is the mean of the images shifted back, a spectrum the mean power
less the template's.  Without templates this is `gmmlib.ConvolutionalGMM`.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import fft
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, _contents, _kernels, posterior, storage
from gmmlib.base import Additive, Mixture, OfImages, Scoring
from gmmlib.em import checkpoint
from gmmlib.em.checkpoint import Checkpoint
from gmmlib.em.loop import Saved
from gmmlib.em.workers import Workers
from gmmlib.spectrum import fold, powers, unfold
from gmmlib.stationary import convolutional

TRIPLES = 2**19  # (image, component, shift) triples at a time by one thread: 4 MB
NOISE = ("stationary", "white")


class Parameters(NamedTuple):
    """K templates of H x W pixels in noise with F distinct powers each."""

    weights: np.ndarray  # (K,)       mixing weights, sum to 1
    means: np.ndarray  # (K, H, W)  templates, grey levels
    spectra: np.ndarray  # (K, F)     variance of the noise at each frequency, squared grey levels


class Statistics(NamedTuple):
    """What an E-step leaves of its rows; the fields of two sets of rows add."""

    mass: np.ndarray  # (K,)              sum_n w[n] r[n, k]
    transform: np.ndarray  # (K, H, W//2 + 1)  sum_n w[n] r[n, k, tau] z[n] shifted back by tau
    power: np.ndarray  # (K, F)            sum_n w[n] r[n, k] P[n, f]
    log_likelihood: float  # sum_n w[n] log p(x_n), nats
    weight: float  # sum_n w[n]


class Window(NamedTuple):
    """The S = R C shifts that an image may have, as residues modulo its sides."""

    rows: np.ndarray  # (R,)
    columns: np.ndarray  # (C,)

    @property
    def size(self):
        """Count the shifts."""
        return len(self.rows) * len(self.columns)


class Bank(NamedTuple):
    """Parameters in the form in which an E-step uses them."""

    slope: np.ndarray  # (F, K)            factor of the powers
    constant: np.ndarray  # (K,)              what depends on neither image nor shift
    kernels: np.ndarray  # (K, H, W//2 + 1)  conjugate template over spectrum, to be correlated with
    layout: object  # Fold of the images
    window: Window


def window(shape, max_shift=None):
    """List the shifts by at most `max_shift` pixels along each axis; None means all H W of them."""
    if max_shift is None:
        return Window(*(np.arange(side) for side in shape))
    return Window(*(np.arange(-max_shift, max_shift + 1) % side for side in shape))


def shifted(images, shifts):
    """Move images around the torus.

    Parameters
    ----------
    images : ndarray, (N, H, W)
    shifts : ndarray of int, (N, 2)
        Pixels down and to the right; ``-shifts`` moves them back.

    Returns
    -------
    ndarray, (N, H, W)
    """
    n, height, width = images.shape
    row = (np.arange(height) - shifts[:, :1]) % height
    column = (np.arange(width) - shifts[:, 1:]) % width
    return images[np.arange(n)[:, None, None], row[:, :, None], column[:, None, :]]


def register(images, reference):
    """Find the circular shift at which each image correlates most with a reference.

    Parameters
    ----------
    images : ndarray, (N, H, W)
    reference : ndarray, (H, W)

    Returns
    -------
    shifts : ndarray of int, (N, 2)
        ``shifted(images, shifts)`` lies on the reference.
    correlation : ndarray, (N,)
        Pearson's coefficient of the pixels at that shift.
    """
    images, reference = _checks.images(images, "images"), _checks.images(reference[None], "reference")[0]
    images, reference = images.astype(np.float64, copy=False), reference.astype(np.float64, copy=False)
    height, width = reference.shape
    a = images - images.mean(axis=(1, 2), keepdims=True)
    b = reference - reference.mean()
    # At tau: the product of the image, moved by tau, with the reference.
    products = fft.irfft2(fft.rfft2(a).conj() * fft.rfft2(b), s=(height, width)).reshape(len(a), -1)
    best = products.argmax(axis=1)
    norms = np.sqrt((a**2).sum(axis=(1, 2)) * (b**2).sum())
    correlation = products[np.arange(len(a)), best] / np.where(norms > 0, norms, 1.0)
    return _signed(np.stack(np.divmod(best, width), axis=1), (height, width)), correlation


def bank(parameters, layout, window):
    """Prepare parameters for an E-step."""
    weights, means, spectra = parameters
    slope, constant = convolutional.coefficients(
        convolutional.Parameters(weights, spectra), layout.multiplicity
    )
    constant = constant + np.einsum("kf,fk->k", powers(means, layout), slope) - np.log(window.size)
    kernels = fft.rfft2(means, norm="ortho").conj() / unfold(spectra, layout)
    return Bank(slope, constant, kernels, layout, window)


def log_joints(bank, z, P):
    """Log joint of each image, component and shift, (n, K, S), nats.

    Takes transforms z (n, H, W//2 + 1) and powers P (n, F).
    """
    rows, columns = bank.window
    shape = bank.layout.shape
    joint = np.empty((len(z), len(bank.kernels), len(rows), len(columns)))
    whole = bank.window.size == shape[0] * shape[1]
    for k, kernel in enumerate(bank.kernels):
        # No factor: the sum over all H W frequencies is wanted, and z and the template are unitary.
        correlation = fft.irfft2(z * kernel, s=shape, norm="forward", overwrite_x=True)
        joint[:, k] = correlation if whole else correlation[:, rows[:, None], columns]
    joint += (P @ bank.slope + bank.constant)[:, :, None, None]
    return joint.reshape(len(z), len(bank.kernels), -1)


def e_step(bank, X, weight):
    """Statistics of a chunk of images (n, H, W) with row weights (n,)."""
    X = np.asarray(X, dtype=np.float64)
    z, P = fft.rfft2(X, norm="ortho"), powers(X, bank.layout)
    resp = log_joints(bank, z, P)
    evidence = _normalise(resp.reshape(len(X), -1))
    mass = resp.sum(axis=2) * weight[:, None]
    transform = np.zeros(bank.kernels.shape, dtype=complex)
    for k in np.flatnonzero(mass.any(axis=0)):
        own = np.flatnonzero(mass[:, k])
        share = np.zeros((len(own), *bank.layout.shape))
        share[:, bank.window.rows[:, None], bank.window.columns] = resp[own, k].reshape(
            len(own), len(bank.window.rows), -1
        )
        share *= weight[own, None, None]
        # The conjugate moves each image back by the shifts its posteriors name.
        transform[k] = np.einsum("nhw,nhw->hw", z[own], fft.rfft2(share, overwrite_x=True).conj())
    return Statistics(mass.sum(axis=0), transform, mass.T @ P, weight @ evidence, weight.sum())


def m_step(statistics, layout, variance_floor, noise="stationary"):
    """Parameters of the largest expected log joint among those with no variance below the floor.

    For any spectrum the best template is the mean of the images shifted back; the power that is left
    about it is then the best spectrum, and for white noise the average of that over all frequencies.
    """
    mass, transform, power, _, weight = statistics
    held = np.where(mass > 0, mass, 1.0)
    means = fft.irfft2(transform / held[:, None, None], s=layout.shape, norm="ortho")
    left = power / held[:, None] - powers(means, layout)
    if noise == "white":
        left = _level(left, layout)
    return Parameters(mass / weight, means, np.maximum(left, variance_floor))


def revive(parameters, variance_floor):
    """Re-initialise each empty component by splitting the heaviest one into two of unlike noise.

    Returns the parameters and the indices of the components that were empty.
    """
    means, heavy = parameters.means.copy(), parameters.weights.copy()
    convolved = convolutional.Parameters(parameters.weights, parameters.spectra)
    (weights, spectra), empty = convolutional.revive(convolved, variance_floor)
    for k in empty:  # in the order in which the spectra were split
        heaviest = posterior.falling(heavy)[0]
        heavy[[k, heaviest]] = heavy[heaviest] / 2
        means[k] = means[heaviest]
    return Parameters(weights, means, spectra), empty


def random_start(X, layout, n_components, weight, variance_floor, noise, rng):
    """Start each template at one image, all in noise with the mean power of the data."""
    chosen = rng.choice(np.flatnonzero(weight), n_components, replace=False)
    mean = np.zeros(len(layout.bins))
    for start in range(0, len(X), _checks.ROWS_AT_ONCE):
        rows = slice(start, start + _checks.ROWS_AT_ONCE)
        mean += weight[rows] @ powers(X[rows], layout)
    spectra = np.maximum(mean / weight.sum(), variance_floor)[None]
    if noise == "white":
        spectra = _level(spectra, layout)
    return Parameters(
        np.full(n_components, 1 / n_components),
        np.asarray(X[chosen], dtype=np.float64),
        np.repeat(spectra, n_components, axis=0),
    )


def given(mapping, n_components, layout, name):
    """Check weights, templates and half-plane spectra of a caller or a file, and fold the spectra."""
    height, width = layout.shape
    shapes = {
        "weights": (n_components,),
        "means": (n_components, height, width),
        "spectra": (n_components, height, width // 2 + 1),
    }
    arrays = {}
    for key, shape in shapes.items():
        if key not in mapping:
            raise ValueError(f'{name} must hold "weights", "means" and "spectra"; got {sorted(mapping)}.')
        arrays[key] = _checks.parameter(mapping[key], f"{name}[{key!r}]", shape)
        _checks.finite(arrays[key], f"{name}[{key!r}]")
    weights = arrays["weights"]
    if not (weights >= 0).all() or abs(weights.sum() - 1) > 1e-6:
        raise ValueError(
            f"{name}['weights'] must be >= 0 and sum to 1; "
            f"got {weights.min():g} at the least and the sum {weights.sum():g}."
        )
    # Contiguous, as EM's own are: BLAS sums in another order otherwise.
    spectra = np.ascontiguousarray(arrays["spectra"].reshape(n_components, -1)[:, layout.bins])
    if not (spectra > 0).all():
        raise ValueError(f"{name}['spectra'] must be positive; got {spectra.min():g}.")
    return Parameters(weights, arrays["means"], spectra)


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
    max_iter : int
        EM iterations at the most.
    tol : float
        Stop when an iteration changes the mean log-likelihood by less, in nats an image.
        The default 0 runs all `max_iter` iterations.
    variance_floor : float
        No variance is let below it, in squared grey levels.
    init : "random_from_data" or mapping
        Where EM starts: from randomly chosen images, or from ``{"weights": (K,), "means": (K, H, W),
        "spectra": (K, H, W//2 + 1)}``.
    random_state : int, Generator, RandomState or None
        Randomness of the start.
    callback : callable, optional
        ``callback(model, iteration)`` after the start and each iteration, with the model usable as
        it stands; a true result stops EM.
    checkpoint : path-like, optional
        File that keeps the state of a fit after each iteration.  If it is there, `fit` goes on from it, to
        the same result bit for bit, or refuses it as that of another fit; at the end `fit` removes it.
    progress : bool
        Show a progress bar.

    Attributes
    ----------
    weights_ : ndarray, (K,)
        Mixing weights.
    means_ : ndarray, (K, H, W)
        Templates, grey levels.  With all shifts allowed each is known up to a shift only.
    spectra_ : ndarray, (K, H, W//2 + 1)
        Power spectra of the noise in the unitary half-plane convention of `gmmlib.spectrum`, squared
        grey levels.
    log_likelihoods_ : ndarray, (number of iterations + 1,)
        Mean log-likelihood in nats an image at the start and after each iteration.
    converged_ : bool
        Whether `tol` stopped the run.
    n_iter_ : int
        Iterations run.
    image_shape_ : (int, int)
        H and W.

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
        max_iter=30,
        tol=0.0,
        variance_floor=1e-6,
        init="random_from_data",
        random_state=None,
        callback=None,
        checkpoint=None,
        progress=False,
    ):
        self.n_components = n_components
        self.max_shift = max_shift
        self.noise = noise
        self.max_iter = max_iter
        self.tol = tol
        self.variance_floor = variance_floor
        self.init = init
        self.random_state = random_state
        self.callback = callback
        self.checkpoint = checkpoint
        self.progress = progress

    def _fit(self, X, weight):
        layout, shifts = fold(X.shape[1:]), self._window(X.shape[1:])
        file = Checkpoint(self, X, weight)
        with file, _workers(self.n_components, shifts) as workers:
            saved = self._saved(file, weight, layout)
            self._run_em(
                self._start(X, weight, layout) if saved is None else saved,
                lambda parameters: self._e_step(bank(parameters, layout, shifts), X, weight, workers),
                lambda statistics: self._m_step(statistics, layout),
                lambda parameters: self._set(layout, parameters),
                file=file,
                pack=_packed,
            )

    def _statistics_of(self, X, sample_weight):
        X = self._data(X)
        weight = _checks.sample_weight(sample_weight, len(X))
        prepared = bank(self._parameters, self._layout, self._shifts)
        with _workers(len(self.weights_), self._shifts) as workers:
            return self._e_step(prepared, X, weight, workers)[0]

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
        return label, _signed(np.stack([rows[row], columns[column]], axis=1), self.image_shape_)

    def n_parameters(self):
        """Free parameters: weights, templates, and a spectrum or a variance each."""
        check_is_fitted(self)
        noise = 1 if self.noise == "white" else len(self._layout.bins)
        return len(self.weights_) * (1 + math.prod(self.image_shape_) + noise) - 1

    def _draw(self, labels, rng):
        noise = fft.rfft2(rng.standard_normal((len(labels), *self.image_shape_)))
        noise = fft.irfft2(noise * np.sqrt(self.spectra_)[labels], s=self.image_shape_)
        shifts = np.stack([rng.choice(axis, len(labels)) for axis in self._shifts], axis=1)
        return shifted(self.means_[labels], shifts) + noise

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
        model._set(layout, given(arrays, model.n_components, layout, where))
        _contents.whole_plane(arrays["spectra"], model.spectra_, f"{where}['spectra']")
        iterations = {"n_iter": max(arrays["log_likelihoods"].size - 1, 0)}
        model.log_likelihoods_, model.converged_, model.n_iter_ = _contents.run(arrays | iterations, where)
        return model

    def _check_settings(self):
        _checks.settings(self)
        _checks.one_of(self.noise, "noise", NOISE)

    def _data(self, X, reset=False):
        if reset:
            return _checks.images(X)
        check_is_fitted(self)
        return _checks.images(X, shape=self.image_shape_)

    def _window(self, shape):
        if self.max_shift is None:
            return window(shape)
        most = (min(shape) - 1) // 2
        valid = isinstance(self.max_shift, (int, np.integer)) and not isinstance(self.max_shift, bool)
        if not valid or not 0 <= self.max_shift <= most:
            raise ValueError(
                f"max_shift must be an integer from 0 to {most} for images of {shape[0]} x {shape[1]} "
                f"pixels, so that no shift occurs twice; got {self.max_shift!r}. None allows all shifts."
            )
        return window(shape, int(self.max_shift))

    def _over_shifts(self, X):
        """Rows to log joints (n, K, S) of images, components and shifts, and the workers for them."""
        X = self._data(X)
        layout, shifts = self._layout, self._shifts
        prepared = bank(self._parameters, layout, shifts)

        def log_joint(rows):
            own = np.asarray(X[rows], dtype=np.float64)
            return log_joints(prepared, fft.rfft2(own, norm="ortho"), powers(own, layout))

        return X, log_joint, _workers(len(self.weights_), shifts)

    def _scoring(self, X, everything):
        """How `Mixture` scores images: the shifts are summed over."""
        X, log_joint, workers = self._over_shifts(X)

        def summed(rows):
            joint = log_joint(rows)
            n, n_components, n_shifts = joint.shape
            return _normalise(joint.reshape(-1, n_shifts)).reshape(n, n_components)

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
        return given(learned, len(self.weights_), self._layout, "the fitted model")

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
        return None if state is None else Saved(_unpacked(state.statistics), state.log_likelihoods)

    def _start(self, X, weight, layout):
        if isinstance(self.init, str) and self.init == "random_from_data":
            rng = _checks.generator(self.random_state)
            parameters = random_start(
                X, layout, self.n_components, weight, self.variance_floor, self.noise, rng
            )
            return self._positive(parameters)
        if hasattr(self.init, "keys"):
            return given(self.init, self.n_components, layout, "init")
        raise ValueError(
            'init must be "random_from_data" or a mapping with "weights", "means" and "spectra"; '
            f"got {self.init!r}."
        )

    def _e_step(self, prepared, X, weight, workers):
        total = workers.sum(lambda rows: e_step(prepared, X[rows], weight[rows]), len(X))
        return total, total.log_likelihood / total.weight

    def _m_step(self, statistics, layout):
        learned = m_step(statistics, layout, self.variance_floor, self.noise)
        parameters, empty = revive(learned, self.variance_floor)
        if len(empty):
            _checks.warn(
                f"Components {empty.tolist()} lost all their images; each was re-initialised by splitting "
                "the heaviest one. Fewer components may fit these data as well.",
                ConvergenceWarning,
            )
        return self._positive(parameters)

    def _positive(self, parameters):
        if not (parameters.spectra > 0).all():
            worst = int((parameters.spectra <= 0).any(axis=1).argmax())
            raise ValueError(
                f"Component {worst} has no variance left at a frequency, so its likelihood has no bound. "
                "Set variance_floor above 0 (in squared grey levels), or ask for fewer components."
            )
        return parameters


def _packed(statistics):
    """Statistics by name, in real numbers: files hold no others."""
    return statistics._asdict() | {"transform": np.ascontiguousarray(statistics.transform).view(np.float64)}


def _unpacked(arrays):
    """The inverse of `_packed`."""
    return Statistics(**arrays)._replace(transform=arrays["transform"].view(np.complex128))


def _workers(n_components, window):
    """Workers that hold the log joints of a block of images under each component and shift."""
    size = max(1, TRIPLES // (n_components * window.size))
    return Workers(size, size)


def _normalise(joint):
    """Turn contiguous log joints (n, m) into posteriors in place; return the evidence of each row, (n,)."""
    evidence = np.empty(len(joint))
    _kernels.normalise(joint, np.zeros(joint.shape[1]), evidence)
    return evidence


def _level(spectra, layout):
    """Replace folded spectra (K, F) by their means over all frequencies of the plane."""
    level = spectra @ layout.multiplicity / layout.dimension
    return np.repeat(level[:, None], len(layout.bins), axis=1)


def _signed(shifts, shape):
    """Write residues (N, 2) as the shifts of least size."""
    half = np.array(shape) // 2
    return (shifts + half) % np.array(shape) - half
