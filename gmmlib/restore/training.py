"""Priors learned from photographs: mixtures of patches without their means."""

import warnings

from sklearn.exceptions import ConvergenceWarning

from gmmlib import ConvolutionalGMM, FullGMM, _checks, patches

START, ITERATIONS = 100_000, 3  # patches, and iterations of EM on them, before the first batch
BATCH = 25_000  # patches: 125 for each of 200 components
RIDGE = 1e-6  # variance added to each pixel; rounding to 8 bits has added a third of that


def full(photographs, n_components=200, *, side=8, n_batches=60, random_state=0, callback=None):
    """A `FullGMM` of patches: EM on a first sample, then online EM on fresh batches.

    Parameters
    ----------
    photographs : list of array-like, (H, W)
        Grey levels from 0 to 1.
    n_components, side : int
        Covariances, and pixels of a patch in each direction.
    n_batches : int
        Batches of 25,000 patches, after a first sample of 100,000.
    random_state : int or Generator
        Draws the patches and starts the mixture.
    callback : callable, optional
        Called without arguments after each batch.

    Returns
    -------
    FullGMM
        Of rows, (side * side,) each, with means of 0.
    """
    settings = dict(zero_means=True, reg_covar=RIDGE)
    return _trained(FullGMM, n_components, settings, photographs, side, n_batches, random_state, callback)


def stationary(
    photographs, n_components=200, *, basis="cosine", side=8, n_batches=60, random_state=0, callback=None
):
    """The same of stationary components, a `ConvolutionalGMM` of power spectra in a `basis`."""
    settings = dict(basis=basis, zero_mean_patches=True)
    return _trained(
        ConvolutionalGMM, n_components, settings, photographs, side, n_batches, random_state, callback
    )


def _trained(kind, n_components, settings, photographs, side, n_batches, random_state, callback):
    rng = _checks.generator(random_state)
    model = kind(n_components, max_iter=ITERATIONS, tol=0, random_state=rng, **settings)

    def drawn(count):
        found = patches.remove_mean(patches.sample_patches(photographs, side, count, rng)[0])
        return found.reshape(count, -1) if kind is FullGMM else found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the batches go on where the fit stops
        model.fit(drawn(START))
    for _ in range(n_batches):
        model.partial_fit(drawn(BATCH))
        if callback is not None:
            callback()
    return model
