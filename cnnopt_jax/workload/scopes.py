"""Module names from the scopes that surround an operation in a traced program."""

import functools
import re
from collections.abc import Iterable

# A transformation prints as a call around the scope it was applied to: 'vmap(Conv_0)'.
_TRANSFORM = re.compile(r'^(\w+)\((.*)\)$')
# These stand for a function that was compiled or rematerialised, not for a module.
_FUNCTIONS = ('jit', 'pjit', 'checkpoint', 'remat')
_MARKERS = ('checkpoint', 'rematted_computation')


@functools.lru_cache(maxsize=4096)
def parse_scopes(name_stack: str) -> tuple[str, ...]:
  """The names that modules and users gave, from a name stack as JAX prints it.

  Transformations are taken off, 'transpose(jvp(Net))/Conv_0' gives ('Net', 'Conv_0'), and names
  that JAX itself put there are dropped: of compiled functions, of rematerialised parts and of
  einsum's equations.

  Args:
    name_stack: `str(eqn.source_info.name_stack)`.

  Returns:
    The names from the outside in.
  """
  names = []
  for name in name_stack.split('/'):
    while (match := _TRANSFORM.match(name)) is not None:
      name = '' if match[1] in _FUNCTIONS else match[2]
    if name and name not in _MARKERS and '->' not in name:
      names.append(name)
  return tuple(names)


def merge_methods(scopes: tuple[str, ...]) -> tuple[str, ...]:
  """Drops the scope of a method that a module calls on itself: ('Net', 'Net.encode') is 'Net'."""
  kept: list[str] = []
  for name in scopes:
    if not (kept and name.startswith(f'{kept[-1]}.')):
      kept.append(name)
  return tuple(kept)


def parent(path: str) -> str:
  """The path of the module that owns a leaf; '' at the root."""
  return path.rpartition('/')[0]


def module_paths(operations: Iterable[tuple[tuple[str, ...], str | None]]) -> list[str]:
  """Names the modules of operations so that they agree with the tree of the parameters.

  The parent of the weight leaf names the module where there is one: linen's scopes say the same,
  nnx has none and Equinox's name the class. For an operation without a weight the scopes do, once
  the first of them, with linen the class of the outermost module, is replaced by the place where
  the weights under that same scope were found.

  Args:
    operations: for each its scopes, from the outside in, and the path of its weight leaf or None.

  Returns:
    One path for each, '' for an operation at the root with no scopes.
  """
  operations = [(merge_methods(scopes), weight) for scopes, weight in operations]
  roots = {}
  for scopes, weight in operations:
    if scopes and weight is not None:
      module = f'/{parent(weight)}'
      inner = '/'.join(scopes[1:])
      if module.endswith('/' + '/'.join(scopes)):
        # The outermost scope is itself a node of the tree: it stays.
        roots[scopes[0]] = module[1 : len(module) - len(inner)].strip('/')
      elif not inner or module.endswith(f'/{inner}'):
        roots.setdefault(scopes[0], module[1 : len(module) - len(inner)].strip('/'))
  paths = []
  for scopes, weight in operations:
    if weight is not None and parent(weight):
      paths.append(parent(weight))
    elif scopes and weight is None and scopes[0] in roots:
      paths.append('/'.join(filter(None, (roots[scopes[0]], *scopes[1:]))))
    else:
      paths.append('/'.join(scopes))
  return paths
