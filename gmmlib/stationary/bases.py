r"""Orthonormal bases in which a component has independent coefficients, each of a variance of its own.

A zero-mean Gaussian whose covariance is :math:`T^\top \mathrm{diag}(s)\, T`, with an orthonormal transform T,
has the density of `gmmlib.spectrum` with the coefficients :math:`z = T x` in the place of those of Fourier:
EM needs nothing of an image but its powers :math:`|z|^2`, and nothing of T after that.

fourier
    The unitary discrete Fourier transform, a `gmmlib.spectrum.Fold`: the covariance is circulant, the image
    a period of a texture, whose left border is next to its right one.
cosine
    The orthonormal discrete cosine transform of type II (Ahmed, Natarajan and Rao 1974, IEEE Trans.
    Comput. C-23): the image goes on mirrored beyond its border, and nothing wraps around.
pixel
    No transform: pixels are independent, each with a variance of its own.

What a basis makes of images of one shape is a *layout*.  Estimators ask it, whichever it is, for

- ``name``, ``shape``: the basis, and (H, W) of the images;
- ``plane``, ``counts``: shape of one component's public variances, and how many dimensions each stands for;
- ``bins``, ``multiplicity``: flat places in the plane of the F distinct powers, and the dimensions behind
  each; ``dimension`` is their sum;
- ``varying``: which of these (F,) a constant image leaves at 0, or all, where none is that of the mean;
- ``powers(images)``: (N, H, W) to (N, F), squared grey levels;
- ``unfold(values, left_out)``: (..., F) to (..., \*plane);
- ``filtered(images, gains)``: images (..., H, W) with each coefficient multiplied by gains (..., \*plane);
- ``covariances(variances)``: of the pixels, (K, H W, H W), of variances (K, \*plane);
- ``has_mean``: whether one coefficient, the first, is that of the mean, and can be left out;
- ``slides``: whether sums of Fourier serve all windows of an image at once (`gmmlib.stationary.windows`);
- ``one``, ``several``, ``moving``: what messages call a power, powers, and those that are ``varying``.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft

from gmmlib import _checks
from gmmlib.spectrum import Fold

# One product with the transform's matrix is 3.8 times as fast as scipy's dctn at 8 x 8 pixels and 1.5 times
# at 12 x 12, of a block of 2048 images; at 14 x 14 they are equal, and at 16 x 16 it is 1.8 times slower.
LARGEST_MATRIX = 144  # pixels


class Coefficients(NamedTuple):
    """Layout of a real basis: as many coefficients as pixels; the first may be left out."""

    shape: tuple  # (H, W) of the images
    bins: np.ndarray  # (F,)  flat places of the coefficients
    multiplicity: np.ndarray  # (F,)  ones

    slides = False

    @classmethod
    def of(cls, shape, without_mean=False):
        """Layout of images (H, W)."""
        bins = np.arange(int(without_mean), np.prod(shape))
        return cls(tuple(shape), bins, np.ones(len(bins)))

    @property
    def dimension(self):
        """Count the dimensions: H W, or H W - 1 without the first coefficient."""
        return len(self.bins)

    @property
    def plane(self):
        """Shape of one component's variances, (H, W)."""
        return self.shape

    @property
    def counts(self):
        """Dimensions behind each place of the plane, ones (H, W)."""
        return np.ones(self.shape)

    def powers(self, images):
        """Squared coefficients (N, F) of images (N, H, W), squared grey levels."""
        z = self.transform(np.asarray(images, dtype=np.float64)).reshape(len(images), -1)
        return np.square(z[:, self.bins[0] :])

    def unfold(self, values, left_out=0.0):
        """Spread values (..., F) over the plane (..., H, W); the first may be `left_out`."""
        height, width = self.shape
        spread = np.full((*values.shape[:-1], height * width), left_out)
        spread[..., self.bins] = values
        return spread.reshape(*values.shape[:-1], height, width)

    def filtered(self, images, gains):
        """Images (..., H, W) whose coefficients are multiplied by gains (..., H, W)."""
        return self.inverse(self.transform(images) * gains)

    def covariances(self, variances):
        """Covariances of the pixels, (K, D, D), of variances (K, H, W)."""
        height, width = self.shape
        waves = self.transform(np.eye(height * width).reshape(-1, height, width)).reshape(height * width, -1)
        return (waves * variances.reshape(len(variances), 1, -1)) @ waves.T


class Cosine(Coefficients):
    """Layout of the orthonormal cosine basis, whose first coefficient is that of the mean."""

    __slots__ = ()
    name, one, several, has_mean = "cosine", "a coefficient", "coefficients", True
    moving = "every coefficient but that of the mean"

    @property
    def varying(self):
        """Which coefficients a constant image leaves at 0, (F,)."""
        return self.bins > 0

    def transform(self, images):
        """Coefficients (..., H, W) of images (..., H, W)."""
        if np.prod(self.shape) > LARGEST_MATRIX:
            return fft.dctn(images, axes=(-2, -1), norm="ortho")
        return (images.reshape(-1, np.prod(self.shape)) @ cosines(self.shape)).reshape(images.shape)

    def inverse(self, coefficients):
        """Images (..., H, W) of coefficients (..., H, W)."""
        if np.prod(self.shape) > LARGEST_MATRIX:
            return fft.idctn(coefficients, axes=(-2, -1), norm="ortho")
        flat = coefficients.reshape(-1, np.prod(self.shape))
        return (flat @ cosines(self.shape).T).reshape(coefficients.shape)


class Pixels(Coefficients):
    """Layout of the pixels themselves."""

    __slots__ = ()
    name, one, several, moving, has_mean = "pixel", "a pixel", "pixels", "every pixel", False

    @property
    def varying(self):
        """All of them, (F,): a constant image is as good as another."""
        return np.ones(len(self.bins), dtype=bool)

    def transform(self, images):
        """The images."""
        return images

    inverse = transform


@lru_cache(maxsize=8)
def cosines(shape):
    """Matrix (D, D) whose columns are the cosines of images (H, W) of D pixels, row by row; read-only."""
    size = int(np.prod(shape))
    matrix = fft.dctn(np.eye(size).reshape(size, *shape), axes=(1, 2), norm="ortho").reshape(size, size)
    matrix.flags.writeable = False
    return matrix


LAYOUTS = {kind.name: kind for kind in (Fold, Cosine, Pixels)}


def layout(basis, shape, zero_mean_patches=False):
    """Layout of images (H, W) in a basis, without the coefficient of the mean if theirs was removed."""
    return LAYOUTS[basis].of(shape, zero_mean_patches)


def check(basis, zero_mean_patches):
    """Refuse a basis that there is not, and patches without mean where no coefficient is that of the mean."""
    _checks.one_of(basis, "basis", tuple(LAYOUTS))
    if zero_mean_patches and not LAYOUTS[basis].has_mean:
        raise ValueError(
            f'zero_mean_patches must be False with basis="{basis}", where no coefficient is the mean, to be '
            f'left out; got {zero_mean_patches!r}. Take basis="cosine" or basis="fourier".'
        )


def fourier_only(mixture, name):
    """Refuse a fitted mixture whose `spectra_` are no power spectra."""
    basis = getattr(mixture, "basis_", Fold.name)
    if basis != Fold.name:
        raise ValueError(f'{name} must have basis="{Fold.name}", power spectra; got "{basis}". Fit it again.')
