"""Depth-wise convolutions and their transposes for XLA's CPU backend, tap by tap.

That backend has no fast path for them (`experiments.conv_bench`). Here the convolution and
its input transpose are sums of shifted images times a tap's kernel, one fused loop each, and the
weight transpose sums products of shifted rows. Exact up to rounding.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnnopt_jax.kernels import sharding

# Rows whose products one fused loop sums: with more it takes long to compile; of fewer than 16 XLA
# fuses the slice of the images with each, and the loop takes twice as long.
_ROWS_AT_A_TIME = 32

Pads = Sequence[tuple[int, int]]


def compute_face(
  target: str,
  x: jax.Array,
  y: jax.Array,
  lhs_shape: Sequence[int],
  rhs_shape: Sequence[int],
  strides: Sequence[int],
  padding: Pads,
) -> jax.Array:
  """A face of a depth-wise NHWC, HWIO convolution.

  Args:
    target: 'out' for the convolution of image `x` [N, H, W, C] with kernel `y` [kh, kw, 1, C];
      'lhs' for the image's gradient from the result's, `x` [N, H', W', C], and kernel `y`; 'rhs'
      for the kernel's gradient from image `x` and the result's gradient `y`.
    x, y: the operands.
    lhs_shape, rhs_shape: of image and kernel.
    strides: in both directions.
    padding: ((top, bottom), (left, right)), none negative; the result has a position at least.

  Returns:
    [N, H', W', C], or the gradient, of the shape of image or kernel.
  """
  faces: dict[str, Callable[..., jax.Array]] = {'out': _out, 'lhs': _lhs, 'rhs': _rhs}
  # Taps are not simplified together with what stands before and after, such as its padding.
  x, y = lax.optimization_barrier((x, y))
  return lax.optimization_barrier(faces[target](x, y, lhs_shape, rhs_shape, strides, padding))


def _out(x, w, lhs_shape, rhs_shape, strides, padding):
  x = _padded(x, padding)
  rows, columns = (
    (length - taps) // stride + 1
    for length, taps, stride in zip(x.shape[1:3], rhs_shape[:2], strides)
  )
  return _sum(
    _shifted(x, (i, j), (rows, columns), strides) * w[i, j, 0] for i, j in _taps(rhs_shape)
  )


def _lhs(g, w, lhs_shape, rhs_shape, strides, padding):
  # In the padded image a pixel u reads the gradient at u - i for each tap i, where it has one.
  before = [taps - 1 for taps in rhs_shape[:2]]
  around = [
    (first, size + sum(pads) - ((count - 1) * stride + 1), stride - 1)
    for first, size, pads, count, stride in zip(
      before, lhs_shape[1:3], padding, g.shape[1:3], strides
    )
  ]
  spread = lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), *around, (0, 0, 0)))
  spread = lax.optimization_barrier(spread)
  (top, _), (left, _) = padding
  return _sum(
    _shifted(spread, (before[0] + top - i, before[1] + left - j), lhs_shape[1:3], (1, 1))
    * w[i, j, 0]
    for i, j in _taps(rhs_shape)
  )


def _rhs(x, g, lhs_shape, rhs_shape, strides, padding):
  taps = _taps(rhs_shape)
  images, rows, columns, channels = g.shape
  blocks = -(-rows // _ROWS_AT_A_TIME)
  height = -(-rows // blocks)
  # What a block of rows reads, and how far on the next one begins.
  reads, step = (height - 1) * strides[0] + rhs_shape[0], height * strides[0]
  (top, bottom), sides = padding
  bottom = max(bottom, (blocks - 1) * step + reads - lhs_shape[1] - top)
  x = _padded(x, ((top, bottom), sides))
  x = jnp.stack([x[:, block * step :][:, :reads] for block in range(blocks)], 1)
  g = _padded(g, ((0, blocks * height - rows), (0, 0)))
  together = max(
    n for n in range(1, max(1, _ROWS_AT_A_TIME // height) + 1) if images * blocks % n == 0
  )

  def products(x, g, tap):
    """[columns, channels]: the rows of some blocks, each added to the one before."""
    return _sum(
      _shifted(x[block], (tap[0] + row * strides[0], tap[1]), (1, columns), strides)[0]
      * g[block, row]
      for block in range(together)
      for row in range(height)
    )

  def add(totals, some):
    x, g = lax.optimization_barrier(some)  # Cut from the images once, not once a tap.
    return tuple(t + products(x, g, tap) for t, tap in zip(totals, taps)), None

  some = (
    x.reshape(-1, together, *x.shape[2:]),
    g.reshape(-1, together, height, columns, channels),
  )
  zero = sharding.alike(jnp.zeros((columns, channels), x.dtype), x)[0]
  # One array a tap: in a joint one every element would first ask which tap it is of.
  totals, _ = lax.scan(add, (zero,) * len(taps), some)
  return jnp.stack(totals).sum(1).reshape(rhs_shape)


def _taps(rhs_shape) -> list[tuple[int, int]]:
  return [(i, j) for i in range(rhs_shape[0]) for j in range(rhs_shape[1])]


def _sum(terms) -> jax.Array:
  return functools.reduce(lambda a, b: a + b, terms)


def _padded(x: jax.Array, padding: Pads) -> jax.Array:
  around = ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0))
  return lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), around))


def _shifted(x: jax.Array, start, counts, strides) -> jax.Array:
  """Rows and columns of [..., H, W, C] from a place on, at strides."""
  lead = x.ndim - 3
  ends = [first + (count - 1) * stride + 1 for first, count, stride in zip(start, counts, strides)]
  return lax.slice(
    x,
    (*(0,) * lead, *start, 0),
    (*x.shape[:lead], *ends, x.shape[-1]),
    (*(1,) * lead, *strides, 1),
  )
