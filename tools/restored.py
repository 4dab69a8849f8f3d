"""Draw the picture of the README: a photograph with noise, and what one command makes of it."""

import io
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from gmmlib.data import bundled
from gmmlib.restore import command
from tools.project import REPOSITORY

SIGMA = 25  # grey levels of 255
DETAIL = np.s_[107:427, 160:480]
GAP = 8  # white pixels between the two


def main():
    """Write the picture, on the left with noise and on the right restored."""
    photograph = np.asarray(
        Image.open(io.BytesIO(bundled.photographs("val")[1]))
    )  # rocket: SpaceX, public domain
    noise = SIGMA * np.random.default_rng(0).standard_normal(photograph.shape)
    noisy = np.rint((photograph + noise).clip(0, 255)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Image.fromarray(photograph).save("clean.png")
        Image.fromarray(noisy).save("noisy.png")
        command.main(["denoise", "noisy.png", "-o", "restored", "--reference", "clean.png"])
        restored = np.asarray(Image.open(Path("restored") / "noisy.png"))
        os.chdir(REPOSITORY)
    left, right = noisy[DETAIL], restored[DETAIL]
    white = np.full((len(left), GAP, 3), 255, dtype=np.uint8)
    both = Image.fromarray(np.concatenate([left, white, right], axis=1))
    both.save(REPOSITORY / "book" / "restored.jpg", quality=85)


if __name__ == "__main__":
    main()
