"""What a tree of mixtures has learned: its public arrays and its leaf, what is made of them, and its file."""

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, _contents, storage
from gmmlib.compose import grid, growth, leaves, parts, training
from gmmlib.em.loop import record


class Learned:
    """The learned parameters of `gmmlib.TreeGMM`."""

    def n_parameters(self):
        """Free parameters: weights of root and shifts, tables, and what the leaf has but for its weights."""
        check_is_fitted(self)
        of_tables = sum(table.size - table[..., 0].size for table in self.tables_)
        of_top = len(self.weights_) - 1 + len(self.shift_weights_) - 1
        return of_top + of_tables + self.leaf_.n_parameters() - (len(self.leaf_.weights_) - 1)

    def learned(self):
        """What `init` takes to start here; the leaf is frozen, so that clones keep it."""
        check_is_fitted(self)
        top = {"weights": self.weights_, "tables": self.tables_, "leaf": FrozenEstimator(self.leaf_)}
        return top | ({"shift_weights": self.shift_weights_} if len(self.shift_weights_) > 1 else {})

    _array_names = ("weights", "shift_weights", "log_likelihoods", "converged", "n_iter", "image_shape")

    @classmethod
    def array_names(cls, settings):
        """What the arrays are called that go with these settings in a file."""
        levels = grid.checked_levels(settings["levels"])
        return [*cls._array_names, *map(_table, range(len(levels))), *parts.array_names(settings["leaf"])]

    def to_arrays(self):
        """Settings and arrays that make the fitted model again."""
        check_is_fitted(self)
        entries, arrays = parts.to_arrays([self.leaf_], "leaf_")
        arrays |= {_table(number): table for number, table in enumerate(self.tables_)}
        arrays |= {name: np.asarray(getattr(self, f"{name}_")) for name in self._array_names}
        arrays["converged"] = arrays["converged"].astype(int)
        levels, share_tables, max_shift = self._held
        _checks.unchanged("levels", grid.checked_levels(self.levels), levels)
        return _contents.settings(self, share_tables=share_tables, max_shift=max_shift) | {
            "leaf": entries
        }, arrays

    @classmethod
    def from_arrays(cls, settings, arrays, where):
        """The inverse of `to_arrays`; errors say `where` the arrays come from."""
        own = {name: value for name, value in settings.items() if name != "leaf"}
        (leaf,) = parts.from_arrays(settings["leaf"], arrays, where)
        model = _contents.model(cls, own, leaf=clone(leaf))
        model.levels = grid.checked_levels(model.levels)
        shape = storage.image_shape(arrays["image_shape"], arrays, where)
        cells = grid.of_images(shape, model.levels, model.max_shift)
        tables = [arrays[_table(number)] for number in range(len(model.levels))]
        weights, of_shifts = arrays["weights"], arrays["shift_weights"]
        model._set(cells, model._checked(leaf, weights, tables, of_shifts, cells, where))
        values, converged, n_iter = _contents.run(arrays, where)
        record(model, values, converged)
        return model

    def _checked(self, leaf, weights, tables, shift_weights, cells, name):
        """A `training.Tree` of what a caller, a file or this model holds; ValueError calls it `name`."""
        leaves.check_fitted(leaf, cells.patch, f"{name}['leaf']")
        shapes = growth.table_shapes(*self._held[:2], cells, len(leaf.weights_))
        top = growth.given(weights, tables, shapes, cells, name)
        shift_weights = _checks.parameter(shift_weights, f"{name}['shift_weights']", (len(cells.offsets),))
        _checks.mixing_weights(shift_weights, f"{name}['shift_weights']")
        return training.Tree(top, leaf, shift_weights)

    @property
    def _held(self):
        """Levels, sharing and shifts of the fit; of a model set by hand, those of now."""
        held = getattr(self, "_structure", None)
        return held or (grid.checked_levels(self.levels), self.share_tables, self.max_shift)

    @property
    def _cells(self):
        return grid.of_images(self.image_shape_, self._held[0], self._held[2])

    @property
    def _tree(self):
        """The learned parameters: what is set by hand counts from then on."""
        learned = self.weights_, self.tables_, self.shift_weights_
        return self._checked(self.leaf_, *learned, self._cells, "the fitted model")

    def _set(self, cells, tree):
        self._structure = self._held
        self.image_shape_ = cells.shape
        self.weights_, self.tables_, self.leaf_ = tree.top.weights, list(tree.top.tables), tree.leaf
        self.shift_weights_ = tree.shift_weights


def _table(number):
    """Name of the tables of a level in a file."""
    return f"level{number}.tables"
