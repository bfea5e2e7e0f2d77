"""A call of any function as a `Program` of its arrays; what is no array passes beside it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from cnnopt_jax.vip.virtualization.program import Program, flatten
from cnnopt_jax.workload import jaxprs, path_string, provenance

Function = Callable[..., Any]


class Call(NamedTuple):
  """A call that was traced.

  Attributes:
    program: what it computes.
    arrays: what the program is given.
    restore: makes the call's result of what the program gives.
  """

  program: Program
  arrays: list[Any]
  restore: Callable[[Sequence[Any]], Any]


def _is_array(leaf: Any) -> bool:
  return hasattr(leaf, 'shape') and hasattr(leaf, 'dtype')


def _merged(leaves: Sequence[Any], arrays: Sequence[Any]) -> list[Any]:
  """The leaves, those that are arrays replaced by others in their order."""
  given = iter(arrays)
  return [next(given) if _is_array(leaf) else leaf for leaf in leaves]


def trace_call(function: Function, args: Any, kwargs: Any, root: str | None = None) -> Call:
  """Traces a call.

  Args:
    function: its first argument is the tree of parameters.
    args: of the call.
    kwargs: of the call.
    root: the entry of the first argument that holds the parameters, such as linen's 'params'; None
      for all of it.

  Returns:
    The call; layers are named by paths below the root.
  """
  paths_and_leaves, tree = jax.tree_util.tree_flatten_with_path((args, kwargs))
  leaves = [leaf for _, leaf in paths_and_leaves]
  arrays = [leaf for leaf in leaves if _is_array(leaf)]
  found: dict[str, Any] = {}

  def flat(arrays):
    inner_args, inner_kwargs = jax.tree.unflatten(tree, _merged(leaves, arrays))
    out, found['tree'] = jax.tree.flatten(function(*inner_args, **inner_kwargs))
    # Arrays of this trace must not outlive it.
    found['leaves'] = [
      jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if _is_array(leaf) else leaf for leaf in out
    ]
    return [leaf for leaf in out if _is_array(leaf)]

  closed = jax.make_jaxpr(flat)(arrays)
  types = [jaxprs.array_type(var) for var in closed.jaxpr.invars]
  paths = [_parameter_path(path, root) for path, leaf in paths_and_leaves if _is_array(leaf)]
  origins = [
    provenance.data(aval.size) if path is None else provenance.parameter(path, aval.shape)
    for path, aval in zip(paths, types, strict=True)
  ]

  def restore(outputs):
    return jax.tree.unflatten(found['tree'], _merged(found['leaves'], outputs))

  return Call(flatten(closed, origins), arrays, restore)


def _parameter_path(path: tuple[Any, ...], root: str | None) -> str | None:
  """The path of a parameter from a path into (args, kwargs); None for other arguments."""
  if path[0].idx != 0 or path[1].idx != 0:
    return None
  name = path_string(path[2:])
  if root is None:
    return name
  inside = name.startswith(f'{root}/')
  return name.removeprefix(f'{root}/') if inside else None


def abstractly(function: Function, args: Any, kwargs: Any) -> None:
  """Calls a function with arrays that have shapes and types alone; nothing is computed."""
  leaves, tree = jax.tree.flatten((args, kwargs))

  def of_arrays(arrays):
    inner_args, inner_kwargs = jax.tree.unflatten(tree, _merged(leaves, arrays))
    function(*inner_args, **inner_kwargs)

  jax.eval_shape(of_arrays, [leaf for leaf in leaves if _is_array(leaf)])
