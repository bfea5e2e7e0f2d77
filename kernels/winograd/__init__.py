"""Convolution by fewer products."""

from cnnopt_jax.kernels.winograd.api import conv3x3, transform_kernel

__all__ = ['conv3x3', 'transform_kernel']
