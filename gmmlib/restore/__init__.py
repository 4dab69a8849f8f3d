"""Restoration of photographs by mixtures of patches: noise removed, gaps filled."""

from gmmlib.restore.images import denoise, inpaint
from gmmlib.restore.noise import noise_level

__all__ = ["denoise", "inpaint", "noise_level"]
