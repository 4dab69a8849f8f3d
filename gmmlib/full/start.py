"""Where a fit of full covariances starts: random samples, or what a caller gives."""

import numpy as np

from gmmlib import _checks
from gmmlib.full import whitening

JITTER = 0.1  # standard deviations between components that start at one place


def jittered(centres, deviation, rng):
    """Jitter centres (K, D) that coincide with an earlier one, by `JITTER` standard deviations (D,).

    Components that start alike would be separated by rounding alone, on each processor in another way.
    """
    for k in range(1, len(centres)):
        away = (((centres[:k] - centres[k]) / deviation) ** 2).sum(axis=1)
        if away.min() < JITTER**2 * len(deviation):
            centres[k] += JITTER * deviation * rng.standard_normal(len(deviation))
    return centres


def given(mapping, n_components, dimension, name):
    """Check weights, means and covariances from a caller or a file."""
    form = next((key for key in ("covariances", "precisions") if key in mapping), None)
    if form is None or "weights" not in mapping or "means" not in mapping:
        raise ValueError(
            f'{name} must hold "weights", "means" and "covariances" or "precisions"; got {sorted(mapping)}.'
        )
    shapes = {
        "weights": (n_components,),
        "means": (n_components, dimension),
        form: (n_components, dimension, dimension),
    }
    arrays = {}
    for key, shape in shapes.items():
        arrays[key] = _checks.parameter(mapping[key], f"{name}[{key!r}]", shape).copy()
        _checks.finite(arrays[key], f"{name}[{key!r}]")
    weights = arrays["weights"]
    _checks.mixing_weights(weights, f"{name}['weights']")
    for k, matrix in enumerate(arrays[form]):
        try:
            if not np.allclose(matrix, matrix.T, rtol=1e-8, atol=1e-12 * abs(matrix).max()):
                raise np.linalg.LinAlgError
            factor = whitening.inverse_cholesky(matrix)
        except np.linalg.LinAlgError:
            raise ValueError(
                f"{name}[{form!r}] must be symmetric and positive definite; number {k} is not. "
                "Add a small multiple of the identity."
            ) from None
        if form == "precisions":
            arrays[form][k] = factor.T @ factor
    return weights, arrays["means"], arrays[form]


def given_counts(counts, n_values, n_components, name):
    """Check the numbers of components of a stored run: one for each value of its trace, the last of now."""
    counts = np.asarray(counts)
    whole = counts.ndim == 1 and len(counts) == n_values and (counts == np.floor(counts)).all()
    if not whole or (len(counts) and (counts[-1] != n_components or (np.diff(counts) > 0).any())):
        raise ValueError(
            f"{name} must be {n_values} numbers of components, none above the one before it, the last "
            f"{n_components}; got shape {counts.shape}, {counts[-3:].tolist() if counts.ndim else counts}. "
            "Save the model again."
        )
    return counts.astype(np.int64, copy=False)
