"""``python -m gmmlib.restore``: every file gets what was asked for, or one line that says why not."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gmmlib import FullGMM, patches
from gmmlib.restore import command, denoise, files, images, shipped
from tests import restoring
from tests.restoring import NOISY, PLAIN, SIDE, everything, png_file, program
from tests.test_restore_files import written

model, prior, run = restoring.model, restoring.prior, restoring.run  # fixtures


def refused(arguments, capsys):
    """What the command says of a wrong call."""
    with pytest.raises(SystemExit) as caught:
        command.main(list(map(str, arguments)))
    assert caught.value.code == 2
    return capsys.readouterr().err


# --- where outputs go ------------------------------------------------------------------------------


def test_nothing_is_overwritten_unless_told_to(run, tmp_path):
    path = written(tmp_path / "a.png", png_file(NOISY))
    (tmp_path / "out").mkdir()
    old = written(tmp_path / "out" / "a.png", b"old")
    status, lines, errors = run("denoise", path)
    assert (status, lines, old.read_bytes()) == (1, [], b"old")
    assert errors == [f"{path}: {old} is there already. Remove it, name another folder, or pass --overwrite."]
    assert run("denoise", path, "--overwrite")[0] == 0
    assert files.read(old).pixels.shape == NOISY.shape


@pytest.mark.parametrize("way", ["folder", "link to the folder", "link to the file", "another input", "mask"])
def test_what_the_call_reads_is_never_written(way, run, tmp_path):
    path = written(tmp_path / "a.png", png_file(NOISY))
    output, call = "out", ["denoise", path]
    if way == "folder":
        output = "."
    elif way == "link to the folder":
        (tmp_path / "out").symlink_to(tmp_path)
    elif way == "link to the file":
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a.png").symlink_to(path)
    else:
        (tmp_path / "out").mkdir()
        other = written(tmp_path / "out" / "a.png", png_file(PLAIN))
        call = ["denoise", path, other] if way == "another input" else ["inpaint", path, "--mask", other]
    before = everything(tmp_path)
    status, lines, errors = run(*call, "--overwrite", output=output)
    assert (status, lines) == (1, [])
    assert "which this call reads. Name another folder by -o." in errors[0]
    assert everything(tmp_path) == before


def test_two_inputs_of_one_name(run, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / "a.png", png_file(NOISY))
    first, second = tmp_path / "one" / "a.png", tmp_path / "two" / "a.png"
    status, lines, errors = run("denoise", first, second, "--overwrite")
    assert (status, len(lines)) == (1, 1)
    assert errors == [
        f"{second}: has the name of {first}, and both would be written to one file. Restore it to another "
        "folder."
    ]


@pytest.mark.parametrize("way", ["a file", "under a file", "a folder of that name", "a pipe of that name"])
def test_folders_that_cannot_be_written_to(way, run, tmp_path):
    path, output = written(tmp_path / "a.png", png_file(NOISY)), "out"
    if way.endswith("of that name"):
        (tmp_path / "out").mkdir()
        (os.mkfifo if "pipe" in way else os.mkdir)(tmp_path / "out" / "a.png")
    else:
        written(tmp_path / "out", b"here")
        output = "out/deeper" if way == "under a file" else "out"
    status, lines, errors = run("denoise", path, "--overwrite", output=output)
    assert (status, lines, len(errors)) == (1, [], 1)
    assert "-o must name" in errors[0]


def test_a_folder_that_may_not_be_written_to(run, tmp_path, monkeypatch):
    path = written(tmp_path / "a.png", png_file(NOISY))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    status, _, errors = run("denoise", path)
    assert (status, len(errors)) == (1, 1)
    assert "out may not be written to. Name another by -o." in errors[0]


def test_a_file_that_comes_to_be_there_meanwhile_stays(run, tmp_path, monkeypatch):
    path = written(tmp_path / "a.png", png_file(NOISY))

    def slow(*arguments, **options):
        written(tmp_path / "out" / "a.png", b"theirs")
        return denoise(*arguments, **options)

    monkeypatch.setattr(images, "denoise", slow)
    assert run("denoise", path)[0] == 1
    assert everything(tmp_path / "out") == {(tmp_path / "a.png").relative_to(tmp_path): b"theirs"}


# --- what is said ----------------------------------------------------------------------------------


def test_a_broken_file_does_not_stop_the_others(run, tmp_path):
    good = [written(tmp_path / f"{i}.png", png_file(NOISY)) for i in range(2)]
    bad = written(tmp_path / "bad.png", png_file(NOISY)[:500])
    status, lines, errors = run("denoise", good[0], bad, tmp_path, tmp_path / "none.png", good[1], "--json")
    results = json.loads("\n".join(lines))["files"]
    assert status == 1
    assert [r["status"] for r in results] == ["ok", "error", "error", "error", "ok"]
    assert [r["error"] for r in results if r["error"]] == errors
    assert len(errors) == 3
    keys = ["input", "output", "status", "error", "sigma", "seconds", "psnr_before", "psnr_after", "notes"]
    assert all(list(r) == keys for r in results)
    assert sorted(os.listdir(tmp_path / "out")) == ["0.png", "1.png"]


def test_wrong_calls(tmp_path, capsys):
    common = ["a.png", "-o", tmp_path]
    for sigma in ("-1", "nan", "256", "inf", "much", ""):
        said = refused(["denoise", *common, f"--sigma={sigma}"], capsys)
        assert f"must be auto or a number from 0 to 255, in grey levels of 0 to 255; got '{sigma}'" in said
    assert "required: --mask" in refused(["inpaint", *common], capsys)
    assert "required: -o" in refused(["denoise", "a.png"], capsys)
    assert "required: IN" in refused(["denoise", "-o", tmp_path], capsys)
    assert "invalid choice: 'sharpen'" in refused(["sharpen", *common], capsys)
    clean = written(tmp_path / "c.png", png_file(PLAIN))
    said = refused(["denoise", "b.png", *common, "--reference", clean], capsys)
    assert "--reference must be a folder if there are several inputs; got the file" in said


def test_help_states_the_units(capsys):
    with pytest.raises(SystemExit):
        command.main(["denoise", "--help"])
    assert "grey levels of 0 to 255" in " ".join(capsys.readouterr().out.split())


def test_priors_that_cannot_be(run, model, tmp_path):
    path, wrong = written(tmp_path / "a.png", png_file(NOISY)), tmp_path / "wrong.npz"
    rows = np.random.default_rng(0).standard_normal((60, 16))
    FullGMM(1, max_iter=1, tol=0).fit(rows).save(tmp_path / "wide.npz")
    written(wrong, b"no model")
    cases = {
        wrong: "is no readable model file",
        tmp_path / "none.npz": "there is no such file; name a model file, fast or full",
        tmp_path: "cannot be read",
        tmp_path / "wide.npz": "grey levels from 0 to 1",
    }
    for name, message in cases.items():
        status, lines, (error,) = run("denoise", path, "--json", prior=name)
        assert (status, message in error, error.startswith(f"--prior {name}: ")) == (1, True, True)
        (result,) = json.loads("\n".join(lines))["files"]
        assert (result["status"], result["error"]) == ("error", error)
    assert not (tmp_path / "out").exists()


def test_a_full_mixture_is_a_prior(run, tmp_path):
    rows = patches.sample_patches([PLAIN[:, :, 0], PLAIN[:, :, 1]], SIDE, 800, 0)[0]
    rows = patches.remove_mean(rows).reshape(len(rows), -1)
    settings = {"zero_means": True, "reg_covar": 1e-5, "max_iter": 5, "tol": 0, "random_state": 0}
    FullGMM(2, **settings).fit(rows).save(tmp_path / "full.npz")
    path = written(tmp_path / "a.png", png_file(NOISY))
    assert run("denoise", path, prior=tmp_path / "full.npz")[0] == 0


@pytest.mark.parametrize("when", ["first", "second"])
def test_an_interrupt_leaves_nothing_half_written(when, run, tmp_path, monkeypatch):
    paths = [written(tmp_path / f"{i}.png", png_file(NOISY)) for i in range(3)]
    calls = []

    def stop(*arguments):
        calls.append(arguments)
        if len(calls) == {"first": 1, "second": 2}[when]:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    status, lines, errors = run("denoise", *paths, "--json")
    assert status == 130
    assert errors == ["interrupted; files that were not finished have not been written"]
    done = [] if when == "first" else ["0.png"]
    assert os.listdir(tmp_path / "out") == done
    assert [r["status"] for r in json.loads("\n".join(lines))["files"]] == ["ok"] * len(done)


def test_names_of_any_characters(run, tmp_path):
    names = ["a b.png", "zwei\nZeilen.png", "über.png", os.fsdecode(b"\xff\x1b[31m.png")]
    paths = [written(tmp_path / name, png_file(NOISY)) for name in names]
    status, lines, errors = run("denoise", *paths)
    assert (status, len(lines), errors) == (0, 4, [])
    assert r"zwei\nZeilen.png" in lines[1]
    assert r"\udcff\x1b[31m.png" in lines[3]
    assert sorted(os.listdir(tmp_path / "out")) == sorted(names)
    status, lines, _ = run("denoise", *paths, "--json", "--overwrite")
    assert [r["input"] for r in json.loads("\n".join(lines))["files"]] == list(map(str, paths))


def test_what_is_not_known_to_fail_is_said_too(run, tmp_path, monkeypatch):
    path = written(tmp_path / "a.png", png_file(NOISY))
    faults = {"needs more memory": MemoryError(), "ZeroDivisionError: by 0": ZeroDivisionError("by 0")}
    for words, error in faults.items():

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(images, "denoise", fail)
        status, lines, errors = run("denoise", path)
        assert (status, lines) == (1, [])
        assert words in errors[0]


def test_a_prior_is_loaded_from_its_file(prior, model):
    assert_array_equal(shipped.prior(str(prior)).spectra_, model.spectra_)


# --- as a program ----------------------------------------------------------------------------------


def test_the_program(prior, tmp_path):
    path = written(tmp_path / "a.png", png_file(NOISY))
    done = program("denoise", path, "-o", tmp_path / "out", "--prior", prior)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path} -> ")
    assert program("denoise", path, "-o", tmp_path / "out", "--prior", prior).returncode == 1
    assert program("denoise", path).returncode == 2


def test_a_reader_that_stops(prior, tmp_path):
    path = written(tmp_path / "a.png", png_file(NOISY))
    start = [sys.executable, "-m", "gmmlib.restore", "denoise", path, "-o", tmp_path / "o", "--prior", prior]
    with subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
