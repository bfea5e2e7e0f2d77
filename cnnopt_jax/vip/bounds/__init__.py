"""How far virtual layers are from dense ones: of a layer, and of a chain of layers."""

from cnnopt_jax.vip.bounds.chain import conv_norm, network_bound, pool_norm
from cnnopt_jax.vip.bounds.differences import ACTIVATIONS
from cnnopt_jax.vip.bounds.error import ErrorNorms, layer_error
from cnnopt_jax.vip.bounds.layer import ErrorBounds, layer_bound
from cnnopt_jax.vip.bounds.report import REPORT_NOTE, BoundedLayer, BoundRow, bound_report

__all__ = [
  'ACTIVATIONS',
  'REPORT_NOTE',
  'BoundRow',
  'BoundedLayer',
  'ErrorBounds',
  'ErrorNorms',
  'bound_report',
  'conv_norm',
  'layer_bound',
  'layer_error',
  'network_bound',
  'pool_norm',
]
