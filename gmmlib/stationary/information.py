r"""Convolutional mixtures whose components are to tell as much about images as they can.

The objective is the mean log-likelihood plus a multiple of the mutual information of image and component
under the posteriors r, over logits of the weights and log spectra theta:

.. math:: J = \frac1N \sum_n \log p(x_n) + \lambda I , \qquad
          I = H(\bar r) - \frac1N \sum_n H(r_n) = \frac1N \sum_{nk} r_{nk} \log \frac{r_{nk}}{\bar r_k} ,
          \quad \bar r_k = \frac1N \sum_n r_{nk} .

I is largest, log K nats, where components are equally common and every image belongs to one of them.  With
:math:`t_{nk} = \log(r_{nk} / \bar r_k)` a log joint counts by

.. math:: G_{nk} = \frac{\partial J}{\partial l_{nk}}
          = \frac{r_{nk}}N \Big( 1 + \lambda \Big[ t_{nk} - \sum_j r_{nj} t_{nj} \Big] \Big) ,

and since log joints are linear in the powers P,

.. math:: \frac{\partial J}{\partial \theta_{kf}}
          = \frac{w(f)}2 \Big[ (G^\top P)_{kf} e^{-\theta_{kf}} - \sum_n G_{nk} \Big] .

The mean posterior depends on all images, so their posteriors (N, K) are held at once.  Krause, Perona and
Gomes (2010), NIPS 23, 775-783, regularise I by the size of a classifier's weights; here the likelihood does.
"""

import numpy as np
from scipy.special import log_softmax, xlogy

from gmmlib import _checks, posterior
from gmmlib.spectrum import fold, powers
from gmmlib.stationary import bases, conditional, steps
from gmmlib.stationary.convolutional import ConvolutionalGMM
from gmmlib.stationary.steps import Parameters


def information(resp):
    """Mutual information of image and component, nats, of posteriors (N, K); its gradient by log joints."""
    mean = resp.mean(axis=0)
    terms = xlogy(resp, resp) - xlogy(resp, mean)
    of_image = terms.sum(axis=1)
    return of_image.mean(), (terms - resp * of_image[:, None]) / len(resp)


def objective(logits, log_spectra, P, multiplicity, strength):
    """J, and its gradients by the logits (K,) of the weights and by the log spectra (K, F).

    The images have powers P (N, F) of a `multiplicity` (F,); `strength` is lambda.
    """
    weights = np.exp(log_softmax(logits))
    joint = steps.log_joint(Parameters(weights, np.exp(log_spectra)), P, multiplicity)
    resp = posterior.proba(joint)
    known, G = information(resp)
    G = resp / len(P) + strength * G
    mass = G.sum(axis=0)
    by_spectra = 0.5 * multiplicity * ((G.T @ P) * np.exp(-log_spectra) - mass[:, None])
    value = posterior.evidence(joint).mean() + strength * known
    return value, mass - weights * mass.sum(), by_spectra


def inform(mixture, X, *, strength=100.0, max_iter=25):
    """Climb J by L-BFGS from a fitted mixture, which stays as it is.

    Parameters
    ----------
    mixture : ConvolutionalGMM
        Fitted to images with a mean, with a `variance_floor` above 0, which is kept.
    X : array-like, (N, H, W)
    strength : float
        Lambda, in nats of likelihood per nat of information.
    max_iter : int
        L-BFGS iterations at most.

    Returns
    -------
    ConvolutionalGMM
    objectives : ndarray, (number of iterations + 1,)
        J at the start and after each iteration, nats per image; it never falls.
    """
    floor = _checks.positive(mixture.variance_floor, "variance_floor")
    _checks.non_negative(strength, "strength")
    _checks.positive_integer(max_iter, "max_iter")
    X = _checks.images(X, "X", mixture.image_shape_)
    bases.fourier_only(mixture, "mixture")
    layout = fold(mixture.image_shape_)
    P, n_components = powers(X, layout), len(mixture.weights_)
    start = steps.given(mixture.learned(), n_components, layout, "mixture")
    logits, log_spectra, objectives = conditional.maximise(
        np.log(np.maximum(start.weights, 1e-12)),  # a weight of 0 has no logit
        np.log(start.spectra),
        lambda *where: objective(*where, P, layout.multiplicity, strength),
        np.full(len(layout.bins), np.inf),
        max_iter,
        lowest=np.log(floor),
    )
    informed = ConvolutionalGMM(n_components, variance_floor=floor)
    informed._set(layout, Parameters(np.exp(log_softmax(logits)), np.exp(log_spectra)))
    return informed, objectives
