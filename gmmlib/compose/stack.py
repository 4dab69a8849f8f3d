"""Layers of mixtures: each is fitted to what the layer below says of its components.

A layer scores N rows as log joints (N, K), and hands a *code* of them upwards, the data of the next
layer: the log joints themselves, their shape within a row, or the posteriors.
"""

import reprlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, posterior
from gmmlib.base import Stored
from gmmlib.full.estimator import FullGMM
from gmmlib.stationary.convolutional import ConvolutionalGMM

CODES = ("log_joint", "standardised_log_joint", "posterior")
METHODS = ("fit", "log_joint", "predict", "predict_proba", "score_samples", "score")
STORABLE = {mixture.__name__: mixture for mixture in (ConvolutionalGMM, FullGMM)}


def encode(log_joint, code):
    r"""What a layer hands upwards.

    With l the log joints of one row, m their mean over the K components and s their standard
    deviation (the population's), the codes are

    - ``"log_joint"``: l itself, in nats;
    - ``"standardised_log_joint"``: (l - m) / s, or zeros where all components tie;
    - ``"posterior"``: :math:`\exp l_k / \sum_j \exp l_j`.

    Parameters
    ----------
    log_joint : array-like, (N, K)
        Nats.
    code : {"log_joint", "standardised_log_joint", "posterior"}

    Returns
    -------
    ndarray, (N, K)

    Raises
    ------
    ValueError
        If the code has another name, or the log joints are no matrix or not finite.  A component of
        weight 0 has log joints of -inf; only the posterior, which is then 0, takes those.
    """
    _checks.one_of(code, "code", CODES)
    log_joint = _checks.array(log_joint, "log_joint").astype(np.float64, copy=False)
    if log_joint.ndim != 2 or log_joint.shape[1] == 0:
        raise ValueError(
            "log_joint must hold a row a sample and a column a component, shape (N, K); "
            f"got shape {log_joint.shape}. Pass what a mixture's log_joint returns."
        )
    if code == "posterior":
        _refuse_infinite(log_joint.max(axis=1, keepdims=True), "have a finite largest value in each row")
        return posterior.proba(log_joint)
    _refuse_infinite(log_joint, f"be finite for the code {code!r}")
    return log_joint if code == "log_joint" else standardised(log_joint)


def standardised(log_joint):
    """Shift and scale each row of finite log joints (N, K) to mean 0 and standard deviation 1."""
    # Ties are exactly 0 below the largest; below their mean, rounding would set them apart.
    below = log_joint - log_joint.max(axis=1, keepdims=True)
    below -= below.mean(axis=1, keepdims=True)
    deviation = np.sqrt((below**2).mean(axis=1, keepdims=True))
    return np.divide(below, deviation, out=np.zeros_like(below), where=deviation > 0)


def decode(code, kind):
    r"""Posteriors of the components of a layer, from a code that was drawn rather than computed.

    A drawn code need not be one that any log joints have, so each kind is taken to the nearest posteriors
    that it can mean:

    - ``"posterior"``: the nearest point of the simplex, in squared distance;
    - ``"log_joint"``: :math:`\exp l_k / \sum_j \exp l_j`, the log joints less their evidence;
    - ``"standardised_log_joint"``: all on the largest entry (the lowest index among equals).  The scale of
      the log joints is lost; of images it is tens of nats and more, where posteriors are nearly 0 or 1.

    Parameters
    ----------
    code : ndarray, (N, K)
    kind : {"log_joint", "standardised_log_joint", "posterior"}

    Returns
    -------
    ndarray, (N, K)
        Rows sum to 1.
    """
    _checks.one_of(kind, "kind", CODES)
    if kind == "posterior":
        return nearest_on_simplex(code)
    if kind == "log_joint":
        return posterior.proba(code)
    return np.eye(code.shape[1])[code.argmax(axis=1)]


def nearest_on_simplex(vectors):
    """Move each row (N, K) to the closest of the vectors that are nowhere negative and sum to 1.

    References
    ----------
    Duchi, Shalev-Shwartz, Singer and Chandra (2008), ICML, for the closed form: subtract one number from
    all coordinates, and cut at 0.
    """
    falling = -np.sort(-vectors, axis=1)
    excess = (np.cumsum(falling, axis=1) - 1) / np.arange(1, vectors.shape[1] + 1)
    positive = (falling > excess).sum(axis=1)
    shift = excess[np.arange(len(vectors)), positive - 1]
    return np.maximum(vectors - shift[:, None], 0.0)


def _refuse_infinite(values, expected):
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise ValueError(
            f"log_joint must {expected}; got {values[tuple(bad[0])]} in row {bad[0][0]}. A component of "
            "weight 0 has log joints of -inf: leave it out, or use the code 'posterior', which is then 0."
        )


class StackedGMM(Stored, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Mixtures on top of each other, fitted from the lowest up, each to the code of the one below.

    Parameters
    ----------
    layers : sequence of mixtures
        The lowest first: a `ConvolutionalGMM` takes images (N, H, W), a `FullGMM` vectors (N, D) or the
        code of a layer below.  They are cloned before they are fitted; one inside a
        ``sklearn.frozen.FrozenEstimator`` is used as it is.
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
        """Fit the layers one after another.

        Parameters
        ----------
        X : array-like, (N, H, W) or (N, D)
            What the lowest layer takes.
        y : object
            Ignored.
        sample_weight : array-like, (N,), optional
            Row weights, the same for every layer.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the layers, the codes or the data cannot be used.  Where a layer refuses what the one below
            hands it, a note names the layer.
        """
        self._fit(X, y, sample_weight)
        return self

    def fit_transform(self, X, y=None, sample_weight=None):
        """Fit, and return the code of the top layer, (N, K); each layer scores the rows once."""
        return self._encode_top(self._fit(X, y, sample_weight))

    def transform(self, X):
        """Code of the top layer, (N, K).

        X is like what the stack was fitted on, here and below; the lowest layer says so if it is not.
        """
        return self._encode_top(self._below_top(X))

    def encodings(self, X):
        """Code of each layer, lowest first: a list of L arrays, each (N, K) with its layer's K."""
        check_is_fitted(self)
        codes = []
        for layer, code in zip(self.layers_, self.codes_, strict=True):
            X = encode(layer.log_joint(X), code)
            codes.append(X)
        return codes

    def log_joint(self, X):
        """Log weight plus log density of each row's code under the top components, (N, K), nats.

        Like all scores of a stack it is the top layer's, given the code of the layers below: a density of
        that code, not of the image.
        """
        return self._top("log_joint", X)

    def score_samples(self, X):
        """Log density of the code below the top layer, (N,), nats: of the code, not of the image."""
        return self._top("score_samples", X)

    def score(self, X, y=None):
        """Mean log density of the code below the top layer, nats a row: of the code, not of the image.

        It compares top layers on one code.  Stacks that differ below the top score different data.
        """
        return self._top("score", X)

    def predict(self, X):
        """Most probable top component of each row, (N,)."""
        return self._top("predict", X)

    def predict_proba(self, X):
        """Posterior of each top component, (N, K); rows sum to 1."""
        return self._top("predict_proba", X)

    def sample(self, n_samples=1, random_state=None):
        """Draw data of the lowest layer from the top down.

        The top mixture draws a code of the layer below.  There the code is read as posteriors (`decode`), a
        component is drawn from them, and from that component the code of the next layer below, or at the
        bottom an image.

        This is a chain of the layers, not the inverse of the way up: of a code no more comes down than one
        component, and the image drawn from it has, as a rule, another code.  It cannot be exact, for a
        stack defines no density of images, only one of codes (see `score`).  With the code
        ``"posterior"`` a lower layer's components are drawn as often as the mean code says, which after EM
        is their weights: the draws of all labels together are then nearly those of the lowest layer alone.

        Parameters
        ----------
        n_samples : int
        random_state : int, Generator, RandomState or None

        Returns
        -------
        X : ndarray, (n_samples, H, W) or (n_samples, D)
            Grouped by component of the top layer.
        labels : ndarray, (n_samples,)
            That component.

        Raises
        ------
        ValueError
            If a layer below the top has no method ``sample_components``, or an argument cannot be used.
        """
        check_is_fitted(self)
        self._check_sampleable()
        rng = _checks.generator(random_state)
        X, labels = self.layers_[-1].sample(n_samples, rng)
        for layer, kind in zip(self.layers_[-2::-1], self.codes_[-2::-1], strict=True):
            X = layer.sample_components(posterior.draw(decode(X, kind), rng), rng)
        return X, labels

    def get_params(self, deep=True):
        """Settings; with `deep` also the layers as ``layer0``, ``layer1``... and theirs, ``layer0__tol``."""
        params = super().get_params(deep=False)
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

    @property
    def n_features_in_(self):
        """Features of the lowest layer, if it counts them."""
        return self.layers_[0].n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the columns that the lowest layer was fitted on, if they had some."""
        return self.layers_[0].feature_names_in_

    @property
    def _n_features_out(self):
        """Columns of `transform`: ``get_feature_names_out`` numbers them."""
        return len(self.layers_[-1].weights_)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "layers_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        lowest = self._numbered().get("layer0")
        if hasattr(lowest, "__sklearn_tags__") and not isinstance(lowest, type):
            tags.input_tags = get_tags(lowest).input_tags
        return tags

    def _numbered(self):
        """Layers by the names that `get_params` gives them."""
        layers = self.layers if isinstance(self.layers, Sequence) else ()
        return {f"layer{number}": layer for number, layer in enumerate(layers)}

    def _fit(self, X, y, sample_weight):
        """Fit, and return the code that the top layer was fitted to."""
        _check_layers(self.layers)
        codes = _checked_codes(self.codes, len(self.layers))
        layers = []
        for number, layer in enumerate(self.layers):
            try:
                if layers:
                    X = encode(layers[-1].log_joint(X), codes[number - 1])
                # FrozenEstimator.fit does not do without y.
                layers.append(clone(layer).fit(X, y, sample_weight=sample_weight))
            except BaseException as error:
                error.add_note(
                    f"This is about layers[{number}], counted from the lowest, 0; the stack is as before."
                )
                raise
        self.layers_, self.codes_ = layers, codes
        return X

    def _below_top(self, X):
        """The data of the top layer: the code of the one below, or X itself."""
        check_is_fitted(self)
        for layer, code in zip(self.layers_[:-1], self.codes_[:-1], strict=True):
            X = encode(layer.log_joint(X), code)
        return X

    def _encode_top(self, X):
        return encode(self.layers_[-1].log_joint(X), self.codes_[-1])

    def _top(self, method, X):
        X = self._below_top(X)
        return getattr(self.layers_[-1], method)(X)

    def _check_sampleable(self):
        for number, layer in enumerate(self.layers_):
            method = "sample_components" if number < len(self.layers_) - 1 else "sample"
            if not hasattr(layer, method):
                raise ValueError(
                    f"layers_[{number}] must have a method {method} to be sampled; got {layer!r}. "
                    "ConvolutionalGMM and FullGMM have one."
                )

    def _state(self):
        """Settings and arrays that make the fitted stack again."""
        check_is_fitted(self)
        entries, arrays = [], {}
        for number, layer in enumerate(self.layers_):
            mixture = layer.estimator if isinstance(layer, FrozenEstimator) else layer
            kind = type(mixture).__name__
            if STORABLE.get(kind) is not type(mixture):
                raise ValueError(
                    f"layers_[{number}] must be of a kind that has a file format, {' or '.join(STORABLE)}; "
                    f"got a {kind}. Save the layers one by one."
                )
            settings, own = mixture._state()
            entries.append({"kind": kind, "settings": settings})
            arrays |= {f"{number}.{name}": array for name, array in own.items()}
        return {"codes": self.codes_, "layers": entries}, arrays

    @staticmethod
    def _array_names(settings):
        return [
            f"{number}.{name}"
            for number, (mixture, _) in enumerate(_stored_layers(settings))
            for name in mixture._array_names
        ]

    @classmethod
    def _from_state(cls, settings, arrays, where):
        """The inverse of `_state`; errors say `where` the arrays come from."""
        layers = []
        for number, (mixture, own) in enumerate(_stored_layers(settings)):
            named = {name: arrays[f"{number}.{name}"] for name in mixture._array_names}
            layers.append(mixture._from_state(own, named, f"{where}[{number}]"))
        _check_layers(layers)
        _check_widths(layers)
        stack = cls([clone(layer) for layer in layers], settings["codes"])
        stack.layers_, stack.codes_ = layers, _checked_codes(settings["codes"], len(layers))
        return stack


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
    """Class and settings of each layer, from the settings of a stack in a file."""
    try:
        own = all(entry.keys() == {"kind", "settings"} for entry in settings["layers"])
        if settings.keys() == {"codes", "layers"} and own:
            return [(STORABLE[entry["kind"]], entry["settings"]) for entry in settings["layers"]]
    except (AttributeError, LookupError, TypeError):
        pass
    raise ValueError(
        f'its settings must be "codes" and "layers", a list of {" or ".join(STORABLE)}, each with a "kind" '
        f'and "settings"; got {reprlib.repr(settings)}. Save the stack again.'
    )


def _check_widths(layers):
    """Refuse a layer that does not take as many features as the one below has components."""
    for number, (below, layer) in enumerate(pairwise(layers), 1):
        width, expected = getattr(layer, "n_features_in_", "images"), len(below.weights_)
        if width != expected:
            raise ValueError(
                f"layers[{number}] must take the {expected} components of the layer below it; got one "
                f"that takes {width}{'' if width == 'images' else ' features'}. Save the stack again."
            )
