"""Nodes of a parameter tree that hold what was computed from a parameter, for inference."""

from typing import Any

import jax

from cnnopt_jax.workload.paths import path_string


class Prepared:
  """Base of such nodes: their arrays belong together, and none of them is a parameter.

  A training step or a quantizer that took each array by itself would tear them apart.
  """


def refuse_prepared(params: Any, instead: str) -> None:
  """Checks that a parameter tree is one of parameters.

  Args:
    params: any pytree.
    instead: what to do with the parameters, such as 'quantize these, then prepare'.

  Raises:
    ValueError: if the tree holds a `Prepared`, naming it.
  """
  is_prepared = lambda node: isinstance(node, Prepared)
  for path, leaf in jax.tree_util.tree_flatten_with_path(params, is_leaf=is_prepared)[0]:
    if is_prepared(leaf):
      raise ValueError(
        f'params: {path_string(path)!r} is prepared for inference, a {type(leaf).__name__}; '
        f'allowed: the trained parameters; {instead}'
      )
