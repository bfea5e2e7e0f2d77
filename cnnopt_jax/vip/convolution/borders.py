"""Forms that compute a virtual map's border apart: 'ring', 'strips' and 'phases'."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnnopt_jax.kernels.border_pad import border_pad
from cnnopt_jax.vip import reading
from cnnopt_jax.vip.convolution.taps import EdgeTaps, convolve, folded, raw, spanned


def ring(x, kernel, stride, padding, dilation, out, groups):
  """Zeros around the samples in the convolution; what should stand there, apart."""
  taps = folded(kernel, padding)
  y = convolve(x.samples, taps, (1, 1), padding, groups)
  around = border_pad(x.samples, x.size)
  # The corners go with the rows.
  rows = jnp.stack([around[:, 0], around[:, -1]])
  columns = jnp.pad(
    jnp.stack([around[:, 1:-1, 0], around[:, 1:-1, -1]]), ((0, 0), (0, 0), (1, 1), (0, 0))
  )
  top, bottom = _read_lines(rows, taps[::2])
  left, right = _read_lines(columns, jnp.moveaxis(taps[:, ::2], 1, 0))
  last_row, last_column = out[0] - 1, out[1] - 1
  return (
    y
    + _place(top[:, None], (0, 0), out)
    + _place(bottom[:, None], (last_row, 0), out)
    + _place(left[:, :, None], (0, 0), out)
    + _place(right[:, :, None], (0, last_column), out)
  )


def _read_lines(lines: jax.Array, taps: jax.Array) -> jax.Array:
  """Convolves pairs of lines [2, N, L + 2, C] with pairs of kernels [2, 3, C, F]: [2, N, L, F]."""
  _, n, length, _ = lines.shape
  windows = jnp.concatenate([lines[:, :, i : i + length - 2] for i in range(3)], -1)
  depth = windows.shape[-1]
  y = windows.reshape(2, n * (length - 2), depth) @ taps.reshape(2, depth, taps.shape[-1])
  return y.reshape(2, n, length - 2, taps.shape[-1])


def _place(strip: jax.Array, start: Sequence[int], out: Sequence[int]) -> jax.Array:
  """Zeros around a strip [N, rows, columns, C] that begins at `start` of a map of size `out`."""
  around = [
    (first, size - first - length, 0) for first, size, length in zip(start, out, strip.shape[1:3])
  ]
  return lax.pad(strip, jnp.zeros((), strip.dtype), ((0, 0, 0), *around, (0, 0, 0)))


def strips(x, kernel, stride, padding, dilation, out, groups):
  """(E_h + D_h) x (E_w + D_w): all of E x E at once, then rows at D_h, columns at D_w, corners."""
  samples, kernel = x.samples, spanned(kernel, dilation)
  rows, columns = reading.window_axes(
    samples.shape[1:3], x.size, kernel.shape[:2], stride, padding, out
  )
  step = stride[0] // 2, stride[1] // 2
  taps = EdgeTaps(kernel, padding)
  pad_h, pad_w, line = rows.folded_padding, columns.folded_padding, (0, 0)

  def read(part, part_taps, pad_rows, pad_columns):
    return convolve(part, part_taps, step, (pad_rows, pad_columns), groups)

  y = read(samples, taps.interior(), pad_h, pad_w)
  for i in rows.edges:
    row = samples[:, i.source : i.source + 1]
    y += _place(read(i.weight * row, taps.row(i.tap), line, pad_w), (i.position, 0), out)
    for j in columns.edges:
      pixel = (i.weight * j.weight) * row[:, :, j.source : j.source + 1]
      corner = read(pixel, taps.corner(i.tap, j.tap), line, line)
      y += _place(corner, (i.position, j.position), out)
  for j in columns.edges:
    column = j.weight * samples[:, :, j.source : j.source + 1]
    y += _place(read(column, taps.column(j.tap), pad_h, line), (0, j.position), out)
  return y


def phases(x, kernel, stride, padding, dilation, out, groups):
  """Output rows of one parity read the map at an even stride; columns likewise, where it is odd."""
  kernel = spanned(raw(kernel), dilation)
  (top, _), (left, _) = padding
  apart = [1 + step % 2 for step in stride]
  doubled = [step * n for step, n in zip(stride, apart)]
  result = None
  for i in range(min(apart[0], out[0])):
    for j in range(min(apart[1], out[1])):
      size = [-(-(length - first) // n) for length, first, n in zip(out, (i, j), apart)]
      pad = (top - stride[0] * i, 0), (left - stride[1] * j, 0)
      phase = strips(x, kernel, doubled, pad, (1, 1), size, groups)
      y = _interleave(phase, (i, j), apart, out)
      # Zeros between the pixels of each: the sum of the phases is the whole map.
      result = y if result is None else result + y
  return result


def _interleave(
  phase: jax.Array, start: Sequence[int], apart: Sequence[int], out: Sequence[int]
) -> jax.Array:
  """A phase [N, rows, columns, C] spread out from `start` on in a map of zeros of size `out`."""
  around = [
    (first, size - first - (n * (length - 1) + 1), n - 1)
    for first, size, length, n in zip(start, out, phase.shape[1:3], apart)
  ]
  return lax.pad(phase, jnp.zeros((), phase.dtype), ((0, 0, 0), *around, (0, 0, 0)))
