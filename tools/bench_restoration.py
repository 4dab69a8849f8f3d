"""A photograph with noise, restored by mixtures of patches and by what scikit-image has."""

import numpy as np
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from gmmlib import FullGMM, patches
from gmmlib.restore import denoise, shipped
from tools import bench_data
from tools.timing import Row, compare

SIGMA = 25 / 255
SIDE, PATCHES, COMPONENTS, FLAT = 8, 20_000, 100, 0.002
# Strengths in units of the noise, of .4 to .9 and .6 to 1.2 those of the most dB.
OF_MEANS, OF_VARIATION = 0.5, 0.8


def full(photographs):
    """A mixture of full covariances, trained for half a minute at most."""
    drawn, _ = patches.sample_patches(photographs, SIDE, PATCHES, 0, min_std=FLAT)
    rows = patches.remove_mean(drawn).reshape(PATCHES, -1)
    mixture = FullGMM(COMPONENTS, zero_means=True, reg_covar=1e-5, max_iter=10, tol=0, random_state=0)
    return mixture.fit(rows)


def decibels(image, clean):
    """Peak signal-to-noise ratio of an image whose grey levels are from 0 to 1."""
    return 10 * np.log10(1 / ((image - clean) ** 2).mean())


def rows():
    """Each row of the table: seconds and dB of a method beside those of non-local means."""
    clean, *others = bench_data.photographs()
    noisy = clean + SIGMA * np.random.default_rng(0).standard_normal(clean.shape)
    fast, slow = shipped.prior("fast"), full(others)

    def means(image):
        return denoise_nl_means(image, patch_size=7, patch_distance=11, h=OF_MEANS * SIGMA, sigma=SIGMA)

    methods = {
        "total variation": (lambda image: denoise_tv_chambolle(image, weight=OF_VARIATION * SIGMA), 3),
        "a stationary prior": (lambda image: denoise(image, SIGMA, prior=fast), 3),
        f"a full prior, K = {COMPONENTS}": (lambda image: denoise(image, SIGMA, prior=slow), 1),
    }
    level, size = decibels(means(noisy), clean), f"{clean.shape[0]} x {clean.shape[1]}"
    for name, (method, rounds) in methods.items():
        found = {}

        def timed(method=method, found=found):
            found["image"] = method(noisy)

        method(noisy[:20, :20])  # loops are compiled with their first call
        what = f"{name} / non-local means of scikit-image"
        yield compare(f"{what}, {size} (s)", timed, lambda: means(noisy), "", rounds, warm_up=False)
        after = decibels(found["image"], clean)
        yield Row(f"{what}, noise of 25 (dB)", after, level, after / level, "")
