"""Gaussian mixture models of images and vectors, and what the book needs beside them."""

from gmmlib.convolutional import ConvolutionalGMM
from gmmlib.full import FullGMM

__all__ = ["ConvolutionalGMM", "FullGMM"]
__version__ = "0.1.0"
