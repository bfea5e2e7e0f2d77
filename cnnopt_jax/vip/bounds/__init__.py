"""How far virtual layers are from dense ones: of a layer, and of a chain of layers."""

from cnnopt_jax.vip.bounds.chain import (
  REPORT_NOTE,
  BoundedLayer,
  BoundRow,
  bound_report,
  conv_norm,
  network_bound,
  pool_norm,
)
from cnnopt_jax.vip.bounds.layer import (
  ACTIVATIONS,
  LayerBound,
  LayerError,
  layer_bound,
  layer_error,
)

__all__ = [
  'ACTIVATIONS',
  'REPORT_NOTE',
  'BoundRow',
  'BoundedLayer',
  'LayerBound',
  'LayerError',
  'bound_report',
  'conv_norm',
  'layer_bound',
  'layer_error',
  'network_bound',
  'pool_norm',
]
