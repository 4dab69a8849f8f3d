"""Mixtures with independent coefficients in each basis, against dense Gaussians from written-out cosines."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import null_space
from scipy.stats import multivariate_normal
from sklearn.exceptions import NotFittedError

from gmmlib import ConvolutionalGMM, TreeGMM
from gmmlib.compose.patch_layer import PatchLayer
from gmmlib.stationary import bases
from gmmlib.stationary.information import inform
from gmmlib.storage import ModelFileError
from tests import oracles

SHAPES = [(4, 6), (5, 4), (3, 5), (1, 7), (6, 1), (4, 4), (13, 14)]
SMALL = SHAPES[:-1]
BASES = ["cosine", "pixel"]
WEIGHTS = np.array([0.2, 0.5, 0.3])


def waves(basis, shape):
    """Orthonormal vectors (D, D) in rows, each a cosine down times a cosine across, or a pixel."""
    height, width = shape
    if basis == "pixel":
        return np.eye(height * width)
    rows = []
    for u in range(height):
        for v in range(width):
            down = [np.cos(np.pi * u * (y + 0.5) / height) for y in range(height)]
            across = [np.cos(np.pi * v * (x + 0.5) / width) for x in range(width)]
            wave = np.outer(down, across).ravel()
            rows.append(wave / np.sqrt(wave @ wave))
    return np.array(rows)


def variances(shape, n_components=3, seed=0):
    """Rough variances (K, H, W) of coefficients."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n_components, *shape)) ** 2 + 0.1) * 3.0 ** np.arange(n_components)[
        :, None, None
    ]


def dense(basis, spectra):
    """Covariances (K, D, D)."""
    T = waves(basis, spectra.shape[1:])
    return np.stack([T.T @ np.diag(s.ravel()) @ T for s in spectra])


def planted(basis, spectra, weights=WEIGHTS, **settings):
    """A model that holds exactly these parameters: stopped before its first iteration."""
    shape = settings.pop("shape", spectra.shape[1:])
    x = np.random.default_rng(99).standard_normal((len(weights), *shape))
    if settings.get("zero_mean_patches"):
        x -= x.mean(axis=(1, 2), keepdims=True)
    model = ConvolutionalGMM(
        len(weights),
        basis=basis,
        init={"weights": np.asarray(weights), "spectra": spectra},
        callback=lambda model, iteration: True,
        **oracles.WHOLE_RUN | settings,
    )
    return model.fit(x)


def images(basis, n=90, shape=(5, 4), seed=1):
    x, _ = planted(basis, variances(shape)).sample(n, seed)
    return x[np.random.default_rng(seed).permutation(n)]


def dense_log_joint(x, weights, covariances, basis=None):
    """Log weight plus log density (N, K); of the coordinates in the columns of a `basis` if there is one."""
    flat = x.reshape(len(x), -1)
    basis = np.eye(flat.shape[1]) if basis is None else basis
    joint = []
    for weight, covariance in zip(weights, covariances, strict=True):
        density = multivariate_normal(np.zeros(basis.shape[1]), basis.T @ covariance @ basis)
        joint.append(np.log(weight) + np.reshape(density.logpdf(flat @ basis), len(x)))
    return np.stack(joint, axis=1)


# The layout


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("basis", BASES)
def test_powers_are_those_of_the_written_out_transform(basis, shape):
    x = np.random.default_rng(0).standard_normal((7, *shape))
    expected = (x.reshape(7, -1) @ waves(basis, shape).T) ** 2
    layout = bases.layout(basis, shape)
    assert_allclose(layout.powers(x), expected, rtol=1e-9, atol=1e-12)
    assert_allclose(layout.powers(x).sum(axis=1), (x**2).sum(axis=(1, 2)), rtol=1e-12)
    assert layout.dimension == x[0].size
    assert_array_equal(layout.unfold(layout.powers(x)).reshape(7, -1), layout.powers(x))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("basis", ["fourier", *BASES])
def test_every_basis_filters_by_a_symmetric_matrix(basis, shape):
    layout = bases.layout(basis, shape)
    rng = np.random.default_rng(0)
    gains = layout.unfold(rng.random((2, len(layout.bins))))
    x = rng.standard_normal((2, *shape))
    matrices = layout.covariances(gains)
    filtered = np.einsum("nij,nj->ni", matrices, x.reshape(2, -1))
    assert_allclose(layout.filtered(x, gains).reshape(2, -1), filtered, rtol=1e-9, atol=1e-12)
    assert_allclose(matrices, matrices.transpose(0, 2, 1), atol=1e-13)
    assert_allclose(layout.filtered(x, np.ones(layout.plane)), x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("basis", BASES)
def test_covariances_of_the_pixels_are_the_dense_ones(basis):
    spectra = variances((3, 5))
    assert_allclose(planted(basis, spectra).pixel_covariances(), dense(basis, spectra), atol=1e-12)


def test_covariances_of_stationary_components_are_circulant():
    full = oracles.full_powers(np.random.default_rng(0).standard_normal((2, 3, 4))) + 0.1
    model = planted("fourier", full[..., :3], [0.4, 0.6], shape=(3, 4))
    for covariance, spectrum in zip(model.pixel_covariances(), full, strict=True):
        expected = oracles.dense_covariance(oracles.autocovariance(spectrum))
        assert_allclose(covariance, expected, atol=1e-12)


# The density


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("basis", BASES)
def test_densities_equal_those_of_dense_gaussians(basis, shape):
    spectra = variances(shape)
    model = planted(basis, spectra)
    x, _ = model.sample(30, 1)
    expected = dense_log_joint(x, WEIGHTS, dense(basis, spectra))
    assert_allclose(model.log_joint(x), expected, rtol=1e-10)
    assert_allclose(model.score_samples(x), np.logaddexp.reduce(expected, axis=1), rtol=1e-10)
    assert_allclose(model.predict_proba(x), oracles.posteriors(expected), rtol=1e-8, atol=1e-12)
    assert_allclose(model.log_determinants(), np.linalg.slogdet(dense(basis, spectra))[1], rtol=1e-9)
    assert model.spectra_.shape == (3, *shape)
    assert model.n_dimensions_ == x[0].size
    assert model.n_parameters() == 2 + 3 * x[0].size
    assert_allclose(model.filters_ * model.spectra_, 1.0, rtol=1e-14)


@pytest.mark.parametrize("shape", SMALL)
def test_cosines_of_patches_without_mean_have_a_dimension_less(shape):
    spectra = variances(shape)
    model = planted("cosine", spectra, zero_mean_patches=True)
    x, _ = model.sample(30, 1)
    assert np.abs(x.mean(axis=(1, 2))).max() < 1e-12
    free = null_space(np.ones((1, x[0].size)))
    expected = dense_log_joint(x, WEIGHTS, dense("cosine", spectra), free)
    assert_allclose(model.log_joint(x), expected, rtol=1e-10)
    assert model.n_dimensions_ == x[0].size - 1
    assert model.n_parameters() == 2 + 3 * (x[0].size - 1)
    assert_array_equal(model.spectra_[:, 0, 0], 0.0)
    assert_array_equal(model.filters_[:, 0, 0], 0.0)
    determinants = [np.linalg.slogdet(free.T @ c @ free)[1] for c in dense("cosine", spectra)]
    assert_allclose(model.log_determinants(), determinants, rtol=1e-9)
    assert_array_equal(model.learned()["spectra"][:, 0, 0], 1.0)


def test_a_cosine_mixture_does_not_wrap_around():
    """What is smooth inside, but not across the border, costs fewer nats than its circular shift."""
    spectrum = 1.0 / (1 + 4 * np.add.outer(np.arange(8) ** 2, np.arange(8) ** 2))
    model = planted("cosine", spectrum[None], [1.0])
    ramp = np.tile(np.linspace(-1, 1, 8), (8, 1))
    inside, across = model.score_samples(np.stack([ramp, np.roll(ramp, 4, axis=1)]))
    assert inside > across + 1


# EM


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_equals_the_dense_one(basis, shape, weighted):
    x, begin = images(basis, 60, shape), variances(shape, seed=8)
    weight = np.random.default_rng(5).random(60) * 3 if weighted else np.ones(60)
    model = ConvolutionalGMM(
        3,
        basis=basis,
        init={"weights": WEIGHTS, "spectra": begin},
        variance_floor=0.0,
        **oracles.WHOLE_RUN | {"max_iter": 1},
    )
    model.fit(x, sample_weight=weight if weighted else None)
    joint = dense_log_joint(x, WEIGHTS, dense(basis, begin))
    resp = weight[:, None] * oracles.posteriors(joint)
    powers = (x.reshape(60, -1) @ waves(basis, shape).T) ** 2
    spectra = (resp.T @ powers / resp.sum(axis=0)[:, None]).reshape(3, *shape)
    assert_allclose(model.weights_, resp.sum(axis=0) / weight.sum(), rtol=1e-9)
    assert_allclose(model.spectra_, spectra, rtol=1e-8)
    expected = np.average(np.logaddexp.reduce(joint, axis=1), weights=weight)
    assert_allclose(model.log_likelihoods_[0], expected, rtol=1e-10)
    assert_allclose(model.log_likelihoods_[1], np.average(model.score_samples(x), weights=weight), rtol=1e-11)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("settings", [{}, {"variance_floor": 1.0}, {"n_components": 9}, {"n_init": 3}])
def test_every_step_climbs(basis, settings):
    settings = {"n_components": 3, "random_state": 3, "variance_floor": 1e-6} | settings
    model = ConvolutionalGMM(basis=basis, **oracles.WHOLE_RUN | settings).fit(images(basis, 240))
    oracles.assert_never_falls(model.log_likelihoods_)
    assert model.log_likelihoods_[-1] > model.log_likelihoods_[0] + 0.1
    assert model.spectra_.min() >= settings["variance_floor"]


@pytest.mark.parametrize("shape", [(5, 4), (13, 14)])
@pytest.mark.parametrize("basis", BASES)
def test_chunks_change_no_digit(basis, shape):
    x = np.random.default_rng(0).standard_normal((2500, *shape)) * np.repeat([1.0, 2.0], 1250)[:, None, None]
    one, other = (
        ConvolutionalGMM(
            2, basis=basis, chunk_size=size, random_state=0, **oracles.WHOLE_RUN | {"max_iter": 3}
        ).fit(x)
        for size in (10_000, 100)
    )
    assert_array_equal(one.spectra_, other.spectra_)
    assert_array_equal(one.log_likelihoods_, other.log_likelihoods_)
    assert_array_equal(one.score_samples(x), other.score_samples(x))


@pytest.mark.parametrize("basis", BASES)
def test_statistics_of_parts_add_to_a_step_of_the_whole(basis):
    x = images(basis, 90)
    model = planted(basis, variances((5, 4), seed=8))
    whole = model.statistics(x)
    given = model.statistics_given(x, model.predict_proba(x))
    assert_allclose(given.power, whole.power, rtol=1e-9)
    assert_allclose(given.mass, whole.mass, rtol=1e-9)


@pytest.mark.parametrize("basis", BASES)
def test_batches_go_on_in_the_basis(basis):
    x = images(basis, 200)
    model = ConvolutionalGMM(2, basis=basis, random_state=0)
    for batch in np.split(x, 4):
        model.partial_fit(batch)
    assert model.spectra_.shape == (2, 5, 4)
    other = "pixel" if basis == "cosine" else "cosine"
    with pytest.raises(ValueError) as caught:
        model.set_params(basis=other).partial_fit(x)
    assert str(caught.value).startswith(f"basis must stay '{basis}', as in the fit")


@pytest.mark.parametrize("basis", BASES)
def test_a_checkpoint_goes_on_in_its_basis_alone(basis, tmp_path):
    x, path = images(basis, 90), tmp_path / "state"

    def stop(model, iteration):
        if iteration == 3:
            raise RuntimeError("killed")

    def model(**settings):
        return ConvolutionalGMM(
            2, **{"basis": basis, "random_state": 0, "max_iter": 9, "tol": 0.0} | settings
        )

    with pytest.raises(RuntimeError):
        model(checkpoint=path, callback=stop).fit(x)
    other = "pixel" if basis == "cosine" else "cosine"
    with pytest.raises(ModelFileError, match="basis: "):
        model(checkpoint=path, basis=other).fit(x)
    resumed, whole = model(checkpoint=path).fit(x), model().fit(x)
    assert_array_equal(resumed.spectra_, whole.spectra_)
    assert_array_equal(resumed.log_likelihoods_, whole.log_likelihoods_)


# Samples


@pytest.mark.parametrize("shape", [(4, 3), (1, 7)])
@pytest.mark.parametrize("basis", BASES)
def test_samples_have_the_covariance_of_their_component(basis, shape):
    n, spectra = 40_000, variances(shape)
    model, covariances = planted(basis, spectra), dense(basis, spectra)
    x = model.sample_components(np.repeat([0, 1, 2], n), 0).reshape(3, n, -1)

    def off(covariance, rows):
        """Largest deviation in standard errors; the control is another component's covariance."""
        variance = covariance**2 + np.outer(covariance.diagonal(), covariance.diagonal())
        return np.abs((rows.T @ rows / n - covariance) / np.sqrt(variance / n)).max()

    for k in range(3):
        assert off(covariances[k], x[k]) < 5
        assert off(covariances[k - 1], x[k]) > 5


# Files


@pytest.mark.parametrize("basis", ["fourier", *BASES])
def test_a_file_holds_the_basis(tmp_path, basis):
    x = images("pixel", 60)
    model = ConvolutionalGMM(2, basis=basis, max_iter=3, tol=0.0, random_state=0).fit(x)
    model.save(tmp_path / "model.npz")
    loaded = ConvolutionalGMM.load(tmp_path / "model.npz")
    assert loaded.basis == loaded.basis_ == basis
    assert_array_equal(loaded.score_samples(x), model.score_samples(x))


def saved_settings(model, path, change):
    """Save a model with settings changed in place by a function."""
    model.save(path)
    contents = dict(np.load(path))
    header = json.loads(str(contents["header"]))
    change(header["settings"])
    np.savez(path, **contents | {"header": np.array(json.dumps(header))})
    return path


def test_a_file_without_a_basis_is_one_of_version_0_4_0(tmp_path):
    x = images("pixel", 60)
    model = ConvolutionalGMM(2, max_iter=3, tol=0.0, random_state=0).fit(x)
    path = saved_settings(model, tmp_path / "old.npz", lambda settings: settings.pop("basis"))
    loaded = ConvolutionalGMM.load(path)
    assert loaded.basis == "fourier"
    assert_array_equal(loaded.score_samples(x), model.score_samples(x))


@pytest.mark.parametrize("stored", ["cosine", "wavelet", None, ["pixel"]])
def test_a_file_of_another_basis_than_its_arrays_is_refused(tmp_path, stored):
    model = ConvolutionalGMM(2, max_iter=3, tol=0.0, random_state=0).fit(images("pixel", 60))
    path = saved_settings(model, tmp_path / "m.npz", lambda settings: settings.update(basis=stored))
    with pytest.raises(ModelFileError):
        ConvolutionalGMM.load(path)


def test_a_model_is_saved_in_the_basis_of_its_fit(tmp_path):
    model = ConvolutionalGMM(1, basis="pixel", random_state=0).fit(images("pixel", 60))
    with pytest.raises(ValueError, match="basis must be what it was in fit, 'pixel'"):
        model.set_params(basis="cosine").save(tmp_path / "model.npz")


# Others' use of a basis


def test_there_are_no_windows_before_a_fit():
    with pytest.raises(NotFittedError):
        ConvolutionalGMM().windows  # noqa: B018  what is read raises


@pytest.mark.parametrize("basis", BASES)
def test_patches_are_cut_out_where_powers_do_not_slide(basis):
    x = np.random.default_rng(0).standard_normal((12, 6, 6)) * np.repeat([1.0, 5.0], 6)[:, None, None]
    mixture = ConvolutionalGMM(2, basis=basis, max_iter=3, tol=0.0, random_state=0)
    layer = PatchLayer(mixture, side=3, cells=(2, 2), pooling="sum").fit(x)
    assert not hasattr(layer.mixture_, "windows")
    with pytest.raises(AttributeError) as caught:
        layer.mixture_.windows  # noqa: B018  what is read raises
    assert str(caught.value) == (
        f'windows need basis="fourier", whose sums slide from window to window; got "{basis}". Score '
        "patches that are cut out, by log_joint."
    )


@pytest.mark.parametrize("basis", BASES)
def test_leaves_of_a_tree_fill_missing_pixels_by_their_dense_covariance(basis):
    x = images(basis, 60, (4, 4))
    leaf = ConvolutionalGMM(2, basis=basis, max_iter=3, tol=0.0, random_state=0)
    tree = TreeGMM(leaf, [(1, 2, 2)], allow_missing=True, max_iter=2, tol=0.0, random_state=0).fit(x)
    holed = x[:5].copy()
    holed[:, 1, 2] = np.nan
    filled = tree.impute(holed)
    assert np.isfinite(filled).all()
    assert_array_equal(filled[~np.isnan(holed)], holed[~np.isnan(holed)])
    if basis == "pixel":  # independent of what is observed
        assert_allclose(filled[:, 1, 2], 0.0, atol=1e-12)


@pytest.mark.parametrize("basis", BASES)
def test_information_is_that_of_power_spectra(basis):
    x = images(basis, 60)
    model = ConvolutionalGMM(2, basis=basis, max_iter=3, tol=0.0, random_state=0).fit(x)
    with pytest.raises(ValueError) as caught:
        inform(model, x)
    assert str(caught.value) == (
        f'mixture must have basis="fourier", power spectra; got "{basis}". Fit it again.'
    )


# Messages

FLAT = np.zeros((6, 4, 4))
MESSAGES = [
    ({"basis": "wavelet"}, FLAT, 'basis must be "fourier", "cosine" or "pixel"; got \'wavelet\'.'),
    (
        {"basis": "pixel", "zero_mean_patches": True},
        FLAT,
        'zero_mean_patches must be False with basis="pixel", where no coefficient is the mean, to be left '
        'out; got True. Take basis="cosine" or basis="fourier".',
    ),
    (
        {"basis": "cosine"},
        FLAT + 1,
        "X must vary by more than variance_floor=1e-06; got images whose variance is 0 at most at every "
        "coefficient but that of the mean. Are they constant, or in other units (variance_floor is in "
        "squared grey levels)?",
    ),
    (
        {"basis": "pixel"},
        FLAT,
        "X must vary by more than variance_floor=1e-06; got images whose variance is 0 at most at every "
        "pixel. Are they constant, or in other units (variance_floor is in squared grey levels)?",
    ),
    (
        {"basis": "pixel", "variance_floor": 0.0},
        np.pad(np.ones((6, 4, 3)), ((0, 0), (0, 0), (0, 1))),
        "X has zero variance at 4 of 16 pixels, so its likelihood has no bound. Set variance_floor above 0 "
        "(in squared grey levels).",
    ),
    (
        {"basis": "cosine", "init": {"weights": [0.5, 0.5], "spectra": np.ones((2, 4, 3))}},
        np.random.default_rng(0).standard_normal((6, 4, 4)),
        "init['spectra'] must have shape (2, 4, 4); got (2, 4, 3).",
    ),
    (
        {"basis": "cosine", "zero_mean_patches": True},
        np.zeros((3, 1, 1)),
        "X must hold images of at least 2 pixels with zero_mean_patches; got 1 x 1.",
    ),
]


@pytest.mark.parametrize(("settings", "x", "text"), MESSAGES)
def test_the_message_of_fit(settings, x, text):
    with pytest.raises(ValueError) as caught:
        ConvolutionalGMM(**({"n_components": 2, "random_state": 0} | settings)).fit(x)
    assert str(caught.value) == text


def test_a_collapsing_component_is_named_with_its_pixel():
    x = np.concatenate([np.random.default_rng(0).standard_normal((6, 4, 4)), FLAT])
    start = {"weights": [0.5, 0.5], "spectra": np.stack([np.ones((4, 4)), np.full((4, 4), 1e-9)])}
    with pytest.raises(ValueError, match="Component 1 has collapsed: its variance is zero at a pixel, so"):
        ConvolutionalGMM(2, basis="pixel", variance_floor=0.0, init=start).fit(x)
