"""3x3 convolutions at stride 1 by Winograd's minimal filtering, F(2x2, 3x3).

Two neighbouring outputs of three taps g over four inputs d cost four products instead of six,

    m = (d0 - d2) g0,  (d1 + d2) (g0 + g1 + g2)/2,  (d2 - d1) (g0 - g1 + g2)/2,  (d1 - d3) g2,
    y = m0 + m1 + m2,  m1 - m2 - m3,

and so in both directions 2x2 outputs cost 16 products instead of 36 (Lavin and Gray, CVPR 2016,
arXiv 1509.09308). All coefficients are 0, 1 and 1/2, so what is lost in float32 is rounding of the
size that a direct sum loses. Rounded to fewer bits between the sums it would be two to four times
that, and sums of numbers that float16 holds may be none that it holds: narrower types are
transformed and multiplied in float32, and the result is rounded once. An infinity of the image is
NaN in some of the outputs that read it, for it is added and taken away, and one of the kernel in
most; a direct sum gives infinities. Tiles of 4x4 outputs save more products, but their coefficients
reach 8, and with them the rounding grows.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from cnnopt_jax.kernels.taps import widen


def transform_kernel(kernel: jax.Array) -> jax.Array:
  """The factors that a kernel gives to the products.

  Args:
    kernel: [3, 3, C, F].

  Returns:
    [4, 4, C, F], in float32 at least.

  Raises:
    ValueError: if the kernel is not 3x3.
  """
  if kernel.ndim != 4 or tuple(kernel.shape[:2]) != (3, 3):
    raise ValueError(f'kernel of shape {tuple(kernel.shape)}; allowed: [3, 3, C, F]')
  kernel = widen(kernel)
  for axis in (0, 1):
    first, centre, last = (lax.index_in_dim(kernel, i, axis) for i in range(3))
    outer, half = (first + last) / 2, centre / 2
    kernel = jnp.concatenate([first, outer + half, outer - half, last], axis)
  return kernel


def conv3x3(padded: jax.Array, transformed: jax.Array) -> jax.Array:
  """Convolution at stride 1 without padding.

  Args:
    padded: [N, H + 2, W + 2, C].
    transformed: [4, 4, C, F], of `transform_kernel`.

  Returns:
    [N, H, W, F], of the type of `padded`.
  """
  n, height, width, _ = padded.shape
  features = transformed.shape[3]
  size = height - 2, width - 2
  tiles = tuple(-(-side // 2) for side in size)
  odd = [(0, side % 2) for side in size]
  dtype = padded.dtype
  padded, transformed = widen(jnp.pad(padded, ((0, 0), *odd, (0, 0)))), widen(transformed)
  # A product of matrices each: XLA's CPU backend takes longer over one of a batch of sixteen.
  products = [
    [_matrix(d) @ g for d, g in zip(_inputs(row, 2), factors)]
    for row, factors in zip(_inputs(padded, 1), transformed)
  ]
  rows = zip(*(_outputs(*row) for row in products))
  quarters = [[y.reshape(n, *tiles, features) for y in _outputs(*column)] for column in rows]
  # quarters[j][i] holds rows of parity i and columns of parity j.
  full = jnp.stack([jnp.stack(parity, 3) for parity in zip(*quarters)], 2)
  full = full.reshape(n, 2 * tiles[0], 2 * tiles[1], features).astype(dtype)
  return full[:, : size[0], : size[1]]


def _matrix(x):
  return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _inputs(x, axis):
  """Sums of windows of four at stride 2 along an axis."""
  span = x.shape[axis] - 3
  d0, d1, d2, d3 = (lax.slice_in_dim(x, i, i + span, 2, axis) for i in range(4))
  return d0 - d2, d1 + d2, d2 - d1, d1 - d3


def _outputs(m0, m1, m2, m3):
  return m0 + m1 + m2, m1 - m2 - m3
