"""What the ops take for a stride, a window, a padding and a type, in one form each."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnopt_jax.vip.virtual_map import VirtualMap, validate

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]  # ((top, bottom), (left, right))

# An integer, or what counts as one, such as NumPy's.
Int = int | np.integer
PaddingLike = str | Int | Sequence[Int] | Sequence[Sequence[Int]]


def pair(name: str, value: Int | Sequence[Int]) -> Pair:
  """One number for both directions, or one for each, such as of a stride.

  Args:
    name: how the argument is called in an error.
    value: as it was given.

  Returns:
    For rows and for columns.

  Raises:
    ValueError: if it is not one or two integers of at least 1.
  """
  try:
    found = _two_integers(value)
  except (TypeError, ValueError):
    found = (0, 0)
  if min(found) < 1:
    raise ValueError(f'{name}={value!r}; allowed: one or two integers of at least 1')
  return found


def padding_pairs(
  padding: PaddingLike, size: Sequence[int], window: Sequence[int], stride: Sequence[int]
) -> Padding:
  """Padding as ((top, bottom), (left, right)).

  Args:
    padding: 'SAME', 'SAME_LOWER' or 'VALID', which mean what they mean to lax; one number for every
      side; one for rows and one for columns; or the pairs themselves. Numbers below zero cut off.
    size: (H, W) of the map.
    window: its sides, a dilated one's from end to end.
    stride: in both directions.

  Returns:
    The pairs.

  Raises:
    ValueError: if it is anything else.
  """
  try:
    if isinstance(padding, str):
      (top, bottom), (left, right) = lax.padtype_to_pads(size, window, stride, padding)
    else:
      given: Any = padding
      rows, columns = (given, given) if np.ndim(given) == 0 else given
      (top, bottom), (left, right) = _two_integers(rows), _two_integers(columns)
    return (int(top), int(bottom)), (int(left), int(right))
  except (TypeError, ValueError, RuntimeError):  # The last for other words.
    raise ValueError(
      f'padding={padding!r}; allowed: ((top, bottom), (left, right)) in integers, (rows, columns), '
      "one for all, 'SAME', 'SAME_LOWER', 'VALID'"
    ) from None


def _two_integers(value: Any) -> Pair:
  """Raises TypeError or ValueError for what is neither one integer nor two."""
  first, second = (value, value) if np.ndim(value) == 0 else value
  return operator.index(first), operator.index(second)


def as_map(name: str, x: jax.Array | VirtualMap) -> jax.Array | VirtualMap:
  """A map as the ops read it, of JAX's arrays.

  Args:
    name: how the argument is called in an error.
    x: [N, H, W, C], or a virtual map of that shape.

  Returns:
    The map.

  Raises:
    ValueError: if it has another rank, or is a virtual map whose samples do not fit its size or are
      of no floating type: means of integers are none.
  """
  if not isinstance(x, VirtualMap):
    x = jnp.asarray(x)
    if x.ndim != 4:
      raise ValueError(f'{name} of shape {x.shape}; allowed: [N, H, W, C]')
    return x
  validate(x)
  return VirtualMap(floating(f'{name}.samples', x.samples), x.size)


def floating(name: str, x: jax.Array) -> jax.Array:
  """An array of a floating type.

  Args:
    name: how the argument is called in an error.
    x: the array.

  Returns:
    The array.

  Raises:
    ValueError: if its type is another.
  """
  x = jnp.asarray(x)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(
      f'{name} of type {x.dtype}; allowed: floating types, as by astype(jnp.float32)'
    )
  return x
