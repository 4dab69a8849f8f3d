"""Principal axes of weighted rows: what a mixture of full covariances is given of long codes."""

from typing import NamedTuple

import numpy as np
from scipy import linalg

from gmmlib import _checks

LEAST = 1e-12  # share of the largest variance below which a direction has none


class Axes(NamedTuple):
    """An affine map to d principal coordinates."""

    mean: np.ndarray  # (D,)
    basis: np.ndarray  # (D, d)  columns of unit length, or divided by the standard deviations along them


def principal_axes(X, weight, n_axes, whiten):
    """Axes of the largest variances of rows X (N, D) with weights (N,), each pointing to its largest entry.

    Raises
    ------
    ValueError
        If the rows vary in fewer than `n_axes` directions.
    """
    mean = weight @ X / weight.sum()
    centred = X - mean
    centred *= np.sqrt(weight / weight.sum())[:, None]
    dimension = X.shape[1]
    kept = [dimension - min(n_axes, dimension), dimension - 1]
    variances, basis = linalg.eigh(centred.T @ centred, subset_by_index=kept)
    variances, basis = variances[::-1], basis[:, ::-1]
    varying = int((variances > LEAST * variances[0]).sum()) if variances[0] > 0 else 0
    if n_axes > varying:
        raise ValueError(
            f"n_axes must be at most {varying}, the directions in which the {len(X)} rows of length "
            f"{dimension} vary; got {n_axes}. Ask for fewer axes, or pass more rows of X."
        )
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=0)[None], axis=0)
    basis = basis * np.sign(largest)
    return Axes(mean, np.ascontiguousarray(basis / np.sqrt(variances) if whiten else basis))


def project(axes, X):
    """Coordinates of rows (N, D) along the axes, (N, d); the rows themselves where there are none."""
    return X if axes is None else (X - axes.mean) @ axes.basis


def stored(mean, basis, where):
    """Axes of a file, refused if they are none."""
    if basis.ndim != 2 or not 0 < basis.shape[1] <= basis.shape[0]:
        raise ValueError(
            f"{where} must hold at most as many axes as coordinates, (D, d); got shape {basis.shape}. "
            "Save the model again."
        )
    axes = Axes(
        _checks.parameter(mean, f"{where}: mean", (len(basis),)),
        _checks.parameter(basis, f"{where}: basis", basis.shape),
    )
    for values in axes:
        _checks.finite(values, where)
    return axes
