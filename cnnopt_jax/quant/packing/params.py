"""Whole parameter trees with their quantized leaves as bytes."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from cnnopt_jax.quant import quantizers
from cnnopt_jax.quant.gaussian import IDENTITY_BITS
from cnnopt_jax.quant.packing.leaves import (
  Packed,
  PackedStack,
  pack_values,
  packed_levels,
  unpack_leaf,
)
from cnnopt_jax.quant.plan import LeafPlan, WeightPlan
from cnnopt_jax.quant.tree import BitsTree, bits_by_path
from cnnopt_jax.workload import path_string

Params = Any


@struct.dataclass
class PackedParams:
  """A parameter tree whose quantized leaves are packed; itself a tree of arrays.

      unpack(packed) == jax.tree.unflatten(packed.structure, map(unpack_leaf, packed.leaves))
      len(packed.leaves) == len(packed.paths) == len(packed.roles) == packed.structure.num_leaves

  Attributes:
    leaves: in the order of the tree: a `PackedLeaf` or `PackedStack` for what is quantized, any
      other leaf as it is.
    paths: of the leaves.
    roles: of the leaves, as `workload.Parameter` has them.
    structure: of the parameter tree.
  """

  leaves: tuple[Packed, ...]
  paths: tuple[str, ...] = struct.field(pytree_node=False)
  roles: tuple[str, ...] = struct.field(pytree_node=False)
  structure: jax.tree_util.PyTreeDef = struct.field(pytree_node=False)

  def __getitem__(self, path: str) -> Packed:
    """The leaf at a path, packed."""
    return dict(self.items())[path]

  def items(self) -> Iterator[tuple[str, Packed]]:
    """Paths and leaves."""
    return zip(self.paths, self.leaves, strict=True)


def pack(params: Params, bits: BitsTree, plan: WeightPlan) -> PackedParams:
  """Quantizes a parameter tree and packs it into bytes.

  The values are those of

      fake_quantize(leaf, bits, channel_axis=output_axes, **plan.quantizer.options)

  called on each leaf outside `jax.jit` (inside, a step may round otherwise), under `jax.vmap` for a
  leaf whose bits are an array: those of `quantize_params`.

  Args:
    params: in float.
    bits: as in `quantize_params`, not traced.
    plan: of the network.

  Returns:
    The packed tree. Two bits of 'mid_tread' levels are ternary, five to a byte.

  Raises:
    ValueError: naming a leaf that the plan does not fit, whose bits are missing or not allowed, or
      that holds values that are not finite.
  """
  paths, leaves = _named_leaves(params)
  planned = {leaf.path: leaf for leaf in plan.leaves}
  if len(set(paths)) < len(paths):
    twice = next(path for path in paths if paths.count(path) > 1)
    raise ValueError(f'params: two leaves have the path {twice!r}')
  arrays = {path for path, leaf in zip(paths, leaves) if hasattr(leaf, 'dtype')}
  if different := sorted(arrays ^ set(planned)):
    where = 'the plan' if different[0] in planned else 'params'
    raise ValueError(f'path={different[0]!r} is only in {where}; allowed: a plan of these params')
  found = bits_by_path(plan, bits)
  packed = []
  for path, leaf in zip(paths, leaves):
    try:
      if path in arrays:
        leaf = _pack_leaf(leaf, found[path], planned[path], plan.quantizer.options)
    except ValueError as error:
      raise ValueError(f'{path} {np.shape(leaf)}: {error}') from None
    packed.append(leaf)
  roles = tuple(planned[path].role if path in planned else 'other' for path in paths)
  return PackedParams(tuple(packed), tuple(paths), roles, jax.tree.structure(params))


def unpack(packed: PackedParams) -> Params:
  """The quantized parameters that a packed tree stands for, bit for bit; may be traced.

      model.apply({'params': unpack(packed)}, x)

  Args:
    packed: from `pack` or `load`.

  Returns:
    A tree like the parameters that were packed.

  Raises:
    ValueError: if JAX has the type of a leaf switched off.
  """
  return jax.tree.unflatten(packed.structure, [unpack_leaf(leaf) for leaf in packed.leaves])


def _named_leaves(tree: Any) -> tuple[list[str], list[Any]]:
  """Paths and leaves of a tree, in order."""
  flat = jax.tree_util.tree_flatten_with_path(tree)[0]
  return [path_string(path) for path, _ in flat], [leaf for _, leaf in flat]


def _pack_leaf(leaf: Any, bits: Any, planned: LeafPlan, options: Mapping[str, Any]) -> Packed:
  if np.shape(leaf) != planned.shape:
    raise ValueError(f'the plan has {planned.shape}; allowed: a plan of these params')
  if planned.output_axes is None or np.all(np.asarray(bits) == IDENTITY_BITS):
    return leaf
  if not np.all(np.isfinite(leaf)):
    raise ValueError('not all values are finite')
  bits, axes = np.asarray(bits), tuple(planned.output_axes)
  if bits.ndim:
    return _pack_stack(leaf, bits, axes, options)
  return _pack_whole(leaf, int(bits), axes, options)


def _pack_whole(
  w: Any, bits: int, output_axes: tuple[int, ...], options: Mapping[str, Any]
) -> Packed:
  values = quantizers.fake_quantize(w, bits, channel_axis=output_axes, **options)
  steps = quantizers.quantization_step(w, bits, channel_axis=output_axes, **_grid(options))
  return pack_values(values, steps, bits, packed_levels(bits, options['levels']), output_axes)


def _pack_stack(
  w: Any, bits: np.ndarray, output_axes: tuple[int, ...], options: Mapping[str, Any]
) -> PackedStack:
  """Of a leaf whose slices along the first axis have a bitwidth each."""
  axes = tuple(axis - 1 for axis in output_axes if axis)
  values = jax.vmap(lambda w, b: quantizers.fake_quantize(w, b, channel_axis=axes, **options))(
    jnp.asarray(w), jnp.asarray(bits)
  )
  steps = jax.vmap(
    lambda w, b: quantizers.quantization_step(w, b, channel_axis=axes, **_grid(options))
  )(jnp.asarray(w), jnp.asarray(bits))
  slices = [
    one
    if width == IDENTITY_BITS
    else pack_values(one, step, width, packed_levels(width, options['levels']), axes)
    for one, step, width in zip(values, steps, bits.tolist(), strict=True)
  ]
  return PackedStack(tuple(slices))


def _grid(options: Mapping[str, Any]) -> dict[str, Any]:
  """Those options that decide where the levels lie."""
  return {name: options[name] for name in ('levels', 'step')}
