"""The layers of a network as rows, and the leaves of its parameter tree."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jax.lax import ConvDimensionNumbers

from cnnopt_jax.workload.dataflow import Dataflow


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
  """One convolution or matrix product, as the traced program executes it.

  A convolution of a kernel window with zeros counts like any other: the zeros of the padding and
  those that `lhs_dilation` puts between input elements are multiplied and added too, so
  `macs == output_elements * fan_in * count` holds in every row.

  Attributes:
    kind: 'conv', a convolution; 'dense', a matrix product with a weight leaf; or 'matmul', one
      without.
    path: the module, parts joined by '/': the parent of the weight leaf, or where that is the root
      or there is none, the names that surround the operation in the program. May be ''.
    weight: the path of the leaf of `params` that is the kernel; None for a product of activations
      and for a constant kernel.
    input_shape: the activation operand, batch included, in the layout executed (of two activations
      the left one).
    kernel_shape: the other operand in the layout executed, one slice of weights stacked for a scan.
    output_shape: the result of one execution, batch included.
    strides: the window's step in each spatial axis, in input elements; () for matrix products.
    padding: (low, high) in each spatial axis, in input elements; () for matrix products.
    lhs_dilation: the spacing of input elements in each spatial axis; () for matrix products.
    rhs_dilation: the spacing of kernel elements in each spatial axis; () for matrix products.
    groups: independent parts of a convolution (feature groups times batch groups), or the product
      of a matrix product's batch axes.
    dimension_numbers: which axes of a convolution's operands are batch, feature and space; None for
      matrix products.
    fan_in: products summed for one output element: kh * kw * Cin / groups, or K.
    output_channels: features the weight leaf produces, those of all groups and of all slices of
      stacked weights: one quantizer scale each makes a per-channel quantizer. 0 without a leaf.
    weights: elements of the weight leaf this row reads, all slices of stacked weights. 0 without a
      leaf.
    count: executions in one call: the product of the lengths of the scans around it.
    macs: multiply-accumulates of one call: batch and all executions included.
    dtype: the name of the type of the activation operand, such as 'bfloat16'.
  """

  kind: str
  path: str
  weight: str | None
  input_shape: tuple[int, ...]
  kernel_shape: tuple[int, ...]
  output_shape: tuple[int, ...]
  strides: tuple[int, ...]
  padding: tuple[tuple[int, int], ...]
  lhs_dilation: tuple[int, ...]
  rhs_dilation: tuple[int, ...]
  groups: int
  dimension_numbers: ConvDimensionNumbers | None
  fan_in: int
  output_channels: int
  weights: int
  count: int
  macs: int
  dtype: str

  @property
  def input_elements(self) -> int:
    """Elements of the activation operand of one execution."""
    return math.prod(self.input_shape)

  @property
  def output_elements(self) -> int:
    """Elements of the result of one execution."""
    return math.prod(self.output_shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
  """One array of the parameter tree.

  Attributes:
    path: its place in the tree, as `path_string` writes it.
    shape: its shape.
    dtype: the name of its type.
    role: 'weight', the kernel of a layer; 'bias', in the module of a weight, with one value per
      output channel; 'norm', any other scalar or vector, such as the scale, shift and statistics of
      a normalisation or a quantizer's step; 'embedding', rows that input data chooses, be they a
      kernel elsewhere or not; 'other', the rest.
    output_axes: the axes that the layer does not sum over, of which it has a feature each, those of
      a stack included; None for what is no kernel of a layer, and where the program does not tell.
    stack_axes: leading axes along which it holds the parameters of one layer after another.
    folds: whether a norm after its layer takes a factor of each output feature; None where nobody
      knows, as for any bare trace.
  """

  path: str
  shape: tuple[int, ...]
  dtype: str
  role: str
  output_axes: tuple[int, ...] | None = None
  stack_axes: int = 0
  folds: bool | None = None

  @property
  def size(self) -> int:
    """Number of elements."""
    return math.prod(self.shape)


_COLUMNS = tuple(f.name for f in dataclasses.fields(Layer)) + ('input_elements', 'output_elements')


@dataclasses.dataclass(frozen=True)
class LayerTable:
  """The layers of one call of a network in program order, and its parameters in tree order.

  A weight used by two layers stands in two rows and is one parameter.

  Attributes:
    layers: one `Layer` for each convolution and matrix product.
    parameters: one `Parameter` for each array of the tree.
    dataflow: the arrays in memory and the kernels between them; None for a program with loops or
      branches, and for a table put together by hand. Not part of a table's equality or print.
  """

  layers: tuple[Layer, ...]
  parameters: tuple[Parameter, ...]
  dataflow: Dataflow | None = dataclasses.field(default=None, compare=False, repr=False)

  def __len__(self) -> int:
    return len(self.layers)

  def __iter__(self) -> Iterator[Layer]:
    return iter(self.layers)

  @property
  def macs(self) -> int:
    """Multiply-accumulates of one call, all layers."""
    return sum(layer.macs for layer in self.layers)

  @property
  def weights(self) -> int:
    """Elements of all weight leaves, each leaf once."""
    return sum(p.size for p in self.parameters if p.role == 'weight')

  def column(self, name: str) -> np.ndarray:
    """One field of all layers.

    Args:
      name: a field or property of `Layer`.

    Returns:
      An array of shape [len(self)]: int64 for the fields that are numbers, else of objects.

    Raises:
      ValueError: if a layer has no such field.
    """
    if name not in _COLUMNS:
      raise ValueError(f'no column {name!r}; the columns are {", ".join(_COLUMNS)}')
    values = [getattr(layer, name) for layer in self.layers]
    if Layer.__annotations__.get(name, int) is int:
      return np.array(values, np.int64)
    column = np.empty(len(values), object)
    column[:] = values
    return column

  def join(self, values: Mapping[str, Any], default: Any, *, on: str = 'weight') -> np.ndarray:
    """Lines up what is known by path, such as bits by weight leaf, with the layers.

    Args:
      values: a number for each path; leaves that are not weights may be among them.
      default: the number for layers whose path is not in `values`, and for those that have none.
      on: 'weight' to look up `Layer.weight`, 'path' to look up `Layer.path`.

    Returns:
      An array of shape [len(self)].

    Raises:
      KeyError: if `values` has a path that no parameter (on 'weight') or layer (on 'path') has.
      ValueError: if `on` is neither.
    """
    if on not in ('weight', 'path'):
      raise ValueError(f"on must be 'weight' or 'path', got {on!r}")
    rows = self.parameters if on == 'weight' else self.layers
    unknown = sorted(set(values) - {row.path for row in rows})
    if unknown:
      raise KeyError(f'{unknown[0]!r} is the path of no {"parameter" if on == "weight" else on}')
    return np.asarray([values.get(getattr(layer, on), default) for layer in self.layers])

  def __str__(self) -> str:
    head = ('layer', 'kind', 'input', 'kernel', 'output', 'groups', 'times', 'weights', 'MACs')
    rows = [
      (
        layer.path,
        layer.kind,
        _shape(layer.input_shape),
        _shape(layer.kernel_shape),
        _shape(layer.output_shape),
        str(layer.groups),
        str(layer.count),
        f'{layer.weights:,}',
        f'{layer.macs:,}',
      )
      for layer in self.layers
    ]
    total = ('total', '', '', '', '', '', '', f'{self.weights:,}', f'{self.macs:,}')
    widths = [max(map(len, cells)) for cells in zip(head, *rows, total)]
    lines = []
    for row in (head, *rows, total):
      # Names are read from the left, numbers compared from the right.
      cells = [
        cell.ljust(width) if i < 5 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths))
      ]
      lines.append('  '.join(cells).rstrip())
    rule = '-' * max(map(len, lines))
    return '\n'.join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _shape(shape: tuple[int, ...]) -> str:
  return 'x'.join(map(str, shape))
