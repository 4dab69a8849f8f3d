"""A layer of patches: a mixture that every position of a map shares, and what is pooled of its posteriors.

The maps of the lowest layer are images, those of a higher one the cells of the layer below it, one channel a
component.
"""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks
from gmmlib.compose import cells, patches
from gmmlib.compose.principal_axes import principal_axes
from gmmlib.em.workers import Workers


class PatchLayer(TransformerMixin, BaseEstimator):
    """Mixture on the patches of maps, and the pooled codes of its posteriors.

    Maps (N, H, W, channels) become cells (N, cells down, cells across, K).  Where two numbers are meant, one
    stands for both: rows and columns.

    Parameters
    ----------
    mixture : estimator
        Unfitted; with `fit` and `log_joint`.  One of images, such as `ConvolutionalGMM`, takes patches
        (n, side, side) of a single channel; one of vectors, such as `FullGMM`, flattened ones or their
        principal coordinates.
    side : int or (int, int)
        Of a patch.
    stride : int or (int, int)
        Steps between patches; they must end where the map does.
    border : int or (int, int)
        By how much maps are extended on each side, as `padding` says.
    padding : {"constant", "edge", "reflect"}
        With zeros, with the outermost values, or mirrored at them.
    min_std : float
        Patches whose standard deviation is below it are left out: none is fitted, and their code is zero.
        In units of the map.
    remove_mean : bool
        Take from each patch its own mean, channels together.
    n_axes : int, optional
        Principal coordinates of the patches that a mixture of vectors gets; by default the values themselves.
    whiten : bool
        Divide the principal coordinates by their standard deviations.
    encoding : {"soft", "hard", "log_odds"}
        The code of a patch: its posteriors; 1 for the most probable component and 0 for the others; or
        log odds of each component against all others, cut at +-40 nats.
    inverse_temperature : float
        The soft code is proportional to the posteriors raised to it.
    cells : int or (int, int), optional
        Cells down and across; by default every patch has its own.
    window : int or (int, int), optional
        Patches down and across a cell, which then may overlap; by default the cells part the patches.
    pooling : {"sqrt", "sum", "max"}
        What a cell keeps of the codes in it: the root of their sum, the sum, or the largest, at least 0.
    n_patches : int
        Patches drawn at random for the fit, all if there are fewer; those below `min_std` are then left out.
    random_state : int, Generator, RandomState or None
        Which patches are drawn.  The mixture has its own.
    chunk_size : int
        Maps that a thread takes at a time; no digit depends on it.

    Attributes
    ----------
    mixture_ : estimator
        Fitted.
    axes_ : gmmlib.compose.principal_axes.Axes or None
    map_shape_ : (int, int, int)
        Height, width and channels of a map.
    n_patches_ : int
        Patches that the mixture was fitted to.

    Examples
    --------
    >>> from gmmlib import ConvolutionalGMM, PatchLayer
    >>> layer = PatchLayer(ConvolutionalGMM(64), side=8, min_std=0.1, cells=5, window=6)
    """

    def __init__(
        self,
        mixture,
        *,
        side,
        stride=1,
        border=0,
        padding="constant",
        min_std=0.0,
        remove_mean=False,
        n_axes=None,
        whiten=False,
        encoding="soft",
        inverse_temperature=1.0,
        cells=None,
        window=None,
        pooling="sqrt",
        n_patches=100_000,
        random_state=None,
        chunk_size=64,
    ):
        self.mixture = mixture
        self.side = side
        self.stride = stride
        self.border = border
        self.padding = padding
        self.min_std = min_std
        self.remove_mean = remove_mean
        self.n_axes = n_axes
        self.whiten = whiten
        self.encoding = encoding
        self.inverse_temperature = inverse_temperature
        self.cells = cells
        self.window = window
        self.pooling = pooling
        self.n_patches = n_patches
        self.random_state = random_state
        self.chunk_size = chunk_size

    def fit(self, X, y=None, sample_weight=None):
        """Fit the mixture to patches of maps.

        Parameters
        ----------
        X : array-like, (N, H, W) or (N, H, W, channels)
        y : object
            Ignored.
        sample_weight : array-like, (N,), optional
            Weights of the maps, and so of all patches in them.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a setting or the maps cannot be used, or no patch is left.
        """
        patches.check_settings(self)
        X = patches.maps(X)
        weight = _checks.sample_weight(sample_weight, len(X))
        self.fit_streamed(lambda rows: X[rows], X.shape[1:], weight)
        return self

    def fit_streamed(self, below, shape, weight):
        """Fit to maps that are made block by block, and never kept.

        Parameters
        ----------
        below : callable
            A slice of rows to their maps (n, H, W, channels).
        shape : (H, W, channels)
        weight : ndarray, (N,)
        """
        patches.check_settings(self)
        grid = self.grid(shape)
        rng = _checks.generator(self.random_state)
        counted = np.flatnonzero(weight)
        places = patches.draw(rng, counted, grid.n_places, self.n_patches)
        with self.workers(shape) as workers:
            found = patches.gather(below, places, len(weight), grid, workers)
        varies = patches.varying(found, self.min_std)
        if not varies.any():
            raise ValueError(
                f"min_std={self.min_std:g} must leave patches to fit; got none of {len(found)} that reaches "
                f"it, the largest standard deviation being {found.std(axis=1).max():.3g}. Lower it; it is in "
                "the units of the maps."
            )
        found, of_patch = found[varies], weight[places[varies] // grid.n_places]
        if self.remove_mean:
            found = found - found.mean(axis=1, keepdims=True)
        axes = None
        if self.n_axes is not None:
            with self.workers(shape):  # BLAS has one thread there: its number changes no digit
                axes = principal_axes(found, of_patch, self.n_axes, self.whiten)
        rows = patches.rows_for(self.mixture, found, axes, grid)
        # All before anything is learned, so that a refusal leaves the layer as it was.
        self.mixture_ = clone(self.mixture).fit(rows, sample_weight=of_patch)
        self.axes_, self.map_shape_, self.n_patches_ = axes, tuple(shape), len(found)

    def transform(self, X):
        """Cells of maps, (N, cells down, cells across, K); X is like that of `fit`, N aside."""
        check_is_fitted(self)
        return self._filled(X, self.pooling_of(self.cells, self.window))

    def maps(self, X):
        """Codes of all patches, (N, rows, columns, K): those of `transform` before they are pooled."""
        check_is_fitted(self)
        return self._filled(X, self.pooling_of(None, None)._replace(how="sum"))

    def encoder(self, pooling=None):
        """A function of maps (n, H, W, channels) to the codes of their cells, with all that it needs at hand.

        It checks nothing; it may be called from several threads.  NotFittedError before a fit.
        """
        check_is_fitted(self)
        grid = self.grid(self.map_shape_)
        score, step = patches.scorer(self, grid), patches.maps_at_once(grid)
        pooling = self.pooling_of(self.cells, self.window) if pooling is None else pooling

        def encode(maps):
            out = np.zeros((len(maps), *pooling.shape, self.n_components_))
            for start in range(0, len(maps), step):
                some = slice(start, start + step)
                joint, places = score(maps[some])
                cells.pool(joint, places, pooling, out[some])
            return out

        return encode

    def grid(self, shape):
        """Where the patches of maps (H, W, channels) lie: a `gmmlib.compose.patches.Grid`."""
        grid = patches.grid(shape, self.side, self.stride, self.border, self.padding)
        patches.check_channels(self.mixture, grid, self.n_axes)
        cells.pooling(grid.counts, *self._cells(self.cells, self.window))
        return grid

    def pooling_of(self, n_cells, window):
        """The `gmmlib.compose.cells.Pooling` of this layer's patches; NotFittedError before a fit."""
        check_is_fitted(self)
        return cells.pooling(self.grid(self.map_shape_).counts, *self._cells(n_cells, window))

    @property
    def cell_shape_(self):
        """Cells down and across, and components: the shape of a map of the layer above."""
        return *self.pooling_of(self.cells, self.window).shape, self.n_components_

    @property
    def n_components_(self):
        """Components K of the fitted mixture."""
        return len(getattr(self.mixture_, "top_weights_", getattr(self.mixture_, "weights_", ())))

    def workers(self, shape):
        """Threads that share maps of a shape."""
        return Workers(self.chunk_size, self.grid(shape).block_size)

    def n_parameters(self):
        """Free parameters of the mixture, and numbers of the axes."""
        check_is_fitted(self)
        return self.mixture_.n_parameters() + sum(values.size for values in self.axes_ or ())

    def __sklearn_is_fitted__(self):
        return hasattr(self, "mixture_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags

    def _filled(self, X, pooling):
        X = patches.maps(X, self.map_shape_)
        encode = self.encoder(pooling)
        out = np.empty((len(X), *pooling.shape, self.n_components_))
        with self.workers(self.map_shape_) as workers:
            return workers.fill(lambda rows: encode(X[rows]), out)

    def _cells(self, n_cells, window):
        n_cells = None if n_cells is None else cells.pair(n_cells, "cells")
        window = None if window is None else cells.pair(window, "window")
        return n_cells, window, self.encoding, float(self.inverse_temperature), self.pooling
