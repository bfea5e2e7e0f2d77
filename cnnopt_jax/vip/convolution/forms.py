"""The forms of a convolution: every way to compute it, all of them exact.

Each is a function of (x, kernel, stride, padding, dilation, out, groups): the map or virtual map;
the kernel, raw or prepared; the strides, doubled for a virtual result; ((top, bottom), (left,
right)); the kernel's dilations; the number of rows and columns to compute; groups of channels. It
gives the array [N, *out, Cout]. Empty maps give empty results.
`choice.conv_forms` says which form takes which of them; nothing is checked here.
"""

import math

import jax.numpy as jnp
from jax import lax

from cnnopt_jax.kernels import winograd
from cnnopt_jax.kernels.border_pad import border_pad
from cnnopt_jax.vip.convolution.borders import phases, ring, strips
from cnnopt_jax.vip.convolution.taps import convolve, folded, raw, transformed
from cnnopt_jax.vip.virtual_map import VirtualMap


def _direct(x, kernel, stride, padding, dilation, out, groups):
  return convolve(x, raw(kernel), stride, padding, groups, dilation)


def _materialized(x, kernel, stride, padding, dilation, out, groups):
  return convolve(x.materialize(), raw(kernel), stride, padding, groups, dilation)


def _pointwise(x, kernel, stride, padding, dilation, out, groups):
  return VirtualMap(convolve(x.samples, kernel, stride, padding, groups), x.size).materialize()


def _winograd(x, kernel, stride, padding, dilation, out, groups):
  factors = transformed(x, kernel)
  if factors is None:
    taps = folded(kernel, padding) if isinstance(x, VirtualMap) else raw(kernel)
    factors = winograd.transform_kernel(taps)
  return winograd.conv3x3(_surrounded(x, padding), factors)


def _padded(x, kernel, stride, padding, dilation, out, groups):
  taps = folded(kernel, padding)
  return convolve(_surrounded(x, padding), taps, (1, 1), ((0, 0), (0, 0)), groups)


def _patches(x, kernel, stride, padding, dilation, out, groups):
  if isinstance(x, VirtualMap):
    kernel, stride = folded(kernel, padding), (1, 1)
  else:
    kernel = raw(kernel)
  padded = _surrounded(x, padding)
  rows, columns = (step * (n - 1) + 1 for step, n in zip(stride, out))
  windows = [
    padded[:, i : i + rows : stride[0], j : j + columns : stride[1]]
    for i in range(kernel.shape[0])
    for j in range(kernel.shape[1])
  ]
  # A product of matrices: XLA's CPU backend takes half as long again over a four-dimensional one.
  y = _as_matrix(jnp.concatenate(windows, -1)) @ _as_matrix(kernel)
  return y.reshape(x.shape[0], *out, kernel.shape[3])


def _surrounded(x, padding):
  """What a convolution reads that leaves nothing to add: zeros, or a virtual map's border."""
  if isinstance(x, VirtualMap):
    return border_pad(x.samples, x.size)
  around = ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0))
  return lax.pad(x, jnp.zeros((), x.dtype), around)


def _as_matrix(x):
  return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


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
