"""Noise removed and gaps filled: against loops over patches, closed forms, and photographs that are known."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import fft
from scipy.stats import norm
from sklearn.exceptions import NotFittedError
from threadpoolctl import threadpool_limits

from gmmlib import ConvolutionalGMM, FullGMM, datasets, patches
from gmmlib.restore import denoise, half_quadratic, images, inpaint, noise, noise_level, stationary_prior
from gmmlib.restore.priors import prior_of

RNG = np.random.default_rng(0)
NOISE = 0.1


@pytest.fixture(scope="module")
def photograph():
    return datasets.load_bsds("test", "sample")[0][40:93, 30:101]


@pytest.fixture(scope="module")
def priors():
    """Small mixtures of patches of the bundled photographs."""
    drawn, _ = patches.sample_patches(datasets.load_bsds("train", "sample"), 6, 3000, 0)
    X = patches.remove_mean(drawn)
    common = dict(zero_mean_patches=True, max_iter=20, tol=0, random_state=0)
    rows = X.reshape(len(X), -1)
    return {
        "fourier": ConvolutionalGMM(8, **common).fit(X),
        "cosine": ConvolutionalGMM(8, basis="cosine", **common).fit(X),
        "full": FullGMM(5, zero_means=True, reg_covar=1e-5, max_iter=10, tol=0, random_state=0).fit(rows),
    }


KINDS = ["fourier", "cosine", "full"]


def noisy(image, sigma=NOISE, seed=0):
    return image + sigma * np.random.default_rng(seed).standard_normal(image.shape)


def error(a, b):
    return np.sqrt(((a - b) ** 2).mean())


# --- the level of noise ----------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.02, 0.1, 3.0])
def test_the_level_of_pure_noise(sigma):
    assert_allclose(noise_level(sigma * RNG.standard_normal((150, 201)) + 7), sigma, rtol=0.03)


@pytest.mark.parametrize("shape", [(25, 30), (40, 45), (60, 60)])
def test_the_level_of_a_small_image(shape):
    """In the mean over images of noise alone, which have too few patches for the smallest eigenvalue."""
    levels = [noise_level(np.random.default_rng(seed).standard_normal(shape)) for seed in range(10)]
    assert_allclose(np.mean(levels), 1.0, atol=0.1)


def test_the_level_of_noise_on_a_slope_of_grey():
    slope = np.add.outer(np.linspace(0, 0.6, 160), np.linspace(0, 0.3, 140) ** 2)
    assert_allclose(noise_level(noisy(slope, 0.05)), 0.05, rtol=0.05)


def test_texture_is_a_loop_over_patches_and_pixels():
    image = RNG.random((9, 11))
    expected = np.zeros((3, 5))
    for top, left in np.ndindex(3, 5):
        for i, j in np.ndindex(7, 7):
            y, x = top + i, left + j
            if 0 < j < 6:
                expected[top, left] += (image[y, x + 1] - image[y, x - 1]) ** 2
            if 0 < i < 6:
                expected[top, left] += (image[y + 1, x] - image[y - 1, x]) ** 2
    assert_allclose(noise.texture(image), expected, rtol=1e-13)


def test_patches_of_noise_count_as_flat():
    """One in a hundred does not, of patches that share no pixel."""
    drawn = np.random.default_rng(4).standard_normal((7, 7 * 20_000))
    found = noise.texture(drawn)[0, ::7]
    assert 0.007 < (found > noise._limit()).mean() < 0.014


def test_the_level_of_an_image_half_of_which_is_textured():
    """Noise of the flat half is found though half the patches have variance in every direction."""
    rng = np.random.default_rng(3)
    image = np.hstack([0.3 * rng.standard_normal((120, 100)), np.full((120, 100), 0.5)])
    assert_allclose(noise_level(noisy(image, 0.05)), 0.05, rtol=0.04)


def test_a_constant_image_has_no_noise():
    assert noise_level(np.full((20, 30), 0.4)) < 1e-6


@pytest.mark.parametrize("shape", [(6, 20), (20,), (20, 20, 3)])
def test_what_has_no_level_is_refused(shape):
    with pytest.raises(ValueError, match=r"image must be a grey image \(H, W\) of at least 7 x 7 pixels"):
        noise_level(np.zeros(shape))
    with pytest.raises(ValueError, match="finite"):
        noise_level(np.full((9, 9), np.nan))


# --- averages of estimates ---------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 200, 1000, 2**16])
@pytest.mark.parametrize("side", [5, 8])
def test_estimates_that_are_windows_of_an_image_average_to_that_image(side, at_once, photograph, monkeypatch):
    """Patches less their squares agree about every pixel, so their average is the image less its square."""
    monkeypatch.setattr(half_quadratic, "BAND", at_once)
    found = half_quadratic.companions(photograph, lambda patches: patches - patches**2, side)
    assert_allclose(found, photograph - photograph**2, rtol=1e-13)


@pytest.mark.parametrize("kind", ["fourier", "cosine"])
@pytest.mark.parametrize("shape", [(6, 6), (7, 23), (31, 12), (53, 71)])
def test_bits_depend_on_neither_bands_nor_threads(kind, shape, priors, photograph, monkeypatch):
    seen, prior = noisy(photograph)[: shape[0], : shape[1]], prior_of(priors[kind])
    monkeypatch.setattr(half_quadratic, "BLOCK", 128)
    found = []
    for threads, band in itertools.product((1, 2), (1, 1000, 2**16)):
        monkeypatch.setattr(half_quadratic, "BAND", band)
        with threadpool_limits(threads, user_api="blas"):
            found.append(half_quadratic.denoised(seen, NOISE, prior, steps=(1.0, 4.0)))
    assert all(np.array_equal(found[0], other) for other in found)


@pytest.mark.parametrize("side", [6, 12])
def test_full_covariances_give_the_same_bits_with_any_threads(side, photograph):
    """Also where BLAS shares the covariances of one component among threads, as those of 12 x 12 pixels.

    How rows are cut into blocks decides which products BLAS forms, and so the last digits: `BAND` and `BLOCK`
    are no settings.
    """
    X = patches.remove_mean(patches.sample_patches([photograph], side, 600, 0)[0]).reshape(600, -1)
    prior = FullGMM(3, zero_means=True, reg_covar=1e-4, max_iter=2, tol=0, random_state=0).fit(X)
    grey, mask = noisy(photograph), RNG.random(photograph.shape) < 0.3
    colour = np.stack([grey, grey[::-1], photograph], axis=2)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            restored = [denoise(image, prior=prior) for image in (grey, colour)]
            found.append([*restored, inpaint(colour, mask, prior=prior, levels=(0.1, 0.02))])
    for one, two in zip(*found, strict=True):
        assert_array_equal(one, two)


@pytest.fixture(scope="module", params=[4, 5, 8])
def cosine_prior(request, photograph):
    X = patches.remove_mean(patches.sample_patches([photograph], request.param, 800, 0)[0])
    model = ConvolutionalGMM(7, basis="cosine", zero_mean_patches=True, max_iter=5, tol=0, random_state=0)
    return prior_of(model.fit(X))


@pytest.mark.parametrize("columns", [1, 10, 512])
@pytest.mark.parametrize("height", [0, 3, 7])
def test_a_strip_is_what_scipy_makes_of_each_patch(columns, height, cosine_prior, photograph, monkeypatch):
    """By transforms of explicit patches in double precision, densities of scipy and a loop over patches."""
    monkeypatch.setattr(stationary_prior, "COLUMNS", columns)
    side, mixture = cosine_prior.side, cosine_prior.mixture
    pixels = noisy(photograph)[: side + height, :30]
    expected = np.zeros(pixels.shape)
    deviations = np.sqrt(mixture.spectra_.reshape(7, -1)[:, 1:] + NOISE**2)
    for top in range(height + 1):
        for left in range(30 - side + 1):
            place = slice(top, top + side), slice(left, left + side)
            z = fft.dctn(pixels[place], norm="ortho").ravel()
            k = np.argmax(np.log(mixture.weights_) + norm.logpdf(z[1:], scale=deviations).sum(axis=1))
            z[1:] *= 1 - NOISE**2 / deviations[k] ** 2
            expected[place] += fft.idctn(z.reshape(side, side), norm="ortho") - pixels[place]
    found = cosine_prior.estimator(NOISE**2).strip(pixels)
    assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_strips_and_blocks_of_patches_agree(sigma, cosine_prior, photograph):
    seen, estimate = noisy(photograph, sigma), cosine_prior.estimator(sigma**2)
    by_strips = half_quadratic.companions(seen, estimate, cosine_prior.side)
    by_blocks = half_quadratic.companions(seen, lambda found: estimate(found), cosine_prior.side)
    assert (
        error(by_strips, by_blocks) < 1e-5
    )  # rounding may choose another of two components that are as good


def test_single_precision_moves_no_image(photograph, priors):
    prior, seen = priors["cosine"], noisy(photograph)
    single, double = (
        half_quadratic.denoised(seen, NOISE, kind(prior))
        for kind in (stationary_prior.OfCosines, stationary_prior.OfStationary)
    )
    assert error(single, double) < 0.01 * error(double, photograph)


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_is_the_mean_over_all_patches_of_their_wiener_filters(kind, priors, photograph):
    """By a loop over patches, dense covariances and scipy-free linear algebra."""
    image, mixture, side = noisy(photograph[:11, :9]), priors[kind], 6
    size = side * side
    if kind == "full":
        means, covariances = mixture.means_, mixture.covariances_
    else:
        covariances = mixture.pixel_covariances()
        means = np.zeros((len(covariances), size))
    wide = np.pad(image, side - 1, mode="symmetric")
    total, count = np.zeros(wide.shape), np.zeros(wide.shape)
    centred = np.eye(size) - 1 / size
    for top in range(wide.shape[0] - side + 1):
        for left in range(wide.shape[1] - side + 1):
            place = slice(top, top + side), slice(left, left + side)
            patch = wide[place].ravel()
            y, scores, found = centred @ patch, [], []
            for weight, mean, covariance in zip(mixture.weights_, means, covariances, strict=True):
                seen = covariance + NOISE**2 * (np.eye(size) if kind == "full" else centred)
                values, vectors = np.linalg.eigh(seen)
                values, vectors = values[values > 1e-9], vectors[:, values > 1e-9]
                z = vectors.T @ (y - mean)
                scores.append(np.log(weight) - 0.5 * np.log(values).sum() - 0.5 * (z**2 / values).sum())
                found.append(mean + covariance @ vectors @ (z / values))
            total[place] += (found[int(np.argmax(scores))] + patch.mean()).reshape(side, side)
            count[place] += 1
    expected = (total / count)[side - 1 : -side + 1, side - 1 : -side + 1]
    one = half_quadratic.denoised(image, NOISE, prior_of(mixture), steps=(1.0,))
    digits = 2e-6 if kind == "cosine" else 1e-9  # single precision
    assert_allclose(one, 0.5 * (image + expected), rtol=0, atol=digits)


def test_with_one_component_each_step_lowers_its_objective(photograph):
    """Estimates are then exact, so both halves of a step minimise the sum of squares and log-likelihoods."""
    X = patches.remove_mean(patches.sample_patches([photograph], 4, 500, 0)[0])
    model = ConvolutionalGMM(1, basis="cosine", zero_mean_patches=True, max_iter=1, tol=0).fit(X)
    y, weight, levels = noisy(photograph), 2.0, []
    precision = np.linalg.pinv(model.pixel_covariances()[0])

    def objective(x):
        wide = np.pad(x, 3, mode="symmetric")
        cut = np.lib.stride_tricks.sliding_window_view(wide, (4, 4))
        found = cut.reshape(-1, 16)
        z = prior_of(model).estimator(NOISE**2 / weight)(found.reshape(-1, 4, 4)).reshape(-1, 16)
        rest = z - z.mean(axis=1, keepdims=True)
        near = 16 * ((np.pad(x - y, 3, mode="symmetric")) ** 2)[3:-3, 3:-3].sum()
        inside = weight * ((found - z) ** 2).sum() / (2 * NOISE**2)
        return near / (2 * NOISE**2) + inside + 0.5 * ((rest @ precision) * rest).sum()

    x = y
    for _ in range(5):
        levels.append(objective(x))
        average = half_quadratic.companions(x, prior_of(model).estimator(NOISE**2 / weight), 4)
        x = (y + weight * average) / (1 + weight)
    assert levels[-1] < levels[0]


# --- photographs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_noise_becomes_less_than_half(kind, priors, photograph):
    seen = noisy(photograph)
    found = denoise(seen, NOISE, prior=priors[kind])
    assert error(found, photograph) < 0.55 * error(seen, photograph)
    assert found.shape == photograph.shape


def test_five_steps_gain_on_one(priors, photograph):
    seen = noisy(photograph)
    one, five = (
        denoise(seen, NOISE, prior=priors["cosine"], steps=s) for s in ((1.0,), half_quadratic.STEPS)
    )
    assert error(five, photograph) < error(one, photograph)


def test_without_noise_the_image_stays(priors, photograph):
    assert_array_equal(denoise(photograph, 0, prior=priors["cosine"]), photograph)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [None, 3, 4])
def test_type_shape_and_alpha_stay(dtype, channels, priors, photograph):
    unit = images.WHOLE.get(np.dtype(dtype), 1.0)
    plain = noisy(photograph[:20, :24]).clip(0, 1)
    if channels:
        plain = np.stack([plain, plain[::-1], plain[:, ::-1], plain][:channels], axis=2)
    image = (plain * unit).astype(dtype)
    found = denoise(image, NOISE * unit, prior=priors["cosine"])
    assert found.dtype == image.dtype
    assert found.shape == image.shape
    if channels == 4:
        assert_array_equal(found[:, :, 3], image[:, :, 3])
    reference = denoise(image / unit, NOISE, prior=priors["cosine"])
    assert np.abs(found / unit - reference.clip(0, 1) if unit > 1 else found - reference).max() < 1 / 255


def test_grey_as_colour_stays_grey(priors, photograph):
    seen = noisy(photograph)
    grey = denoise(seen, NOISE * np.sqrt(3), prior=priors["cosine"])
    colour = denoise(np.repeat(seen[:, :, None], 3, axis=2) / 1.0, NOISE, prior=priors["cosine"])
    assert_allclose(colour, np.repeat(colour[:, :, :1], 3, axis=2), atol=1e-12)
    assert colour.shape == (*grey.shape, 3)


def test_differences_of_colours_are_restored_at_half_the_resolution_from_some_noise_on(priors, photograph):
    """By hand, plane by plane; of an odd width and height."""
    prior, seen = (
        prior_of(priors["cosine"]),
        noisy(np.stack([photograph[:51], photograph[2:]] * 2, 2)[:, :, :3]),
    )
    planes = np.moveaxis(seen @ images.OPPONENT.T, 2, 0)
    for level in (images.COARSE, 0.99 * images.COARSE):
        expected = [half_quadratic.denoised(plane, level, prior) for plane in planes]
        if level == images.COARSE:
            for number in (1, 2):
                small = half_quadratic.denoised(images.halved(planes[number]), level / 2, prior)
                expected[number] = images.doubled(small, (51, 71))
        found = denoise(seen, level, prior=priors["cosine"])
        assert_allclose(found, np.stack(expected, 2) @ images.OPPONENT, rtol=0, atol=1e-12)


def test_differences_smaller_than_two_patches_are_restored_as_they_are(priors, photograph):
    seen = noisy(np.stack([photograph, photograph[::-1], photograph], 2)[:11, :30])
    planes = np.moveaxis(seen @ images.OPPONENT.T, 2, 0)
    expected = [half_quadratic.denoised(plane, NOISE, prior_of(priors["cosine"])) for plane in planes]
    found = denoise(seen, NOISE, prior=priors["cosine"])
    assert_allclose(found, np.stack(expected, 2) @ images.OPPONENT, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(7, 8), (20, 31), (64, 65)])
def test_halves_are_means_of_four_pixels_and_double_to_the_same_shape(shape):
    plane = RNG.random(shape)
    found = images.halved(plane)
    for i, j in np.ndindex(found.shape):
        rows, columns = ([min(2 * k + e, n - 1) for e in (0, 1)] for k, n in zip((i, j), shape, strict=True))
        assert_allclose(found[i, j], plane[np.ix_(rows, columns)].mean(), rtol=1e-14)
    assert images.doubled(found, shape).shape == shape
    # Splines of few pixels are not exact.
    assert_allclose(
        images.doubled(np.full(found.shape, 0.7), shape), 0.7, rtol=1e-13 if 64 in shape else 2e-5
    )


def test_doubling_lays_pixels_where_they_were():
    """Centres of 2 x 2 pixels lie between pixels: a slope of grey comes back but for its ends."""
    slope = np.add.outer(0.01 * np.arange(60.0), 0.02 * np.arange(60.0))
    found = images.doubled(images.halved(slope), slope.shape)
    assert_allclose(found[16:-16, 16:-16], slope[16:-16, 16:-16], atol=1e-6)


def test_the_opponent_basis_is_orthonormal():
    assert_allclose(images.OPPONENT @ images.OPPONENT.T, np.eye(3), atol=1e-15)


def test_without_a_level_it_is_estimated(priors, photograph):
    seen = noisy(photograph)
    level = noise_level(seen)
    assert_array_equal(denoise(seen, prior=priors["cosine"]), denoise(seen, level, prior=priors["cosine"]))


@pytest.mark.parametrize("kind", ["fourier", "cosine"])
def test_bits_depend_on_neither_chunks_nor_threads(kind, priors, photograph):
    mixture = priors[kind]
    first = denoise(noisy(photograph), NOISE, prior=mixture)
    again = ConvolutionalGMM.from_arrays(*mixture.to_arrays(), "here").set_params(chunk_size=1)
    assert_array_equal(denoise(noisy(photograph), NOISE, prior=again), first)


# --- gaps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_gaps_are_filled_better_than_by_their_surroundings(share, priors, photograph):
    mask = np.random.default_rng(1).random(photograph.shape) < share
    holed = np.where(mask, 0.0, photograph)
    found = inpaint(holed, mask, prior=priors["cosine"])
    assert_array_equal(found[~mask], photograph[~mask])
    guess = images.spread(photograph, ~mask)
    assert error(found[mask], photograph[mask]) < 0.9 * error(guess[mask], photograph[mask])


def test_what_stands_in_the_gaps_does_not_count(priors, photograph):
    mask = np.zeros(photograph.shape, dtype=bool)
    mask[10:15, 20:41] = True
    found = [inpaint(np.where(mask, value, photograph), mask, prior=priors["full"]) for value in (0.0, 1.0)]
    assert_array_equal(*found)


def test_a_guess_is_the_mean_of_the_nearest_square():
    image, seen = np.arange(25.0).reshape(5, 5), np.zeros((5, 5), dtype=bool)
    seen[1, 1] = seen[1, 2] = True
    guess = images.spread(image, seen)
    assert guess[0, 0] == image[1, 1]
    assert guess[0, 1] == 0.5 * (image[1, 1] + image[1, 2])
    assert guess[4, 4] == 0.5 * (image[1, 1] + image[1, 2])
    assert_array_equal(guess[seen], image[seen])


def test_colour_and_bytes_are_filled(priors, photograph):
    image = (255 * np.stack([photograph, photograph[::-1], photograph], axis=2)).round().astype(np.uint8)
    mask = np.zeros(photograph.shape, dtype=bool)
    mask[5:8, 5:30] = True
    found = inpaint(image, mask, prior=priors["cosine"])
    assert found.dtype == np.uint8
    assert_array_equal(found[~mask], image[~mask])


# --- bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros(5), r"image must be \(H, W\), \(H, W, 3\) or \(H, W, 4\); got shape \(5,\)"),
        (np.zeros((9, 9, 5)), r"got shape \(9, 9, 5\)"),
        (np.zeros((9, 9, 1)), r"got shape \(9, 9, 1\)"),
        (np.zeros((1, 1)), "image must be at least 6 x 6 pixels, as the prior's patches; got 1 x 1"),
        (np.zeros((9, 5)), "got 9 x 5"),
        (np.full((9, 9), np.nan), "image must be finite"),
        (np.full((9, 9), 7.0), "image must have grey levels from 0 to 1 if it holds floats; got 7 to 7"),
        (np.zeros((9, 9), dtype=np.int64), "image must be uint8, uint16 or floats; got dtype int64"),
        (np.zeros((9, 9), dtype=complex), "image must be uint8, uint16 or floats; got dtype complex128"),
    ],
)
def test_images_that_cannot_be_restored(image, message, priors):
    with pytest.raises(ValueError, match=message):
        denoise(image, 0.1, prior=priors["cosine"])
    with pytest.raises(ValueError, match=message):
        inpaint(image, np.zeros(image.shape[:2], dtype=bool), prior=priors["cosine"])


@pytest.mark.parametrize(
    ("sigma", "message"),
    [(-0.1, "sigma must be"), (np.nan, "sigma must be"), (1.5, "at most the range of the image, 1; got 1.5")],
)
def test_levels_that_cannot_be(sigma, message, priors):
    with pytest.raises(ValueError, match=message):
        denoise(np.zeros((9, 9)), sigma, prior=priors["cosine"])


@pytest.mark.parametrize("steps", [(), (0.0,), (-1.0,), (np.inf,), [[1.0]]])
def test_steps_that_cannot_be(steps, priors):
    with pytest.raises(ValueError, match="steps must be positive finite numbers"):
        denoise(np.zeros((9, 9)), 0.1, prior=priors["cosine"], steps=steps)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((9, 8), dtype=bool), r"mask must be an array of bool .* \(9, 9\)"),
        (np.zeros((9, 9)), "dtype float64"),
        (np.ones((9, 9), dtype=bool), "mask must leave some pixels"),
    ],
)
def test_masks_that_cannot_be(mask, message, priors):
    with pytest.raises(ValueError, match=message):
        inpaint(np.zeros((9, 9)), mask, prior=priors["cosine"])


def test_priors_that_cannot_be(priors):
    image = np.zeros((9, 9))
    for prior in (None, 3, object()):
        with pytest.raises(ValueError, match="prior must be a fitted FullGMM or ConvolutionalGMM of patches"):
            denoise(image, 0.1, prior=prior)
    with pytest.raises(FileNotFoundError):
        denoise(image, 0.1, prior="quick")
    with pytest.raises(NotFittedError):
        denoise(image, 0.1, prior=FullGMM(2))
    rows = RNG.standard_normal((50, 35))
    with pytest.raises(ValueError, match="prior must be a mixture of square patches; got one of 35 columns"):
        denoise(image, 0.1, prior=FullGMM(2, max_iter=1, tol=0, init="random_from_data").fit(rows))
    with pytest.raises(ValueError, match="fitted with zero_mean_patches=True"):
        denoise(
            image, 0.1, prior=ConvolutionalGMM(2, max_iter=1, tol=0).fit(rows.reshape(50, 5, 7)[:, :, :5])
        )


@pytest.mark.parametrize("basis", ["fourier", "cosine"])
def test_a_stationary_prior_of_another_range_is_refused(basis, photograph):
    X = patches.remove_mean(patches.sample_patches([255 * photograph], 5, 500, 0)[0])
    mixture = ConvolutionalGMM(2, basis=basis, zero_mean_patches=True, max_iter=2, tol=0).fit(X)
    covariance = np.tensordot(mixture.weights_, mixture.pixel_covariances(), 1)
    with pytest.raises(ValueError, match="grey levels from 0 to 1, whose variance is at most 0.25") as caught:
        prior_of(mixture)
    assert f"got {covariance.diagonal().mean():.3g} per pixel. Divide the training patches" in str(
        caught.value
    )


def test_a_full_prior_of_another_range_is_refused(photograph):
    X = patches.remove_mean(patches.sample_patches([255 * photograph], 5, 500, 0)[0]).reshape(500, -1)
    mixture = FullGMM(2, zero_means=True, reg_covar=1e-3, max_iter=2, tol=0).fit(X)
    with pytest.raises(ValueError, match="whose variance is at most 0.25") as caught:
        prior_of(mixture)
    assert f"got {(X**2).mean():.3g} per pixel" in str(caught.value)


@pytest.mark.parametrize("zero_means", [False, True])
def test_a_full_prior_of_patches_with_their_means_is_refused(zero_means, photograph):
    X = 0.5 * patches.sample_patches([photograph], 5, 500, 0)[0].reshape(500, -1)
    mixture = FullGMM(2, zero_means=zero_means, reg_covar=1e-5, max_iter=2, tol=0).fit(X)
    with pytest.raises(ValueError, match="patches without their means; got one whose means have a variance"):
        prior_of(mixture)
