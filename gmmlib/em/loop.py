"""The EM loop and its trace; it knows no model: statistics and parameters pass through as they are."""

from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from gmmlib import _checks
from gmmlib._extras import progress_bar
from gmmlib.em import interrupts

ROUNDING = 1e-10  # of a log-likelihood: sums over millions of rows are better


class Trace(NamedTuple):
    """What EM did: `log_likelihoods[t]` is the mean, in nats per row, after t iterations."""

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
    setattr(model, model._trace, np.array(log_likelihoods))
    model.converged_ = bool(converged)
    model.n_iter_ = len(log_likelihoods) - 1


def warn_of_empty(empty, rows, remedy=""):
    """Say that components lost all their `rows`, and were re-initialised."""
    if len(empty):
        _checks.warn(
            f"Components {empty.tolist()} lost all their {rows}; each was re-initialised by splitting the "
            f"heaviest one. Fewer components may fit these data as well{remedy}.",
            ConvergenceWarning,
        )


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
    algorithm=None,
    callback=None,
    save=None,
    progress=False,
    pruned=lambda: False,
):
    """Alternate E- and M-steps: the parameters whose log-likelihood is the last of the `Trace`, and this.

    FloatingPointError if the log-likelihood is not finite; ConvergenceWarning if `max_iter` ended a run that
    `tol` was to end, or the log-likelihood fell by more than rounding.  Ctrl-C takes effect after the next
    E-step, when parameters and trace belong together: the run ends, and `Trace.pass_on_interrupt` raises
    KeyboardInterrupt as soon as the caller has kept them.  A second Ctrl-C raises at once.

    `start` is parameters, or a `Saved` run to go on with.  ``e_step(parameters)`` gives statistics and the
    mean log-likelihood in nats per row, ``m_step(statistics)`` parameters.  `max_iter`, `tol` and `progress`
    are those of `gmmlib.base.LearnedByEM`.  An `Algorithm` is made ready before each E-step, which applies
    it; `tol` stops none that has not settled.  ``callback(parameters, log_likelihoods)`` comes at the start
    and after each iteration, and a true result stops; ``save(statistics, log_likelihoods)`` before each
    M-step, with what a `Saved` needs.  ``pruned()`` says whether the last M-step removed components: then no
    climb is promised.
    """
    earlier = isinstance(start, Saved)
    parameters = m_step(start.statistics) if earlier else start
    trace = list(map(float, start.log_likelihoods)) if earlier else []
    falls, level = [], -np.inf
    shown = {"total": max_iter, "initial": len(trace), "desc": "EM", "unit": "it"}
    bar = progress_bar(**shown) if progress else nullcontext()
    with interrupts.deferred() as interrupted, bar:
        while True:
            if algorithm is not None:
                algorithm.begin()
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
            level = trace[-1] if algorithm is None or algorithm.climbs else -np.inf
            if progress:
                bar.set_postfix(nats=f"{log_likelihood:.4f}", refresh=False)
            try:
                stop = callback is not None and callback(parameters, trace)
            except KeyboardInterrupt:
                return parameters, Trace(np.array(trace), False, True)
            settled = algorithm is None or algorithm.settled
            converged = settled and len(trace) > 1 and abs(trace[-1] - trace[-2]) < tol
            done = stop or converged or len(trace) > max_iter
            if not done and save is not None:
                save(statistics, trace)
            if done or interrupted():
                _report(falls, len(trace) - 1, tol > 0 and not (stop or converged or interrupted()), tol)
                return parameters, Trace(np.array(trace), converged, interrupted() and not done)
            parameters = m_step(statistics)
            if progress:
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
