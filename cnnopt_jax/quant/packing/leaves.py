"""One quantized array as bytes: its codes, its steps, and what they mean."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from cnnopt_jax.quant import gaussian, groups
from cnnopt_jax.quant.packing import codes as coding

PackedLevels = Literal['mid_tread', 'mid_rise', 'twos_complement']

PACKED_LEVELS = ('mid_tread', 'mid_rise', 'twos_complement')


@struct.dataclass
class PackedLeaf:
  """A quantized array, its codes without gaps in bytes.

  With u_i the N = prod(shape) codes in row-major order, d_c the steps, c(i) the place of element i
  along `output_axes`, K the number of levels and z the code of zero:

      value_i = (u_i - z) d_c(i), computed in the steps' type and rounded to `dtype`,
      with u_i in 0, ..., K - 1

      'mid_tread':        K = 2**bits - 1   z = 2**(bits - 1) - 1     integers -n..n
      'mid_rise':         K = 2**bits       z = 2**(bits - 1) - 1/2   odd halves -n..n
      'twos_complement':  K = 2**bits       z = 2**(bits - 1)         integers, one more below zero

      codes.size = ceil(N / 5) if K = 3 (`pack_ternary`), ceil(N bits / 8) else (`pack_codes`)
      steps.size = prod(shape[axis] for axis in output_axes), times the groups of a channel

  With groups, a step is that of a place along `output_axes` and of `group_size` consecutive inputs
  (`grouped_fake_quantize`); the last group holds what is left over.

  `fake_quantize` makes the first two kinds; the third is that of qwix. A zero has no sign.

  Attributes:
    codes: uint8 [bytes].
    steps: distance between neighbouring levels of each channel, [steps], in row-major order of the
      output axes, and of each of its groups, the first one first; float32, or float64 for values of
      float64. None where all are 1, as in a layer whose steps are folded into the norm after it.
    shape: of the values.
    dtype: the name of the values' type.
    bits: 1 to 8.
    levels: one of `PACKED_LEVELS`.
    output_axes: axes that have a step of their own, rising, from 0 up; () for a single step.
    group_size: inputs that share a step, 0 for all of a channel.
  """

  codes: jax.Array
  steps: jax.Array | None
  shape: tuple[int, ...] = struct.field(pytree_node=False)
  dtype: str = struct.field(pytree_node=False)
  bits: int = struct.field(pytree_node=False)
  levels: str = struct.field(pytree_node=False)
  output_axes: tuple[int, ...] = struct.field(pytree_node=False)
  group_size: int = struct.field(pytree_node=False, default=0)

  @property
  def size(self) -> int:
    """Number of values."""
    return math.prod(self.shape)

  @property
  def num_steps(self) -> int:
    """Number of steps."""
    if self.group_size:
      return groups.group_steps(
        self.shape, group_size=self.group_size, channel_axis=self.output_axes
      )
    return math.prod(self.steps_shape)

  @property
  def steps_dtype(self) -> np.dtype:
    """Type of the steps, in which values are computed."""
    return jnp.promote_types(self.dtype, jnp.float32)

  @property
  def steps_shape(self) -> tuple[int, ...]:
    """Shape of the steps that broadcasts against the values, where there are no groups."""
    return tuple(n if axis in self.output_axes else 1 for axis, n in enumerate(self.shape))

  def spread(self, steps: Any) -> Any:
    """Steps [steps], of JAX or NumPy, or None, as what broadcasts against the values."""
    if steps is None:
      return np.ones((), self.steps_dtype)
    if self.group_size:
      return groups.spread_group_steps(
        steps, self.shape, group_size=self.group_size, channel_axis=self.output_axes
      )
    return steps.reshape(self.steps_shape)

  @property
  def zero(self) -> float:
    """The code of zero, z."""
    return code_of_zero(self.bits, self.levels)

  @property
  def codes_size(self) -> int:
    """Bytes that the codes take."""
    if self.is_ternary:
      return coding.packed_ternary_size(self.size)
    return coding.packed_size(self.size, self.bits)

  @property
  def is_ternary(self) -> bool:
    """Whether there are three levels."""
    return (self.bits, self.levels) == (2, 'mid_tread')


class PackedStack(NamedTuple):
  """One array whose slices along the first axis have a bitwidth each.

  Attributes:
    slices: in order; a slice left in float is an array.
  """

  slices: tuple[PackedLeaf | jax.Array, ...]

  @property
  def shape(self) -> tuple[int, ...]:
    """Of the whole array."""
    return (len(self.slices), *self.slices[0].shape)


Packed = PackedLeaf | PackedStack | jax.Array


def parts(packed: Packed) -> tuple[PackedLeaf | jax.Array, ...]:
  """The packed leaves and arrays that one array is made of."""
  return packed.slices if isinstance(packed, PackedStack) else (packed,)


def packed_levels(bits: int, levels: str) -> PackedLevels:
  """The kind of levels that `fake_quantize` uses for its option `levels`."""
  if levels == 'auto':
    return 'mid_rise' if bits <= 2 else 'mid_tread'
  return 'mid_rise' if levels == 'mid_rise' else 'mid_tread'


def code_of_zero(bits: int, levels: str) -> float:
  """The code that stands for zero, z of `PackedLeaf`; between two codes if none does."""
  if levels == 'twos_complement':
    return 2 ** (bits - 1)
  return (gaussian.num_levels(bits, levels) - 1) / 2


def pack_values(
  values: jax.Array,
  steps: jax.Array | None,
  bits: int,
  levels: PackedLevels,
  output_axes: tuple[int, ...],
  group_size: int = 0,
) -> PackedLeaf:
  """Packs values that lie on a grid.

  Args:
    values: quantized, floating point, any shape.
    steps: of their grid, such as `quantization_step` or `grouped_quantization_step` returns; None
      for a grid of step 1, of which none is stored.
    bits: 1 to 8.
    levels: the kind of grid.
    output_axes: axes that have a step of their own; they may count from the end.
    group_size: of `PackedLeaf`.

  Returns:
    The packed values: `unpack_leaf` gives them back bit for bit.

  Raises:
    ValueError: if a value is not on its grid, to the last bit.
  """
  # By NumPy, which rounds as JAX does and has nothing to compile.
  given = np.asarray(values)
  axes = tuple(sorted({axis % given.ndim for axis in output_axes}))
  leaf = _empty(given.shape, steps, given.dtype, bits, levels, axes, group_size)
  grid = leaf.spread(None if steps is None else np.ravel(steps))
  codes = _codes(given, grid, bits, levels)
  leaf = _with_codes(leaf, codes)
  if not _same_bits(_values(codes, grid, leaf), given):
    raise ValueError(f'values are not multiples of their steps; allowed: {bits} bits, {levels}')
  return leaf


def of_codes(
  codes: jax.Array | np.ndarray,
  steps: jax.Array | np.ndarray,
  dtype: Any,
  bits: int,
  levels: PackedLevels,
  output_axes: tuple[int, ...],
) -> PackedLeaf:
  """Packs codes.

  Args:
    codes: integers of 0 to K - 1, of the shape of the values.
    steps: as many as the output axes keep.
    dtype: of the values.
    bits: of `PackedLeaf`.
    levels: of `PackedLeaf`.
    output_axes: of `PackedLeaf`.

  Returns:
    The leaf.
  """
  return _with_codes(_empty(codes.shape, steps, dtype, bits, levels, output_axes), codes)


def _empty(shape, steps, dtype, bits, levels, output_axes, group_size=0) -> PackedLeaf:
  """A leaf without its codes."""
  codes = jnp.zeros(0, jnp.uint8)
  name = jnp.dtype(dtype).name
  leaf = PackedLeaf(codes, None, shape, name, bits, levels, output_axes, group_size)
  if steps is None:
    return leaf
  return dataclasses.replace(leaf, steps=jnp.ravel(steps).astype(leaf.steps_dtype))


def _with_codes(leaf: PackedLeaf, codes: jax.Array | np.ndarray) -> PackedLeaf:
  packed = coding.packed_on_host(np.asarray(codes), leaf.bits, ternary=leaf.is_ternary)
  return dataclasses.replace(leaf, codes=jnp.asarray(packed))


def codes_of(leaf: PackedLeaf) -> jax.Array:
  """The codes of a packed leaf, uint8 of the shape of its values; may be traced."""
  if leaf.is_ternary:
    return coding.unpack_ternary(leaf.codes, leaf.shape)
  return coding.unpack_codes(leaf.codes, leaf.bits, leaf.shape)


def unpack_leaf(packed: Packed) -> jax.Array:
  """The values of a packed array, bit for bit those that were packed; may be traced.

  Args:
    packed: a packed leaf or stack; any other array passes through.

  Returns:
    The values.

  Raises:
    ValueError: if JAX has the leaf's type switched off, or there are too few or too many codes.
  """
  if isinstance(packed, PackedStack):
    return jnp.stack([unpack_leaf(slice_) for slice_ in packed.slices])
  if not isinstance(packed, PackedLeaf):
    return packed
  if jax.dtypes.canonicalize_dtype(packed.dtype).name != packed.dtype:
    raise ValueError(f'dtype={packed.dtype}; allowed: with jax_enable_x64')
  return _unpack(packed)


def unpacked_on_host(packed: Packed) -> np.ndarray:
  """What `unpack_leaf` gives, by NumPy: nothing to compile."""
  if isinstance(packed, PackedStack):
    return np.stack([unpacked_on_host(slice_) for slice_ in packed.slices])
  if not isinstance(packed, PackedLeaf):
    return np.asarray(packed)
  codes = coding.unpacked_on_host(
    np.asarray(packed.codes), packed.bits, packed.shape, ternary=packed.is_ternary
  )
  steps = None if packed.steps is None else np.asarray(packed.steps)
  return _values(codes, packed.spread(steps), packed)


@jax.jit
def _unpack(leaf: PackedLeaf) -> jax.Array:
  levels = codes_of(leaf).astype(leaf.steps_dtype) - leaf.zero
  values = (levels * leaf.spread(leaf.steps)).astype(leaf.dtype)
  # `fake_quantize` adds a zero at its end: no value of its is -0.
  return jnp.where(values == 0, jnp.zeros_like(values), values)


def _codes(values: np.ndarray, steps: np.ndarray, bits: int, levels: str) -> np.ndarray:
  """The codes of values on a grid, uint8; of a zero on a grid without zero, the first above it."""
  ratio = values.astype(steps.dtype) / np.where(steps == 0, np.ones_like(steps), steps)
  zero = code_of_zero(bits, levels)
  if levels == 'mid_rise':
    code = np.floor(ratio) + (zero + 0.5)
  else:
    code = np.round(ratio) + zero
  return np.clip(code, 0, gaussian.num_levels(bits, levels) - 1).astype(np.uint8)


def _values(codes: np.ndarray, steps: np.ndarray, leaf: PackedLeaf) -> np.ndarray:
  """What `unpack_leaf` makes of codes."""
  levels = codes.astype(steps.dtype) - steps.dtype.type(leaf.zero)
  values = (levels * steps).astype(leaf.dtype)
  return np.where(values == 0, np.zeros_like(values), values)


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
  """Whether two arrays are equal to the last bit; unlike ==, it tells zeros of either sign."""
  one, other = (
    np.ascontiguousarray(x).view(np.uint8) for x in (np.atleast_1d(a), np.atleast_1d(b))
  )
  return a.dtype == b.dtype and np.array_equal(one, other)
