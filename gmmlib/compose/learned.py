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
        """Free parameters: weights of the root, tables, and what the leaf has but for its weights."""
        check_is_fitted(self)
        of_tables = sum(table.size - table[..., 0].size for table in self.tables_)
        return len(self.weights_) - 1 + of_tables + self.leaf_.n_parameters() - (len(self.leaf_.weights_) - 1)

    def learned(self):
        """What `init` takes to start here; the leaf is frozen, so that clones keep it."""
        check_is_fitted(self)
        return {"weights": self.weights_, "tables": self.tables_, "leaf": FrozenEstimator(self.leaf_)}

    _array_names = ("weights", "log_likelihoods", "converged", "n_iter", "image_shape")

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
        levels, share_tables = self._held
        _checks.unchanged("levels", grid.checked_levels(self.levels), levels)
        return _contents.settings(self, share_tables=share_tables) | {"leaf": entries}, arrays

    @classmethod
    def from_arrays(cls, settings, arrays, where):
        """The inverse of `to_arrays`; errors say `where` the arrays come from."""
        own = {name: value for name, value in settings.items() if name != "leaf"}
        (leaf,) = parts.from_arrays(settings["leaf"], arrays, where)
        model = _contents.model(cls, own, leaf=clone(leaf))
        model.levels = grid.checked_levels(model.levels)
        shape = storage.image_shape(arrays["image_shape"], arrays, where)
        cells = grid.of_images(shape, model.levels)
        tables = [arrays[_table(number)] for number in range(len(model.levels))]
        model._set(cells, model._checked(leaf, arrays["weights"], tables, cells, where))
        values, converged, n_iter = _contents.run(arrays, where)
        record(model, values, converged)
        return model

    def _checked(self, leaf, weights, tables, cells, name):
        """A `training.Tree` of what a caller, a file or this model holds; ValueError calls it `name`."""
        leaves.check_fitted(leaf, cells.patch, f"{name}['leaf']")
        shapes = growth.table_shapes(*self._held, cells, len(leaf.weights_))
        return training.Tree(growth.given(weights, tables, shapes, cells, name), leaf)

    @property
    def _held(self):
        """Levels and sharing of the fit; of a model whose parameters were set by hand, those of now."""
        return getattr(self, "_structure", None) or (grid.checked_levels(self.levels), self.share_tables)

    @property
    def _cells(self):
        return grid.of_images(self.image_shape_, self._held[0])

    @property
    def _tree(self):
        """The learned parameters: what is set by hand counts from then on."""
        return self._checked(self.leaf_, self.weights_, self.tables_, self._cells, "the fitted model")

    def _set(self, cells, tree):
        self._structure = self._held
        self.image_shape_ = cells.shape
        self.weights_, self.tables_, self.leaf_ = tree.top.weights, list(tree.top.tables), tree.leaf


def _table(number):
    """Name of the tables of a level in a file."""
    return f"level{number}.tables"
