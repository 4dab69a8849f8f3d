"""Deterministic, stochastic and hard EM, against enumeration and dense steps."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chisquare

from gmmlib import ConvolutionalGMM, FullGMM
from gmmlib.em.algorithm import Algorithm
from tests import oracles

POSTERIORS = np.array([0.5, 0.0, 0.2, 0.3, 0.0])


def assigned(name, resp, random_state=0):
    """Posteriors after one E-step of a algorithm."""
    resp = np.array(resp, dtype=np.float64)
    algorithm = Algorithm(name, len(resp), random_state)
    algorithm.begin()
    algorithm(resp, slice(0, len(resp)))
    return resp


def images(n=120, shape=(3, 4), seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, *shape)) * np.where(np.arange(n) % 2, 0.3, 1.0)[:, None, None]


def models(algorithm, **settings):
    """One of each family, with the data it takes."""
    settings = {"max_iter": 5, "algorithm": algorithm, "random_state": 1} | settings
    yield ConvolutionalGMM(3, **oracles.WHOLE_RUN | settings), images()
    yield FullGMM(3, tol=0, reg_covar=1e-3, **settings), images().reshape(120, -1)


def test_deterministic_leaves_the_posteriors_alone():
    resp = np.random.default_rng(0).dirichlet(np.ones(4), size=30)
    assert_array_equal(assigned("em", resp), resp)


def test_hard_takes_the_most_probable_and_the_first_of_equals():
    resp = [[0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0.0, 0.0, 1.0]]
    assert_array_equal(assigned("cem", resp), [[0, 1, 0], [1, 0, 0], [0, 0, 1]])


def test_hard_takes_the_first_of_what_is_equal_but_for_rounding():
    resp = np.array([[0.4, 0.4 + 1e-15, 0.2 - 1e-15], [0.4, 0.4 - 1e-15, 0.2], [0.4, 0.4 + 1e-6, 0.2]])
    assert_array_equal(assigned("cem", resp), [[1, 0, 0], [1, 0, 0], [0, 1, 0]])


def test_draws_follow_the_posteriors():
    drawn = assigned("sem", np.tile(POSTERIORS, (40_000, 1)))
    assert_array_equal(np.unique(drawn), [0, 1])
    assert_array_equal(drawn.sum(axis=1), 1)
    counts = drawn.sum(axis=0)
    assert_array_equal(counts[POSTERIORS == 0], 0)
    possible = POSTERIORS > 0
    assert chisquare(counts[possible], 40_000 * POSTERIORS[possible]).pvalue > 1e-3
    wrong = np.array([0.48, 0.22, 0.30])
    assert chisquare(counts[possible], 40_000 * wrong).pvalue < 1e-3


@pytest.mark.parametrize("height", [0.0, 1 - 2**-53])
def test_the_ends_of_the_scale_draw_possible_components(height):
    resp = np.array([[0.0, 0.3, 0.7 - 1e-16, 0.0], [0.0, 1.0, 0.0, 0.0]])
    algorithm = Algorithm("sem", 2, 0)
    algorithm.height = np.full(2, height)
    algorithm(resp, slice(0, 2))
    assert resp[0].argmax() == (1 if height == 0 else 2)
    assert resp[1].argmax() == 1


def test_rows_draw_alike_in_chunks_of_any_size():
    resp = np.random.default_rng(0).dirichlet(np.ones(4), size=50)
    parts = resp.copy()
    algorithm = Algorithm("sem", 50, 7)
    algorithm.begin()
    for rows in (slice(30, 50), slice(0, 13), slice(13, 30)):
        algorithm(parts[rows], rows)
    assert_array_equal(parts, assigned("sem", resp, 7))


def test_each_iteration_draws_anew():
    algorithm = Algorithm("sem", 100, 0)
    algorithm.begin()
    first = algorithm.height
    algorithm.begin()
    assert not (algorithm.height == first).any()


@pytest.mark.parametrize("algorithm", ["sem", "cem"])
def test_fits_repeat_themselves_and_differ_from_em(algorithm):
    for (model, x), (again, _), (plain, _) in zip(
        models(algorithm), models(algorithm), models("em"), strict=True
    ):
        traces = [m.fit(x).log_likelihoods_ for m in (model, again, plain)]
        assert_array_equal(traces[0], traces[1])
        # The starts of the full mixture are posteriors of 0 and 1, so the first M-step is the same.
        assert not np.allclose(traces[0][2:], traces[2][2:], rtol=1e-12)


def test_another_seed_draws_otherwise_from_the_same_start():
    start = {"weights": np.full(3, 1 / 3), "means": np.zeros((3, 12)), "covariances": np.eye(12) * [[[1]]]}
    start["covariances"] = np.stack([np.eye(12) * scale for scale in (0.2, 0.6, 1.2)])
    x = images().reshape(120, -1)
    ends = [
        FullGMM(3, init=start, algorithm="sem", max_iter=3, random_state=seed).fit(x).means_
        for seed in (0, 1)
    ]
    assert not np.allclose(*ends)


def test_a_hard_step_is_the_moments_of_the_labels():
    weights, means, covariances = oracles.gaussians(3, 4, apart=0.7)
    x = oracles.draw(200, weights, means, covariances)
    start = {"weights": weights, "means": means, "covariances": covariances}
    model = FullGMM(3, init=start, algorithm="cem", max_iter=1, reg_covar=0.0).fit(x)
    labels = oracles.gaussian_log_joint(x, weights, means, covariances).argmax(axis=1)
    for k in range(3):
        rows = x[labels == k]
        assert_allclose(model.weights_[k], len(rows) / 200, rtol=1e-12)
        assert_allclose(model.means_[k], rows.mean(axis=0), rtol=1e-10)
        assert_allclose(model.covariances_[k], np.cov(rows.T, bias=True), rtol=1e-9, atol=1e-12)


def test_hard_em_climbs_the_likelihood_of_rows_and_labels():
    x = images(300)
    climbed = []

    def record(model, iteration):
        climbed.append(model.log_joint(x).max(axis=1).mean())

    ConvolutionalGMM(4, algorithm="cem", max_iter=15, random_state=0, callback=record, tol=0.0).fit(x)
    oracles.assert_never_falls(climbed)
    assert climbed[-1] > climbed[0] + 0.01


def test_weights_of_rows_count_after_the_draw():
    x, weight = images(), np.random.default_rng(0).random(120)
    model = ConvolutionalGMM(2, algorithm="cem", max_iter=1, random_state=0, tol=0.0)
    began = ConvolutionalGMM(2, random_state=0, callback=lambda model, iteration: True, max_iter=50, tol=0.0)
    began.fit(x, sample_weight=weight)
    model.fit(x, sample_weight=weight)
    labels = began.predict(x)
    assert_allclose(model.weights_, np.bincount(labels, weight, 2) / weight.sum(), rtol=1e-12)


@pytest.mark.parametrize("value", ["Stochastic", None, 1])
def test_a_algorithm_that_is_none_is_refused(value):
    for model, x in models(value):
        with pytest.raises(ValueError, match='algorithm must be "em", "sem", "cem" or "annealed"; got'):
            model.fit(x)


def test_files_keep_the_algorithm(tmp_path):
    for model, x in models("cem"):
        model.fit(x).save(tmp_path / "model.npz")
        assert type(model).load(tmp_path / "model.npz").algorithm == "cem"


# Deterministic annealing

SCHEDULE = {"name": "annealed", "start": 0.2, "rate": 1.5}


def annealed_joint(model, x, beta):
    """Posteriors of log joints times beta, from dense densities and at full length."""
    if isinstance(model, ConvolutionalGMM):
        full = np.stack([oracles.full_from_half(half, x.shape[2]) for half in model.spectra_])
        joint = oracles.log_joint(x, model.weights_, full)
    else:
        joint = oracles.gaussian_log_joint(x, model.weights_, model.means_, model.covariances_)
    return oracles.posteriors(beta * joint)


def annealed_runs(**settings):
    """One of each family from a given start, the scale such that many posteriors are below exp(-40)."""
    rng = np.random.default_rng(3)
    x = 6.0 * images()
    spectra = np.stack([oracles.full_powers(rng.standard_normal((1, 3, 4)))[0] + 0.5 for _ in range(3)])
    start = {"weights": np.array([0.2, 0.3, 0.5]), "spectra": spectra[..., :3]}
    yield ConvolutionalGMM(3, init=start, variance_floor=0.0, **oracles.WHOLE_RUN | settings), x
    covariances = np.stack([np.eye(12) * scale for scale in (0.5, 1.0, 2.0)])
    start = {"weights": start["weights"], "means": rng.standard_normal((3, 12)), "covariances": covariances}
    yield FullGMM(3, init=start, tol=0.0, reg_covar=1e-3, **settings), x.reshape(120, -1)


@pytest.mark.parametrize("beta", [0.02, 0.1])
def test_an_annealed_step_is_that_of_dense_posteriors_to_the_power(beta):
    setting = {"name": "annealed", "start": beta, "rate": 1.1}
    began = annealed_runs(callback=lambda model, iteration: True)
    for (model, x), (start, _) in zip(annealed_runs(algorithm=setting, max_iter=1), began, strict=True):
        start.fit(x)
        plain = start.predict_proba(x)
        resp = annealed_joint(start, x, beta)
        lost = resp[(plain < np.exp(-40))]
        assert lost.max() > 1e-3  # negative control: what EM drops comes back
        model.fit(x)
        assert_allclose(model.weights_, resp.mean(axis=0), rtol=1e-9)
        if isinstance(model, FullGMM):
            _, means, covariances = oracles.gaussian_m_step(x, resp, 1e-3)
            assert_allclose(model.means_, means, rtol=1e-8)
            assert_allclose(model.covariances_, covariances, rtol=1e-8, atol=1e-10)
        else:
            power = np.einsum("nk,nhw->khw", resp, oracles.full_powers(x)) / resp.sum(axis=0)[:, None, None]
            assert_allclose(model.spectra_, power[..., :3], rtol=1e-9)
        # The trace is of the likelihood itself, at beta = 1.
        assert_allclose(model.log_likelihoods_, [start.score(x), model.score(x)], rtol=1e-10)


def test_annealing_in_many_dimensions_drops_no_component():
    rng = np.random.default_rng(0)
    x = 3.0 * rng.standard_normal((150, 90))  # more than one block of coordinates
    start = {
        "weights": np.full(3, 1 / 3),
        "means": rng.standard_normal((3, 90)),
        "covariances": np.stack([np.eye(90)] * 3),
    }
    setting = {"name": "annealed", "start": 0.01, "rate": 1.1}
    model = FullGMM(3, init=start, algorithm=setting, max_iter=1, reg_covar=1e-2).fit(x)
    joint = oracles.gaussian_log_joint(x, *start.values())
    assert (np.ptp(joint, axis=1) > 40).any()
    resp = oracles.posteriors(0.01 * joint)
    assert_allclose(model.weights_, resp.mean(axis=0), rtol=1e-9)


def test_beta_rises_to_one_and_stays():
    algorithm = Algorithm(SCHEDULE, 4, None)
    betas, settled = [], []
    for _ in range(7):
        algorithm.begin()
        betas.append(algorithm.beta)
        settled.append(algorithm.settled)
    assert_allclose(betas, [0.2, 0.3, 0.45, 0.675, 1, 1, 1], rtol=1e-12)
    assert settled == [False] * 4 + [True] * 3
    plain = Algorithm("annealed", 4, None)
    plain.begin()
    assert plain.beta == 0.1
    plain.begin()
    assert_allclose(plain.beta, 0.12)


def test_once_beta_is_one_every_step_climbs():
    for model, x in annealed_runs(algorithm=SCHEDULE, max_iter=30):
        model.fit(x)
        # The ridge of FullGMM is not part of the likelihood, which it may lower in the eighth digit.
        assert np.diff(model.log_likelihoods_[4:]).min() > -1e-7
        assert model.log_likelihoods_[-1] > model.log_likelihoods_[4]


def test_a_start_at_one_is_em():
    setting = {"name": "annealed", "start": 1.0, "rate": 2.0}
    for (model, x), (plain, _) in zip(
        annealed_runs(algorithm=setting, max_iter=4), annealed_runs(max_iter=4), strict=True
    ):
        assert_array_equal(model.fit(x).log_likelihoods_, plain.fit(x).log_likelihoods_)


def test_at_a_fixed_beta_the_free_energy_climbs():
    """(1/beta) log sum_k exp(beta l_k) is what steps at one beta ascend (Ueda and Nakano 1998)."""
    beta = 0.3
    setting = {"name": "annealed", "start": beta, "rate": 1 + 1e-12}
    for model, x in annealed_runs(algorithm=setting, max_iter=12):
        energies = []
        model.callback = lambda m, i, x=x, energies=energies: energies.append(
            np.log(np.exp(beta * (m.log_joint(x) + 50)).sum(axis=1)).mean() / beta
        )
        # The weights' M-step is that of the expected log joint, so the energy includes them.
        model.set_params(**({"reg_covar": 1e-12} if isinstance(model, FullGMM) else {})).fit(x)
        oracles.assert_never_falls(energies)
        assert energies[-1] > energies[0]


def test_tolerance_waits_for_the_schedule():
    for model, x in annealed_runs(algorithm=SCHEDULE, max_iter=50):
        model.set_params(tol=1e9).fit(x)
        assert model.n_iter_ == 4  # E-steps 0 to 3 have beta below 1
        assert model.converged_


def test_annealing_forgets_a_bad_start():
    x = images(400)
    start = {
        "weights": np.array([0.5, 0.5]),
        "spectra": np.stack([np.full((3, 3), 1e-4), np.full((3, 3), 9.0)]),
    }
    best = ConvolutionalGMM(2, random_state=0, max_iter=100, tol=0.0).fit(x).score(x)
    annealed = ConvolutionalGMM(2, init=start, algorithm=SCHEDULE, max_iter=100, tol=0.0).fit(x)
    assert annealed.score(x) > best - 0.01


def test_files_keep_the_schedule(tmp_path):
    for model, x in models(SCHEDULE):
        model.fit(x).save(tmp_path / "model.npz")
        assert type(model).load(tmp_path / "model.npz").algorithm == SCHEDULE


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (
            {"name": "cem", "start": 0.1, "rate": 2.0},
            'algorithm must be a name, or a mapping {"name": "annealed", "start": ..., "rate": ...}; '
            "got {'name': 'cem', 'start': 0.1, 'rate': 2.0}.",
        ),
        (
            {"name": "annealed"},
            'algorithm must be a name, or a mapping {"name": "annealed", "start": ..., "rate": ...}; '
            "got {'name': 'annealed'}.",
        ),
        (
            {"name": "annealed", "start": 0.0, "rate": 2.0},
            "algorithm must start above 0 and at most at 1, and rise at a rate above 1; "
            "got a start of 0 and a rate of 2.",
        ),
        (
            {"name": "annealed", "start": 0.5, "rate": 1.0},
            "algorithm must start above 0 and at most at 1, and rise at a rate above 1; "
            "got a start of 0.5 and a rate of 1.",
        ),
        (
            {"name": "annealed", "start": "low", "rate": 2.0},
            "algorithm['start'] must be a finite number >= 0; got 'low'.",
        ),
    ],
)
def test_a_schedule_that_is_none_is_refused(setting, text):
    for model, x in models(setting):
        with pytest.raises(ValueError) as caught:
            model.fit(x)
        assert str(caught.value) == text
