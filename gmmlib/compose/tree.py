r"""The estimator of trees of mixtures: an exact density of images that is deep and local.

Patches are mixtures of Gaussians that share their components.  Which components come together in a cell of
patches is said by the state of the cell, which states come together by that of the cell above, up to a root:

.. math:: p(x) = \sum_t \pi_t \prod_{c} \sum_s A_{cts} \prod_{i \in c} \sum_k B_{isk}\, N(x_i; k) .

With ``max_shift`` the image may be shifted as a whole, which is one more latent variable
(`gmmlib.compose.shifts`).  Messages are in `gmmlib.compose.messages`, the steps of EM in
`gmmlib.compose.training`, its start in `gmmlib.compose.growth`.
"""

import math

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks
from gmmlib.base import Mixture, OfImages, Scoring
from gmmlib.compose import grid, growth, inference, leaves, messages, shifts, training
from gmmlib.compose.learned import Learned
from gmmlib.em.batches import Additive
from gmmlib.em.checkpoint import Checkpoint
from gmmlib.em.loop import Saved
from gmmlib.em.workers import Workers, block_size

SHARING = ("none", "cells", "everywhere")
STATES = 64  # of a patch, as a block of images is made for
SMALLER = 4  # times than blocks of other mixtures, since many arrays of a block are at work at once


class TreeGMM(Learned, inference.Inference, Additive, OfImages, Mixture):
    """Tree of mixtures over the patches of an image, fitted by exact EM.

    Parameters
    ----------
    leaf : estimator
        The mixture of patches, whose components all positions share: a `ConvolutionalGMM`, a
        `TransformedGMM` for components under shifts, or a `FullGMM`, which takes patches as vectors.  It is
        cloned, and first fitted to the patches of all images; one inside a
        ``sklearn.frozen.FrozenEstimator`` is fitted already, and held.
    levels : sequence of (int, int, int)
        Rows and columns of the cells below that a cell has, and its number of states, of each level, the
        lowest first.  ``[(4, 4, 50)]`` is a root of 50 states over 4 x 4 patches,
        ``[(2, 2, 30), (2, 2, 50)]`` one over 2 x 2 cells of 30 states and 2 x 2 patches each; ``[]`` is the
        leaf over whole images.
    share_tables : {"none", "cells", "everywhere"}
        Which cells of a level have one table: none, those at one place within their parents (a convolution
        with the stride of the parents), or all.
    max_shift : int, optional
        Largest shift of the whole image along either axis, around the torus, in pixels; EM learns the weight
        of each.  By default 0, which allows none; None allows all H W.  Time is multiplied by their number.
    fit_leaves : bool
        Whether EM goes on to fit the leaf, under the posteriors of its components given whole images.
    allow_missing : bool
        Take NaN as missing in all methods but `fit`; for leaves whose components are Gaussians.
    init : {"kmeans", "random_from_data"} or mapping
        Where EM starts: tables from clusters of the posteriors below them, or each state from a random cell;
        ``{"weights": (T,), "tables": list of (R, T, K)}``; ``{"leaf": a fitted mixture}``, frozen or not,
        from which the leaf starts; or all three.  Beside tables ``{"shift_weights": (S,)}`` may be given, as
        `learned` does for a tree with shifts; otherwise they are equally probable.
    max_iter, tol, n_init, random_state, callback, checkpoint, progress, chunk_size
        As in `gmmlib.base.LearnedByEM`.  A leaf without a `random_state` is given a seed.

    Attributes
    ----------
    weights_ : ndarray, (T,)
        Weights of the states of the root.
    tables_ : list of ndarray, (R, T, K)
        Weights of the states K of a cell under those T of its parent, of each level, lowest first; one for
        each cell in the order of `gmmlib.compose.grid`, for each place within a parent, or one for all.
    shift_weights_ : ndarray, (S,)
        Weights of the shifts by pixels down and to the right, the latter changing first, each from
        -`max_shift` to `max_shift`; for None from 0 to one less than the side.
    leaf_ : estimator
        The fitted mixture of patches.
    image_shape_ : (int, int)
        H and W.
    log_likelihoods_, converged_, n_iter_
        As in `gmmlib.base.LearnedByEM`.

    References
    ----------
    Poon and Domingos (2011), UAI, for sum-product networks, of which this is one; Pearl (1988),
    Probabilistic Reasoning in Intelligent Systems, for messages on trees; Crouse, Nowak and Baraniuk (1998),
    IEEE Trans. Signal Processing 46, for EM on trees of Gaussian mixtures.

    Examples
    --------
    >>> from gmmlib import FullGMM, TreeGMM
    >>> tree = TreeGMM(FullGMM(64, reg_covar=0.01), [(2, 2, 30), (2, 2, 50)], random_state=0)
    """

    def __init__(
        self,
        leaf,
        levels,
        *,
        share_tables="none",
        max_shift=0,
        fit_leaves=True,
        allow_missing=False,
        max_iter=100,
        tol=1e-3,
        init="kmeans",
        n_init=1,
        random_state=None,
        callback=None,
        checkpoint=None,
        progress=False,
        chunk_size=2048,
    ):
        self.leaf = leaf
        self.levels = levels
        self.share_tables = share_tables
        self.max_shift = max_shift
        self.fit_leaves = fit_leaves
        self.allow_missing = allow_missing
        self.max_iter = max_iter
        self.tol = tol
        self.init = init
        self.n_init = n_init
        self.random_state = random_state
        self.callback = callback
        self.checkpoint = checkpoint
        self.progress = progress
        self.chunk_size = chunk_size

    def _check_enough(self, weight):
        most, n_rows = max([1, *(level[2] for level in self.levels)]), np.count_nonzero(weight)
        if n_rows < most:
            raise ValueError(
                f"levels={self.levels!r} needs at least {most} images of positive weight in X, one for each "
                f"state; got {n_rows}. Pass more data or ask for fewer states."
            )

    def _fit(self, X, weight):
        cells = grid.of_images(X.shape[1:], grid.checked_levels(self.levels), self.max_shift)
        file = Checkpoint(self, X, weight)
        X, weight = (X, weight) if weight.all() else (X[weight > 0], weight[weight > 0])
        vars(self).pop("_structure", None)  # that of the last fit
        trained = self._trains_leaf()
        with file, self._workers(cells) as workers:
            state = file.read(lambda state: None)
            if state is None:
                rng = _checks.generator(self.random_state)
                leaf = growth.fitted_leaf(self, X, weight, cells, rng)
            else:
                with file.judged():
                    expectation = training.unpacked(self, state, cells, cells.moved(X[:1]), weight, trained)
                    start, leaf = Saved(expectation, state.log_likelihoods), expectation[1].leaf
            density = None if trained else training.held_density(leaf, X, cells, workers)
            if state is None:
                start = self._start(leaf, X, weight, cells, density, rng)
            self._run_em(
                start,
                training.e_steps(X, weight, cells, workers, trained, density),
                lambda expectation: training.m_step(*expectation),
                lambda tree: self._set(cells, tree),
                file=file,
                pack=training.packed,
            )

    def _start(self, leaf, X, weight, cells, density, rng):
        of_shifts = np.full(len(cells.offsets), 1 / len(cells.offsets))
        if hasattr(self.init, "keys") and "tables" in self.init:
            of_shifts = self.init.get("shift_weights", of_shifts)
            return self._checked(leaf, self.init["weights"], self.init["tables"], of_shifts, cells, "init")
        return training.Tree(growth.grow(leaf, X, weight, cells, density, self, rng), leaf, of_shifts)

    def _trains_leaf(self):
        return bool(self.fit_leaves) and not isinstance(self.leaf, FrozenEstimator)

    def _statistics_of(self, X, sample_weight):
        X, tree, cells = self._data(X), self._tree, self._cells
        weight = _checks.sample_weight(sample_weight, len(X))
        with self._workers(cells) as workers:
            return training.e_steps(X, weight, cells, workers, self._trains_leaf())(tree)[0][0]

    def _set_from(self, statistics):
        self._set(self._cells, training.m_step(statistics, self._tree))

    def sample_cells(self, labels, random_state=None):
        """Draw an image under each of the states `labels` of the root, integers (N,).

        Returns
        -------
        X : ndarray, (N, H, W)
        states : list of ndarray of int, (N, rows, columns)
            Of the cells of all levels, from the patches up, before the image is shifted.
        """
        check_is_fitted(self)
        labels = _checks.components(labels, len(self.weights_))
        tree, cells, rng = self._tree, self._cells, _checks.generator(random_state)
        states = messages.draw(tree.top, labels, rng)
        X = cells.join(leaves.draw(tree.leaf, states[0], cells.patch, rng))
        chosen = shifts.draw(np.tile(tree.shift_weights[:, None], len(X)), rng)
        for number, offset in enumerate(cells.offsets):
            X[chosen == number] = shifts.move(X[chosen == number], offset)
        return X, [cells.on_grid(of_level, level) for level, of_level in enumerate(states)]

    def _draw(self, labels, rng):
        return self.sample_cells(labels, rng)[0]

    def _scoring(self, X, everything):
        """How `Mixture` scores images."""
        X, tree, cells = self._data(X, missing=True), self._tree, self._cells

        def log_joint(rows):
            densities = [leaves.log_density(tree.leaf, patches) for patches in cells.moved(X[rows])]
            best = [of_shift.max(axis=2).min(axis=0) for of_shift in densities]
            _checks.log_joints(np.max(best, axis=0)[:, None], rows.start)
            joints = [messages.upward(tree.top, of_shift)[1] for of_shift in densities]
            return shifts.log_joint(np.stack(joints), tree.shift_weights)

        return Scoring(len(X), len(self.weights_), log_joint, self._workers(cells))

    def _data(self, X, reset=False, missing=False):
        if not (missing and self.allow_missing):
            return super()._data(X, reset)
        check_is_fitted(self)
        return _checks.images(X, shape=self.image_shape_, missing=True)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = bool(self.allow_missing)
        return tags

    def _workers(self, cells):
        numbers = SMALLER * (math.prod(cells.shape) + STATES * cells.sizes[0]) * len(cells.offsets)
        return Workers(_checks.positive_integer(self.chunk_size, "chunk_size"), block_size(numbers))

    def _check_settings(self):
        _checks.settings(self)
        leaves.check(self.leaf)
        grid.checked_levels(self.levels)
        _checks.one_of(self.share_tables, "share_tables", SHARING)
        _checks.truth(self.fit_leaves, "fit_leaves")
        _checks.truth(self.allow_missing, "allow_missing")
        _checks.random_state(self.random_state)
        growth.check_init(self.init)
