"""Few-bit weights: symmetric uniform quantizers as pure functions of weights and a bitwidth.

A bitwidth is data. `bits` may be traced, so one compiled program serves every bitwidth and a sweep
over bitwidths is `jax.vmap`.
"""

import functools
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnopt_jax.quant import gaussian, least_squares

Levels = Literal['auto', 'mid_tread', 'mid_rise']
Step = Literal['gaussian', 'mse', 'absmax']
ChannelAxis = int | tuple[int, ...] | None
AxisName = str | tuple[str, ...] | None

LEVELS = ('auto', 'mid_tread', 'mid_rise')
STEPS = ('gaussian', 'mse', 'absmax')
BITS = tuple(range(gaussian.MIN_BITS, gaussian.MAX_BITS + 1))


class _Grid(NamedTuple):
  """The levels of one bitwidth in units of the step: -half_range, ..., half_range, one apart.

  Attributes:
    half_range: outermost level over the step, []; NaN where the bitwidth has no such grid.
    mid_rise: bool [], whether zero is a decision edge rather than a level.
    gaussian_clip: outermost level of the minimum-MSE grid for N(0, 1), [].
    one_bit: bool [].
  """

  half_range: jax.Array
  mid_rise: jax.Array
  gaussian_clip: jax.Array
  one_bit: jax.Array


def fake_quantize(
  w: jax.Array,
  bits: chex.Numeric,
  *,
  channel_axis: ChannelAxis = -1,
  levels: Levels = 'auto',
  step: Step = 'mse',
  clip_gradient: bool = False,
  axis_name: AxisName = None,
) -> jax.Array:
  """Rounds weights to `bits` bits and lets the gradient through (straight-through estimator).

  The grid is symmetric and uniform with step D, one per output channel (or per tensor):

      mid-tread, 2**bits - 1 levels:  q = D clip(round(w/D), -n, n)
      mid-rise,  2**bits levels:      q = D sign(w) min(floor(|w/D|) + 1/2, n)

  with n = (number of levels - 1) / 2 and sign(0) = +1. At 1 bit every step rule gives
  sign(w) * mean|w|. The step carries no gradient, and dq/dw = 1 (or 0 in the saturated tails). A
  channel of zeros stays zero, and one with an inf or a NaN in it becomes NaN. No level exceeds the
  largest number of the dtype. Quantizing twice changes nothing at 1 bit and with 'absmax' and
  'mse'; with 'gaussian' the root mean square of the levels is not that of the weights, and the
  second grid is another one.

  Args:
    w: weights, floating point, any shape.
    bits: 1 to 8, or 32 for the identity: an int, or a scalar integer array, traced or not. It has
      no gradient.
    channel_axis: axis or axes that keep a step of their own; None for one step per tensor.
    levels: 'mid_tread' (a level at zero), 'mid_rise' (none; one level more), or 'auto': mid-rise at
      1 and 2 bits, mid-tread from 3 up.
    step: 'gaussian' for the minimum-MSE step of N(0, s^2) with s the channel's root mean square,
      'mse' for the minimum-MSE step of the channel's own weights (to within 0.1 % of the error:
      `least_squares`), 'absmax' for the outermost level at the largest magnitude.
    clip_gradient: whether weights beyond the outermost cell, |w| > (n + 1/2) D, get no gradient.
    axis_name: mesh axes over which the other axes of `w` are split under `jax.shard_map`, so that a
      channel has the step of all its weights; () where none is. A `w` that is known to differ
      between devices needs one or the other.

  Returns:
    Quantized weights, shape and dtype of `w`. All NaN where a traced `bits` is none of 1 to 8 and
    32, or 1 with 'mid_tread'.

  Raises:
    ValueError: if an option is not allowed, or a `bits` that is not traced.
  """
  w = jnp.asarray(w)
  _check(w, bits, levels, step, axis_name)
  if isinstance(bits, (int, np.integer)) and bits == gaussian.IDENTITY_BITS:
    return w
  grid = _grid(bits, levels)
  x = _as_computed(lax.stop_gradient(w))
  delta = _step(x, grid, reduced_axes(w.ndim, channel_axis), step, _Devices(axis_name or ()))
  delta = jnp.minimum(delta, _largest_step(w.dtype, grid, delta.dtype))
  code = _round(x, delta, grid.mid_rise)
  quantized = (jnp.clip(code, -grid.half_range, grid.half_range) * delta).astype(w.dtype)
  identity = jnp.equal(bits, gaussian.IDENTITY_BITS)
  # w - stop_gradient(w) is an exact zero, so the levels stay exact, and every transform of JAX
  # (jvp, reverse-over-reverse, vmap of either) sees a gradient of one.
  through = w - lax.stop_gradient(w)
  if clip_gradient:
    inside = (jnp.abs(code) <= grid.half_range) | identity
    through = jnp.where(inside, through, jnp.zeros_like(through))
  # Chosen last, so that an inf passes as it is.
  return jnp.where(identity, w, quantized + through)


def quantization_step(
  w: jax.Array,
  bits: chex.Numeric,
  *,
  channel_axis: ChannelAxis = -1,
  levels: Levels = 'auto',
  step: Step = 'mse',
  axis_name: AxisName = None,
) -> jax.Array:
  """Distance between neighbouring levels of `fake_quantize` with the same arguments.

  Args:
    w: weights, floating point, any shape.
    bits: 1 to 8; a Python int or a scalar array, traced or not.
    channel_axis: as in `fake_quantize`.
    levels: as in `fake_quantize`.
    step: as in `fake_quantize`.
    axis_name: as in `fake_quantize`.

  Returns:
    Steps in float32 (float64 for float64 weights), shape of `w` with every axis but `channel_axis`
    of length 1.

  Raises:
    ValueError: as `fake_quantize`.
  """
  w = jnp.asarray(w)
  _check(w, bits, levels, step, axis_name)
  grid = _grid(bits, levels)
  x = _as_computed(lax.stop_gradient(w))
  delta = _step(x, grid, reduced_axes(w.ndim, channel_axis), step, _Devices(axis_name or ()))
  return jnp.minimum(delta, _largest_step(w.dtype, grid, delta.dtype))


def validate_bits(bits: Any, name: str = 'bits') -> None:
  """Raises ValueError unless `bits` is an integer of 1 to 8 or 32, as far as it is known.

  Args:
    bits: an int, or an integer array [], traced or not.
    name: what the error calls it.
  """
  allowed = 'allowed: an integer, 1 to 8, or 32 for no quantization'
  is_array = isinstance(bits, (np.ndarray, jax.Array))
  if not is_array and (isinstance(bits, bool) or not isinstance(bits, (int, np.integer))):
    raise ValueError(f'{name}={bits!r}; {allowed}')
  if is_array:
    if bits.ndim or not jnp.issubdtype(bits.dtype, jnp.integer):
      raise ValueError(f'{name} is {bits.dtype.name}{list(bits.shape)}; {allowed}')
    if isinstance(bits, jax.core.Tracer):
      return
  if int(bits) not in (*BITS, gaussian.IDENTITY_BITS):
    raise ValueError(f'{name}={int(bits)}; {allowed}')


def _check(w, bits, levels, step, axis_name) -> None:
  if levels not in LEVELS:
    raise ValueError(f'levels={levels!r}; allowed: {", ".join(LEVELS)}')
  if step not in STEPS:
    raise ValueError(f'step={step!r}; allowed: {", ".join(STEPS)}')
  validate_bits(bits)
  if levels == 'mid_tread' and not isinstance(bits, jax.core.Tracer) and bits == 1:
    raise ValueError(
      "bits=1 with levels='mid_tread' has one level, zero; allowed: 2 to 8 bits, "
      "or levels 'auto' or 'mid_rise'"
    )
  chex.assert_type(w, float)
  if axis_name and step == 'mse':
    raise ValueError(f"step='mse' with axis_name={axis_name!r}; allowed: gaussian, absmax")
  split = sorted(map(str, _differs_along(w)))
  if axis_name is None and split:
    raise ValueError(
      f'axis_name=None for an array that differs along the mesh axes {", ".join(split)}: the step '
      'of a channel is that of all its weights; allowed: those that split its input axes, () for '
      'none'
    )


def _differs_along(w: jax.Array) -> frozenset[Any]:
  """Mesh axes along which an array differs, as far as JAX keeps track of them."""
  aval = jax.typeof(w)
  # `vma` until JAX 0.9, then a field of the manual axis type.
  found = getattr(aval, 'vma', None)
  return getattr(getattr(aval, 'mat', None), 'varying', frozenset()) if found is None else found


@functools.cache
def _tables(levels: Levels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Half ranges, mid-rise flags and Gaussian clips of 1 to 8 bits, each [8]."""
  kinds = [
    levels if levels != 'auto' else 'mid_rise' if bits <= 2 else 'mid_tread' for bits in BITS
  ]
  exists = [gaussian.num_levels(bits, kind) > 1 for bits, kind in zip(BITS, kinds)]
  half_range = [
    (gaussian.num_levels(bits, kind) - 1) / 2 if ok else np.nan
    for bits, kind, ok in zip(BITS, kinds, exists)
  ]
  clip = [
    gaussian.gaussian_quantizer(bits, kind).clip if ok else np.nan
    for bits, kind, ok in zip(BITS, kinds, exists)
  ]
  return np.asarray(half_range), np.asarray([k == 'mid_rise' for k in kinds]), np.asarray(clip)


def _grid(bits, levels: Levels) -> _Grid:
  bits = jnp.asarray(bits)
  index = jnp.clip(bits.astype(jnp.int32) - gaussian.MIN_BITS, 0, len(BITS) - 1)
  valid = jnp.any(bits == jnp.asarray(BITS))
  half_range, mid_rise, clip = (jnp.asarray(table)[index] for table in _tables(levels))
  return _Grid(jnp.where(valid, half_range, jnp.nan), mid_rise, clip, bits == 1)


def _as_computed(w: jax.Array) -> jax.Array:
  """In at least float32: sums over a filter in bfloat16 would cost more than the quantizer."""
  return w.astype(jnp.promote_types(w.dtype, jnp.float32))


def reduced_axes(ndim: int, channel_axis: ChannelAxis) -> tuple[int, ...]:
  if channel_axis is None:
    channel_axis = ()
  kept = (channel_axis,) if isinstance(channel_axis, int) else tuple(channel_axis)
  for axis in kept:
    if not -ndim <= axis < ndim:
      raise ValueError(f'channel_axis={channel_axis!r}; allowed: axes of an array of rank {ndim}')
  return tuple(axis for axis in range(ndim) if axis not in {k % ndim for k in kept})


class _Devices(NamedTuple):
  """Those that hold a channel together: statistics are over all of them."""

  axis_name: str | tuple[str, ...]

  def mean(self, x: jax.Array) -> jax.Array:
    return lax.pmean(x, self.axis_name) if self.axis_name else x

  def largest(self, x: jax.Array) -> jax.Array:
    return lax.pmax(x, self.axis_name) if self.axis_name else x


def _largest_step(dtype, grid: _Grid, computed) -> jax.Array:
  """The step whose outermost level is the largest number of a dtype."""
  largest = jnp.asarray(jnp.finfo(dtype).max, computed)
  # The quotient may round up: one unit in the last place of the narrower type is room enough.
  return largest / grid.half_range.astype(computed) * (1 - jnp.finfo(dtype).eps.astype(computed))


def _step(
  x: jax.Array, grid: _Grid, axes: tuple[int, ...], rule: Step, devices: _Devices
) -> jax.Array:
  """The step of each channel, [..., 1 on `axes`]; 0 for a channel of zeros."""

  def mean(x):
    return devices.mean(jnp.mean(x, axis=axes, keepdims=True))

  largest = devices.largest(jnp.max(jnp.abs(x), axis=axes, keepdims=True, initial=0))
  # Statistics of x / max|x|, so that squares neither overflow nor vanish.
  scaled = x / _nonzero(largest)
  half_range = grid.half_range.astype(x.dtype)
  if rule == 'absmax':
    step = 1 / half_range
  else:
    rms = jnp.sqrt(mean(jnp.square(scaled)))
    step = grid.gaussian_clip.astype(x.dtype) / half_range * rms
    if rule == 'mse':
      step = least_squares.least_squares_step(scaled, half_range, grid.mid_rise, axes, step)
  step = jnp.where(grid.one_bit, mean(jnp.abs(scaled)) / half_range, step)
  return step * largest


def _round(x: jax.Array, step: jax.Array, mid_rise: jax.Array) -> jax.Array:
  """The nearest level in units of the step, not yet clipped; odd in x but for sign(0) = +1."""
  ratio = x / _nonzero(step)
  above_zero = jnp.where(ratio < 0, -1, 1) * (jnp.floor(jnp.abs(ratio)) + 0.5)
  return jnp.where(mid_rise, above_zero, jnp.round(ratio)).astype(x.dtype)


def _nonzero(x: jax.Array) -> jax.Array:
  return jnp.where(x == 0, jnp.ones_like(x), x)
