"""The estimator of mixtures over groups of images; its steps are in `gmmlib.stationary.grouped`."""

import math

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks
from gmmlib.base import Mixture, Scoring
from gmmlib.em.batches import Additive
from gmmlib.em.workers import Workers, block_size
from gmmlib.spectrum import unfold
from gmmlib.stationary import grouped, steps
from gmmlib.stationary.spectral import Filtering


class HierarchicalGMM(Filtering, Additive, Mixture):
    """Mixture of top components over groups of images, each a mixture of shared stationary Gaussians.

    Parameters
    ----------
    n_components : int
        Lower components K.
    n_top : int
        Top components T.
    by_position : bool
        Each position of a group has a table of its own: all groups have the G images of the fit, in an
        order that counts.  Otherwise one table serves all, and a group is a bag of images.
    fixed_spectra : bool
        Learn the top layer alone, on the spectra of the start: training from the bottom up.
    init : "random_from_data" or mapping
        Where EM starts: from randomly chosen images and groups; from a mixture of single images
        ``{"weights": (K,), "spectra": (K, H, W//2 + 1)}`` and randomly chosen groups; or from
        ``{"top_weights": (T,), "conditionals": (T, K) or (G, T, K), "spectra": (K, H, W//2 + 1)}``.
    zero_mean_patches, variance_floor
        As in `ConvolutionalGMM`.
    max_iter, tol, n_init, random_state, callback, progress, chunk_size
        As in `gmmlib.base.LearnedByEM`.

    Attributes
    ----------
    top_weights_ : ndarray, (T,)
    conditionals_ : ndarray, (T, K), or (G, T, K) by position
        Weights of the lower components under each top component.
    weights_ : ndarray, (K,)
        Weights of the lower components for one image, ``top_weights_ @ conditionals_``; by position, its
        mean over positions.
    spectra_, filters_, image_shape_, n_dimensions_, log_likelihoods_, converged_, n_iter_
        As in `ConvolutionalGMM`, of each image.
    """

    def __init__(
        self,
        n_components=1,
        n_top=1,
        *,
        by_position=False,
        zero_mean_patches=False,
        variance_floor=1e-6,
        fixed_spectra=False,
        max_iter=100,
        tol=1e-3,
        init="random_from_data",
        n_init=1,
        random_state=None,
        callback=None,
        progress=False,
        chunk_size=2048,
    ):
        self.n_components = n_components
        self.n_top = n_top
        self.by_position = by_position
        self.zero_mean_patches = zero_mean_patches
        self.variance_floor = variance_floor
        self.fixed_spectra = fixed_spectra
        self.max_iter = max_iter
        self.tol = tol
        self.init = init
        self.n_init = n_init
        self.random_state = random_state
        self.callback = callback
        self.progress = progress
        self.chunk_size = chunk_size

    def _check_enough(self, weight):
        if np.count_nonzero(weight) < self.n_top:
            raise ValueError(
                f"n_top={self.n_top} needs at least as many groups of positive weight in X; "
                f"got {np.count_nonzero(weight)}. Pass more data or ask for fewer top components."
            )

    def _fit(self, X, weight):
        layout = steps.layout_of(X.shape[2:], self.zero_mean_patches)
        with self._workers(X) as workers:
            P = steps.all_powers(X, layout, workers)
            views = P.reshape(-1, P.shape[2]), np.repeat(weight, P.shape[1])
            steps.check_variance(*views, layout, self.variance_floor)
            self._run_em(
                grouped.start(self, P, weight, layout),
                grouped.e_steps(P, weight, layout, workers, self.fixed_spectra),
                lambda expectation: grouped.m_step(*expectation, self.variance_floor),
                lambda parameters: self._set(layout, parameters),
            )

    def _statistics_of(self, X, sample_weight):
        X = self._data(X)
        weight = _checks.sample_weight(sample_weight, len(X))
        parameters, layout = self._parameters, self._layout

        def of(rows):
            P = steps.powers_of(X[rows], layout)
            density = grouped.log_densities(parameters.spectra, P, layout.multiplicity)
            return grouped.e_step(parameters, density, None if self.fixed_spectra else P, weight[rows])

        with self._workers(X) as workers:
            return workers.sum(of, len(X))

    def _set_from(self, statistics):
        self._set(self._layout, grouped.m_step(statistics, self._parameters, self.variance_floor))

    def _scoring(self, X, everything):
        """How `Mixture` scores groups; G may differ from that of the fit, unless tables are by position."""
        X = self._data(X)
        parameters = self._parameters
        densities = grouped.densities(X, parameters.spectra, self._layout)

        def log_joint(rows):
            return grouped.log_joint(parameters, densities(rows))

        return Scoring(len(X), len(self.top_weights_), log_joint, self._workers(X))

    @staticmethod
    def _posteriors(joint):
        return steps.normalised(joint)[0]

    def n_parameters(self):
        """Free parameters: weights of both layers, and the distinct powers of each spectrum."""
        check_is_fitted(self)
        n_components = self.conditionals_.shape[-1]
        free = self.conditionals_.size // n_components * (n_components - 1)
        return len(self.top_weights_) - 1 + free + n_components * len(self._layout.bins)

    def predict_views(self, X):
        """Most probable lower component of each image given its whole group, (N, G)."""
        return self.predict_views_proba(X).argmax(axis=2)

    def predict_views_proba(self, X):
        """Posterior of each lower component of each image given its whole group, (N, G, K)."""
        X = self._data(X)
        with self._workers(X) as workers:
            return grouped.lower_posteriors(self._parameters, X, self._layout, workers)

    def sample(self, n_samples=1, random_state=None, n_views=None):
        """Draw groups, of 2 images unless `n_views` says otherwise; by position always those of the fit.

        Returns X (n_samples, n_views, H, W), the top component (n_samples,) of each group, and the lower
        component (n_samples, n_views) of each image.
        """
        check_is_fitted(self)
        n_samples = _checks.positive_integer(n_samples, "n_samples")
        n_views = _views(n_views, self.conditionals_)
        rng = _checks.generator(random_state)
        top = rng.choice(len(self.top_weights_), n_samples, p=self.top_weights_)
        X, lower = grouped.draw(self._parameters, self._layout, top, n_views, rng)
        return X, top, lower

    def sample_components(self, labels, random_state=None, n_views=None):
        """Draw a group from each of the top components `labels`, integers (N,): X (N, n_views, H, W)."""
        check_is_fitted(self)
        labels = _checks.components(labels, len(self.top_weights_))
        n_views, rng = _views(n_views, self.conditionals_), _checks.generator(random_state)
        return grouped.draw(self._parameters, self._layout, labels, n_views, rng)[0]

    _learned = ("top_weights", "conditionals", "spectra")
    _array_names = (*_learned, "log_likelihoods", "converged", "n_iter", "image_shape")

    @property
    def weights_(self):
        """Weights of the lower components for one image, (K,)."""
        check_is_fitted(self)
        return grouped.flat_weights(self.top_weights_, self.conditionals_)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "top_weights_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags

    def _check_settings(self):
        _checks.settings(self)
        _checks.positive_integer(self.n_top, "n_top")
        _checks.truth(self.by_position, "by_position")
        _checks.truth(self.fixed_spectra, "fixed_spectra")

    def _data(self, X, reset=False):
        """Checked groups of images (N, G, H, W), with one image per table by position."""
        if not reset:
            check_is_fitted(self)
        X = _checks.array(X, "X")
        if X.ndim != 4:
            raise ValueError(
                f"X must hold groups of images in an array of shape (N, G, H, W); got shape {X.shape}. "
                "Single images (N, H, W) are groups of one: X[:, None]."
            )
        images = X.reshape(X.shape[0] * X.shape[1], *X.shape[2:])
        _checks.images(images, shape=None if reset else self.image_shape_)
        if not reset and self.conditionals_.ndim == 3 and len(self.conditionals_) != X.shape[1]:
            raise ValueError(
                f"X must hold groups of {len(self.conditionals_)} images, one per position of the fit; got "
                f"{X.shape[1]}. Pass whole groups, or fit with by_position=False."
            )
        return X

    def _workers(self, X):
        chunk_size = _checks.positive_integer(self.chunk_size, "chunk_size")
        n_views = X.shape[1]
        return Workers(max(1, chunk_size // n_views), block_size(n_views * math.prod(X.shape[2:])))

    def _held(self):
        held = {"n_top": len(self.top_weights_), "n_components": len(self.spectra_)}
        return held | {"by_position": self.conditionals_.ndim == 3, "zero_mean_patches": self._leaves_out()}

    def _given(self, mapping, layout, name, settings):
        n_views = max([1, *np.shape(mapping["conditionals"])[:1]]) if settings["by_position"] else None
        return grouped.given(mapping, settings["n_top"], settings["n_components"], layout, name, n_views)

    def _set(self, layout, parameters):
        self.image_shape_ = layout.shape
        self.n_dimensions_ = layout.dimension
        self.top_weights_ = parameters.top_weights
        self.conditionals_ = parameters.conditionals
        self.spectra_ = unfold(parameters.spectra, layout)


def _views(n_views, conditionals):
    """How many images a drawn group has: as asked, or as there are tables by position."""
    held = len(conditionals) if conditionals.ndim == 3 else None
    n_views = _checks.positive_integer((held or 2) if n_views is None else n_views, "n_views")
    if held not in (None, n_views):
        raise ValueError(f"n_views must be {held}, the positions of the fit, or left out; got {n_views}.")
    return n_views
