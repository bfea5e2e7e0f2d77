"""Pooling that reads through the interpolation of a virtual map."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from cnnopt_jax.kernels.interp2x_max_pool import interp2x_max_pool
from cnnopt_jax.vip import reading
from cnnopt_jax.vip.virtual_map import VirtualMap, validate

_NO_PADDING = ((0, 0), (0, 0))


def max_pool(
  x: jax.Array | VirtualMap,
  window: int | tuple[int, int],
  stride: int | tuple[int, int],
  *,
  padding: Sequence[Sequence[int]] = _NO_PADDING,
) -> jax.Array:
  """Max-pool of the full map; what lies outside the map never wins.

  At an even stride a window of a virtual map is the largest of some samples and means of two or
  four neighbours; at an odd stride the map is written first. Where several pixels of a window are
  equally large, gradients are shared out otherwise than by `flax.linen.max_pool`.

  Args:
    x: [N, H, W, C], or a virtual map of that shape.
    window: height and width of the window, or one number for both.
    stride: the same.
    padding: ((top, bottom), (left, right)).

  Returns:
    [N, H', W', C].

  Raises:
    ValueError: if no window fits.
  """
  window, stride, padding = _pair(window), _pair(stride), reading.padding_pairs(padding)
  out = _output_size(x, window, stride, padding)
  if not isinstance(x, VirtualMap):
    return nn.max_pool(x, window, stride, padding)
  validate(x)
  if any(step % 2 for step in stride):
    return nn.max_pool(x.materialize(), window, stride, padding)
  if (window, stride, padding) == ((2, 2), (2, 2), _NO_PADDING):
    return interp2x_max_pool(x.samples, x.size)
  offsets = [_candidates(k, low) for k, (low, _) in zip(window, padding)]
  phases, steps = _phases(x), [step // 2 for step in stride]
  views = [
    _view(phases[i % 2][j % 2], (i // 2, j // 2), steps, out)
    for i in offsets[0]
    for j in offsets[1]
  ]
  return functools.reduce(jnp.maximum, views)


def _candidates(window: int, low: int) -> list[int]:
  """Positions of a window, relative to its place, that can be its largest.

  A mean of two samples that both lie in the window cannot be larger than both.
  """
  inside = range(-low, window - low)
  return [p for p in inside if p % 2 == 0 or not (p - 1 in inside and p + 1 in inside)]


def _phases(x: VirtualMap) -> list[list[jax.Array]]:
  """The map's pixels by parity of row and column, each [N, h, w, C]; -inf outside the map."""

  def means(s, axis):
    n = s.shape[axis]
    here = lax.slice_in_dim(s, 0, n - 1, axis=axis)
    mean = (here + lax.slice_in_dim(s, 1, n, axis=axis)) / 2
    last = lax.slice_in_dim(s, n - 1, n, axis=axis)
    if x.size[axis - 1] % 2:
      last = jnp.full_like(last, -jnp.inf)
    return jnp.concatenate([mean, last], axis)

  rows = [x.samples, means(x.samples, 1)]
  return [[row, means(row, 2)] for row in rows]


def _view(
  phase: jax.Array, start: tuple[int, int], stride: Sequence[int], out: tuple[int, int]
) -> jax.Array:
  """`phase[start + stride * j]` for every window j, -inf outside; padding may be negative."""
  pads = [
    (-first, first + step * (count - 1) + 1 - n, 0)
    for first, step, n, count in zip(start, stride, phase.shape[1:3], out)
  ]
  padded = lax.pad(phase, jnp.array(-jnp.inf, phase.dtype), ((0, 0, 0), *pads, (0, 0, 0)))
  return padded[:, :: stride[0], :: stride[1]]


def avg_pool(
  x: jax.Array | VirtualMap, window: int | tuple[int, int], stride: int | tuple[int, int]
) -> jax.Array:
  """Average-pool of the full map, without padding.

  At an even stride it is a weighted sum of a virtual map's samples; at an odd stride the map is
  written first.

  Args:
    x: [N, H, W, C], or a virtual map of that shape.
    window: height and width of the window, or one number for both.
    stride: the same.

  Returns:
    [N, H', W', C].

  Raises:
    ValueError: if no window fits.
  """
  window, stride = _pair(window), _pair(stride)
  out = _output_size(x, window, stride, _NO_PADDING)
  if not isinstance(x, VirtualMap):
    return nn.avg_pool(x, window, stride)
  validate(x)
  if any(step % 2 for step in stride):
    return nn.avg_pool(x.materialize(), window, stride)
  y = x.samples
  for axis in (1, 2):
    y = _averaged(
      y,
      axis,
      reading.WindowAxis(
        y.shape[axis], x.size[axis - 1], window[axis - 1], stride[axis - 1], 0, out[axis - 1]
      ),
    )
  return y


def _averaged(s: jax.Array, axis: int, geometry: reading.WindowAxis) -> jax.Array:
  """Mean over windows of one interpolated axis."""
  k, stride, out = geometry.taps, geometry.stride // 2, geometry.out
  taps = reading.fold_taps(jnp.full(k, 1 / k, s.dtype), 0, 0)
  low, high = geometry.folded_padding
  pads = [(0, 0, 0)] * 4
  pads[axis] = low, high, 0
  padded = lax.pad(s, jnp.zeros((), s.dtype), pads)
  windows = [
    taps[m] * lax.slice_in_dim(padded, m, m + stride * (out - 1) + 1, stride, axis)
    for m in range(len(taps))
  ]
  y = functools.reduce(jnp.add, windows)
  for edge in geometry.edges:
    source = lax.slice_in_dim(s, edge.source, edge.source + 1, axis=axis)
    pads[axis] = edge.position, out - 1 - edge.position, 0
    y += lax.pad((edge.weight / k) * source, jnp.zeros((), s.dtype), pads)
  return y


def global_mean(x: jax.Array | VirtualMap) -> jax.Array:
  """Mean over the full map, [N, C]; of a virtual map, a weighted sum of its samples."""
  if not isinstance(x, VirtualMap):
    return x.mean((1, 2))
  validate(x)
  y = x.samples
  for axis, size in ((1, x.size[0]), (2, x.size[1])):
    weights = jnp.asarray(_mean_weights(y.shape[axis], size), y.dtype) / size
    y *= jnp.expand_dims(weights, tuple(a for a in range(4) if a != axis))
  return y.sum((1, 2))


def _mean_weights(samples: int, size: int) -> list[float]:
  """How many pixels' worth of one axis each sample is: halves of its neighbours, ends whole."""
  if samples == 1:
    return [float(size)]
  return [1.5] + [2.0] * (samples - 2) + [2.5 if size % 2 == 0 else 1.5]


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
  height, width = (size, size) if isinstance(size, int) else size
  return height, width


def _output_size(x, window, stride, padding) -> tuple[int, int]:
  for name, pair in (('window', window), ('stride', stride)):
    if len(pair) != 2 or min(pair) < 1:
      raise ValueError(f'{name}={pair}; allowed: one or two integers of at least 1')
  out = tuple(
    (n + sum(pad) - k) // step + 1 for n, pad, k, step in zip(x.shape[1:3], padding, window, stride)
  )
  if min(out) < 1 or any(p >= k for pad, k in zip(padding, window) for p in pad):
    raise ValueError(
      f'window={window} with padding={padding} on a map of {tuple(x.shape[1:3])}; '
      'allowed: a window that fits, and padding smaller than the window'
    )
  return out
