"""Gaussian mixture models of images and vectors, and what the book needs beside them."""

from gmmlib.classify import GenerativeClassifier
from gmmlib.convolutional import ConvolutionalGMM
from gmmlib.full import FullGMM
from gmmlib.stack import StackedGMM

__all__ = ["ConvolutionalGMM", "FullGMM", "GenerativeClassifier", "StackedGMM"]
__version__ = "0.1.0"
