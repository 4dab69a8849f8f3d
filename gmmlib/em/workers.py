"""Threads that share the rows of a data set, and sums over rows whose digits they cannot change.

EM is a sum: an E-step over some rows returns *sufficient statistics*, a named tuple whose fields add, and
the M-step takes the total.  Rows are handled in blocks of a fixed number by their place in the data, and the
sums of blocks are joined by a fixed binary tree: whoever adds them up, and in whatever chunks, gets the same
bits.
"""

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import lru_cache, reduce

from threadpoolctl import ThreadpoolController

ROWS, NUMBERS = 2048, 2**21  # most of a block
LEAST = 4  # rows of a block, however large: sums of blocks are as large as some rows


def block_size(numbers_per_row):
    """Rows per block: few enough for memory, many enough for BLAS, and a function of the data alone."""
    return min(ROWS, max(LEAST, NUMBERS // numbers_per_row))


def merge(a, b):
    """Add two statistics: named tuples field by field, arrays and numbers as they are."""
    return type(a)(*map(merge, a, b)) if isinstance(a, tuple) else a + b


def joined(parts):
    """Sum of parts in order: of pairs, of pairs of pairs and so on, a tree that their number decides."""
    waiting = []  # (level, sum of 2^level parts), levels falling
    for part in parts:
        level = 0
        while waiting and waiting[-1][0] == level:
            part = merge(waiting.pop()[1], part)
            level += 1
        waiting.append((level, part))
    return reduce(lambda right, left: merge(left[1], right), waiting[-2::-1], waiting[-1][1])


class Shared:
    """A setting of the whole process, in force while anyone is inside; threads come and go as they like.

    `make` gives the context manager that sets it; what this one returns, all who are inside get.
    """

    def __init__(self, make):
        self._make, self._lock, self._inside = make, threading.Lock(), 0

    def __enter__(self):
        with self._lock:
            if self._inside == 0:
                self._context = self._make()
                self._value = self._context.__enter__()
            self._inside += 1
            return self._value

    def __exit__(self, *error):
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._context.__exit__(None, None, None)


@lru_cache
def libraries(user_api):
    """The loaded libraries of a kind, "blas" or "openmp": looking for them takes milliseconds."""
    return ThreadpoolController().select(user_api=user_api)


@contextmanager
def _limited():
    """Give BLAS one thread; returns how many it had."""
    blas = libraries("blas")
    threads = max((library["num_threads"] for library in blas.info()), default=1)
    with blas.limit(limits=1):
        yield threads


_one_blas_thread = Shared(_limited)


class Workers:
    """As many threads as BLAS would use, each with a chunk of rows and a BLAS of one thread.

    A chunk is of about `chunk_size` rows, in whole blocks of `block_size`, at least one: a block is what is
    handled and summed first, and depends on the rows alone, so neither chunks nor threads change a digit.
    """

    def __init__(self, chunk_size, block_size):
        self.block_size = block_size
        self.blocks_per_chunk = max(1, chunk_size // block_size)

    def __enter__(self):
        self._limit = ExitStack()
        self.count = self._limit.enter_context(_one_blas_thread)
        self._pool = ThreadPoolExecutor(self.count)
        return self

    def __exit__(self, *error):
        self._pool.shutdown(cancel_futures=True)
        self._limit.close()

    def map(self, function, n_rows):
        """Yield ``function(rows)`` for each block, a slice of rows, in order; few results wait."""
        step = self.block_size
        blocks = [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]
        step = self.blocks_per_chunk
        chunks = [blocks[start : start + step] for start in range(0, len(blocks), step)]
        for results in self.each(lambda chunk: list(map(function, chunk)), chunks):
            yield from results

    def each(self, function, items):
        """Yield ``function(item)`` for each item, in order; few results wait at any time."""
        if self.count == 1 or len(items) == 1:
            yield from map(function, items)
            return
        waiting = deque()
        for item in items:
            waiting.append(self._pool.submit(function, item))
            if len(waiting) > 2 * self.count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def sum(self, function, n_rows):
        """Add the statistics ``function(rows)`` of all blocks, as `joined` does."""
        return joined(self.map(function, n_rows))

    def fill(self, function, out):
        """Write ``out[rows] = function(rows)`` for each block; return `out`."""

        def write(rows):
            out[rows] = function(rows)

        deque(self.map(write, len(out)), maxlen=0)
        return out
