"""Cheaper convolutional networks in JAX, and what they cost on caches of any memory technology."""

__version__ = '0.1.0'
