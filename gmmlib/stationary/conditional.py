r"""Class-conditional convolutional mixtures, trained on the class rather than on the image.

The joint density of image and class is a mixture of C K stationary Gaussians, K of each class:
:math:`p(x, c) = \sum_{m \in c} \pi_m N(x; s_m)`.  Its filters are measured by those of the mean power
:math:`s_0` of all images, :math:`u_m(f) = s_0(f) / s_m(f)`, and the objective is

.. math:: J = \frac1N \sum_n \log p(c_n \mid x_n) - \frac\alpha2 \sum_{mf} w(f)\, [u_m(f) - 1]^2 ,

the conditional likelihood with a Gaussian prior that keeps filters near the common one.  With r the
posteriors over all components and q those among the components of the image's own class (0 elsewhere), a
log joint :math:`l_{nm}` counts by

.. math:: G_{nm} = \partial J / \partial l_{nm} = \big[ q_{nm} - r_{nm} \big] / N,

and since :math:`l_{nm}` is linear in the powers P, so is everything that follows:

.. math:: \frac{\partial J}{\partial u_m(f)} = \frac{w(f)}2
          \Big[ \frac{\sum_n G_{nm}}{u_m(f)} - \frac{(G^\top P)_{mf}}{s_0(f)} \Big]
          - \alpha\, w(f)\, [u_m(f) - 1], \qquad
          \frac{\partial J}{\partial \eta_m} = \sum_n G_{nm} - \pi_m \sum_{nj} G_{nj}

for weights :math:`\pi = \mathrm{softmax}(\eta)`.  Row weights multiply the terms of the sums, N is their sum.
The climb starts from a mixture fitted to each class by EM.  Its log-odds are too large by far, since it takes
every frequency for fresh evidence; so they are divided by a temperature first (`tempered`).
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from gmmlib.em import interrupts
from gmmlib.stationary.steps import Parameters, coefficients, normalised

LOWEST = 1e-2  # of the common filter: no spectrum is above a hundred times the mean power


class Statistics(NamedTuple):
    """What an evaluation leaves of its rows; the fields of two sets of rows add."""

    objective: float  # sum_n w[n] log p(c_n | x_n), nats
    mass: np.ndarray  # (M,)    sum_n G[n, m]
    power: np.ndarray  # (M, F)  sum_n G[n, m] P[n, f]
    weight: float  # sum_n w[n]


def evaluate(slope, constant, P, labels, weight, n_classes):
    """Statistics of powers P (n, F) of classes (n,); the M components are ordered by class."""
    rows = np.arange(len(P))
    joint = P @ slope + constant
    of_class = joint.reshape(len(P), n_classes, -1)[rows, labels]
    of_class, of_own = normalised(of_class)
    joint, of_all = normalised(joint)
    joint *= -1
    joint.reshape(len(P), n_classes, -1)[rows, labels] += of_class
    joint *= weight[:, None]
    return Statistics(weight @ (of_own - of_all), joint.sum(axis=0), joint.T @ P, weight.sum())


class Problem(NamedTuple):
    """What the objective depends on beside the parameters."""

    P: np.ndarray  # (N, F)  powers
    labels: np.ndarray  # (N,)    classes 0 ... C - 1
    weight: np.ndarray  # (N,)
    multiplicity: np.ndarray  # (F,)
    common: np.ndarray  # (F,)    the mean power of all images
    n_classes: int
    shrinkage: float


def objective(logits, filters, problem, workers):
    """J, and its gradients by the logits (M,) of the weights and by the relative filters (M, F)."""
    w = problem.multiplicity
    parameters = mixture_of(logits, filters, problem.common)
    slope, constant = coefficients(parameters, w)

    def of(rows):
        data = problem.P[rows], problem.labels[rows], problem.weight[rows]
        return evaluate(slope, constant, *data, problem.n_classes)

    value, mass, power, total = workers.sum(of, len(problem.P))
    by_filters = 0.5 * w * (mass[:, None] / filters - power / problem.common)
    by_logits = mass - parameters.weights * mass.sum()
    excess = filters - 1
    penalty = 0.5 * problem.shrinkage * (excess**2 @ w).sum()
    return value / total - penalty, by_logits / total, by_filters / total - problem.shrinkage * w * excess


def tempered(parameters, common, multiplicity, temperature):
    """Logits (M,) and relative filters (M, F) of a mixture whose log-odds of components are divided.

    Log joints are those of `parameters` over the temperature, less something that is the same for all.
    """
    filters = common / parameters.spectra
    volume = 0.5 * np.log(filters) @ multiplicity
    softer = 1 + (filters - 1) / temperature
    logits = (np.log(parameters.weights) + volume) / temperature - 0.5 * np.log(softer) @ multiplicity
    return logits, softer


def maximise(logits, filters, function, highest, max_iter, report=None, lowest=LOWEST):
    """Climb by L-BFGS from logits (M,) and filters (M, F): what is reached, and the values on the way.

    `function` makes (value, gradient by the logits, gradient by the filters) of logits and filters; these
    stay between `lowest` and `highest` (F,).  ``report(logits, filters, trace)`` is called at the start and
    after each of at most `max_iter` iterations; a true result stops.  FloatingPointError if a value is not
    finite.
    """
    n_components = len(logits)
    trace = []

    def unpack(vector):
        return vector[:n_components], vector[n_components:].reshape(filters.shape)

    def downhill(vector):
        value, by_logits, by_filters = function(*unpack(vector))
        if not np.isfinite(value):
            raise FloatingPointError(
                f"The objective is {value} after {max(len(trace) - 1, 0)} iterations: a weight or a filter "
                "has overflowed. Raise shrinkage or the floor of the variances, or scale the data."
            )
        return -value, -np.concatenate([by_logits, by_filters.ravel()])

    def note(vector, value):
        trace.append(float(value))
        if report is not None and report(*unpack(vector), trace):
            raise StopIteration  # scipy stops there
        if interrupted():
            raise KeyboardInterrupt(
                f"fit was interrupted after {len(trace) - 1} iterations; the model holds the filters of the "
                "last of them and its trace, and can be used."
            )

    bounds = np.full((n_components + filters.size, 2), [-np.inf, np.inf])
    bounds[n_components:] = np.stack([np.full(filters.size, lowest), np.tile(highest, n_components)], axis=1)
    start = np.clip(np.concatenate([logits, filters.ravel()]), *bounds.T)
    with interrupts.deferred() as interrupted:
        try:
            note(start, -downhill(start)[0])
        except StopIteration:
            return *unpack(start), np.array(trace)
        result = minimize(
            downhill,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            callback=lambda intermediate_result: note(intermediate_result.x, -intermediate_result.fun),
            options={"maxiter": max_iter, "maxfun": 2 * max_iter + 20},
        )
    return *unpack(result.x), np.array(trace)


def mixture_of(logits, filters, common):
    """`Parameters` of logits (M,) and relative filters (M, F)."""
    return Parameters(np.exp(log_softmax(logits)), common / filters)
