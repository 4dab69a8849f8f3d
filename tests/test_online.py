"""Online EM against written-out sums, batch EM and its fixed points."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning

from gmmlib import ConvolutionalGMM, FullGMM, online
from tests import oracles

PARAMETERS = oracles.gaussians(3, 4, seed=1, apart=2.0)
RIDGE = 1e-3


def data(n=300, seed=0):
    return oracles.draw(n, *PARAMETERS, seed=seed)


def begin(seed=5):
    """A start some way from the truth."""
    weights, means, covariances = PARAMETERS
    shift = 0.5 * np.random.default_rng(seed).standard_normal(means.shape)
    return {"weights": np.full(3, 1 / 3), "means": means + shift, "covariances": 2.0 * covariances}


def fresh(**settings):
    settings = {"init": begin(), "reg_covar": RIDGE, "tol": 0.0} | settings
    return FullGMM(3, **settings)


def learned(model):
    return model.weights_, model.means_, model.covariances_


def assert_same(a, b, rtol=1e-9):
    for one, other in zip(a, b, strict=True):
        assert_allclose(one, other, rtol=rtol, atol=rtol * np.abs(other).max())


def written_out(batches, start, weights_of=None):
    """Run online EM on raw moments about 0, scipy's posteriors, the step sizes typed by hand."""
    parameters = start
    moments = None
    for step, x in enumerate(batches):
        eta = [1.0, 2**-0.6, 3**-0.6, 4**-0.6][step]
        row_weight = np.ones(len(x)) if weights_of is None else weights_of[step]
        resp = oracles.posteriors(oracles.gaussian_log_joint(x, *parameters)) * row_weight[:, None]
        batch = [
            resp.sum(axis=0) / row_weight.sum(),
            resp.T @ x / row_weight.sum(),
            np.einsum("nk,ni,nj->kij", resp, x, x) / row_weight.sum(),
        ]
        before = batch if moments is None else moments
        moments = [(1 - eta) * m + eta * b for m, b in zip(before, batch, strict=True)]
        mass, first, second = moments
        means = first / mass[:, None]
        covariances = second / mass[:, None, None] - np.einsum("ki,kj->kij", means, means)
        parameters = mass / mass.sum(), means, covariances + RIDGE * np.eye(x.shape[1])
    return parameters


@pytest.mark.parametrize("init", ["given", "kmeans", "random_from_data"])
@pytest.mark.parametrize("zero_means", [False, True])
def test_the_first_batch_is_one_step_of_em_from_the_start(init, zero_means):
    if init == "given":
        init = begin()
        if zero_means:
            init["means"] = np.zeros((3, 4))
            init["covariances"] *= np.array([0.5, 1.0, 2.0])[:, None, None]
    x = data()
    settings = {"init": init, "zero_means": zero_means, "random_state": 0}
    one = fresh(**settings).partial_fit(x)
    other = fresh(**settings, max_iter=1).fit(x)
    assert_same(learned(one), learned(other))
    assert one.n_iter_ == 1


def test_steps_follow_their_schedule():
    batches = [data(200, seed) for seed in range(4)]
    model = fresh()
    start = tuple(begin().values())
    for number, x in enumerate(batches, 1):
        assert model.partial_fit(x) is model
        assert model.n_iter_ == number
        assert_same(learned(model), written_out(batches[:number], start), rtol=1e-8)


def test_row_weights_count_in_every_batch():
    batches = [data(200, seed) for seed in range(3)]
    weights = [np.random.default_rng(seed).random(200) for seed in range(3)]
    model = fresh()
    for x, weight in zip(batches, weights, strict=True):
        model.partial_fit(x, sample_weight=weight)
    assert_same(learned(model), written_out(batches, tuple(begin().values()), weights), rtol=1e-8)


def test_an_integer_weight_repeats_a_row_and_zero_leaves_it_out():
    batches = [data(200, seed) for seed in range(3)]
    weight = np.random.default_rng(1).integers(0, 4, 200)
    one, other = fresh(), fresh()
    for x in batches:
        one.partial_fit(x, sample_weight=weight)
        other.partial_fit(np.repeat(x, weight, axis=0))
    assert_same(learned(one), learned(other))


def test_many_batches_come_near_the_batch_fit():
    x = data(4000)
    batch = fresh(max_iter=200).fit(x)
    model = fresh()
    rng = np.random.default_rng(0)
    first = None
    for _ in range(6):
        for rows in np.array_split(rng.permutation(len(x)), 20):
            model.partial_fit(x[rows])
            first = model.score(x) if first is None else first
    best = batch.score(x)
    assert model.score(x) > best - 0.01
    assert first < best - 0.02  # negative control: one batch is not enough
    assert np.abs(model.weights_ - batch.weights_).max() < 0.03


def test_a_fixed_point_of_em_stays_where_it_is():
    x = data(400)
    model = fresh(max_iter=2000, tol=1e-14).fit(x)
    before = learned(model)
    for _ in range(3):
        model.partial_fit(x)
    assert_same(learned(model), before, rtol=1e-4)


def test_after_a_fit_the_next_batch_is_the_second_step():
    x, y = data(300), data(100, 1)
    model = fresh(max_iter=5).fit(x)
    weights, means, covariances = learned(model)
    resp = oracles.posteriors(oracles.gaussian_log_joint(y, weights, means, covariances))
    eta = 2**-0.6
    mass = (1 - eta) * weights + eta * resp.mean(axis=0)
    first = (1 - eta) * weights[:, None] * means + eta * resp.T @ y / len(y)
    model.partial_fit(y)
    assert model.n_iter_ == 2
    assert_allclose(model.weights_, mass, rtol=1e-9)
    assert_allclose(model.means_, first / mass[:, None], rtol=1e-8)


def test_a_fit_forgets_the_batches():
    x = data()
    model = fresh(max_iter=3).partial_fit(data(100, 1)).fit(x)
    assert_same(learned(model), learned(fresh(max_iter=3).fit(x)), rtol=1e-14)
    one, other = model.partial_fit(x), fresh(max_iter=3).fit(x).partial_fit(x)
    assert_same(learned(one), learned(other), rtol=1e-14)


def test_data_far_from_zero_lose_no_digits():
    start = begin()
    far = start | {"means": start["means"] + 1e5}
    one, other = fresh(), fresh(init=far)
    for seed in range(4):
        one.partial_fit(data(100, seed))
        other.partial_fit(data(100, seed) + 1e5)
    assert_allclose(other.covariances_, one.covariances_, rtol=1e-6, atol=1e-7)


def test_components_held_at_the_origin_stay_there():
    model = fresh(init="kmeans", zero_means=True, random_state=0)
    for seed in range(4):
        model.partial_fit(data(100, seed))
        assert_allclose(model.means_, 0.0, atol=1e-14)
    assert np.linalg.eigvalsh(model.covariances_).min() > 0


def test_one_component_at_the_origin_averages_second_moments():
    x, y = data(100, 0), data(100, 1)
    model = FullGMM(1, zero_means=True, reg_covar=RIDGE).partial_fit(x).partial_fit(y)
    eta = 2**-0.6
    expected = (1 - eta) * x.T @ x / 100 + eta * y.T @ y / 100 + RIDGE * np.eye(4)
    assert_allclose(model.covariances_[0], expected, rtol=1e-10)
    assert_array_equal(model.weights_, [1.0])


def test_a_component_nobody_comes_to_stays_finite():
    start = begin()
    start["means"][2] = 1e4
    model = fresh(init=start)
    for seed in range(5):
        model.partial_fit(data(100, seed))
        assert np.isfinite(model.score(data()))
    assert all(np.isfinite(array).all() for array in learned(model))
    assert_allclose(model.weights_.sum(), 1.0, rtol=1e-12)


def test_small_batches_may_follow_the_first():
    model = fresh().partial_fit(data(100))
    for x in data(20, 1):
        model.partial_fit(x[None])
    assert model.n_iter_ == 21
    assert np.isfinite(model.score(data()))


def test_a_model_fitted_by_batches_is_saved_and_read_back(tmp_path):
    model = fresh().partial_fit(data())
    model.save(tmp_path / "model.npz")
    twin = FullGMM.load(tmp_path / "model.npz")
    assert_array_equal(twin.score_samples(data()), model.score_samples(data()))


@pytest.mark.parametrize("init", ["kmeans", "random_from_data"])
def test_rows_of_weight_zero_do_not_take_part_in_the_start(init):
    x = data(60)
    with_them = np.concatenate([x, np.full((40, 4), 1e3)])
    weight = np.repeat([1.0, 0.0], [60, 40])
    one = fresh(init=init, random_state=0).partial_fit(with_them, sample_weight=weight)
    assert_same(learned(one), learned(fresh(init=init, random_state=0).partial_fit(x)))


def test_without_a_ridge_a_singular_step_is_refused_and_leaves_the_model_as_it_was():
    start = {"weights": [0.5, 0.5], "means": np.zeros((2, 20)), "covariances": np.stack([np.eye(20)] * 2)}
    x = np.random.default_rng(0).standard_normal((200, 20))
    model = FullGMM(2, init=start, reg_covar=0.0)
    with pytest.raises(ValueError, match=r"is singular.* Set reg_covar above 0"):
        model.partial_fit(x[:5])
    model = FullGMM(1, reg_covar=0.0).fit(x)
    before = model.score(x)

    def repeat():
        for _ in range(1500):
            model.partial_fit(np.ones((2, 20)))

    with pytest.raises(ValueError, match=r"is singular.* Set reg_covar above 0"):
        repeat()
    assert np.isfinite([before, model.score(x)]).all()


def test_batches_may_follow_a_fit_that_was_broken_off():
    def fails(model, iteration):
        raise LookupError("enough")

    x = data()
    model = fresh(callback=fails)
    with pytest.raises(LookupError, match="enough"):
        model.fit(x)
    assert np.isfinite(model.partial_fit(x).score(x))


def test_too_small_a_first_batch_is_refused():
    with pytest.raises(ValueError) as caught:
        fresh().partial_fit(data(2))
    assert str(caught.value) == (
        "n_components=3 needs at least as many rows of positive weight in X; got 2. "
        "Pass more data or ask for fewer components."
    )


def test_a_batch_of_other_columns_is_refused():
    model = fresh().partial_fit(data())
    with pytest.raises(ValueError, match=r"^X has 3 features, but FullGMM is expecting 4 features as input"):
        model.partial_fit(data()[:, :3])


def test_moments_give_back_the_parameters_they_were_made_of():
    weights, means, covariances = PARAMETERS
    moments = online.start(weights, means, covariances + RIDGE * np.eye(4), RIDGE, steps=7)
    assert moments.steps == 7
    assert_same(
        online.parameters(moments, RIDGE, zero_means=False),
        (weights, means, covariances + RIDGE * np.eye(4)),
        rtol=1e-12,
    )


# Mixtures of stationary Gaussians

SPECTRA = np.stack([np.full((4, 5), 0.3), 1.0 + np.arange(20.0).reshape(4, 5) % 3, np.full((4, 5), 6.0)])
SPECTRA = 0.5 * (SPECTRA + SPECTRA.reshape(3, -1)[:, oracles.mirror((4, 5))].reshape(3, 4, 5))
SHARES = np.array([0.2, 0.5, 0.3])
IMAGE_START = {"weights": np.full(3, 1 / 3), "spectra": 1.5 * SPECTRA[..., :3] + 0.2}


def images(n=200, seed=0):
    """Images of three textures, from written-out covariances."""
    rng = np.random.default_rng(seed)
    roots = [
        oracles.covariance_root(oracles.dense_covariance(oracles.autocovariance(plane))) for plane in SPECTRA
    ]
    labels = rng.choice(3, n, p=SHARES)
    return np.stack([roots[k] @ rng.standard_normal(20) for k in labels]).reshape(n, 4, 5)


def stationary(**settings):
    return ConvolutionalGMM(3, **({"init": IMAGE_START, "variance_floor": 0.0} | settings))


def written_out_images(batches, weights_of=None):
    """Run online EM on dense posteriors and full planes, the step sizes typed by hand."""
    weights = IMAGE_START["weights"]
    full = np.stack([oracles.full_from_half(half, 5) for half in IMAGE_START["spectra"]])
    mass = power = None
    for step, x in enumerate(batches):
        eta = [1.0, 2**-0.6, 3**-0.6, 4**-0.6][step]
        row_weight = np.ones(len(x)) if weights_of is None else weights_of[step]
        resp = oracles.posteriors(oracles.log_joint(x, weights, full)) * row_weight[:, None]
        new_mass = resp.sum(axis=0) / row_weight.sum()
        new_power = np.einsum("nk,nhw->khw", resp, oracles.full_powers(x)) / row_weight.sum()
        mass = new_mass if mass is None else (1 - eta) * mass + eta * new_mass
        power = new_power if power is None else (1 - eta) * power + eta * new_power
        weights, full = mass / mass.sum(), power / mass[:, None, None]
    return weights, full[..., :3]


def learned_images(model):
    return model.weights_, model.spectra_


@pytest.mark.parametrize("init", ["given", "random_from_data"])
def test_the_first_batch_of_images_is_one_step_of_em_from_the_start(init):
    settings = {"init": IMAGE_START if init == "given" else init, "random_state": 0}
    x = images()
    one = stationary(**settings).partial_fit(x)
    other = stationary(**settings, max_iter=1).fit(x)
    assert_same(learned_images(one), learned_images(other), rtol=1e-12)
    assert_allclose(one.log_likelihoods_, other.log_likelihoods_[:1], rtol=1e-12)
    assert (one.n_iter_, one.converged_) == (1, False)


@pytest.mark.parametrize("weighted", [False, True])
def test_steps_on_images_follow_their_schedule(weighted):
    batches = [images(100 + 7 * seed, seed) for seed in range(4)]
    weights = [np.random.default_rng(seed).random(len(x)) for seed, x in enumerate(batches)]
    model = stationary()
    for number, (x, weight) in enumerate(zip(batches, weights, strict=True), 1):
        assert model.partial_fit(x, sample_weight=weight if weighted else None) is model
        assert model.n_iter_ == len(model.log_likelihoods_) == number
        expected = written_out_images(batches[:number], weights if weighted else None)
        assert_same(learned_images(model), expected, rtol=1e-9)


def test_an_integer_weight_repeats_an_image():
    weight = np.random.default_rng(1).integers(0, 4, 200)
    one, other = stationary(), stationary()
    for seed in range(3):
        one.partial_fit(images(seed=seed), sample_weight=weight)
        other.partial_fit(np.repeat(images(seed=seed), weight, axis=0))
    assert_same(learned_images(one), learned_images(other), rtol=1e-11)


def test_after_a_fit_the_next_batch_of_images_is_the_second_step():
    x, y = images(), images(80, 1)
    model = stationary(max_iter=5).fit(x)
    weights, spectra = learned_images(model)
    resp = oracles.posteriors(model.log_joint(y))
    eta = 2**-0.6
    mass = (1 - eta) * weights + eta * resp.mean(axis=0)
    power = np.einsum("nk,nhw->khw", resp, oracles.full_powers(y))[..., :3] / len(y)
    expected = ((1 - eta) * weights[:, None, None] * spectra + eta * power) / mass[:, None, None]
    model.partial_fit(y)
    assert_same(learned_images(model), (mass, expected), rtol=1e-10)
    assert model.n_iter_ == 2
    assert len(model.log_likelihoods_) == 1


def test_a_fit_to_images_forgets_the_batches():
    x = images()
    model = stationary(max_iter=3).partial_fit(images(50, 1)).fit(x)
    assert_same(learned_images(model), learned_images(stationary(max_iter=3).fit(x)), rtol=1e-14)
    one, other = model.partial_fit(x), stationary(max_iter=3).fit(x).partial_fit(x)
    assert_same(learned_images(one), learned_images(other), rtol=1e-14)


def test_many_batches_of_images_come_near_the_batch_fit():
    x = images(3000)
    best = stationary(max_iter=200).fit(x).score(x)
    model = stationary()
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(6):
        for rows in np.array_split(rng.permutation(len(x)), 20):
            scores.append(model.partial_fit(x[rows]).score(x))
    assert scores[-1] > best - 0.02
    assert scores[0] < best - 0.04  # negative control: one batch is not enough


def test_a_fixed_point_of_em_on_images_stays_where_it_is():
    x = images()
    model = stationary(max_iter=3000, tol=1e-13).fit(x)
    before = learned_images(model)
    for _ in range(3):
        model.partial_fit(x)
    assert_same(learned_images(model), before, rtol=1e-4)


def test_patches_without_mean_come_in_batches():
    batches = [images(100, seed) for seed in range(3)]
    model = stationary(zero_mean_patches=True, variance_floor=1e-6)
    for x in batches:
        model.partial_fit(x - x.mean(axis=(1, 2), keepdims=True))
    assert_array_equal(model.spectra_[:, 0, 0], 0.0)
    assert np.isfinite(model.log_likelihoods_).all()


def test_a_component_without_images_is_put_elsewhere():
    start = {"weights": np.array([0.5, 0.5, 0.0]), "spectra": IMAGE_START["spectra"]}
    model = stationary(init=start)
    with pytest.warns(ConvergenceWarning, match=r"Components \[2\] lost all their images"):
        model.partial_fit(images())
    assert model.weights_.min() > 0.05
    model.partial_fit(images(seed=1))
    assert model.weights_.min() > 0.01
    assert np.isfinite(model.score(images()))


def test_a_model_fitted_by_batches_of_images_is_saved_and_read_back(tmp_path):
    model = stationary().partial_fit(images()).partial_fit(images(seed=1))
    model.save(tmp_path / "model.npz")
    twin = ConvolutionalGMM.load(tmp_path / "model.npz")
    assert_array_equal(twin.score_samples(images()), model.score_samples(images()))
    assert (twin.n_iter_, len(twin.log_likelihoods_)) == (2, 2)
    twin.partial_fit(images())  # what was read counts as the first step
    assert twin.n_iter_ == 2


def test_small_batches_of_images_may_follow_the_first():
    model = stationary().partial_fit(images(100))
    for x in images(20, 1):
        model.partial_fit(x[None])
    assert model.n_iter_ == 21
    assert np.isfinite(model.score(images()))


def test_too_small_a_first_batch_of_images_and_another_size_are_refused():
    with pytest.raises(
        ValueError, match=r"^n_components=3 needs at least as many rows of positive weight in X; got 2"
    ):
        stationary().partial_fit(images(2))
    with pytest.raises(ValueError, match=r"^X must hold images of 4 x 5 pixels"):
        stationary().partial_fit(images()).partial_fit(np.zeros((10, 5, 5)))


def test_a_refused_batch_leaves_the_model_as_it_was():
    model = stationary(variance_floor=1e-3).partial_fit(images())
    before = [array.copy() for array in learned_images(model)]
    with pytest.raises(ValueError, match="must be finite"):
        model.partial_fit(np.full((3, 4, 5), np.nan))
    assert_same(learned_images(model), before, rtol=0)
    assert model.n_iter_ == 1


def test_components_held_at_the_origin_have_their_second_moment_about_it():
    """Moments are kept about a centre that is not 0: moving them there must not change the answer."""
    rng = np.random.default_rng(3)
    X, resp = rng.standard_normal((50, 3)) + 2.0, rng.dirichlet(np.ones(2), 50)
    centre = np.array([1.0, -2.0, 0.5])
    moved = X - centre
    moments = online.Moments(
        resp.sum(axis=0) / 50,
        resp.T @ moved / 50,
        np.einsum("nk,ni,nj->kij", resp, moved, moved) / 50,
        centre,
        1,
    )
    weights, means, covariances = online.parameters(moments, 0.0, zero_means=True)
    expected = np.einsum("nk,ni,nj->kij", resp, X, X) / resp.sum(axis=0)[:, None, None]
    np.testing.assert_allclose(covariances, expected, rtol=1e-12)
    np.testing.assert_allclose(means, 0.0, atol=1e-12)
    np.testing.assert_allclose(weights, resp.mean(axis=0))
