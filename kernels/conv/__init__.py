"""Convolution that keeps its speed under `jax.vmap` over kernels."""

from cnnopt_jax.kernels.conv.api import conv_general_dilated
from cnnopt_jax.kernels.conv.batching import batching_rule, default_form, measured_forms

__all__ = ['batching_rule', 'conv_general_dilated', 'default_form', 'measured_forms']
