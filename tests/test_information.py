"""Information of posteriors against enumeration, finite differences and its bounds."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import logsumexp

from gmmlib import ConvolutionalGMM
from gmmlib.spectrum import fold, powers
from gmmlib.stationary.information import inform, information, objective
from tests import oracles

SHAPES = [(4, 6), (5, 4), (3, 5)]


def half(full):
    return full[..., : full.shape[-1] // 2 + 1]


def textures(shape, n=80, seed=0):
    """Images of two textures, one smooth in rows and one in columns, of unequal contrast."""
    noise = np.random.default_rng(seed).standard_normal((n, *shape))
    smooth = [1.5 * noise + np.roll(noise, 1, axis) for axis in (1, 2)]
    return np.concatenate([smooth[0][: n // 2], 1.5 * smooth[1][n // 2 :]])


def entropy(p):
    return -sum(x * np.log(x) for x in p if x > 0)


def dense(x, weights, full, strength):
    """The objective from dense densities, and entropies of single images."""
    joint = oracles.log_joint(x, weights, full)
    evidence = logsumexp(joint, axis=1)
    resp = np.exp(joint - evidence[:, None])
    known = entropy(resp.mean(axis=0)) - np.mean([entropy(r) for r in resp])
    return evidence.mean() + strength * known


def test_information_is_none_or_all():
    same = np.full((6, 3), 1 / 3)
    assert_allclose(information(same)[0], 0, atol=1e-15)
    sure = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    assert_allclose(information(sure)[0], np.log(3))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_objective_and_its_gradient_are_those_of_dense_densities(shape):
    x, layout, n_components, strength = textures(shape, 12), fold(shape), 3, 5.0
    P = powers(x, layout)
    rng = np.random.default_rng(1)
    logits = rng.standard_normal(n_components)
    log_spectra = np.log(P.mean(axis=0) * rng.gamma(9.0, 1 / 9, (n_components, P.shape[1])))

    def full_plane(folded):
        spectra = np.empty((shape[0], shape[1] // 2 + 1))
        for place, value in zip(np.ndindex(spectra.shape), folded[unfolded], strict=True):
            spectra[place] = value
        return oracles.full_from_half(spectra, shape[1])

    # Which power each place of the half plane holds, found from the powers of an image.
    image = rng.standard_normal((1, *shape))
    of_half = half(oracles.full_powers(image))[0].ravel()
    unfolded = np.abs(of_half[:, None] - powers(image, layout)[0]).argmin(axis=1)

    def value(vector):
        weights = np.exp(vector[:n_components] - logsumexp(vector[:n_components]))
        full = np.stack([full_plane(np.exp(t)) for t in vector[n_components:].reshape(log_spectra.shape)])
        return dense(x, weights, full, strength)

    found, by_logits, by_spectra = objective(logits, log_spectra, P, layout.multiplicity, strength)
    at = np.concatenate([logits, log_spectra.ravel()])
    assert_allclose(found, value(at), rtol=1e-10)
    slopes = [(value(at + step) - value(at - step)) / 2e-5 for step in 1e-5 * np.eye(len(at))]
    assert np.abs(slopes).max() > 1e-2
    assert_allclose(np.concatenate([by_logits, by_spectra.ravel()]), slopes, atol=1e-6)


def test_every_step_climbs_and_the_mixture_it_starts_from_is_left_alone():
    x = textures((5, 4))
    start = ConvolutionalGMM(3, max_iter=3, tol=0.0, variance_floor=0.1, random_state=0).fit(x)
    before = start.spectra_.copy()
    model, objectives = inform(start, x, strength=50.0, max_iter=15)
    oracles.assert_never_falls(objectives)
    assert len(objectives) > 5
    known = [information(m.predict_proba(x))[0] for m in (start, model)]
    assert known[1] > known[0] + 0.05
    assert_allclose(objectives[0], start.score(x) + 50 * known[0], rtol=1e-10)
    assert_allclose(objectives[-1], model.score(x) + 50 * known[1], rtol=1e-10)
    assert_allclose(start.spectra_, before, rtol=0)
    assert model.spectra_.min() >= 0.1 * (1 - 1e-12)


def test_without_strength_it_climbs_the_likelihood():
    x = textures((4, 6))
    start = ConvolutionalGMM(2, max_iter=2, tol=0.0, variance_floor=1e-3, random_state=0).fit(x)
    model, objectives = inform(start, x, strength=0.0, max_iter=200)
    by_em = ConvolutionalGMM(2, max_iter=500, tol=1e-10, variance_floor=1e-3, random_state=0).fit(x)
    assert_allclose(objectives[-1], model.score(x), rtol=1e-10)
    assert_allclose(objectives[-1], by_em.score(x), rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": -1.0}, "strength must"),
        ({"max_iter": 0}, "max_iter must"),
    ],
)
def test_bad_settings_are_named(settings, message):
    x = textures((5, 4))
    start = ConvolutionalGMM(2, max_iter=2, tol=0.0, variance_floor=1e-3, random_state=0).fit(x)
    with pytest.raises(ValueError, match=re.escape(message)):
        inform(start, x, **settings)
