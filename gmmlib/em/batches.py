"""EM over data that come in parts: statistics that add, and steps on one batch after another."""

from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks
from gmmlib.em.workers import merge

STEP_POWER = 0.6


class Additive:
    """Mixtures whose E-step leaves statistics that add: EM over data in any storage.

    ``model.m_step(reduce(model.merge, map(model.statistics, parts)))`` is an iteration of EM over the parts.
    """

    merge = staticmethod(merge)

    def statistics(self, X, sample_weight=None):
        """Sufficient statistics of rows, as in `fit`, under the parameters of now: one E-step.

        A named tuple whose fields add; `log_likelihood` is the weighted sum over the rows in nats, `weight`
        that of the weights (N,).
        """
        check_is_fitted(self)
        return self._statistics_of(X, sample_weight)

    def m_step(self, statistics):
        """Set the parameters to the maximum for such statistics, not the record of the fit; return self."""
        check_is_fitted(self)
        self._set_from(statistics)
        return self


class Online:
    """Mixtures that also learn from one batch after another."""

    def partial_fit(self, X, y=None, sample_weight=None):
        """Take one step of online EM on a batch of rows, as in `fit`, with all posteriors; return self.

        The sufficient statistics, of a unit of weight, move towards those of the batch,
        ``s <- (1 - eta) s + eta s_batch``, with the step size ``eta = t^-0.6`` at the t-th step; an M-step
        follows (Cappe and Moulines 2009, JRSS B 71, 593-613, for ``t^-a`` with 1/2 < a <= 1; Liang and Klein
        2009 for an a that forgets the start quickly).  The first batch, of at least as many rows as
        components, starts these as `init` says, unless the model is fitted already: then its parameters count
        as the first step.
        """
        self._check_settings()
        first = not hasattr(self, "weights_")
        if not first:
            self._check_continuation()
        X = self._data(X, reset=first)
        weight = _checks.sample_weight(sample_weight, len(X))
        if first:
            _checks.enough_rows(weight, self.n_components)
        self._take(X, weight, first)
        return self


def step_size(steps):
    """How far the t-th step of online EM moves towards its batch: ``t^-0.6``, all the way at the first."""
    return steps**-STEP_POWER
