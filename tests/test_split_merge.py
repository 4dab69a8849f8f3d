"""Split-and-merge moves against dense Gaussians, planted mistakes and the objective itself."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError

from gmmlib import ConvolutionalGMM, FullGMM, PenalisedGMM, TransformedGMM, split_merge
from tests import oracles

SHAPE = (5, 4)


def spectra(n_components=4, shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    rough = oracles.full_powers(rng.standard_normal((n_components, *shape)))
    return (rough + 0.05)[..., : shape[1] // 2 + 1]


def textures(n=400, seed=1, shape=SHAPE):
    """Images of four textures, and a start that has two of them in one and one of them twice."""
    s = spectra(shape=shape)
    weights = np.array([0.3, 0.3, 0.2, 0.2])
    stop = {"callback": lambda model, iteration: True, "init": {"weights": weights, "spectra": s}}
    truth = ConvolutionalGMM(4, **oracles.WHOLE_RUN | stop).fit(
        np.random.default_rng(0).standard_normal((4, *shape))
    )
    x, labels = truth.sample(n, seed)
    wrong = {
        "weights": np.array([0.15, 0.15, 0.5, 0.2]),
        "spectra": np.stack([1.1 * s[0], 0.9 * s[0], (0.3 * s[1] + 0.2 * s[2]) / 0.5, s[3]]),
    }
    return x, labels, wrong


def blobs(n=400, seed=0):
    """Points of four Gaussians, and a start that has two of them in one and one of them twice."""
    means = np.array([[0.0, 0, 0], [8.0, 0, 0], [8.0, 8, 0], [-8.0, 0, 3]])
    covariances = np.stack([np.diag([1.0, 0.5, 0.2])] * 4)
    x = oracles.draw(n, np.full(4, 0.25), means, covariances, seed)
    wrong = {
        "weights": np.array([0.12, 0.13, 0.5, 0.25]),
        "means": np.array([[0.0, 0.3, 0], [0.0, -0.3, 0], [8.0, 4, 0], [-8.0, 0, 3]]),
        "covariances": covariances * np.array([1, 1, 20, 1])[:, None, None],
    }
    return x, wrong


def stuck(family="textures"):
    """A model at a poor optimum, and its data."""
    if family == "textures":
        x, _, wrong = textures()
        return ConvolutionalGMM(4, init=wrong, max_iter=15, tol=0.0).fit(x), x
    x, wrong = blobs()
    return FullGMM(4, init=wrong, max_iter=15, tol=0.0).fit(x), x


def dense(model):
    """Means and covariances (K, D, D) of a model's components."""
    if hasattr(model, "covariances_"):
        return model.means_, model.covariances_
    full = [oracles.full_from_half(half, model.image_shape_[1]) for half in model.spectra_]
    matrices = np.stack([oracles.dense_covariance(oracles.autocovariance(plane)) for plane in full])
    return np.zeros(matrices.shape[:2]), matrices


@pytest.mark.parametrize("family", ["textures", "blobs"])
def test_moves_leave_a_poor_optimum(family):
    model, x = stuck(family)
    better, trace = split_merge.improve(model, x, n_moves=5, random_state=0)
    assert trace.accepted.any()
    assert trace.log_likelihoods[-1] > trace.log_likelihoods[0] + 0.1
    assert_allclose(better.score(x), trace.log_likelihoods[-1], rtol=1e-9)
    assert_allclose(model.score(x), trace.log_likelihoods[0], rtol=1e-9)  # the old one is left alone
    further = model.__class__(**(model.get_params() | {"max_iter": 200})).fit(x)
    assert trace.log_likelihoods[-1] > further.log_likelihoods_[-1] + 0.1  # EM alone stays


@pytest.mark.parametrize("family", ["textures", "blobs"])
@pytest.mark.parametrize("seed", range(4))
def test_the_objective_never_falls(family, seed):
    model, x = stuck(family)
    _, trace = split_merge.improve(model, x, n_moves=8, n_steps=2, random_state=seed)
    oracles.assert_never_falls(trace.log_likelihoods, slack=0.0)
    assert_array_equal(np.diff(trace.log_likelihoods) > 0, trace.accepted)
    assert (np.diff(trace.passes) >= 3).all()
    assert len(trace.log_likelihoods) == len(trace.passes) == len(trace.accepted) + 1


def test_a_move_that_does_not_pay_is_not_kept(monkeypatch):
    model, x = stuck()

    def useless(model, X, weight, rng):
        halves = [{name: values[[0, 0]] for name, values in split_merge.parameters(model).items()}] * 4
        for half in halves:
            half["weights"] = np.array([0.5, 0.5])
        return [(0, 3, 2), (1, 3, 2)], halves, 0.0

    monkeypatch.setattr(split_merge, "promising", useless)
    same, trace = split_merge.improve(model, x, n_moves=2, n_steps=1)
    assert same is model
    assert not trace.accepted.any()
    assert_array_equal(trace.passes, [0, 2, 4])


def test_where_the_components_are_right_nothing_promises_much():
    x, labels, _ = textures(2000)
    weights = np.bincount(labels) / len(labels)
    model = ConvolutionalGMM(4, init={"weights": weights, "spectra": spectra()}, max_iter=30, tol=0.0).fit(x)
    after, trace = split_merge.improve(model, x, n_moves=5, random_state=0)
    assert trace.log_likelihoods[-1] - trace.log_likelihoods[0] < 0.02


@pytest.mark.parametrize("family", ["textures", "blobs"])
def test_a_merger_has_the_moments_of_both(family):
    model, _ = stuck(family)
    means, covariances = dense(model)
    one = split_merge.merged(split_merge.parameters(model), 1, 2, 0.3)
    mean = 0.3 * means[1] + 0.7 * means[2]
    second = sum(share * (covariances[k] + np.outer(means[k], means[k])) for share, k in ((0.3, 1), (0.7, 2)))
    if family == "blobs":
        assert_allclose(one["means"][0], mean, rtol=1e-12)
        assert_allclose(one["covariances"][0], second - np.outer(mean, mean), rtol=1e-10)
    else:
        plane = oracles.full_from_half(one["spectra"][0], SHAPE[1])
        assert_allclose(
            oracles.dense_covariance(oracles.autocovariance(plane)), second, rtol=1e-9, atol=1e-12
        )
    assert_allclose(one["weights"][0], model.weights_[1] + model.weights_[2])


@pytest.mark.parametrize("family", ["textures", "blobs"])
def test_the_loss_of_a_merger_is_that_of_the_labelled_samples(family):
    """With the labels known, the loss is a difference of maximised likelihoods, here by dense matrices."""
    model, x = stuck(family)
    labels = model.predict(x)
    settings = {"max_iter": 1, "algorithm": "cem", "callback": None}
    settings |= {"reg_covar": 0.0} if family == "blobs" else {"variance_floor": 0.0}
    hard = model.__class__(**(model.get_params() | settings))
    hard.set_params(init=split_merge.parameters(model)).fit(x)
    mass = np.bincount(labels, minlength=4).astype(float)
    losses = split_merge.merger_losses(hard, mass)

    def best(rows, weight):
        """Log-likelihood of rows under their own Gaussian, with its weight."""
        flat = x[rows].reshape(len(rows), -1)
        if family == "blobs":
            covariance = np.cov(flat.T, bias=True)
        else:
            power = oracles.full_powers(x[rows]).mean(axis=0).ravel()
            power = 0.5 * (power + power[oracles.mirror(SHAPE)])
            covariance = oracles.dense_covariance(oracles.autocovariance(power.reshape(SHAPE)))
        size = flat.shape[1]
        return len(rows) * (
            np.log(weight) - 0.5 * (np.linalg.slogdet(covariance)[1] + size * (1 + np.log(2 * np.pi)))
        )

    of = [np.flatnonzero(labels == k) for k in range(4)]
    for i, j in [(0, 1), (1, 3), (2, 3)]:
        both = np.concatenate([of[i], of[j]])
        apart = sum(best(of[k], len(of[k]) / len(x)) for k in (i, j))
        assert_allclose(losses[i, j], apart - best(both, len(both) / len(x)), rtol=1e-8)
    assert_array_equal(losses, losses.T)
    assert np.isinf(np.diag(losses)).all()


@pytest.mark.parametrize("family", ["textures", "blobs"])
def test_the_gain_of_a_split_is_that_of_its_two_halves(family):
    model, x = stuck(family)
    k = 2
    joint = model.log_joint(x)
    share = oracles.posteriors(joint)[:, k]
    halves, gain, rows = split_merge.split(
        model, x, share, joint[:, k] - np.log(model.weights_[k]), np.random.default_rng(0)
    )
    assert rows == (share > split_merge.SEEN).sum()
    two = model.__class__(2, init=halves, callback=lambda m, i: True)
    two.fit(x)
    seen = share > split_merge.SEEN
    expected = share[seen] @ (two.score_samples(x) - joint[:, k] + np.log(model.weights_[k]))[seen]
    assert_allclose(gain, expected, rtol=1e-6)
    assert gain > 1.0


def test_a_move_keeps_the_mass_and_changes_three_components():
    model, x = stuck()
    learned = split_merge.parameters(model)
    halves = {"weights": np.array([0.25, 0.75]), "spectra": spectra(2, seed=5)}
    after = split_merge.moved(learned, 0, 1, 2, halves)
    assert_allclose(after["weights"].sum(), 1.0, rtol=1e-12)
    assert_allclose(after["weights"][0], learned["weights"][0] + learned["weights"][1])
    assert_allclose(after["weights"][[1, 2]], learned["weights"][2] * halves["weights"])
    assert_array_equal(after["spectra"][[1, 2]], halves["spectra"])
    assert_array_equal(after["spectra"][3], learned["spectra"][3])
    assert_array_equal(split_merge.parameters(model)["spectra"], learned["spectra"])


def test_patches_without_mean_are_moved_too():
    x, _, wrong = textures()
    x = x - x.mean(axis=(1, 2), keepdims=True)
    model = ConvolutionalGMM(4, init=wrong, max_iter=10, zero_mean_patches=True, tol=0.0).fit(x)
    better, trace = split_merge.improve(model, x, n_moves=4, random_state=0)
    assert trace.accepted.any()
    assert_array_equal(better.spectra_[:, 0, 0], 0.0)
    oracles.assert_never_falls(trace.log_likelihoods, slack=0.0)


def test_row_weights_count():
    model, x = stuck()
    weight = np.random.default_rng(0).integers(0, 3, len(x))
    one, trace = split_merge.improve(model, x, weight, n_moves=2, random_state=0)
    assert_allclose(trace.log_likelihoods[0], np.average(model.score_samples(x), weights=weight), rtol=1e-10)
    assert_allclose(trace.log_likelihoods[-1], np.average(one.score_samples(x), weights=weight), rtol=1e-9)


def test_seeds_repeat():
    model, x = stuck()
    a, b = (split_merge.improve(model, x, n_moves=3, random_state=1)[1] for _ in range(2))
    assert_array_equal(a.log_likelihoods, b.log_likelihoods)


def test_two_components_have_no_third_to_split():
    x, _, _ = textures()
    model = ConvolutionalGMM(2, random_state=0, max_iter=5, tol=0.0).fit(x)
    same, trace = split_merge.improve(model, x)
    assert same is model
    assert len(trace.accepted) == 0


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"n_moves": 0}, "n_moves must be a positive integer; got 0."),
        ({"n_steps": 1.5}, "n_steps must be a positive integer; got 1.5."),
    ],
)
def test_bad_arguments_are_refused(settings, text):
    model, x = stuck()
    with pytest.raises(ValueError) as caught:
        split_merge.improve(model, x, **settings)
    assert str(caught.value) == text


def test_models_that_cannot_be_moved_are_refused():
    x, _ = blobs()
    with pytest.raises(NotFittedError):
        split_merge.improve(ConvolutionalGMM(3, max_iter=50, tol=0.0), x)
    with pytest.raises(
        ValueError, match=r"^model must be a ConvolutionalGMM, or a FullGMM with free means; got "
    ):
        split_merge.improve(FullGMM(2, zero_means=True, random_state=0).fit(x), x)
    images = textures()[0][:30]
    for other in (PenalisedGMM(2, max_iter=1, tol=0.0), TransformedGMM(2, max_iter=1, tol=0.0)):
        with pytest.raises(ValueError, match="Other mixtures have no moments to merge"):
            split_merge.improve(other.fit(images), images)
    with pytest.raises(ValueError, match=r"min_weight=0\.1\. Set it to None\.$"):
        split_merge.improve(FullGMM(2, min_weight=0.1, random_state=0).fit(x), x)


def test_the_callback_sees_what_the_trace_holds_and_may_stop():
    model, x = stuck()
    seen = []

    def look(current, passes):
        seen.append((current.score(x), passes))
        return True

    assert len(split_merge.improve(model, x, n_moves=9, random_state=0)[1].accepted) > 0
    _, trace = split_merge.improve(model, x, n_moves=9, random_state=0, callback=look)
    assert len(trace.accepted) == 0
    assert_allclose(seen, np.stack([trace.log_likelihoods, trace.passes], axis=1), rtol=1e-9)


@pytest.mark.parametrize("family", ["textures", "blobs"])
def test_a_gain_of_rounding_is_no_gain(family, monkeypatch):
    """A move that leads back to the optimum it came from ends a few bits above or below it."""
    model, x = stuck(family)
    model.set_params(max_iter=200, init=split_merge.parameters(model)).fit(x)
    monkeypatch.setattr(split_merge, "promising", lambda *_: ([(0, 1, 2)] * 9, [None] * 4, 0.0))
    nudges = iter(np.random.default_rng(0).normal(0.0, 1e-12, size=9))

    def back(learned, *_):
        spread = "spectra" if "spectra" in learned else "covariances"
        return learned | {spread: learned[spread] * (1 + next(nudges))}

    monkeypatch.setattr(split_merge, "moved", back)
    found, trace = split_merge.improve(model, x, n_moves=9, n_steps=1, random_state=0)
    assert len(trace.accepted) == 9
    assert not trace.accepted.any()
    assert found is model
