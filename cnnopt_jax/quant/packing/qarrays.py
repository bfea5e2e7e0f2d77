"""Packed leaves as the quantized arrays of qwix, and back.

qwix (https://github.com/google/qwix) has value = qvalue scale, with integers of b bits in two's
complement, -2**(b - 1) to 2**(b - 1) - 1. Its 'absmax' scale is max|w| / (2**(b - 1) - 1/2); the
'absmax' step of `fake_quantize` for mid-tread levels is max|w| / (2**(b - 1) - 1).
"""

import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from cnnopt_jax.quant.packing import leaves
from cnnopt_jax.quant.packing.leaves import PackedLeaf, PackedLevels

_WIDEST = 8


def to_qwix(leaf: PackedLeaf) -> Any:
  """A packed leaf as a `qwix.QArray`.

  `qwix.dequantize` gives the leaf's values before they are rounded to the leaf's type, and those
  themselves where that is float32. Mid-rise levels, odd halves, become odd integers of one more bit
  at half the step.

  Args:
    leaf: packed.

  Returns:
    A QArray without a zero point: `qvalue` of the leaf's shape, int4 up to 4 bits and int8 above,
    as qwix stores them; `scale` with length 1 along all but the output axes; `qtype` 'int2' to
    'int8'.

  Raises:
    ImportError: if qwix is not installed.
    ValueError: if the leaf has mid-rise levels of 8 bits, which would take 9, or groups.
  """
  import qwix

  if leaf.group_size:  # Theirs are along one axis, ours along all inputs in a row.
    raise ValueError(f'group_size={leaf.group_size}; allowed: a leaf without groups')
  halves = leaf.levels == 'mid_rise'
  bits = leaf.bits + halves
  if bits > _WIDEST:
    raise ValueError(f'bits={leaf.bits} with mid-rise levels; allowed: 1 to 7, qwix having 8 bits')
  factor = 2 if halves else 1
  integers = factor * leaves.codes_of(leaf).astype(jnp.int32) - round(factor * leaf.zero)
  stored = jnp.int4 if bits <= 4 else jnp.int8
  steps = jnp.ones(leaf.num_steps, leaf.steps_dtype) if leaf.steps is None else leaf.steps
  scale = (steps / factor).reshape(leaf.steps_shape)
  return qwix.QArray(integers.astype(stored), scale, None, f'int{bits}')


def from_qwix(qarray: Any, dtype: Any = None) -> PackedLeaf:
  """A `qwix.QArray` as a packed leaf.

  Args:
    qarray: symmetric, of 2 to 8 bits, with one scale for each index of some axes, whole tensors
      included, and no blocks along an axis.
    dtype: of the values; None for that of the scale, whose values are those of `qwix.dequantize`.

  Returns:
    The leaf, with mid-tread levels where the lowest integer is not used, else in two's complement.

  Raises:
    ValueError: if the array is of another kind.
  """
  qtype = qarray.qvalue.dtype if qarray.qtype is None else qarray.qtype
  name = qtype if isinstance(qtype, str) else jnp.dtype(qtype).name
  found = re.fullmatch(r'int([2-8])', name)
  if found is None:
    raise ValueError(f'qtype={name}; allowed: int2 to int8')
  if qarray.zero_point is not None:
    raise ValueError('zero_point is given; allowed: None, symmetric quantization')
  shape, scales = qarray.qvalue.shape, qarray.scale.shape
  axes = tuple(axis for axis, n in enumerate(scales) if n > 1)
  if len(scales) != len(shape) or any(scales[axis] != shape[axis] for axis in axes):
    raise ValueError(f'scale of shape {scales}; allowed: 1 or all of each axis of {shape}')
  bits = int(found[1])
  integers = jnp.asarray(qarray.qvalue).astype(jnp.int32)
  symmetric = not np.any(integers == -(2 ** (bits - 1)))
  levels: PackedLevels = 'mid_tread' if symmetric else 'twos_complement'
  codes = integers + round(leaves.code_of_zero(bits, levels))
  return leaves.of_codes(codes, qarray.scale, dtype or qarray.scale.dtype, bits, levels, axes)
