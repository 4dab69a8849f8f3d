"""Restoration of photographs by mixtures of patches: noise removed, gaps filled.

``python -m gmmlib.restore denoise`` and ``... inpaint`` do it to picture files.
"""

from gmmlib.restore.images import denoise, inpaint, noise_levels
from gmmlib.restore.noise import noise_level

__all__ = ["denoise", "inpaint", "noise_level", "noise_levels"]
