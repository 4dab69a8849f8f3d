"""What an M-step is given of the posteriors: EM proper, stochastic, hard or annealed."""

import numpy as np

from gmmlib import _checks
from gmmlib.em import streams
from gmmlib.posterior import most_probable


class Algorithm:
    """What an M-step is given of the posteriors.

    Parameters
    ----------
    setting : {"em", "sem", "cem", "annealed"} or mapping
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
        The power of the E-step that `begin` made ready, to which `gmmlib.posterior.normalise` raises.
    """

    NAMES = ("em", "sem", "cem", "annealed")
    START, RATE = 0.1, 1.2

    def __init__(self, setting, n_rows, random_state):
        self.name, self._next_beta, self._rate = self.checked(setting)
        self.n_rows = n_rows
        self.beta = 1.0
        self.rng = _checks.generator(random_state).spawn(1)[0] if self.name == "sem" else None

    @classmethod
    def checked(cls, setting):
        """Name, first beta and rate of a setting; ValueError if it is none."""
        if not hasattr(setting, "keys"):
            name = _checks.one_of(setting, "algorithm", cls.NAMES)
            return (name, cls.START, cls.RATE) if name == "annealed" else (name, 1.0, 1.0)
        if set(setting) != {"name", "start", "rate"} or setting["name"] != "annealed":
            raise ValueError(
                'algorithm must be a name, or a mapping {"name": "annealed", "start": ..., "rate": ...}; '
                f"got {setting!r}."
            )
        start = _checks.non_negative(setting["start"], "algorithm['start']")
        rate = _checks.non_negative(setting["rate"], "algorithm['rate']")
        if not 0 < start <= 1 or rate <= 1:
            raise ValueError(
                "algorithm must start above 0 and at most at 1, and rise at a rate above 1; "
                f"got a start of {start:g} and a rate of {rate:g}."
            )
        return "annealed", start, rate

    @property
    def climbs(self):
        """Whether an M-step on the posteriors of this E-step cannot lower the likelihood."""
        return self.name in ("em", "annealed") and self.settled

    @property
    def settled(self):
        """Whether the E-step is the last of its kind: no schedule changes the ones to come."""
        return self.beta == 1.0

    def begin(self):
        """Draw for all rows of an E-step at once, so that chunks and threads change nothing."""
        if self.rng is not None:
            self.height = self.rng.random(self.n_rows)
        self._advance()

    def _advance(self):
        self.beta = min(1.0, self._next_beta)
        self._next_beta = self.beta * self._rate

    def state(self):
        """What JSON can hold of the stream; `restore` goes on from it."""
        return {"stream": streams.state(self.rng)}

    def restore(self, state, n_steps):
        """Go on as after the E-step, the `n_steps`-th, at which `state` was taken."""
        for _ in range(n_steps):
            self._advance()
        streams.restore(self.rng, state["stream"])

    def __call__(self, resp, rows):
        """Change the posteriors (n, K) of a slice of rows in place."""
        if self.name in ("em", "annealed"):
            return
        if self.name == "cem":
            chosen = most_probable(resp)
        else:
            upto = np.cumsum(resp, axis=1)
            chosen = (upto <= self.height[rows, None] * upto[:, -1:]).sum(axis=1)
        resp[...] = 0.0
        resp[np.arange(len(resp)), chosen] = 1.0
