"""Priors by name: the one that ships, the one that is trained, and what is said of them."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.testing import assert_array_equal

from gmmlib import ConvolutionalGMM, FullGMM, storage
from gmmlib.data import bundled, catalogue
from gmmlib.restore import command, denoise, prior_commands, shipped, training
from tests.restoring import scene
from tools import prior as shipping

SMALL = dict(n_first=600, n_batches=2, random_state=0)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def quick(monkeypatch):
    """Training that takes no time: what the command passes on, but a small mixture."""
    monkeypatch.setattr(training, "BATCH", 300)
    full = training.full

    def small(photographs, *, side, n_batches, callback):
        assert (side, n_batches) == (8, 60)
        return full(photographs, 2, side=4, n_first=300, n_batches=2, callback=callback)

    monkeypatch.setattr(training, "full", small)


@pytest.fixture
def folder(tmp_path):
    """Photographs of one's own."""
    from PIL import Image

    place = tmp_path / "mine"
    place.mkdir()
    for seed in range(3):
        levels = np.rint(255 * scene(40, 50, seed=seed, noise=0)).astype(np.uint8)
        Image.fromarray(levels).save(place / f"{seed}.png")
    return place


def run(*arguments):
    return command.main([str(argument) for argument in arguments])


def test_the_prior_that_ships_says_what_it_was_trained_on():
    fast = shipped.prior("fast")
    assert isinstance(fast, ConvolutionalGMM)
    assert (fast.basis_, fast.image_shape_, len(fast.weights_)) == ("cosine", (8, 8), 200)
    assert shipped.place("fast").stat().st_size < 120_000
    said = storage.note(shipped.place("fast"))
    names = {
        path.split("/")[-1].split(".")[0] for part in ("train", "test") for path in bundled.PHOTOGRAPHS[part]
    }
    assert all(name in said for name in names)
    assert "CC0" in said
    assert "CC BY 2.0" in said
    assert len(shipping.photographs()) == len(names)


def test_the_prior_that_ships_is_the_default():
    noisy = scene(40, 50, seed=0, noise=20 / 255)
    assert_array_equal(denoise(noisy, 20 / 255), denoise(noisy, 20 / 255, prior=shipped.prior("fast")))
    clean = scene(40, 50, seed=0, noise=0)
    assert ((denoise(noisy, 20 / 255) - clean) ** 2).mean() < 0.3 * ((noisy - clean) ** 2).mean()


@pytest.mark.parametrize(
    ("train", "kind"), [(training.full, FullGMM), (training.stationary, ConvolutionalGMM)]
)
def test_training_is_of_patches_without_their_means(train, kind, monkeypatch):
    monkeypatch.setattr(training, "BATCH", 300)
    photographs = [scene(41, 50, seed=s, noise=0) for s in range(3)]
    model = train(photographs, 3, side=5, **SMALL)
    assert isinstance(model, kind)
    again = train(photographs, 3, side=5, **SMALL)
    assert_array_equal(model.weights_, again.weights_)
    # Batches are fresh draws: with them others are more probable than by the first few patches alone.
    few = train(photographs, 3, side=5, n_first=40, n_batches=0, random_state=0)
    more = train(photographs, 3, side=5, n_first=40, n_batches=20, random_state=0)
    others = [scene(41, 50, seed=s, noise=0) for s in range(3, 6)]
    cut = sliding_window_view(np.array(others), (5, 5), (1, 2)).reshape(-1, 5, 5)
    cut = cut - cut.mean(axis=(1, 2), keepdims=True)
    rows = cut.reshape(-1, 25) if kind is FullGMM else cut
    assert more.score(rows) > few.score(rows)


def test_a_callback_counts_batches(monkeypatch):
    monkeypatch.setattr(training, "BATCH", 300)
    calls = []
    training.full([scene(40, 40, seed=0, noise=0)], 2, side=4, **SMALL, callback=lambda: calls.append(1))
    assert len(calls) == 2


def test_training_keeps_the_prior_full(cache, folder, quick, capsys):
    assert run("train", "--images", folder) == 0
    path = cache / "priors" / "full.npz"
    note = f"3 photographs of the folder {folder}, under their terms"
    assert capsys.readouterr().out == f"{path}: trained on {note}\n"
    assert storage.note(path) == note
    assert isinstance(shipped.prior("full"), FullGMM)
    assert [file.name for file in path.parent.iterdir()] == ["full.npz"]


def test_training_replaces_nothing_unless_told(cache, folder, quick, tmp_path, capsys):
    mine = tmp_path / "mine.npz"
    mine.write_text("something else")
    assert run("train", "--images", folder, "-o", mine) == 1
    assert capsys.readouterr().err == (
        f"{mine} is there already. Pass --overwrite to replace it, or name another file by -o.\n"
    )
    assert mine.read_text() == "something else"
    assert run("train", "--images", folder, "-o", mine, "--overwrite") == 0
    assert isinstance(shipped.prior(str(mine)), FullGMM)
    assert not cache.exists()


def test_training_on_nothing_says_so(cache, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run("train", "--images", tmp_path / "empty") == 1
    assert "no picture was found" in capsys.readouterr().err
    assert run("train", "--images", tmp_path / "empty", "-o", tmp_path / "no" / "x.npz") == 1
    assert "no prior was written: -o must name a file in a folder that exists" in capsys.readouterr().err
    assert not (cache / "priors" / "full.npz").exists()


def test_training_that_is_interrupted_leaves_nothing(cache, folder, monkeypatch, capsys):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "full", interrupted)
    assert run("train", "--images", folder) == 130
    assert not list((cache / "priors").iterdir())


def test_without_training_there_is_no_prior_full(cache, tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="python -m gmmlib.restore train"):
        shipped.prior("full")
    picture = tmp_path / "a.png"
    picture.write_bytes(b"")
    assert run("denoise", picture, "-o", tmp_path / "out", "--prior", "full") == 1
    assert "Train it by python -m gmmlib.restore train" in capsys.readouterr().err


def test_priors_are_listed_with_their_terms(cache, folder, quick, capsys):
    assert run("priors") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"fast: {shipped.place('fast')}, trained on astronaut (NASA")
    assert said[1].startswith("full: not on this machine")
    run("train", "--images", folder)
    capsys.readouterr()
    run("priors")
    assert capsys.readouterr().out.splitlines()[1].endswith("under their terms")
    (cache / "priors" / "full.npz").write_bytes(b"damaged")
    assert run("priors") == 1


def test_bsds_is_for_research_alone(monkeypatch):
    monkeypatch.setattr(prior_commands.datasets, "load_bsds", lambda split: [np.zeros((9, 9))] * 200)
    assert prior_commands._photographs(None)[1] == (
        "200 photographs of BSDS500, for non-commercial research and education only"
    )
