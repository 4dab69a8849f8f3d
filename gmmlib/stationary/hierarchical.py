r"""A mixture of mixtures over groups of images: the images of a group share a top component.

The group is several views or patches of one thing.  Its top component t is drawn once; every image of
the group then draws a lower component k, whose spectrum s_k all top components share:

.. math:: p(x_1, \ldots, x_G) = \sum_t \pi_t \prod_{g=1}^G \sum_k A_{tk}\, N(x_g; s_k).

The top component explains which lower components come together.  With one image a group there is
nothing to come together: the sums change places, and what is left is the mixture of the weights
:math:`\sum_t \pi_t A_{tk}`, whatever :math:`\pi` and A.

EM is exact.  With :math:`u_{ngt} = \sum_k A_{tk} N(x_{ng}; s_k)` the E-step is

- :math:`r_{nt} \propto \pi_t \prod_g u_{ngt}`, the posterior of the top component of a group;
- :math:`q_{ngtk} = r_{nt} A_{tk} N(x_{ng}; s_k) / u_{ngt}`, that of both components of an image,

and the M-step takes :math:`\pi` from the sums of r, A from those of q over images, and s from those of q
over t.  No array of N G T K numbers is formed: what is needed of q are its sums over t and over n and g,
and both are matrix products.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted

from gmmlib import _checks, _contents, _kernels, posterior, storage
from gmmlib.base import Additive, LearnedByEM
from gmmlib.em.workers import Workers, block_size
from gmmlib.spectrum import fold, powers, unfold
from gmmlib.stationary import convolutional
from gmmlib.stationary.convolutional import ConvolutionalGMM

UNDERFLOW = 600.0  # nats below which a product of densities over their largest may leave float64


class Parameters(NamedTuple):
    """T mixtures of the same K stationary Gaussians of mean zero with F distinct powers each."""

    top_weights: np.ndarray  # (T,)    sum to 1
    conditionals: np.ndarray  # (T, K)  weights of the lower components under each top one; rows sum to 1
    spectra: np.ndarray  # (K, F)  variance at each frequency, squared grey levels


class Statistics(NamedTuple):
    """What an E-step leaves of its groups; the fields of two sets of groups add."""

    top: np.ndarray  # (T,)    sum_n w[n] r[n, t]
    pairs: np.ndarray  # (T, K)  sum_ng w[n] q[n, g, t, k]
    power: np.ndarray  # (K, F)  sum_ngt w[n] q[n, g, t, k] P[n, g, f]
    log_likelihood: float  # sum_n w[n] log p(group n), nats
    weight: float  # sum_n w[n]


class Posteriors(NamedTuple):
    """What n groups of G images are taken for."""

    evidence: np.ndarray  # (n,)       log-likelihood of the group, nats
    top: np.ndarray  # (n, T)     r; rows sum to 1
    lower: np.ndarray  # (n, G, K)  sum_t q; sums to 1 for each image
    pairs: np.ndarray  # (T, K)     sum_ng w[n] q


def log_densities(spectra, P, multiplicity):
    """Log density of images of powers P (..., F) under each lower component, (..., K), nats."""
    ones = np.ones(len(spectra))
    flat = P.reshape(-1, P.shape[-1])  # one product, not one a group
    joint = convolutional.log_joint(convolutional.Parameters(ones, spectra), flat, multiplicity)
    return joint.reshape(*P.shape[:-1], -1)


def posteriors(parameters, density, weight):
    """Posteriors of n groups with weights (n,), from the log densities (n, G, K) of their images."""
    top_weights, conditionals, _ = parameters
    best = density.max(axis=2, keepdims=True)
    scaled = np.exp(density - best).reshape(-1, density.shape[2])  # (n G, K)
    mixed = (scaled @ conditionals.T).reshape(*density.shape[:2], -1)  # (n, G, T): u over the largest
    with np.errstate(divide="ignore"):
        joint = np.log(top_weights) + np.log(mixed).sum(axis=1)
    # No factor of a joint above -UNDERFLOW has lost digits; a joint far below the best is not seen.
    lost = np.flatnonzero(~(joint.max(axis=1) > -UNDERFLOW))
    for n in lost:
        joint[n] = _pairs(parameters, density[n] - best[n])[0]
    evidence = np.empty(len(joint))
    _kernels.normalise(joint, np.zeros(joint.shape[1]), evidence)
    top, seen = joint, joint > 0
    seen[lost] = False
    share = np.divide(top[:, None], mixed, out=np.zeros_like(mixed), where=seen[:, None])
    flat = share.reshape(len(scaled), -1)
    lower = (scaled * (flat @ conditionals)).reshape(density.shape)
    share *= weight[:, None, None]
    pairs = conditionals * (flat.T @ scaled)
    for n in lost:
        both = top[n][None, :, None] * _pairs(parameters, density[n] - best[n])[1]
        lower[n] = both.sum(axis=1)
        pairs += weight[n] * both.sum(axis=0)
    return Posteriors(evidence + best.sum(axis=(1, 2)), top, lower, pairs)


def _pairs(parameters, density):
    """Log joint (T,) of one group, and its images' posteriors of k given t, (G, T, K), at full length."""
    with np.errstate(divide="ignore"):
        each = density[:, None] + np.log(parameters.conditionals)
        mixed = logsumexp(each, axis=2, keepdims=True)
        return np.log(parameters.top_weights) + mixed.sum(axis=(0, 2)), np.exp(each - mixed)


def e_step(parameters, density, P, weight):
    """Statistics of n groups of log densities (n, G, K) and powers P (n, G, F), or None: no power then."""
    evidence, top, lower, pairs = posteriors(parameters, density, weight)
    if P is None:
        power = np.zeros(())
    else:
        lower *= weight[:, None, None]
        power = lower.reshape(-1, lower.shape[2]).T @ P.reshape(-1, P.shape[2])
    return Statistics(weight @ top, pairs, power, weight @ evidence, weight.sum())


def m_step(statistics, before, variance_floor):
    """Parameters of the largest expected log joint among those with no variance below the floor.

    Where nothing came to a component, the likelihood does not depend on what it is: it stays as before.
    Without powers the spectra stay, too.
    """
    top, pairs, power, _, weight = statistics
    mass, rows = pairs.sum(axis=0)[:, None], pairs.sum(axis=1, keepdims=True)
    conditionals = np.divide(pairs, rows, out=before.conditionals.copy(), where=rows > 0)
    spectra = before.spectra
    if power.ndim:
        spectra = np.divide(power, mass, out=spectra.copy(), where=mass > 0)
        spectra = np.maximum(spectra, variance_floor)
    return Parameters(top / weight, conditionals, spectra)


def random_top(flat, density, rows, n_top, rng):
    """Start each top component halfway between the lower components of one group and those of all.

    Parameters
    ----------
    flat : gmmlib.stationary.convolutional.Parameters
        A mixture of single images.
    density : callable
        Indices of groups (n,) to the log densities (n, G, K) of their images.
    rows : ndarray of int
        The groups to choose from.
    n_top : int
    rng : Generator
    """
    chosen = rng.choice(rows, n_top, replace=False)
    with np.errstate(divide="ignore"):
        joint = density(chosen) + np.log(flat.weights)
    own = posterior.proba(joint.reshape(-1, joint.shape[2])).reshape(joint.shape).mean(axis=1)
    conditionals = 0.5 * (own + flat.weights)
    return Parameters(np.full(n_top, 1 / n_top), conditionals, flat.spectra)


def given(mapping, n_top, n_components, layout, name):
    """Check and fold the parameters of a caller or a file."""
    if not {"top_weights", "conditionals", "spectra"} <= set(mapping):
        raise ValueError(
            f'{name} must hold "top_weights", "conditionals" and "spectra", or the "weights" and '
            f'"spectra" of a mixture of single images; got {sorted(mapping)}.'
        )
    shapes = {"top_weights": (n_top,), "conditionals": (n_top, n_components)}
    arrays = {}
    for key, shape in shapes.items():
        arrays[key] = values = _checks.parameter(mapping[key], f"{name}[{key!r}]", shape)
        total = values.sum(axis=-1)
        if not (values >= 0).all() or np.abs(total - 1).max() > 1e-6:
            raise ValueError(
                f"{name}[{key!r}] must be >= 0 and sum to 1 in every row; got {values.min():g} at the "
                f"least and sums from {total.min():g} to {total.max():g}."
            )
    weights = arrays["top_weights"] @ arrays["conditionals"]
    flat = {"weights": weights / weights.sum(), "spectra": mapping["spectra"]}
    spectra = convolutional.given(flat, n_components, layout, name).spectra
    return Parameters(arrays["top_weights"], arrays["conditionals"], spectra)


class HierarchicalGMM(Additive, LearnedByEM, DensityMixin, BaseEstimator):
    """Mixture of top components over groups of images, each a mixture of shared stationary Gaussians.

    Parameters
    ----------
    n_components : int
        Lower components K.
    n_top : int
        Top components T.
    zero_mean_patches : bool
        The images had their own mean removed: leave out the zero frequency.
    max_iter : int
        EM iterations at the most.
    tol : float
        Stop when an iteration changes the mean log-likelihood by less, in nats a group; 0 never does.
    variance_floor : float
        No variance is let below it, in squared grey levels.
    init : "random_from_data" or mapping
        Where EM starts: from randomly chosen images and groups; from a mixture of single images
        ``{"weights": (K,), "spectra": (K, H, W//2 + 1)}`` and randomly chosen groups; or from
        ``{"top_weights": (T,), "conditionals": (T, K), "spectra": (K, H, W//2 + 1)}``.
    fixed_spectra : bool
        Learn the top layer alone and leave the spectra of the start as they are: training from the
        bottom up.
    random_state : int, Generator, RandomState or None
        Randomness of the start.
    chunk_size : int
        Images that a thread takes at a time, in whole blocks of groups; no digit depends on it.
    callback : callable, optional
        ``callback(model, iteration)`` after the start and each iteration, with the model usable as it
        stands; a true result stops EM.
    progress : bool
        Show a progress bar.

    Attributes
    ----------
    top_weights_ : ndarray, (T,)
    conditionals_ : ndarray, (T, K)
        Weights of the lower components under each top component.
    spectra_ : ndarray, (K, H, W//2 + 1)
        As those of `ConvolutionalGMM`.
    weights_ : ndarray, (K,)
        Weights of the lower components for a single image, ``top_weights_ @ conditionals_``.
    log_likelihoods_ : ndarray, (number of iterations + 1,)
        Mean log-likelihood in nats a group at the start and after each iteration.
    converged_ : bool
        Whether `tol` stopped the run.
    n_iter_ : int
    image_shape_ : (int, int)
        H and W.
    n_dimensions_ : int
        Dimensions that the density counts for each image, as in `ConvolutionalGMM`.

    References
    ----------
    Dempster, Laird and Rubin (1977), JRSS B 39, for EM.
    """

    def __init__(
        self,
        n_components,
        n_top,
        *,
        zero_mean_patches=False,
        max_iter=50,
        tol=0.0,
        variance_floor=1e-6,
        init="random_from_data",
        fixed_spectra=False,
        random_state=None,
        chunk_size=2048,
        callback=None,
        progress=False,
    ):
        self.n_components = n_components
        self.n_top = n_top
        self.zero_mean_patches = zero_mean_patches
        self.max_iter = max_iter
        self.tol = tol
        self.variance_floor = variance_floor
        self.init = init
        self.fixed_spectra = fixed_spectra
        self.random_state = random_state
        self.chunk_size = chunk_size
        self.callback = callback
        self.progress = progress

    def fit(self, X, y=None, sample_weight=None):
        self._check_settings()
        X = self._data(X, reset=True)
        weight = _checks.sample_weight(sample_weight, len(X))
        if np.count_nonzero(weight) < self.n_top:
            raise ValueError(
                f"n_top={self.n_top} needs at least as many groups of positive weight in X; "
                f"got {np.count_nonzero(weight)}. Pass more data or ask for fewer top components."
            )
        self._fit(X, weight)
        return self

    fit.__doc__ = LearnedByEM.fit.__doc__

    def _fit(self, X, weight):
        lower = self._lower()
        layout = lower._fold(X[0])
        with self._workers(X) as workers:
            P = workers.fill(
                lambda rows: _powers(X[rows], layout), np.empty((*X.shape[:2], len(layout.bins)))
            )
            views, view_weight = P.reshape(-1, P.shape[2]), np.repeat(weight, P.shape[1])
            lower._check_variance(views, view_weight, layout)
            self._run_em(
                self._start(lower, P, views, weight, view_weight, layout),
                self._e_step(P, weight, layout, workers),
                lambda found: m_step(*found, self.variance_floor),
                lambda parameters: self._set(layout, parameters),
            )

    def _statistics_of(self, X, sample_weight):
        X = self._data(X)
        weight = _checks.sample_weight(sample_weight, len(X))
        parameters, layout = self._parameters, self._layout

        def of(rows):
            P = _powers(X[rows], layout)
            density = log_densities(parameters.spectra, P, layout.multiplicity)
            return e_step(parameters, density, None if self.fixed_spectra else P, weight[rows])

        with self._workers(X) as workers:
            return workers.sum(of, len(X))

    def _set_from(self, statistics):
        self._set(self._layout, m_step(statistics, self._parameters, self.variance_floor))

    def log_joint(self, X):
        """Log weight plus log density of each group under each top component, (N, T), nats.

        It is -inf where that is more than 40 nats below the largest of the group.
        """
        with np.errstate(divide="ignore"):
            return self.score_samples(X)[:, None] + np.log(self.predict_proba(X))

    def score_samples(self, X):
        """Log-likelihood of each group (N, G, H, W), (N,), nats; G may differ from that of the fit."""
        return self._by_chunk(X, lambda found: found.evidence)

    def score(self, X, y=None):
        """Mean log-likelihood, nats per group."""
        return float(self.score_samples(X).mean())

    def predict(self, X):
        """Most probable top component of each group, (N,)."""
        return posterior.most_probable(self.predict_proba(X))

    def predict_proba(self, X):
        """Posterior of each top component, (N, T); exactly 0 where it is below exp(-40)."""
        check_is_fitted(self)
        return self._by_chunk(X, lambda found: found.top, len(self.top_weights_))

    def predict_views(self, X):
        """Most probable lower component of each image in the light of its whole group, (N, G)."""
        return self.predict_views_proba(X).argmax(axis=2)

    def predict_views_proba(self, X):
        """Posterior of each lower component of each image given its whole group, (N, G, K)."""
        check_is_fitted(self)
        return self._by_chunk(X, lambda found: found.lower, len(_groups(X)[0]), len(self.spectra_))

    def sample(self, n_samples=1, n_views=2, random_state=None):
        """Draw groups.

        Parameters
        ----------
        n_samples, n_views : int
            Groups, and images in each.
        random_state : int, Generator, RandomState or None

        Returns
        -------
        X : ndarray, (n_samples, n_views, H, W)
        top : ndarray, (n_samples,)
            The top component of each group.
        lower : ndarray, (n_samples, n_views)
            The lower component of each image.
        """
        check_is_fitted(self)
        n_samples = _checks.positive_integer(n_samples, "n_samples")
        n_views = _checks.positive_integer(n_views, "n_views")
        rng = _checks.generator(random_state)
        top = rng.choice(len(self.top_weights_), n_samples, p=self.top_weights_)
        upto = np.cumsum(self.conditionals_, axis=1)[top][:, None]
        height = rng.random((n_samples, n_views, 1)) * upto[..., -1:]
        lower = (upto <= height).sum(axis=2)
        noise = fft.rfft2(rng.standard_normal((n_samples, n_views, *self.image_shape_)))
        return fft.irfft2(noise * np.sqrt(self.spectra_)[lower], s=self.image_shape_), top, lower

    _array_names = (
        "top_weights",
        "conditionals",
        "spectra",
        "log_likelihoods",
        "converged",
        "n_iter",
        "image_shape",
    )

    def to_arrays(self):
        """Settings and arrays that make the fitted model again."""
        check_is_fitted(self)
        arrays = {name: np.asarray(getattr(self, f"{name}_")) for name in self._array_names}
        arrays |= {name: arrays[name].astype(int) for name in ("converged", "n_iter")}
        fitted = {"n_top": len(self.top_weights_), "n_components": len(self.spectra_)}
        fitted["zero_mean_patches"] = self._layout.dimension < np.prod(self.image_shape_)
        return _contents.settings(self, **fitted), arrays

    @classmethod
    def from_arrays(cls, settings, arrays, where):
        """The inverse of `to_arrays`; errors say `where` the arrays come from."""
        model = _contents.model(cls, settings)
        shape = storage.image_shape(arrays["image_shape"], arrays, where)
        layout = fold(shape, zero_frequency=not model.zero_mean_patches)
        model._set(layout, given(arrays, model.n_top, model.n_components, layout, where))
        _contents.whole_plane(arrays["spectra"], model.spectra_, f"{where}['spectra']")
        model.log_likelihoods_, model.converged_, model.n_iter_ = _contents.run(arrays, where)
        return model

    @property
    def weights_(self):
        """Weights of the lower components for a single image, (K,)."""
        check_is_fitted(self)
        return self.top_weights_ @ self.conditionals_

    def __sklearn_is_fitted__(self):
        return hasattr(self, "top_weights_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags

    def _check_settings(self):
        _checks.settings(self)
        _checks.positive_integer(self.n_top, "n_top")
        _checks.truth(self.fixed_spectra, "fixed_spectra")

    def _data(self, X, reset=False):
        if reset:
            return _groups(X)
        check_is_fitted(self)
        return _groups(X, self.image_shape_)

    def _lower(self):
        """The mixture of single images that has the same settings."""
        names = ("n_components", "zero_mean_patches", "max_iter", "tol", "variance_floor", "init")
        return ConvolutionalGMM(**{name: getattr(self, name) for name in names})

    def _workers(self, X):
        chunk_size = _checks.positive_integer(self.chunk_size, "chunk_size")
        n_views = X.shape[1]
        return Workers(max(1, chunk_size // n_views), block_size(n_views * math.prod(X.shape[2:])))

    def _start(self, lower, P, views, weight, view_weight, layout):
        if hasattr(self.init, "keys") and "conditionals" in self.init:
            return given(self.init, self.n_top, self.n_components, layout, "init")
        rng = _checks.generator(self.random_state)
        if not hasattr(self.init, "keys"):
            _checks.enough_rows(view_weight, self.n_components)
            lower.random_state = rng
        flat = lower._start(views, view_weight, layout)

        def density(groups):
            return log_densities(flat.spectra, P[groups], layout.multiplicity)

        return random_top(flat, density, np.flatnonzero(weight), self.n_top, rng)

    def _e_step(self, P, weight, layout, workers):
        """Parameters to (statistics, the parameters themselves) and the mean log-likelihood."""
        known = None

        def densities(parameters, rows):
            return log_densities(parameters.spectra, P[rows], layout.multiplicity)

        def run(parameters):
            nonlocal known
            if self.fixed_spectra and known is None:  # the same at every iteration
                shape = (*P.shape[:2], len(parameters.spectra))
                known = workers.fill(lambda rows: densities(parameters, rows), np.empty(shape))

            def statistics(rows):
                if known is not None:
                    return e_step(parameters, known[rows], None, weight[rows])
                return e_step(parameters, densities(parameters, rows), P[rows], weight[rows])

            total = workers.sum(statistics, len(P))
            return (total, parameters), total.log_likelihood / total.weight

        return run

    @property
    def _layout(self):
        return fold(self.image_shape_, zero_frequency=self.n_dimensions_ == math.prod(self.image_shape_))

    @property
    def _parameters(self):
        """The learned parameters, folded: what is set by hand counts from then on."""
        names = ("top_weights", "conditionals", "spectra")
        learned = {name: getattr(self, f"{name}_") for name in names}
        sides = len(self.top_weights_), len(self.spectra_)
        return given(learned, *sides, self._layout, "the fitted model")

    def _set(self, layout, parameters):
        self.image_shape_ = layout.shape
        self.n_dimensions_ = layout.dimension
        self.top_weights_ = parameters.top_weights
        self.conditionals_ = parameters.conditionals
        self.spectra_ = unfold(parameters.spectra, layout)

    def _by_chunk(self, X, function, *shape):
        """One row a group of what `function` makes of the posteriors."""
        X = self._data(X)
        layout, parameters = self._layout, self._parameters

        def evaluate(rows):
            P = _powers(X[rows], layout)
            density = log_densities(parameters.spectra, P, layout.multiplicity)
            _checks.log_joints(density.min(axis=1), rows.start)  # every image of the group needs a density
            return function(posteriors(parameters, density, np.ones(len(P))))

        with self._workers(X) as workers:
            return workers.fill(evaluate, np.empty((len(X), *shape)))


def _groups(X, shape=None):
    """Return checked groups of images (N, G, H, W)."""
    X = _checks.array(X, "X")
    if X.ndim != 4:
        raise ValueError(
            f"X must hold groups of images in an array of shape (N, G, H, W); got shape {X.shape}. "
            "Single images (N, H, W) are groups of one: X[:, None]."
        )
    _checks.images(X.reshape(X.shape[0] * X.shape[1], *X.shape[2:]), shape=shape)
    return X


def _powers(X, layout):
    """Distinct powers (n, G, F) of groups of images (n, G, H, W)."""
    return powers(X.reshape(-1, *X.shape[2:]), layout).reshape(*X.shape[:2], -1)
