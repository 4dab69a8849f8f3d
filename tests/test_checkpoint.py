"""Fits that are killed, and go on: the same bits as those of one that was left alone."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from gmmlib import ConvolutionalGMM, FullGMM
from gmmlib.storage import ModelFileError
from gmmlib.templates import TransformedGMM

N_KILLS = 20


def images(n=400):
    rng = np.random.default_rng(7)
    return rng.standard_normal((n, 5, 7)) * rng.choice([0.3, 1.0, 2.0], n)[:, None, None]


def convolutional(**settings):
    return ConvolutionalGMM(3, max_iter=12, random_state=1, **settings)


def full(**settings):
    return FullGMM(4, max_iter=12, tol=0, random_state=1, **settings)


FITS = {
    "convolutional": (lambda **s: convolutional(**s), images()),
    "stochastic": (lambda **s: convolutional(mechanism="stochastic", **s), images()),
    "annealed": (lambda **s: convolutional(mechanism="annealed", **s), images()),
    "full": (lambda **s: full(**s), images().reshape(400, -1)),
    "pruned": (lambda **s: full(min_weight=0.2, **s), images().reshape(400, -1)),
    "random": (lambda **s: full(init="random_from_data", **s), images().reshape(400, -1)),
    "templates": (lambda **s: TransformedGMM(2, max_iter=6, random_state=1, **s), images(40)),
}


class Stop(Exception):
    """Ends a fit in the middle, as a fault would."""


def stopped_at(last):
    def callback(model, iteration):
        if iteration == last:
            raise Stop

    return callback


def learned(model):
    return {k: v for k, v in vars(model).items() if k.endswith("_") and isinstance(v, np.ndarray)}


def assert_same_bits(model, expected):
    found, wanted = learned(model), learned(expected)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name].tobytes() == values.tobytes(), name
    assert (model.n_iter_, model.converged_) == (expected.n_iter_, expected.converged_)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fit.npz"


@pytest.mark.parametrize("last", [1, 2, 5])
@pytest.mark.parametrize("name", FITS)
def test_a_fit_goes_on_to_the_same_bits_and_tidies_up(name, last, path):
    make, X = FITS[name]
    with pytest.raises(Stop):
        make(checkpoint=path, callback=stopped_at(last)).fit(X)
    seen = []
    model = make(checkpoint=str(path), callback=lambda model, iteration: seen.append(iteration)).fit(X)
    assert seen[0] == last  # what was done is not done again
    assert_same_bits(model, make().fit(X))
    assert list(path.parent.iterdir()) == []


def test_a_fit_may_go_on_for_longer(path):
    X = images()
    with pytest.raises(Stop):
        convolutional(checkpoint=path, callback=stopped_at(6)).fit(X)
    model = convolutional(checkpoint=path).set_params(max_iter=20).fit(X)
    assert_same_bits(model, convolutional().set_params(max_iter=20).fit(X))


def fit_and_save(name, path, result):
    make, X = FITS[name]
    make(checkpoint=path).set_params(max_iter=40).fit(X).save(result)


@pytest.mark.parametrize("name", ["convolutional", "full"])
def test_killed_at_random_moments_it_still_ends_with_the_same_bits(name, path, tmp_path, record_property):
    """SIGKILL, again and again; each new process takes up what the one before has left."""
    make, X = FITS[name]
    expected = make().set_params(max_iter=40).fit(X)
    result = tmp_path / "result.npz"
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["gmmlib", "tests.test_checkpoint"])
    rng = np.random.default_rng(3)
    kills, seconds = 0, []
    while kills < N_KILLS:
        child = start.Process(target=fit_and_save, args=(name, path, result))
        begin = time.monotonic()
        child.start()
        if len(seconds) > 1:  # the first two are left alone: the second says how long one takes
            child.join(seconds[1] * rng.random())
            child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        if child.exitcode != -signal.SIGKILL:
            assert child.exitcode == 0
            seconds.append(time.monotonic() - begin)
            assert_same_bits(type(expected).load(result), expected)
    fit_and_save(name, path, result)
    assert_same_bits(type(expected).load(result), expected)
    assert not path.exists()
    record_property("kills", kills)


def test_an_unreadable_checkpoint_is_refused_and_kept_with_the_one_before(path):
    X = images()
    with pytest.raises(Stop):
        convolutional(checkpoint=path, callback=stopped_at(4)).fit(X)
    path.write_bytes(path.read_bytes()[:-100])
    damaged = path.read_bytes()
    with pytest.raises(ModelFileError, match=r"checkpoint=.*fit.npz.*state before it is in .*previous"):
        convolutional(checkpoint=path).fit(X)
    assert path.read_bytes() == damaged
    previous = path.with_name("fit.npz.previous")
    previous.rename(path)
    assert_same_bits(convolutional(checkpoint=path).fit(X), convolutional().fit(X))


def test_between_two_renames_the_previous_state_serves(path):
    X = images()
    with pytest.raises(Stop):
        convolutional(checkpoint=path, callback=stopped_at(4)).fit(X)
    path.unlink()
    seen = []
    convolutional(checkpoint=path, callback=lambda model, iteration: seen.append(iteration)).fit(X)
    assert seen[0] == 3


@pytest.mark.parametrize(
    ("settings", "rows", "weight", "message"),
    [
        ({"variance_floor": 1e-3}, 400, 1, r"other settings \(variance_floor: 1e-06 there, 0.001 here\)"),
        ({"random_state": 2}, 400, 1, "other settings"),
        ({}, 399, 1, "other data"),
        ({}, 400, 2, "other data"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(settings, rows, weight, message, path):
    X = images()
    with pytest.raises(Stop):
        convolutional(checkpoint=path, callback=stopped_at(3)).fit(X)
    with pytest.raises(ModelFileError, match=message):
        convolutional(checkpoint=path).set_params(**settings).fit(
            X[:rows], sample_weight=np.full(rows, weight)
        )
    assert path.exists()


def test_a_model_is_no_checkpoint(path):
    X = images()
    convolutional().fit(X).save(path)
    with pytest.raises(
        ModelFileError, match="holds a ConvolutionalGMM; expected a ConvolutionalGMM checkpoint"
    ):
        convolutional(checkpoint=path).fit(X)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(path, monkeypatch):
    X = images()

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    with pytest.raises(Stop):
        convolutional(checkpoint=path, callback=stopped_at(3)).fit(X)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space left"):
            convolutional(checkpoint=path).fit(X)
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["fit.npz", "fit.npz.previous"]
    assert_same_bits(convolutional(checkpoint=path).fit(X), convolutional().fit(X))


def test_what_is_no_path_is_refused():
    with pytest.raises(ValueError, match="checkpoint must be the path of a file, or None; got 3"):
        convolutional(checkpoint=3).fit(images())
