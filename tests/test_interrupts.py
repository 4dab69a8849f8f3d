"""Ctrl-C during a fit: the last complete parameters and their trace stay, and the error says so."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from gmmlib import ConvolutionalGMM, FullGMM
from gmmlib.compose.stack import StackedGMM
from gmmlib.compose.tree import TreeGMM
from gmmlib.em import interrupts
from gmmlib.stationary.discriminative import DiscriminativeGMM
from gmmlib.stationary.hierarchical import HierarchicalGMM
from gmmlib.stationary.penalised import PenalisedGMM
from gmmlib.stationary.transformed import TransformedGMM

RNG = np.random.default_rng(11)
X = RNG.standard_normal((120, 5, 6)) * RNG.choice([0.5, 2.0], 120)[:, None, None]
FITS = {
    "convolutional": (lambda **s: ConvolutionalGMM(3, max_iter=9, random_state=0, **s, tol=0.0), (X,)),
    "penalised": (lambda **s: PenalisedGMM(3, max_iter=9, random_state=0, **s, tol=0.0), (X,)),
    "full": (lambda **s: FullGMM(3, max_iter=9, tol=0, random_state=0, **s), (X.reshape(120, -1),)),
    "templates": (lambda **s: TransformedGMM(2, max_iter=9, random_state=0, **s, tol=0.0), (X,)),
    "hierarchical": (
        lambda **s: HierarchicalGMM(3, 2, max_iter=9, random_state=0, **s, tol=0.0),
        (X.reshape(60, 2, 5, 6),),
    ),
    "tree": (
        lambda **s: TreeGMM(
            FullGMM(3, max_iter=1, tol=0), [(1, 2, 3)], max_iter=9, random_state=0, **s, tol=0.0
        ),
        (X,),
    ),
    "discriminative": (
        lambda **s: DiscriminativeGMM(2, max_iter=9, random_state=0, **s),
        (X, np.arange(120) % 2),
    ),
}


@pytest.fixture(autouse=True)
def ctrl_c():
    """A shell lets what it starts in the background ignore Ctrl-C; these tests need Python's own answer."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def trace(model):
    return model.objectives_ if hasattr(model, "objectives_") else model.log_likelihoods_


@pytest.mark.parametrize("how", ["signal", "exception"])
@pytest.mark.parametrize("name", FITS)
def test_parameters_and_trace_of_the_last_iteration_stay(name, how):
    make, data = FITS[name]

    def press(model, iteration):
        if iteration == 4:
            if how == "exception":
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGINT)

    model = make(callback=press)
    with pytest.raises(KeyboardInterrupt) as caught:
        model.fit(*data)
    if how == "signal":
        assert "interrupted after 4 iterations; the model holds" in str(caught.value)
    shorter = make(callback=lambda model, iteration: iteration == 4).fit(*data)
    np.testing.assert_array_equal(trace(model), trace(shorter))
    np.testing.assert_array_equal(model.score_samples(data[0]), shorter.score_samples(data[0]))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_at_any_moment_leaves_whole_iterations():
    """The signal comes from another thread, in the middle of a step."""
    rng = np.random.default_rng(5)
    many = np.tile(X.reshape(120, -1), (40, 1))
    for delay in rng.uniform(0.01, 0.15, 8):
        model = FullGMM(3, max_iter=100_000, tol=0, init="random_from_data", random_state=0)
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            model.fit(many)
        except KeyboardInterrupt as error:
            timer.join()
            if "interrupted after" not in str(error):  # before the first step there is nothing to keep
                assert not hasattr(model, "weights_")
                continue
        assert len(model.log_likelihoods_) == model.n_iter_ + 1
        again = FullGMM(
            3, max_iter=max(model.n_iter_, 1), tol=0, init="random_from_data", random_state=0
        ).fit(many)
        np.testing.assert_array_equal(model.log_likelihoods_, again.log_likelihoods_[: model.n_iter_ + 1])
        if model.n_iter_:
            np.testing.assert_array_equal(model.means_, again.means_)


def test_the_second_press_is_not_held_back():
    def press_twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        time.sleep(1)

    with pytest.raises(KeyboardInterrupt), interrupts.deferred():
        press_twice()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_else_is_left_alone():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        ConvolutionalGMM(2, max_iter=2, callback=lambda *_: signal.raise_signal(signal.SIGINT), tol=0.0).fit(
            X
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [1, 1, 1]


def test_fits_outside_the_main_thread_run_as_ever():
    models = []
    thread = threading.Thread(target=lambda: models.append(ConvolutionalGMM(2, max_iter=2, tol=0.0).fit(X)))
    thread.start()
    thread.join()
    assert models[0].n_iter_ == 2


def test_an_interrupted_stack_says_which_layer_and_stays_as_it_was():
    def press(model, iteration):
        signal.raise_signal(signal.SIGINT)

    layers = [
        ConvolutionalGMM(3, max_iter=2, random_state=0, tol=0.0),
        FullGMM(2, callback=press, random_state=0),
    ]
    stack = StackedGMM(layers, codes="log_joint")
    with pytest.raises(KeyboardInterrupt) as caught:
        stack.fit(X)
    assert "layers[1]" in caught.value.__notes__[0]
    assert not hasattr(stack, "layers_")


def test_an_interrupted_fit_can_go_on_from_its_checkpoint(tmp_path):
    def press(model, iteration):
        if iteration == 3:
            signal.raise_signal(signal.SIGINT)

    path = tmp_path / "fit.npz"
    with pytest.raises(KeyboardInterrupt):
        ConvolutionalGMM(3, max_iter=9, random_state=0, checkpoint=path, callback=press, tol=0.0).fit(X)
    model = ConvolutionalGMM(3, max_iter=9, random_state=0, checkpoint=path, tol=0.0).fit(X)
    expected = ConvolutionalGMM(3, max_iter=9, random_state=0, tol=0.0).fit(X)
    np.testing.assert_array_equal(model.spectra_, expected.spectra_)
    np.testing.assert_array_equal(model.log_likelihoods_, expected.log_likelihoods_)
