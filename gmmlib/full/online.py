"""Moments for online EM of full covariances: they move a step towards those of each batch."""

from typing import NamedTuple

import numpy as np

from gmmlib.em.batches import step_size


class Moments(NamedTuple):
    """Moments of each component about a fixed centre, a unit of weight; those of batches add."""

    mass: np.ndarray  # (K,)
    first: np.ndarray  # (K, D)
    second: np.ndarray  # (K, D, D)
    centre: np.ndarray  # (D,)  near the data, so that no digits are lost to their mean
    steps: int


def start(weights, means, covariances, reg_covar, steps):
    """Moments that have the given parameters, after a number of steps."""
    centre = weights @ means
    difference = means - centre
    second = covariances - reg_covar * np.eye(len(centre)) + difference[:, :, None] * difference[:, None, :]
    return Moments(weights, weights[:, None] * difference, weights[:, None, None] * second, centre, steps)


def step(moments, X, resp, weight):
    """Move towards a batch X (N, D) with weighted posteriors (N, K) of total weight `weight`."""
    steps = moments.steps + 1
    eta = step_size(steps)
    samples = X - moments.centre
    mass = (1 - eta) * moments.mass + eta * resp.sum(axis=0) / weight
    first = (1 - eta) * moments.first + eta * (resp.T @ samples) / weight
    second = (1 - eta) * moments.second
    for k in range(len(mass)):
        rows = np.flatnonzero(resp[:, k])
        weighted = samples[rows] * np.sqrt(resp[rows, k])[:, None]
        second[k] += (eta / weight) * (weighted.T @ weighted)
    return Moments(mass, first, second, moments.centre, steps)


def parameters(moments, reg_covar, zero_means):
    """Weights (K,), means (K, D) and covariances (K, D, D) of the moments.

    A component without samples for long keeps a tiny weight, and the ridge its covariance positive definite.
    """
    mass = np.maximum(moments.mass, np.finfo(float).tiny)
    difference = moments.first / mass[:, None]
    if zero_means:
        difference = np.tile(-moments.centre, (len(mass), 1))
        cross = moments.first[:, :, None] * moments.centre / mass[:, None, None]
        about_zero = moments.second / mass[:, None, None] + cross + cross.transpose(0, 2, 1)
        covariances = about_zero + np.outer(moments.centre, moments.centre)
    else:
        covariances = moments.second / mass[:, None, None] - difference[:, :, None] * difference[:, None, :]
    covariances = covariances + reg_covar * np.eye(len(moments.centre))
    return mass / mass.sum(), moments.centre + difference, covariances
