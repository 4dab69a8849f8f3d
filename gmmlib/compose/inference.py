"""What a tree of mixtures says of pixels that are missing, and of its cells."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks
from gmmlib.compose import leaves, messages


class Inference:
    """What a tree infers of single images beside the state of its root."""

    def cell_posteriors(self, X, refined=True):
        """Posteriors of the states of the cells of all levels.

        Parameters
        ----------
        X : array-like, (N, H, W)
        refined : bool
            Given the whole image, as messages from above refine them; otherwise given the pixels below each
            cell alone.

        Returns
        -------
        list of ndarray, (N, rows, columns, K)
            From the patches up to the root, whose grid is 1 x 1.
        """

        def of(top, log_density):
            if refined:
                return messages.posteriors(top, log_density, np.ones(log_density.shape[1])).cells
            return messages.own_posteriors(top, log_density)

        return self._of_cells(X, of, np.float64)

    def most_probable_explanation(self, X):
        """The states of all cells that are most probable together, given each image.

        Returns
        -------
        states : list of ndarray of int, (N, rows, columns)
            From the patches up to the root; the lowest among equals.
        log_joint : ndarray, (N,)
            Log joint of these states and the image, nats.
        """
        joints = []

        def of(top, log_density):
            states, joint = messages.most_probable(top, log_density)
            joints.append(joint)
            return states

        return self._of_cells(X, of, np.intp), np.concatenate(joints)

    def impute(self, X):
        """Fill NaN with the expectation given what is observed of each image: a new array (N, H, W)."""
        X = self._incomplete(X, "impute")
        filled, tree = np.array(X, dtype=np.float64), self._tree
        for rows, patches, log_density in self._blocks(X):
            cells = messages.posteriors(tree.top, log_density, np.ones(log_density.shape[1])).cells[0]
            filled[rows] = self._cells.join(leaves.impute(tree.leaf, patches, cells))
        return filled

    def sample_given(self, X, n_samples=1, random_state=None):
        """Draw the missing values of each image given what is observed of it, exactly.

        Parameters
        ----------
        X : array-like, (N, H, W)
            NaN is missing.
        n_samples : int
            Draws of each.
        random_state : int, Generator, RandomState or None

        Returns
        -------
        ndarray, (n_samples, N, H, W)
            Observed values are those of X.  Its mean over many draws is what `impute` returns.

        Raises
        ------
        ValueError
            Without ``allow_missing=True``, or if an argument cannot be used.
        """
        X = self._incomplete(X, "sample_given")
        n_samples = _checks.positive_integer(n_samples, "n_samples")
        rng, tree = _checks.generator(random_state), self._tree
        filled = np.empty((n_samples, *X.shape))
        for rows, patches, log_density in self._blocks(X):
            levels, joint = messages.upward(tree.top, log_density)
            states = np.stack([messages.draw_given(levels, joint, rng)[0] for _ in range(n_samples)])
            drawn = leaves.sample_given(tree.leaf, patches, states, rng)
            for draw, of_draw in zip(filled, drawn, strict=True):
                draw[rows] = self._cells.join(of_draw)
        return filled

    def _incomplete(self, X, method):
        check_is_fitted(self)
        if not self.allow_missing:
            raise ValueError(f"{method} needs allow_missing=True: only then is NaN a missing value.")
        return self._data(X, missing=True)

    def _blocks(self, X):
        """Yield the rows, patches and log densities of each block of images, in order."""
        tree, cells = self._tree, self._cells
        with self._workers(cells) as workers:

            def of(rows):
                patches = cells.split(X[rows])
                return rows, patches, leaves.log_density(tree.leaf, patches)

            yield from workers.map(of, len(X))

    def _of_cells(self, X, function, dtype):
        """A function of the top and of log densities of patches, put together: a list of arrays by level."""
        X, top, cells = self._data(X, missing=True), self._tree.top, self._cells
        found = None
        for rows, _, log_density in self._blocks(X):
            parts = [cells.on_grid(values, level) for level, values in enumerate(function(top, log_density))]
            found = found or [np.empty((len(X), *part.shape[1:]), dtype) for part in parts]
            for whole, part in zip(found, parts, strict=True):
                whole[rows] = part
        return found
