"""LRU stack distances of an address stream, and the misses of every capacity that follow.

Mattson et al., IBM Systems Journal 9(2), 1970: an access hits in a fully associative LRU cache of C
blocks exactly if fewer than C other blocks were touched since the last access to its own. One pass
over a stream therefore gives the misses of all capacities.

How it is computed, offline and without a tree: with p[i] the last access to the address of i, the
distance is (i - p[i] - 1) less the accesses in between that are repeats of one in between, and
those are the earlier accesses j < i with p[j] > p[i]. Replaced by their ranks, the p are a
permutation, whose inversions are counted digit by digit, the highest first: within groups of equal
higher digits, in order of time, an element counts the earlier ones with a higher digit, and moves
to its place in the group of its own digit. Every step is a histogram, a running sum, a gather or a
scatter of the whole stream.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnopt_jax import precision

_BITS = 4  # Of a digit.
_RADIX = 1 << _BITS
_INT32 = np.iinfo(np.int32)


def stack_distances(addresses: Any) -> jax.Array:
  """Counts the distinct addresses since the last access to the same one.

  Args:
    addresses: `[N]`, integers, one for each access in order of time; N up to 2^30. Addresses
      outside of 32 bits must not be traced.

  Returns:
    `[N]` int32: the number of distinct other addresses since the last access to the same one, -1
    where there was none.

  Raises:
    ValueError: if `addresses` is not a vector of integers.
  """
  if not isinstance(addresses, jax.Array):
    addresses = np.asarray(addresses)
  if addresses.ndim != 1 or not jnp.issubdtype(addresses.dtype, jnp.integer):
    raise ValueError(
      f'addresses of shape {addresses.shape} and type {addresses.dtype}; allowed: integers [N]'
    )
  if isinstance(addresses, np.ndarray):
    if addresses.size and (addresses.min() < _INT32.min or addresses.max() > _INT32.max):
      addresses = np.unique(addresses, return_inverse=True)[1]
    addresses = addresses.astype(np.int32)
  if len(addresses) == 0:
    return jnp.zeros(0, jnp.int32)
  with precision.float64():  # Address and time are sorted as one 64-bit key.
    return _stack_distances(addresses)


@jax.jit
def _stack_distances(addresses: jax.Array) -> jax.Array:
  n = len(addresses)
  times = jnp.arange(n, dtype=jnp.int32)
  last = _last_access(addresses, times)
  cold = last < 0
  # Ranks of the last accesses, cold ones first: they are no repeats, whatever lies in between.
  is_repeated = jnp.zeros(n, jnp.int32).at[jnp.where(cold, n, last)].set(1, mode='drop')
  rank = jnp.cumsum(is_repeated) - 1
  cold_rank = jnp.cumsum(cold.astype(jnp.int32))
  values = jnp.where(cold, cold_rank - 1, cold_rank[-1] + rank[jnp.maximum(last, 0)])
  return jnp.where(cold, -1, times - last - 1 - _inversions(values.astype(jnp.int32)))


def _last_access(addresses: jax.Array, times: jax.Array) -> jax.Array:
  """The time of the last access to the same address, -1 where there was none."""
  keys = lax.sort((addresses.astype(jnp.int64) << 32) | times)
  address, time = (keys >> 32).astype(jnp.int32), keys.astype(jnp.int32)
  same = jnp.concatenate([jnp.zeros(1, bool), address[1:] == address[:-1]])
  before = jnp.where(same, jnp.concatenate([time[:1], time[:-1]]), -1)
  return jnp.zeros_like(time).at[time].set(before, unique_indices=True, mode='promise_in_bounds')


def _inversions(permutation: jax.Array) -> jax.Array:
  """For each element of a permutation `[N]`, how many earlier ones are greater."""
  n = len(permutation)
  digits = max(2, -(-(n - 1).bit_length() // _BITS))
  group = _RADIX ** (digits - 1)
  size = -(-n // group) * group  # What is appended is greatest and last: no inversion more.
  padding = jnp.arange(n, size, dtype=jnp.int32)
  values, counts = jnp.concatenate([permutation, padding]), jnp.zeros(size, jnp.int32)
  for digit in reversed(range(digits)):
    # Groups of equal higher digits are contiguous, and full but for the last.
    values, counts = _split(values, counts, digit, min(_RADIX ** (digit + 1), size))
  return counts[permutation]


def _split(values, counts, digit: int, group: int):
  """Counts earlier elements with a higher digit, group by group, and sorts by the digit."""
  shift = _BITS * digit
  chunks = ((values >> shift) & (_RADIX - 1)).astype(jnp.int8).reshape(-1, _RADIX)
  earlier = jnp.tril(jnp.ones((_RADIX, _RADIX), bool), -1)

  def earlier_that(compare):
    pairs = compare(chunks[:, None, :], chunks[:, :, None])
    return (pairs & earlier).sum(-1, dtype=jnp.int32)

  # Within a chunk by comparing all pairs; across the chunks of a group by running sums over their
  # histograms.
  greater, equal = earlier_that(jnp.greater), earlier_that(jnp.equal)
  if group > _RADIX:
    histogram = (chunks[:, :, None] == jnp.arange(_RADIX, dtype=jnp.int8)).sum(1, dtype=jnp.int32)
    histogram = histogram.reshape(-1, group // _RADIX, _RADIX)
    before = (jnp.cumsum(histogram, 1) - histogram).reshape(-1, _RADIX)
    above = before.sum(-1, keepdims=True, dtype=jnp.int32) - jnp.cumsum(before, -1)
    index = chunks.astype(jnp.int32)
    greater += jnp.take_along_axis(above, index, -1, mode='promise_in_bounds')
    equal += jnp.take_along_axis(before, index, -1, mode='promise_in_bounds')
  place = ((values >> shift) << shift) + equal.reshape(-1)

  def move(x):
    return jnp.zeros_like(x).at[place].set(x, unique_indices=True, mode='promise_in_bounds')

  return move(values), move(counts + greater.reshape(-1))
