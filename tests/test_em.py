"""The loop, its trace and its threads, on toy models."""

import time
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from threadpoolctl import ThreadpoolController, threadpool_limits

from gmmlib.em.loop import em
from gmmlib.em.workers import Workers, merge
from tests import oracles


class Sums(NamedTuple):
    a: float
    b: np.ndarray


def halving(parameters):
    """A toy E-step whose log-likelihood climbs to 0, half the way at each step."""
    return parameters / 2, -parameters


def blas_threads():
    return [library["num_threads"] for library in ThreadpoolController().select(user_api="blas").info()]


def test_the_guard_itself_catches_a_fall():
    with pytest.raises(AssertionError, match="fell by 1 nats at step 2 of 3"):
        oracles.assert_never_falls([-5.0, -3.0, -4.0, -1.0])
    with pytest.raises(AssertionError, match="shows no step"):
        oracles.assert_never_falls([-5.0])
    oracles.assert_never_falls([-5.0, -5.0, -4.0])


def test_the_trace_holds_the_start_and_every_iteration():
    parameters, trace = em(8.0, halving, lambda s: s, max_iter=3, tol=0.0)
    assert_array_equal(trace.log_likelihoods, [-8.0, -4.0, -2.0, -1.0])
    assert parameters == 1.0
    assert trace.converged is False


def test_tol_stops_at_the_parameters_whose_value_is_last():
    parameters, trace = em(8.0, halving, lambda s: s, max_iter=100, tol=1.5)
    assert_array_equal(trace.log_likelihoods, [-8.0, -4.0, -2.0, -1.0])
    assert parameters == -trace.log_likelihoods[-1]
    assert trace.converged is True


def test_tol_zero_never_stops_even_where_nothing_changes():
    _, trace = em(0.0, halving, lambda s: s, max_iter=5, tol=0.0)
    assert_array_equal(trace.log_likelihoods, np.zeros(6))
    assert trace.converged is False


def test_a_change_of_exactly_tol_does_not_stop():
    _, trace = em(8.0, halving, lambda s: s, max_iter=100, tol=1.0)
    assert len(trace.log_likelihoods) == 5


def test_the_callback_sees_every_iteration_and_stops_the_run():
    seen = []

    def callback(parameters, log_likelihoods):
        seen.append((parameters, list(log_likelihoods)))
        return len(log_likelihoods) == 3

    parameters, trace = em(8.0, halving, lambda s: s, max_iter=100, tol=0.0, callback=callback)
    assert seen == [(8.0, [-8.0]), (4.0, [-8.0, -4.0]), (2.0, [-8.0, -4.0, -2.0])]
    assert parameters == 2.0
    assert trace.converged is False


def test_a_callback_that_returns_nothing_does_not_stop():
    _, trace = em(8.0, halving, lambda s: s, max_iter=4, tol=0.0, callback=lambda p, t: None)
    assert len(trace.log_likelihoods) == 5


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_a_value_that_is_not_finite_stops_with_the_reason(value):
    values = iter([-3.0, -2.0, value])
    with pytest.raises(FloatingPointError) as caught:
        em(0, lambda p: (p, next(values)), lambda s: s, max_iter=9, tol=0.0)
    assert str(caught.value) == (
        f"The log-likelihood is {value} after 2 iterations: a component has collapsed or a value has "
        "overflowed. Raise the floor of the variances, or scale the data."
    )


def test_progress_goes_to_standard_error_and_only_on_request(capsys):
    em(8.0, halving, lambda s: s, max_iter=2, tol=0.0)
    assert capsys.readouterr() == ("", "")
    em(8.0, halving, lambda s: s, max_iter=2, tol=0.0, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "EM" in err
    assert "2/2" in err


def test_statistics_add_field_by_field():
    total = merge(Sums(1.0, np.array([1, 2])), Sums(2.0, np.array([10, 20])))
    assert isinstance(total, Sums)
    assert total.a == 3.0
    assert_array_equal(total.b, [11, 22])


def test_blocks_are_joined_by_place_whichever_finishes_first():
    values = np.array([1e16, 1.0, 1.0, -1e16, 1e16, 3.0, -1e16, 0.5])
    a, b, c, d, e, f, g, h = values
    expected = ((a + b) + (c + d)) + ((e + f) + (g + h))
    assert expected != sum(values)

    def slow_at_first(rows):
        time.sleep(0.01 if rows.start % 2 == 0 else 0.0)
        return Sums(values[rows].sum(), values[rows].copy())

    with threadpool_limits(4, user_api="blas"), Workers(1, 1) as workers:
        total = workers.sum(slow_at_first, len(values))
    assert total.a == expected


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 11, 64, 100])
def test_sums_are_those_of_a_fixed_tree_whatever_the_chunks(count):
    values = np.random.default_rng(count).standard_normal((count, 3)) * 10.0 ** np.arange(-8, 9, 8)

    def tree(parts):
        """The largest power of two of parts on the left, the rest on the right."""
        if len(parts) == 1:
            return parts[0]
        left = 2 ** (len(parts) - 1).bit_length() // 2
        return tree(parts[:left]) + tree(parts[left:])

    for chunk_size in (1, 2, 3, 50, 1000):
        with Workers(chunk_size, 2) as workers:
            total = workers.sum(lambda rows: Sums(1.0, values[rows.start // 2]), 2 * count - 1)
        assert total.a == count
        assert_array_equal(total.b, tree(values))


def test_slices_cover_the_rows_once_and_in_order():
    with Workers(4, 4) as workers:
        assert list(workers.map(lambda rows: rows, 10)) == [slice(0, 4), slice(4, 8), slice(8, 10)]
        assert list(workers.map(lambda rows: rows, 4)) == [slice(0, 4)]
        assert list(workers.map(lambda rows: rows, 0)) == []


def test_fill_writes_every_row_in_place():
    data = np.arange(20.0).reshape(10, 2)
    out = np.empty(10)
    with Workers(3, 3) as workers:
        assert workers.fill(lambda rows: data[rows].sum(axis=1), out) is out
    assert_array_equal(out, data.sum(axis=1))


def test_few_results_wait_at_any_time():
    started = []
    with Workers(1, 1) as workers:
        for taken, _ in enumerate(workers.map(lambda rows: started.append(rows), 100)):
            assert len(started) <= taken + 2 * workers.count + 1
    assert len(started) == 100


@pytest.mark.parametrize("threads", [1, 2])
def test_blas_has_one_thread_inside_and_its_own_number_after(threads):
    with threadpool_limits(threads, user_api="blas"):
        before = blas_threads()
        assert set(before) == {threads}
        with Workers(1, 1) as workers:
            assert workers.count == threads
            assert set(blas_threads()) == {1}
            inside = [n for found in workers.map(lambda rows: blas_threads(), 3) for n in found]
            assert set(inside) == {1}
            with Workers(1, 1):
                assert set(blas_threads()) == {1}
            assert set(blas_threads()) == {1}
        assert blas_threads() == before


def test_uses_that_overlap_restore_blas_whichever_ends_first():
    """As when two threads of one program fit a model each."""
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        first, second = Workers(1, 1), Workers(1, 1)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        second.__exit__(None, None, None)
        assert blas_threads() == before


def test_an_exception_in_a_worker_reaches_the_caller_and_restores_blas():
    def fails(rows):
        if rows.start == 3:
            raise KeyError("row 3")
        return Sums(1.0, np.zeros(1))

    before = blas_threads()
    with pytest.raises(KeyError, match="row 3"), Workers(1, 1) as workers:
        workers.sum(fails, 50)
    assert blas_threads() == before


def test_an_exception_in_a_fill_reaches_the_caller():
    with pytest.raises(ZeroDivisionError), Workers(1, 1) as workers:
        workers.fill(lambda rows: 1 // 0, np.empty(3))
