"""Layers that `get_params` and `set_params` know by their numbers."""

from collections.abc import Sequence

from sklearn.base import BaseEstimator


class Numbered:
    """Estimators with a setting ``layers``, a sequence of estimators, the lowest first."""

    def get_params(self, deep=True):
        """Settings; with `deep` also the layers as ``layer0``, ``layer1``... and theirs, ``layer0__tol``."""
        params = super().get_params(deep=deep)
        if deep:
            for name, layer in self._numbered().items():
                params[name] = layer
                if isinstance(layer, BaseEstimator):  # `fit` says so if it is none
                    params |= {f"{name}__{key}": value for key, value in layer.get_params().items()}
        return params

    def set_params(self, **params):
        """Change settings, layers (``layer1=FullGMM(9)``) or theirs (``layer1__n_components=9``)."""
        if "layers" in params:
            self.layers = params.pop("layers")
        numbered = self._numbered()
        if numbered.keys() & params.keys():
            self.layers = [params.pop(name, layer) for name, layer in numbered.items()]
        return super().set_params(**params)

    def _numbered(self):
        """Layers by the names that `get_params` gives them."""
        layers = self.layers if isinstance(self.layers, Sequence) else ()
        return {f"layer{number}": layer for number, layer in enumerate(layers)}
