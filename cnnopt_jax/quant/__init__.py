"""Few-bit weights: quantizers, quantized parameter trees, model size, real bytes.

Bits are spent on the layers that need them by `sensitivity` and `allocation`; `packing` holds what
lies under `pack` and `save`.
"""

from cnnopt_jax.quant.activations import learned_quantize_activations, pact
from cnnopt_jax.quant.gaussian import IDENTITY_BITS, GaussianQuantizer, gaussian_quantizer
from cnnopt_jax.quant.groups import group_steps, grouped_fake_quantize
from cnnopt_jax.quant.learned import (
  LEARNED_LEVELS,
  element_wise_gradient_scaling,
  initial_step,
  learned_quantize,
  level_range,
  step_gradient_scale,
)
from cnnopt_jax.quant.packing import (
  PackedLeaf,
  PackedParams,
  export,
  file_size,
  from_qwix,
  load,
  load_metadata,
  pack,
  save,
  to_qwix,
  unpack,
)
from cnnopt_jax.quant.plan import (
  GRANULARITIES,
  LeafPlan,
  Quantizer,
  Rule,
  WeightPlan,
  average_bits,
  plan_table,
  plan_weights,
)
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
  COSTS,
  Accounting,
  BudgetError,
  ModelSize,
  WidthMatch,
  bit_operations,
  match_width,
  model_size,
)
from cnnopt_jax.quant.ternary import TERNARY_BITS, ternary_quantize, ternary_threshold
from cnnopt_jax.quant.tree import bits_by_path, quantize_params

__all__ = [
  'ACCOUNTINGS',
  'BITS',
  'COSTS',
  'GRANULARITIES',
  'IDENTITY_BITS',
  'LEARNED_LEVELS',
  'LEVELS',
  'STEPS',
  'TERNARY_BITS',
  'Accounting',
  'BudgetError',
  'GaussianQuantizer',
  'LeafPlan',
  'ModelSize',
  'PackedLeaf',
  'PackedParams',
  'Quantizer',
  'Rule',
  'WeightPlan',
  'WidthMatch',
  'average_bits',
  'bit_operations',
  'bits_by_path',
  'element_wise_gradient_scaling',
  'export',
  'fake_quantize',
  'file_size',
  'from_qwix',
  'gaussian_quantizer',
  'group_steps',
  'grouped_fake_quantize',
  'initial_step',
  'learned_quantize',
  'learned_quantize_activations',
  'level_range',
  'load',
  'load_metadata',
  'match_width',
  'model_size',
  'pack',
  'pact',
  'plan_table',
  'plan_weights',
  'quantization_step',
  'quantize_params',
  'save',
  'step_gradient_scale',
  'ternary_quantize',
  'ternary_threshold',
  'to_qwix',
  'unpack',
  'validate_bits',
]
