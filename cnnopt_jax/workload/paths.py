"""The strings that name a leaf of a parameter tree, the same in every part of the library."""

from typing import Any

from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey

# Flax boxes an array in a node whose only child is reached by this attribute: nnx variables, and
# linen's `Partitioned` and `LogicallyPartitioned`. It names the box, not the parameter.
_BOX_ATTRIBUTE = 'value'


def _part(key: Any) -> str:
  """One step of a key path as text."""
  match key:
    case DictKey() | FlattenedIndexKey():
      return str(key.key)
    case GetAttrKey():
      return key.name
    case SequenceKey():
      return str(key.idx)
    case _:
      raise TypeError(f'unknown kind of key in a tree path: {key!r} of type {type(key).__name__}')


def path_string(key_path: tuple[Any, ...]) -> str:
  """Writes a key path of `jax.tree_util` as its parts joined by '/'.

  Dictionary keys, attribute names and sequence indices are written as they are, so a linen kernel
  is 'Conv_0/kernel', an Equinox one 'layers/0/weight', an nnx one 'conv/kernel': a last attribute
  `value`, with which Flax opens the box around an array, is left out unless it is the whole path.
  The key 'value' of a dictionary stays, for it is a name somebody chose.

  Args:
    key_path: a tuple of keys as `jax.tree_util.tree_flatten_with_path` returns them.

  Returns:
    The path; '' for a tree that is one leaf.

  Raises:
    TypeError: if a key is none of the four kinds that `jax.tree_util` defines.
  """
  if len(key_path) > 1:
    last = key_path[-1]
    if isinstance(last, GetAttrKey) and last.name == _BOX_ATTRIBUTE:
      key_path = key_path[:-1]
  return '/'.join(_part(key) for key in key_path)
