"""What a file says of each leaf, as JSON, and the tensors that a leaf is stored as."""

import dataclasses
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cnnopt_jax.quant.gaussian import IDENTITY_BITS
from cnnopt_jax.quant.packing.leaves import PACKED_LEVELS, Packed, PackedLeaf, PackedStack, parts
from cnnopt_jax.quant.quantizers import BITS

Record = dict[str, Any]


def record(packed: Packed) -> Record:
  """What is known of a leaf but for its numbers.

  Args:
    packed: one leaf, abstract or not.

  Returns:
    `shape`, `dtype` and `bits`, 32 for a leaf in float; if it is quantized `output_axes` and
    `levels` too, `group_size` if it has groups, and `unit_steps` if it stores no steps, all being
    1. Of a stack, only its `slices`.
  """
  if isinstance(packed, PackedStack):
    return {'slices': [record(slice_) for slice_ in packed.slices]}
  known: Record = {'shape': list(packed.shape), 'dtype': jnp.dtype(packed.dtype).name}
  if not isinstance(packed, PackedLeaf):
    return {**known, 'bits': IDENTITY_BITS}
  axes = list(packed.output_axes)
  known |= {'bits': packed.bits, 'output_axes': axes, 'levels': packed.levels}
  grouped = {'group_size': packed.group_size} if packed.group_size else {}
  return {**known, **grouped, **({'unit_steps': True} if packed.steps is None else {})}


def abstract(known: Record) -> Packed:
  """The leaf of a record with `jax.ShapeDtypeStruct` for its arrays.

  Args:
    known: from `record`.

  Returns:
    The leaf.

  Raises:
    KeyError: if an entry is missing.
    TypeError: if an entry is of another kind.
    ValueError: if an entry is not allowed.
  """
  if 'slices' in known:
    return PackedStack(tuple(_abstract_part(slice_) for slice_ in known['slices']))
  return _abstract_part(known)


def _abstract_part(known: Record) -> PackedLeaf | jax.Array:
  shape = tuple(operator.index(n) for n in known['shape'])
  dtype, bits = jnp.dtype(known['dtype']), operator.index(known['bits'])
  if any(n < 0 for n in shape):
    raise ValueError(f'shape={shape}; allowed: lengths from 0 up')
  if bits == IDENTITY_BITS:
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[return-value]
  axes, levels = tuple(operator.index(axis) for axis in known['output_axes']), known['levels']
  if bits not in BITS or levels not in PACKED_LEVELS or (bits, levels) == (1, 'mid_tread'):
    raise ValueError(f'bits={bits} with levels={levels!r}; allowed: 1 to 8, {PACKED_LEVELS}')
  if list(axes) != sorted(set(axes) & set(range(len(shape)))):
    raise ValueError(f'output_axes={axes}; allowed: rising axes of shape {shape}')
  if not jnp.issubdtype(dtype, jnp.floating):
    raise ValueError(f'dtype={dtype.name} of {bits} bits; allowed: floating-point types')
  group_size = operator.index(known.get('group_size', 0))
  if group_size < 0:
    raise ValueError(f'group_size={group_size}; allowed: 1 or more, 0 for no groups')
  unit_steps = known.get('unit_steps', False)
  if not isinstance(unit_steps, bool):
    raise ValueError(f'unit_steps={unit_steps!r}; allowed: true, or false for steps of its own')
  leaf = PackedLeaf(None, None, shape, dtype.name, bits, levels, axes, group_size)  # type: ignore[arg-type]
  steps = None if unit_steps else jax.ShapeDtypeStruct((leaf.num_steps,), leaf.steps_dtype)
  return dataclasses.replace(
    leaf,
    codes=jax.ShapeDtypeStruct((leaf.codes_size,), jnp.uint8),  # type: ignore[arg-type]
    steps=steps,  # type: ignore[arg-type]
  )


def tensor_names(path: str, packed: Packed) -> Iterator[str]:
  """Names of the tensors that a leaf is stored as, in the order of `jax.tree.leaves(packed)`."""
  for i, part in enumerate(parts(packed)):
    name = f'{path}#{i}' if isinstance(packed, PackedStack) else path
    if isinstance(part, PackedLeaf):
      yield f'{name}#codes'
      if part.steps is not None:
        yield f'{name}#steps'
    else:
      yield name


def nested(paths: Sequence[str]) -> Any:
  """The tree of dicts whose leaves have the given paths, each leaf its place among them.

  Args:
    paths: parts joined by '/'; '' for a tree that is one leaf.

  Returns:
    Nested dicts of ints.

  Raises:
    ValueError: if one path leads through another.
  """
  if list(paths) == ['']:
    return 0
  tree: dict[str, Any] = {}
  for i, path in enumerate(paths):
    *modules, last = path.split('/')
    node = tree
    for module in modules:
      node = node.setdefault(module, {})
      if not isinstance(node, dict):
        break
    if not isinstance(node, dict) or last in node:
      raise ValueError(
        f'path={path!r} leads through another leaf; allowed: to load it `like` a tree'
      )
    node[last] = i
  return tree
