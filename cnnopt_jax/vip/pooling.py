"""Pooling that reads through the interpolation of a virtual map."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from cnnopt_jax.kernels.interp2x_max_pool import interp2x_max_pool
from cnnopt_jax.kernels.taps import widen
from cnnopt_jax.vip import reading
from cnnopt_jax.vip.arguments import Int, Padding, PaddingLike, Pair, as_map, padding_pairs, pair
from cnnopt_jax.vip.virtual_map import VirtualMap, materialize

_NO_PADDING = ((0, 0), (0, 0))


def max_pool(
  x: jax.Array | VirtualMap,
  window: Int | Sequence[Int],
  stride: Int | Sequence[Int],
  *,
  padding: PaddingLike = _NO_PADDING,
) -> jax.Array:
  """Max-pool of the full map; what lies outside the map never wins.

  At an even stride a window of a virtual map is the largest of some samples and means of two or
  four neighbours; at an odd stride the map is written first. Where several pixels of a window are
  equally large, gradients are shared out otherwise than by `flax.linen.max_pool`.

  Args:
    x: [N, H, W, C], or a virtual map of that shape.
    window: height and width of the window, or one number for both.
    stride: the same.
    padding: as in `conv`, smaller than the window.

  Returns:
    [N, H', W', C].

  Raises:
    ValueError: if no window fits, or what should be an integer is none.
  """
  x = as_map('x', x)
  window, stride, padding, out = _geometry(x, window, stride, padding)
  if not isinstance(x, VirtualMap) or any(step % 2 for step in stride):
    x, padding = _cut(materialize(x), padding)
    return nn.max_pool(x, window, stride, padding)
  if (window, stride, padding) == ((2, 2), (2, 2), _NO_PADDING):
    return interp2x_max_pool(x.samples, x.size)
  offsets = [_candidates(k, low) for k, (low, _) in zip(window, padding)]
  phases, steps = _phases(x), [step // 2 for step in stride]
  views = [
    _view(phases[i % 2][j % 2], (i // 2, j // 2), steps, out)
    for i in offsets[0]
    for j in offsets[1]
  ]
  return functools.reduce(_larger, views)


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
  """The maximum, NaN if either is, whose derivative goes to one of the two whatever is compiled.

  That of `jnp.maximum` asks which operand equals the result. Where XLA computes a mean again for
  the gradient, in another fusion and rounded otherwise, neither does and the gradient is lost.
  """
  return jnp.where((a >= b) | jnp.isnan(a), a, b)


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
    here = widen(lax.slice_in_dim(s, 0, n - 1, axis=axis))
    mean = ((here + lax.slice_in_dim(s, 1, n, axis=axis)) / 2).astype(s.dtype)
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
  x: jax.Array | VirtualMap,
  window: Int | Sequence[Int],
  stride: Int | Sequence[Int],
  *,
  padding: PaddingLike = _NO_PADDING,
  count_include_pad: bool = True,
) -> jax.Array:
  """Average-pool of the full map.

  At an even stride it is a weighted sum of a virtual map's samples; at an odd stride the map is
  written first.

  Args:
    x: [N, H, W, C], or a virtual map of that shape.
    window: height and width of the window, or one number for both.
    stride: the same.
    padding: as in `conv`, smaller than the window.
    count_include_pad: whether a window at the border is divided by its size, or by the number of
      its pixels in the map, as in `flax.linen.avg_pool`.

  Returns:
    [N, H', W', C].

  Raises:
    ValueError: if no window fits, or what should be an integer is none.
  """
  x = as_map('x', x)
  window, stride, padding, out = _geometry(x, window, stride, padding)
  if not isinstance(x, VirtualMap) or any(step % 2 for step in stride):
    x, padding = _cut(materialize(x), padding)
    return nn.avg_pool(widen(x), window, stride, padding, count_include_pad).astype(x.dtype)
  y = widen(x.samples)
  axes = reading.window_axes((y.shape[1], y.shape[2]), x.size, window, stride, padding, out)
  for axis, geometry in enumerate(axes, 1):
    y = _averaged(y, axis, geometry)
    if not count_include_pad:
      shares = geometry.taps / _pixels_inside(geometry)
      y *= jnp.asarray(np.expand_dims(shares, [a for a in range(4) if a != axis]), y.dtype)
  return y.astype(x.dtype)


def _pixels_inside(geometry: reading.WindowAxis) -> np.ndarray:
  """Pixels of each window that lie in the map, [windows]."""
  first = geometry.stride * np.arange(geometry.out) - geometry.low
  return np.minimum(first + geometry.taps, geometry.size) - np.maximum(first, 0)


def _averaged(s: jax.Array, axis: int, geometry: reading.WindowAxis) -> jax.Array:
  """Mean over windows of one interpolated axis."""
  k, stride, out = geometry.taps, geometry.stride // 2, geometry.out
  taps = reading.fold_taps(jnp.full(k, 1 / k, s.dtype), 0, geometry.low)
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
  x = as_map('x', x)
  if not isinstance(x, VirtualMap):
    return x.mean((1, 2))
  y = widen(x.samples)
  for axis, size in ((1, x.size[0]), (2, x.size[1])):
    weights = jnp.asarray(_mean_weights(y.shape[axis], size), y.dtype) / size
    y *= jnp.expand_dims(weights, tuple(a for a in range(4) if a != axis))
  return y.sum((1, 2)).astype(x.dtype)


def _mean_weights(samples: int, size: int) -> list[float]:
  """How many pixels' worth of one axis each sample is: halves of its neighbours, ends whole."""
  if samples == 1:
    return [float(size)]
  return [1.5] + [2.0] * (samples - 2) + [2.5 if size % 2 == 0 else 1.5]


def _geometry(x, window, stride, padding) -> tuple[Pair, Pair, Padding, Pair]:
  """Window, stride and padding in pairs, and the number of windows."""
  window, stride = pair('window', window), pair('stride', stride)
  padding = padding_pairs(padding, x.shape[1:3], window, stride)
  height, width = (
    (n + sum(pad) - k) // step + 1 for n, pad, k, step in zip(x.shape[1:3], padding, window, stride)
  )
  if min(height, width) < 1 or any(p >= k for pad, k in zip(padding, window) for p in pad):
    raise ValueError(
      f'window={window} with padding={padding} on a map of {tuple(x.shape[1:3])}; '
      'allowed: a window that fits, and padding smaller than the window'
    )
  return window, stride, padding, (height, width)


def _cut(x: jax.Array, padding: Padding) -> tuple[jax.Array, Padding]:
  """The map without what negative padding cuts off, and the padding that is left."""
  (top, bottom), (left, right) = ((max(-low, 0), max(-high, 0)) for low, high in padding)
  rows, columns = ((max(low, 0), max(high, 0)) for low, high in padding)
  return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right], (rows, columns)
