r"""Convolutional mixtures that pay for overlap, or for width: EM with a penalised M-step.

Both maximise the mean log-likelihood less ``strength`` times a penalty of the spectra alone.  The E-step
stays the same, and the M-step maximises, over log spectra theta,

.. math:: -\sum_{kf} \frac{w(f)}2 \Big[ R_k \theta_{kf} + Q_{kf} e^{-\theta_{kf}} \Big]
          - \text{strength} \cdot \text{penalty}(\theta), \qquad
          R_k = \frac1N \sum_n r_{nk}, \quad Q_{kf} = \frac1N \sum_n r_{nk} P_{nf} .

``"overlap"``
    The mean overlap of filters, Bhattacharyya's coefficient over all pairs (`metrics.spectral_overlap`): with
    unit vectors :math:`v_{kf} = \sqrt{w(f) e^{-\theta_{kf}} / \sum_g w(g) e^{-\theta_{kg}}}` it is
    :math:`(|\sum_k v_k|^2 - K) / (K (K - 1))`.  `strength` is in nats per image for a whole unit of overlap.
    There is no closed form: L-BFGS improves the M-step's objective from the better of the spectra before and
    those of plain EM, which is all EM needs to climb.  All pairs count alike, so a strength above what a
    component's images gain by it empties that component.
``"band"``
    :math:`\frac1{2K} \sum_{kf} w(f) |\theta_{kf} - \theta_{0f}|`, a Laplace prior about a common spectrum
    that is learned too: a component leaves it only in its band, where it gains enough by that.  The M-step
    is exact.  At strength t and equal weights, a component above the common spectrum is EM's divided by
    1 + t, one below it EM's divided by 1 - t, the rest is on it; so strengths from 0 to 1 make sense.
"""

import numpy as np
from scipy.optimize import minimize
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks
from gmmlib.stationary.convolutional import ConvolutionalGMM
from gmmlib.stationary.steps import EMPTY, Parameters

PENALTIES = ("overlap", "band")
L_BFGS_STEPS = 10  # in an M-step; more of them magnify rounding, and win little
# Of log spectra: what the steps magnify is rounded away before the next M-step magnifies it further, or fits
# would end elsewhere on each processor.
DECIMALS = 6
HALVINGS = 60  # of a bracket for the common spectrum, down to rounding


def mean_overlap(log_spectra, multiplicity):
    """Mean overlap of all pairs of filters, and its gradient (K, F) by the log spectra."""
    n_components = len(log_spectra)
    pairs = max(n_components * (n_components - 1), 1)
    # The largest is taken out first, so that nothing overflows.
    shares = multiplicity * np.exp(log_spectra.min(axis=1, keepdims=True) - log_spectra)
    shares /= shares.sum(axis=1, keepdims=True)
    roots = np.sqrt(shares)
    total = roots.sum(axis=0)
    by_roots = roots * (total - roots)
    gradient = shares * by_roots.sum(axis=1, keepdims=True) - by_roots
    return (total @ total - n_components) / pairs, gradient / pairs


def separate(starts, mass, power, multiplicity, strength, variance_floor):
    """Improve the M-step's objective with the overlap penalty on the best of some spectra (K, F)."""
    shape = power.shape

    def downhill(vector):
        theta = vector.reshape(shape)
        data = power * np.exp(-theta)
        overlap, gradient = mean_overlap(theta, multiplicity)
        value = 0.5 * ((mass[:, None] * theta + data) @ multiplicity).sum() + strength * overlap
        by_theta = 0.5 * multiplicity * (mass[:, None] - data) + strength * gradient
        return value, by_theta.ravel()

    start = min((np.log(spectra).ravel() for spectra in starts), key=lambda vector: downhill(vector)[0])
    lowest = np.full(start.size, np.log(variance_floor) if variance_floor > 0 else -np.inf)
    bounds = np.stack([lowest, np.full(start.size, np.inf)], axis=1)
    options = {"maxiter": L_BFGS_STEPS}
    result = minimize(downhill, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    found = np.clip(np.round(result.x, DECIMALS), lowest, None)
    best = found if downhill(found)[0] <= downhill(start)[0] else start
    return np.exp(best).reshape(shape)


def common_spectrum(mass, power, price, variance_floor):
    r"""The spectrum (F,) about which components (K, F) deviate at least price.

    At each frequency the objective of the best deviations is concave in theta_0, with the slope
    :math:`\sum_k \mathrm{clip}(\tfrac12 (Q_k e^{-\theta_0} - R_k), -\text{price}, \text{price})`, which
    falls: its zero is bracketed by the components' own and found by halving.
    """
    ratios = np.maximum(power / mass[:, None], variance_floor)
    low, high = np.log(ratios.min(axis=0)), np.log(ratios.max(axis=0))
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        slope = np.clip(0.5 * (power * np.exp(-middle) - mass[:, None]), -price, price).sum(axis=0)
        low, high = np.where(slope > 0, middle, low), np.where(slope > 0, high, middle)
    return np.exp(high)


def banded(common, mass, power, price, variance_floor):
    """Spectra (K, F) of the best deviations from a common one (F,), each at a price a unit of its log."""
    less = mass[:, None] - 2 * price
    above = power / (mass[:, None] + 2 * price)
    below = np.divide(power, less, out=np.full_like(power, np.inf), where=less > 0)
    spectra = np.where(above > common, above, np.where(below < common, below, common))
    return np.maximum(spectra, variance_floor)


class PenalisedGMM(ConvolutionalGMM):
    """Convolutional mixture whose filters pay for overlap, or for the band in which they differ.

    Parameters
    ----------
    n_components : int
        Components K.
    penalty : {"overlap", "band"}
        See `gmmlib.stationary.penalised`.
    strength : float
        Of the penalty; 0 is `ConvolutionalGMM`, which has the other parameters.

    Attributes
    ----------
    objectives_ : ndarray, (number of iterations + 1,)
        Mean log-likelihood less penalty, nats per image: it never falls, unless a component was
        re-initialised, which warns.  `score` has no penalty in it.
    common_spectrum_ : ndarray, (H, W//2 + 1)
        The spectrum from which components deviate, squared grey levels: their median.
    bands_ : ndarray of bool, (K, H, W//2 + 1)
        Where each component does; with the penalty on overlap this says little.
    """

    _trace = "objectives_"

    def __init__(
        self,
        n_components=1,
        *,
        penalty="overlap",
        strength=1.0,
        zero_mean_patches=False,
        variance_floor=1e-6,
        max_iter=100,
        tol=1e-3,
        init="random_from_data",
        n_init=1,
        random_state=None,
        callback=None,
        progress=False,
        chunk_size=2048,
    ):
        super().__init__(
            n_components,
            zero_mean_patches=zero_mean_patches,
            variance_floor=variance_floor,
            max_iter=max_iter,
            tol=tol,
            init=init,
            n_init=n_init,
            random_state=random_state,
            callback=callback,
            progress=progress,
            chunk_size=chunk_size,
        )
        self.penalty = penalty
        self.strength = strength

    def _check_settings(self):
        super()._check_settings()
        _checks.one_of(self.penalty, "penalty", PENALTIES)
        _checks.non_negative(self.strength, "strength")

    @property
    def partial_fit(self):
        """Not there: a step of the penalised fit needs the parameters of the step before."""
        raise AttributeError("PenalisedGMM has no partial_fit: its penalty is one on a whole fit. Use fit.")

    @property
    def common_spectrum_(self):
        """Median of the components' spectra, (H, W//2 + 1)."""
        check_is_fitted(self)
        return np.median(self.spectra_, axis=0)  # what costs the least, and where most components are

    @property
    def bands_(self):
        """Where each component leaves the common spectrum, (K, H, W//2 + 1)."""
        return self.spectra_ != self.common_spectrum_

    def _e_step(self, parameters, P, weight, layout, workers, algorithm):
        total, log_likelihood = super()._e_step(parameters, P, weight, layout, workers, algorithm)
        cost = self.strength * self._penalty(np.log(parameters.spectra), layout.multiplicity)
        return (total, parameters, layout.multiplicity), log_likelihood - cost

    def _m_step(self, statistics):
        total, before, multiplicity = statistics
        plain = super()._m_step(total)
        mass, power = total.mass / total.weight, total.power / total.weight
        if mass.min() <= EMPTY:  # a component was re-initialised, and has no statistics yet
            return plain
        if self.penalty == "overlap":
            starts = before.spectra, plain.spectra
            spectra = separate(starts, mass, power, multiplicity, self.strength, self.variance_floor)
        else:
            price = self.strength / (2 * self.n_components)
            common = common_spectrum(mass, power, price, self.variance_floor)
            spectra = banded(common, mass, power, price, self.variance_floor)
        return Parameters(plain.weights, spectra)

    def _set_from(self, statistics):
        layout = self._layout
        self._set(layout, self._m_step((statistics, self._parameters, layout.multiplicity)))

    def _penalty(self, log_spectra, multiplicity):
        if self.penalty == "overlap":
            return mean_overlap(log_spectra, multiplicity)[0]
        gaps = np.abs(log_spectra - np.median(log_spectra, axis=0))  # a median costs the least
        return (gaps @ multiplicity).sum() / (2 * self.n_components)
