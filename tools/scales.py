"""Which data a run uses: the paper's, or the small sample that needs no download."""


def choose(wanted):
    """The scale to run at, and why.

    Raises
    ------
    SystemExit
        If the paper's scale is asked for and its data cannot be had.
    """
    if wanted == "sample":
        return "sample", "as asked"
    from gmmlib import datasets

    available, reason = datasets.available()
    if available:
        return "paper", reason
    if wanted == "paper":
        raise SystemExit(f"the paper's scale needs MNIST and BSDS500: {reason}")
    return "sample", reason
