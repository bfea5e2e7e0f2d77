"""Whole parameter trees with their quantized leaves as bytes."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from cnnopt_jax import compilation
from cnnopt_jax.quant import groups, quantizers, tree
from cnnopt_jax.quant.gaussian import IDENTITY_BITS
from cnnopt_jax.quant.packing.leaves import (
  Packed,
  PackedStack,
  pack_values,
  packed_levels,
  unpack_leaf,
  unpacked_on_host,
)
from cnnopt_jax.quant.plan import LeafPlan, WeightPlan
from cnnopt_jax.quant.tree import QUANTIZE_FIRST, BitsTree, Steps, bits_by_path
from cnnopt_jax.workload import path_string, refuse_prepared

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


def pack(
  params: Params, bits: BitsTree, plan: WeightPlan, steps: Steps | None = None
) -> PackedParams:
  """Quantizes a parameter tree and packs it into bytes.

  The values are those of `quantize_params`, but for the last bits of a step, which any two programs
  may round otherwise. What is packed is unpacked bit for bit.

  Args:
    params: in float.
    bits: as in `quantize_params`, not traced.
    plan: of the network.
    steps: learned ones, as in `quantize_params`.

  Returns:
    The packed tree. Two bits of 'mid_tread' levels are ternary, five to a byte.

  Raises:
    ValueError: naming a leaf that the plan does not fit, whose bits or steps are missing or not
      allowed, or that holds values or steps that are not finite.
  """
  refuse_prepared(params, QUANTIZE_FIRST)
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
  few = {path: b for path, b in found.items() if np.any(np.asarray(b) != IDENTITY_BITS)}
  given = dict(zip(paths, leaves))
  tree.check_steps(steps, {path: few.get(path) for path in found}, plan)
  learned = {path: steps[path] for path in few} if steps else {}
  for path in few:
    if np.shape(given[path]) != planned[path].shape:
      raise ValueError(
        f'{path} {np.shape(given[path])}: the plan has {planned[path].shape}; allowed: a plan of '
        'these params'
      )
    if not np.all(np.isfinite(given[path])):
      raise ValueError(f'{path}: not all values are finite')
    if path in learned and not np.all(np.isfinite(learned[path])):
      raise ValueError(f'{path}: not all steps are finite')
  grids = _grids({path: given[path] for path in few}, few, learned, plan)
  levels = plan.quantizer.levels
  packed = [
    _packed(grids[path], found[path], planned[path], levels, leaf) if path in few else leaf
    for path, leaf in given.items()
  ]
  roles = tuple(planned[path].role if path in planned else 'other' for path in paths)
  return PackedParams(tuple(packed), tuple(paths), roles, jax.tree.structure(params))


def unpack_on_host(packed: PackedParams) -> Params:
  """What `unpack` gives, as NumPy arrays: nothing to compile."""
  return jax.tree.unflatten(packed.structure, map(unpacked_on_host, packed.leaves))


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


@functools.partial(jax.jit, static_argnames='plan', compiler_options=compilation.QUICKLY)
def _grids(leaves, bits, steps, plan) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Values and steps of each leaf: one program for a network, whatever its bits."""
  where = {name: plan.quantizer.options[name] for name in ('levels', 'step')}

  def grid(w, b, step, leaf):
    values = tree.quantize_leaf(w, b, leaf, plan.quantizer, step=step)
    if step is not None:
      return values, step
    options = {'channel_axis': leaf.output_axes, **where}
    if leaf.group_size:
      options['group_size'] = leaf.group_size
      return values, groups.grouped_quantization_step(w, b, **options)
    return values, quantizers.quantization_step(w, b, **options)

  found = {}
  for leaf in plan.quantized:
    if leaf.path not in leaves:
      continue
    w, b, step = leaves[leaf.path], jnp.asarray(bits[leaf.path]), steps.get(leaf.path)
    if b.ndim:  # One for each slice along the first axis.
      found[leaf.path] = jax.vmap(functools.partial(grid, leaf=leaf.layer))(w, b, step)
    else:
      found[leaf.path] = grid(w, b, step, leaf)
  return found


def _packed(grid, bits, leaf: LeafPlan, levels: str, in_float) -> Packed:
  values, steps = grid

  def one(leaf, values, steps, width):
    kind = packed_levels(width, levels)
    return pack_values(values, steps, width, kind, leaf.output_axes or (), leaf.group_size)

  if np.ndim(bits) == 0:
    return one(leaf, values, steps, int(bits))
  slices = [
    in_float[i] if width == IDENTITY_BITS else one(leaf.layer, values[i], steps[i], width)
    for i, width in enumerate(np.asarray(bits).tolist())
  ]
  return PackedStack(tuple(slices))
