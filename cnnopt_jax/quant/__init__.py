"""Few-bit weights: quantizers, quantized parameter trees, model size."""

from cnnopt_jax.quant.gaussian import IDENTITY_BITS, GaussianQuantizer, gaussian_quantizer
from cnnopt_jax.quant.quantizers import (
  BITS,
  LEVELS,
  STEPS,
  fake_quantize,
  quantization_step,
  validate_bits,
)
from cnnopt_jax.quant.size import (
  ACCOUNTINGS,
  Accounting,
  BudgetError,
  ModelSize,
  WidthMatch,
  match_width,
  model_size,
)
from cnnopt_jax.quant.tree import (
  DEFAULT_RULES,
  LEAVE_ALONE,
  Quantizer,
  Rule,
  bits_by_path,
  quantize_params,
)

__all__ = [
  'ACCOUNTINGS',
  'BITS',
  'DEFAULT_RULES',
  'IDENTITY_BITS',
  'LEAVE_ALONE',
  'LEVELS',
  'STEPS',
  'Accounting',
  'BudgetError',
  'GaussianQuantizer',
  'ModelSize',
  'Quantizer',
  'Rule',
  'WidthMatch',
  'bits_by_path',
  'fake_quantize',
  'gaussian_quantizer',
  'match_width',
  'model_size',
  'quantization_step',
  'quantize_params',
  'validate_bits',
]
