"""Mixtures of mixtures against enumeration of both layers, dense Gaussians and the flat mixture."""

from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

from gmmlib import ConvolutionalGMM, storage
from gmmlib.stationary import grouped
from gmmlib.stationary.hierarchical import HierarchicalGMM
from tests import oracles

SHAPES = [(4, 6), (5, 4), (3, 5), (1, 7)]
TOP = np.array([0.3, 0.7])
CONDITIONALS = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
BY_POSITION = np.stack([CONDITIONALS, CONDITIONALS[::-1, ::-1] ** 2 / 0.5, np.full((2, 3), 1 / 3)])
BY_POSITION /= BY_POSITION.sum(axis=2, keepdims=True)


def full_spectra(shape, n_components=3, seed=0):
    """Rough spectra over the full plane, symmetric in f and -f, of unequal variance."""
    rough = oracles.full_powers(np.random.default_rng(seed).standard_normal((n_components, *shape)))
    return (rough + 0.1) * 3.0 ** np.arange(n_components)[:, None, None]


def half(full):
    return full[..., : full.shape[-1] // 2 + 1]


def begin(full, top=TOP, conditionals=CONDITIONALS):
    return {"top_weights": top, "conditionals": conditionals, "spectra": half(full)}


def planted(full, top=TOP, conditionals=CONDITIONALS, **settings):
    """A model that holds exactly these parameters: stopped before its first iteration."""
    x = np.random.default_rng(99).standard_normal((len(full) + len(top), 1, *full.shape[1:]))
    if settings.get("zero_mean_patches"):
        x -= x.mean(axis=(2, 3), keepdims=True)
    stop = {"callback": lambda model, iteration: True, "init": begin(full, top, conditionals)}
    if conditionals.ndim == 3:
        stop["by_position"] = True
        x = np.repeat(x, len(conditionals), axis=1)
    return HierarchicalGMM(len(full), len(top), **stop, **settings).fit(x)


def groups(n=60, n_views=3, shape=(3, 4), seed=0, conditionals=CONDITIONALS):
    return planted(full_spectra(shape), conditionals=conditionals).sample(n, seed, n_views)[0]


def tables(conditionals, n_views):
    """A table per position (G, T, K): one and the same, where there is one for all."""
    return np.broadcast_to(conditionals, (n_views, *conditionals.shape[-2:]))


def enumerated(x, top, conditionals, full):
    """For one group (G, H, W): each (t, k_1 ... k_G) with its log joint, and that of all of them."""
    density = oracles.log_joint(x, np.ones(len(full)), full)
    labels = list(product(range(len(top)), *[range(len(full))] * len(x)))
    table = tables(conditionals, len(x))
    joint = [
        np.log(top[t]) + sum(np.log(table[g, t, k]) + density[g, k] for g, k in enumerate(ks))
        for t, *ks in labels
    ]
    return labels, np.array(joint), logsumexp(joint)


def enumerated_posteriors(x, top, conditionals, full):
    """Posterior (T,) of one group, and (G, T, K) of both components of its images."""
    labels, joint, evidence = enumerated(x, top, conditionals, full)
    of_group, of_images = np.zeros(len(top)), np.zeros((len(x), len(top), len(full)))
    for (t, *ks), p in zip(labels, np.exp(joint - evidence), strict=True):
        of_group[t] += p
        for g, k in enumerate(ks):
            of_images[g, t, k] += p
    return of_group, of_images


def enumerated_step(x, weight, top, conditionals, full):
    """One EM step by enumeration: new weights (T,), conditionals like the old and full-plane spectra."""
    shape = x.shape[2:]
    new_top, pairs, power = np.zeros(len(top)), np.zeros_like(conditionals), np.zeros_like(full)
    for group, w in zip(x, weight, strict=True):
        r, q = enumerated_posteriors(group, top, conditionals, full)
        new_top += w * r
        pairs += w * (q if conditionals.ndim == 3 else q.sum(axis=0))
        power += w * np.einsum("gtk,ghw->khw", q, oracles.full_powers(group))
    mass = pairs.sum(axis=tuple(range(pairs.ndim - 1)))
    flat = (power / mass[:, None, None]).reshape(len(full), -1)
    spectra = (0.5 * (flat + flat[:, oracles.mirror(shape)])).reshape(full.shape)
    return new_top / weight.sum(), pairs / pairs.sum(axis=-1, keepdims=True), spectra


# The density and the posteriors


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_views", [1, 2, 4])
def test_a_group_is_as_likely_as_all_its_labels_together(shape, n_views):
    full = full_spectra(shape)
    model = planted(full)
    x, _, _ = model.sample(12, 1, n_views)
    expected = [enumerated(group, TOP, CONDITIONALS, full)[2] for group in x]
    assert_allclose(model.score_samples(x), expected, rtol=1e-10)
    assert_allclose(model.score(x), np.mean(expected), rtol=1e-10)
    assert_allclose(logsumexp(model.log_joint(x), axis=1), expected, rtol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_group_by_position_is_as_likely_as_all_its_labels_together(shape):
    full = full_spectra(shape)
    model = planted(full, conditionals=BY_POSITION)
    x = model.sample(12, 1)[0]
    expected = [enumerated(group, TOP, BY_POSITION, full)[2] for group in x]
    assert_allclose(model.score_samples(x), expected, rtol=1e-10)
    assert_allclose(model.weights_, sum(TOP @ table for table in BY_POSITION) / 3, rtol=1e-12)
    other_order = model.score_samples(x[:, ::-1])  # negative control: a group is no bag
    assert np.abs(other_order - expected).max() > 0.1


@pytest.mark.parametrize("conditionals", [CONDITIONALS, BY_POSITION], ids=["shared", "by position"])
@pytest.mark.parametrize("shape", SHAPES)
def test_posteriors_are_those_of_enumeration(shape, conditionals):
    full = full_spectra(shape) ** 0.2  # alike enough for doubt
    model = planted(full, conditionals=conditionals)
    x, _, _ = model.sample(15, 1, 3)
    both = [enumerated_posteriors(group, TOP, conditionals, full) for group in x]
    top = np.array([r for r, _ in both])
    lower = np.array([q.sum(axis=1) for _, q in both])
    assert_allclose(model.predict_proba(x), top, rtol=1e-9)
    assert_allclose(model.predict_views_proba(x), lower, rtol=1e-9)
    assert_array_equal(model.predict(x), top.argmax(axis=1))
    assert_array_equal(model.predict_views(x), lower.argmax(axis=2))
    assert 0.1 < top.min(axis=1).max()  # negative control: there was doubt


def test_mean_free_patches_are_scored_on_their_subspace():
    full = full_spectra((3, 5))
    model = planted(full, zero_mean_patches=True)
    x, _, _ = model.sample(10, 3, 2)
    lower = oracles.log_joint(x.reshape(-1, 3, 5), np.ones(3), full, mean_free=True).reshape(10, 2, 1, 3)
    of_images = logsumexp(lower + np.log(CONDITIONALS), axis=3)
    expected = logsumexp(np.log(TOP) + of_images.sum(axis=1), axis=1)
    assert_allclose(model.score_samples(x), expected, rtol=1e-10)


def test_components_that_exclude_each_other_lose_no_digits():
    density = np.array([[[0.0, -2000.0, -900.0]] * 2, [[-3000.0, 0.0, -900.0], [0.0, -3000.0, -900.0]]])
    parameters = grouped.Parameters(
        np.array([0.4, 0.6]), np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]), np.ones((3, 1))
    )
    weight = np.array([1.0, 2.0])
    found = grouped.posteriors(parameters, density, weight)
    # Group 0: t = 0 for sure.  Group 1: t = 1 takes k = 1, then k = 2; t = 0 pays 3000 nats for k = 0.
    expected = [np.log(0.4), np.log(0.6) + 2 * np.log(0.5) - 900]
    assert_allclose(found.evidence, expected, rtol=1e-12)
    assert_allclose(found.top, [[1.0, 0.0], [0.0, 1.0]])
    assert_allclose(found.lower, [[[1, 0, 0], [1, 0, 0]], [[0, 1, 0], [0, 0, 1]]], atol=1e-300)
    assert_allclose(found.pairs, [[2.0, 0, 0], [0, 2.0, 2.0]], atol=1e-300)


@pytest.mark.parametrize("size", [5, (3, 5)], ids=["shared", "by position"])
def test_the_long_way_and_the_short_way_agree(monkeypatch, size):
    rng = np.random.default_rng(0)
    density = rng.normal(0, 4, (30, 3, 4))
    parameters = grouped.Parameters(rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(4), size), None)
    weight = rng.random(30)
    short = grouped.posteriors(parameters, density, weight)
    monkeypatch.setattr(grouped, "UNDERFLOW", -1e9)
    for a, b in zip(short, grouped.posteriors(parameters, density, weight), strict=True):
        assert_allclose(a, b, rtol=1e-10)


# One step


@pytest.mark.parametrize("conditionals", [CONDITIONALS, BY_POSITION], ids=["shared", "by position"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_is_that_of_enumeration(shape, weighted, conditionals):
    x = groups(25, 3, shape, conditionals=conditionals)
    weight = np.random.default_rng(5).random(25) * 3 if weighted else np.ones(25)
    full = full_spectra(shape, seed=8)
    start = begin(full, conditionals=conditionals)
    model = HierarchicalGMM(
        3, 2, by_position=conditionals.ndim == 3, init=start, max_iter=1, variance_floor=0.0, tol=0.0
    )
    model.fit(x, sample_weight=weight if weighted else None)
    top, learned, spectra = enumerated_step(x, weight, TOP, conditionals, full)
    assert_allclose(model.top_weights_, top, rtol=1e-9)
    assert_allclose(model.conditionals_, learned, rtol=1e-9)
    assert_allclose(model.spectra_, half(spectra), rtol=1e-9)
    assert_allclose(model.weights_, (top @ tables(learned, 3)).mean(axis=0), rtol=1e-9)
    before = [enumerated(group, TOP, conditionals, full)[2] for group in x]
    assert_allclose(model.log_likelihoods_[0], np.average(before, weights=weight), rtol=1e-10)


def test_with_fixed_spectra_a_step_is_that_of_enumeration_without_them():
    x = groups(25)
    full = full_spectra((3, 4), seed=8)
    model = HierarchicalGMM(3, 2, init=begin(full), max_iter=1, fixed_spectra=True, tol=0.0).fit(x)
    top, conditionals, _ = enumerated_step(x, np.ones(25), TOP, CONDITIONALS, full)
    assert_allclose(model.top_weights_, top, rtol=1e-9)
    assert_allclose(model.conditionals_, conditionals, rtol=1e-9)
    assert_allclose(model.spectra_, half(full), rtol=1e-12)


def test_a_component_nobody_comes_to_stays_where_it_is():
    full = full_spectra((3, 4))
    conditionals = np.array([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]])
    top = np.array([1.0, 0.0])
    start = begin(full, top, conditionals)
    model = HierarchicalGMM(3, 2, init=start, max_iter=5, variance_floor=0.0, tol=0.0).fit(groups())
    assert_allclose(model.spectra_[2], half(full)[2], rtol=1e-12)
    assert_array_equal(model.conditionals_[1], conditionals[1])
    assert_array_equal(model.top_weights_, top)
    oracles.assert_never_falls(model.log_likelihoods_)


def test_a_class_seen_in_training_is_one_more_view():
    """Top weights per class, and statistics per class that add, against a table B of classes and Bayes."""
    x, full = groups(40), full_spectra((3, 4), seed=8)
    label = np.arange(40) % 4 // 3  # classes of 30 and 10 groups
    of_class = np.array([[0.8, 0.2], [0.3, 0.7]])  # p(t | class)
    share = np.array([0.75, 0.25])
    B = (share[:, None] * of_class).T  # p(class | t)
    top = B.sum(axis=1)
    B /= top[:, None]
    model = planted(full)
    parts = []
    for c in range(2):
        model.top_weights_ = of_class[c]
        parts.append(model.statistics(x[label == c]))
    found = sum(part.log_likelihood for part in parts) + 30 * np.log(0.75) + 10 * np.log(0.25)
    model.m_step(model.merge(*parts))
    # The same by enumeration, where the class is one more factor of the joint of the top component.
    joint, q = np.empty((40, 2)), np.empty((40, 3, 2, 3))
    for n, group in enumerate(x):
        for t in range(2):
            alone = enumerated(group, np.ones(1), CONDITIONALS[t : t + 1], full)[2]
            joint[n, t] = np.log(top[t] * B[t, label[n]]) + alone
            q[n, :, t] = enumerated_posteriors(group, np.ones(1), CONDITIONALS[t : t + 1], full)[1][:, 0]
    evidence = logsumexp(joint, axis=1)
    r = np.exp(joint - evidence[:, None])
    pairs = np.einsum("nt,ngtk->tk", r, q)
    assert_allclose(found, evidence.sum(), rtol=1e-10)
    assert_allclose([part.top for part in parts], [r[label == c].sum(axis=0) for c in range(2)], rtol=1e-9)
    assert_allclose(model.top_weights_, r.mean(axis=0), rtol=1e-9)
    assert_allclose(model.conditionals_, pairs / pairs.sum(axis=1, keepdims=True), rtol=1e-9)


# Whole runs

RUNS = {
    "plain": {},
    "odd": {"shape": (3, 5)},
    "floor": {"variance_floor": 1.0},
    "weights": {"sample_weight": np.random.default_rng(6).random(60) * 2},
    "zero weights": {"sample_weight": np.arange(60) % 2},
    "mean-free": {"zero_mean_patches": True},
    "chunks": {"chunk_size": 7},
    "many": {"n_components": 6, "n_top": 5},
    "fixed": {"fixed_spectra": True},
    "single images": {"n_views": 1},
    "by position": {"by_position": True},
    "by position, odd, chunks": {"by_position": True, "shape": (3, 5), "chunk_size": 7},
    "by position, weights": {"by_position": True, "sample_weight": np.arange(60) % 3},
    "by position, fixed": {"by_position": True, "fixed_spectra": True, "n_top": 4},
}


@pytest.mark.parametrize("name", RUNS)
def test_every_step_climbs_and_the_trace_is_that_of_the_models(name):
    settings = {"n_components": 3, "n_top": 2, "max_iter": 25, "variance_floor": 0.0} | RUNS[name]
    x = groups(60, settings.pop("n_views", 3), settings.pop("shape", (3, 4)))
    if settings.get("zero_mean_patches"):
        x = x - x.mean(axis=(2, 3), keepdims=True)
    weight = settings.pop("sample_weight", np.ones(60))
    scores = []

    def callback(model, iteration):
        assert iteration == len(scores)
        scores.append(np.average(model.score_samples(x), weights=weight))

    model = HierarchicalGMM(random_state=3, callback=callback, **oracles.WHOLE_RUN | settings).fit(
        x, sample_weight=weight
    )
    oracles.assert_never_falls(model.log_likelihoods_)
    assert model.log_likelihoods_[-1] > model.log_likelihoods_[0] + 0.01
    assert_allclose(model.log_likelihoods_, scores, rtol=1e-10)
    assert len(scores) == model.n_iter_ + 1 == 26


def test_single_images_make_it_a_flat_mixture_along_the_whole_way():
    x = groups(200, 1)
    full = full_spectra((3, 4), seed=8)
    settings = {"max_iter": 15, "variance_floor": 0.0}
    flat_start = {"weights": TOP @ CONDITIONALS, "spectra": half(full)}
    joint = HierarchicalGMM(3, 2, init=begin(full), **oracles.WHOLE_RUN | settings).fit(x)
    flat = ConvolutionalGMM(3, init=flat_start, **oracles.WHOLE_RUN | settings).fit(x[:, 0])
    assert_allclose(joint.log_likelihoods_, flat.log_likelihoods_, rtol=1e-11)
    assert_allclose(joint.weights_, flat.weights_, rtol=1e-8)
    assert_allclose(joint.spectra_, flat.spectra_, rtol=1e-8)
    # The top posterior is that of the lower component, seen through a channel.
    channel = joint.top_weights_[:, None] * joint.conditionals_ / joint.weights_
    assert_allclose(joint.predict_proba(x), flat.predict_proba(x[:, 0]) @ channel.T, rtol=1e-6)
    assert np.ptp(joint.conditionals_, axis=0).max() > 0.1  # it does not need equal rows


def test_with_one_position_its_table_is_the_shared_one():
    x, full = groups(100, 1), full_spectra((3, 4), seed=8)
    settings = {"max_iter": 15, "variance_floor": 0.0}
    shared = HierarchicalGMM(3, 2, init=begin(full), **oracles.WHOLE_RUN | settings).fit(x)
    start = begin(full, conditionals=CONDITIONALS[None])
    one = HierarchicalGMM(3, 2, by_position=True, init=start, **oracles.WHOLE_RUN | settings).fit(x)
    assert one.conditionals_.shape == (1, 2, 3)
    assert_allclose(one.conditionals_[0], shared.conditionals_, rtol=1e-10)
    assert_allclose(one.spectra_, shared.spectra_, rtol=1e-10)
    assert_allclose(one.log_likelihoods_, shared.log_likelihoods_, rtol=1e-12)
    assert one.n_parameters() == shared.n_parameters()


def test_tables_by_position_explain_groups_whose_order_counts():
    x = groups(400, conditionals=BY_POSITION)
    settings = {"max_iter": 30, "variance_floor": 0.0, "random_state": 0}
    bag = HierarchicalGMM(3, 2, **oracles.WHOLE_RUN | settings).fit(x)
    by_position = HierarchicalGMM(3, 2, by_position=True, **oracles.WHOLE_RUN | settings).fit(x)
    assert by_position.conditionals_.shape == (3, 2, 3)
    assert by_position.log_likelihoods_[-1] > bag.log_likelihoods_[-1] + 0.1


def test_two_images_break_the_tie():
    full = full_spectra((3, 4)) * 10.0 ** np.arange(3)[:, None, None]  # so that components can be told
    sharp = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    x = planted(full, conditionals=sharp).sample(400, 0, 2)[0]
    settings = {"max_iter": 15, "variance_floor": 0.0}
    flat_start = {"weights": TOP @ sharp, "spectra": half(full)}
    joint = HierarchicalGMM(3, 2, init=begin(full, conditionals=sharp), **oracles.WHOLE_RUN | settings).fit(x)
    flat = ConvolutionalGMM(3, init=flat_start, **oracles.WHOLE_RUN | settings).fit(x.reshape(-1, 3, 4))
    assert joint.log_likelihoods_[-1] > 2 * flat.log_likelihoods_[-1] + 0.05
    assert np.abs(joint.spectra_ / flat.spectra_ - 1).max() > 1e-5  # equal to 1e-8 for single images


def test_equal_top_components_stay_equal_and_learn_the_flat_mixture():
    x = groups(100, 3)
    full = full_spectra((3, 4), seed=8)
    rows = np.tile([0.2, 0.3, 0.5], (2, 1))
    settings = {"max_iter": 15, "variance_floor": 0.0}
    joint = HierarchicalGMM(3, 2, init=begin(full, TOP, rows), **oracles.WHOLE_RUN | settings).fit(x)
    flat = ConvolutionalGMM(
        3, init={"weights": rows[0], "spectra": half(full)}, **oracles.WHOLE_RUN | settings
    )
    flat.fit(x.reshape(-1, 3, 4))
    assert_allclose(joint.conditionals_, np.tile(flat.weights_, (2, 1)), rtol=1e-8)
    assert_allclose(joint.top_weights_, TOP, rtol=1e-10)
    assert_allclose(joint.log_likelihoods_, 3 * flat.log_likelihoods_, rtol=1e-11)
    assert_allclose(joint.predict_proba(x), np.tile(TOP, (100, 1)), rtol=1e-8)


def test_one_top_component_is_the_flat_mixture():
    x = groups(100, 3)
    settings = {"max_iter": 10, "variance_floor": 0.0}
    full = full_spectra((3, 4), seed=8)
    joint = HierarchicalGMM(
        3, 1, init=begin(full, np.ones(1), np.full((1, 3), 1 / 3)), **oracles.WHOLE_RUN | settings
    ).fit(x)
    flat = ConvolutionalGMM(
        3, init={"weights": np.full(3, 1 / 3), "spectra": half(full)}, **oracles.WHOLE_RUN | settings
    )
    flat.fit(x.reshape(-1, 3, 4))
    assert_allclose(joint.log_likelihoods_, 3 * flat.log_likelihoods_, rtol=1e-11)
    assert_allclose(joint.spectra_, flat.spectra_, rtol=1e-8)


def test_a_planted_hierarchy_is_found_again():
    truth = planted(full_spectra((4, 4)) ** 2)
    x, top, _ = truth.sample(3000, 0, 4)
    best = max(
        (HierarchicalGMM(3, 2, random_state=seed, max_iter=60, tol=0.0).fit(x) for seed in range(3)),
        key=lambda model: model.log_likelihoods_[-1],
    )
    order = np.argsort(best.spectra_.sum(axis=(1, 2)))
    tops = np.argsort(best.top_weights_)
    assert_allclose(best.top_weights_[tops], TOP, atol=0.05)
    assert_allclose(best.conditionals_[tops][:, order], CONDITIONALS, atol=0.05)
    gap = np.log(best.spectra_[order]) - np.log(truth.spectra_)
    assert np.abs(gap).max() < 0.3
    assert (tops.argsort()[best.predict(x)] == top).mean() > 0.8


def test_the_group_helps_to_tell_its_images():
    truth = planted(
        full_spectra((3, 4)) ** 0.2, conditionals=np.array([[0.9, 0.05, 0.05], [0.05, 0.05, 0.9]])
    )
    x, _, lower = truth.sample(2000, 0, 6)
    alone = truth.predict_views(x.reshape(-1, 1, 3, 4)).reshape(lower.shape)
    together = truth.predict_views(x)
    assert (together == lower).mean() > (alone == lower).mean() + 0.03


def test_samples_have_the_parameters_they_were_drawn_from():
    model = planted(full_spectra((3, 5)))
    x, top, lower = model.sample(20_000, 4, 2)
    assert x.shape == (20_000, 2, 3, 5)
    share = np.bincount(top, minlength=2) / 20_000
    assert np.abs((share - TOP) / np.sqrt(TOP * (1 - TOP) / 20_000)).max() < 5
    for t in range(2):
        drawn = lower[top == t].ravel()
        share = np.bincount(drawn, minlength=3) / len(drawn)
        error = np.sqrt(CONDITIONALS[t] * (1 - CONDITIONALS[t]) / len(drawn))
        assert np.abs((share - CONDITIONALS[t]) / error).max() < 5
    first, second = lower[top == 0].T  # given the top component, images are independent
    together = ((first == 0) & (second == 0)).mean()
    assert abs(together - 0.36) < 5 * np.sqrt(0.36 * 0.64 / len(first))
    for k in range(3):
        energy = oracles.full_powers(x[lower == k])
        error = np.sqrt(2 / len(energy)) * full_spectra((3, 5))[k]
        assert np.abs((energy.mean(axis=0) - full_spectra((3, 5))[k]) / error).max() < 5


def test_samples_by_position_have_the_tables_they_were_drawn_from():
    model = planted(full_spectra((3, 5)), conditionals=BY_POSITION)
    x, top, lower = model.sample(20_000, 4)
    assert x.shape == (20_000, 3, 3, 5)
    for t, g in product(range(2), range(3)):
        drawn = lower[top == t, g]
        share = np.bincount(drawn, minlength=3) / len(drawn)
        error = np.sqrt(BY_POSITION[g, t] * (1 - BY_POSITION[g, t]) / len(drawn))
        assert np.abs((share - BY_POSITION[g, t]) / error).max() < 5
    assert model.sample_components([0, 1], 0).shape == (2, 3, 3, 5)
    assert_array_equal(model.sample(3, 0, n_views=3)[0], model.sample(3, 0)[0])


# Symmetries


def test_positions_may_change_places_with_their_tables():
    x = groups(40, conditionals=BY_POSITION)
    order = [2, 0, 1]
    settings = {"max_iter": 6, "by_position": True}
    start = begin(full_spectra((3, 4), seed=8), conditionals=BY_POSITION)
    one = HierarchicalGMM(3, 2, init=start, **oracles.WHOLE_RUN | settings).fit(x)
    start = start | {"conditionals": BY_POSITION[order]}
    other = HierarchicalGMM(3, 2, init=start, **oracles.WHOLE_RUN | settings).fit(x[:, order])
    assert_allclose(one.conditionals_[order], other.conditionals_, rtol=1e-9)
    assert_allclose(one.spectra_, other.spectra_, rtol=1e-9)


def test_views_may_change_places():
    x = groups(40)
    settings = {"init": begin(full_spectra((3, 4), seed=8)), "max_iter": 6}
    one = HierarchicalGMM(3, 2, **oracles.WHOLE_RUN | settings).fit(x)
    other = HierarchicalGMM(3, 2, **oracles.WHOLE_RUN | settings).fit(x[:, ::-1])
    assert_allclose(one.conditionals_, other.conditionals_, rtol=1e-9)


def test_threads_change_no_digit_where_spectra_are_fixed():
    x = groups(300)
    settings = {"random_state": 0, "max_iter": 5, "chunk_size": 90, "fixed_spectra": True}
    with threadpool_limits(1):
        one = HierarchicalGMM(3, 2, **oracles.WHOLE_RUN | settings).fit(x)
    with threadpool_limits(2):
        other = HierarchicalGMM(3, 2, **oracles.WHOLE_RUN | settings).fit(x)
    for name in ("log_likelihoods_", "conditionals_", "spectra_", "top_weights_"):
        assert_array_equal(getattr(one, name), getattr(other, name))


# Starts


def test_a_start_from_a_flat_mixture_keeps_its_components():
    x = groups(100)
    flat = ConvolutionalGMM(3, random_state=0, max_iter=5, tol=0.0).fit(x.reshape(-1, 3, 4))
    start = {"weights": flat.weights_, "spectra": flat.spectra_}
    seen = []

    def look(model, iteration):
        seen.append((model.spectra_, model.conditionals_, model.top_weights_))
        return True

    HierarchicalGMM(3, 4, init=start, random_state=0, callback=look, max_iter=50, tol=0.0).fit(x)
    spectra, conditionals, top = seen[0]
    assert_array_equal(spectra, flat.spectra_)
    assert_allclose(conditionals.sum(axis=1), 1.0, rtol=1e-12)
    assert (conditionals >= 0.5 * flat.weights_).all()
    assert np.ptp(conditionals, axis=0).max() > 0.1
    assert_allclose(top, 0.25)


# Conventions


HALF = half(full_spectra((3, 4)))
FLAT = {"weights": np.full(3, 1 / 3), "spectra": HALF}
MESSAGES = [
    (
        {},
        np.zeros((5, 4, 4)),
        "X must hold groups of images in an array of shape (N, G, H, W); got shape (5, 4, 4). "
        "Single images (N, H, W) are groups of one: X[:, None].",
    ),
    (
        {"n_top": 5},
        groups(4),
        "n_top=5 needs at least as many groups of positive weight in X; got 4. "
        "Pass more data or ask for fewer top components.",
    ),
    (
        {"n_components": 7, "n_top": 1},
        groups(2),
        "n_components=7 needs at least as many rows of positive weight in X; got 6. "
        "Pass more data or ask for fewer components.",
    ),
    (
        {"init": "k-means"},
        groups(),
        'init must be "random_from_data" or a mapping with "weights" and "spectra"; got \'k-means\'.',
    ),
    (
        {"init": {"conditionals": CONDITIONALS, "spectra": HALF}},
        groups(),
        'init must hold "top_weights", "conditionals" and "spectra", or the "weights" and "spectra" of a '
        "mixture of single images; got ['conditionals', 'spectra'].",
    ),
    (
        {"init": {"top_weights": TOP, "conditionals": CONDITIONALS[:, :2], "spectra": HALF}},
        groups(),
        "init['conditionals'] must have shape (2, 3); got (2, 2).",
    ),
    (
        {"init": {"top_weights": TOP, "conditionals": 2 * CONDITIONALS, "spectra": HALF}},
        groups(),
        "init['conditionals'] must be >= 0 and sum to 1 in every row; got 0.2 at least and sums from 2 to 2.",
    ),
    (
        {"init": {"top_weights": TOP, "conditionals": CONDITIONALS, "spectra": HALF[:, :2]}},
        groups(),
        "init['spectra'] must have shape (3, 3, 3); got (3, 2, 3).",
    ),
    ({"init": FLAT | {"weights": [1.0]}}, groups(), "init['weights'] must have shape (3,); got (1,)."),
    (
        {"by_position": True, "init": begin(full_spectra((3, 4)))},
        groups(),
        "init['conditionals'] must have shape (3, 2, 3); got (2, 3).",
    ),
    (
        {"init": begin(full_spectra((3, 4)), conditionals=BY_POSITION)},
        groups(),
        "init['conditionals'] must have shape (2, 3); got (3, 2, 3).",
    ),
    ({"by_position": 1}, groups(), "by_position must be True or False; got 1."),
]


@pytest.mark.parametrize(("settings", "x", "text"), MESSAGES)
def test_the_message_of_fit(settings, x, text):
    with pytest.raises(ValueError) as caught:
        HierarchicalGMM(
            **({"n_components": 3, "n_top": 2, "random_state": 0} | oracles.WHOLE_RUN | settings)
        ).fit(x)
    assert str(caught.value) == text


@pytest.mark.parametrize("method", ["score", "predict", "predict_views", "statistics", "log_joint"])
def test_groups_of_other_positions_than_in_the_fit_are_refused(method):
    model = planted(full_spectra((3, 4)), conditionals=BY_POSITION)
    with pytest.raises(ValueError) as caught:
        getattr(model, method)(groups(5, 2))
    assert str(caught.value) == (
        "X must hold groups of 3 images, one per position of the fit; got 2. "
        "Pass whole groups, or fit with by_position=False."
    )


@pytest.mark.parametrize("draw", [lambda m: m.sample(2, 0, 4), lambda m: m.sample_components([0], 0, 4)])
def test_groups_of_other_positions_are_not_drawn(draw):
    with pytest.raises(ValueError) as caught:
        draw(planted(full_spectra((3, 4)), conditionals=BY_POSITION))
    assert str(caught.value) == "n_views must be 3, the positions of the fit, or left out; got 4."


@pytest.mark.parametrize(
    ("conditionals", "text"),
    [
        (CONDITIONALS, r"\['conditionals'\] must have shape \(2, 2, 3\); got \(2, 3\)"),
        (BY_POSITION[:, :1], r"\['conditionals'\] must have shape \(3, 2, 3\); got \(3, 1, 3\)"),
        (BY_POSITION[:0], r"\['conditionals'\] must have shape \(1, 2, 3\); got \(0, 2, 3\)"),
        (np.ones(()), r"\['conditionals'\] must have shape \(1, 2, 3\); got \(\)"),
    ],
)
def test_a_file_of_other_tables_is_refused(tmp_path, conditionals, text):
    model = planted(full_spectra((3, 4)), conditionals=BY_POSITION)
    settings, arrays = model.to_arrays()
    assert settings["by_position"] is True
    storage.write(
        tmp_path / "model.npz", "HierarchicalGMM", settings, arrays | {"conditionals": conditionals}
    )
    with pytest.raises(storage.ModelFileError, match=text):
        HierarchicalGMM.load(tmp_path / "model.npz")


def test_a_model_of_images_without_their_mean_comes_back(tmp_path):
    rng = np.random.default_rng(9)
    X = rng.standard_normal((40, 2, 4, 5))
    X -= X.mean(axis=(2, 3), keepdims=True)
    model = HierarchicalGMM(2, 2, zero_mean_patches=True, max_iter=3, random_state=0, tol=0.0).fit(X)
    model.save(tmp_path / "model.npz")
    loaded = HierarchicalGMM.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded.score_samples(X), model.score_samples(X))
