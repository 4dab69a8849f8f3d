"""Mixtures of stationary Gaussians, whose components are power spectra, and what is made of them."""
