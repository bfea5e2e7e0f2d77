"""Quantization steps folded into the norms after their layers."""

import dataclasses
from collections.abc import Container, Mapping
from typing import Any

import jax
import numpy as np

from cnnopt_jax import quant
from cnnopt_jax.workload import path_string

_KERNEL, _SCALE, _MEAN = 'conv/kernel', 'norm/scale', 'norm/mean'
_STATISTICS = 'batch_stats'
_QUANTIZED = (quant.PackedLeaf, quant.packing.PackedStack)
# Of a step, in units of the mean: a sum of levels next to 2**60 vanishes in float32's rounding. A
# power of two, so that what becomes of the mean is exact.
_SMALLEST = 2.0**-60


def norm_after(path: str, paths: Container[str]) -> str | None:
  """The scale of the norm that a conv unit applies after its kernel.

  Args:
    path: of a parameter, below 'params'.
    paths: of all parameters of the network.

  Returns:
    Its path; None if `path` is no kernel of a conv unit, or its unit has no norm.
  """
  if not f'/{path}'.endswith(f'/{_KERNEL}'):
    return None
  scale = path.removesuffix(_KERNEL) + _SCALE
  return scale if scale in paths else None


def fold_steps(
  packed: quant.PackedParams, statistics: Mapping[str, Any], plan: quant.WeightPlan
) -> tuple[quant.PackedParams, dict[str, Any]]:
  """Moves the steps of packed kernels into the norms after them: inference stays the same.

      packed = quant.pack(variables['params'], bits, plan)
      packed, statistics = fold_steps(packed, {'batch_stats': variables['batch_stats']}, plan)
      model.apply({'params': quant.unpack(packed), **statistics}, images)

  With z what a kernel of levels gives, s the step of a channel, and m, v, g, b the running mean and
  variance, scale and bias of its norm,

      (s z - m) rsqrt(v + eps) g + b = (z - m / s) rsqrt(v + eps) (s g) + b

  so the kernel keeps its levels, one apart, the norm's scale becomes s g and its mean m / s: exact
  up to rounding. A step below 2**-60 |m|, such as that of a channel of zeros, counts as that, next
  to which no level matters; that of m = 0 stays 0, with a mean of 0.

  In training the result is another network, whose variance is not that of its maps.

  Args:
    packed: parameters of a network of this package.
    statistics: the other collections of its variables; 'batch_stats' holds the means.
    plan: of the network (`weight_plan`): leaves that it says fold do. Left as they are: those of
      layers without a norm, with steps of groups, in float, or whose norm's scale is quantized.

  Returns:
    The parameters, whose folded leaves have no steps, and the statistics.

  Raises:
    ValueError: if plan, parameters and statistics are not those of one network.
  """
  leaves: dict[str, Any] = dict(packed.items())
  given = _by_path(statistics)
  means: dict[str, np.ndarray] = {}
  for leaf in plan.quantized:
    if leaf.path not in leaves:
      raise ValueError(f'packed has no {leaf.path!r}; allowed: a plan of these parameters')
    kernel, norm = leaves[leaf.path], norm_after(leaf.path, leaves)
    is_stepped = isinstance(kernel, quant.PackedLeaf) and kernel.steps is not None
    if not leaf.folds or not is_stepped or norm is None or isinstance(leaves[norm], _QUANTIZED):
      continue
    path = f'{_STATISTICS}/{leaf.path.removesuffix(_KERNEL)}{_MEAN}'
    if path not in given:
      raise ValueError(f'statistics has no {path!r}; allowed: those of the packed network')
    mean, scale = np.asarray(given[path]), np.asarray(leaves[norm])
    steps = np.asarray(kernel.steps)
    steps = np.copysign(np.maximum(np.abs(steps), _SMALLEST * np.abs(mean)), steps)
    leaves[leaf.path] = dataclasses.replace(kernel, steps=None)
    leaves[norm] = (scale * steps).astype(scale.dtype)
    means[path] = (mean / np.where(steps == 0, 1, steps)).astype(mean.dtype)

  def moved(path, leaf):
    return means.get(path_string(path), leaf)

  folded = dataclasses.replace(packed, leaves=tuple(leaves.values()))
  return folded, jax.tree_util.tree_map_with_path(moved, dict(statistics))


def _by_path(tree: Any) -> dict[str, Any]:
  return {path_string(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
