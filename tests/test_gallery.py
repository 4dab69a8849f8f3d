"""What the component explorer is given: counted, decoded and compared with the model it shows."""

import base64
import io
import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from gmmlib import ConvolutionalGMM, FullGMM, StackedGMM, gallery
from gmmlib.stationary.transformed import TransformedGMM

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((60, 6, 5)) * RNG.choice([0.5, 2.0], (60, 1, 1))
LABELS = np.arange(60) % 3


def spectra():
    return ConvolutionalGMM(3, random_state=0, max_iter=5, tol=0.0).fit(IMAGES)


def tiles(data, heading):
    """The pictures of one sheet, (K, M, H, W)."""
    sheet = next(s for s in data["sheets"] if s["heading"] == heading)
    whole = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet["png"]))))
    h, w = sheet["height"], sheet["width"]
    return whole.reshape(-1, h, sheet["columns"], w).swapaxes(1, 2)


def test_components_come_by_falling_weight_with_what_they_claim():
    model = spectra()
    data = gallery.of_spectra("a-b", "Two words", model, IMAGES, LABELS).data
    order = np.argsort(-model.weights_, kind="stable")
    assert data["weights"] == np.round(model.weights_[order], 4).tolist()
    winner = model.predict(IMAGES)
    expected = [[int(((winner == k) & (LABELS == c)).sum()) for c in range(3)] for k in order]
    assert data["classes"] == expected
    joint = model.log_joint(IMAGES)
    for row, k in enumerate(order):
        others = np.delete(joint, k, axis=1)
        odds = joint[:, k] - np.logaddexp.reduce(others, axis=1)
        best = IMAGES[odds.argmax()]
        coarse = np.minimum(np.floor(16 * (best - best.min()) / np.ptp(best)), 15) * 17
        assert_array_equal(tiles(data, "most strongly claimed")[row, 0], coarse)


@pytest.mark.parametrize("last_digits", [-1e-12, 0.0, 1e-12])
def test_what_is_a_half_but_for_rounding_is_shown_alike_everywhere(last_digits):
    """Means of few 8-bit images are often halves of a level, and weights of few images halves of a digit."""
    values = np.array([0.0, 0.5, 127.5, 128.5, 255.0]) / 255
    nudge = np.array([0, 1, 1, 1, 0]) * last_digits
    assert_array_equal(gallery._levels((values + nudge)[None, None])[0, 0], [0, 1, 128, 129, 255])
    sheet = {"sheet": np.array([0.0, 3 / 16, 0.5, 1.0])[None, None, None] + [0, last_digits, last_digits, 0]}
    data = gallery.Gallery("a", "A", [0.03125 + last_digits], sheet).data
    assert_array_equal(tiles(data, "sheet")[0, 0, 0], [0, 3 * 17, 8 * 17, 15 * 17])
    assert data["weights"] == [0.0313]


def test_every_family_has_its_sheets():
    rows = IMAGES.reshape(60, -1)
    full = FullGMM(2, random_state=0, max_iter=3).fit(rows)
    stack = StackedGMM([spectra(), FullGMM(2, reg_covar=1e-2, random_state=0)], "log_joint").fit(IMAGES)
    shifted = TransformedGMM(2, random_state=0, max_iter=3, tol=0.0).fit(IMAGES)
    documents = [
        gallery.of_spectra("s", "S", spectra(), IMAGES),
        gallery.of_full("f", "F", full, IMAGES, LABELS),
        gallery.of_stack("t", "T", stack, IMAGES, LABELS),
        gallery.of_templates("m", "M", shifted, IMAGES, LABELS),
    ]
    headings = [[sheet["heading"] for sheet in g.data["sheets"]] for g in documents]
    assert headings == [
        ["most strongly claimed", "samples", "filter", "spectrum"],
        ["most strongly claimed", "samples", "mean", "largest variance"],
        ["most strongly claimed"],
        ["most strongly claimed", "template", "spectrum"],
    ]
    for document in documents:
        count = len(document.data["weights"])
        assert all(len(tiles(document.data, h["heading"])) == count for h in document.data["sheets"])
        json.dumps(document.data, allow_nan=False)


def test_the_nearest_are_others_by_falling_overlap():
    overlap = np.array([[1.0, 0.2, 0.9], [0.2, 1.0, 0.4], [0.9, 0.4, 1.0]])
    found = gallery.Gallery("n", "N", [0.2, 0.5, 0.3], {}, overlap=overlap).data["near"]
    # In the order of weights: components 1, 2, 0.
    assert found == [[[1, 0.4], [2, 0.2]], [[2, 0.9], [0, 0.4]], [[1, 0.9], [0, 0.2]]]


def test_a_notebook_shows_it_as_an_output_of_its_own_type():
    shown = gallery.of_spectra("s", "S", spectra(), IMAGES)
    bundle = shown._repr_mimebundle_()
    assert bundle[gallery.MIME] == shown.data
    assert bundle["text/plain"] == "3 components for the explorer"
    again = gallery.of_spectra("s", "S", spectra(), IMAGES)
    assert json.dumps(again.data) == json.dumps(shown.data)


def test_a_name_must_fit_into_an_address():
    with pytest.raises(ValueError, match=r"name must be of letters, digits and hyphens; got 'a b'\."):
        gallery.Gallery("a b", "A", [1.0], {})


def test_a_model_of_principal_components_is_shown_in_pixels():
    rows = IMAGES.reshape(60, -1)
    centre = rows.mean(axis=0)
    vectors = np.linalg.svd(rows - centre, full_matrices=False)[2][:6]
    model = FullGMM(2, random_state=0, max_iter=3).fit((rows - centre) @ vectors.T)
    data = gallery.of_full("p", "P", model, IMAGES, axes=(centre, vectors)).data
    order = np.argsort(-model.weights_, kind="stable")
    mean = (model.means_[order[0]] @ vectors + centre).reshape(6, 5)
    expected = np.round(255 * (mean - mean.min()) / np.ptp(mean))
    assert_array_equal(tiles(data, "mean")[0, 0], expected)
    assert tiles(data, "largest variance").shape == (2, 4, 6, 5)


def test_directions_of_equal_variance_are_left_out():
    """Among them an eigensolver's choice is arbitrary, and another on every processor."""
    turned = np.linalg.qr(RNG.standard_normal((6, 6)))[0]
    covariance = (turned * [9.0, 5.0, 5.0, 3.0, 1.0, 1.0]) @ turned.T
    found = gallery._leading(covariance)
    assert (np.abs(found[[1, 2]]) == 0).all()
    assert_array_equal(np.abs(found[[0, 3]] @ turned[:, [0, 3]]).round(9), np.eye(2))
