"""Convolution that keeps its speed under `jax.vmap` over kernels."""

from cnnopt_jax.kernels.conv.api import conv_general_dilated
from cnnopt_jax.kernels.conv.batching import FORMS, fastest_form

__all__ = ['FORMS', 'conv_general_dilated', 'fastest_form']
