"""Gaussian mixture models whose components are power spectra, and what the book needs beside them."""

from gmmlib.convolutional import ConvolutionalGMM

__all__ = ["ConvolutionalGMM"]
__version__ = "0.1.0"
