"""From the driver to the cache: one organisation of one array, as equations."""

from cnnopt_jax.nvm.circuit.array import ArrayPPA, Breakdown, array_ppa, as_array
from cnnopt_jax.nvm.circuit.cache import CachePPA, CacheTotals, cache_ppa

__all__ = [
  'ArrayPPA',
  'Breakdown',
  'CachePPA',
  'CacheTotals',
  'array_ppa',
  'as_array',
  'cache_ppa',
]
