"""The shapes and costs of convolutions and matrix products, read from their equations."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jax.extend.core import JaxprEqn
from jax.lax import ConvDimensionNumbers

from cnnopt_jax.workload import jaxprs


class Operation(NamedTuple):
  """What an equation computes; the fields that `Layer` has too mean the same.

  Attributes:
    kernel: index of the operand that is the kernel, 0 or 1.
    fan_in: products summed for one output element.
    summed: the kernel's axes that are summed over.
    groups: independent parts.
    output_channels: features the kernel produces, groups included.
    geometry: the fields of `Layer` that only convolutions have.
  """

  kernel: int
  fan_in: int
  summed: tuple[int, ...]
  groups: int
  output_channels: int
  geometry: dict[str, Any]


def _convolution(eqn: JaxprEqn, kernel: int) -> Operation:
  """Describes an equation with the parameters of `jax.lax.conv_general_dilated`."""
  params = eqn.params
  numbers: ConvDimensionNumbers = params['dimension_numbers']
  kernel_shape = jaxprs.array_type(eqn.invars[1]).shape
  # The kernel's input axis already holds one group's channels. One output element is a sum over
  # the kernel's window and that axis, whichever way the groups were formed.
  output_channels = kernel_shape[numbers.rhs_spec[0]]
  return Operation(
    kernel=kernel,
    fan_in=math.prod(kernel_shape[axis] for axis in numbers.rhs_spec[1:]),
    summed=tuple(numbers.rhs_spec[1:]),
    groups=params['feature_group_count'] * params['batch_group_count'],
    output_channels=output_channels,
    geometry=dict(
      strides=tuple(params['window_strides']),
      padding=tuple((low, high) for low, high in params['padding']),
      lhs_dilation=tuple(params['lhs_dilation']),
      rhs_dilation=tuple(params['rhs_dilation']),
      dimension_numbers=numbers,
    ),
  )


def _matrix_product(eqn: JaxprEqn, kernel: int) -> Operation:
  """Describes a `jax.lax.dot_general` equation."""
  contracting, batch = eqn.params['dimension_numbers']
  shape = jaxprs.array_type(eqn.invars[kernel]).shape
  fan_in = math.prod(shape[axis] for axis in contracting[kernel])
  return Operation(
    kernel=kernel,
    fan_in=fan_in,
    summed=tuple(contracting[kernel]),
    groups=math.prod(shape[axis] for axis in batch[kernel]),
    output_channels=math.prod(
      size for axis, size in enumerate(shape) if axis not in contracting[kernel]
    ),
    geometry=dict(strides=(), padding=(), lhs_dilation=(), rhs_dilation=(), dimension_numbers=None),
  )


class Rule(NamedTuple):
  """How to read one compute primitive.

  Attributes:
    kind: 'conv' or 'dense'.
    kernels: the operands that may hold the weight, the likeliest first.
    describe: reads an equation, given the operand that is the kernel.
  """

  kind: str
  kernels: tuple[int, ...]
  describe: Callable[[JaxprEqn, int], Operation]


_CONVOLUTION = Rule('conv', (1,), _convolution)
_MATRIX_PRODUCT = Rule('dense', (1, 0), _matrix_product)


def compute_rule(eqn: JaxprEqn) -> Rule | None:
  """The rule for an equation that multiplies and accumulates, None for all others.

  `cnnopt_conv`, this library's own convolution, computes a convolution's output from the operands
  and with the parameters of `conv_general_dilated` when its parameter `target` is 'out'.

  Args:
    eqn: an equation of a jaxpr.

  Returns:
    The rule, or None.
  """
  match eqn.primitive.name:
    case 'conv_general_dilated':
      return _CONVOLUTION
    case 'dot_general':
      return _MATRIX_PRODUCT
    case 'cnnopt_conv' if eqn.params['target'] == 'out':
      return _CONVOLUTION
    case _:
      return None
