"""Where the values of a program come from: which leaf of the parameters a kernel is.

A network hands its convolutions not the leaf but a cast, reshaped, standardised, masked or
quantized copy of it. Every value of the traced program therefore carries an `Origin`:

1. It *holds* a leaf while it has one element for each of the leaf's, computed from it. Any
   operation hands the leaf on to results of as many elements as the operand that holds it.
2. The leaf is lost where two operands of that size hold different leaves, and where it meets input
   data as wide as itself: an image plus a position embedding is an activation. `width` is how many
   numbers of input data can be told apart in a value, so a traced bitwidth spread over a kernel
   has width 1, a vector of steps its length, and neither turns the kernel into data.
3. A kernel that holds no leaf is still a slice or an expansion of one if no convolution or matrix
   product went into it and the input data in it is narrower than itself: then its leaf is the only
   one of its sources, or the only one large enough. Several (concatenated leaves) are an error.
4. Of two operands that hold leaves the kernel is the one that depends on less input data, and in a
   tie the right one.
5. Loops are followed to a fixed point, branches are joined: a leaf stays if all agree on it.

Where its axes lie is kept beside it, in its `Layout`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from cnnopt_jax.workload import layout as layouts
from cnnopt_jax.workload.layout import Layout


class AmbiguousWeightError(ValueError):
  """A kernel computed from parameters is no single leaf of them."""


class Source(NamedTuple):
  """A leaf of the parameters.

  Attributes:
    path: its path.
    size: its number of elements.
    slices: how many executions of a scan's body share its elements, each with its own slice.
  """

  path: str
  size: int
  slices: int


class Origin(NamedTuple):
  """What one value of the program is computed from.

  Attributes:
    leaf: the leaf held, element for element, or None.
    sources: the leaves it is computed from, up to the last convolution or matrix product.
    width: numbers of input data that can be told apart in it; 0 if it depends on none.
    computed: whether a convolution or matrix product went into it.
    layout: how it lies in the leaf that it holds or is a part of, None where that is not known.
  """

  leaf: Source | None
  sources: frozenset[Source]
  width: int
  computed: bool
  layout: Layout | None = None


class Operand(NamedTuple):
  """An operand: its origin and its number of elements."""

  origin: Origin
  size: int


CONSTANT = Origin(None, frozenset(), 0, False)

# Their results are put together from operands that each fill another part.
_ASSEMBLING = frozenset(
  (
    'concatenate',
    'dynamic_update_slice',
    'scatter',
    'scatter-add',
    'scatter-max',
    'scatter-min',
    'scatter-mul',
    'scatter-sub',
    'stack',
  )
)


def parameter(path: str, shape: tuple[int, ...]) -> Origin:
  """The origin of a leaf of the parameters."""
  leaf = Source(path, math.prod(shape), 1)
  return Origin(leaf, frozenset((leaf,)), 0, False, layouts.of_leaf(path, shape))


def data(size: int) -> Origin:
  """The origin of an input that is no parameter."""
  return Origin(None, frozenset(), size, False)


def compute_origin(operands: Sequence[Operand], size: int) -> Origin:
  """The origin of a convolution's or matrix product's result of `size` elements."""
  depends = any(operand.origin.width for operand in operands)
  return Origin(None, frozenset(), size if depends else 0, True)


def free_origin(name: str, operands: Sequence[Operand], size: int) -> Origin:
  """The origin of a result of any other primitive.

  Args:
    name: the primitive.
    operands: its operands.
    size: the number of elements of the result.

  Returns:
    The result's origin.
  """
  if all(operand.origin is CONSTANT for operand in operands):
    return CONSTANT
  widths = [operand.origin.width for operand in operands]
  width = sum(widths) if name in _ASSEMBLING else max(widths)
  if name == 'gather' and operands[-1].origin.leaf is None and operands[-1].origin.width > 1:
    # Rows chosen by data, such as the embeddings of tokens, differ as data does. The index of one
    # layer's weights is one number, and codes that hold a leaf look up that leaf's own values.
    width = size
  width = min(width, size)
  held = {o.origin.leaf for o in operands if o.size == size and o.origin.leaf is not None}
  leaf = held.pop() if len(held) == 1 else None
  if leaf is not None:
    others = [o.origin.width for o in operands if o.origin.leaf != leaf]
    # One number never tells a kernel from data, even a kernel of one element.
    if max(others, default=0) >= max(size, 2):
      leaf = None
  sources = frozenset().union(*(operand.origin.sources for operand in operands))
  return Origin(leaf, sources, width, any(operand.origin.computed for operand in operands))


def join(a: Origin, b: Origin) -> Origin:
  """The origin of a value that is one or the other."""
  if a == b:
    return a
  return Origin(
    leaf=a.leaf if a.leaf == b.leaf else None,
    sources=a.sources | b.sources,
    width=max(a.width, b.width),
    computed=a.computed or b.computed,
    layout=a.layout if a.layout == b.layout else None,
  )


def sliced(origin: Origin, length: int, size: int) -> Origin:
  """One slice, of `size` elements, of what a scan of `length` steps runs over."""

  def inner(source):
    # No more slices than elements, so that following a loop around the scan comes to an end.
    return source._replace(slices=min(source.slices * length, source.size))

  return origin._replace(
    leaf=None if origin.leaf is None else inner(origin.leaf),
    sources=frozenset(map(inner, origin.sources)),
    width=min(origin.width, size),
    layout=layouts.sliced(origin.layout),
  )


def stacked(origin: Origin, length: int) -> Origin:
  """What a scan of `length` steps stacks from its slices; undoes `sliced`."""

  def outer(source):
    # A leaf that every step used whole is repeated by stacking, and held no more.
    return source._replace(slices=max(source.slices // length, 1)) if length else source

  leaf = origin.leaf
  if leaf is not None and (length == 0 or leaf.slices % length or leaf.slices < length):
    leaf = None
  return origin._replace(
    leaf=None if leaf is None else outer(leaf),
    sources=frozenset(map(outer, origin.sources)),
    width=origin.width * length,
    layout=layouts.stacked(origin.layout, length),
  )


def find_weight(
  operands: Sequence[Operand], kernels: Sequence[int], where: str
) -> tuple[int, Source | None]:
  """Tells which operand of a convolution or matrix product is its weight, and which leaf that is.

  Args:
    operands: both operands.
    kernels: the indices of those that may be the weight, the likeliest first.
    where: names the operation in errors.

  Returns:
    The operand's index and the leaf. Without a weight, the first of `kernels` and None.

  Raises:
    AmbiguousWeightError: if no operand is one leaf, and one is computed from several.
  """
  held = [k for k in kernels if operands[k].origin.leaf is not None]
  if held:
    kernel = min(held, key=lambda k: operands[k].origin.width)
    return kernel, operands[kernel].origin.leaf
  several = None
  for k in kernels:
    origin, size = operands[k]
    if origin.computed or not origin.sources or origin.width >= size:
      continue
    large = [source for source in origin.sources if source.size >= size * source.slices]
    candidates = origin.sources if len(origin.sources) == 1 else large
    if len(candidates) == 1:
      return k, next(iter(candidates))
    several = several or origin.sources
  if several:
    names = ', '.join(sorted(source.path for source in several))
    raise AmbiguousWeightError(
      f'the kernel of {where} is computed from several leaves of the parameters ({names}), none of '
      'which it holds element for element; trace a form of the function in which each kernel comes '
      'from one leaf'
    )
  return kernels[0], None
