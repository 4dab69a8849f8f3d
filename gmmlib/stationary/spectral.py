"""What the estimators of power spectra share: layout, parameters, files and where a checkpoint goes on."""

import math

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gmmlib import _contents, storage
from gmmlib.em.batches import Online
from gmmlib.em.checkpoint import check_statistics
from gmmlib.em.loop import Saved, record
from gmmlib.stationary import bases


class Spectral:
    """Estimators whose components are the power spectra `spectra_`; the zero frequency may be left out.

    A subclass names what it learns in ``_learned``, and brings

    - ``_held()``: settings that the learned arrays have in them, by name;
    - ``_given(mapping, layout, name, settings)``: parameters, checked and folded, from arrays by name;
    - ``_set(layout, parameters)``, which makes public attributes of them.

    Its basis is Fourier's, unless it brings another `_layout_of` and remembers in ``basis_`` which it was.
    """

    def _layout_of(self, shape):
        """Layout of images (H, W) by the settings."""
        return bases.layout("fourier", shape, getattr(self, "zero_mean_patches", False))

    @property
    def _layout(self):
        """Layout of what is learned."""
        return bases.layout(self._basis(), self.image_shape_, self._leaves_out())

    def _basis(self):
        """Basis of what is learned; of parameters that were set by hand, as the settings say."""
        return getattr(self, "basis_", getattr(self, "basis", "fourier"))

    def _leaves_out(self):
        """Whether the zero frequency is left out."""
        return getattr(self, "n_dimensions_", math.inf) < math.prod(self.image_shape_)

    @property
    def _parameters(self):
        """The learned parameters, folded: what is set by hand counts from then on."""
        learned = {name: getattr(self, f"{name}_") for name in self._learned}
        return self._given(learned, self._layout, "the fitted model", self._held())

    def to_arrays(self):
        """Settings and arrays that make the fitted model again."""
        check_is_fitted(self)
        attributes = {"log_likelihoods": self._trace}
        arrays = {
            name: np.asarray(getattr(self, attributes.get(name, f"{name}_"))) for name in self._array_names
        }
        arrays["converged"] = arrays["converged"].astype(int)  # files hold numbers
        return _contents.settings(self, **self._held()), arrays

    @classmethod
    def from_arrays(cls, settings, arrays, where):
        """The inverse of `to_arrays`; errors say `where` the arrays come from."""
        model = _contents.model(cls, settings)
        shape = storage.image_shape(arrays["image_shape"], arrays, where)
        layout = model._layout_of(shape)
        model._set(layout, model._given(arrays, layout, where, settings))
        _contents.whole_plane(arrays["spectra"], model.spectra_, f"{where}['spectra']")
        values, converged, n_iter = _contents.run(arrays, where, online=issubclass(cls, Online))
        record(model, values, converged)
        model.n_iter_ = n_iter
        return model


class Filtering(Spectral):
    """Those whose components are the whitening filters `filters_`, too."""

    @property
    def filters_(self):
        """Power spectra of the whitening filters, of the shape of `spectra_`."""
        check_is_fitted(self)
        return np.divide(1.0, self.spectra_, out=np.zeros_like(self.spectra_), where=self.spectra_ > 0)


def saved(file, unpack, shapes, weight, signed=(), algorithm=None):
    """Where the checkpoint goes on from, its statistics as `unpack` makes them of arrays by name, or None."""

    def check(state):
        check_statistics(state, shapes, weight, signed)
        if algorithm is not None:
            algorithm.restore(state.algorithm, len(state.log_likelihoods))

    state = file.read(check)
    return None if state is None else Saved(unpack(state.statistics), state.log_likelihoods)
