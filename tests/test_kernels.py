"""Compiled loops against their numpy twins, and what is kept of them on the disk."""

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp

from gmmlib import _kernels
from tests import oracles


def run(joint, constants):
    resp, evidence = np.array(joint, dtype=np.float64), np.empty(len(joint))
    _kernels.normalise(resp, np.asarray(constants, dtype=np.float64), evidence)
    return resp, evidence


@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0, 1000.0])
@pytest.mark.parametrize("n_components", [1, 2, 5, 33])
def test_normalise_equals_its_twin(spread, n_components):
    rng = np.random.default_rng(n_components)
    joint = rng.normal(-2000.0, spread, size=(300, n_components))
    constants = rng.normal(0.0, spread, size=n_components)
    resp, evidence = run(joint, constants)
    twin, twin_evidence = oracles.normalise(joint, constants, negligible=40.0)
    assert_allclose(resp, twin, rtol=1e-12, atol=0)
    assert_allclose(evidence, twin_evidence, rtol=1e-14)
    assert_allclose(resp.sum(axis=1), 1.0, rtol=1e-14)


def test_posteriors_are_dropped_only_where_float64_cannot_see_them():
    resp, evidence = run([[0.0, -39.9, -40.1, -2000.0]], np.zeros(4))
    assert_allclose(resp, [[1.0, np.exp(-39.9), 0.0, 0.0]], rtol=1e-14)
    assert_array_equal(resp[0, 2:], [0.0, 0.0])
    assert_allclose(evidence[0], logsumexp([0.0, -39.9, -40.1, -2000.0]), atol=1e-16)


def test_what_is_left_out_cannot_be_seen_in_the_evidence():
    joint = np.zeros((1, 128))
    joint[0, 1:] = -_kernels.NEGLIGIBLE
    _, evidence = run(joint, np.zeros(128))
    assert abs(evidence[0] - np.log1p(127 * np.exp(-_kernels.NEGLIGIBLE))) < 1e-15


def test_an_impossible_component_gets_exactly_nothing():
    resp, evidence = run([[-5.0, -1.0, -7.0]], [0.0, -np.inf, 0.0])
    assert_allclose(resp, [[1 / (1 + np.exp(-2)), 0.0, np.exp(-2) / (1 + np.exp(-2))]], rtol=1e-14)
    assert resp[0, 1] == 0
    assert_allclose(evidence, [np.logaddexp(-5, -7)], rtol=1e-15)


def test_ties_share_alike():
    resp, evidence = run(np.full((2, 4), -1e5), np.zeros(4))
    assert_array_equal(resp, np.full((2, 4), 0.25))
    assert_allclose(evidence, -1e5 + np.log(4), rtol=1e-15)


def test_chunks_side_by_side_give_the_bits_of_one_pass():
    rng = np.random.default_rng(0)
    joint, constants = rng.normal(0, 20, size=(5000, 7)), rng.normal(size=7)
    whole, evidence = run(joint, constants)
    parts, part_evidence = joint.copy(), np.empty(len(joint))
    slices = [slice(start, start + 333) for start in range(0, len(joint), 333)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda s: _kernels.normalise(parts[s], constants, part_evidence[s]), slices))
    assert_array_equal(parts, whole)
    assert_array_equal(part_evidence, evidence)


def test_no_rows_are_no_trouble():
    resp, evidence = run(np.empty((0, 3)), np.zeros(3))
    assert resp.shape == (0, 3)
    assert evidence.shape == (0,)


@pytest.mark.parametrize("width", [0, 1, 7, 8, 9, 16, 23, 48, 130])
def test_the_squared_norm_equals_its_twin(width):
    rng = np.random.default_rng(width)
    values, offset = rng.normal(3.0, 1.0, size=(2, width))
    assert_allclose(_kernels.squared_norm(values, offset), oracles.squared_norm(values, offset), rtol=1e-14)


@pytest.mark.parametrize("width", [0, 1, 7, 8, 9, 48])
@pytest.mark.parametrize("n_components", [1, 2, 5])
def test_distances_equal_their_twin(width, n_components):
    rng = np.random.default_rng(width)
    whitened = rng.normal(size=(40, n_components * width))
    offsets = rng.normal(size=(n_components, width))
    out = np.full((40, n_components), np.nan)
    _kernels.distances(whitened, offsets, out)
    assert_allclose(out, oracles.distances(whitened, offsets), rtol=1e-13)


@pytest.mark.parametrize("width", [1, 7, 48])
@pytest.mark.parametrize("level", [-np.inf, -20.0, np.inf])
def test_advance_equals_its_twin(width, level):
    rng = np.random.default_rng(width)
    whitened, offset = rng.normal(size=(50, width)), rng.normal(size=width)
    rows = rng.permutation(90)[:50]
    distance, constant = rng.gamma(2.0, 10.0, size=50), 3.0
    needed = level + rng.normal(0.0, 20.0, size=90)
    expected_rows, expected = oracles.advance(whitened, offset, rows, distance, constant, needed)
    left = _kernels.advance(whitened, offset, rows, distance, constant, needed)
    assert left == len(expected_rows)
    if np.isfinite(level):
        assert 0 < left < 50
    assert_array_equal(rows[:left], expected_rows)
    assert_allclose(distance[:left], expected, rtol=1e-13)


def test_advance_drops_a_bound_that_only_equals_what_is_needed():
    rows, distance = np.arange(2), np.zeros(2)
    needed = np.array([-2.0, -2.0 - 1e-12])
    assert _kernels.advance(np.full((2, 1), 2.0), np.zeros(1), rows, distance, 0.0, needed) == 1
    assert rows[0] == 1
    assert distance[0] == 4.0


@pytest.mark.parametrize("level", [-1e9, 0.0, 1e9])
def test_within_reach_equals_its_twin(level):
    rng = np.random.default_rng(3)
    bounds = rng.normal(level, 60.0, (50, 9)).astype(np.float32)
    bounds[3, 4], bounds[7, 2], bounds[8] = np.nan, -np.inf, np.inf
    rows, spread, gap = rng.random((50, 5)), rng.random((9, 5)), rng.random(9)
    near = np.empty((50, 9), dtype=bool)
    _kernels.within_reach(bounds, rows, spread, gap, near)
    best = np.where(np.isnan(bounds), -np.inf, bounds).argmax(axis=1)
    place = np.arange(50), best
    needed = bounds[place].astype(np.float64) - gap[best] - (spread[best] * rows**2).sum(axis=1) - 40.0
    assert_array_equal(near, ~((bounds < needed[:, None]) & np.isfinite(bounds)))
    assert near[place].all()
    assert not near.all()


@pytest.mark.parametrize("dtype", [bool, np.float64])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (40, 7)])
def test_columns_are_listed_as_numpy_lists_them(shape, dtype):
    rng = np.random.default_rng(4)
    values = (rng.random(shape) * (rng.random(shape) < 0.4)).astype(dtype)
    counts = np.empty(shape[1], dtype=np.intp)
    _kernels.count_columns(values, counts)
    assert_array_equal(counts, np.count_nonzero(values, axis=0))
    rows, ends = np.empty(counts.sum(), dtype=np.intp), np.cumsum(counts)
    _kernels.list_columns(values, ends - counts, rows)
    assert_array_equal(rows, np.nonzero(values.T)[1])


def test_squares_equal_their_twin():
    rng = np.random.default_rng(5)
    values = rng.standard_normal((13, 40)) + 1j * rng.standard_normal((13, 40))
    places, out = rng.permutation(40)[:17], np.empty((13, 17))
    _kernels.squares(values, places, out)
    assert_array_equal(out, values[:, places].real ** 2 + values[:, places].imag ** 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_monomials_equal_their_twin(dtype):
    rng = np.random.default_rng(6)
    values, centre = rng.standard_normal((11, 6)), rng.standard_normal(6)
    out = np.empty((11, 28), dtype=dtype)
    _kernels.monomials(values, centre, out)
    y = (values - centre).astype(dtype)
    i, j = np.triu_indices(6)
    assert_array_equal(out, np.hstack([y[:, i] * y[:, j], y, np.ones((11, 1), dtype)]))


@pytest.mark.parametrize("width", [0, 1, 7, 8, 9, 48])
def test_distances_to_equal_their_twin(width):
    rng = np.random.default_rng(width)
    values, offsets, out = rng.normal(size=(40, width)), rng.normal(size=(3, width)), np.full((40, 3), np.nan)
    _kernels.distances_to(values, offsets, out)
    assert_allclose(out, ((values[:, None] - offsets) ** 2).sum(axis=2), rtol=1e-13)


@pytest.mark.parametrize("width", [0, 1, 7, 8, 9, 48])
def test_inner_equals_its_twin(width):
    a, b = np.random.default_rng(width).normal(2.0, 1.0, size=(2, width))
    assert_allclose(_kernels.inner(a, b), a @ b, rtol=1e-14)


def with_holes(n, width, share, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, width))
    values[rng.random(values.shape) < share] = np.nan
    return rng, values


@pytest.mark.parametrize("width", [1, 2, 7, 17])
@pytest.mark.parametrize("largest", [0.0, 4.0, np.inf])
def test_marginal_by_projection_equals_its_twin(width, largest):
    rng, values = with_holes(40, width, 0.3)
    whitened, offset = 3 * rng.normal(size=(40, width)), rng.normal(size=width)
    arguments = offset, values, rng.normal(size=(width, width)), 1 + rng.random(width), -3.0, largest
    expected = oracles.marginal_by_projection(whitened, *arguments)
    out = np.zeros(40)
    _kernels.marginal_by_projection(whitened.copy(), *arguments, out)
    if largest == np.inf:
        assert np.isfinite(expected).all()
    assert_allclose(out, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("most", [0, 3, 64])
@pytest.mark.parametrize("width", [1, 5, 13])
def test_marginal_by_factor_equals_its_twin(width, most):
    rng, values = with_holes(30, width, 0.5)
    weights, means, covariances = oracles.gaussians(1, width)
    expected = oracles.observed_log_joint(values, weights, means, covariances)[:, 0] - 2.0
    expected[(~np.isnan(values)).sum(axis=1) > most] = np.nan
    out = np.full(30, np.nan)
    out[:3] = expected[:3] = 7.0  # what is known already
    _kernels.marginal_by_factor(values, means[0], covariances[0], np.log(weights[0]) - 2.0, most, out)
    assert_allclose(out, expected, rtol=1e-11, atol=1e-12)


def test_a_covariance_that_is_not_positive_definite_leaves_no_marginal():
    out = np.full(2, np.nan)
    values = np.array([[1.0, np.nan], [1.0, 2.0]])
    _kernels.marginal_by_factor(values, np.zeros(2), np.ones((2, 2)), 0.0, 64, out)
    assert_array_equal(np.isnan(out), [False, True])


def test_score_equals_its_twin():
    rng = np.random.default_rng(0)
    whitened, offset = rng.normal(size=(40, 13)), rng.normal(size=13)
    rows, out = rng.permutation(70)[:40], np.full(70, np.nan)
    _kernels.score(whitened, offset, rows, 3.0, out)
    assert_allclose(out[rows], 3.0 - 0.5 * ((whitened - offset) ** 2).sum(axis=1), rtol=1e-13)
    assert np.isnan(out).sum() == 30


@pytest.mark.parametrize("columns", [np.s_[:0], np.s_[:5], np.s_[3:9], np.s_[:]])
def test_gather_equals_its_twin(columns):
    rng = np.random.default_rng(0)
    values, rows = rng.normal(size=(30, 11)), rng.permutation(30)[:17]
    out = np.empty(values[rows, columns].shape)
    _kernels.gather(values[:, columns], rows, out)
    assert_array_equal(out, values[rows, columns])


def test_gather_centred_equals_its_twin():
    rng = np.random.default_rng(0)
    values, rows = rng.normal(size=(30, 11)), rng.permutation(30)[:17]
    centre, share = rng.normal(size=11), rng.random((30, 3))[:, 1]
    out = np.empty((17, 11))
    _kernels.gather_centred(values, rows, centre, share, 0.25, out)
    assert_allclose(out, 0.5 * np.sqrt(share[rows])[:, None] * (values[rows] - centre), rtol=1e-15)


# Patches of an image, none of which is cut out


def halved(side):
    """Waves as `_patch_loops` wants them, and the whole waves (side, side) in the same order."""
    order = [*range(0, side, 2), *range(1, side, 2)]
    whole = oracles.cosines(side)[:, order]
    half = whole[: (side + 1) // 2].copy()
    half[side // 2 :] /= 2
    return half, whole


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 11])
def test_sliding_transforms_equal_their_twins(side, dtype):
    rng = np.random.default_rng(side)
    pixels = rng.normal(size=(2 * side + 1, side + 13)).astype(dtype)
    waves, whole = (np.ascontiguousarray(a, dtype=dtype) for a in halved(side))
    across = np.full((len(pixels), side, 14), np.nan, dtype)
    _kernels.transform_across(pixels, waves, across)
    close = dict(rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)
    assert_allclose(across, oracles.transform_across(pixels, whole), **close)
    for left, n in ((0, 14), (3, 9)):
        z = np.full((side, side, n), np.nan, dtype)
        _kernels.transform_down(across[2 : 2 + side], waves, left, z)
        expected = oracles.transform_down(across[2 : 2 + side, :, left : left + n], whole)
        assert_allclose(z, expected, **close)


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 11])
def test_transforms_back_are_the_transposes(side):
    """<T a, b> = <a, T' b> for random a and b, and what stood there before is added to."""
    rng = np.random.default_rng(side)
    waves = np.ascontiguousarray(halved(side)[0])
    pixels = rng.normal(size=(side + 2, side + 13))
    across, z = np.empty((side + 2, side, 14)), np.empty((side, side, 9))
    _kernels.transform_across(pixels, waves, across)
    other, before = rng.normal(size=across.shape), rng.normal(size=pixels.shape)
    back = before.copy()
    _kernels.back_across(other, waves, back)
    assert_allclose((pixels * (back - before)).sum(), (across * other).sum(), rtol=1e-10, atol=1e-10)
    _kernels.transform_down(across[1 : 1 + side], waves, 4, z)
    other, before = rng.normal(size=z.shape), rng.normal(size=across.shape)
    back = before.copy()
    _kernels.back_down(other, waves, 4, back[1 : 1 + side])
    assert_allclose((across * (back - before)).sum(), (z * other).sum(), rtol=1e-10, atol=1e-10)
    untouched = np.ones(back.shape, dtype=bool)
    untouched[1 : 1 + side, :, 4:13] = False
    assert_array_equal(back[untouched], before[untouched])


@pytest.mark.parametrize("width", [0, 1, 4, 7])
def test_weighted_sums_folds_and_unfolds_equal_their_twins(width):
    rng = np.random.default_rng(width)
    weights, rows, out = rng.normal(size=width), rng.normal(size=(width, 21)), np.full(21, np.nan)
    _kernels.weighted_sum(weights, rows, out)
    assert_allclose(out, weights @ rows, rtol=0, atol=1e-13)
    near, far = rng.normal(size=(2, 21))
    sums, differences = np.empty((2, 21))
    _kernels.fold(near, far, sums, differences)
    assert_array_equal([sums, differences], [near + far, near - far])
    line = np.zeros(24)
    _kernels.unfold(near, far, line[:21], line[3:])  # which overlap
    assert_allclose(line, np.pad(near + far, (0, 3)) + np.pad(near - far, (3, 0)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("n_components", [1, 2, 300])
def test_the_largest_of_a_column_is_its_first(n_components):
    rng = np.random.default_rng(n_components)
    joint = rng.integers(0, 5, size=(n_components, 33)).astype(np.float32)  # with ties
    best, labels = np.empty(33, np.float32), np.empty(33, np.uint32)
    _kernels.largest(joint, best, labels)
    assert_array_equal(labels, joint.argmax(axis=0))
    assert_array_equal(best, joint.max(axis=0))


def test_weighing_equals_its_twin():
    rng = np.random.default_rng(0)
    gains, labels, values = rng.random((6, 5)), rng.integers(0, 5, 33).astype(np.uint32), rng.random((6, 33))
    out = values.copy()
    _kernels.weigh(gains, labels, out)
    assert_array_equal(out, values * gains[:, labels])


# Compiled code that is kept

SOURCE = """from gmmlib._compiled import compiled

@compiled
def double(x):
    return 2 * x
"""
FIT = """import numpy as np
from gmmlib import ConvolutionalGMM, FullGMM
X = np.random.default_rng(0).normal(size=(50, 4, 4))
print(ConvolutionalGMM(2, random_state=0, max_iter=2, tol=0).fit(X).score(X))
print(FullGMM(2, random_state=0, max_iter=2).fit(X.reshape(50, -1)).score(X.reshape(50, -1)))
"""


@pytest.fixture
def double(tmp_path, monkeypatch):
    """Makes the kernel `double` again, as another process would find it; and the folder of its files."""
    folder = tmp_path / "kept"
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder))
    (tmp_path / "doubling.py").write_text(SOURCE)

    def again():
        spec = importlib.util.spec_from_file_location("doubling", tmp_path / "doubling.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.double

    return again, folder


def hits(kernel):
    return sum(kernel.stats.cache_hits.values())


def cut(content):
    return content[: len(content) // 2]


DAMAGES = {
    "emptied": lambda content: b"",
    "cut": cut,
    "one byte short": lambda content: content[:-1],
    "longer": lambda content: content + b"x",
    "noise": lambda content: np.random.default_rng(0).bytes(len(content)),
    "text": lambda content: b"<<<<<<< HEAD\n",
    "one bit": lambda content: cut(content) + bytes([content[len(content) // 2] ^ 1]) + cut(content[1:]),
    "another version": lambda content: content.replace(numba.__version__.encode(), b"0.1.2"),
}


def test_compiled_code_is_kept(double):
    again, folder = double
    assert again()(3) == 6
    assert len(list(folder.rglob("*.nbi"))) == len(list(folder.rglob("*.nbc"))) == 1
    again = again()
    assert again(3) == 6
    assert hits(again) == 1


@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc", "*.nb?"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_code_is_compiled_again(double, damage, pattern):
    again, folder = double
    again()(3)
    for file in folder.rglob(pattern):
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
    damaged = again()
    assert damaged(3) == 6
    mended = again()
    assert mended(3) == 6
    assert hits(mended) == 1


def test_no_changed_byte_is_run(double):
    again, folder = double
    again()(3)
    for file in folder.rglob("*.nb?"):
        content = file.read_bytes()
        for place in np.linspace(0, len(content) - 1, 25).astype(int):
            file.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
            changed = again()
            assert changed(3) == 6
            assert hits(changed) == 0


@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc"])
def test_a_file_that_cannot_be_read_or_replaced_is_no_trouble(double, pattern):
    again, folder = double
    again()(3)
    (file,) = folder.rglob(pattern)
    file.unlink()
    (file / "in the way").mkdir(parents=True)
    assert again()(3) == 6


def test_a_folder_that_cannot_be_written_to_is_no_trouble(double, tmp_path, monkeypatch):
    again, folder = double
    kernel = again()
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir()
    folder.rmdir()
    folder.write_text("a file stands where the folder was")
    assert kernel(3) == 6
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])  # and no other folder either
    assert again()(3) == 6


def test_code_for_other_types_is_not_run(double):
    again, folder = double
    for value in (3, 3.5):
        again()(value)
    first, second = sorted(folder.rglob("*.nbc"))
    second.write_bytes(first.read_bytes())
    assert again()(3.5) == 7.0


def test_a_first_fit_survives_damage_to_all_kernels(tmp_path):
    def printed():
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", FIT], env=environment, capture_output=True, text=True)
        return done.stdout, done.stderr

    expected = printed()
    files = sorted(tmp_path.rglob("*.nb?"))
    assert len(files) > 6
    for number, file in enumerate(files):
        file.write_bytes(list(DAMAGES.values())[number % len(DAMAGES)](file.read_bytes()))
    assert printed() == expected
    assert expected[0].count("\n") == 2
    assert expected[1] == ""
