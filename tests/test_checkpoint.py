"""Fits that are killed, and go on: the same bits as those of one that was left alone."""

import copy
import functools
import importlib
import inspect
import json
import multiprocessing
import os
import pkgutil
import signal
import threading
import time

import numpy as np
import pytest

import gmmlib
from gmmlib import ConvolutionalGMM, FullGMM, TreeGMM, checkpoint, storage
from gmmlib.stationary.transformed import TransformedGMM
from gmmlib.storage import ModelFileError

N_KILLS = 20


def images(n=400):
    rng = np.random.default_rng(7)
    return rng.standard_normal((n, 5, 7)) * rng.choice([0.3, 1.0, 2.0], n)[:, None, None]


def convolutional(**settings):
    return ConvolutionalGMM(3, max_iter=12, random_state=1, **settings, tol=0.0)


def full(**settings):
    return FullGMM(4, max_iter=12, tol=0, random_state=1, **settings)


FITS = {
    "convolutional": (lambda **s: convolutional(**s), images()),
    "stochastic": (lambda **s: convolutional(algorithm="sem", **s), images()),
    "annealed": (lambda **s: convolutional(algorithm="annealed", **s), images()),
    "full": (lambda **s: full(**s), images().reshape(400, -1)),
    "pruned": (lambda **s: full(min_weight=0.2, **s), images().reshape(400, -1)),
    "random": (lambda **s: full(init="random_from_data", **s), images().reshape(400, -1)),
    "templates": (lambda **s: TransformedGMM(2, max_iter=6, random_state=1, **s, tol=0.0), images(40)),
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
    result = tmp_path / "results" / "model.npz"  # what a killed `save` leaves is not a checkpoint's
    result.parent.mkdir()
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
    assert os.listdir(path.parent) == [result.parent.name]
    record_property("kills", kills)


def stopped(make, X, path, last=3, **fit):
    """Leave the checkpoint of a fit that ended in the middle."""
    with pytest.raises(Stop):
        make(checkpoint=path, callback=stopped_at(last)).fit(X, **fit)


def refused(make, X, path, match, **fit):
    """A fit with the checkpoint of another one is refused, and the file is as it was."""
    before = path.read_bytes()
    with pytest.raises(ModelFileError, match=match) as caught:
        make(checkpoint=path).fit(X, **fit)
    assert str(caught.value).startswith(
        f"checkpoint={str(path)!r} must be a checkpoint of this fit, or no file"
    )
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_an_unreadable_checkpoint_is_refused_and_kept(path):
    stopped(convolutional, images(), path)
    path.write_bytes(path.read_bytes()[:-100])
    refused(convolutional, images(), path, "no readable model file .*To begin again, name another file")


def test_a_checkpoint_that_cannot_be_opened_is_not_to_be_removed(path, monkeypatch):
    stopped(convolutional, images(), path)

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage, "open", refuse, raising=False)
    with pytest.raises(ModelFileError, match="cannot be read .PermissionError: Permission denied") as caught:
        convolutional(checkpoint=path).fit(images())
    assert "begin again" not in str(caught.value)


# --- all that decides a fit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "weight", "message"),
    [
        (
            399,
            None,
            r"another fit .X: '<f8 .400, 5, 7. [0-9a-f]{16}' there, '<f8 .399, 5, 7. [0-9a-f]{16}' here",
        ),
        (400, 2.0, r"another fit .sample_weight: '<f8 .400,. [0-9a-f]{16}' there"),
    ],
)
def test_a_checkpoint_of_other_data_is_refused(rows, weight, message, path):
    stopped(convolutional, images(), path)
    weight = None if weight is None else np.full(rows, weight)
    refused(convolutional, images()[:rows], path, message, sample_weight=weight)


def test_one_number_in_another_place_is_other_data(path):
    X = images()
    stopped(convolutional, X, path)
    other = X.copy()
    other[399, 4, 6] = np.nextafter(other[399, 4, 6], 9)
    refused(convolutional, other, path, "another fit .X: ")
    refused(convolutional, X.astype(np.float32), path, "another fit .X: '<f8")
    refused(convolutional, X.reshape(400, 7, 5), path, "another fit .X: ")


ROWS = images().reshape(400, -1)
HALF = np.arange(400) % 4
SPECTRA = np.ones((3, 5, 4)) * np.arange(1, 4)[:, None, None]
EYES = np.stack([np.eye(35)] * 4)
MEANS = np.random.default_rng(0).standard_normal((4, 35))
SHARES = np.array([0.25, 0.25, 0.25, 0.25])
# Another value of each parameter, in each form that it may have, and the name that the error gives.
OTHERS = {
    "n_components": [1],
    "basis": ["cosine", "pixel"],
    "zero_mean_patches": [True],
    "variance_floor": [1e-3],
    "reg_covar": [1e-3],
    "zero_means": [True],
    "min_weight": [0.01],
    "allow_missing": [True],
    "warm_start": [True],
    "max_shift": [1],
    "leaf": [FullGMM(3, reg_covar=0.2, max_iter=2, tol=0)],
    "levels": [[(2, 2, 3)], [(1, 2, 2), (2, 1, 2)]],
    "share_tables": ["cells"],
    "fit_leaves": [False],
    "noise": ["white"],
    "chunk_size": [100],
    "algorithm": [
        "sem",
        "cem",
        {"name": "annealed", "start": 0.1, "rate": 1.2},
        {"name": "annealed", "start": 0.1, "rate": 1.3},
        {"name": "annealed", "start": 0.2, "rate": 1.2},
    ],
    "random_state": [
        None,
        1,
        np.random.default_rng(0),
        np.random.default_rng(1),
        np.random.Generator(np.random.MT19937(0)),
        np.random.RandomState(0),
        np.random.RandomState(1),
    ],
    "tol": [1.0],
    "max_iter": [2],
}
LEAF = FullGMM(3, reg_covar=0.1, max_iter=2, tol=0)
STARTS = {
    "TreeGMM": ["kmeans", "random_from_data"],
    "ConvolutionalGMM": [
        "random_from_data",
        {"weights": np.full(3, 1 / 3), "spectra": SPECTRA},
        {"weights": np.array([0.5, 0.25, 0.25]), "spectra": SPECTRA},
        {"weights": np.full(3, 1 / 3), "spectra": SPECTRA[::-1]},
    ],
    "FullGMM": [
        "kmeans",
        "random_from_data",
        HALF,
        HALF[::-1].copy(),
        {"weights": SHARES, "means": MEANS, "covariances": EYES},
        {"weights": SHARES, "means": MEANS, "precisions": EYES},
        {"weights": SHARES, "means": MEANS, "precisions": 2 * EYES},
        {"weights": SHARES[[0, 1, 2, 3]] * [1, 1, 0.5, 1.5], "means": MEANS, "covariances": EYES},
        {"weights": SHARES, "means": MEANS + 1e-15, "covariances": EYES},
    ],
    "TransformedGMM": [
        "random_from_data",
        {"weights": np.full(2, 0.5), "means": images(2), "spectra": SPECTRA[:2]},
        {"weights": np.full(2, 0.5), "means": images(2)[::-1], "spectra": SPECTRA[:2]},
    ],
}
SMALL = {
    "ConvolutionalGMM": (
        lambda **s: ConvolutionalGMM(**{"n_components": 3, "max_iter": 6, "tol": 0.0} | s),
        images(),
    ),
    "FullGMM": (lambda **s: FullGMM(**{"n_components": 4, "max_iter": 6, "tol": 0} | s), ROWS),
    "TransformedGMM": (
        lambda **s: TransformedGMM(**{"n_components": 2, "max_iter": 5, "tol": 0.0} | s),
        images(40),
    ),
    "TreeGMM": (
        lambda **s: TreeGMM(**{"leaf": LEAF, "levels": [(2, 2, 2)], "max_iter": 6, "tol": 0.0} | s),
        images(60)[:, :4, :6],
    ),
}
KINDS = {kind.__name__: kind for kind in (ConvolutionalGMM, FullGMM, TransformedGMM, TreeGMM)}
ENDS = {"checkpoint", "callback", "progress", "n_init"}  # decide nothing
NAMES = [(kind, name) for kind in SMALL for name in inspect.signature(KINDS[kind]).parameters]


def estimators_with_checkpoints():
    for module in pkgutil.walk_packages(gmmlib.__path__, "gmmlib."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, type) and hasattr(value, "get_params"):
                if "checkpoint" in inspect.signature(value).parameters:
                    yield name


def test_every_estimator_with_a_checkpoint_is_tried():
    assert set(estimators_with_checkpoints()) == SMALL.keys()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("kind", "name"), [pair for pair in NAMES if pair[1] not in ENDS])
def test_a_checkpoint_of_another_setting_is_refused_and_the_setting_is_named(kind, name, path):
    """From each value of each parameter to each other one: both ways, for the file may be of either."""
    make, X = SMALL[kind]
    if name == "init":
        values = STARTS[kind]
    else:
        values = [getattr(make(), name), *OTHERS[name]]
    common = {} if name == "random_state" else {"random_state": 0}

    def with_value(value):
        return lambda **settings: make(**common | {name: copy.deepcopy(value)} | settings)

    pairs = 0
    for there in values:
        if (name, there) in (("max_iter", 2), ("tol", 1.0)):
            continue  # it ends before it could be stopped, or may be lowered: see below
        path.unlink(missing_ok=True)
        stopped(with_value(there), X, path)
        for here in values:
            if here is not there:
                longer = r"longer fit \(max_iter: iteration 3 comes next there, 2 is"
                refused(
                    with_value(here), X, path, longer if name == "max_iter" else rf"another fit \(.*{name}"
                )
                pairs += 1
        model = with_value(there)(checkpoint=path).fit(X)
        if there is not None or name != "random_state":
            assert_same_bits(model, with_value(there)().fit(X))
    assert pairs >= 1


def test_parameters_that_decide_nothing_may_change(path):
    """`ENDS` in the fits above; here the one that is left."""
    stopped(convolutional, images(), path)
    assert_same_bits(
        convolutional(checkpoint=path, progress=True).fit(images()), convolutional().fit(images())
    )


@pytest.mark.parametrize("name", ["convolutional", "full", "annealed"])
def test_a_smaller_tol_goes_on_to_its_own_result_and_a_larger_one_is_refused(name, path):
    make, X = FITS[name]
    stopped(lambda **s: make(**s).set_params(tol=1e-9), X, path)
    refused(lambda **s: make(**s).set_params(tol=1e-3), X, path, r"tol: 1e-09 there, 0.001 here; it may fall")
    model = make(checkpoint=path).set_params(tol=1e-12).fit(X)
    assert_same_bits(model, make().set_params(tol=1e-12).fit(X))


def test_a_warm_start_from_other_parameters_is_refused(path):
    def warm(seed, **settings):
        model = FullGMM(4, max_iter=4, tol=0, warm_start=True, random_state=seed).fit(ROWS)
        return model.set_params(max_iter=9, random_state=0, **settings)

    stopped(lambda **s: warm(1, **s), ROWS, path)
    refused(lambda **s: warm(2, **s), ROWS, path, r"another fit \(warm start\['covariances'\]: ")
    cold = functools.partial(FullGMM, 4, max_iter=9, tol=0, warm_start=True, random_state=0)
    refused(cold, ROWS, path, "another fit .*warm start: .* there, None here")
    assert_same_bits(warm(1, checkpoint=path).fit(ROWS), warm(1).fit(ROWS))


def test_labels_of_rows_that_are_left_out_decide_which_start_is_meant(path):
    """Two rows alike, of which one or the other is left out: the same data, with other labels."""
    X, labels = ROWS.copy(), HALF.copy()
    X[1] = X[2]
    weights = np.ones((2, 400))
    weights[0, 1] = weights[1, 2] = 0
    make = functools.partial(FullGMM, 4, max_iter=6, tol=0, init=labels)
    stopped(make, X, path, sample_weight=weights[0])
    refused(make, X, path, "another fit .sample_weight", sample_weight=weights[1])


@pytest.mark.parametrize("bits", [np.random.MT19937, np.random.Philox, np.random.SFC64, np.random.PCG64DXSM])
def test_any_stream_of_numpy_goes_on(bits, path):
    def make(**settings):
        generator = np.random.Generator(bits(5))
        return ConvolutionalGMM(3, max_iter=9, algorithm="sem", random_state=generator, **settings, tol=0.0)

    stopped(make, images(), path)
    assert_same_bits(make(checkpoint=path).fit(images()), make().fit(images()))


def test_a_stream_that_has_been_drawn_from_is_another_one(path):
    def make(draws, children, **settings):
        generator = np.random.default_rng(5)
        generator.random(draws)
        generator.spawn(children)
        return ConvolutionalGMM(3, max_iter=9, algorithm="sem", random_state=generator, **settings, tol=0.0)

    stopped(lambda **s: make(2, 0, **s), images(), path)
    refused(lambda **s: make(3, 0, **s), images(), path, "another fit .random_state: 'Generator in state")
    refused(lambda **s: make(2, 1, **s), images(), path, "another fit .random_state: 'Generator in state")


@pytest.mark.parametrize("stream", [np.random.default_rng, np.random.RandomState])
@pytest.mark.parametrize("kind", SMALL)
def test_a_fit_that_goes_on_leaves_the_stream_where_it_would_have_been(kind, stream, path):
    """What is drawn from it afterwards, by the next fit above all, is then the same."""
    make, X = SMALL[kind]
    stopped(lambda **s: make(random_state=stream(5), **s), X, path)
    rng, expected = stream(5), stream(5)
    make(random_state=rng, checkpoint=path).fit(X)
    make(random_state=expected).fit(X)
    np.testing.assert_array_equal(rng.uniform(size=5), expected.uniform(size=5))


def test_a_checkpoint_of_another_class_or_library_is_refused(path, monkeypatch):
    class OtherGMM(ConvolutionalGMM):
        pass

    stopped(convolutional, images(), path)
    refused(
        lambda **s: OtherGMM(3, max_iter=12, random_state=1, **s), images(), path, "holds a Convolutional"
    )
    OtherGMM.__name__ = "ConvolutionalGMM"
    refused(lambda **s: OtherGMM(3, max_iter=12, random_state=1, **s), images(), path, "another fit .class: ")
    monkeypatch.setattr(gmmlib, "__version__", "99")
    refused(convolutional, images(), path, "another fit .gmmlib: ")


def test_what_cannot_be_told_apart_has_no_checkpoint(path):
    class OtherGMM(ConvolutionalGMM):
        def __init__(self, n_components, how=None, checkpoint=None, max_iter=5):
            super().__init__(n_components, checkpoint=checkpoint, max_iter=max_iter)
            self.how = how

    with pytest.raises(ValueError, match="how must be a number, text, an array, a mapping"):
        OtherGMM(2, how=len, checkpoint=path).fit(images())
    OtherGMM(2, how=len).fit(images())
    assert os.listdir(path.parent) == []


# --- the user's other files ---------------------------------------------------------------------------


def test_no_file_beside_a_checkpoint_is_touched(path):
    endings = ["next", "previous", "part", "partial", "tmp", "temp", "lock", "bak", "npz", "0" * 32]
    names = [f"{dot}{path.name}.{end}" for end in endings for dot in ("", ".")]
    names += [f".gmmlib-{'0' * 32}", ".gmmlib-lock", "link.next"]
    for name in names:
        path.with_name(name).write_text("precious")
    stopped(convolutional, images(), path)
    assert sorted(os.listdir(path.parent)) == sorted([*names, path.name])
    convolutional(checkpoint=path).fit(images())
    assert sorted(os.listdir(path.parent)) == sorted(names)
    assert all(path.with_name(name).read_text() == "precious" for name in names)


@pytest.mark.parametrize("content", [b"precious", b"", b"PK\x03\x04", None])
@pytest.mark.parametrize("kind", SMALL)
def test_a_file_that_is_no_checkpoint_is_refused_before_any_work(kind, content, path, monkeypatch):
    make, X = SMALL[kind]
    if content is None:
        make().fit(X).save(path)
    else:
        path.write_bytes(content)
    for work in ("em.workers.Workers.map", "full.run.partition", "full.steps.data_axes"):
        monkeypatch.setattr(f"gmmlib.{work}", lambda *_: pytest.fail("work was done"))
    refused(make, X, path, "must be a checkpoint of this fit")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("none/fit", FileNotFoundError, "there is no folder {}/none. Make it first."),
        ("plain/fit", NotADirectoryError, "there is no folder {}/plain. Make it first."),
        ("", IsADirectoryError, "checkpoint must name a file; got the folder"),
        ("pipe", FileExistsError, "checkpoint must name a plain file; got"),
        ("x" * 255, OSError, "must be in a folder where files can be made and locked; got [Errno 36]"),
    ],
)
@pytest.mark.parametrize("kind", SMALL)
def test_a_place_where_no_checkpoint_can_be_is_refused_before_any_work(
    kind, name, error, message, tmp_path, monkeypatch
):
    make, X = SMALL[kind]
    (tmp_path / "plain").write_text("text")
    os.mkfifo(tmp_path / "pipe")
    for work in ("em.workers.Workers.map", "full.run.partition", "full.steps.data_axes"):
        monkeypatch.setattr(f"gmmlib.{work}", lambda *_: pytest.fail("work was done"))
    with pytest.raises(error) as caught:
        make(checkpoint=f"{tmp_path}/{name}").fit(X)
    assert message.format(tmp_path) in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["pipe", "plain"]


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr("gmmlib.em.workers.Workers.map", lambda *_: pytest.fail("work was done"))
    with pytest.raises(PermissionError, match="must be in a folder where files can be made and locked; got"):
        convolutional(checkpoint=path).fit(images())


@pytest.mark.parametrize("name", ["", 3, b"fit", "a\0b", ["fit"]])
def test_what_is_no_path_is_refused(name):
    with pytest.raises(ValueError, match="checkpoint must be the path of a file; got "):
        convolutional(checkpoint=name).fit(images())


def test_a_link_is_followed_and_stays(path):
    (path.parent / "there").mkdir()
    place = path.parent / "there" / "fit.npz"
    path.symlink_to(place)
    stopped(convolutional, images(), path)
    assert path.is_symlink()
    assert os.listdir(place.parent) == ["fit.npz"]
    assert_same_bits(convolutional(checkpoint=path).fit(images()), convolutional().fit(images()))
    assert path.is_symlink()
    assert os.listdir(place.parent) == []


@pytest.mark.parametrize("last", [0, 1])
def test_a_file_that_is_put_there_during_the_fit_is_left_alone(last, path):
    def put(model, iteration):
        if iteration == last:
            path.unlink(missing_ok=True)
            path.write_text("precious")

    with pytest.raises(FileExistsError, match="another file put there during the fit"):
        convolutional(checkpoint=path, callback=put).fit(images())
    assert path.read_text() == "precious"
    assert os.listdir(path.parent) == [path.name]


def test_a_file_that_is_put_there_at_the_end_is_left_alone(path):
    def put(model, iteration):
        if iteration == 12:
            path.unlink()
            path.write_text("precious")

    assert convolutional(checkpoint=path, callback=put).fit(images()).n_iter_ == 12
    assert path.read_text() == "precious"


def test_a_checkpoint_that_is_removed_during_the_fit_is_written_again(path):
    convolutional(checkpoint=path, callback=lambda *_: path.unlink(missing_ok=True)).fit(images())
    assert os.listdir(path.parent) == []


# --- one fit at a time --------------------------------------------------------------------------------


def fit_slowly(path, ready, go):
    def wait(model, iteration):
        if iteration == 2:
            ready.set()
            go.wait()

    convolutional(checkpoint=path, callback=wait).fit(images())


@pytest.fixture
def other(path):
    """Another process in the middle of a fit with the path, and what lets it go on."""
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["gmmlib", "tests.test_checkpoint"])
    ready, go = start.Event(), start.Event()
    child = start.Process(target=fit_slowly, args=(path, ready, go))
    child.start()
    assert ready.wait(60)
    yield child, go
    child.kill()
    child.join()


def in_use(make, X, path):
    with pytest.raises(ValueError, match="must be the file of one fit at a time; got one that another fit"):
        make(checkpoint=path).fit(X)


def test_a_second_process_is_told_that_the_file_is_in_use(path, other):
    child, go = other
    in_use(convolutional, images(), path)
    in_use(full, ROWS, path)  # of whatever fit
    path.with_name("link").symlink_to(path)
    in_use(convolutional, images(), path.with_name("link"))  # by whatever name
    path.with_name("link").unlink()
    go.set()
    child.join()
    assert child.exitcode == 0
    assert os.listdir(path.parent) == []


def test_a_process_that_is_killed_holds_no_lock_and_its_leavings_are_swept(path, other):
    child, _ = other
    lock = path.with_name(f".{path.name}.lock")
    temporary = path.with_name(lock.read_text().split()[-1])
    child.kill()
    child.join()
    temporary.write_text("half a state")  # as if it had been killed while it wrote
    precious = path.with_name(f".gmmlib-{'0' * 32}")
    precious.write_text("precious")
    assert_same_bits(convolutional(checkpoint=path).fit(images()), convolutional().fit(images()))
    assert os.listdir(path.parent) == [precious.name]


@pytest.mark.parametrize(
    "name", ["../victim", "victim", ".gmmlib-" + "0" * 31, ".gmmlib-" + "0" * 32 + "/../victim"]
)
def test_a_lock_that_names_other_files_sweeps_none(path, name):
    victims = [path.parent / "victim", path.parent / f".gmmlib-{'0' * 31}"]
    for victim in victims:
        victim.write_text("precious")
    lock = path.with_name(f".{path.name}.lock")
    lock.write_text(checkpoint.LOCK + name)
    convolutional(checkpoint=path).fit(images())
    assert all(victim.read_text() == "precious" for victim in victims)
    assert lock.read_text() == checkpoint.LOCK + name


def test_two_threads_do_not_share_a_path(path):
    heard = []

    def try_the_same(model, iteration):
        thread = threading.Thread(target=lambda: heard.append(attempt()))
        thread.start()
        thread.join()

    def attempt():
        try:
            convolutional(checkpoint=path).fit(images())
        except ValueError as error:
            return str(error)

    convolutional(checkpoint=path, callback=try_the_same).fit(images())
    assert len(heard) == 13
    assert all("one fit at a time" in told for told in heard)
    assert os.listdir(path.parent) == []


def try_to_fit(path, gate, told):
    gate.wait()
    for _ in range(5):
        try:
            convolutional(checkpoint=path).fit(images())
            told.put("done")
        except Exception as error:
            told.put(f"{type(error).__name__}: {error}")


def test_processes_that_start_at_once_finish_or_are_told(path):
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["gmmlib", "tests.test_checkpoint"])
    gate, told = start.Event(), start.Queue()
    children = [start.Process(target=try_to_fit, args=(path, gate, told)) for _ in range(4)]
    for child in children:
        child.start()
    gate.set()
    heard = [told.get(timeout=120) for _ in range(20)]
    for child in children:
        child.join()
    assert "done" in heard
    assert [what for what in heard if what != "done" and "one fit at a time" not in what] == []
    assert os.listdir(path.parent) == []


# --- states that no fit can have left -----------------------------------------------------------------


def state_damages(name, array, n_rows):
    """Yield what may stand wrongly in an array of a checkpoint, and the array."""
    numbers = array.astype(np.float64)
    for value in (np.nan, np.inf):
        changed = numbers.copy()
        changed.flat[-1] = value
        yield f"{value}", changed
    yield "an axis more", array[None]
    if array.ndim:
        yield "an entry less", array[:-1]
        if name != "log_likelihoods":  # one that changes nothing is possible
            yield "an entry more", np.concatenate([array, array[-1:]])
        yield "none at all", array[:0]
    if name not in ("log_likelihoods", "log_likelihood", "transform", "first", "about"):
        yield "negative", -numbers - 1
        if name != "second":
            yield "doubled", 2 * array
    if name == "log_likelihoods":
        yield "longer than the fit", np.repeat(array[-1], 99)


@pytest.mark.parametrize("name", FITS)
def test_a_state_that_no_fit_can_have_left_is_refused(name, path):
    make, X = FITS[name]
    stopped(make, X, path)
    with np.load(path) as file:
        contents = dict(file)
    loaded, tried = [], 0
    for array in sorted(contents.keys() - {"header"}):
        for what, changed in state_damages(array, contents[array], len(X)):
            if (
                name in ("convolutional", "stochastic", "annealed", "templates")
                and what == "doubled"
                and array == "power"
            ):
                continue  # twice the power is possible
            with open(path, "wb") as file:
                np.savez(file, **contents | {array: changed})
            tried += 1
            try:
                make(checkpoint=path).fit(X)
            except ModelFileError:
                continue
            loaded.append(f"{array}: {what}")
    assert tried > 15
    assert loaded == []


HEADERS = {
    "no fit": lambda record: record.pop("fit"),
    "no names": lambda record: record.update(names=[]),
    "other names": lambda record: record.update(names=["log_likelihoods"]),
    "a list of settings": lambda record: record.update(fit=[1]),
    "more": lambda record: record.update(checkpoint="x"),
    "tol of text": lambda record: record.update(tol="x"),
    "tol of nothing": lambda record: record.update(tol=float("nan")),
    "no stream": lambda record: record.update(algorithm={"stream": None}),
    "a function as a stream": lambda record: record.update(algorithm={"stream": {"bit_generator": "seed"}}),
    "an odd stream": lambda record: record["algorithm"]["stream"]["state"].update(state=-1),
    "a stream for a seed": lambda record: record.update(stream={"bit_generator": "PCG64"}),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_record_that_no_fit_can_have_left_is_refused(what, path):
    make, X = FITS["stochastic"]
    stopped(make, X, path)
    with np.load(path) as file:
        contents = dict(file)
    header = json.loads(str(contents["header"]))
    HEADERS[what](header["settings"])
    with open(path, "wb") as file:
        np.savez(file, **contents | {"header": np.array(json.dumps(header))})
    before = np.random.mtrand._rand.get_state()[1].tobytes()
    refused(make, X, path, "must be a checkpoint of this fit")
    assert np.random.mtrand._rand.get_state()[1].tobytes() == before  # the stream of all


def test_several_starts_have_no_checkpoint(path):
    with pytest.raises(ValueError, match="checkpoint must be None with n_init=2, for it holds one fit; got"):
        convolutional(checkpoint=path, n_init=2).fit(images())
    assert list(path.parent.iterdir()) == []


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
    assert os.listdir(path.parent) == ["fit.npz"]
    assert_same_bits(convolutional(checkpoint=path).fit(X), convolutional().fit(X))
