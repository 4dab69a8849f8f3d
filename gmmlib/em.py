"""The EM loop and its trace; it knows no model.

EM is a sum: an E-step over a chunk of rows returns *sufficient statistics*, a named tuple whose
fields add, and the M-step takes the total.  `Workers` adds them up in the order of the chunks,
whichever thread finishes first, and keeps BLAS to one thread inside a chunk; so memory is bounded by
the chunk and the digits do not depend on the number of threads.
"""

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import ThreadpoolController
from tqdm import tqdm

from gmmlib import _checks, _interrupts, _streams
from gmmlib.posterior import TIE

ROUNDING = 1e-10  # of a log-likelihood: sums over millions of rows are better


class Trace(NamedTuple):
    """What EM did: `log_likelihoods[t]` is the mean, in nats a row, after t iterations."""

    log_likelihoods: np.ndarray  # (n_iter + 1,); the first is the start's, the last the result's
    converged: bool
    interrupted: bool = False

    def pass_on_interrupt(self):
        """Raise KeyboardInterrupt if one ended the run; the caller has kept parameters and trace by now."""
        if self.interrupted:
            raise KeyboardInterrupt(
                f"fit was interrupted after {len(self.log_likelihoods) - 1} iterations; the model holds the "
                "parameters of the last of them and its trace, and can be used."
            )


def record(model, log_likelihoods, converged=False):
    """Set what a run has come to on a model, while it goes on and at its end."""
    model.log_likelihoods_ = np.array(log_likelihoods)
    model.converged_ = bool(converged)
    model.n_iter_ = len(log_likelihoods) - 1


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


class Mechanism:
    """What an M-step is given of the posteriors.

    Parameters
    ----------
    setting : {"deterministic", "stochastic", "hard", "annealed"} or mapping
        All of them: EM proper.  One component drawn from each row's posteriors: stochastic EM (Celeux
        and Diebolt 1985), which can leave a poor optimum and does not settle.  The most probable
        component alone: classification EM (Celeux and Govaert 1992), which climbs the likelihood of
        rows and labels together.  Posteriors raised to a power beta and normalised again:
        deterministic annealing (Ueda and Nakano 1998), which is EM proper once beta has risen to 1.
        At E-step t = 0, 1, ... it is ``min(1, start * rate^t)``; ``{"name": "annealed", "start": 0.1,
        "rate": 1.2}`` is what "annealed" means, and other schedules are written like that.
    n_rows : int
    random_state : int, Generator, RandomState or None
        For the draws; they leave the stream of the start as it is.

    Attributes
    ----------
    beta : float
        The power of the E-step that `begin` made ready.  The log joints must be raised to it *before*
        posteriors that cannot be seen in float64 are set to 0, so the E-step does it (`normalise` of
        `gmmlib.posterior`), not the call.
    """

    NAMES = ("deterministic", "stochastic", "hard", "annealed")
    START, RATE = 0.1, 1.2

    def __init__(self, setting, n_rows, random_state):
        self.name, self._next_beta, self._rate = self.checked(setting)
        self.n_rows = n_rows
        self.beta = 1.0
        if self.name == "stochastic":
            self.rng = _checks.generator(random_state).spawn(1)[0]

    @classmethod
    def checked(cls, setting):
        """Name, first beta and rate of a setting; ValueError if it is none."""
        if not hasattr(setting, "keys"):
            name = _checks.one_of(setting, "mechanism", cls.NAMES)
            return (name, cls.START, cls.RATE) if name == "annealed" else (name, 1.0, 1.0)
        if set(setting) != {"name", "start", "rate"} or setting["name"] != "annealed":
            raise ValueError(
                'mechanism must be a name, or a mapping {"name": "annealed", "start": ..., "rate": ...}; '
                f"got {setting!r}."
            )
        start = _checks.non_negative(setting["start"], "mechanism['start']")
        rate = _checks.non_negative(setting["rate"], "mechanism['rate']")
        if not 0 < start <= 1 or rate <= 1:
            raise ValueError(
                "mechanism must start above 0 and at most at 1, and rise at a rate above 1; "
                f"got a start of {start:g} and a rate of {rate:g}."
            )
        return "annealed", start, rate

    @property
    def climbs(self):
        """Whether an M-step on the posteriors of this E-step cannot lower the likelihood."""
        return self.name in ("deterministic", "annealed") and self.settled

    @property
    def settled(self):
        """Whether the E-step is the last of its kind: no schedule changes the ones to come."""
        return self.beta == 1.0

    def begin(self):
        """Draw for all rows of an E-step at once, so that chunks and threads change nothing."""
        if self.name == "stochastic":
            self.height = self.rng.random(self.n_rows)
        self._advance()

    def _advance(self):
        self.beta = min(1.0, self._next_beta)
        self._next_beta = self.beta * self._rate

    def state(self):
        """What JSON can hold of the stream; `restore` goes on from it."""
        return {"stream": _streams.state(self.rng if self.name == "stochastic" else None)}

    def restore(self, state, n_steps):
        """Go on as after the E-step, the `n_steps`-th, at which `state` was taken."""
        for _ in range(n_steps):
            self._advance()
        _streams.restore(self.rng if self.name == "stochastic" else None, state["stream"])

    def __call__(self, resp, rows):
        """Change the posteriors (n, K) of a slice of rows in place."""
        if self.name in ("deterministic", "annealed"):
            return
        if self.name == "hard":
            chosen = (resp >= resp.max(axis=1, keepdims=True) - TIE).argmax(axis=1)  # the first among equals
        else:
            upto = np.cumsum(resp, axis=1)
            chosen = (upto <= self.height[rows, None] * upto[:, -1:]).sum(axis=1)
        resp[...] = 0.0
        resp[np.arange(len(resp)), chosen] = 1.0


class Saved(NamedTuple):
    """Where a run went on before: after an E-step, whose M-step is to come."""

    statistics: object
    log_likelihoods: np.ndarray  # (iterations so far + 1,)


def em(
    start,
    e_step,
    m_step,
    *,
    max_iter,
    tol,
    mechanism=None,
    callback=None,
    save=None,
    progress=False,
    pruned=lambda: False,
):
    """Alternate E- and M-steps.

    Ctrl-C takes effect after the next E-step, when parameters and trace belong together: the run ends, and
    `Trace.pass_on_interrupt` raises KeyboardInterrupt as soon as the caller has kept them.  A second Ctrl-C
    raises at once.

    Parameters
    ----------
    start : object or Saved
        Parameters to start from, or an earlier run to go on with.
    e_step : callable
        Parameters to (statistics, mean log-likelihood in nats a row).
    m_step : callable
        Statistics to parameters.
    max_iter : int
        Iterations at the most.
    tol : float
        Stop when an iteration changes the mean log-likelihood by less; 0 never stops early, and nor does
        a mechanism that has not settled.
    mechanism : Mechanism, optional
        Made ready before each E-step, which applies it.
    callback : callable, optional
        Called as ``callback(parameters, log_likelihoods)`` at the start and after each iteration;
        a true result stops the run.
    save : callable, optional
        Called as ``save(statistics, log_likelihoods)`` before each M-step, with what a `Saved` needs.
    progress : bool
        Show a progress bar on standard error.
    pruned : callable, optional
        Whether the last M-step removed components: then no climb is promised.

    Returns
    -------
    parameters : object
        Those whose log-likelihood is the last of the trace.
    trace : Trace

    Raises
    ------
    FloatingPointError
        If the log-likelihood is not finite.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` ended a run that `tol` was to end, or the log-likelihood fell by more than rounding.
    """
    earlier = isinstance(start, Saved)
    parameters = m_step(start.statistics) if earlier else start
    trace = list(map(float, start.log_likelihoods)) if earlier else []
    falls, level = [], -np.inf
    bar = tqdm(total=max_iter, initial=len(trace), desc="EM", unit="it", disable=not progress)
    with _interrupts.deferred() as interrupted, bar:
        while True:
            if mechanism is not None:
                mechanism.begin()
            statistics, log_likelihood = e_step(parameters)
            if not np.isfinite(log_likelihood):
                raise FloatingPointError(
                    f"The log-likelihood is {log_likelihood} after {len(trace)} iterations: a component "
                    "has collapsed or a value has overflowed. Raise the floor of the variances, or scale the "
                    "data."
                )
            trace.append(float(log_likelihood))
            if not pruned() and level - trace[-1] > ROUNDING * max(1.0, abs(level)):
                falls.append((level - trace[-1], len(trace) - 1))
            level = trace[-1] if mechanism is None or mechanism.climbs else -np.inf
            bar.set_postfix(nats=f"{log_likelihood:.4f}", refresh=False)
            try:
                stop = callback is not None and callback(parameters, trace)
            except KeyboardInterrupt:
                return parameters, Trace(np.array(trace), False, True)
            settled = mechanism is None or mechanism.settled
            converged = settled and len(trace) > 1 and abs(trace[-1] - trace[-2]) < tol
            done = stop or converged or len(trace) > max_iter
            if not done and save is not None:
                save(statistics, trace)
            if done or interrupted():
                _report(falls, len(trace) - 1, tol > 0 and not (stop or converged or interrupted()), tol)
                return parameters, Trace(np.array(trace), converged, interrupted() and not done)
            parameters = m_step(statistics)
            bar.update()


def _report(falls, n_iter, unfinished, tol):
    """Say what a caller should know of a run: that likelihood was lost, or that it was not at its end."""
    if falls:
        most, iteration = max(falls)
        _checks.warn(
            f"The log-likelihood fell at {len(falls)} of {n_iter} iterations, at most by {most:.3g} nats per "
            f"row, at iteration {iteration}. What is added to variances (reg_covar) can do this, and so can "
            "an empty component that was started again; otherwise scale the data.",
            ConvergenceWarning,
        )
    if unfinished:
        _checks.warn(
            f"EM did not converge: after {n_iter} iterations (max_iter) the log-likelihood still changed by "
            f"tol={tol:g} nats per row or more. Raise max_iter or tol, or set tol=0 to run all max_iter "
            "iterations.",
            ConvergenceWarning,
        )
