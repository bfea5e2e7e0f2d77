"""Traces a network's layers from any JAX function of its parameters."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax

from cnnopt_jax.workload import jaxprs, provenance
from cnnopt_jax.workload.dataflow import trace_dataflow
from cnnopt_jax.workload.paths import path_string
from cnnopt_jax.workload.scopes import module_paths, parent
from cnnopt_jax.workload.table import Layer, LayerTable, Parameter
from cnnopt_jax.workload.walk import Findings, Found, nothing, walk


def _is_array(leaf: Any) -> bool:
  return hasattr(leaf, 'shape') and hasattr(leaf, 'dtype')


def _split(leaves: list[Any]) -> tuple[list[Any], Callable[[Iterable[Any]], list[Any]]]:
  """The arrays among leaves, and a function that puts others in their places."""
  arrays = [leaf for leaf in leaves if _is_array(leaf)]

  def merge(replacements):
    replacements = iter(replacements)
    return [next(replacements) if _is_array(leaf) else leaf for leaf in leaves]

  return arrays, merge


def trace_layers(fn: Callable[..., Any], params: Any, *args: Any, **kwargs: Any) -> LayerTable:
  """Lists the convolutions and matrix products of `fn(params, *args, **kwargs)`.

  Nothing is executed: the function is traced by `jax.make_jaxpr`, so arrays may be
  `jax.ShapeDtypeStruct`. The function may be written with any library or none, jitted, vmapped and
  rematerialised, with scans and branches in it. Its kernels may be computed from their leaves:
  cast, standardised, quantized with traced bits. What decides which leaf a kernel is stands in
  `provenance.py`.

      table = trace_layers(lambda p, x: net.apply({'params': p}, x), params,
                           jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
      print(table)

  The table is that of the program as traced: every equation counts, even if its result is not
  used; of the branches of a `cond` the one with the most multiply-accumulates; a scan's body once
  for each step.

  Args:
    fn: the function.
    params: a pytree whose arrays are the network's parameters. Only its leaves can be weights.
    *args: the other arguments. Arrays in them are input data, even if another function calls them
      parameters; all other leaves (flags, Python numbers, functions) are passed on as they are.
    **kwargs: keyword arguments, treated the same way.

  Returns:
    The table.

  Raises:
    UnknownPrimitiveError: if the function has a primitive of unknown cost.
    UnboundedLoopError: if a while loop has a convolution or matrix product in it.
    AmbiguousWeightError: if a kernel is computed from several leaves and is none of them.
    ValueError: if two leaves of `params` have the same path.
  """
  leaves_with_paths, params_tree = jax.tree_util.tree_flatten_with_path(params)
  arrays, merge_params = _split([leaf for _, leaf in leaves_with_paths])
  paths = [path_string(path) for path, leaf in leaves_with_paths if _is_array(leaf)]
  for i, path in enumerate(sorted(paths)[1:]):
    if path == sorted(paths)[i]:
      raise ValueError(f'two leaves of the parameters have the path {path!r}')
  data_leaves, data_tree = jax.tree.flatten((args, kwargs))
  data, merge_data = _split(data_leaves)

  def flat_fn(arrays, data):
    inner_args, inner_kwargs = jax.tree.unflatten(data_tree, merge_data(data))
    result = fn(jax.tree.unflatten(params_tree, merge_params(arrays)), *inner_args, **inner_kwargs)
    return [leaf for leaf in jax.tree.leaves(result) if _is_array(leaf)]

  program = jax.make_jaxpr(flat_fn)(arrays, data)
  variables = jaxprs.opened(program).invars
  avals = [jaxprs.array_type(var) for var in variables]
  origins = [provenance.parameter(path, aval.shape) for path, aval in zip(paths, avals)]
  origins += [provenance.data(aval.size) for aval in avals[len(paths) :]]
  found = nothing()
  walk(program, origins, found)
  return LayerTable(
    _layers(found.operations),
    _parameters(dict(zip(paths, avals)), found),
    trace_dataflow(program, paths, len(found.operations)),
  )


def _channels(found: Found) -> int:
  """Features the weight leaf produces, over all slices of stacked weights."""
  return found.operation.output_channels * found.leaf.slices if found.leaf is not None else 0


def _layers(found: list[Found]) -> tuple[Layer, ...]:
  weights = [None if f.leaf is None else f.leaf.path for f in found]
  modules = module_paths((f.scopes, weight) for f, weight in zip(found, weights))
  rows = []
  for f, weight, module in zip(found, weights, modules):
    rows.append(
      Layer(
        kind=f.kind,
        path=module,
        weight=weight,
        input_shape=f.input_shape,
        kernel_shape=f.kernel_shape,
        output_shape=f.output_shape,
        groups=f.operation.groups,
        fan_in=f.operation.fan_in,
        output_channels=_channels(f),
        weights=math.prod(f.kernel_shape) * f.leaf.slices if f.leaf is not None else 0,
        count=f.executions,
        macs=f.macs,
        dtype=f.dtype,
        **f.operation.geometry,
      )
    )
  return tuple(rows)


def _parameters(avals: dict[str, Any], found: Findings) -> tuple[Parameter, ...]:
  """All leaves with their roles."""
  kernels: dict[str, Found] = {}
  for f in found.operations:  # Of several uses the first, or the first that is understood.
    if f.leaf is not None:
      known = kernels.setdefault(f.leaf.path, f)
      if known.output_axes is None and f.output_axes is not None:
        kernels[f.leaf.path] = f
  # What a kernel is computed from, such as a step for each channel, is added to no output.
  sources = {source.path for f in found.operations for source in f.sources}
  biases = {(parent(f.leaf.path), _channels(f)) for f in found.operations if f.leaf is not None}

  def role(path, aval):
    if path in found.looked_up:
      return 'embedding'
    if path in kernels:
      return 'weight'
    if path not in sources and (parent(path), aval.size) in biases:
      return 'bias'
    return 'norm' if aval.ndim - found.stacked.get(path, 0) <= 1 else 'other'

  return tuple(
    Parameter(
      path=path,
      shape=tuple(aval.shape),
      dtype=aval.dtype.name,
      role=role(path, aval),
      output_axes=kernels[path].output_axes if path in kernels else None,
      stack_axes=found.stacked.get(path, 0),
    )
    for path, aval in avals.items()
  )
