"""Convolution that keeps its speed under `jax.vmap` over kernels."""

from cnnopt_jax.kernels.conv.api import conv_general_dilated
from cnnopt_jax.kernels.conv.measured import MappedConv, MeasuredForm, measured_forms
from cnnopt_jax.kernels.conv.rule import BATCHING_RULES, batching_rule, default_batching_rule

__all__ = [
  'BATCHING_RULES',
  'MappedConv',
  'MeasuredForm',
  'batching_rule',
  'conv_general_dilated',
  'default_batching_rule',
  'measured_forms',
]
