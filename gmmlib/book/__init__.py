"""Figures and galleries: the only room that knows the book."""
