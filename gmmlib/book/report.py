"""Numbers as the book states them: a mean and the half-width of its 95 % interval."""

from gmmlib._extras import extra
from gmmlib.evaluation.evidence import Difference, interval

with extra("book"):
    from myst_nb import glue


def plus_minus(values, digits, n_test=None):
    """Write runs as "mean ± half-width", with a number of digits after the point."""
    mean, half = interval(values, n_test)
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def number(key, value, digits=None):
    """Give a number or a word a name that prose can use."""
    if digits is not None:
        value = round(float(value), digits) + 0.0  # no minus before a zero
    glue(key, value, display=False)


def glued(key, values, digits, n_test=None, unit=1):
    """Name the mean of runs, and as ``<key>_ci`` the half-width of its interval, both times `unit`."""
    mean, half = values[:2] if isinstance(values, Difference) else interval(values, n_test)
    number(key, unit * mean, digits)
    number(f"{key}_ci", unit * half, digits)


def verdict(p_value, mean, words=("gains", "loses", "shows no difference"), level=0.05):
    """The word for a difference: more, less, or none that is shown at a level."""
    if p_value > level:
        return words[2]
    return words[0] if mean > 0 else words[1]
