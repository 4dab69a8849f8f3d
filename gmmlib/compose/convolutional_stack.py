"""Convolutional stacks: layers of patches, pooled and stacked, with densities of the last codes on top."""

from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, posterior
from gmmlib.base import OfImages, Stored
from gmmlib.compose import stack_files, stacking
from gmmlib.compose.numbered import Numbered

SEEDS = 2**32  # seeds of layers and of the top lie below it


class ConvolutionalStack(Numbered, OfImages, Stored, TransformerMixin, BaseEstimator):
    r"""Layers of patches, each fitted to the cells of the one below, and a model of the last cells.

    Every layer scores all patches of its maps under one mixture, encodes the posteriors and pools them to
    cells, which are the next layer's maps, one channel a component.  The cells of the last layer are the
    *code* of an image; what stands on top is a model of this code or of its principal coordinates.  Layers
    are fitted without labels from the lowest up, to patches drawn at random, and no map is ever kept whole.

    Parameters
    ----------
    layers : sequence of PatchLayer
        The lowest first.  They are cloned before they are fitted.  A fitted layer in scikit-learn's
        `FrozenEstimator` stays as it is; its cells and window may have been changed since its fit.
    top : estimator, optional
        Unfitted; a classifier such as `GenerativeClassifier`, or a mixture of vectors such as `FullGMM`, of
        which `predict` gives the components.
    n_axes : int, optional
        Principal coordinates of the code that the top gets; by default the code itself.  They are those of
        at most 10,000 codes.
    whiten : bool
        Divide the principal coordinates by their standard deviations.
    random_state : int, Generator, RandomState or None
        Gives a seed of its own to every ``random_state`` in the layers and the top, whatever stands there,
        and draws the codes for the axes; None leaves them alone.
    chunk_size : int
        Images that a thread takes at a time; no digit depends on it.

    Attributes
    ----------
    layers_ : list of PatchLayer
        Fitted, lowest first.
    axes_ : gmmlib.compose.principal_axes.Axes or None
    top_ : estimator
        Fitted, if there is one.
    image_shape_ : (int, int)
        H and W.

    Examples
    --------
    >>> from gmmlib import ConvolutionalGMM, ConvolutionalStack, FullGMM, GenerativeClassifier, PatchLayer
    >>> layer = PatchLayer(ConvolutionalGMM(64), side=8, min_std=0.1, cells=5, window=6)
    >>> top = GenerativeClassifier(FullGMM(8, reg_covar=0.1))
    >>> stack = ConvolutionalStack([layer], top=top, n_axes=100, random_state=0)
    """

    def __init__(self, layers, top=None, *, n_axes=None, whiten=False, random_state=None, chunk_size=64):
        self.layers = layers
        self.top = top
        self.n_axes = n_axes
        self.whiten = whiten
        self.random_state = random_state
        self.chunk_size = chunk_size

    def fit(self, X, y=None, sample_weight=None):
        """Fit the layers and the axes to images, and the top to their codes.

        Parameters
        ----------
        X : array-like, (N, H, W)
        y : array-like, (N,), optional
            Classes, for a classifier on top; nothing else sees them.
        sample_weight : array-like, (N,), optional
            Weights of the images, the same for every layer and the top.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a setting, a layer, the top or the data cannot be used.  Where a layer or the top refuses what
            it is handed, a note names it.
        """
        stacking.check_settings(self)
        X = self._data(X, reset=True)
        weight = _checks.sample_weight(sample_weight, len(X))
        stacking.check_labels(self.top, X, y)
        seeded, rng = self._seeded()
        layers = stacking.fitted_layers(seeded.layers, X, weight)
        axes = stacking.axes_of_codes(layers, X, weight, self.n_axes, self.whiten, rng)
        top = stacking.fitted_top(seeded.top, layers, axes, X, y, weight)
        self.layers_, self.axes_, self.image_shape_ = layers, axes, X.shape[1:]
        self._set_top(top)
        return self

    def fit_top(self, X, y=None, sample_weight=None):
        """Fit the top alone, on the fitted layers; returns self.

        So layers see all images, and a classifier those that have labels.  Arguments are those of `fit`.
        """
        stacking.check_settings(self)
        X = self._data(X)
        weight = _checks.sample_weight(sample_weight, len(X))
        stacking.check_labels(self.top, X, y)
        top = self._seeded()[0].top
        self._set_top(stacking.fitted_top(top, self.layers_, self.axes_, X, y, weight))
        return self

    def transform(self, X):
        """Codes of images, (N, cells K): the cells of the last layer, flattened."""
        check_is_fitted(self)
        return stacking.codes(self._data(X), self.layers_)

    def maps(self, X, layer=0):
        """Codes of all patches of a layer, (N, rows, columns, K), before they are pooled.

        Parameters
        ----------
        X : array-like, (N, H, W)
        layer : int
            Counted from the lowest, 0.
        """
        check_is_fitted(self)
        X = self._data(X)
        if isinstance(layer, bool) or layer not in range(len(self.layers_)):
            raise ValueError(f"layer must be an integer from 0 to {len(self.layers_) - 1}; got {layer!r}.")
        below = self.layers_[:layer]
        cells = stacking.codes(X, below).reshape(len(X), *self.layers_[layer].map_shape_)
        return self.layers_[layer].maps(cells)

    def log_joint(self, X):
        """Log prior plus log density of each code in each class, or under each component, (N, C), nats.

        Like all scores of a stack it is the top's, of the code or its coordinates, not of the image.
        """
        return self._of_top("log_joint", X)

    def score_samples(self, X):
        """Log density of each code under the top, (N,), nats: of what the top gets, not of the image."""
        return posterior.evidence(self.log_joint(X))

    def predict(self, X):
        """Class, or most probable component of the top, of each image, (N,)."""
        return self._of_top("predict", X)

    def predict_proba(self, X):
        """Posterior of each class or component, (N, C); rows sum to 1."""
        return self._of_top("predict_proba", X)

    def predict_log_proba(self, X):
        """Log posteriors, (N, C), accurate even where the posterior rounds to 1."""
        return self._of_top("predict_log_proba", X)

    def score(self, X, y=None):
        """What the top calls its score: accuracy of a classifier, mean log-likelihood of a mixture."""
        return self._of_top("score", X, y)

    def n_parameters(self):
        """Free parameters of the layers and the top, and numbers of the axes."""
        check_is_fitted(self)
        axes = sum(values.size for values in self.axes_ or ())
        top = self.top_.n_parameters() if hasattr(self, "top_") else 0
        return axes + top + sum(layer.n_parameters() for layer in self.layers_)

    @property
    def classes_(self):
        """Classes of a classifier on top, sorted."""
        return self.top_.classes_

    @property
    def weights_(self):
        """Mixing weights of a mixture on top, (K,)."""
        return self.top_.weights_

    def to_arrays(self):
        """Settings and arrays that make the fitted stack again."""
        check_is_fitted(self)
        stacking.check_settings(self)
        return stack_files.to_arrays(self)

    @classmethod
    def array_names(cls, settings):
        """What the arrays are called that go with these settings in a file."""
        return stack_files.array_names(settings)

    @classmethod
    def from_arrays(cls, settings, arrays, where):
        """The inverse of `to_arrays`; errors say `where` the arrays come from."""
        learned, own = stack_files.from_arrays(settings, arrays, where)
        layers, top = learned["layers_"], learned.get("top_")
        stack = cls([clone(layer) for layer in layers], None if top is None else clone(top), **own)
        stacking.check_settings(stack)
        vars(stack).update(learned)
        return stack

    def __sklearn_is_fitted__(self):
        return hasattr(self, "layers_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if hasattr(self.top, "__sklearn_tags__") and not isinstance(self.top, type):
            top = get_tags(self.top)
            tags.estimator_type, tags.classifier_tags = top.estimator_type, top.classifier_tags
            tags.target_tags = top.target_tags
        return tags

    def _of_top(self, method, X, *others):
        check_is_fitted(self)
        X = self._data(X)
        if not hasattr(self, "top_"):
            raise ValueError(
                f"top must be a fitted model for {method}; got none. Pass one to the stack and call fit_top."
            )
        return getattr(self.top_, method)(stacking.codes(X, self.layers_, self.axes_), *others)

    def _set_top(self, top):
        vars(self).pop("top_", None)
        if top is not None:
            self.top_ = top

    def _seeded(self):
        """A clone with seeds for all random states in its parts, and a generator for what is drawn here."""
        rng = _checks.generator(self.random_state)
        twin = clone(self)
        if self.random_state is not None:
            own = {name for name in twin.get_params() if name.endswith("__random_state")}
            twin.set_params(**{name: int(rng.integers(SEEDS)) for name in sorted(own)})
        return twin, rng
