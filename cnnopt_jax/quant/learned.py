"""Learned quantization steps (LSQ), and gradients scaled by the rounding error (EWGS).

LSQ: Esser, McKinstry, Bablani, Appuswamy, Modha, "Learned step size quantization", ICLR 2020
(arXiv:1902.08153), trains the step along with the weights. EWGS: Lee, Kim, Ham, "Network
quantization with element-wise gradient scaling", CVPR 2021 (arXiv:2104.00903), replaces the
straight-through estimator.
"""

import math
from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnopt_jax.quant import gaussian, quantizers

LearnedLevels = Literal['twos_complement', 'unsigned', 'auto', 'mid_tread', 'mid_rise']

LEARNED_LEVELS = ('twos_complement', 'unsigned', *quantizers.LEVELS)

_ALLOWED = (*quantizers.BITS, gaussian.IDENTITY_BITS)


class LevelRange(NamedTuple):
  """The outermost levels of a grid in units of the step; neighbours are one apart.

  Attributes:
    low: lowest level, -Q_N of the LSQ paper, []; NaN where the bitwidth has no such grid.
    high: highest level, Q_P, [].
  """

  low: jax.Array
  high: jax.Array


def learned_quantize(
  w: jax.Array,
  step: jax.Array,
  bits: chex.Numeric,
  *,
  levels: LearnedLevels = 'twos_complement',
  gradient_scale: chex.Numeric | None = None,
) -> jax.Array:
  """Rounds to `bits` bits with a step that is trained (LSQ, Esser et al. 2020).

  With x = w / s and the outermost levels -Q_N and Q_P of `level_range`:

      q = s round(clip(x, -Q_N, Q_P))

      dq/dw = 1 where -Q_N < x < Q_P, and 0 elsewhere
      dq/ds = g (round(x) - x) where -Q_N < x < Q_P, -g Q_N below and g Q_P above

  and g = 1 / sqrt(N Q_P) for a step that N elements share. Rounding is to the nearest level, ties
  to the even one as in NumPy; without a level at zero, as in `fake_quantize`. A step of zero gives
  zeros, and its gradient is that of a step just above.

  Args:
    w: weights (or activations), floating point, any shape.
    step: s, floating point, of a shape that broadcasts to that of `w`: a step for each channel or
      one for all (`initial_step`). Positive; a negative one mirrors the grid.
    bits: as in `fake_quantize`; 32 for the identity, whose step gets no gradient.
    levels: see `level_range`; 'twos_complement' is the paper's for weights.
    gradient_scale: g; None for the paper's, 1 for the plain gradient of the step.

  Returns:
    Quantized array, shape and dtype of `w`. All NaN where an array `bits` has no such grid.

  Raises:
    ValueError: if shapes, dtypes, `levels` or a Python int `bits` are not allowed.
  """
  w, step = jnp.asarray(w), jnp.asarray(step)
  check_floats(w=w, step=step)
  _check_levels(bits, levels)
  count = _elements_per_step(w.shape, step.shape)
  if isinstance(bits, (int, np.integer)) and bits == gaussian.IDENTITY_BITS:
    return w
  dtype = jnp.promote_types(w.dtype, jnp.float32)
  low, high = (bound.astype(dtype) for bound in level_range(bits, levels))
  identity = jnp.equal(bits, gaussian.IDENTITY_BITS)
  if gradient_scale is None:
    gradient_scale = step_gradient_scale(count, bits, levels)
  scale = jnp.asarray(gradient_scale, dtype)
  weights, s = (lax.stop_gradient(array).astype(dtype) for array in (w, step))
  # Zero over a step of zero counts as zero, anything else as beyond the outermost level.
  x = jnp.where(weights == 0, 0, weights / s)
  inside = (low < x) & (x < high)
  code = _nearest_level(jnp.clip(x, low, high), low)
  slope = jnp.where(identity, 0, jnp.where(inside, code - x, code) * scale)
  quantized = jnp.where(identity, lax.stop_gradient(w), (code * s).astype(w.dtype))
  # Exact zeros that carry the gradients: the levels stay exact, and every transform of JAX sees a
  # function linear in w and s on each cell, as the paper's is.
  through = jnp.where(inside | identity, w - lax.stop_gradient(w), jnp.zeros_like(w))
  stepped = jnp.where(identity, 0, slope * (step.astype(dtype) - s))  # Even for a NaN step.
  return quantized + through + stepped.astype(w.dtype)


def initial_step(
  w: jax.Array,
  bits: chex.Numeric,
  *,
  channel_axis: quantizers.ChannelAxis = None,
  levels: LearnedLevels = 'twos_complement',
) -> jax.Array:
  """The step from which LSQ starts, 2 mean|w| / sqrt(Q_P) (section 2 of the paper).

  Args:
    w: initial weights, or the first batch of activations; floating point, any shape.
    bits: as in `learned_quantize`.
    channel_axis: axis or axes that keep a step of their own; None for one step, as in the paper.
    levels: as in `learned_quantize`.

  Returns:
    Steps in float32 (float64 for float64 `w`), shape of `w` with every axis but `channel_axis` of
    length 1. Zero for zeros. At 32 bits the formula's own, which `learned_quantize` never reads.

  Raises:
    ValueError: as `learned_quantize`.
  """
  w = jnp.asarray(w)
  check_floats(w=w)
  _check_levels(bits, levels)
  axes = quantizers.reduced_axes(w.ndim, channel_axis)
  x = jnp.abs(lax.stop_gradient(w)).astype(jnp.promote_types(w.dtype, jnp.float32))
  high = level_range(bits, levels).high.astype(x.dtype)
  return 2 * jnp.mean(x, axis=axes, keepdims=True) / jnp.sqrt(high)


def step_gradient_scale(
  count: int, bits: chex.Numeric, levels: LearnedLevels = 'twos_complement'
) -> jax.Array:
  """The factor g = 1 / sqrt(N Q_P) on a step's gradient (section 2 of the LSQ paper), [].

  It brings the update of a step, relative to the step, to the scale of the weights' own.

  Args:
    count: N, elements that share the step.
    bits: as in `learned_quantize`.
    levels: as in `learned_quantize`.
  """
  return 1 / jnp.sqrt(max(count, 1) * level_range(bits, levels).high)


def level_range(bits: chex.Numeric, levels: LearnedLevels = 'twos_complement') -> LevelRange:
  """The outermost levels of b bits, in units of the step.

  'twos_complement': -2**(b-1) to 2**(b-1) - 1, from 2 bits up (at 1 bit Q_P would be 0); the LSQ
  paper's for weights. 'unsigned': 0 to 2**b - 1; the paper's for activations. 'mid_tread':
  +-(2**(b-1) - 1), from 2 bits up. 'mid_rise': +-(2**b - 1) / 2. 'auto': mid-rise at 1 and 2 bits,
  mid-tread from 3 up. The last three are the grids of `fake_quantize`.

  Args:
    bits: 1 to 8, or 32, where the formulas hold all the same; may be traced.
    levels: see above.

  Returns:
    The range; NaN where an array `bits` is none of these.

  Raises:
    ValueError: if `levels` or a Python int `bits` is not allowed.
  """
  _check_levels(bits, levels)
  found = jnp.asarray(bits) == jnp.asarray(_ALLOWED)
  tables = (jnp.asarray(table)[jnp.argmax(found)] for table in _ranges(levels))
  return LevelRange(*(jnp.where(jnp.any(found), bound, jnp.nan) for bound in tables))


def element_wise_gradient_scaling(
  x: jax.Array, quantized: jax.Array, delta: chex.Numeric
) -> jax.Array:
  """Passes rounded values on, and their gradient to what they were rounded from (EWGS).

      forward:   x_q
      backward:  g_x = g (1 + delta sign(g) (x - x_q)), element by element

  Descent takes x against the sign of g: with delta > 0 the farther x is from the decision edge that
  lies there, the larger its gradient. With delta = 0 this is the straight-through estimator. In
  the paper x is normalized to [0, 1] (clipped outside, which is where its gradient ends) and x_q is
  round((2**b - 1) x) / (2**b - 1); delta has the inverse unit of x.

  Args:
    x: what was rounded, floating point, any shape.
    quantized: x_q, shape and dtype of `x`; gets no gradient.
    delta: a scalar, or an array that broadcasts to the shape of `x`; may be traced, gets no
      gradient.

  Returns:
    `quantized`. Differentiable in reverse mode alone: the rule is not linear in g.

  Raises:
    ValueError: if shapes or dtypes are not allowed.
  """
  x, quantized, delta = jnp.asarray(x), jnp.asarray(quantized), jnp.asarray(delta)
  check_floats(x=x, quantized=quantized)
  if (quantized.shape, quantized.dtype) != (x.shape, x.dtype):
    raise ValueError(
      f'quantized={quantized.dtype}{list(quantized.shape)}; allowed: as x, {x.dtype}{list(x.shape)}'
    )
  check_broadcast('delta', delta.shape, x.shape)
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  error = lax.stop_gradient(x.astype(dtype) - quantized.astype(dtype))
  return _scaled_through(x, lax.stop_gradient(quantized), error * delta.astype(dtype))


def check_floats(**arrays: jax.Array) -> None:
  """Raises ValueError, by argument's name, unless all are of floating-point types."""
  for name, array in arrays.items():
    if not jnp.issubdtype(array.dtype, jnp.floating):
      raise ValueError(f'{name}.dtype={array.dtype}; allowed: a floating-point type')


def check_broadcast(name: str, shape: tuple[int, ...], to: tuple[int, ...]) -> None:
  """Raises ValueError unless an array of one shape broadcasts to the other shape."""
  aligned = zip(shape[::-1], to[::-1])
  if len(shape) > len(to) or any(size not in (1, whole) for size, whole in aligned):
    raise ValueError(f'{name}.shape={shape}; allowed: one that broadcasts to {to}')


@jax.custom_vjp
def _scaled_through(x: jax.Array, quantized: jax.Array, excess: jax.Array) -> jax.Array:
  """`quantized`; an element's gradient goes to `x`, times 1 + sign(gradient) * excess."""
  del x, excess
  return quantized


def _scaled_through_forward(x, quantized, excess):
  return _scaled_through(x, quantized, excess), excess


def _scaled_through_backward(excess, g):
  scaled = (g * (1 + jnp.sign(g).astype(excess.dtype) * excess)).astype(g.dtype)
  return scaled, jnp.zeros_like(g), jnp.zeros_like(excess)


_scaled_through.defvjp(_scaled_through_forward, _scaled_through_backward)


def _ranges(levels: LearnedLevels) -> tuple[np.ndarray, np.ndarray]:
  """Lowest and highest levels of 1 to 8 and 32 bits, each [9]; NaN where there is no grid.

  New arrays on every call: JAX (0.10.2) keeps the precision in which it first traced an array.
  """
  low, high = np.full((2, len(_ALLOWED)), np.nan)
  for i, bits in enumerate(_ALLOWED):
    kind = ('mid_rise' if bits <= 2 else 'mid_tread') if levels == 'auto' else levels
    if bits == 1 and kind in ('twos_complement', 'mid_tread'):
      continue
    half = 2.0 ** (bits - 1)
    low[i], high[i] = {
      'twos_complement': (-half, half - 1),
      'unsigned': (0, 2 * half - 1),
      'mid_tread': (1 - half, half - 1),
      'mid_rise': (0.5 - half, half - 0.5),
    }[kind]
  return low, high


def _nearest_level(x: jax.Array, low: jax.Array) -> jax.Array:
  """`x` within the range to the nearest of low, low + 1, ...; low is whole or a half."""
  above_zero = jnp.where(x < 0, -1, 1) * (jnp.floor(jnp.abs(x)) + 0.5)
  return jnp.where(low == jnp.floor(low), jnp.round(x), above_zero).astype(x.dtype)


def _elements_per_step(shape: tuple[int, ...], step_shape: tuple[int, ...]) -> int:
  check_broadcast('step', step_shape, shape)
  return math.prod(shape) // max(math.prod(step_shape), 1)


def _check_levels(bits: chex.Numeric, levels: str) -> None:
  if levels not in LEARNED_LEVELS:
    raise ValueError(f'levels={levels!r}; allowed: {", ".join(LEARNED_LEVELS)}')
  if isinstance(bits, (int, float, np.integer)):
    quantizers.validate_bits(bits)
    if bits == 1 and levels in ('twos_complement', 'mid_tread'):
      raise ValueError(
        f'bits=1 with levels={levels!r} has no level above zero; allowed: 2 to 8 bits or 32, '
        "or levels 'unsigned', 'auto' or 'mid_rise'"
      )
  if np.ndim(bits):
    raise ValueError(f'bits.shape={np.shape(bits)}; allowed: (), a scalar')
