"""What every estimator owes its users, whatever it models."""

import copy
import pickle
import tracemalloc
import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from gmmlib import calibration, metrics, patches
from gmmlib.full.estimator import FullGMM
from gmmlib.stationary import templates
from gmmlib.stationary.convolutional import ConvolutionalGMM
from gmmlib.stationary.phaseblind import PhaseBlindGMM
from gmmlib.stationary.transformed import TransformedGMM
from tests.subjects import CLASSES, IMAGES, LEARNED, ROWS, SUBJECTS, given, trace


@pytest.fixture(params=sorted(SUBJECTS))
def subject(request):
    model, X = SUBJECTS[request.param]
    return clone(model), X


@pytest.fixture(params=LEARNED)
def fitted(request):
    model, X = SUBJECTS[request.param]
    return clone(model).fit(X), X


# ------------------------------------------------------------------------------ validity beside the values


def masked(X):
    values = np.array(X)
    values.flat[5] = 1e6
    return np.ma.array(values, mask=values == 1e6)


def test_masked_values_are_no_data(subject):
    model, X = subject
    with pytest.raises(ValueError, match="X must not hold masked values: what lies under a mask is no data"):
        model.fit(masked(X), CLASSES)
    model.fit(X, CLASSES)
    if not getattr(model, "allow_missing", False):
        with pytest.raises(ValueError, match="masked values"):
            model.predict(masked(X))


def test_a_mask_that_hides_nothing_changes_nothing(subject):
    model, X = subject
    expected = clone(model).fit(X, CLASSES).predict_proba(X)
    unmasked = np.ma.array(X, mask=False)
    assert_array_equal(model.fit(unmasked, CLASSES).predict_proba(unmasked), expected)


def test_masked_values_are_missing_where_missing_values_are_allowed():
    model = FullGMM(2, allow_missing=True, random_state=0).fit(ROWS)
    X = masked(ROWS)
    assert_array_equal(model.score_samples(X), model.score_samples(X.filled(np.nan)))
    assert_array_equal(
        model.score_samples(masked(ROWS * 9).astype(int)), model.score_samples(holes(ROWS * 9))
    )


def holes(X):
    values = np.trunc(X)
    values.flat[5] = np.nan
    return values


@pytest.mark.parametrize(
    "call",
    [
        lambda: FullGMM(2).fit(ROWS, sample_weight=masked(np.ones(24))),
        lambda: FullGMM(2).fit([np.ma.array(row, mask=row > 6) for row in ROWS]),
        lambda: FullGMM(2, init=masked(np.arange(24) % 2).astype(int)).fit(ROWS),
        lambda: ConvolutionalGMM(
            2, init={"weights": np.ma.array([0.5, 0.5], mask=[0, 1]), "spectra": 0}, max_iter=50, tol=0.0
        ).fit(IMAGES),
        lambda: patches.sample_patches([masked(np.eye(9))], 2, 3, 0),
        lambda: patches.remove_mean(masked(IMAGES)),
        lambda: metrics.purity(masked(np.eye(3, dtype=int))),
        lambda: metrics.mean_off_diagonal(masked(np.eye(3))),
        lambda: calibration.temperature(masked(np.eye(3)), [0, 1, 2]),
        lambda: templates.register(masked(IMAGES), IMAGES[0]),
    ],
)
def test_masks_are_seen_wherever_arrays_come_in(call):
    with pytest.raises(ValueError, match="must not hold masked values"):
        call()


# ------------------------------------------------------------------------------ other containers


def test_sparse_arrays_are_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"X must be a dense array; got a sparse one of shape \(24, 3\)"):
        FullGMM(2).fit(sparse.csr_array(ROWS))


@pytest.mark.parametrize("estimator", [FullGMM(2), ConvolutionalGMM(2, max_iter=50, tol=0.0)])
def test_batches_are_pointed_to_partial_fit(estimator):
    X = ROWS if isinstance(estimator, FullGMM) else IMAGES
    for batches in ((X[i : i + 8] for i in (0, 8, 16)), [X[:8], X[8:]], [X[:12], X[12:]]):
        with pytest.raises(ValueError, match="^X must .*pass them to partial_fit one after another"):
            estimator.fit(batches)


# ------------------------------------------------------------------------------ the caller's type


@pytest.mark.parametrize("name", ["ConvolutionalGMM", "FullGMM", "PhaseBlindGMM", "TransformedGMM"])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e18])
def test_float32_data_give_what_the_same_numbers_in_float64_give(name, scale):
    model, X = SUBJECTS[name]
    X = (X * scale).astype(np.float32)
    model = clone(model)
    if scale < 1:
        model.set_params(**{key: 0 for key in ("variance_floor", "reg_covar") if key in model.get_params()})
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        one, other = (clone(model).fit(Y) for Y in (X, X.astype(np.float64)))
        assert_array_equal(one.predict(X), other.predict(X.astype(np.float64)))
    assert_array_equal(one.score_samples(X), other.score_samples(X.astype(np.float64)))


# ------------------------------------------------------------------------------ parameters set by hand


def test_scores_and_samples_follow_parameters_that_are_set(fitted):
    model, X = fitted
    name = LEARNED[type(model).__name__][-1]
    before = model.score(X), np.std(model.sample(500, random_state=0)[0])
    setattr(model, name, getattr(model, name) * 100)
    assert model.score(X) < before[0] - 1
    assert np.std(model.sample(500, random_state=0)[0]) > 2 * before[1]
    free = {"strength": 0.0} if "strength" in model.get_params() else {}  # a penalty is no part of a score
    again = clone(model).set_params(init=given(model), max_iter=1, **free).fit(X)
    assert trace(again)[0] == pytest.approx(model.score(X), rel=1e-12)


def change_in_place(model):
    """Whether the model lets its last parameters be changed."""
    values = getattr(model, LEARNED[type(model).__name__][-1])
    if values.flags.writeable:
        values *= 100
    return values.flags.writeable


def test_a_change_in_place_is_refused_or_followed(fitted):
    model, X = fitted
    before = model.score(X)
    after = before - 1 if change_in_place(model) else np.inf
    assert model.score(X) < after


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_follows_its_own_parameters(fitted, twin):
    model, X = fitted
    other = twin(model)
    name = LEARNED[type(model).__name__][-1]
    setattr(other, name, getattr(other, name) * 100)
    assert other.score(X) < model.score(X) - 1
    third = twin(model)
    assert third.score(X) == model.score(X)
    assert not change_in_place(third) or third.score(X) < model.score(X) - 1


def test_parameters_set_on_a_new_model_make_it_fitted(fitted):
    model, X = fitted
    new = type(model)(**model.get_params())
    for name in (*LEARNED[type(model).__name__], "image_shape_", "n_dimensions_"):
        if hasattr(model, name):
            setattr(new, name, getattr(model, name))
    assert_array_equal(new.score_samples(X), model.score_samples(X))
    assert_array_equal(new.sample(5, random_state=0)[0], model.sample(5, random_state=0)[0])


def test_impossible_parameters_are_refused(fitted):
    model, X = fitted
    name = LEARNED[type(model).__name__][0]
    setattr(model, name, -getattr(model, name))
    with pytest.raises(ValueError, match=f"the fitted model.*{name[:-1]}.* must be >= 0 and sum to 1"):
        model.score(X)


@pytest.mark.parametrize("name", ["ConvolutionalGMM", "FullGMM"])
def test_online_steps_go_on_from_parameters_that_are_set(name):
    model, X = SUBJECTS[name]
    one, other = clone(model).fit(X), clone(model).fit(X)
    for _ in range(3):
        one.partial_fit(X)
    for attribute in LEARNED[name]:
        setattr(one, attribute, getattr(other, attribute))
    assert_array_equal(one.partial_fit(X[::2]).score_samples(X), other.partial_fit(X[::2]).score_samples(X))


# ------------------------------------------------------------------------------ going on from a fit


@pytest.mark.parametrize("change", [1, 3])
def test_a_warm_start_keeps_its_number_of_components(change):
    model = FullGMM(2, max_iter=2, tol=0, random_state=0, warm_start=True).fit(ROWS)
    with pytest.raises(ValueError, match=f"^n_components must stay 2, .*; got {change}"):
        model.set_params(n_components=change).fit(ROWS)
    assert len(model.weights_) == 2


def test_a_warm_start_keeps_the_components_that_are_left():
    model = FullGMM(6, max_iter=9, min_weight=0.15, tol=0, random_state=0, warm_start=True).fit(ROWS)
    left = len(model.weights_)
    assert 1 <= left < 6
    assert len(model.fit(ROWS).weights_) <= left
    with pytest.raises(ValueError, match="^n_components must stay 6"):
        model.set_params(n_components=7).fit(ROWS)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("FullGMM", "n_components", 3),
        ("ConvolutionalGMM", "n_components", 3),
        ("ConvolutionalGMM", "zero_mean_patches", True),
        ("FullGMM", "zero_means", True),
    ],
)
def test_online_steps_refuse_a_setting_they_cannot_take_over(name, setting, value):
    model, X = SUBJECTS[name]
    model = clone(model).partial_fit(X)
    with pytest.raises(ValueError, match=f"^{setting} must stay"):
        model.set_params(**{setting: value}).partial_fit(X)


# ------------------------------------------------------------------------------ during a fit


@pytest.mark.parametrize("name", [n for n, (m, _) in SUBJECTS.items() if "callback" in m.get_params()])
def test_what_a_callback_sees_is_complete(name, tmp_path):
    model, X = SUBJECTS[name]
    kinds = []

    def look(seen, iteration):
        seen.save(tmp_path / "model.npz")
        loaded = type(seen).load(tmp_path / "model.npz")
        assert_array_equal(loaded.predict_proba(X), seen.predict_proba(X))
        learned = {key for key in vars(seen) if key.endswith("_") and not key.startswith("_")}
        kinds.append((learned, seen.n_iter_, getattr(seen, "converged_", False)))
        return iteration == 2

    done = clone(model).set_params(max_iter=5, callback=look).fit(X, CLASSES)
    assert [n for _, n, _ in kinds] == list(range(len(kinds)))
    assert not any(converged for *_, converged in kinds)
    assert all(learned == {k for k in vars(done) if k.endswith("_")} for learned, *_ in kinds)


# ------------------------------------------------------------------------------ how a fit ended

ITERATIVE = [n for n, (m, _) in SUBJECTS.items() if {"tol", "max_iter"} <= m.get_params().keys()]


@pytest.mark.parametrize("name", ITERATIVE)
def test_a_fit_that_tol_was_to_end_says_so_if_it_did_not(name):
    model, X = SUBJECTS[name]
    X = np.random.default_rng(1).standard_normal((200, *X.shape[1:]))
    more = {"levels": [(1, 2, 3)]} if name.startswith("TreeGMM") else {"n_components": 3}
    with pytest.warns(ConvergenceWarning, match="^EM did not converge: after 2 iterations") as caught:
        clone(model).set_params(**more, tol=1e-12, max_iter=2).fit(X)
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("name", ITERATIVE)
@pytest.mark.parametrize("settings", [{"tol": 0, "max_iter": 2}, {"tol": 1e6, "max_iter": 9}])
def test_other_fits_do_not_warn(name, settings):
    model, X = SUBJECTS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clone(model).set_params(**settings).fit(X)


def test_a_fit_that_a_callback_stops_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FullGMM(2, tol=1e-12, callback=lambda model, iteration: iteration == 1, random_state=0).fit(ROWS)


def test_likelihood_that_a_ridge_takes_away_is_not_silent():
    X = np.random.default_rng(0).standard_normal((300, 6))
    model = FullGMM(9, max_iter=3, tol=0, reg_covar=1.0, random_state=0)
    with pytest.warns(
        ConvergenceWarning, match=r"^The log-likelihood fell at \d of 3 iterations, at most by"
    ) as caught:
        model.fit(X)
    assert np.diff(model.log_likelihoods_).min() < 0
    assert {warning.filename for warning in caught} == {__file__}


def test_a_fall_where_components_are_removed_is_expected():
    X = np.repeat(ROWS, 3, axis=0) + 0.1 * np.random.default_rng(1).standard_normal((72, 3))
    settings = {"min_weight": 0.1, "reg_covar": 1e-9, "init": "random_from_data"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = FullGMM(6, max_iter=12, tol=0, random_state=0, **settings).fit(X)
    falls = np.diff(model.log_likelihoods_) < 0
    assert falls.any()
    assert (np.diff(model.component_counts_)[falls] < 0).all()


@pytest.mark.parametrize("algorithm", ["sem", "cem", "annealed"])
def test_steps_that_promise_no_climb_do_not_warn(algorithm):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ConvolutionalGMM(3, max_iter=9, algorithm=algorithm, random_state=1, tol=0.0).fit(IMAGES)


# ------------------------------------------------------------------------------ memory


@pytest.mark.parametrize("method", ["predict_proba", "predict_log_proba", "log_joint", "predict"])
@pytest.mark.parametrize(
    "model",
    [
        ConvolutionalGMM(24, random_state=0, max_iter=1, chunk_size=500, tol=0.0),
        FullGMM(24, random_state=0, max_iter=1, tol=0, chunk_size=500, reg_covar=0.1),
        TransformedGMM(24, max_shift=0, random_state=0, max_iter=1, tol=0.0),
        PhaseBlindGMM(24, random_state=0, max_iter=1, tol=0, reg_covar=0.1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_memory_grows_by_what_is_returned(model, method, monkeypatch):
    monkeypatch.setattr(templates, "TRIPLES", 2**15)  # what threads hold at a time, is not to be seen
    X = np.random.default_rng(0).standard_normal((100_000, 4, 4)).astype(np.float32)
    rows = X.reshape(len(X), -1) if isinstance(model, FullGMM) else X
    model = clone(model).fit(rows[:2000])

    def peak(n_rows):
        tracemalloc.start()
        try:
            result = getattr(model, method)(rows[:n_rows])
            return tracemalloc.get_traced_memory()[1], result.nbytes
        finally:
            tracemalloc.stop()

    peak(1000)
    (less, small), (more, large) = peak(50_000), peak(100_000)
    assert more - less < 1.2 * (large - small) + 2e6
