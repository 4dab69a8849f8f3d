r"""Posterior means of what was seen through white noise: mixtures of Wiener filters.

Of :math:`y = x + n` with x of a mixture and n white noise of variance v, component k has the density
:math:`N(y; \mu_k, C_k + v I)` and expects x where its own Wiener filter puts it (Wiener 1949), so with the
posteriors :math:`r_k(y)` of the mixture of these densities

.. math:: \mathbb{E}[x \mid y] = \sum_k r_k(y) \left[ \mu_k + C_k (C_k + v I)^{-1} (y - \mu_k) \right].

Of a sample whose coordinates o alone were seen, rows and columns of the others leave the inverse:
:math:`C_{k, \cdot o} (C_{k, oo} + v I)^{-1} (y_o - \mu_{k, o})`, by densities of :math:`y_o`.  The one filter
of the most probable component is the estimate of Zoran and Weiss (2011, ICCV) and of Yu, Sapiro and Mallat
(2012, IEEE Trans. Image Process. 21).
"""

from copy import copy

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, posterior
from gmmlib.em.loop import record
from gmmlib.full import missing, whitening


def with_noise(covariances, noise_variance):
    """Covariances (K, D, D) of components with white noise added."""
    return covariances + noise_variance * np.eye(covariances.shape[-1])


def filters(covariances, noise_variance):
    """Wiener filters (K, D, D) of covariances, symmetric: a deviation (D,) from the mean is multiplied."""
    noisy = with_noise(covariances, noise_variance)
    out = np.empty_like(covariances)
    for k, covariance in enumerate(covariances):
        W = whitening.inverse_cholesky(noisy[k])
        out[k] = W.T @ (W @ covariance)
    return out


def choice(share):
    """Posteriors (n, K) that leave all to the most probable component; the first of those that tie."""
    alone = np.zeros_like(share)
    alone[np.arange(len(share)), posterior.most_probable(share)] = 1.0
    return alone


def complete(Y, share, means, gains):
    """Expectations (n, D) of samples Y (n, D) by posteriors (n, K), means (K, D) and filters (K, D, D)."""
    out = np.zeros(Y.shape)
    for k, mean in enumerate(means):
        rows = np.flatnonzero(share[:, k])
        if len(rows):
            out[rows] += share[rows, k, None] * (mean + (Y[rows] - mean) @ gains[k])
    return out


def incomplete(Y, mixture, noise_variance, most_probable=False, free_mean=False):
    r"""Expectations (n, D) of samples Y (n, D) whose NaN were not seen.

    Parameters
    ----------
    Y : ndarray, (n, D)
        Samples that are alike in what they miss share one factorisation a component, of D^3 operations.
    mixture : (ndarray, ndarray, ndarray)
        Weights (K,), means (K, D) and covariances (K, D, D).
    noise_variance : float
        Squared units of the data; 0 expects what was seen as it was seen.
    most_probable : bool
        By the most probable component alone.
    free_mean : bool
        A constant of which nothing is known beforehand is in every sample: it is estimated by generalised
        least squares, and densities are those of differences (restricted likelihood, Patterson and Thompson
        1971, Biometrika 58).  What covariances say of the constant then changes nothing.
    """
    weights, means, covariances = mixture
    out = np.empty(Y.shape)
    with np.errstate(divide="ignore"):
        log_weights = np.log(weights)
    for pattern, rows in missing.patterns(Y):
        columns = np.flatnonzero(pattern)
        if not len(columns):
            share = choice(weights[None]) if most_probable else weights[None]
            out[rows] = share @ means
            continue
        seen = Y[np.ix_(rows, columns)]
        noisy = with_noise(covariances[:, columns[:, None], columns], noise_variance)
        whiteners = [whitening.inverse_cholesky(covariance) for covariance in noisy]
        joint = np.empty((len(rows), len(weights)))
        for k, W in enumerate(whiteners):
            white, _, volume = _whitened(seen - means[k, columns], W, free_mean)
            joint[:, k] = log_weights[k] + volume - 0.5 * (white**2).sum(axis=1)
        share = posterior.proba(_checks.log_joints(joint, 0))
        share = choice(share) if most_probable else share
        total = np.zeros((len(rows), Y.shape[1]))
        for k, W in enumerate(whiteners):  # whitened again, for all of them would not fit into memory
            white, constant, _ = _whitened(seen - means[k, columns], W, free_mean)
            expected = means[k] + white @ (W @ covariances[k, columns]) + constant[:, None]
            total += share[:, k, None] * expected
        out[rows] = total
    return np.where(np.isnan(Y), out, Y) if noise_variance == 0 else out


def _whitened(deviations, W, free_mean):
    """Whitened deviations (n, o), the constants taken out of them (n,), and the log volume of W, nats.

    The volume lacks what is the same for all components.
    """
    white, constant, volume = deviations @ W.T, np.zeros(len(deviations)), np.log(W.diagonal()).sum()
    if not free_mean:
        return white, constant, volume
    ones = W.sum(axis=1)
    constant = white @ ones / (ones @ ones)
    return white - constant[:, None] * ones, constant, volume - 0.5 * np.log(ones @ ones)


def masked(Y, mask):
    """Samples whose unseen values are 0, as an array that can be checked, and the checked mask."""
    Y = _checks.array(Y, "Y")
    _checks.real(Y, "Y")
    mask = _checks.array(mask, "mask")
    if mask.dtype != bool or mask.shape != Y.shape:
        raise ValueError(
            f"mask must be an array of bool of the shape of Y, {Y.shape}, True where a value was seen; got "
            f"shape {mask.shape} of dtype {mask.dtype}. numpy.broadcast_to repeats one mask."
        )
    return np.where(mask, Y, 0), mask


def checked(model, Y, noise_variance, mask, most_probable):
    """Arguments of `posterior_mean` of a fitted mixture, once they can be used but for the sides of Y."""
    check_is_fitted(model)
    noise_variance = _checks.non_negative(noise_variance, "noise_variance")
    most_probable = _checks.truth(most_probable, "most_probable")
    if mask is not None:
        Y, mask = masked(Y, mask)
    return Y, noise_variance, mask, most_probable


def without_run(model):
    """A copy of a fitted mixture that no run of EM has made: parameters are to be set next."""
    made = copy(model)
    record(made, np.empty(0))
    made.n_iter_ = 0
    return made


class Denoising:
    """What a mixture of full covariances does with samples that were seen through white noise."""

    def with_noise(self, noise_variance):
        """Mixture of the same class of samples with white noise of a variance, in squared units of the data.

        It has no run of EM behind it: its trace is empty.  NotFittedError before a fit; ValueError if the
        variance is not finite or negative.
        """
        check_is_fitted(self)
        noise_variance = _checks.non_negative(noise_variance, "noise_variance")
        self._parameters()  # what was set by hand is checked
        made = without_run(self)
        covariances = with_noise(self.covariances_, noise_variance)
        made._set((self.weights_.copy(), self.means_.copy(), covariances), self._n_started)
        made.component_counts_ = np.empty(0, dtype=np.int64)
        return made

    def posterior_mean(self, Y, noise_variance, *, mask=None, most_probable=False):
        """Expectation of samples given what was seen of them through white noise, (N, D): Wiener filters.

        Parameters
        ----------
        Y : array-like, (N, D)
            Samples of the mixture, each with noise.
        noise_variance : float
            Of each value's noise, in squared units of the data.  At 0 what was seen comes back as it is.
        mask : array-like of bool, (N, D), optional
            True where a value was seen.  Others may be anything, NaN too, and are expected as well; a sample
            of which nothing was seen is expected at the mean of the mixture.  Each pattern in a block of
            samples costs a factorisation a component.
        most_probable : bool
            Take the filter of the most probable component alone, not the mean over their posteriors.

        Raises
        ------
        NotFittedError
            Before a fit.
        ValueError
            If an argument cannot be used.
        """
        Y, noise_variance, mask, most_probable = checked(self, Y, noise_variance, mask, most_probable)
        Y = self._data(Y, missing=True, name="Y")
        _checks.finite(Y, "Y", "Say by mask what was seen.")
        mixture = self.weights_, self.means_, self.covariances_
        if mask is None and noise_variance == 0:
            return np.array(Y, dtype=np.float64)
        if mask is None:
            noisy, gains = self.with_noise(noise_variance), filters(self.covariances_, noise_variance)
            score = noisy._scoring(Y, False).log_joint

        def expected(rows):
            if mask is not None:
                seen = np.where(mask[rows], Y[rows], np.nan)
                return incomplete(seen, mixture, noise_variance, most_probable)
            share = noisy._posteriors(_checks.log_joints(score(rows), rows.start))
            share = choice(share) if most_probable else share
            return complete(np.asarray(Y[rows], dtype=np.float64), share, self.means_, gains)

        with self._workers() as workers:
            return workers.fill(expected, np.empty(Y.shape))
