"""The conventions of scikit-learn, checked by its own checks; images come as rows through an adapter."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from gmmlib.compose.classify import GenerativeClassifier
from gmmlib.compose.convolutional_stack import ConvolutionalStack
from gmmlib.compose.patch_layer import PatchLayer
from gmmlib.compose.stack import StackedGMM
from gmmlib.compose.tree import TreeGMM
from gmmlib.full.estimator import FullGMM
from gmmlib.stationary.convolutional import ConvolutionalGMM
from gmmlib.stationary.discriminative import DiscriminativeGMM
from gmmlib.stationary.hierarchical import HierarchicalGMM
from gmmlib.stationary.penalised import PenalisedGMM
from gmmlib.stationary.phaseblind import PhaseBlindGMM
from gmmlib.stationary.transformed import TransformedGMM
from tests.subjects import CLASSES, SUBJECTS


def passed_on(name):
    """A method that makes images of rows and calls that of the estimator."""

    def method(self, X, *others):
        check_is_fitted(self)
        return getattr(self.estimator_, name)(self.images(X, reset=False), *others)

    return available_if(lambda self: hasattr(self.estimator, name))(method)


class OfRows(BaseEstimator):
    """An estimator of images (N, 1, W), or of groups (N, 1, 1, W), that takes rows (N, W).

    That there are two axes and as many columns as in the fit is checked here; all else is the estimator's
    own doing.
    """

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X, y=None, sample_weight=None):
        X = self.images(X, reset=True)
        if is_classifier(self.estimator):
            y = validate_data(self, y=y)
        self.estimator_ = clone(self.estimator).fit(X, y, sample_weight=sample_weight)
        for name in ("classes_", "n_iter_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    def images(self, X, reset):
        X = validate_data(self, X, reset=reset, dtype="numeric", ensure_all_finite=False)
        sides = 2 if isinstance(self.estimator, HierarchicalGMM) else 1
        return X.reshape(len(X), *[1] * sides, -1)

    def score(self, X, y=None):
        check_is_fitted(self)
        return self.estimator_.score(self.images(X, reset=False), y)

    @available_if(lambda self: hasattr(self.estimator, "fit_transform"))
    def fit_transform(self, X, y=None):
        return self.fit(X, y).transform(X)

    def __sklearn_tags__(self):
        tags = self.estimator.__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = True, False
        if tags.classifier_tags is not None:
            tags.classifier_tags.poor_score = (
                True  # the classes of the checks differ in means, not in spectra
            )
        return tags

    predict = passed_on("predict")
    predict_proba = passed_on("predict_proba")
    predict_log_proba = passed_on("predict_log_proba")
    decision_function = passed_on("decision_function")
    score_samples = passed_on("score_samples")
    transform = passed_on("transform")


LOWEST = ConvolutionalGMM(2, max_iter=2, random_state=0, tol=0.0)
OF_ROWS = PatchLayer(LOWEST, side=1, pooling="sum", random_state=0)
CHECKED = {
    "ConvolutionalGMM": OfRows(ConvolutionalGMM(2, max_iter=3, random_state=0, tol=0.0)),
    "ConvolutionalStack": OfRows(ConvolutionalStack([OF_ROWS], FullGMM(1))),
    "ConvolutionalStack of classes": OfRows(ConvolutionalStack([OF_ROWS], GenerativeClassifier(FullGMM(1)))),
    "DiscriminativeGMM": OfRows(DiscriminativeGMM(1, max_iter=3, random_state=0)),
    "FullGMM": FullGMM(2, random_state=0),
    "GenerativeClassifier of images": OfRows(GenerativeClassifier(ConvolutionalGMM(1, max_iter=2, tol=0.0))),
    "GenerativeClassifier of rows": GenerativeClassifier(FullGMM(1)),
    "HierarchicalGMM": OfRows(HierarchicalGMM(2, 2, max_iter=3, random_state=0, tol=0.0)),
    "HierarchicalGMM, by position": OfRows(
        HierarchicalGMM(2, 2, by_position=True, max_iter=3, random_state=0, tol=0.0)
    ),
    "PenalisedGMM": OfRows(PenalisedGMM(2, max_iter=3, random_state=0, tol=0.0)),
    "PhaseBlindGMM": OfRows(PhaseBlindGMM(2, max_iter=3, random_state=0)),
    "StackedGMM of images": OfRows(StackedGMM([LOWEST, FullGMM(1)])),
    "StackedGMM of rows": StackedGMM([FullGMM(2, random_state=0), FullGMM(1)]),
    "TransformedGMM": OfRows(TransformedGMM(2, max_iter=3, random_state=0, tol=0.0)),
    "TreeGMM": OfRows(TreeGMM(LOWEST, [(1, 1, 2)], max_iter=3, random_state=0, tol=0.0)),
}
DRAWN = "the start is drawn from the rows, and repeated rows are others to draw from"
WORDS = "the text says how many rows there are and how many are needed, in other words"
BY_DRAWING = {"check_sample_weight_equivalence_on_dense_data": DRAWN}
OF_TWO = {"check_fit2d_1sample": WORDS}
EXPECTED = {
    "ConvolutionalGMM": BY_DRAWING | OF_TWO,
    "ConvolutionalStack": BY_DRAWING,
    "ConvolutionalStack of classes": BY_DRAWING,
    "FullGMM": BY_DRAWING,
    "HierarchicalGMM": BY_DRAWING | OF_TWO,
    "HierarchicalGMM, by position": BY_DRAWING | OF_TWO,
    "PenalisedGMM": BY_DRAWING | OF_TWO,
    "PhaseBlindGMM": BY_DRAWING | OF_TWO,
    "StackedGMM of images": OF_TWO,
    "StackedGMM of rows": OF_TWO,
    "TransformedGMM": BY_DRAWING | OF_TWO,
    "TreeGMM": OF_TWO,
}


def test_every_estimator_is_checked():
    assert CHECKED.keys() == SUBJECTS.keys() - {
        "ConvolutionalGMM of cosines",
        "ConvolutionalGMM of pixels",
        "FullGMM, values missing",
        "TreeGMM of vectors",
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CHECKED)
def test_the_checks_of_scikit_learn_pass(name):
    expected = EXPECTED.get(name, {})
    results = check_estimator(CHECKED[name], expected_failed_checks=expected, on_fail=None)
    found = {status: {} for status in ("passed", "failed", "xfail", "skipped")}
    for result in results:
        found[result["status"]][result["check_name"]] = str(result["exception"])
    assert found["failed"] == {}
    assert found["xfail"].keys() == expected.keys()  # what is expected to fail does
    assert set(found["skipped"]) <= {"check_array_api_input"}
    assert len(found["passed"]) > 38


WITH_COMPONENTS = [name for name, (model, _) in SUBJECTS.items() if hasattr(model, "n_components")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WITH_COMPONENTS)
def test_a_grid_search_over_the_number_of_components_works(name):
    model, X = SUBJECTS[name]
    grid = GridSearchCV(clone(model), {"n_components": [1, 2]}, cv=2, error_score="raise")
    grid.fit(X[::2], CLASSES[::2])
    scores = grid.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert scores[grid.best_index_] == scores.max()
    labels = (CLASSES,) if is_classifier(model) else ()
    assert grid.score(X, *labels) == grid.best_estimator_.score(X, *labels)
