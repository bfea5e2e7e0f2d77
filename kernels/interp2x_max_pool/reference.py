"""2x2 max-pooling read through the interpolation, in terms of XLA; `taps.py` says how it reads.

A window at (i, j) holds the sample x[i, j], the means with the sample on its right and with the one
below, and the mean of all four. Which of the four wins is two bits: below * 2 + right. The first
wins a tie, as in `flax.linen.max_pool`; after a ReLU ties at 0 are the rule.

float32 on 2 CPU cores, JAX 0.10.2, ms (medians of interleaved calls), forward and backward; the
last two lines are from a run of their own:

| form                                    | [4,112,112,64] -> 112 | [4,28,28,256] -> 27 |
|-----------------------------------------|----------------------:|--------------------:|
| interpolated, then pooled               |           15.4 /  215 |         1.77 / 57.7 |
| neighbours by concatenation             |           2.01 / 30.5 |         0.24 / 1.54 |
| neighbours cut from an edge-padded copy |           7.72 / 33.6 |         0.24 / 1.06 |
| clamped taps, transposed by JAX         |           1.46 / 46.9 |         0.22 / 4.50 |
| interpolated, then pooled, again        |           15.4 /  204 |         1.65 / 54.0 |
| clamped taps both ways (used)           |           1.05 / 3.16 |         0.33 / 0.94 |
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.kernels import taps
from cnnopt_jax.kernels.linear import Linear
from cnnopt_jax.kernels.taps import Tap, along


def _window(samples: jax.Array, size: tuple[int, int]) -> tuple[jax.Array, ...]:
  """The four values of every window, widened, `[N, H // 2, W // 2, C]` each, in row-major order."""
  x = taps.widen(samples)
  (row, below), (column, right) = (
    (np.arange(n // 2), taps.next_index(taps.samples_of(n))[: n // 2]) for n in size
  )
  return values(
    taps.gather(x, row, column),
    taps.gather(x, row, right),
    taps.gather(x, below, column),
    taps.gather(x, below, right),
  )


def values(
  here: jax.Array, beside: jax.Array, under: jax.Array, across: jax.Array
) -> tuple[jax.Array, ...]:
  """The four values of windows from a sample and its neighbours, in row-major order.

  Added up such that a neighbour that repeats the sample gives exactly equal values: what is
  interpolated with itself ties with what is not, and so never wins.
  """
  return (
    here,
    (here + beside) * 0.5,
    (here + under) * 0.5,
    ((here + under) + (beside + across)) * 0.25,
  )


def winner(values: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The maximum of four values, and 1 or 0 for whether it is in the lower and in the right half.

  A later value wins unless `<=`, so that a NaN does: the mean of four has it. Selections only:
  Mosaic has no arithmetic on booleans.
  """
  first, right, below, centre = values
  zero, one = jnp.zeros_like(first), jnp.ones_like(first)
  keeps = right <= first
  best, odd = jnp.where(keeps, first, right), jnp.where(keeps, zero, one)
  keeps = below <= best
  best, low, odd = (
    jnp.where(keeps, best, below),
    jnp.where(keeps, zero, one),
    jnp.where(keeps, odd, zero),
  )
  keeps = centre <= best
  return jnp.where(keeps, best, centre), jnp.where(keeps, low, one), jnp.where(keeps, odd, one)


def max_pool(samples: jax.Array, *, size: tuple[int, int]) -> tuple[jax.Array]:
  """Samples `[N, h, w, C]` to the pooled map `[N, H // 2, W // 2, C]`."""
  return (winner(_window(samples, size))[0].astype(samples.dtype),)


def tangent(dx: jax.Array, samples: jax.Array, *, size: tuple[int, int]) -> tuple[jax.Array]:
  """Tangent of the samples to that of the pooled map, where `samples` say which value won."""
  _, low, odd = winner(_window(samples, size))
  here, right, below, centre = _window(dx, size)
  out = jnp.where(low > 0, jnp.where(odd > 0, centre, below), jnp.where(odd > 0, right, here))
  return (out.astype(dx.dtype),)


def _shares(size: int) -> tuple[tuple[Tap, Tap], ...]:
  """For a sample: its own window and the one before, with the shares of its gradient that it takes.

  The first tap of a pair has the share where the window's winner is not interpolated along this
  axis, the second where it is.
  """
  i, windows = np.arange(taps.samples_of(size)), size // 2
  own = np.where(i < windows, 1.0, 0.0)
  # Behind the last sample stands itself. That mean never wins but where a compiler computes the
  # samples twice and rounds them differently; then nothing of the gradient is to be lost.
  between = own * np.where(i == i[-1], 1.0, 0.5)
  index, before = np.minimum(i, windows - 1), np.maximum(i - 1, 0)
  return (
    (Tap(index, own), Tap(index, between)),
    (Tap(before, 0.0 * i), Tap(before, np.where(i > 0, 0.5, 0.0))),
  )


def transposed(
  cotangent: jax.Array, samples: jax.Array, *, size: tuple[int, int]
) -> tuple[jax.Array]:
  """Cotangent of the pooled map to that of the samples `[N, h, w, C]`."""
  if not cotangent.size:
    return (jnp.zeros(samples.shape, cotangent.dtype),)
  _, low, odd = winner(_window(samples, size))
  which = (2 * low + odd).astype(jnp.int8)
  g = taps.widen(cotangent)
  rows, columns = map(_shares, size)
  total: Any = 0.0
  for row, row_between in rows:
    for column, column_between in columns:
      k = taps.gather(which, row.index, column.index)
      share = jnp.where(k >= 2, along(row_between.weight, 1), along(row.weight, 1)) * jnp.where(
        k % 2 == 1, along(column_between.weight, 2), along(column.weight, 2)
      )
      total = total + share * taps.gather(g, row.index, column.index)
  return (total.astype(cotangent.dtype),)


OP = Linear(tangent, transposed)
