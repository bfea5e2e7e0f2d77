"""The true error of a virtual layer, which the bounds are compared with."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnnopt_jax.vip.bounds.differences import (
  ACTIVATIONS,
  STATIC_OPTIONS,
  convolve,
  interpolation_defect,
  map_norm,
  validate_layer,
)


class ErrorNorms(NamedTuple):
  """What the bounds are compared with; it takes the dense layer.

  Attributes:
    error: Euclidean norm of virtual - dense output, [N].
    error_max: largest magnitude in it, [N].
    output: norm of the dense output, [N].
    trivial: sum of the norms of both outputs, [N].
  """

  error: jax.Array
  error_max: jax.Array
  output: jax.Array
  trivial: jax.Array


@functools.partial(jax.jit, static_argnames=STATIC_OPTIONS)
def layer_error(
  x: jax.Array,
  kernel: jax.Array,
  bias: jax.Array | float = 0.0,
  *,
  stride: int = 1,
  padding: int = 0,
  groups: int = 1,
  activation: str = 'relu',
) -> ErrorNorms:
  """True error of a virtual layer, and the trivial bound ||virtual|| + ||dense||.

  Args:
    x: input [N, H, W, Cin].
    kernel: [rows, columns, Cin / groups, Cout].
    bias: [Cout] or a number.
    stride: of the dense layer.
    padding: zeros on each side.
    groups: number of channel groups.
    activation: one of `ACTIVATIONS`.

  Returns:
    Error and norms of each image.

  Raises:
    ValueError: if the activation is unknown or the groups do not divide the channels.
  """
  validate_layer(x, kernel, stride, padding, groups, activation)
  dense = ACTIVATIONS[activation](
    convolve(x, kernel, stride=stride, padding=padding, groups=groups) + bias
  )
  error = interpolation_defect(dense)
  return ErrorNorms(
    map_norm(error),
    jnp.abs(error).max((1, 2, 3)),
    map_norm(dense),
    map_norm(dense + error) + map_norm(dense),
  )
