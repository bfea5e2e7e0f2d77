"""Kernels prepared once for reading virtual maps."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from cnnopt_jax.kernels import platforms, winograd
from cnnopt_jax.kernels.taps import widen
from cnnopt_jax.vip.arguments import floating
from cnnopt_jax.vip.reading import fold_taps
from cnnopt_jax.workload import Prepared

# With fewer channels the sums around the products outweigh what they save. Measured on 2 CPU cores;
# on other platforms nothing has been, and XLA's convolution there has fast forms of its own.
_TRANSFORMED_FROM_CHANNELS = 32


class _Prepared(Prepared):
  """Shape and type are those of the kernel that was prepared."""

  taps: jax.Array
  transformed: jax.Array | None

  @property
  def shape(self) -> tuple[int, ...]:
    return self.taps.shape

  @property
  def dtype(self):
    return self.taps.dtype

  def astype(self, dtype):
    """The same with taps of another type; the transform stays in float32 at least."""
    transformed = self.transformed
    if transformed is not None:
      transformed = transformed.astype(jnp.promote_types(dtype, jnp.float32))
    return dataclasses.replace(self, taps=self.taps.astype(dtype), transformed=transformed)  # type: ignore[type-var]


@struct.dataclass
class FoldedKernel(_Prepared):
  """A 3x3 kernel in the form in which it reads the samples of a virtual map.

  For a window with one position of padding at an even stride, per axis (K of `reading.py`),

      K = (w[0]/2, w[0]/2 + w[1] + w[2]/2, w[2]/2).

  Its outer taps are also what the ends of the map need, so border terms need no storage of their
  own, and the map is invertible, so an array can still be convolved with it.

  Attributes:
    taps: [3, 3, Cin / groups, Cout].
    transformed: [4, 4, Cin, Cout], the taps as `kernels.winograd` multiplies them, in float32 at
      least, or None.
    reads: what it was prepared for. Static, to tell the two classes apart: JAX compares dataclasses
      in trees by their static fields, not by class (`tests/test_pytrees.py`).
  """

  taps: jax.Array
  transformed: jax.Array | None = None
  reads: str = struct.field(pytree_node=False, default='samples')

  def unfold(self) -> jax.Array:
    """The kernel that was folded, up to rounding."""
    w = widen(self.taps)
    for axis in (0, 1):
      a, b, c = (jax.lax.index_in_dim(w, i, axis) for i in range(3))
      w = jnp.concatenate([2 * a, b - a - c, 2 * c], axis)
    return w.astype(self.dtype)


@struct.dataclass
class WinogradKernel(_Prepared):
  """A 3x3 kernel with its transform, for reading arrays at stride 1.

  Attributes:
    taps: [3, 3, Cin, Cout], the kernel.
    transformed: [4, 4, Cin, Cout], as `kernels.winograd` multiplies it, in float32 at least.
    reads: as in `FoldedKernel`.
  """

  taps: jax.Array
  transformed: jax.Array
  reads: str = struct.field(pytree_node=False, default='arrays')


@jax.custom_jvp
def constant(kernel: FoldedKernel | WinogradKernel) -> FoldedKernel | WinogradKernel:
  """A prepared kernel as it is used: it has no derivative, and to ask for one is an error.

  Its arrays are made from one kernel. A step along their own gradients would leave taps and
  transform, which different forms read, those of two.
  """
  return kernel


@constant.defjvp
def _constant_jvp(primals, tangents):
  raise ValueError(
    f'derivative by a prepared kernel, a {type(primals[0]).__name__}; allowed: by the kernel that '
    'it was prepared from: train the trained parameters, then prepare'
  )


def fold_kernel(kernel: jax.Array, *, platform: str | None = None) -> FoldedKernel:
  """Folds a 3x3 kernel; with its transform, where that may serve.

  Args:
    kernel: [3, 3, Cin / groups, Cout].
    platform: that the result is for, one of `kernels.platforms.PLATFORMS`; None for
      `jax.default_backend()`. Only a CPU's kernels get a transform, and only from 32 channels on.

  Returns:
    The folded kernel.

  Raises:
    ValueError: if the kernel is not 3x3 or of no floating type, or the platform unknown.
  """
  if tuple(kernel.shape[:2]) != (3, 3):
    raise ValueError(f'kernel of shape {tuple(kernel.shape)}; allowed: [3, 3, Cin / groups, Cout]')
  taps = fold_taps(fold_taps(widen(floating('kernel', kernel)), 0, 1), 1, 1)
  transformed = winograd.transform_kernel(taps) if _may_serve(kernel, platform) else None
  return FoldedKernel(taps.astype(kernel.dtype), transformed)


def winograd_kernel(
  kernel: jax.Array, *, platform: str | None = None
) -> WinogradKernel | jax.Array:
  """A 3x3 kernel with its transform, where that may serve; elsewhere the kernel itself.

  Args:
    kernel: [kh, kw, Cin, Cout], read without groups.
    platform: as in `fold_kernel`.

  Returns:
    What `conv` takes as a kernel.

  Raises:
    ValueError: if the platform is unknown.
  """
  serves = _may_serve(kernel, platform) and jnp.issubdtype(kernel.dtype, jnp.floating)
  if not serves or tuple(kernel.shape[:2]) != (3, 3):
    return kernel
  return WinogradKernel(kernel, winograd.transform_kernel(kernel))


def _may_serve(kernel, platform) -> bool:
  return platforms.is_cpu(platform) and min(kernel.shape[2:]) >= _TRANSFORMED_FROM_CHANNELS


def fold(params: Any, plan: Iterable[str], *, platform: str | None = None) -> Any:
  """Turns trained parameters into inference parameters: kernels that read virtual maps are folded.

  The result goes where the parameters went and computes the same, without folding at every call.
  Kernels that are not 3x3 stay as they are. It is for inference alone: its kernels have no
  derivative and are not quantized.

  Args:
    params: a nested dict.
    plan: names of the units to fold, such as 'stage1_block0/unit1': those whose *input* is a
      virtual map (`models.virtual_inputs` lists them). Networks of `models` refuse others.
    platform: as in `fold_kernel`.

  Returns:
    A new tree; everything else in it is shared with `params`.

  Raises:
    ValueError: if a name leads to no kernel or to one that was prepared for arrays, or the platform
      is unknown.
  """

  def fold_3x3(kernel):
    return fold_kernel(kernel, platform=platform) if tuple(kernel.shape[:2]) == (3, 3) else kernel

  return _prepare(params, plan, FoldedKernel, fold_3x3)


def winograd_transform(params: Any, names: Iterable[str], *, platform: str | None = None) -> Any:
  """The same for units that read an array at stride 1, without groups: `winograd_kernel`.

  Args:
    params: a nested dict.
    names: of units, as in `fold`.
    platform: as in `fold_kernel`.

  Returns:
    A new tree; everything else in it is shared with `params`.

  Raises:
    ValueError: if a name leads to no kernel or to one that was folded, or the platform is unknown.
  """
  transform = functools.partial(winograd_kernel, platform=platform)
  return _prepare(params, names, WinogradKernel, transform)


def _prepare(
  params: Any, names: Iterable[str], kind: type, function: Callable[[jax.Array], Any]
) -> Any:
  """`params` with `function` of the kernel of each named unit; kernels of the kind stay."""
  for name in names:
    params = _prepare_at(params, name.split('/'), name, kind, function)
  return params


def _prepare_at(tree: Any, path: list[str], name: str, kind: type, function) -> Any:
  if not isinstance(tree, Mapping) or (path and path[0] not in tree):
    raise ValueError(
      f'plan: {name!r} is no unit of these parameters; allowed: names of units with a kernel'
    )
  if path:
    return {**tree, path[0]: _prepare_at(tree[path[0]], path[1:], name, kind, function)}
  for leaf in ('conv', 'kernel'):
    if leaf in tree:
      value = tree[leaf]
      if isinstance(value, Mapping):
        return {**tree, leaf: _prepare_at(value, [], name, kind, function)}
      if isinstance(value, _Prepared) and not isinstance(value, kind):
        raise ValueError(
          f'plan: the kernel of {name!r} is a {type(value).__name__}, prepared for another way to '
          'read; allowed: the trained parameters'
        )
      return tree if isinstance(value, _Prepared) else {**tree, leaf: function(value)}
  raise ValueError(f'plan: {name!r} has no kernel; allowed: names of units with a kernel')
