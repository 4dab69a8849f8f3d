"""Priors learned from photographs: mixtures of patches without their means."""

import warnings

from sklearn.exceptions import ConvergenceWarning

from gmmlib import ConvolutionalGMM, FullGMM, _checks, patches

ITERATIONS = 3  # of EM on the first sample
BATCH = 25_000  # patches: 125 for each of 200 components
RIDGE = 1e-6  # variance added to each pixel; rounding to 8 bits has added 1.3 times as much


def full(
    photographs, n_components=200, *, side=8, n_first=100_000, n_batches=60, random_state=0, callback=None
):
    """A `FullGMM` of patches: EM on a first sample, then online EM on fresh batches.

    Parameters
    ----------
    photographs : list of array-like, (H, W)
        Grey levels from 0 to 1.
    n_components, side : int
        Covariances, and pixels of a patch in each direction.
    n_first, n_batches : int
        Patches of the first sample, and batches of 25,000 patches after it.
    random_state : int or Generator
        Draws the patches and starts the mixture.
    callback : callable, optional
        Called without arguments after each batch.

    Returns
    -------
    FullGMM
        Of rows, (side * side,) each, with means of 0.
    """
    model = FullGMM(n_components, zero_means=True, reg_covar=RIDGE)
    return _trained(model, photographs, side, n_first, n_batches, random_state, callback)


def stationary(
    photographs, n_components=200, *, basis="cosine", side=8, n_first=100_000, n_batches=20, random_state=0
):
    """The same of stationary components, a `ConvolutionalGMM` of power spectra in a `basis`."""
    model = ConvolutionalGMM(n_components, basis=basis, zero_mean_patches=True)
    return _trained(model, photographs, side, n_first, n_batches, random_state, None)


def _trained(model, photographs, side, n_first, n_batches, random_state, callback):
    rng = _checks.generator(random_state)
    model.set_params(max_iter=ITERATIONS, tol=0, random_state=rng)
    in_rows = isinstance(model, FullGMM)

    def drawn(count):
        found = patches.remove_mean(patches.sample_patches(photographs, side, count, rng)[0])
        return found.reshape(count, -1) if in_rows else found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the batches go on where the fit stops
        model.fit(drawn(n_first))
    for _ in range(n_batches):
        model.partial_fit(drawn(BATCH))
        if callback is not None:
            callback()
    return model
