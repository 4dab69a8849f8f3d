"""Where a fit of full covariances starts: k-means, random samples, or what a caller gives."""

import warnings
from functools import partial

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import euclidean_distances
from sklearn.utils import check_random_state
from sklearn.utils.extmath import row_norms
from threadpoolctl import threadpool_limits

from gmmlib import _checks, posterior
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


def kmeans_labels(X, weight, n_components, random_state):
    """Cluster of each row by k-means, as scikit-learn's mixtures start.

    Rows are rounded to 30 bits of the largest number: which of clusters that tie comes first, as is common
    where rows repeat each other, must not hang on their last bits.
    """
    if isinstance(random_state, np.random.Generator):
        random_state = int(random_state.integers(2**31))
    uniform = None if (weight == weight[0]).all() else weight
    rng = check_random_state(random_state)
    algorithm = "elkan" if n_components > 1 else "lloyd"  # the first is faster in many dimensions
    _, exponent = np.frexp(max(float(X.max()), -float(X.min())))
    rounded = np.ldexp(np.asarray(X, dtype=np.float64), 30 - exponent)
    np.rint(rounded, out=rounded)
    init, options = partial(spread_out, weight=weight), {"algorithm": algorithm, "copy_x": False}
    model = KMeans(n_components, init=init, n_init=1, random_state=rng, **options)
    # Its threads add centres in the order in which they finish: one thread, so that digits stay the same.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="openmp"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: see revive
        return model.fit(rounded, sample_weight=uniform).labels_


def spread_out(X, count, random_state, weight):
    """Rows from which k-means starts, (count, D), by greedy k-means++.

    The draws are scikit-learn's (Arthur and Vassilvitskii 2007, SODA); but where some of the rows drawn would
    serve equally well, the first is taken, not one that rounding prefers.
    """
    squares = row_norms(X, squared=True)

    def distances(rows):
        return euclidean_distances(X[rows], X, Y_norm_squared=squares, squared=True)

    chosen = [random_state.choice(len(X), p=weight / weight.sum())]
    nearest = distances(chosen)[0]
    for _ in range(1, count):
        upto = np.cumsum(weight * nearest)
        drawn = np.searchsorted(upto, random_state.uniform(size=2 + int(np.log(count))) * (nearest @ weight))
        drawn = np.minimum(drawn, len(X) - 1)
        within = np.minimum(nearest, distances(drawn))
        total = within @ weight
        best = int((total <= (1 + posterior.TIE) * total.min()).argmax())
        chosen.append(drawn[best])
        nearest = within[best]
    return X[chosen]


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
