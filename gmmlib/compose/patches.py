"""Patches of maps with channels: where they lie, which are drawn for a fit, and how all are scored."""

import math
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.utils import get_tags

from gmmlib import _checks
from gmmlib.compose import cells
from gmmlib.compose.principal_axes import project

PADDINGS = ("constant", "edge", "reflect")
AT_ONCE = 4096  # patches scored together: fewer, and Python's part of the time shows
NUMBERS = 2**18  # values of patches gathered together, at most
BLOCK = 2**14  # patches in a block of maps, about


class Grid(NamedTuple):
    """Where the patches of a map lie; all but `channels` in pairs, for rows and columns."""

    shape: tuple  # of the map
    channels: int
    side: tuple  # of a patch
    stride: tuple
    border: tuple
    padding: str
    counts: tuple  # patches down and across

    @property
    def n_places(self):
        """Patches per map."""
        return math.prod(self.counts)

    @property
    def length(self):
        """Values in a patch."""
        return math.prod(self.side) * self.channels

    @property
    def block_size(self):
        """Maps per block of `gmmlib.em.workers`: a function of their shape alone."""
        return max(1, BLOCK // self.n_places)


def grid(shape, side, stride, border, padding):
    """The `Grid` of maps (H, W, channels); ValueError if no whole number of patches fits."""
    side, stride = cells.pair(side, "side"), cells.pair(stride, "stride")
    border = cells.pair(border, "border", _border)
    if any(b >= s for b, s in zip(border, side, strict=True)):
        raise ValueError(
            f"border must be smaller than side={side}, for every patch to hold a part of the map; got "
            f"{border}. Take a smaller border."
        )
    counts = cells.count_positions(shape[:2], side, stride, border)
    if padding == "reflect" and any(b >= length for b, length in zip(border, shape, strict=False)):
        raise ValueError(
            f'border must be smaller than the map with padding="reflect"; got {border} for maps of '
            f"{shape[0]} x {shape[1]}. Take a smaller border, or another padding."
        )
    return Grid(tuple(shape[:2]), shape[2], side, stride, border, padding, counts)


def _border(value, name):
    return 0 if isinstance(value, int) and value == 0 else _checks.positive_integer(value, name)


def maps(X, shape=None):
    """Return real, finite maps (N, H, W, channels); images (N, H, W) have one channel.

    `shape` is what a fitted layer expects of them.
    """
    X = _checks.array(X, "X")
    if X.ndim != 4:
        X = _checks.images(X, shape=None if shape is None or shape[2] > 1 else shape[:2])[..., None]
    if X.size == 0:
        raise ValueError(f"X must hold at least one map of at least one value; got shape {X.shape}.")
    _checks.real(X, "X")
    _checks.finite(X, "X")
    _checks.moderate(X, "X")
    if shape is not None and X.shape[1:] != tuple(shape):
        raise ValueError(
            f"X must hold maps of {shape[0]} x {shape[1]} with {shape[2]} channels, as in the fit; got "
            f"{X.shape[1]} x {X.shape[2]} with {X.shape[3]}. Pass maps of that shape, or fit another layer."
        )
    return X


def maps_at_once(grid):
    """Maps whose patches are scored together: a function of their shape alone."""
    return max(1, min(AT_ONCE, NUMBERS // grid.length) // grid.n_places)


def extended(maps, grid):
    """Maps with their border, as float64."""
    maps = np.asarray(maps, dtype=np.float64)
    if not any(grid.border):
        return maps
    width = [(0, 0), *((border, border) for border in grid.border), (0, 0)]
    return np.pad(maps, width, mode=grid.padding)


def views(maps, grid):
    """View maps with their border as patches, (n, rows, columns, side down, side across, channels)."""
    windows = sliding_window_view(maps, grid.side, axis=(1, 2))
    return np.moveaxis(windows[:, :: grid.stride[0], :: grid.stride[1]], 3, -1)


def draw(rng, counted, n_places, n_patches):
    """Flat places of patches drawn without replacement from the maps `counted`, rising.

    All of them if there are fewer than `n_patches`.

    The place of patch p of map i is i * n_places + p.
    """
    total = len(counted) * n_places
    chosen = np.arange(total)
    if n_patches < total:
        chosen = np.sort(rng.choice(total, n_patches, replace=False, shuffle=False))
    return counted[chosen // n_places] * n_places + chosen % n_places


def gather(below, places, n_maps, grid, workers):
    """Copy the patches at flat places, (len(places), length), of maps that are made block by block."""

    def of(rows):
        first, last = np.searchsorted(places, [rows.start * grid.n_places, rows.stop * grid.n_places])
        if first == last:
            return np.empty((0, grid.length))
        own = places[first:last] - rows.start * grid.n_places
        n, place = np.divmod(own, grid.n_places)
        all_patches = views(extended(below(rows), grid), grid)
        return all_patches[(n, *np.divmod(place, grid.counts[1]))].reshape(len(own), -1)

    return np.concatenate(list(workers.map(of, n_maps)))


def varying(patches, min_std):
    """Which patches (n, D) have a standard deviation of at least `min_std`, (n,)."""
    if min_std == 0:
        return np.ones(len(patches), dtype=bool)
    return patches.std(axis=1) >= min_std


def of_images(mixture):
    """Whether a mixture takes images rather than vectors."""
    return get_tags(mixture).input_tags.three_d_array


def check_channels(mixture, grid, n_axes):
    """Refuse a mixture of images for what are none."""
    if not of_images(mixture):
        return
    if grid.channels != 1:
        raise ValueError(
            f"mixture must take vectors where maps have {grid.channels} channels; got {mixture!r}, which "
            "takes images of one. Take FullGMM, with n_axes for long patches."
        )
    if n_axes is not None:
        raise ValueError(
            f"n_axes must be None for a mixture of images; got {n_axes} and {mixture!r}. Take FullGMM."
        )


def rows_for(mixture, patches, axes, grid):
    """Flattened patches as a mixture takes them."""
    return patches.reshape(-1, *grid.side) if of_images(mixture) else project(axes, patches)


def scorer(layer, grid):
    """A function of maps (n, H, W, channels) to the log joints (S, K) and places of patches that vary."""
    mixture, min_std = layer.mixture_, layer.min_std
    if hasattr(mixture, "windows") and not (layer.remove_mean and not mixture.zero_mean_patches):
        windows = mixture.windows(grid.stride)
        return lambda maps: windows.score(extended(maps, grid)[..., 0], min_std)

    quadratic = mixture.quadratic() if hasattr(mixture, "quadratic") else None
    log_joint = mixture.log_joint if quadratic is None else quadratic.log_joint

    def score(maps):
        found = views(extended(maps, grid), grid).reshape(-1, grid.length)
        places = np.flatnonzero(varying(found, min_std))
        found = found[places]
        if not len(places):
            return np.empty((0, layer.n_components_)), places
        if layer.remove_mean:
            found -= found.mean(axis=1, keepdims=True)
        return log_joint(rows_for(mixture, found, layer.axes_, grid)), places

    return score


def check_settings(layer):
    """Refuse settings of a layer that cannot be used."""
    lacking = [name for name in ("fit", "log_joint") if not hasattr(layer.mixture, name)]
    if lacking or isinstance(layer.mixture, type):
        raise ValueError(
            f"mixture must be an estimator with fit and log_joint; got {layer.mixture!r}. Pass an "
            "unfitted one such as ConvolutionalGMM(32)."
        )
    _checks.settings(layer)
    _checks.one_of(layer.padding, "padding", PADDINGS)
    _checks.one_of(layer.encoding, "encoding", cells.ENCODINGS)
    _checks.one_of(layer.pooling, "pooling", cells.POOLINGS)
    _checks.non_negative(layer.min_std, "min_std")
    _checks.truth(layer.remove_mean, "remove_mean")
    _checks.truth(layer.whiten, "whiten")
    _checks.positive(layer.inverse_temperature, "inverse_temperature")
    _checks.positive_integer(layer.n_patches, "n_patches")
    _checks.random_state(layer.random_state)
    if layer.n_axes is not None:
        _checks.positive_integer(layer.n_axes, "n_axes")
    if layer.encoding == "log_odds" and layer.pooling == "sqrt":
        raise ValueError(
            'pooling must be "sum" or "max" with encoding="log_odds", which may be negative; got "sqrt".'
        )
    if layer.cells is None and layer.window is not None:
        raise ValueError(
            f"window needs cells, how many windows there are; got window={layer.window!r} and cells=None."
        )
