"""Which axes of a leaf lie along which axes of a value that is computed from it.

A kernel reaches its convolution transposed, reshaped, split into heads or cut from a stack. To give
each output feature a quantization step of its own, one has to know which axes *of the leaf* the
operation sums over. So a value carries, for each of its axes, the factors that the axis consists
of, from the slowest to the fastest, each with the axes of the leaf that it runs along:

    leaf [16, 4, 8] as [16, 32]:  ((0:16), (1:4, 2:8))
    and that as [2, 8, 32]:       ((0:2), (0:8), (1:4, 2:8))

Factors of one axis multiply to its length. Where an operation is not followed the layout is lost
(None), and with it the output axes of the leaf: nothing is guessed.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jax.extend.core import JaxprEqn

from cnnopt_jax.workload import jaxprs


class Factor(NamedTuple):
  """A part of an axis.

  Attributes:
    axes: of the leaf that it runs along; none where the value repeats.
    size: its length.
  """

  axes: frozenset[int]
  size: int


class Layout(NamedTuple):
  """How a value lies in its leaf.

  Attributes:
    path: of the leaf.
    shape: of the leaf.
    dims: the factors of each axis of the value.
  """

  path: str
  shape: tuple[int, ...]
  dims: tuple[tuple[Factor, ...], ...]


def of_leaf(path: str, shape: tuple[int, ...]) -> Layout:
  """The layout of a leaf itself."""
  dims = tuple((Factor(frozenset((axis,)), size),) for axis, size in enumerate(shape))
  return Layout(path, shape, dims)


def output_axes(layout: Layout | None, summed: Sequence[int]) -> tuple[int, ...] | None:
  """The axes of the leaf that keep a step of their own when a kernel is summed over some of its.

  These are the axes that the kernel is not summed over, and those that it lacks: of a stack, of
  which it is one slice.

  Args:
    layout: of the kernel.
    summed: axes of the kernel, those of input features and of the window.

  Returns:
    Axes in order; None if the layout is unknown, or an axis of the leaf holds inputs and outputs.
  """
  if layout is None:
    return None
  inputs, outputs = set[int](), set[int]()
  for dim, factors in enumerate(layout.dims):
    (inputs if dim in summed else outputs).update(*(factor.axes for factor in factors))
  long = {axis for axis, size in enumerate(layout.shape) if size > 1}
  if inputs & outputs & long:
    return None
  return tuple(sorted((outputs | (long - inputs)) - (inputs & outputs)))


def result(
  eqn: JaxprEqn, operands: Sequence[Layout | None], shape: tuple[int, ...], held: str | None
) -> Layout | None:
  """The layout of a result of `shape` of any primitive but a convolution or matrix product.

  Args:
    eqn: the equation.
    operands: layouts of its operands.
    shape: of the result.
    held: path of the leaf that the result holds.

  Returns:
    The layout, None if there is none or it is not followed.
  """
  known = [i for i, layout in enumerate(operands) if layout is not None]
  if not known:
    return None
  shapes = [jaxprs.array_type(atom).shape for atom in eqn.invars]
  layout, name, params = operands[known[0]], eqn.primitive.name, eqn.params
  assert layout is not None
  match name:
    case 'transpose' if known == [0]:
      return _moved(layout, [layout.dims[axis] for axis in params['permutation']])
    case 'reshape' | 'squeeze' | 'expand_dims' if known == [0]:
      order = params.get('dimensions') if name == 'reshape' else None
      if order is not None:  # The axes of the operand in another order first.
        layout = _moved(layout, [layout.dims[axis] for axis in order])
      return reshaped(layout, shape)
    case 'broadcast_in_dim' if known == [0]:
      dims = [_repeated(size) for size in shape]
      for axis, target in enumerate(params['broadcast_dimensions']):
        if shapes[0][axis] == shape[target]:
          dims[target] = layout.dims[axis]
      return _moved(layout, dims)
    case 'slice' | 'dynamic_slice' | 'pad' | 'rev' if known == [0]:
      return _cut(layout, shapes[0], shape)
    case 'gather' if known == [0]:
      return _gathered(layout, params, shape)
  # Element by element: a kernel and what was spread over it, such as a step for each channel.
  same = {layout for layout, s in zip(operands, shapes) if layout is not None and s == shape}
  if held is not None:
    same = {layout for layout in same if layout.path == held}
  if len(same) > 1:
    same = {layout for layout in same if not _repeats(layout)}
  return same.pop() if len(same) == 1 else None


def reshaped(layout: Layout, shape: tuple[int, ...]) -> Layout | None:
  """The layout of the same elements, in the same order, under another shape."""
  left = [factor for factors in layout.dims for factor in factors if factor.size != 1]
  if 0 in shape or any(factor.size == 0 for factor in left):
    return None
  left.reverse()  # So that the slowest is taken from the end.
  dims = []
  for size in shape:
    factors = []
    while size > 1:
      factor = left.pop()
      inner, rest = divmod(factor.size, size)
      if size % factor.size == 0:
        size //= factor.size
      elif rest == 0:
        left.append(Factor(factor.axes, inner))
        factor, size = Factor(factor.axes, size), 1
      else:
        return None  # Neither divides the other: axes are no longer apart.
      factors.append(factor)
    dims.append(tuple(factors))
  return _moved(layout, dims)


def sliced(layout: Layout | None) -> Layout | None:
  """One slice along the first axis."""
  return None if layout is None or not layout.dims else _moved(layout, layout.dims[1:])


def leading_axes(layout: Layout) -> int:
  """How many leading axes of its leaf a value lacks or has first; 0 if it is not the rest of it."""
  lacking = len(layout.shape) - len(layout.dims)
  rest = of_leaf(layout.path, layout.shape).dims[lacking:] if lacking >= 0 else None
  return lacking + 1 if layout.dims and layout.dims == rest else 0


def stacked(layout: Layout | None, length: int) -> Layout | None:
  """Slices put together along a new first axis: that of the leaf which all of them lack."""
  if layout is None:
    return None
  present = frozenset[int]().union(*(factor.axes for dim in layout.dims for factor in dim))
  lacking = [axis for axis, size in enumerate(layout.shape) if axis not in present and size > 1]
  if len(lacking) != 1 or layout.shape[lacking[0]] != length:
    return None
  return _moved(layout, [(Factor(frozenset(lacking), length),), *layout.dims])


def _moved(layout: Layout, dims: Sequence[tuple[Factor, ...]]) -> Layout:
  return layout._replace(dims=tuple(dims))


def _repeats(layout: Layout) -> bool:
  return any(not factor.axes and factor.size > 1 for dim in layout.dims for factor in dim)


def _repeated(size: int) -> tuple[Factor, ...]:
  return (Factor(frozenset(), size),)


def _cut(layout: Layout, before: tuple[int, ...], after: tuple[int, ...]) -> Layout:
  """Axes of another length run along the same axes of the leaf, in one factor."""
  dims = [
    factors if old == new else (_together(factors, new),)
    for factors, old, new in zip(layout.dims, before, after)
  ]
  return _moved(layout, dims)


def _together(factors: Sequence[Factor], size: int) -> Factor:
  return Factor(frozenset[int]().union(*(factor.axes for factor in factors)), size)


def _gathered(layout: Layout, params, shape: tuple[int, ...]) -> Layout | None:
  """Rows, and windows of rows, chosen by an array of indices."""
  numbers = params['dimension_numbers']
  if numbers.operand_batching_dims:
    return None
  chosen = numbers.collapsed_slice_dims
  whole = [axis for axis in range(len(layout.dims)) if axis not in chosen]
  row = _together([factor for axis in chosen for factor in layout.dims[axis]], 1)
  dims: list[tuple[Factor, ...]] = [(row._replace(size=size),) for size in shape]
  for axis, target in zip(whole, numbers.offset_dims, strict=True):
    dims[target] = (
      layout.dims[axis]
      if math.prod(f.size for f in layout.dims[axis]) == shape[target]
      else (_together(layout.dims[axis], shape[target]),)
    )
  return _moved(layout, dims)
