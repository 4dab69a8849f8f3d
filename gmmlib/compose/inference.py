"""What a tree of mixtures says of pixels that are missing, and of its cells."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, posterior
from gmmlib.compose import leaves, messages, shifts


class Inference:
    """What a tree infers of single images beside the state of its root."""

    def cell_posteriors(self, X, refined=True):
        """Posteriors of the states of the cells of all levels.

        Parameters
        ----------
        X : array-like, (N, H, W)
        refined : bool
            Given the whole image, as messages from above refine them; otherwise given the pixels below each
            cell alone, for trees without shifts.

        Returns
        -------
        list of ndarray, (N, rows, columns, K)
            From the patches up to the root, whose grid is 1 x 1; of the image before it was shifted.
        """
        check_is_fitted(self)
        if not refined and len(self.shift_weights_) > 1:
            raise ValueError(
                "refined must be True with max_shift other than 0, because the shift, which the whole image "
                "tells, decides which pixels lie below a cell; got False. Fit with max_shift=0 for it."
            )

        def of(tree, log_density):
            if not refined:
                return messages.own_posteriors(tree.top, log_density[0])
            share, under = _posteriors(tree, log_density)
            weighted = [
                [q[:, None] * of_level for of_level in u.cells] for q, u in zip(share, under, strict=True)
            ]
            return [sum(of_level[1:], of_level[0]) for of_level in zip(*weighted, strict=True)]

        return self._of_cells(X, of, np.float64)

    def most_probable_explanation(self, X):
        """The states of all cells and the shift that are most probable together, given each image.

        Returns
        -------
        states : list of ndarray of int, (N, rows, columns)
            From the patches up to the root; the lowest among equals.
        shifts : ndarray of int, (N, 2)
            Pixels down and to the right by which the image was moved, 0 without `max_shift`.
        log_joint : ndarray, (N,)
            Log joint of these states, the shift and the image, nats.
        """
        chosen, joints = [], []

        def of(tree, log_density):
            found = [messages.most_probable(tree.top, of_shift) for of_shift in log_density]
            joint = np.stack([highest for _, highest in found], axis=1) + messages.logs(tree.shift_weights)
            best, rows = posterior.most_probable(joint), np.arange(len(joint))
            chosen.append(best)
            joints.append(joint[rows, best])
            of_levels = zip(*(states for states, _ in found), strict=True)
            return [np.stack(of_shifts)[best, :, rows].T for of_shifts in of_levels]

        states = self._of_cells(X, of, np.intp)
        offsets, sides = np.array(self._cells.offsets), np.array(self.image_shape_)
        moved = (offsets + sides // 2) % sides - sides // 2  # from minus half to half of a side
        return states, moved[np.concatenate(chosen)], np.concatenate(joints)

    def impute(self, X):
        """Fill NaN with the expectation given what is observed of each image: a new array (N, H, W)."""
        X = self._incomplete(X, "impute")
        filled, tree, cells = np.zeros(X.shape), self._tree, self._cells
        for rows, moved, log_density in self._blocks(X):
            share, under = _posteriors(tree, log_density)
            for q, patches, of_shift, offset in zip(share, moved, under, cells.offsets, strict=True):
                whole = cells.join(leaves.impute(tree.leaf, patches, of_shift.cells[0]))
                filled[rows] += q[:, None, None] * shifts.move(whole, offset)
        return np.where(np.isnan(X), filled, X)

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
        rng, tree, cells = _checks.generator(random_state), self._tree, self._cells
        filled = np.empty((n_samples, *X.shape))
        for rows, moved, log_density in self._blocks(X):
            upward = [messages.upward(tree.top, of_shift) for of_shift in log_density]
            evidence = np.stack([messages.normalise(joint.copy()) for _, joint in upward])
            share, _ = shifts.share(evidence, tree.shift_weights)
            chosen = np.stack([shifts.draw(share, rng) for _ in range(n_samples)])
            for number, offset in enumerate(cells.offsets):
                states = [messages.draw_given(*upward[number], rng)[0] for _ in range(n_samples)]
                drawn = leaves.sample_given(tree.leaf, moved[number], np.stack(states), rng)
                whole = shifts.move(np.stack([cells.join(of_draw) for of_draw in drawn]), offset)
                filled[:, rows][chosen == number] = whole[chosen == number]
        return filled

    def _incomplete(self, X, method):
        check_is_fitted(self)
        if not self.allow_missing:
            raise ValueError(f"{method} needs allow_missing=True: only then is NaN a missing value.")
        return self._data(X, missing=True)

    def _blocks(self, X):
        """Yield the rows, patches and log densities under each shift of each block of images, in order."""
        tree, cells = self._tree, self._cells
        with self._workers(cells) as workers:

            def of(rows):
                moved = cells.moved(X[rows])
                return rows, moved, [leaves.log_density(tree.leaf, patches) for patches in moved]

            yield from workers.map(of, len(X))

    def _of_cells(self, X, function, dtype):
        """A function of the tree and of log densities of patches, put together: a list of arrays by level."""
        X, tree, cells = self._data(X, missing=True), self._tree, self._cells
        found = None
        for rows, _, log_density in self._blocks(X):
            parts = [cells.on_grid(values, level) for level, values in enumerate(function(tree, log_density))]
            found = found or [np.empty((len(X), *part.shape[1:]), dtype) for part in parts]
            for whole, part in zip(found, parts, strict=True):
                whole[rows] = part
        return found


def _posteriors(tree, log_density):
    """Posteriors (S, n) of shifts, and `messages.Posteriors` of the cells under each."""
    ones = np.ones(log_density[0].shape[1])
    share, _, under = shifts.posteriors(tree.top, tree.shift_weights, log_density, ones)
    return share, under
