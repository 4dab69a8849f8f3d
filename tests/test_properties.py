"""Laws that hold for any data, on generated ones: kinds of arrays, scales, repetitions, weights.

Each law is checked on a few examples in every run and on thousands in the long form (``-m slow``).
"""

import contextlib
import warnings
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning

from gmmlib.compose.classify import GenerativeClassifier
from gmmlib.compose.stack import StackedGMM
from gmmlib.full.estimator import FullGMM
from gmmlib.stationary.convolutional import ConvolutionalGMM
from gmmlib.stationary.discriminative import DiscriminativeGMM
from gmmlib.stationary.hierarchical import HierarchicalGMM
from gmmlib.stationary.penalised import PenalisedGMM
from gmmlib.stationary.phaseblind import PhaseBlindGMM
from gmmlib.stationary.transformed import TransformedGMM
from tests import oracles

settings.register_profile(
    "short", max_examples=70, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
settings.register_profile(
    "nightly", settings.get_profile("short"), max_examples=1000, derandomize=False, print_blob=True
)

DTYPES = ("?", "u1", "<i2", ">i4", "<i8", "<f4", ">f4", ">f8", "<f8", "<f8", "<f8", "<f8")
ORDERS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "rows backwards": lambda X: X[::-1].copy()[::-1],
    "columns backwards": lambda X: X[..., ::-1].copy()[..., ::-1],
    "every other row": lambda X: np.repeat(X, 2, axis=0)[::2],
    "every third column": lambda X: np.repeat(X, 3, axis=-1)[..., ::3],
    "a column of zero stride": lambda X: np.broadcast_to(X[:1], X.shape) if (X == X[:1]).all() else X,
}


class Case(NamedTuple):
    """What a set of data is made from."""

    seed: int
    n_rows: int
    sides: tuple
    n_components: int
    dtype: str
    order: str
    exponent: int  # of the scale, a power of ten, where the dtype has room for it
    repeated: bool  # rows come twice
    constant: bool  # a column, or a pixel, never varies
    weights: str
    weight_exponent: int
    ridge: float  # in units of the scale


CASES = st.builds(
    Case,
    seed=st.integers(0, 2**32 - 1),
    n_rows=st.integers(8, 40),
    sides=st.tuples(st.integers(2, 5), st.integers(1, 5)),
    n_components=st.integers(1, 4),
    dtype=st.sampled_from(DTYPES),
    order=st.sampled_from(sorted(ORDERS)),
    exponent=st.one_of(st.integers(-6, 6), st.integers(-150, 150)),
    repeated=st.booleans(),
    constant=st.booleans(),
    weights=st.sampled_from(("none", "counts", "spread", "nearly all on one")),
    weight_exponent=st.one_of(st.just(0), st.integers(-140, 140)),
    ridge=st.sampled_from((0.0, 1e-3)),
)


class Data(NamedTuple):
    X: np.ndarray
    plain: np.ndarray  # the same numbers, float64 in order C
    scale: float
    weight: np.ndarray | None
    rng: np.random.Generator
    ordinary: bool  # nothing may be refused for its size


def data(case, *sides):
    rng = np.random.default_rng(case.seed)
    X = rng.standard_normal((case.n_rows, *sides)) * np.exp(
        rng.standard_normal((case.n_rows, *[1] * len(sides)))
    )
    X[: case.n_rows // 2] += 3.0
    if case.repeated:
        X = X[rng.integers(0, max(2, case.n_rows // 2), case.n_rows)]
    if case.constant:
        X.reshape(len(X), -1)[:, 0] = 1.5
    dtype, exponent = np.dtype(case.dtype), 0
    if dtype.kind == "f":
        most = 15 if dtype.itemsize == 4 else 150
        exponent = int(np.clip(case.exponent, -most, most))
        X = X * 10.0**exponent
    elif dtype.kind == "b":
        X = X > 1
    else:
        X = np.clip(np.rint(10 * X), np.iinfo(dtype).min, np.iinfo(dtype).max)
    X = ORDERS[case.order](X.astype(dtype))
    weight, weight_exponent = None, 0
    if case.weights != "none":
        weight_exponent = case.weight_exponent
        weight = {
            "counts": lambda: rng.integers(0, 3, len(X)) + (np.arange(len(X)) < 5),
            "spread": lambda: 10.0 ** rng.uniform(-9, 9, len(X)),
            "nearly all on one": lambda: np.where(np.arange(len(X)) == 0, 1.0, 1e-12),
        }[case.weights]() * 10.0**weight_exponent
    ordinary = 2 * abs(exponent) + abs(weight_exponent) < 260
    return Data(X, np.array(X, dtype=np.float64), 10.0**exponent, weight, rng, ordinary)


@contextlib.contextmanager
def documented(data, *texts):
    """Let errors pass that say what the matter is: of extreme sizes always, otherwise of these texts."""
    try:
        yield
    except (ValueError, FloatingPointError) as error:
        sizes = ("overflow", "X must vary", "singular", "no bound", "positive and finite", "X and softness")
        allowed = texts if data.ordinary else (*texts, *sizes)
        if not any(text in str(error) for text in allowed):
            raise


def climbs(trace):
    """Whether it never falls by more than rounding."""
    return (np.diff(trace) >= -1e-9 * (1 + np.abs(trace[1:]))).all()


def check_scores(model, X):
    """Posteriors sum to 1, and the score is the log of the sum of the joints."""
    joint, score, proba = model.log_joint(X), model.score_samples(X), model.predict_proba(X)
    assert np.isfinite(score).all()
    assert np.isfinite(joint.max(axis=1)).all()
    assert_allclose(score, logsumexp(joint, axis=1), rtol=1e-10, atol=1e-10)
    assert (proba >= 0).all()
    assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-12)
    assert_allclose(proba, np.exp(joint - score[:, None]), rtol=1e-6, atol=1e-9)


def fitted(model, X, weight=None):
    """A fit, and whether a component had to be put elsewhere on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(X, sample_weight=weight)
    return model, bool(caught)


def law(**strategies):
    """Make a test of a check: a short form, and a long one that is marked slow."""

    def decorate(check):
        @pytest.mark.parametrize("profile", ["short", pytest.param("nightly", marks=pytest.mark.slow)])
        def test(profile):
            settings(settings.get_profile(profile))(given(**strategies)(check))()

        return test

    return decorate


# Convolutional mixtures


def convolutional_start(case, data, shape):
    n_components = case.n_components
    spectra = data.scale**2 * np.exp(data.rng.standard_normal((n_components, shape[0], shape[1] // 2 + 1)))
    return {"weights": data.rng.dirichlet(np.full(n_components, 5.0)), "spectra": spectra}


def convolutional(case, data, **others):
    floor = 1e-4 * data.scale**2
    return ConvolutionalGMM(
        case.n_components, **{"max_iter": 3, "tol": 0.0, "variance_floor": floor, "random_state": 0} | others
    )


@law(case=CASES)
def test_convolutional_fits(case):
    found = data(case, *case.sides)
    with documented(found, "X must vary", "needs at least as many rows"):
        model, revived = fitted(convolutional(case, found), found.X, found.weight)
        assert_allclose(model.weights_.sum(), 1.0, rtol=1e-12)
        assert np.isfinite(model.spectra_).all()
        assert model.spectra_.min() >= model.variance_floor
        assert revived or climbs(model.log_likelihoods_)
        check_scores(model, found.X)
        same = convolutional(case, found).fit(found.plain, sample_weight=found.weight)
        assert_allclose(same.log_likelihoods_, model.log_likelihoods_, rtol=1e-9)


def convolutional_parameters(model):
    return model.weights_, model.spectra_, model.log_likelihoods_


@law(case=CASES)
def test_convolutional_order_and_repetition(case):
    found = data(case, *case.sides)
    start = convolutional_start(case, found, case.sides)

    def fit(X, weight, start):
        return fitted(convolutional(case, found, init=start), X, weight)

    with documented(found, "X must vary", "needs at least as many rows"):
        model, revived = fit(found.X, found.weight, start)
        if revived:  # the heaviest component was split: among equals that depends on the order
            return
        close = {"rtol": 1e-6, "atol": 1e-12 * found.scale**2}
        rows = found.rng.permutation(len(found.X))
        weight = None if found.weight is None else found.weight[rows]
        other, _ = fit(found.X[rows], weight, start)
        for a, b in zip(convolutional_parameters(other), convolutional_parameters(model), strict=True):
            assert_allclose(a, b, **close)
        order = found.rng.permutation(case.n_components)
        other, _ = fit(found.X, found.weight, {key: values[order] for key, values in start.items()})
        assert_allclose(other.spectra_, model.spectra_[order], **close)
        assert_allclose(other.predict_proba(found.X), model.predict_proba(found.X)[:, order], atol=1e-6)
        counts = found.rng.integers(1, 4, len(found.X))
        weighted, _ = fit(found.X, counts, start)
        repeated, _ = fit(np.repeat(found.X, counts, axis=0), None, start)
        for a, b in zip(convolutional_parameters(weighted), convolutional_parameters(repeated), strict=True):
            assert_allclose(a, b, **close)


# Full covariances


def full(case, data, **others):
    others = {"max_iter": 3, "random_state": 0, "init": "random_from_data"} | others
    return FullGMM(case.n_components, tol=0.0, reg_covar=case.ridge * data.scale**2, **others)


def full_start(case, data, dimension):
    spread = (1.0 + case.ridge) * data.scale**2 * np.eye(dimension)
    return {
        "weights": data.rng.dirichlet(np.full(case.n_components, 5.0)),
        "means": data.plain[data.rng.choice(len(data.plain), case.n_components, replace=False)],
        "covariances": 10 * spread * np.exp(data.rng.standard_normal((case.n_components, 1, 1))),
    }


SINGULAR = ("singular", "never vary", "needs at least as many rows")


@law(case=CASES)
def test_full_fits(case):
    found = data(case, sum(case.sides))
    with documented(found, "needs at least as many rows", *(SINGULAR if case.ridge == 0 else ())):
        model, revived = fitted(full(case, found), found.X, found.weight)
        assert_allclose(model.weights_.sum(), 1.0, rtol=1e-12)
        assert np.isfinite(model.means_).all()
        assert np.isfinite(model.covariances_).all()
        assert np.isfinite(model.log_likelihoods_).all()
        # With a ridge another objective climbs.
        assert revived or case.ridge > 0 or climbs(model.log_likelihoods_)
        if case.ridge > 0:
            check_scores(model, found.X)
            same = full(case, found).fit(found.plain, sample_weight=found.weight)
            assert_allclose(same.log_likelihoods_, model.log_likelihoods_, rtol=1e-7, atol=1e-7)


def full_parameters(model, scale):
    return model.weights_, model.means_ / scale, model.covariances_ / scale**2, model.log_likelihoods_


@law(case=CASES)
def test_full_order_and_repetition(case):
    case = case._replace(ridge=1e-3)
    found = data(case, sum(case.sides))
    start = full_start(case, found, sum(case.sides))

    def fit(X, weight, start):
        return fitted(full(case, found, init=start), X, weight)

    with documented(found, "needs at least as many rows"):
        model, revived = fit(found.X, found.weight, start)
        if revived:
            return
        close = {"rtol": 1e-5, "atol": 1e-5}
        rows = found.rng.permutation(len(found.X))
        weight = None if found.weight is None else found.weight[rows]
        other, _ = fit(found.X[rows], weight, start)
        pairs = zip(full_parameters(other, found.scale), full_parameters(model, found.scale), strict=True)
        for a, b in pairs:
            assert_allclose(a, b, **close)
        order = found.rng.permutation(case.n_components)
        other, _ = fit(found.X, found.weight, {key: values[order] for key, values in start.items()})
        assert_allclose(other.means_ / found.scale, model.means_[order] / found.scale, **close)
        assert_allclose(other.predict_proba(found.X), model.predict_proba(found.X)[:, order], atol=1e-5)
        counts = found.rng.integers(1, 4, len(found.X))
        weighted, _ = fit(found.X, counts, start)
        repeated, _ = fit(np.repeat(found.X, counts, axis=0), None, start)
        pairs = zip(
            full_parameters(weighted, found.scale), full_parameters(repeated, found.scale), strict=True
        )
        for a, b in pairs:
            assert_allclose(a, b, **close)


# The others


OTHERS = ("classifier", "discriminative", "penalised", "phase-blind", "stack", "templates")


def other(name, data):
    floor, ridge, few = 1e-4 * data.scale**2, 1e-3 * data.scale**2, {"max_iter": 2, "random_state": 0}
    lowest = ConvolutionalGMM(2, variance_floor=floor, **oracles.WHOLE_RUN | few)
    y = np.arange(len(data.X)) % 2
    return {
        "templates": TransformedGMM(2, variance_floor=floor, **oracles.WHOLE_RUN | few),
        "penalised": PenalisedGMM(
            2, variance_floor=floor, strength=0.1, penalty="band", **oracles.WHOLE_RUN | few
        ),
        "phase-blind": PhaseBlindGMM(2, reg_covar=ridge, init=y, **oracles.WHOLE_RUN | few),
        "classifier": GenerativeClassifier(lowest),
        "discriminative": DiscriminativeGMM(1, variance_floor=floor, em_iter=1, **few),
        "stack": StackedGMM([lowest, FullGMM(2, init=y, **few)]),
    }[name]


@law(case=CASES, name=st.sampled_from(OTHERS))
def test_other_mixtures(case, name):
    found = data(case, *case.sides)
    model, y = other(name, found), np.arange(len(found.X)) % 2
    texts = ("X must vary", "some amplitude", "needs at least as many rows", "of every class", "two classes")
    with documented(found, *texts), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(found.X, y, sample_weight=found.weight)
        proba = model.predict_proba(found.X)
        assert (proba >= 0).all()
        assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-12)
        if name == "classifier":
            assert_allclose(model.priors_.sum(), 1.0, rtol=1e-12)
        elif name == "stack":
            assert np.isfinite(model.score_samples(found.X)).all()
        else:
            check_scores(model, found.X)


@law(case=CASES)
def test_groups(case):
    found = data(case, 2, *case.sides)
    model = HierarchicalGMM(2, 2, variance_floor=1e-4 * found.scale**2, max_iter=2, random_state=0, tol=0.0)
    with documented(found, "X must vary", "needs at least as many"):
        model, revived = fitted(model, found.X, found.weight)
        assert revived or climbs(model.log_likelihoods_)
        assert_allclose(model.top_weights_.sum(), 1.0, rtol=1e-12)
        assert_allclose(model.conditionals_.sum(axis=1), 1.0, rtol=1e-12)
        check_scores(model, found.X)
        assert_allclose(model.predict_views_proba(found.X).sum(axis=2), 1.0, rtol=1e-12)
