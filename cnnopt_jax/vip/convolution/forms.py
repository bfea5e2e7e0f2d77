"""The forms of a convolution: every way to compute it, all of them exact.

Each is a function of (x, kernel, stride, padding, out, groups): the map or virtual map; the kernel,
raw or prepared; the stride, doubled for a virtual result; ((top, bottom), (left, right)); the
number of rows and columns to compute; groups of channels. It gives the array [N, *out, Cout].
`choice.conv_forms` says which form takes which of them; nothing is checked here.
"""

import jax.numpy as jnp
from jax import lax

from cnnopt_jax.kernels import winograd
from cnnopt_jax.kernels.border_pad import border_pad
from cnnopt_jax.vip.convolution.borders import phases, ring, strips
from cnnopt_jax.vip.convolution.taps import convolve, folded, raw, transformed
from cnnopt_jax.vip.virtual_map import VirtualMap


def _direct(x, kernel, stride, padding, out, groups):
  return convolve(x, raw(kernel), stride, padding, groups)


def _materialized(x, kernel, stride, padding, out, groups):
  return convolve(x.materialize(), raw(kernel), stride, padding, groups)


def _pointwise(x, kernel, stride, padding, out, groups):
  return VirtualMap(convolve(x.samples, kernel, 1, padding, groups), x.size).materialize()


def _winograd(x, kernel, stride, padding, out, groups):
  factors = transformed(x, kernel)
  if factors is None:
    taps = folded(kernel, padding) if isinstance(x, VirtualMap) else raw(kernel)
    factors = winograd.transform_kernel(taps)
  return winograd.conv3x3(_surrounded(x, padding), factors)


def _padded(x, kernel, stride, padding, out, groups):
  return convolve(_surrounded(x, padding), folded(kernel, padding), 1, ((0, 0), (0, 0)), groups)


def _patches(x, kernel, stride, padding, out, groups):
  if isinstance(x, VirtualMap):
    kernel, stride = folded(kernel, padding), 1
  else:
    kernel = raw(kernel)
  padded = _surrounded(x, padding)
  rows, columns = (stride * (n - 1) + 1 for n in out)
  windows = [
    padded[:, i : i + rows : stride, j : j + columns : stride]
    for i in range(kernel.shape[0])
    for j in range(kernel.shape[1])
  ]
  # A product of matrices: XLA's CPU backend takes half as long again over a four-dimensional one.
  y = _as_matrix(jnp.concatenate(windows, -1)) @ _as_matrix(kernel)
  return y.reshape(x.shape[0], *out, -1)


def _surrounded(x, padding):
  """What a convolution reads that leaves nothing to add: zeros, or a virtual map's border."""
  if isinstance(x, VirtualMap):
    return border_pad(x.samples, x.size)
  around = ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0))
  return lax.pad(x, jnp.zeros((), x.dtype), around)


def _as_matrix(x):
  return x.reshape(-1, x.shape[-1])


# A function for each of `choice.FORMS`.
COMPUTE = {
  'direct': _direct,
  'winograd': _winograd,
  'patches': _patches,
  'ring': ring,
  'padded': _padded,
  'strips': strips,
  'phases': phases,
  'pointwise': _pointwise,
  'materialized': _materialized,
}
