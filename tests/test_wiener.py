"""Posterior means under white noise, against joint Gaussians of what is and what was seen, written out."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal
from sklearn.exceptions import NotFittedError

from gmmlib import ConvolutionalGMM, FullGMM, PenalisedGMM
from gmmlib.full import wiener
from tests import oracles
from tests.test_bases import WEIGHTS, dense, planted, variances

SHAPES = [(3, 5), (4, 3), (1, 7), (4, 4)]
BASES = ["fourier", "cosine", "pixel"]


def conditioned(y, seen, weights, means, covariances, noise, most_probable=False):
    """E[x | y] of samples (N, D), by conditioning the joint Gaussian of (x, y) of each component."""
    out = np.empty(y.shape)
    for n in range(len(y)):
        o = np.flatnonzero(seen[n])
        joint, expected = [], []
        for weight, mean, covariance in zip(weights, means, covariances, strict=True):
            both = np.block([[covariance, covariance], [covariance, covariance + noise * np.eye(len(mean))]])
            o_of_both = len(mean) + o
            of_y = both[np.ix_(o_of_both, o_of_both)]
            log_density = multivariate_normal(mean[o], of_y).logpdf(y[n, o]) if len(o) else 0.0
            joint.append(np.log(weight) + log_density)
            pull = np.linalg.solve(of_y, y[n, o] - mean[o]) if len(o) else np.zeros(0)
            expected.append(mean + both[: len(mean)][:, o_of_both] @ pull)
        share = np.exp(np.array(joint) - np.logaddexp.reduce(joint))
        out[n] = expected[int(np.argmax(share))] if most_probable else share @ np.array(expected)
    return out


def halves(shape, seed=0):
    """Half-plane spectra (3, H, W//2 + 1) of unequal variance, and their dense covariances."""
    rough = oracles.full_powers(np.random.default_rng(seed).standard_normal((3, *shape)))
    full = (rough + 0.1) * 3.0 ** np.arange(3)[:, None, None]
    covariances = [oracles.dense_covariance(oracles.autocovariance(spectrum)) for spectrum in full]
    return full[..., : shape[1] // 2 + 1], np.array(covariances)


def stationary(basis, shape, **settings):
    """A mixture of images in a basis, and its dense covariances."""
    if basis == "fourier":
        spectra, covariances = halves(shape)
    else:
        spectra = variances(shape)
        covariances = dense(basis, spectra)
    return planted(basis, spectra, shape=shape, **settings), covariances


def full(dimension=5, seed=0):
    """A mixture of samples, and its parameters."""
    weights, means, covariances = oracles.gaussians(3, dimension, seed)
    model = FullGMM(3)
    model.weights_, model.means_, model.covariances_ = weights, means, covariances
    model.score(means)  # what was set by hand is taken over
    return model, (weights, means, covariances)


def noisy(model, n=40, noise=0.5, seed=1):
    """Rows of a mixture, with noise."""
    x, _ = model.sample(n, seed)
    return x + np.sqrt(noise) * np.random.default_rng(seed).standard_normal(x.shape)


def holes(shape, seed=2):
    """Masks that hide values at random, some nothing and some everything."""
    seen = np.random.default_rng(seed).random(shape) > 0.4
    seen[0], seen[1] = True, False
    seen[2:6] = seen[2]
    return seen


# Against joint Gaussians


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("most_probable", [False, True])
@pytest.mark.parametrize("hidden", [False, True])
def test_images_are_expected_where_the_joint_gaussians_do(basis, shape, most_probable, hidden):
    model, covariances = stationary(basis, shape)
    y = noisy(model)
    seen = holes(y.shape) if hidden else np.ones(y.shape, dtype=bool)
    flat = y.reshape(len(y), -1)
    learned = WEIGHTS, np.zeros((3, flat.shape[1])), covariances
    expected = conditioned(flat, seen.reshape(flat.shape), *learned, 0.5, most_probable)
    mask = seen if hidden else None
    found = model.posterior_mean(np.where(seen, y, np.nan), 0.5, mask=mask, most_probable=most_probable)
    assert_allclose(found.reshape(flat.shape), expected, rtol=1e-8, atol=1e-10)
    assert len(set(model.with_noise(0.5).predict(y))) > 1


@pytest.mark.parametrize("dimension", [1, 5, 80])
@pytest.mark.parametrize("most_probable", [False, True])
@pytest.mark.parametrize("hidden", [False, True])
def test_samples_are_expected_where_the_joint_gaussians_do(dimension, most_probable, hidden):
    model, learned = full(dimension)
    y = noisy(model)
    seen = holes(y.shape) if hidden else np.ones(y.shape, dtype=bool)
    expected = conditioned(y, seen, *learned, 0.5, most_probable)
    mask = seen if hidden else None
    found = model.posterior_mean(np.where(seen, y, np.nan), 0.5, mask=mask, most_probable=most_probable)
    assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("basis", BASES)
def test_a_mask_that_hides_nothing_changes_nothing(basis):
    model, _ = stationary(basis, (3, 5))
    y = noisy(model)
    masked = model.posterior_mean(y, 0.5, mask=np.ones(y.shape, dtype=bool))
    assert_allclose(masked, model.posterior_mean(y, 0.5), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", ["full", *BASES])
def test_the_posterior_mean_has_the_least_squared_error(kind):
    model = full()[0] if kind == "full" else stationary(kind, (3, 5))[0]
    x, _ = model.sample(4000, 0)
    y = x + np.random.default_rng(1).standard_normal(x.shape)
    error = ((model.posterior_mean(y, 1.0) - x) ** 2).mean()
    others = [model.posterior_mean(y, v) for v in (0.3, 3.0)]
    others += [y, model.posterior_mean(y, 1.0, most_probable=True)]
    assert all(error < ((other - x) ** 2).mean() for other in others)


# Noise on the mixture


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("basis", BASES)
def test_a_mixture_with_noise_has_the_dense_density(basis, shape):
    model, covariances = stationary(basis, shape)
    y = noisy(model)
    flat = y.reshape(len(y), -1)
    with_noise = covariances + 0.5 * np.eye(flat.shape[1])
    expected = oracles.gaussian_log_joint(flat, WEIGHTS, np.zeros((3, flat.shape[1])), with_noise)
    assert_allclose(model.with_noise(0.5).log_joint(y), expected, rtol=1e-9)
    assert_allclose(model.with_noise(0.5).pixel_covariances(), with_noise, atol=1e-11)


def test_samples_with_noise_have_the_dense_density():
    model, (weights, means, covariances) = full()
    y = noisy(model)
    expected = oracles.gaussian_log_joint(y, weights, means, covariances + 0.5 * np.eye(5))
    assert_allclose(model.with_noise(0.5).log_joint(y), expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["full", "penalised", *BASES])
def test_a_mixture_with_noise_is_one_of_its_class_that_can_be_saved(kind, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((30, 3, 4)) * np.repeat([1.0, 5.0], 15)[:, None, None]
    if kind == "full":
        model, X = FullGMM(2, random_state=0, max_iter=5, tol=0.0), images.reshape(30, -1)[:, :4]
    elif kind == "penalised":
        model, X = PenalisedGMM(2, random_state=0, max_iter=5, tol=0.0), images
    else:
        model, X = ConvolutionalGMM(2, basis=kind, random_state=0, max_iter=5, tol=0.0), images
    before = model.fit(X).score_samples(X)
    other = model.with_noise(2.0)
    assert type(other) is type(model)
    assert other.get_params() == model.get_params()
    assert other.n_parameters() == model.n_parameters()
    other.save(tmp_path / "noisy.npz")
    assert_array_equal(type(model).load(tmp_path / "noisy.npz").score_samples(X), other.score_samples(X))
    assert_array_equal(model.score_samples(X), before)  # is left as it was
    assert (other.score_samples(X) != before).all()
    assert other.score(X) < model.score(X)
    assert other.n_iter_ == 0
    assert_allclose(model.with_noise(0.0).score_samples(X), before, rtol=1e-12)


# Limits


@pytest.mark.parametrize("kind", ["full", *BASES])
def test_without_noise_what_was_seen_comes_back(kind):
    model = full()[0] if kind == "full" else stationary(kind, (3, 5))[0]
    y = noisy(model)
    found = model.posterior_mean(y, 0.0)
    assert_array_equal(found, y)
    assert found is not y
    assert_allclose(model.posterior_mean(y, 1e-12), y, rtol=1e-8, atol=1e-9)
    seen = holes(y.shape)
    filled = model.posterior_mean(y, 0.0, mask=seen)
    assert_array_equal(filled[seen], y[seen])
    assert np.isfinite(filled).all()
    assert (filled != y)[~seen].all()


def test_without_noise_gaps_are_filled_as_by_impute():
    model, _ = full()
    model.allow_missing = True
    y = noisy(model)
    seen = holes(y.shape)
    expected = model.impute(np.where(seen, y, np.nan))
    assert_allclose(model.posterior_mean(y, 0.0, mask=seen), expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["full", *BASES])
def test_under_all_noise_the_mean_is_left(kind):
    model, learned = full() if kind == "full" else (stationary(kind, (3, 5))[0], None)
    y = noisy(model)
    mean = learned[0] @ learned[1] if kind == "full" else 0.0
    for mask in (None, holes(y.shape)):
        assert_allclose(model.posterior_mean(y, 1e12, mask=mask), np.broadcast_to(mean, y.shape), atol=1e-5)
    nothing = np.zeros(y.shape, dtype=bool)
    found = model.posterior_mean(np.full(y.shape, np.inf), 0.5, mask=nothing)
    assert_allclose(found, np.broadcast_to(mean, y.shape), rtol=1e-12)


# Patches without mean


@pytest.mark.parametrize("shape", [(3, 5), (4, 4)])
@pytest.mark.parametrize("basis", ["fourier", "cosine"])
def test_the_mean_of_patches_that_have_none_in_the_model_passes(basis, shape):
    model, _ = stationary(basis, shape, zero_mean_patches=True)
    y = noisy(model) + np.arange(40)[:, None, None]
    found = model.posterior_mean(y, 0.5)
    assert_allclose(found.mean(axis=(1, 2)), y.mean(axis=(1, 2)), rtol=1e-12, atol=1e-12)
    centred = y - y.mean(axis=(1, 2), keepdims=True)
    expected = model.posterior_mean(centred, 0.5) + y.mean(axis=(1, 2), keepdims=True)
    assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    masked = model.posterior_mean(y, 0.5, mask=np.ones(y.shape, dtype=bool))
    assert_allclose(masked, found, rtol=1e-9, atol=1e-10)
    assert model.with_noise(0.5).n_dimensions_ == y[0].size - 1


@pytest.mark.parametrize("basis", ["fourier", "cosine"])
def test_an_unknown_mean_is_the_limit_of_a_very_uncertain_one(basis):
    model, covariances = stationary(basis, (3, 5), zero_mean_patches=True)
    centre = np.eye(15) - 1 / 15
    y = noisy(model) + np.arange(40)[:, None, None]
    seen = holes(y.shape)
    seen[1] = seen[3]  # of a patch of which nothing was seen, the mean is 0 here and anything there
    flat, uncertain = y.reshape(40, 15), centre @ covariances @ centre + 1e7
    expected = conditioned(flat, seen.reshape(40, 15), WEIGHTS, np.zeros((3, 15)), uncertain, 0.5)
    found = model.posterior_mean(y, 0.5, mask=seen)
    assert_allclose(found.reshape(40, 15), expected, rtol=1e-4, atol=1e-4)
    shifted = model.posterior_mean(y + 100, 0.5, mask=seen)
    assert_allclose(shifted, found + 100, rtol=1e-9)
    nothing = model.posterior_mean(y, 0.5, mask=np.zeros(y.shape, dtype=bool))
    assert_array_equal(nothing, 0.0)


# Blocks


@pytest.mark.parametrize("kind", [5, 40, 80, *BASES])  # of samples, coordinates: screened in three ways
@pytest.mark.parametrize("hidden", [False, True])
def test_chunks_change_no_digit(kind, hidden):
    model = full(kind)[0] if isinstance(kind, int) else stationary(kind, (3, 5))[0]
    y = noisy(model, 4500)
    mask = None
    if hidden:
        mask = np.ones(y.shape, dtype=bool)
        mask[::3, ..., 1:3] = False
    one, other = (
        model.set_params(chunk_size=size).posterior_mean(y, 0.5, mask=mask) for size in (10**6, 100)
    )
    assert_array_equal(one, other)


def test_float32_and_integers_are_taken_as_float64():
    model, _ = stationary("fourier", (3, 5))
    y = np.round(10 * noisy(model))
    expected = model.posterior_mean(y, 0.5)
    assert expected.dtype == np.float64
    for kind in (np.float32, np.int16):
        assert_array_equal(model.posterior_mean(y.astype(kind), 0.5), expected)
        found = model.posterior_mean(y.astype(kind), 0.5, mask=np.ones(y.shape, dtype=bool))
        assert_allclose(found, expected, rtol=1e-8, atol=1e-9)


def test_of_components_that_tie_the_first_is_chosen():
    share = np.array([[0.4, 0.4 + 1e-12, 0.2], [0.1, 0.3, 0.6]])
    assert_array_equal(wiener.choice(share), [[1, 0, 0], [0, 0, 1]])


# What is refused


def make(kind):
    model = FullGMM(1) if kind == "full" else ConvolutionalGMM(1, basis=kind)
    X = np.random.default_rng(0).standard_normal((12, 2, 3))
    return model, X.reshape(12, 6) if kind == "full" else X


@pytest.mark.parametrize("kind", ["full", *BASES])
def test_an_unfitted_mixture_says_so(kind):
    model, X = make(kind)
    with pytest.raises(NotFittedError):
        model.with_noise(0.1)
    with pytest.raises(NotFittedError):
        model.posterior_mean(X, 0.1)


@pytest.mark.parametrize("kind", ["full", *BASES])
@pytest.mark.parametrize("noise", [-0.1, np.nan, np.inf, "much", None, True, np.array([0.1]), [0.1, 0.2]])
def test_a_variance_must_be_a_finite_number_that_is_not_negative(kind, noise):
    model, X = make(kind)
    model.fit(X)
    text = f"noise_variance must be a finite number >= 0; got {noise!r}."
    for call in (lambda: model.with_noise(noise), lambda: model.posterior_mean(X, noise)):
        with pytest.raises(ValueError, match=re.escape(text)):
            call()


@pytest.mark.parametrize("kind", ["full", *BASES])
def test_the_messages_of_posterior_mean(kind):
    model, X = make(kind)
    model.fit(X)
    shape = X.shape

    def text(*args, **settings):
        with pytest.raises(ValueError) as caught:
            model.posterior_mean(*args, **settings)
        return str(caught.value)

    for mask in (np.ones(shape), np.ones(shape, dtype=int), np.ones((12, 1), dtype=bool), True):
        mask = np.asarray(mask)
        assert text(X, 0.1, mask=mask) == (
            f"mask must be an array of bool of the shape of Y, {shape}, True where a value was seen; got "
            f"shape {mask.shape} of dtype {mask.dtype}. numpy.broadcast_to repeats one mask."
        )
    assert text(X, 0.1, most_probable="yes") == "most_probable must be True or False; got 'yes'."
    holed = X.copy()
    holed[3] = np.nan
    for mask in (None, np.ones(shape, dtype=bool)):
        assert text(holed, 0.1, mask=mask).startswith("Y must be finite; got ")
    assert text(1e200 * X, 0.1).startswith("Y must be at most 1e+150 in size")
    assert text(X.astype(complex), 0.1, mask=np.ones(shape, dtype=bool)).startswith(
        "Y must hold real numbers; got dtype complex"
    )
    hidden = np.broadcast_to(np.nan, shape)  # what is hidden is not looked at
    assert np.isfinite(model.posterior_mean(hidden, 0.1, mask=np.zeros(shape, dtype=bool))).all()


def test_images_of_another_size_are_refused_by_their_name():
    model, X = make("cosine")
    with pytest.raises(ValueError, match=r"^Y must hold images of 2 x 3 pixels"):
        model.fit(X).posterior_mean(X[:, :, :2], 0.1)


def test_gaps_in_large_images_are_refused():
    x = np.random.default_rng(0).standard_normal((3, 25, 41))
    model = ConvolutionalGMM(1, basis="pixel", max_iter=1, tol=0.0).fit(x)
    with pytest.raises(ValueError) as caught:
        model.posterior_mean(x, 0.1, mask=np.ones(x.shape, dtype=bool))
    assert str(caught.value) == (
        "mask must be None for images of more than 1024 pixels, whose covariances would be written out; got "
        "1025 pixels. Fit a model on patches, or fill the gaps first."
    )
    assert model.posterior_mean(x, 0.1).shape == x.shape


def test_nan_without_a_mask_are_refused_where_they_may_be_missing_elsewhere():
    model, X = make("full")
    model.set_params(allow_missing=True).fit(X)
    X[2, 1] = np.nan
    with pytest.raises(ValueError) as caught:
        model.posterior_mean(X, 0.1)
    assert str(caught.value) == (
        "Y must be finite; got 1 value that is NaN or infinite, the first at index (2, 1). Say by mask what "
        "was seen."
    )
