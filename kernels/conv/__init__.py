"""Convolution that keeps its speed under `jax.vmap` over kernels."""

from cnnopt_jax.kernels.conv.api import conv_general_dilated
from cnnopt_jax.kernels.conv.faces import FACE_FORMS, applicable_forms, compute_face, face_form
from cnnopt_jax.kernels.conv.measured import MappedConv, MeasuredForm, measured_forms
from cnnopt_jax.kernels.conv.rule import BATCHING_RULES, batching_rule, default_batching_rule, forms

__all__ = [
  'BATCHING_RULES',
  'FACE_FORMS',
  'MappedConv',
  'MeasuredForm',
  'applicable_forms',
  'batching_rule',
  'compute_face',
  'conv_general_dilated',
  'default_batching_rule',
  'face_form',
  'forms',
  'measured_forms',
]
