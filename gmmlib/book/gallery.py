"""What the component explorer shows of a model, as one small JSON document.

Shown in a notebook it becomes an output of a type of its own, which is stored with the notebook and found
there when pages are made.
"""

import base64
import io

import numpy as np
from scipy import fft
from scipy.linalg import eigh

from gmmlib import posterior
from gmmlib._extras import extra
from gmmlib.book import plotting
from gmmlib.evaluation import metrics

with extra("plot"):  # Pillow comes with matplotlib
    from PIL import Image

MIME = "application/vnd.gmmlib.book.gallery+json"
TOP, SAMPLES = 8, 4  # images per component that it claims most strongly, and that are drawn from it
MANY = 100  # components: of more, half as many images each are stored
NEAREST = 5
TIE = 1e-6  # relative difference below which rounding decides between two numbers
GREYS = 16  # of photographs, digits and samples; spectra have 256


class Gallery:
    """A document for the explorer, with a row for each of K components in falling order of the weights (K,).

    `name` is a part of addresses: letters, digits and hyphens.  `sheets` are pictures (K, M, H, W) by
    heading, M beside each other, each in its own range; floats have 16 greys, ``uint8`` is taken as it is.
    Optional are `classes` (K, C), how many images of each class a component wins; `profile`, frequencies (B,)
    in cycles per pixel and the mean log power (K, B) there; and `overlap` (K, K), 0 to 1, for a list of the
    nearest.
    """

    def __init__(self, name, title, weights, sheets, *, classes=None, profile=None, overlap=None):
        if not name.replace("-", "").isalnum():
            raise ValueError(f"name must be of letters, digits and hyphens; got {name!r}.")
        order = posterior.falling(np.asarray(weights))
        self.name = name
        self.data = {
            "name": name,
            "title": title,
            "weights": _rounded(np.asarray(weights)[order], 4),
            "sheets": [_sheet(heading, np.asarray(tiles)[order]) for heading, tiles in sheets.items()],
        }
        if classes is not None:
            self.data["classes"] = np.asarray(classes)[order].tolist()
        if profile is not None:
            x, values = profile
            self.data["profile"] = {"x": _rounded(x, 4), "y": _rounded(np.asarray(values)[order], 2)}
        if overlap is not None:
            self.data["near"] = _nearest(np.asarray(overlap)[np.ix_(order, order)])

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {MIME: self.data, "text/plain": f"{len(self.data['weights'])} components for the explorer"}


def of_spectra(name, title, model, images, labels=None, *, seed=0):
    """Make the gallery of a fitted `ConvolutionalGMM`.

    The most strongly claimed of the images (N, H, W) are shown, and the classes, 0 ... C - 1, of those that a
    component wins, by their labels (N,); samples are drawn from a seed.
    """
    shape = images.shape[1:]
    # Zero-phase whitening filters, their centre in the middle.
    filters = fft.fftshift(fft.irfft2(np.sqrt(model.filters_), s=shape), axes=(1, 2))
    sheets = {
        "samples": _drawn(model, seed),
        "filter": _levels(filters)[:, None],
        "spectrum": _levels(plotting.log_spectra(model.spectra_, shape))[:, None],
    }
    more = {"profile": _profile(model.spectra_, shape)}
    more["overlap"] = metrics.spectral_overlap(model.filters_, shape)
    return of_log_joint(name, title, model.weights_, model.log_joint(images), images, labels, sheets, **more)


def of_full(name, title, model, images, labels=None, *, axes=None, seed=0):
    """Make the gallery of a `FullGMM` of images as rows: means and the directions of largest variance.

    A model of the leading principal components of the rows is given their (mean, (D, H W) unit vectors) as
    `axes`.
    """
    shape = images.shape[1:]
    rows = images.reshape(len(images), -1)
    centre, vectors = (0.0, None) if axes is None else axes
    pixels = (lambda x: x) if axes is None else (lambda x: x @ vectors)
    log_joint = model.log_joint(rows if axes is None else (rows - centre) @ vectors.T)
    directions = np.stack([pixels(_leading(covariance)) for covariance in model.covariances_])
    # A direction has no sign of its own: the first of its largest entries is made positive.
    size = np.abs(directions)
    first = (size > (1 - TIE) * size.max(axis=2, keepdims=True)).argmax(axis=2)
    largest = np.take_along_axis(directions, first[..., None], axis=2)
    directions = (directions * np.sign(largest)).reshape(len(directions), -1, *shape)
    sheets = {
        "samples": (pixels(_drawn(model, seed)) + centre).reshape(len(directions), -1, *shape),
        "mean": _levels((pixels(model.means_) + centre).reshape(-1, *shape))[:, None],
        "largest variance": directions,
    }
    return of_log_joint(name, title, model.weights_, log_joint, images, labels, sheets)


def of_templates(name, title, model, images, labels=None):
    """Make the gallery of a `gmmlib.stationary.transformed.TransformedGMM`; parameters as in `of_spectra`."""
    shape = images.shape[1:]
    sheets = {
        "template": _levels(model.means_)[:, None],
        "spectrum": _levels(plotting.log_spectra(model.spectra_, shape))[:, None],
    }
    more = {"profile": _profile(model.spectra_, shape)}
    return of_log_joint(name, title, model.weights_, model.log_joint(images), images, labels, sheets, **more)


def of_stack(name, title, stack, images, labels=None):
    """Make the gallery of the top layer of a `StackedGMM`; parameters as in `of_spectra`."""
    return of_log_joint(name, title, stack.layers_[-1].weights_, stack.log_joint(images), images, labels)


def of_log_joint(name, title, weights, log_joint, images, labels=None, sheets=None, **more):
    """Make the gallery of components (K,) known by the log joints (N, K) that they give to images.

    Further `sheets`, and whatever else there is, are those of `Gallery`.
    """
    top = posterior.ranking(posterior.log_odds(log_joint), _few(TOP, weights))
    sheets = {"most strongly claimed": np.stack([images[rows] for rows in top]), **(sheets or {})}
    if labels is not None:
        more["classes"] = metrics.contingency(log_joint.argmax(axis=1), labels, len(weights))
    return Gallery(name, title, weights, sheets, **more)


def _leading(covariance):
    """The four directions of largest variance as rows; 0 where another direction has the same variance."""
    dimension = len(covariance)
    variances, directions = eigh(covariance, subset_by_index=(max(dimension - 5, 0), dimension - 1))
    distinct = np.diff(variances[::-1]) < -TIE * variances[-1]
    alone = np.concatenate([[True], distinct]) & np.concatenate([distinct, [True]])
    return np.where(alone[:4, None], directions.T[::-1][:4], 0.0)


def _few(count, weights):
    return count if len(weights) <= MANY else count // 2


def _drawn(model, seed):
    n_components = len(model.weights_)
    n_samples = _few(SAMPLES, model.weights_)
    labels = np.repeat(np.arange(n_components), n_samples)
    drawn = model.sample_components(labels, seed)
    return drawn.reshape(n_components, n_samples, *drawn.shape[1:])


def _profile(spectra, shape):
    frequency, profiles = plotting.radial_profile(spectra, shape)
    return frequency, np.log(profiles)


def _levels(images):
    return _whole(255 * plotting.unit_range(images)).astype(np.uint8)


def _sheet(heading, tiles):
    """One picture of K x M tiles without gaps, and what it takes to cut it up."""
    rows, columns, height, width = tiles.shape
    if tiles.dtype != np.uint8:
        coarse = np.minimum(np.floor(GREYS * plotting.unit_range(tiles) + TIE), GREYS - 1)
        tiles = (coarse * 255 // (GREYS - 1)).astype(np.uint8)
    sheet = tiles.swapaxes(1, 2).reshape(rows * height, columns * width)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG", optimize=True)
    png = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"heading": heading, "columns": columns, "height": height, "width": width, "png": png}


def _nearest(overlap):
    """For each component the others that overlap it most: number and overlap."""
    overlap = overlap - 2 * np.eye(len(overlap))
    near = posterior.falling(overlap.T)[:NEAREST].T
    return [[[int(j), round(float(overlap[k, j]), 3)] for j in row if j != k] for k, row in enumerate(near)]


def _rounded(values, digits):
    return (_whole(np.asarray(values, dtype=np.float64) * 10**digits) / 10**digits).tolist()


def _whole(values):
    """Round to integers; what is a half but for rounding, as means of few digits often are, goes up."""
    return np.floor(values + 0.5 + TIE)
