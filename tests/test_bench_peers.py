"""The table of peers needs none of them: a row says what is missing, and the rest goes on."""

import json

import numpy as np
import pytest

from tools import bench_peers


def test_a_missing_peer_has_a_row_that_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_peers, "FOLDER", tmp_path)
    row = bench_peers.attempt("no-such-peer", "full", pytest.fail)
    assert str(row).split() == "no-such-peer full not timed: not installed".split()


def test_it_says_what_pip_said(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_peers, "FOLDER", tmp_path)
    (tmp_path / "no-such-peer.log").write_text("WARNING: slow\nERROR: no network\nbye\n")
    row = bench_peers.attempt("no-such-peer", "full", pytest.fail)
    assert str(row).endswith("not timed: not installed (ERROR: no network)")


def test_a_peer_that_fails_has_a_row_with_its_version_and_the_reason():
    def timing(name, dtype):
        raise ValueError(f"Expected float32, got {dtype}\nand more")

    row = bench_peers.attempt("numpy", "full", timing, "float64")
    assert row == (f"numpy {np.__version__} full", "ValueError: Expected float32, got float64")


def test_ratios_are_of_pairs_and_the_start_is_not_timed(monkeypatch):
    clock = {"now": 0.0}
    durations = iter([9.0, 9.0, 2.0, 1.0, 6.0, 2.0, 10.0, 2.0])  # a pair that does not count comes first

    def start():
        clock["now"] += 100.0

        def iterations():
            clock["now"] += next(durations)
            return -3.0

        return iterations

    monkeypatch.setattr(bench_peers.time, "perf_counter", lambda: clock["now"])
    monkeypatch.setattr(bench_peers, "ROUNDS", 3)
    monkeypatch.setattr(bench_peers, "ITERATIONS", 2)
    row = bench_peers.race("it", start, start)
    assert (row.least, row.ratio, row.most) == (2, 3, 5)
    assert (row.theirs, row.ours) == (3, 1)
    assert row.agreement == "log-likelihoods -3.000000, 0e+00 apart"


def test_scikit_learn_does_the_same_computation(monkeypatch):
    """The one peer that is always here."""
    monkeypatch.setattr(bench_peers, "ROUNDS", 1)
    X = np.random.default_rng(0).standard_normal((200, 3))
    row = bench_peers.attempt(
        "scikit-learn", "full", bench_peers.scikit_learn, X, np.arange(200) % 2, 2, "float64"
    )
    assert row.theirs > 0
    assert row.ours > 0
    apart = float(row.agreement.split()[2])
    assert apart < 1e-12


def test_the_table_is_printed_and_stored(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench_peers, "REPOSITORY", tmp_path)
    monkeypatch.setattr(bench_peers, "same_cores", lambda: 1)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    absent = bench_peers.Absent("gmmx full", "not installed")
    timed = bench_peers.Peer("numpy", *range(9), "log-likelihoods agree")
    monkeypatch.setattr(bench_peers, "rows", lambda: iter([absent, timed]))
    bench_peers.main()
    assert f"{absent}\n{timed}\n" in capsys.readouterr().out
    stored = json.loads((tmp_path / "_build" / "peers.json").read_text())
    assert stored == [absent._asdict(), timed._asdict()]
