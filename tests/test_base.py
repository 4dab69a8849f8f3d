"""What mixtures inherit, shown on one that is made here: its module is all that a new one needs."""

from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm
from sklearn.base import clone
from sklearn.mixture import GaussianMixture

from gmmlib import _checks, posterior
from gmmlib.base import Mixture, Scoring
from gmmlib.em.workers import Workers
from tests.subjects import CLASSES, IMAGES, ROWS, SUBJECTS

MIXTURES = [name for name, (model, _) in SUBJECTS.items() if isinstance(model, Mixture)]


class Statistics(NamedTuple):
    mass: np.ndarray  # (K,)
    first: np.ndarray  # (K, D)
    second: np.ndarray  # (K, D)
    log_likelihood: float


def log_joint(weights, means, variances, X):
    """Log joints (N, K) of diagonal Gaussians."""
    return np.log(weights) + norm(means, np.sqrt(variances)).logpdf(X[:, None]).sum(axis=2)


class DiagonalGMM(Mixture):
    """Mixture of Gaussians with diagonal covariances."""

    def __init__(
        self, n_components, *, max_iter=50, tol=0.0, random_state=None, callback=None, progress=False
    ):
        self.n_components = n_components
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.callback = callback
        self.progress = progress

    def fit(self, X, y=None, sample_weight=None):
        weight = _checks.sample_weight(sample_weight, len(X))
        means = X[_checks.generator(self.random_state).choice(len(X), self.n_components, replace=False)]
        start = np.full(len(means), 1 / len(means)), means, np.tile(X.var(axis=0), (len(means), 1))

        def statistics(parameters, rows):
            joint = log_joint(*parameters, X[rows])
            resp = posterior.proba(joint) * weight[rows, None]
            first, second = resp.T @ X[rows], resp.T @ X[rows] ** 2
            return Statistics(resp.sum(axis=0), first, second, weight[rows] @ posterior.evidence(joint))

        def e_step(parameters):
            total = workers.sum(lambda rows: statistics(parameters, rows), len(X))
            return total, total.log_likelihood / weight.sum()

        with Workers(7, 7) as workers:
            self._run_em(start, e_step, self._m_step, self._put)
        return self

    @staticmethod
    def _m_step(total):
        means = total.first / total.mass[:, None]
        return total.mass / total.mass.sum(), means, total.second / total.mass[:, None] - means**2

    def _put(self, parameters):
        self.weights_, self.means_, self.variances_ = parameters

    def n_parameters(self):
        return self.weights_.size - 1 + 2 * self.means_.size

    def _scoring(self, X, everything):
        parameters = self.weights_, self.means_, self.variances_
        return Scoring(
            len(X), len(self.weights_), lambda rows: log_joint(*parameters, X[rows]), Workers(7, 7)
        )

    def _draw(self, labels, rng):
        noise = rng.standard_normal((len(labels), self.means_.shape[1]))
        return self.means_[labels] + np.sqrt(self.variances_)[labels] * noise


@pytest.fixture
def diagonal():
    return DiagonalGMM(2, random_state=0).fit(ROWS)


def test_a_new_mixture_learns_what_scikit_learn_does(diagonal):
    peer = GaussianMixture(
        2, covariance_type="diag", means_init=diagonal.means_, reg_covar=0, tol=1e-12, max_iter=500
    ).fit(ROWS)
    assert_allclose(diagonal.means_, peer.means_, atol=1e-4)
    assert_allclose(diagonal.score_samples(ROWS), peer.score_samples(ROWS), atol=1e-4)
    assert_allclose(diagonal.bic(ROWS), peer.bic(ROWS), atol=1e-2)
    assert_allclose(diagonal.aic(ROWS), peer.aic(ROWS), atol=1e-2)
    assert_array_equal(diagonal.predict(ROWS), peer.predict(ROWS))


def test_a_new_mixture_climbs_and_says_what_it_did(diagonal):
    assert diagonal.n_iter_ == 50
    assert not diagonal.converged_
    assert np.diff(diagonal.log_likelihoods_).min() > -1e-12
    stopped = DiagonalGMM(2, random_state=0, callback=lambda model, iteration: iteration == 3).fit(ROWS)
    assert_array_equal(stopped.log_likelihoods_, diagonal.log_likelihoods_[:4])


def test_a_new_mixture_draws_what_it_has_learned(diagonal):
    X, labels = diagonal.sample(4000, random_state=1)
    for k in range(2):
        own = X[labels == k]
        assert (np.abs(own.mean(axis=0) - diagonal.means_[k]) < 5 * own.std(axis=0) / len(own) ** 0.5).all()
    assert diagonal.sample_components([1, 0, 1], random_state=0).shape == (3, 3)


@pytest.mark.parametrize("name", MIXTURES)
def test_posteriors_are_joints_over_evidence(name):
    model, X = SUBJECTS[name]
    model = clone(model).fit(X)
    joint = model.log_joint(X)
    evidence = np.logaddexp.reduce(joint, axis=1)
    assert_allclose(model.score_samples(X), evidence, rtol=1e-12)
    assert model.score(X) == pytest.approx(evidence.mean(), rel=1e-12)
    assert_allclose(model.predict_proba(X), np.exp(joint - evidence[:, None]), atol=1e-12)
    assert_allclose(model.predict_log_proba(X), joint - evidence[:, None], rtol=1e-9, atol=1e-9)
    assert_array_equal(model.predict(X), joint.argmax(axis=1))
    assert_array_equal(clone(model).fit_predict(X), model.predict(X))


@pytest.mark.parametrize("name", MIXTURES)
def test_criteria_count_what_is_learned(name):
    model, X = SUBJECTS[name]
    model = clone(model).fit(X)
    n, total = model.n_parameters(), model.score_samples(X).sum()
    assert model.aic(X) == pytest.approx(2 * n - 2 * total, rel=1e-12)
    assert model.bic(X) == pytest.approx(n * np.log(len(X)) - 2 * total, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ConvolutionalGMM", 1 + 2 * 7),  # 3 x 4 pixels: two powers are their own mirrors, and five pairs
        ("FullGMM", 1 + 2 * (3 + 6)),
        ("TransformedGMM", 1 + 2 * (12 + 7)),
        ("PhaseBlindGMM", 1 + 2 * (7 + 28)),
        ("HierarchicalGMM", 1 + 2 * 1 + 2 * 7),
        ("HierarchicalGMM, by position", 1 + 2 * 2 * 1 + 2 * 7),
        ("TreeGMM", 1 + 2 * 2 * 1 + 2 * 4),  # 3 x 2 pixels: two powers of each column, and one pair
    ],
)
def test_parameters_by_hand(name, expected):
    model, X = SUBJECTS[name]
    assert clone(model).fit(X).n_parameters() == expected


@pytest.mark.parametrize("name", MIXTURES)
def test_components_are_drawn_as_in_a_sample(name):
    model, X = SUBJECTS[name]
    model = clone(model).fit(X)
    drawn, labels, *_ = model.sample(9, random_state=3)
    rng = np.random.default_rng(3)
    if name.startswith("HierarchicalGMM"):  # which draws its labels one by one
        rng.choice(2, 9, p=model.top_weights_)
    else:
        rng.multinomial(9, model.weights_)
    assert_array_equal(model.sample_components(labels, rng), drawn)


PROTOCOL = {
    *("log_joint", "score_samples", "score", "predict", "predict_proba", "predict_log_proba", "fit_predict"),
    *("n_parameters", "aic", "bic", "sample", "sample_components"),
}
CRITERIA = {"aic", "bic"}  # a classifier is no density of rows alone, and a stack is one of codes
ABSENT = {
    "ConvolutionalStack": CRITERIA | {"fit_predict", "sample", "sample_components"},
    "DiscriminativeGMM": CRITERIA | {"n_parameters", "fit_predict", "sample", "sample_components"},
    "GenerativeClassifier": CRITERIA | {"score_samples", "fit_predict", "sample", "sample_components"},
    "StackedGMM": CRITERIA | {"fit_predict", "sample_components"},
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_estimator_answers_what_makes_sense_of_it(name):
    model, X = SUBJECTS[name]
    model = clone(model).fit(X, CLASSES, sample_weight=np.ones(len(X)))
    absent = {method for method in PROTOCOL if not hasattr(model, method)}
    assert absent == ABSENT.get(type(model).__name__, set())
    if X.ndim > 2:
        assert model.image_shape_ == X.shape[-2:]
    else:
        assert model.n_features_in_ == X.shape[1]


def test_models_of_models_count_what_their_parts_have_learned():
    stack = clone(SUBJECTS["StackedGMM of images"][0]).fit(IMAGES)
    lowest, top = stack.layers_
    assert stack.n_parameters() == lowest.n_parameters() + top.n_parameters()
    classifier = clone(SUBJECTS["GenerativeClassifier of rows"][0]).fit(ROWS, CLASSES)
    of_densities = sum(density.n_parameters() for density in classifier.densities_)
    assert classifier.n_parameters() == of_densities + 1
    assert classifier.set_params(priors=[0.5, 0.5]).fit(ROWS, CLASSES).n_parameters() == of_densities


def test_log_posteriors_of_a_stack_are_those_of_its_top_layer():
    stack = clone(SUBJECTS["StackedGMM of images"][0]).fit(IMAGES)
    assert_allclose(np.exp(stack.predict_log_proba(IMAGES)), stack.predict_proba(IMAGES), rtol=1e-12)
