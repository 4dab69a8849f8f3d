"""Layers of mixtures: each is fitted to what the layer below says of its components.

A layer scores N rows as log joints (N, K), and hands a *code* of them upwards, the data of the next
layer: the log joints themselves, their shape within a row, or the posteriors.
"""

import reprlib
from collections.abc import Sequence
from itertools import pairwise

from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, posterior
from gmmlib.base import Scored, Stored
from gmmlib.compose import parts
from gmmlib.compose.codes import CODES, decode, encode
from gmmlib.compose.numbered import Numbered

METHODS = ("fit", "log_joint", "predict", "predict_proba", "score_samples")


class StackedGMM(Numbered, Stored, Scored, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Mixtures on top of each other, fitted from the lowest up, each to the code of the one below.

    Parameters
    ----------
    layers : sequence of mixtures
        The lowest first, such as a `ConvolutionalGMM`, which takes images (N, H, W), below a `FullGMM`.  They
        are cloned before they are fitted; one in a ``sklearn.frozen.FrozenEstimator`` is used as it is.
    codes : str or sequence of str
        What layers hand upwards (see `encode`), ``"log_joint"``, ``"standardised_log_joint"`` or
        ``"posterior"``: the same for all, or one a layer.  The last is what `transform` returns.

    Attributes
    ----------
    layers_ : list
        The fitted mixtures, lowest first.
    codes_ : tuple of str
        The code of each.

    Examples
    --------
    >>> from gmmlib import ConvolutionalGMM, FullGMM
    >>> layers = [ConvolutionalGMM(32), FullGMM(17), FullGMM(16, min_weight=0.02)]
    >>> stack = StackedGMM(layers, codes="posterior")
    """

    def __init__(self, layers, codes="posterior"):
        self.layers = layers
        self.codes = codes

    def fit(self, X, y=None, sample_weight=None):
        """Fit the layers one after another to X, which is what the lowest layer takes; y is ignored.

        Row weights (N,) are the same for every layer.  ValueError if the layers, the codes or the data cannot
        be used; if a layer refuses them, a note names it.
        """
        self._fit(X, y, sample_weight)
        return self

    def fit_transform(self, X, y=None, sample_weight=None):
        """Fit, and return the code of the top layer, (N, K); each layer scores the rows once."""
        X = self._fit(X, y, sample_weight)
        return encode(self.layers_[-1].log_joint(X), self.codes_[-1])

    def transform(self, X):
        """Code of the top layer, (N, K)."""
        return self._encoded(X)[-1]

    def encodings(self, X):
        """Code of each layer, lowest first: a list of L arrays, each (N, K) with its layer's K."""
        return self._encoded(X)[1:]

    def log_joint(self, X):
        """Log weight plus log density of each row's code under the top components, (N, K), nats.

        Like all scores of a stack a density of the code below the top layer, not of the image.
        """
        return self._top("log_joint", X)

    def score_samples(self, X):
        """Log density of the code below the top layer, (N,), nats.

        Stacks that differ below the top score different data.
        """
        return self._top("score_samples", X)

    def predict(self, X):
        """Most probable top component of each row, (N,)."""
        return self._top("predict", X)

    def predict_proba(self, X):
        """Posterior of each top component, (N, K); rows sum to 1."""
        return self._top("predict_proba", X)

    def predict_log_proba(self, X):
        """Log posteriors of the top components, (N, K), accurate even where the posterior rounds to 1."""
        return posterior.log_proba(self.log_joint(X))

    def n_parameters(self):
        """Free parameters of all layers."""
        check_is_fitted(self)
        return sum(layer.n_parameters() for layer in self.layers_)

    def sample(self, n_samples=1, random_state=None):
        """Draw data of the lowest layer from the top down: X, and components (n_samples,) of the top layer.

        The top mixture draws a code of the layer below.  There the code is read as posteriors (`decode`), a
        component is drawn from them, and from that component the code of the next layer below, or at the
        bottom an image.

        This is not the inverse of the way up: of a code no more comes down than one component.  It cannot be
        exact, because a stack defines no density of images.  With the code ``"posterior"`` a lower layer's
        components are drawn as often as the mean code says, which after EM is their weights: all draws
        together are nearly those of the lowest layer.  ValueError if a layer below the top has no method
        ``sample_components``.
        """
        check_is_fitted(self)
        _check_sampleable(self.layers_)
        rng = _checks.generator(random_state)
        X, labels = self.layers_[-1].sample(n_samples, rng)
        for layer, kind in zip(self.layers_[-2::-1], self.codes_[-2::-1], strict=True):
            X = layer.sample_components(posterior.draw(decode(X, kind), rng), rng)
        return X, labels

    @property
    def n_features_in_(self):
        """Features of the lowest layer, if it counts them."""
        return self.layers_[0].n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the columns that the lowest layer was fitted on, if they had some."""
        return self.layers_[0].feature_names_in_

    @property
    def image_shape_(self):
        """H and W of the images that the lowest layer takes, if it takes images."""
        return self.layers_[0].image_shape_

    @property
    def weights_(self):
        """Mixing weights of the top mixture, (K,)."""
        return _weights(self.layers_[-1])

    @property
    def _n_features_out(self):
        """Columns of `transform`: ``get_feature_names_out`` numbers them."""
        return len(self.weights_)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "layers_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        lowest = self._numbered().get("layer0")
        if hasattr(lowest, "__sklearn_tags__") and not isinstance(lowest, type):
            tags.input_tags = get_tags(lowest).input_tags
        return tags

    def _fit(self, X, y, sample_weight):
        """Fit, and return the code that the top layer was fitted to."""
        _check_layers(self.layers)
        codes = _checked_codes(self.codes, len(self.layers))
        fitted = []
        for number, layer in enumerate(self.layers):
            try:
                if fitted:
                    X = encode(fitted[-1].log_joint(X), codes[number - 1])
                # FrozenEstimator.fit does not do without y.
                fitted.append(clone(layer).fit(X, y, sample_weight=sample_weight))
            except BaseException as error:
                error.add_note(
                    f"This is about layers[{number}], counted from the lowest, 0; the stack is as before."
                )
                raise
        self.layers_, self.codes_ = fitted, codes
        return X

    def _encoded(self, X, but=0):
        """X and the code of each layer, lowest first, without those of so many at the top."""
        check_is_fitted(self)
        encoded = [X]
        for layer, code in list(zip(self.layers_, self.codes_, strict=True))[: len(self.layers_) - but]:
            encoded.append(encode(layer.log_joint(encoded[-1]), code))
        return encoded

    def _top(self, method, X):
        X = self._encoded(X, but=1)[-1]
        return getattr(self.layers_[-1], method)(X)

    def to_arrays(self):
        """Settings and arrays that make the fitted stack again."""
        check_is_fitted(self)
        entries, arrays = parts.to_arrays(self.layers_, "layers_")
        return {"codes": self.codes_, "layers": entries}, arrays

    @classmethod
    def array_names(cls, settings):
        """What the arrays are called that go with these settings in a file."""
        return parts.array_names(_stored_layers(settings))

    @classmethod
    def from_arrays(cls, settings, arrays, where):
        """The inverse of `to_arrays`; errors say `where` the arrays come from."""
        layers = parts.from_arrays(_stored_layers(settings), arrays, where)
        _check_layers(layers)
        _check_widths(layers)
        stack = cls([clone(layer) for layer in layers], settings["codes"])
        stack.layers_, stack.codes_ = layers, _checked_codes(settings["codes"], len(layers))
        return stack


def _check_sampleable(layers):
    for number, layer in enumerate(layers):
        method = "sample_components" if number < len(layers) - 1 else "sample"
        if not hasattr(layer, method):
            raise ValueError(
                f"layers_[{number}] must have a method {method} to be sampled; got {layer!r}. "
                "ConvolutionalGMM and FullGMM have one."
            )


def _check_layers(layers):
    if not isinstance(layers, Sequence) or not layers:
        raise ValueError(
            f"layers must be a sequence of at least one mixture, the lowest first; got {layers!r}. "
            "A single mixture goes into a list."
        )
    for number, layer in enumerate(layers):
        lacking = [method for method in METHODS if not hasattr(layer, method)]
        if lacking or isinstance(layer, type):
            raise ValueError(
                f"layers[{number}] must be a mixture with the methods {', '.join(METHODS)}; got {layer!r}. "
                "Pass an unfitted mixture such as FullGMM(10)."
            )


def _checked_codes(codes, depth):
    """One code a layer, as a tuple."""
    given = (codes,) * depth if isinstance(codes, str) else codes
    if not isinstance(given, Sequence) or len(given) != depth or any(code not in CODES for code in given):
        raise ValueError(
            f"codes must be one of {', '.join(CODES)}, or a sequence of such names, one for each of the "
            f"{depth} layers; got {codes!r}."
        )
    return tuple(given)


def _stored_layers(settings):
    """Kind and settings of each layer, from the settings of a stack in a file."""
    if isinstance(settings, dict) and settings.keys() == {"codes", "layers"}:
        return settings["layers"]
    raise ValueError(
        f'its settings must be "codes" and "layers"; got {reprlib.repr(settings)}. Save the stack again.'
    )


def _weights(layer):
    """Weights of the components that a fitted layer has log joints for."""
    return layer.top_weights_ if hasattr(layer, "top_weights_") else layer.weights_


def _check_widths(layers):
    """Refuse a layer that does not take as many features as the one below has components."""
    for number, (below, layer) in enumerate(pairwise(layers), 1):
        width, expected = getattr(layer, "n_features_in_", "images"), len(_weights(below))
        if width != expected:
            raise ValueError(
                f"layers[{number}] must take the {expected} components of the layer below it; got one "
                f"that takes {width}{'' if width == 'images' else ' features'}. Save the stack again."
            )
