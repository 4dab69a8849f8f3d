"""What callers may pass, and what they are told when it is something else.

Every message names the argument, what was expected, what came, and what to do.
"""

import numbers
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from scipy import sparse

PACKAGE = str(Path(__file__).parent)

ROWS_AT_ONCE = 4096  # checks walk the data in blocks, so that they need no memory of its size
BATCHES = (
    "Join batches by numpy.concatenate, or pass them to partial_fit one after another (ConvolutionalGMM and "
    "FullGMM have it)."
)
LARGEST_INTEGER = 2**63 - 1  # a count of anything
LARGEST = 1e150  # a few million squares of such values can still be added in float64


def positive_integer(value, name):
    """Return a count as int."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name} must be a positive integer; got {value!r}.")
    if value > LARGEST_INTEGER:
        raise ValueError(
            f"{name} must be at most {LARGEST_INTEGER}; got an integer of {int(value).bit_length()} bits."
        )
    return int(value)


def non_negative(value, name, least=">= 0"):
    """Return a finite real number >= 0 as float."""
    number = np.nan
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with suppress(OverflowError):  # an integer beyond all floats
            number = float(value)
    if not 0 <= number < np.inf or (number == 0 and least == "> 0"):
        raise ValueError(f"{name} must be a finite number {least}; got {value!r}.")
    return number


def positive(value, name):
    """Return a finite real number > 0 as float."""
    return non_negative(value, name, "> 0")


def truth(value, name):
    """Return True or False as bool."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False; got {value!r}.")
    return bool(value)


def one_of(value, name, options):
    """Return a string that must be one of the options."""
    if not isinstance(value, str) or value not in options:
        *most, last = (f'"{option}"' for option in options)
        raise ValueError(f"{name} must be {', '.join(most)} or {last}; got {value!r}.")
    return value


def callback(value, name="callback"):
    """Refuse a callback that cannot be called, before anything is computed."""
    if value is not None and not callable(value):
        raise ValueError(f"{name} must be None or a function of a model and an iteration; got {value!r}.")


def random_state(value):
    """Refuse what no generator can be made of."""
    if isinstance(value, np.random.Generator | np.random.RandomState) or value is None:
        return
    if not isinstance(value, numbers.Integral) or value < 0:
        raise ValueError(
            f"random_state must be None, an integer >= 0 or a numpy Generator or RandomState; got {value!r}."
        )


def generator(seed):
    """Turn None, an integer, a Generator or a RandomState into a Generator."""
    random_state(seed)
    if isinstance(seed, np.random.RandomState):
        seed = seed.randint(2**32, size=4, dtype=np.uint64)
    return np.random.default_rng(seed)


def settings(model):
    """Refuse values of the settings that estimators share."""
    own = model._get_param_names()
    for name, check in SHARED.items():
        if name in own:
            check(getattr(model, name), name)


SHARED = {
    "n_components": positive_integer,
    "max_iter": positive_integer,
    "n_init": positive_integer,
    "tol": non_negative,
    "variance_floor": non_negative,
    "reg_covar": non_negative,
    "zero_mean_patches": truth,
    "chunk_size": positive_integer,
    "callback": callback,
}


def images(X, name="X", shape=None, missing=False):
    """Return real, finite images (N, H, W), of the `shape` (H, W) of a fitted model, uncopied if an array.

    With `missing`, NaN and masked pixels may be there.
    """
    X = array(readable(X, name, missing), name)
    if X.ndim != 3:
        raise ValueError(
            f"{name} must hold images in an array of shape (N, H, W); got shape {X.shape}. "
            f"One image is image[None]; rows of pixels are reshaped with {name}.reshape(-1, H, W)."
            + (f" {BATCHES}" if X.ndim > 3 else "")
        )
    real(X, name)
    if X.size == 0:
        raise ValueError(f"{name} must hold at least one image of at least one pixel; got shape {X.shape}.")
    if shape is not None and X.shape[1:] != tuple(shape):
        raise ValueError(
            f"{name} must hold images of {shape[0]} x {shape[1]} pixels, the size the model was fitted on; "
            f"got {X.shape[1]} x {X.shape[2]}. Crop or resize them, or fit a model on this size."
        )
    (not_infinite if missing else finite)(X, name)
    moderate(X, name)
    return X


def array(values, name):
    """Return an array as `plain` makes it; lists must not be ragged."""
    try:
        return plain(np.asarray(readable(values, name)))
    except ValueError as error:
        if str(error).startswith(name):
            raise
        raise ValueError(
            f"{name} must be an array, or lists of equal lengths; numpy says: {error} {BATCHES}"
        ) from None


def readable(values, name, missing=False):
    """Refuse what numpy would misread: sparse arrays, iterators and masked values (NaN with `missing`)."""
    if sparse.issparse(values):
        raise ValueError(
            f"{name} must be a dense array; got a sparse one of shape {values.shape}. "
            f"Pass {name}.toarray(), or dense batches of rows to partial_fit."
        )
    if isinstance(values, Iterator):
        raise ValueError(
            f"{name} must be an array; got a {type(values).__name__}, which yields its parts one by one. "
            f"{BATCHES}"
        )
    if not _is_masked(values):
        return values
    if missing and isinstance(values, np.ma.MaskedArray) and values.dtype.kind in "buif":
        return np.ma.filled(values.astype(np.result_type(values.dtype, np.float32)), np.nan)
    raise ValueError(
        f"{name} must not hold masked values: what lies under a mask is no data. Leave out rows that have "
        "some, or fill them. FullGMM(allow_missing=True) scores rows with missing values."
    )


def _is_masked(values):
    if isinstance(values, (list, tuple)):
        return any(_is_masked(v) for v in values if isinstance(v, (list, tuple, np.ma.MaskedArray)))
    return isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values)


def warn(message, category):
    """Warn in the name of the line outside this package that led here."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def plain(X):
    """Return an array in rows and this machine's byte order, which decide the last digits of sums."""
    return np.asarray(X, dtype=X.dtype if X.dtype.isnative else X.dtype.newbyteorder("="), order="C")


def real(X, name):
    """Refuse arrays of anything but real numbers."""
    if X.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold real numbers; got dtype {X.dtype}.")


def finite(X, name, remedy="Remove or replace them first."):
    """Refuse NaN and infinity, saying how many there are and where the first one is."""
    _refuse(X, name, lambda block: ~np.isfinite(block), "finite", "NaN or infinite", remedy)


def not_infinite(X, name):
    """Refuse infinity, where NaN stands for a missing value."""
    _refuse(X, name, np.isinf, "finite or NaN", "infinite")


def moderate(X, name):
    """Refuse values whose squares would overflow; NaN passes."""
    if X.dtype.kind == "f" and float(np.finfo(X.dtype).max) > LARGEST:  # float32 cannot hold the limit
        expected = f"at most {LARGEST:g} in size, so that products do not overflow"
        _refuse(X, name, lambda block: np.abs(block) > LARGEST, expected, "larger", "Scale the data first.")


def _refuse(X, name, is_bad, expected, bad_kind, remedy="Remove or replace them first."):
    if X.dtype.kind != "f":
        return
    count, first = 0, None
    for start in range(0, len(X), ROWS_AT_ONCE):
        block = X[start : start + ROWS_AT_ONCE]
        # If anything is bad, the smallest or the largest value is: NaN is both.
        if not is_bad(np.array([block.min(initial=0), block.max(initial=0)])).any():
            continue
        bad = is_bad(block)
        if first is None and bad.any():
            row, *others = map(int, np.argwhere(bad)[0])
            first = (start + row, *others)
        count += int(bad.sum())
    if count:
        values = f"{count} values that are" if count > 1 else "1 value that is"
        raise ValueError(
            f"{name} must be {expected}; got {values} {bad_kind}, the first at index {first}. {remedy}"
        )


def log_joints(joint, first_row):
    """Refuse chunks of log joints (n, K) with rows that no component gives a density in float64."""
    best = joint.max(axis=1)
    if not np.isfinite(best).all():
        row = int(np.isfinite(best).argmin())
        raise ValueError(
            "X must have a density above 0 in float64 in every row; got the largest log density "
            f"{best[row]:g} in row {first_row + row}: it overflows. Scale X as the data of fit, or leave "
            "such rows out."
        )
    return joint


def unchanged(name, value, learned):
    """Refuse to go on from a fitted model with another value of a setting than it was fitted with."""
    if value != learned:
        raise ValueError(
            f"{name} must stay {learned!r}, as in the fit that this one goes on from; got {value!r}. "
            "Fit a new model (sklearn.base.clone), or set it back."
        )


def sample_weight(weight, n_rows):
    """Return row weights as a float64 (N,) array; None means one each."""
    if weight is None:
        return np.ones(n_rows)
    weight = array(weight, "sample_weight")
    if weight.shape != (n_rows,):
        raise ValueError(
            f"sample_weight must hold one weight a row, shape ({n_rows},); got shape {weight.shape}."
        )
    real(weight, "sample_weight")
    finite(weight, "sample_weight")
    moderate(weight, "sample_weight")
    weight = weight.astype(np.float64, copy=False)
    if weight.min() < 0:
        raise ValueError(
            f"sample_weight must not be negative; got {weight.min():g} at index {int(weight.argmin())}."
        )
    if weight.max() == 0:
        raise ValueError("sample_weight must not be zero everywhere; got all zeros: no row would count.")
    return weight


def enough_rows(weight, n_components, name="X"):
    """Refuse fewer rows (of positive weight) than components."""
    n_rows = int(np.count_nonzero(weight))
    if n_rows < n_components:
        raise ValueError(
            f"n_components={n_components} needs at least as many rows of positive weight in {name}; "
            f"got {n_rows}. Pass more data or ask for fewer components."
        )


def labels(values, name, size=None, size_name="size"):
    """Return labels 0 ... size - 1 as int (N,), and size; without one, size is the largest label plus 1."""
    values = array(values, name)
    if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be a vector of integers, one a sample; got shape {values.shape} of dtype "
            f"{values.dtype}. Posteriors (N, K) become labels by argmax(axis=1)."
        )
    if values.min() < 0:
        raise ValueError(
            f"{name} must count from 0; got {values.min()} at index {int(values.argmin())}. "
            "Leave out samples that have no label."
        )
    size = int(values.max()) + 1 if size is None else positive_integer(size, size_name)
    if values.max() >= size:
        raise ValueError(
            f"{name} must be below {size_name}={size}; got {values.max()} at index {int(values.argmax())}. "
            f"Pass a larger {size_name}, or None to take it from the labels."
        )
    return values.astype(np.intp), size


def components(values, n_components, name="labels"):
    """Return components of a fitted mixture, integers 0 ... K - 1, as int (N,)."""
    values, size = labels(values, name)
    if size > n_components:
        raise ValueError(
            f"{name} must be components of the fitted mixture, 0 to {n_components - 1}; "
            f"got {values.max()} at index {int(values.argmax())}. Components count from 0."
        )
    return values


def amounts(values, name):
    """Return finite numbers >= 0 as a float64 array of at least one axis."""
    values = array(values, name)
    if values.ndim == 0 or values.dtype.kind not in "buif":
        raise ValueError(
            f"{name} must be an array of real numbers; got shape {values.shape} of dtype {values.dtype}."
        )
    finite(values, name)
    if (values < 0).any():
        where = tuple(map(int, np.argwhere(values < 0)[0]))
        raise ValueError(
            f"{name} must not be negative; got {values[where]:g} at index {where}. "
            "Pass the values themselves, not their logarithms."
        )
    return values.astype(np.float64, copy=False)


def posteriors(values, name="posteriors"):
    """Return posteriors (N, K), rows that sum to 1, as float64."""
    values = amounts(values, name)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"{name} must have a row a sample, shape (N, K); got shape {values.shape}.")
    total = values.sum(axis=1)
    worst = int(np.abs(total - 1).argmax())
    if abs(total[worst] - 1) > 1e-4:  # float32 rows are off by less
        raise ValueError(
            f"{name} must sum to 1 in every row; got {total[worst]:g} in row {worst}. "
            "Pass what predict_proba returns."
        )
    return values


def parameter(values, name, shape):
    """Return one of the parameters of a start or a file as float64 of that shape."""
    values = array(values, name)
    real(values, name)
    if values.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; got {values.shape}.")
    return values.astype(np.float64, copy=False)


def mixing_weights(values, name):
    """Refuse weights (K,) that are no distribution."""
    if not (values >= 0).all() or abs(values.sum() - 1) > 1e-6:
        raise ValueError(
            f"{name} must be >= 0 and sum to 1; got {values.min():g} at least and the sum {values.sum():g}."
        )


def spectra(values, shape, name="spectra"):
    """Return half-plane spectra (K, H, W//2 + 1) of H x W pixels, none of them zero, as float64."""
    values = amounts(values, name)
    height, width = shape
    half = (height, width // 2 + 1)
    if values.ndim != 3 or values.shape[1:] != half or len(values) == 0:
        raise ValueError(
            f"{name} must hold half-plane spectra of {height} x {width} pixels, shape "
            f"(K, {half[0]}, {half[1]}); got shape {values.shape}. One spectrum is spectrum[None]."
        )
    empty = np.flatnonzero(~values.any(axis=(1, 2)))
    if len(empty):
        raise ValueError(
            f"{name} must have power at some frequency; got none in the spectrum at index {int(empty[0])}. "
            "Leave that component out."
        )
    return values
