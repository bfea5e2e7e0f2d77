"""`virtualize`: plans for networks that know nothing of this library, by their traced programs."""

from cnnopt_jax.vip.virtualization.network import (
  Virtual,
  VirtualGraph,
  VirtualModule,
  layer_names,
  virtualize,
)
from cnnopt_jax.vip.virtualization.run import WrittenMap

__all__ = [
  'Virtual',
  'VirtualGraph',
  'VirtualModule',
  'WrittenMap',
  'layer_names',
  'virtualize',
]
