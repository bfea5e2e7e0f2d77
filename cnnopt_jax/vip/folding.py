"""Kernels prepared once for reading virtual maps."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from cnnopt_jax.vip.reading import fold_taps


@struct.dataclass
class FoldedKernel:
  """A 3x3 kernel in the form in which it reads the samples of a virtual map.

  For a window with one position of padding at an even stride, per axis (K of `reading.py`),

      K = (w[0]/2, w[0]/2 + w[1] + w[2]/2, w[2]/2).

  Its outer taps are also what the ends of the map need, so border terms need no storage of their
  own, and the map is invertible, so an array can still be convolved with it.

  Attributes:
    taps: [3, 3, Cin / groups, Cout].
  """
  taps: jax.Array

  @property
  def shape(self) -> tuple[int, ...]:
    """As of the kernel that was folded."""
    return self.taps.shape

  @property
  def dtype(self):
    return self.taps.dtype

  def unfold(self) -> jax.Array:
    """The kernel that was folded, up to rounding."""
    w = self.taps
    for axis in (0, 1):
      a, b, c = (jax.lax.index_in_dim(w, i, axis) for i in range(3))
      w = jnp.concatenate([2 * a, b - a - c, 2 * c], axis)
    return w


def fold_kernel(kernel: jax.Array) -> FoldedKernel:
  """Folds a 3x3 kernel.

  Args:
    kernel: [3, 3, Cin / groups, Cout].

  Returns:
    The folded kernel.

  Raises:
    ValueError: if the kernel is not 3x3.
  """
  if tuple(kernel.shape[:2]) != (3, 3):
    raise ValueError(f'kernel of shape {tuple(kernel.shape)}; allowed: [3, 3, Cin / groups, Cout]')
  return FoldedKernel(fold_taps(fold_taps(kernel, 0, 1), 1, 1))


def fold(params: Any, plan: Iterable[str]) -> Any:
  """Turns trained parameters into inference parameters: kernels that read virtual maps are folded.

  The result goes where the parameters went and computes the same, without folding at every call.
  Kernels that are not 3x3 stay as they are.

  Args:
    params: a nested dict.
    plan: names of the units to fold, such as 'stage1_block0/unit1': those whose *input* is a
      virtual map (`models.virtual_inputs` lists them). Others compute the same, but unfold at every
      call.

  Returns:
    A new tree; everything else in it is shared with `params`.

  Raises:
    ValueError: if a name leads to no kernel.
  """
  for name in plan:
    params = _fold_at(params, name.split('/'), name)
  return params


def _fold_at(tree: Any, path: list[str], name: str) -> Any:
  if not isinstance(tree, Mapping) or (path and path[0] not in tree):
    raise ValueError(f'plan: {name!r} is no unit of these parameters; allowed: names of units with '
                     'a kernel')
  if path:
    return {**tree, path[0]: _fold_at(tree[path[0]], path[1:], name)}
  for leaf in ('conv', 'kernel'):
    if leaf in tree:
      value = tree[leaf]
      if isinstance(value, Mapping):
        return {**tree, leaf: _fold_at(value, [], name)}
      foldable = not isinstance(value, FoldedKernel) and tuple(value.shape[:2]) == (3, 3)
      return {**tree, leaf: fold_kernel(value)} if foldable else tree
  raise ValueError(f'plan: {name!r} has no kernel; allowed: names of units with a kernel')
