"""The four interpolation ops by brute force in NumPy, and the cases that the tests share."""

import functools
import itertools

import ml_dtypes
import numpy as np

from cnnopt_jax.kernels.border_pad import border_pad
from cnnopt_jax.kernels.interp2x import interp2x
from cnnopt_jax.kernels.interp2x_add_relu import interp2x_add_relu
from cnnopt_jax.kernels.interp2x_max_pool import interp2x_max_pool


def interpolated(x, size):
  """The map position by position, from the definition."""
  out = np.zeros((x.shape[0], *size, x.shape[3]))
  for row, column in itertools.product(*map(range, size)):
    pick = lambda position, n: {position // 2, min((position + 1) // 2, n - 1)}
    terms = [x[:, i, j] for i in pick(row, x.shape[1]) for j in pick(column, x.shape[2])]
    out[:, row, column] = sum(terms) / len(terms)
  return out


def pooled(x, size):
  full = interpolated(x, size)
  out = np.zeros((x.shape[0], size[0] // 2, size[1] // 2, x.shape[3]))
  for i, j in itertools.product(*map(range, out.shape[1:3])):
    out[:, i, j] = full[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2))
  return out


def padded(x, size):
  for axis, positions in zip((1, 2), size):
    first, last = x.take([0], axis), x.take([-1], axis)
    x = np.concatenate([-first, x, last if positions % 2 == 0 else -last], axis)
  return x


def tail(x, y, size, b_virtual=True):
  other = interpolated(y, size) if b_virtual else y
  return np.maximum(interpolated(x, size) + other, 0)


# name: op, brute force, and which operands it takes: 's' samples or 'm' a map.
OPS = {
  'interp2x': (interp2x, interpolated, 's'),
  'border_pad': (border_pad, padded, 's'),
  'max_pool': (interp2x_max_pool, pooled, 's'),
  'add_relu': (interp2x_add_relu, tail, 'ss'),
  'add_relu_map': (
    functools.partial(interp2x_add_relu, b_virtual=False),
    functools.partial(tail, b_virtual=False),
    'sm',
  ),
}


def operands(name, batch, size, channels, dtype='float32', seed=0):
  """Operands as a ReLU leaves them, with many exact zeros, rounded to `dtype`; NumPy float64."""
  rng = np.random.default_rng(seed)
  shapes = {'s': tuple(-(-n // 2) for n in size), 'm': size}
  make = lambda kind: np.maximum(rng.normal(size=(batch, *shapes[kind], channels)), 0)

  round_to = {'bfloat16': ml_dtypes.bfloat16}.get(dtype, dtype)
  arrays = [make(kind).astype(round_to) for kind in OPS[name][2]]
  if name.startswith('add_relu'):
    arrays[1] = (arrays[1] - np.asarray(0.5, round_to)).astype(round_to)  # Some sums below zero.
  return arrays
