r"""Convolutional mixtures whose components tell as much about images as they can: regularised information.

Filters are measured by that of the mean power :math:`s_0` of all images, :math:`u_k(f) = s_0(f) / s_k(f)`, as
in `gmmlib.stationary.conditional`.  No class is known; the objective is the mutual information of image and
component under the posteriors r, with the same prior, which keeps filters near the common one:

.. math:: J = I - \frac\alpha2 \sum_{kf} w(f)\, [u_k(f) - 1]^2 , \qquad
          I = H(\bar r) - \frac1N \sum_n H(r_n) = \frac1N \sum_{nk} r_{nk} \log \frac{r_{nk}}{\bar r_k} ,
          \quad \bar r_k = \frac1N \sum_n r_{nk} .

I is largest, log K nats, where components are equally common and every image belongs to one of them.  With
:math:`t_{nk} = \log(r_{nk} / \bar r_k)` a log joint counts by

.. math:: G_{nk} = \frac{\partial I}{\partial l_{nk}}
          = \frac{r_{nk}}N \Big[ t_{nk} - \sum_j r_{nj} t_{nj} \Big] ,

and what follows from G is as in `gmmlib.stationary.conditional`.  The mean posterior depends on all images,
so their posteriors (N, K) are held at once.

References
----------
Krause, Perona and Gomes (2010), NIPS 23, 775-783.
"""

import numpy as np
from scipy.special import log_softmax, xlogy

from gmmlib import _checks, posterior
from gmmlib.spectrum import fold, powers, unfold
from gmmlib.stationary import conditional, steps
from gmmlib.stationary.convolutional import ConvolutionalGMM
from gmmlib.stationary.steps import Parameters


def information(resp):
    """Mutual information of image and component, nats, and its gradient (N, K) by log joints.

    Parameters
    ----------
    resp : ndarray, (N, K)
        Posteriors; rows sum to 1.
    """
    mean = resp.mean(axis=0)
    terms = xlogy(resp, resp) - xlogy(resp, mean)
    of_image = terms.sum(axis=1)
    return of_image.mean(), (terms - resp * of_image[:, None]) / len(resp)


def objective(logits, filters, P, multiplicity, common, shrinkage):
    """J, and its gradients by the logits (K,) of the weights and by the relative filters (K, F).

    Parameters
    ----------
    logits : ndarray, (K,)
    filters : ndarray, (K, F)
        The mean power over each component's.
    P : ndarray, (N, F)
        Powers of the images, squared grey levels.
    multiplicity, common : ndarray, (F,)
        How often each power stands in the full plane, and the mean power of all images.
    shrinkage : float
        Strength alpha of the prior, nats per image.
    """
    weights = np.exp(log_softmax(logits))
    joint = steps.log_joint(Parameters(weights, common / filters), P, multiplicity)
    value, G = information(posterior.proba(joint))
    mass, power = G.sum(axis=0), G.T @ P
    by_filters = 0.5 * multiplicity * (mass[:, None] / filters - power / common)
    excess = filters - 1
    penalty = 0.5 * shrinkage * (excess**2 @ multiplicity).sum()
    by_logits = mass - weights * mass.sum()
    return value - penalty, by_logits, by_filters - shrinkage * multiplicity * excess


def inform(mixture, X, *, shrinkage=1e-3, temperature=10.0, max_iter=60):
    """Climb J by L-BFGS from a fitted mixture.

    Parameters
    ----------
    mixture : ConvolutionalGMM
        Fitted, with a floor of the variances above 0, which is kept; it is left as it is.
    X : array-like, (N, H, W)
        Images of the size that it was fitted to.
    shrinkage : float
        Strength alpha of the prior, nats per image.
    temperature : float
        What the log-odds of the mixture are divided by before the climb (`conditional.tempered`).
    max_iter : int
        L-BFGS iterations at most.

    Returns
    -------
    ConvolutionalGMM
        With as many components.
    objectives : ndarray, (number of iterations + 1,)
        J at the start and after each iteration, nats per image; it never falls.

    Raises
    ------
    ValueError
        If an argument cannot be used.
    """
    floor = _checks.positive(mixture.variance_floor, "variance_floor")
    _checks.non_negative(shrinkage, "shrinkage")
    _checks.positive(temperature, "temperature")
    _checks.positive_integer(max_iter, "max_iter")
    X = _checks.images(X, "X", mixture.image_shape_)
    layout = fold(mixture.image_shape_)
    start = steps.given(mixture.learned(), len(mixture.weights_), layout, "mixture")
    P = powers(X, layout)
    common, w = np.maximum(P.mean(axis=0), floor), layout.multiplicity
    logits, filters, trace = conditional.maximise(
        *conditional.tempered(start, common, w, temperature),
        lambda *where: objective(*where, P, w, common, shrinkage),
        common / floor,
        max_iter,
    )
    found = conditional.mixture_of(logits, filters, common)
    informed = ConvolutionalGMM(len(logits), variance_floor=floor)
    informed.weights_, informed.spectra_ = found.weights, unfold(found.spectra, layout)
    informed.image_shape_, informed.n_dimensions_ = layout.shape, layout.dimension
    return informed, trace
