"""What every estimator's fit keeps to: settings, seeds, callbacks, row weights, threads and chunks."""

import inspect

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_classifier
from threadpoolctl import threadpool_limits

from gmmlib.compose.classify import GenerativeClassifier
from gmmlib.compose.convolutional_stack import ConvolutionalStack
from gmmlib.compose.stack import StackedGMM
from gmmlib.compose.tree import TreeGMM
from gmmlib.full.estimator import FullGMM
from gmmlib.stationary import templates
from gmmlib.stationary.discriminative import DiscriminativeGMM
from gmmlib.stationary.phaseblind import PhaseBlindGMM
from tests.subjects import CLASSES, LEARNED, SUBJECTS, given, scores, trace

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def having(*settings):
    """Names of the subjects that have these settings."""
    return [name for name, (model, _) in SUBJECTS.items() if set(settings) <= model.get_params().keys()]


def subject(name, **settings):
    model, X = SUBJECTS[name]
    return clone(model).set_params(**settings), X


def more(name, n_rows=240):
    """More rows like those of a subject, and their classes."""
    X = SUBJECTS[name][1]
    rows = np.arange(n_rows) % len(X)
    return X[rows] * np.random.default_rng(3).uniform(0.8, 1.2, (n_rows, *X.shape[1:])), CLASSES[rows]


# ------------------------------------------------------------------------------ settings


@pytest.mark.parametrize("name", SUBJECTS)
def test_settings_are_stored_as_they_are_given_and_can_be_changed(name):
    kind = type(SUBJECTS[name][0])
    anything = {setting: object() for setting in inspect.signature(kind).parameters}
    model = kind(**anything)
    assert model.get_params(deep=False) == anything
    assert not [attribute for attribute in vars(model) if attribute.endswith("_")]
    other = object()
    for setting in anything:
        assert model.set_params(**{setting: other}) is model
        assert getattr(model, setting) is other


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_fit_changes_no_setting_and_returns_the_model(name):
    model, X = subject(name)
    before = model.get_params()
    assert model.fit(X, CLASSES) is model
    after = model.get_params()
    assert all(after[setting] is value for setting, value in before.items())


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_clone_has_the_settings_and_nothing_else_and_fits_the_same(name):
    model, X = subject(name)
    model.fit(X, CLASSES)
    twin = clone(model)
    assert repr(twin) == repr(model)
    assert not [attribute for attribute in vars(twin) if attribute.endswith("_")]
    assert_array_equal(scores(twin.fit(X, CLASSES), X), scores(model, X))


@pytest.mark.parametrize("name", SUBJECTS)
def test_fitting_again_forgets_the_first_fit(name):
    model, X = subject(name)
    expected = scores(clone(model).fit(X, CLASSES), X)
    other = np.concatenate([X, X[::-1]], axis=-1)[::2]
    assert_array_equal(scores(model.fit(other, CLASSES[::2]).fit(X, CLASSES), X), expected)


@pytest.mark.parametrize("name", [name for name, (model, _) in SUBJECTS.items() if not is_classifier(model)])
def test_y_is_ignored_where_there_are_no_classes(name):
    model, X = subject(name)
    with_y, without = clone(model).fit(X, np.arange(len(X))), clone(model).fit(X)
    assert_array_equal(scores(with_y, X), scores(without, X))


@pytest.mark.parametrize("seed", [np.random.default_rng, np.random.RandomState, int])
@pytest.mark.parametrize("name", having("random_state"))
def test_the_same_seed_gives_the_same_bits(name, seed):
    model, X = subject(name)
    one, other = (clone(model).set_params(random_state=seed(5)).fit(X, CLASSES) for _ in range(2))
    assert_array_equal(scores(one, X), scores(other, X))


# ------------------------------------------------------------------------------ callbacks and their like


def from_rows(name):
    """Settings with which a fit of the subject takes more than a few iterations."""
    wanted = {"tol": 0.0, "init": "random_from_data"}
    return {setting: wanted[setting] for setting in wanted.keys() & SUBJECTS[name][0].get_params().keys()}


@pytest.mark.parametrize("name", having("callback"))
def test_a_callback_sees_each_iteration_and_may_stop(name):
    seen = []

    def look(model, iteration):
        seen.append((iteration, trace(model)[-1]))
        return iteration == 3

    model, X = subject(name, max_iter=9, **from_rows(name))
    stopped = clone(model).set_params(callback=look).fit(X, CLASSES)
    assert [iteration for iteration, _ in seen] == [0, 1, 2, 3]
    assert_array_equal(trace(stopped), [value for _, value in seen])
    shorter = clone(model).set_params(max_iter=3).fit(X, CLASSES)
    assert stopped.n_iter_ == shorter.n_iter_ == 3
    assert_array_equal(scores(stopped, X), scores(shorter, X))


@pytest.mark.parametrize("name", having("callback"))
def test_an_exception_in_the_callback_reaches_the_caller(name):
    def fails(model, iteration):
        raise LookupError("enough")

    model, X = subject(name, callback=fails)
    with pytest.raises(LookupError, match="enough"):
        model.fit(X, CLASSES)


@pytest.mark.parametrize("name", having("progress"))
def test_there_is_no_progress_bar_unless_asked_for(name, capfd):
    model, X = subject(name)
    clone(model).fit(X, CLASSES)
    assert capfd.readouterr() == ("", "")
    model.set_params(progress=True).fit(X, CLASSES)
    assert "EM" in capfd.readouterr().err


@pytest.mark.parametrize("name", [name for name in having("tol", "callback") if name != "PenalisedGMM"])
def test_tol_stops_the_run_at_parameters_whose_likelihood_is_last(name):
    model, X = subject(name, **from_rows(name) | {"tol": 0.02, "max_iter": 500})
    gain = np.abs(np.diff(model.fit(X).log_likelihoods_))
    assert model.converged_ is True
    assert 1 < model.n_iter_ < 500
    assert gain[-1] < 0.02
    assert (gain[:-1] >= 0.02).all()
    assert_allclose(model.log_likelihoods_[-1], model.score(X), rtol=1e-10)


@pytest.mark.parametrize("name", [name for name in LEARNED if name != "PenalisedGMM"])
def test_the_trace_begins_with_the_score_of_the_given_start(name):
    model, X = subject(name)
    model.fit(X[::2])
    again = clone(model).set_params(init=given(model)).fit(X)
    assert_allclose(again.log_likelihoods_[0], model.score(X), rtol=1e-12)


# ------------------------------------------------------------------------------ row weights


def without_drawing(name):
    """A subject whose start is not drawn from the rows, which repeated rows would change."""
    model, X = subject(name)
    if isinstance(model, StackedGMM):
        layers = model.set_params(codes="log_joint").fit(X).layers_
        layers = [clone(layer).set_params(init=given(layer)) for layer in layers]
        return StackedGMM(layers, codes="log_joint"), X
    if isinstance(model, ConvolutionalStack):
        (layer,) = model.fit(X, CLASSES).layers_  # which was fitted to all patches
        mixture = clone(layer.mixture).set_params(init=given(layer.mixture_))
        top = FullGMM(1, max_iter=2)
        top = GenerativeClassifier(top) if is_classifier(model) else top
        return model.set_params(layers=[clone(layer).set_params(mixture=mixture)], top=top), X
    if isinstance(model, TreeGMM):
        return model.set_params(init=model.fit(X).learned()), X
    if isinstance(model, GenerativeClassifier):
        return GenerativeClassifier(model.density.set_params(n_components=1, init="random_from_data")), X
    if isinstance(model, DiscriminativeGMM | PhaseBlindGMM):
        return model.set_params(n_components=1), X
    return model.set_params(init=given(model.fit(X))), X


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_row_of_weight_zero_is_absent_and_an_integer_weight_repeats_it(name):
    model, X = without_drawing(name)
    times = np.arange(len(X)) * 5 % 4
    weighted = clone(model).fit(X, CLASSES, sample_weight=times)
    repeated = clone(model).fit(np.repeat(X, times, axis=0), np.repeat(CLASSES, times))
    assert_allclose(scores(weighted, X), scores(repeated, X), rtol=1e-6, atol=1e-6)
    assert np.abs(scores(weighted, X) - scores(clone(model).fit(X, CLASSES), X)).max() > 1e-3


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_start_is_drawn_from_the_rows_that_count(name):
    model, X = subject(name)
    counts = np.arange(len(X)) % 5 > 0
    weighted = clone(model).fit(X, CLASSES, sample_weight=counts.astype(float))
    alone = clone(model).fit(X[counts], CLASSES[counts])
    assert_allclose(scores(weighted, X), scores(alone, X), rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in LEARNED if name != "FullGMM"])
def test_another_seed_starts_elsewhere(name):
    starts = []
    for seed in range(3):
        model, X = subject(name, random_state=seed)
        starts.append(trace(model.fit(X))[0])
    assert len(set(starts)) > 1


@pytest.mark.parametrize("name", SUBJECTS)
def test_only_the_ratios_of_row_weights_count(name):
    model, X = subject(name)
    weight = np.random.default_rng(1).uniform(0.1, 1, len(X))
    one, other = (clone(model).fit(X, CLASSES, sample_weight=scale * weight) for scale in (1.0, 1024.0))
    assert_allclose(scores(one, X), scores(other, X), rtol=1e-8)


# ------------------------------------------------------------------------------ threads and chunks


@pytest.mark.parametrize("name", SUBJECTS)
def test_results_do_not_depend_on_the_number_of_threads(name, monkeypatch):
    monkeypatch.setattr(templates, "TRIPLES", 600)  # a few images a chunk
    X, y = more(name)
    model, _ = subject(name)
    model.set_params(**{key: 32 for key in model.get_params() if key.split("__")[-1] == "chunk_size"})
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            fitted = clone(model).fit(X, y)
            found.append((scores(fitted, X), fitted.log_joint(X), fitted.predict_proba(X)))
    for one, other in zip(*found, strict=True):
        assert_array_equal(one, other)


@pytest.mark.parametrize("chunk_size", [1, 7, 239, 240, 10_000])
@pytest.mark.parametrize("name", having("chunk_size"))
def test_chunks_change_results_only_to_rounding(name, chunk_size):
    X, y = more(name)
    model, _ = subject(name, chunk_size=64)
    expected = scores(clone(model).fit(X, y), X)
    found = scores(model.set_params(chunk_size=chunk_size).fit(X, y), X)
    assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


# ------------------------------------------------------------------------------ what is passed in


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_data_and_the_start_are_left_as_they_were(name):
    model, X = subject(name)
    start = given(clone(model).fit(X)) if name in LEARNED else {}
    if start:
        model.set_params(init=start)
    before, values = X.copy(), {key: value.copy() for key, value in start.items()}
    model.fit(X, CLASSES).predict_proba(X)
    assert_array_equal(X, before)
    for key, value in values.items():
        assert_array_equal(start[key], value)


KINDS = {
    "float32": lambda X: X.astype(np.float32),
    "uint8": lambda X: X.astype(np.uint8),
    "int64": lambda X: X.astype(np.int64),
    "list": lambda X: X.tolist(),
    "big-endian": lambda X: X.astype(">f8"),
    "read-only": lambda X: np.frombuffer(X.tobytes()).reshape(X.shape),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_the_kind_of_array_does_not_matter(name, kind):
    model, X = subject(name)
    X = np.clip(np.round(10 * X + 100), 0, 255)
    expected = scores(clone(model).fit(X, CLASSES), X)
    found = KINDS[kind](X)
    assert_allclose(scores(clone(model).fit(found, CLASSES), found), expected, rtol=1e-9)


@pytest.mark.parametrize("name", SUBJECTS)
def test_true_and_false_are_one_and_nought(name):
    model, X = subject(name)
    model.set_params(**{key: 0.1 for key in model.get_params() if key.split("__")[-1] == "reg_covar"})
    truth = np.random.default_rng(0).random(X.shape) > 0.4
    expected = scores(clone(model).fit(truth.astype(float), CLASSES), truth.astype(float))
    assert_allclose(scores(model.fit(truth, CLASSES), truth), expected, rtol=1e-9)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "name", [name for name in SUBJECTS if "n_init" in SUBJECTS[name][0].get_params(deep=False)]
)
def test_of_several_starts_the_best_is_kept(name):
    model, X = SUBJECTS[name]
    model = clone(model).set_params(max_iter=3, tol=0.0, init="random_from_data")
    rng = np.random.default_rng(5)
    each = [clone(model).set_params(random_state=rng).fit(X) for _ in range(4)]
    values = [trace(one)[-1] for one in each]
    assert len(set(values)) > 1
    expected = next(one for one, value in zip(each, values, strict=True) if value > max(values) - 1e-8)
    best = clone(model).set_params(n_init=4, random_state=5).fit(X)
    assert_array_equal(trace(best), trace(expected))
    assert_array_equal(best.score_samples(X), expected.score_samples(X))
    assert best.n_init == 4


@pytest.mark.parametrize(
    "name", [name for name in SUBJECTS if "n_init" in SUBJECTS[name][0].get_params(deep=False)]
)
def test_ctrl_c_in_one_of_several_starts_keeps_what_it_has(name):
    model, X = SUBJECTS[name]
    fits = []

    def stop(one, iteration):
        fits.append(iteration)
        if len(fits) == 5:
            raise KeyboardInterrupt

    model = clone(model).set_params(max_iter=3, tol=0.0, n_init=3, callback=stop)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert np.isfinite(model.score_samples(X)).all()
