"""Where things are in a project folder."""

from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent

SCALES = ("paper", "sample")

# Seconds that one step of another program may take before it counts as stuck: far more than it needs on a
# machine that is busy with other work, where a page was seen to take 46.
PATIENCE = 1800


class Project(NamedTuple):
    """The folders of one project; everything made goes under ``_build`` until it is frozen."""

    root: Path = REPOSITORY

    @property
    def book(self):
        """Sources: one ``.md`` a chapter or page, and the published notebooks beside them."""
        return self.root / "book"

    @property
    def lock(self):
        """Every package of the environment, with its version and hashes."""
        return self.root / "requirements.lock"

    @property
    def library(self):
        """The package the chapters call."""
        return self.root / "gmmlib"

    def references(self, scale):
        """Stored runs that later runs are compared with; the paper's are the published ones."""
        return self.book if scale == "paper" else self.root / "tests" / "reference"

    def build(self, name):
        """What is made at a scale (or from the ``published`` notebooks), and can be deleted."""
        return self.root / "_build" / name

    def runs(self, scale):
        """Executed notebooks of a scale."""
        return self.build(scale) / "notebooks"
