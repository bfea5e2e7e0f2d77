"""Few-bit weights as real bytes: packed trees, files, StableHLO programs."""

from cnnopt_jax.quant.packing.codes import (
  pack_codes,
  pack_ternary,
  unpack_codes,
  unpack_ternary,
)
from cnnopt_jax.quant.packing.files import FileSize, file_size, load, load_metadata, save
from cnnopt_jax.quant.packing.leaves import PackedLeaf, PackedStack, pack_values, unpack_leaf
from cnnopt_jax.quant.packing.params import PackedParams, pack, unpack, unpack_on_host
from cnnopt_jax.quant.packing.qarrays import from_qwix, to_qwix
from cnnopt_jax.quant.packing.stablehlo import export

__all__ = [
  'FileSize',
  'PackedLeaf',
  'PackedParams',
  'PackedStack',
  'export',
  'file_size',
  'from_qwix',
  'load',
  'load_metadata',
  'pack',
  'pack_codes',
  'pack_ternary',
  'pack_values',
  'save',
  'to_qwix',
  'unpack',
  'unpack_codes',
  'unpack_leaf',
  'unpack_on_host',
  'unpack_ternary',
]
