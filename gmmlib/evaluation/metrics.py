"""How partitions, posteriors and spectra overlap.

How the K components of a mixture line up with C classes, the contingency table says; how often they claim the
same sample, the posteriors; how alike they are themselves, their spectra.  Spectra are half planes
(K, H, W//2 + 1) of components or their filters, none of them zero everywhere, of images of H x W pixels, the
`shape`.  Entropies and log coefficients are in nats.  A ValueError names the argument that is not like this.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import entr
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score

from gmmlib import _checks
from gmmlib.spectrum import multiplicity


def contingency(labels, classes, n_components=None, n_classes=None):
    """Count the samples (N,) of each class in each component, both counted from 0: a table (K, C).

    K and C are by default the largest label plus 1; give them where the last ones may be empty.
    """
    labels, n_components = _checks.labels(labels, "labels", n_components, "n_components")
    classes, n_classes = _checks.labels(classes, "classes", n_classes, "n_classes")
    if len(labels) != len(classes):
        raise ValueError(
            f"labels and classes must hold one entry a sample; got {len(labels)} labels and "
            f"{len(classes)} classes. Pass both for the same samples."
        )
    cells = np.bincount(labels * n_classes + classes, minlength=n_components * n_classes)
    return cells.reshape(n_components, n_classes)


def purity(table):
    """Share of the samples in a `contingency` table (K, C) that are of their component's most common class.

    Between the share of the most common class and 1; rises with K by itself, up to 1 at a component a sample.
    """
    table = _checks.amounts(table, "table")
    if table.ndim != 2 or not table.any():
        raise ValueError(
            f"table must have shape (K, C) and count at least one sample; got shape {table.shape} and a "
            f"total of {table.sum():g}. Make it with contingency(labels, classes)."
        )
    return float(table.max(axis=1).sum() / table.sum())


class Agreement(NamedTuple):
    """How well a partition into components agrees with classes."""

    purity: float  # see `purity`
    nmi: float  # normalised mutual information, by the arithmetic mean of the entropies; 0 to 1
    ami: float  # the same less what chance gives partitions of such sizes; 0 by chance, 1 for the same
    ari: float  # adjusted Rand index; 0 by chance, 1 for the same partition


def agreement(labels, classes):
    """Score the component of each sample (N,) against its class (N,), by all four measures.

    The last three are scikit-learn's (Vinh, Epps and Bailey 2010, JMLR 11, compares them).
    """
    table = contingency(labels, classes)
    measures = normalized_mutual_info_score, adjusted_mutual_info_score, adjusted_rand_score
    return Agreement(purity(table), *(float(measure(classes, labels)) for measure in measures))


def entropy(shares, axis=-1):
    """Shannon entropy along an axis, in nats: ``-sum_i p[i] log p[i]`` with ``0 log 0 = 0``.

    `shares` are counts, weights or powers, none negative, which are divided by their sum along the axis.  Of
    a contingency table (K, C), ``axis=0`` tells how each class spreads over the components, (C,), and
    ``axis=1`` how mixed each component is, (K,).  From 0 to the log of the axis' length; 0 where all shares
    are 0.
    """
    shares = _checks.amounts(shares, "shares")
    total = shares.sum(axis=axis, keepdims=True)
    p = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
    return entr(p).sum(axis=axis)


def effective_number(shares, axis=-1):
    """Number of equal shares that have the same entropy: ``exp(entropy(shares, axis))``.

    From 1, all in one, to the length of the axis, all alike; 1 also where all shares are 0.
    """
    return np.exp(entropy(shares, axis))


def confusion(posteriors):
    """Mean posterior vector of what each component holds, (K, K), from posteriors (N, K).

    Row k is ``sum_n r[n, k] r[n, :] / sum_n r[n, k]``: of the samples of component k, the share that
    each component claims.  Components that never claim the same sample give the identity; rows sum to 1, and
    that of a component that holds nothing is NaN.
    """
    r = _checks.posteriors(posteriors)
    mass = r.sum(axis=0)[:, None]
    return np.divide(r.T @ r, mass, out=np.full((len(mass), len(mass)), np.nan), where=mass > 0)


def mean_confusion(posteriors):
    """Share of the posterior mass that another component claims too.

    One less the mean diagonal of `confusion`, its rows weighted by what they hold, which is
    ``sum_nk r[n, k] (1 - r[n, k]) / N``: 0 where every posterior is 0 or 1, ``1 - 1/K`` where all are equal.
    """
    r = _checks.posteriors(posteriors)
    return float((r * (1 - r)).sum() / r.sum())


def spectral_overlap(spectra, shape):
    r"""How much spectra overlap in frequency, whatever their contrast: Bhattacharyya coefficients.

    Each spectrum is divided by its sum over the full plane, as though its power were a probability:

    .. math:: \rho_{kl} = \sum_f w(f) \sqrt{p_k(f)\, p_l(f)}, \qquad p_k = s_k \Big/ \sum_f w(f)\, s_k(f).

    (K, K): 1 for spectra of one shape, 0 for spectra without a common frequency (Bhattacharyya 1943, Bulletin
    of the Calcutta Mathematical Society 35, 99-109).
    """
    shares, w = _shares(spectra, shape)
    roots = np.sqrt(w * shares)
    return np.minimum(roots @ roots.T, 1.0)  # rounding must not pass 1


def density_overlap(spectra, shape):
    r"""How much the densities of zero-mean stationary Gaussians overlap: log Bhattacharyya coefficients.

    .. math:: \log \int \sqrt{N(x; s_k)\, N(x; s_l)}\, dx
              = \sum_f \frac{w(f)}{2} \Big[\frac{\log s_k(f) + \log s_l(f)}{2}
              - \log \frac{s_k(f) + s_l(f)}{2}\Big],

    the formula of Kailath (1967, IEEE Transactions on Communication Technology 15, 52-60) for two
    covariances, which share their eigenvectors here.  Unlike `spectral_overlap` it also counts contrast.  Two
    components of equal weight are distinguished with an error probability of at most half the coefficient.

    A frequency at which both of a pair are 0 is left out, as that of patches without mean; where only one of
    them is, the densities share no image.  (K, K), nats per image: 0 for equal spectra, below 0 for others,
    down to -inf.
    """
    s = _checks.spectra(spectra, shape).reshape(len(spectra), -1)
    w = multiplicity(shape).ravel()
    rows = []
    with np.errstate(divide="ignore", invalid="ignore"):
        log_s = np.log(s)
        for s_k, log_k in zip(s, log_s, strict=True):  # all pairs at once would take K times the memory
            gap = (log_s + log_k) / 2 - np.log((s + s_k) / 2)
            rows.append((w * np.where(s + s_k > 0, gap, 0.0)).sum(axis=1) / 2)
    return np.minimum(rows, 0.0)  # rounding must not pass 0


def bandwidth(spectra, shape):
    """Effective share of the frequencies that each spectrum occupies, (K,).

    The effective number of its full-plane frequencies, divided by the number at which any of the spectra
    has power (so that a frequency left out of the model does not count): close to 0 for a single wave, 1 for
    white noise, whatever the contrast.
    """
    shares, w = _shares(spectra, shape)
    return np.exp(entr(shares) @ w) / w[shares.any(axis=0)].sum()


def mean_off_diagonal(matrix):
    """Average the entries of a matrix (K, K), K > 1, beside its diagonal; NaN entries are left out."""
    matrix = _checks.array(matrix, "matrix").astype(np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ValueError(
            f"matrix must be square with at least two rows; got shape {matrix.shape}. "
            "One component has no other to be compared with."
        )
    return float(np.nanmean(matrix[~np.eye(len(matrix), dtype=bool)]))


def _shares(spectra, shape):
    """Spectra (K, F) whose sums over the full plane are 1, and the multiplicity (F,) of their F bins."""
    flat = _checks.spectra(spectra, shape).reshape(len(spectra), -1)
    w = multiplicity(shape).ravel()
    return flat / (flat @ w)[:, None], w
