"""Quantization of whole parameter pytrees, as a plan says."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.quant import groups, learned, quantizers
from cnnopt_jax.quant.gaussian import IDENTITY_BITS
from cnnopt_jax.quant.plan import LeafPlan, Quantizer, WeightPlan
from cnnopt_jax.workload import path_string, refuse_prepared

Params = Any
BitsTree = Any
# Steps of learned quantizers by the path of their leaf.
Steps = Mapping[str, jax.Array]

QUANTIZE_FIRST = 'quantize these, then prepare'  # Of trees that are prepared for inference.


def quantize_params(
  params: Params,
  bits: BitsTree,
  plan: WeightPlan,
  *,
  steps: Steps | None = None,
  axis_name: str | tuple[str, ...] | None = None,
) -> Params:
  """Applies `fake_quantize` to the leaves of a parameter pytree that a plan quantizes.

      plan = plan_weights(trace_layers(apply, params, images))
      apply(quantize_params(params, bits, plan), images)

  Args:
    params: the pytree that the plan's network was traced with, of any library.
    bits: one bitwidth; or a pytree of them whose leaves have the paths of leaves or of subtrees of
      `params`, such as a tree of its structure, a prefix of it, or a dict by path, that covers all
      that is quantized. Ints, or scalar integer arrays that may be traced; where the first axis has
      steps of its own, as that of a stack of layers has, also an array along it; None or 32 for
      float. Where a rule fixes a leaf's bits that number holds, but in the network that is float
      throughout: `bits` None, or one number that is 32.
    plan: of the network.
    steps: learned steps by path, where the quantizer's `step` is 'learned': of the paths and shapes
      of `initial_steps`; they get gradients. None, or an empty dict, for any other.
    axis_name: mesh axes over which the input axes of kernels are split under `jax.shard_map`, as in
      `fake_quantize`; not with groups or learned steps.

  Returns:
    A pytree like `params`; what is not quantized is the same array.

  Raises:
    ValueError: if the tree is not the plan's or is prepared for inference, bits or steps are
      missing, superfluous or not allowed, or `axis_name` is given with groups or learned steps.
  """
  if bits is None:
    return params
  quantizer = plan.quantizer
  if axis_name is not None and (quantizer.group_size or quantizer.learns):
    what = "step='learned'" if quantizer.learns else f'group_size={quantizer.group_size}'
    raise ValueError(
      f'axis_name={axis_name!r} with {what}; allowed: None, whole kernels, or another quantizer'
    )
  refuse_prepared(params, QUANTIZE_FIRST)
  paths, leaves = _flat(params)
  places = {path: place for place, path in enumerate(paths)}
  _check_leaves(plan, {path: np.shape(leaves[place]) for path, place in places.items()}, axis_name)
  spread = _spread(bits, plan, paths)
  check_steps(steps, spread, plan)
  for leaf in plan.quantized:
    w, leaf_bits = leaves[places[leaf.path]], spread[leaf.path]
    if leaf_bits is None:
      continue
    step = steps[leaf.path] if steps else None
    quantized = quantize_leaf(w, leaf_bits, leaf, quantizer, step=step, axis_name=axis_name)
    if leaf.bits is not None and _is_one(bits):  # Traced: it may be that of a network in float.
      quantized = jnp.where(jnp.equal(bits, IDENTITY_BITS), w, quantized)
    leaves[places[leaf.path]] = quantized
  return jax.tree.unflatten(jax.tree.structure(params), leaves)


def initial_steps(params: Params, bits: BitsTree, plan: WeightPlan) -> dict[str, jax.Array]:
  """The steps from which learned ones are trained: `initial_step` of each leaf.

      plan = plan_weights(layers, Quantizer(step='learned'))
      steps = initial_steps(params, bits, plan)
      quantize_params(params, bits, plan, steps=steps)

  Args:
    params: initial weights, as in `quantize_params`.
    bits: as in `quantize_params`.
    plan: of the network.

  Returns:
    For the path of each leaf that the plan quantizes its steps, in float32 (float64 for float64
    weights), of the leaf's shape with length 1 along all but its output axes; where bits are an
    array [layers], these of each slice. Empty if the quantizer's steps are not learned or `bits` is
    None.

  Raises:
    ValueError: as `quantize_params`.
  """
  if bits is None or not plan.quantizer.learns:
    return {}
  refuse_prepared(params, QUANTIZE_FIRST)
  paths, leaves = _flat(params)
  weights = dict(zip(paths, leaves))
  _check_leaves(plan, {path: np.shape(leaf) for path, leaf in weights.items()}, None)

  def initial(w, bits, leaf):
    if np.ndim(bits):
      return jax.vmap(functools.partial(initial, leaf=leaf.layer))(w, jnp.asarray(bits))
    levels: Any = plan.quantizer.levels
    return learned.initial_step(w, bits, channel_axis=leaf.output_axes, levels=levels)

  found = _spread(bits, plan, paths)
  return {
    leaf.path: initial(
      weights[leaf.path], IDENTITY_BITS if (own := found[leaf.path]) is None else own, leaf
    )
    for leaf in plan.quantized
  }


def check_steps(steps: Steps | None, bits: Mapping[str, Any], plan: WeightPlan) -> None:
  """Raises ValueError unless steps are given as a plan and its bits, by path, need them."""
  if not plan.quantizer.learns:
    if steps:
      raise ValueError(f"steps with step={plan.quantizer.step!r}; allowed: with step='learned'")
    return
  quantized = {leaf.path: leaf for leaf in plan.quantized}
  needed = [path for path in quantized if bits[path] is not None]
  if needed and not steps:
    raise ValueError(
      f"steps={steps!r} with step='learned'; allowed: those that were trained, or "
      'initial_steps(params, bits, plan)'
    )
  steps = steps or {}
  if different := [path for path in steps if path not in quantized]:
    raise ValueError(
      f'steps has {different[0]!r}; allowed: what the plan quantizes: {", ".join(quantized)}'
    )
  for path in needed:
    if path not in steps:
      raise ValueError(f'steps has none for {path!r}; allowed: steps for all that is quantized')
    leaf, each = quantized[path], np.shape(bits[path])
    expected = (*each, *leaf.layer.steps_shape) if each else leaf.steps_shape
    if np.shape(steps[path]) != expected:
      raise ValueError(
        f'steps[{path!r}] has shape {np.shape(steps[path])}; allowed: {expected}, those of '
        'initial_steps'
      )


def bits_by_path(plan: WeightPlan, bits: BitsTree) -> dict[str, chex.Numeric]:
  """The bitwidth that `quantize_params` gives each leaf, by path; 32 for those left in float.

  Args:
    plan: of the network.
    bits: as in `quantize_params`; its leaves are numbers, or arrays [layers].

  Returns:
    A dict from path to bitwidth, one entry a leaf: what `model_size` reads.

  Raises:
    ValueError: as `quantize_params`.
  """
  paths = [leaf.path for leaf in plan.leaves]
  spread = {} if bits is None else _spread(bits, plan, paths)
  found = {path: spread.get(path) for path in paths}
  return {path: IDENTITY_BITS if leaf is None else leaf for path, leaf in found.items()}


def _flat(tree: Any) -> tuple[list[str], list[Any]]:
  """Paths and leaves, in order."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return [path_string(path) for path, _ in leaves], [leaf for _, leaf in leaves]


def _spread(bits: BitsTree, plan: WeightPlan, paths: Sequence[str]) -> dict[str, Any]:
  """The bitwidth of each leaf that is quantized; None for float."""
  fixed = {leaf.path: leaf.bits for leaf in plan.quantized if leaf.bits is not None}
  if _is_one(bits):
    _check_bits(bits, '')
    if _is_float(bits):
      return dict.fromkeys((leaf.path for leaf in plan.quantized), None)
    return {leaf.path: fixed.get(leaf.path, bits) for leaf in plan.quantized}
  leaves, _ = jax.tree_util.tree_flatten_with_path(bits, is_leaf=lambda leaf: leaf is None)
  entries = {path_string(path): leaf for path, leaf in leaves}
  found: dict[str, Any] = {}
  quantized = {leaf.path: leaf for leaf in plan.quantized}
  for path in sorted(entries, key=len):  # A subtree comes before what lies in it.
    below = [p for p in paths if p == path or p.startswith(f'{path}/')]
    value = entries[path]
    if not below:
      if value is None:
        continue
      raise ValueError(
        f'bits[{path!r}] names no parameter; allowed: paths of leaves and subtrees: '
        + ', '.join(paths)
      )
    for p in below:
      if p in quantized:
        _check_bits(value, f'[{path!r}]', quantized[p])
        found[p] = None if value is None or _is_float(value) else value
  missing = [path for path in quantized if path not in found and path not in fixed]
  if missing:
    raise ValueError(f'bits has none for {missing[0]!r}; allowed: bits for all that is quantized')
  return found | fixed


def _is_one(bits: BitsTree) -> bool:
  """Whether it is one number, not a tree of them."""
  return not isinstance(bits, (Mapping, list, tuple)) and jax.tree_util.all_leaves([bits])


def _is_float(bits) -> bool:
  return isinstance(bits, (int, np.integer)) and bits == IDENTITY_BITS


def _check_bits(bits, where: str, leaf: LeafPlan | None = None) -> None:
  if bits is None:
    return
  shape = np.shape(bits)
  along_first = leaf is not None and 0 in (leaf.output_axes or ()) or _is_stack(leaf)
  if shape and along_first and leaf is not None and shape == leaf.shape[:1]:
    if not isinstance(bits, jax.core.Tracer):
      for one in np.asarray(bits):
        quantizers.validate_bits(one, f'bits{where}')
    return
  if shape:
    allowed = f'a scalar or [{leaf.shape[0]}]' if leaf and along_first else 'a scalar'
    raise ValueError(f'bits{where} has shape {shape}; allowed: {allowed}')
  quantizers.validate_bits(bits, f'bits{where}')


def _is_stack(leaf: LeafPlan | None) -> bool:
  return leaf is not None and leaf.stack_axes > 0


def _check_leaves(plan: WeightPlan, shapes: Mapping[str, tuple[int, ...]], axis_name) -> None:
  for leaf in plan.leaves:
    if leaf.path not in shapes:
      raise ValueError(
        f'params has no {leaf.path!r}, as the plan has; allowed: the tree that was traced, not one '
        'with ' + ', '.join(shapes)
      )
    shape = shapes[leaf.path]
    if axis_name is None and shape != leaf.shape:
      raise ValueError(
        f'params: {leaf.path} has shape {shape}; allowed: {leaf.shape}, that of the plan, or a '
        'shard of it with axis_name (the mesh axes that split inputs, () for none)'
      )


def quantize_leaf(
  w: jax.Array,
  bits: Any,
  leaf: LeafPlan,
  quantizer: Quantizer,
  *,
  step: jax.Array | None = None,
  axis_name: quantizers.AxisName = None,
) -> jax.Array:
  """One leaf of `quantize_params`.

  Args:
    w: its weights.
    bits: a bitwidth, or one for each slice along the first axis.
    leaf: its plan.
    quantizer: of the plan.
    step: its learned steps, where the quantizer has such.
    axis_name: as in `quantize_params`.

  Returns:
    The quantized weights.
  """
  if np.ndim(bits):

    def layer(w, bits, step):
      return quantize_leaf(w, bits, leaf.layer, quantizer, step=step, axis_name=axis_name)

    return jax.vmap(layer)(w, jnp.asarray(bits), step)
  if quantizer.learns:
    if step is None:
      raise ValueError(f"step='learned'; allowed where none are: {', '.join(quantizers.STEPS)}")
    levels: Any = quantizer.levels
    return learned.learned_quantize(w, step, bits, levels=levels)
  options = {'channel_axis': leaf.output_axes, **quantizer.options}
  if leaf.group_size:
    return groups.grouped_fake_quantize(w, bits, group_size=leaf.group_size, **options)
  return quantizers.fake_quantize(w, bits, axis_name=axis_name, **options)
