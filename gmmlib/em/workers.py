"""Threads that share the rows of a data set, and sums over rows whose digits they cannot change."""

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import ThreadpoolController


def add(a, b):
    """Add two named tuples of statistics field by field."""
    return type(a)(*(x + y for x, y in zip(a, b, strict=True)))


class _OneBlasThread:
    """Keep BLAS to one thread while anyone is inside; the setting is the whole process's."""

    def __init__(self):
        self._lock = threading.Lock()
        self._inside = 0
        self._blas = None

    def enter(self):
        """Return how many threads BLAS had."""
        with self._lock:
            if self._inside == 0:
                if self._blas is None:  # looking for the libraries takes a millisecond: once is enough
                    self._blas = ThreadpoolController().select(user_api="blas")
                self._threads = max((library["num_threads"] for library in self._blas.info()), default=1)
                self._limit = self._blas.limit(limits=1)
            self._inside += 1
            return self._threads

    def leave(self):
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.restore_original_limits()


_one_blas_thread = _OneBlasThread()


class Workers:
    """As many threads as BLAS would use, each with a chunk of rows and a BLAS of one thread.

    Parameters
    ----------
    chunk_size : int
        Rows a chunk.
    """

    def __init__(self, chunk_size):
        self.chunk_size = chunk_size

    def __enter__(self):
        self.count = _one_blas_thread.enter()
        self._pool = ThreadPoolExecutor(self.count)
        return self

    def __exit__(self, *error):
        self._pool.shutdown(cancel_futures=True)
        _one_blas_thread.leave()

    def map(self, function, n_rows):
        """Yield ``function(rows)`` for each slice of rows, in order; few results wait at any time."""
        starts = range(0, n_rows, self.chunk_size)
        return self.each(function, [slice(start, min(start + self.chunk_size, n_rows)) for start in starts])

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
        """Add the statistics ``function(rows)`` of all chunks, in order."""
        total = None
        for part in self.map(function, n_rows):
            total = part if total is None else add(total, part)
        return total

    def fill(self, function, out):
        """Write ``out[rows] = function(rows)`` for each slice of rows; return `out`."""

        def write(rows):
            out[rows] = function(rows)

        deque(self.map(write, len(out)), maxlen=0)
        return out
