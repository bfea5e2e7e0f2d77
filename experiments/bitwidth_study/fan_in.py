"""What fan-in does to quantization errors: of Gaussian filters, and of the trained networks."""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict
from scipy import stats

from cnnopt_jax import models, quant, training
from cnnopt_jax.workload import path_string
from experiments.bitwidth_study.plan import Cell, Network, floats_of

# Filters that are drawn for each fan-in.
_FILTERS = 4096


class GaussianFilters(NamedTuple):
  """Filters of one fan-in at one bitwidth.

  Attributes:
    bits: of the weights.
    fan_in: weights of a filter.
    granularity: of the steps.
    closed_form: E[R], R the error of a filter relative to its norm.
    mean, spread: of R over drawn filters.
    output: mean relative error of outputs on the positive parts of normal inputs.
    variance: mean of the outputs' variance over that in float.
  """

  bits: int
  fan_in: int
  granularity: str
  closed_form: float
  mean: float
  spread: float
  output: float
  variance: float


@functools.partial(jax.jit, static_argnames=('axes', 'granularity', 'levels'))
def _errors(w: jax.Array, bits: jax.Array, axes, granularity: str, levels: str):
  """Mean and standard deviation over filters of each figure, with the paper's step, [B] each."""

  def at(bits):
    found = quant.filter_errors(w, bits, axes, granularity, levels=levels, step='gaussian')
    return [jnp.nanmean(each) for each in found], jnp.nanstd(found.weight)

  return jax.vmap(at)(bits)


def _bits(config: config_dict.ConfigDict) -> list[int]:
  """Those of the config that have levels."""
  return [b for b in config.bits if b > 1 or config.levels != 'mid_tread']


def gaussian_filters(config: config_dict.ConfigDict) -> list[GaussianFilters]:
  """Closed forms beside what is drawn, with the paper's step."""
  rows, levels = [], config.levels
  for granularity in quant.GRANULARITIES:
    for fan_in in config.fan_ins:
      w = jax.random.normal(jax.random.key(fan_in), (fan_in, _FILTERS))
      given = w, jnp.asarray(_bits(config)), (1,), granularity, levels
      means, spreads = jax.device_get(_errors(*given))
      for bits, mean, output, variance, spread in zip(_bits(config), *means, spreads):
        closed = quant.expected_relative_error(bits, fan_in, granularity, levels)
        drawn = float(mean), float(spread), float(output), float(variance)
        rows.append(GaussianFilters(bits, fan_in, granularity, closed, *drawn))
  return rows


class LayerErrors(NamedTuple):
  """A layer of a trained float network.

  Attributes:
    path: of its kernel.
    fan_in: weights of a filter.
    filters: their number.
    errors: mean R over its filters, by granularity and bits.
  """

  path: str
  fan_in: int
  filters: int
  errors: Mapping[tuple[str, int], float]


def trained_layers(
  network: Network,
  cells: Sequence[Cell],
  config: config_dict.ConfigDict,
  workdir: pathlib.Path,
  image_shape: tuple[int, int, int],
) -> list[LayerErrors]:
  """Layers of the widest float networks that are on disk, mean over seeds; none if none are."""
  bits = config.mixed_width_bits
  having = [cell for cell in cells if bits in cell.singles]
  for cell in sorted(having, key=lambda cell: -cell.singles[bits].width):
    floats = floats_of(network, cell, bits)
    folders = [training.member_folder(workdir, one.name) for one in floats]
    if not all(folder.is_dir() for folder in folders):
      continue
    like = models.abstract_variables(network.plan.model(floats[0]), image_shape)
    each = [
      _layer_errors(floats[0].match, training.load_saved(folder, like)['params'], config)
      for folder in folders
    ]
    return [
      one._replace(
        errors={key: float(np.mean([e[i].errors[key] for e in each])) for key in one.errors}
      )
      for i, one in enumerate(each[0])
    ]
  return []


def _layer_errors(match, params: Any, config) -> list[LayerErrors]:
  leaves = {path_string(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
  fan_in = {layer.weight: layer.fan_in for layer in match.layers}
  rows = []
  for leaf in match.plan.quantized:
    axes = next(p.output_axes for p in match.layers.parameters if p.path == leaf.path)
    if axes is None or leaf.path not in fan_in:
      continue
    errors: dict[tuple[str, int], float] = {}
    for granularity in quant.GRANULARITIES:
      given = leaves[leaf.path], jnp.asarray(_bits(config)), axes, granularity, config.levels
      (means, *_), _ = jax.device_get(_errors(*given))
      errors |= {(granularity, b): float(mean) for b, mean in zip(_bits(config), means)}
    filters = leaf.size // fan_in[leaf.path]
    rows.append(LayerErrors(leaf.path, fan_in[leaf.path], filters, errors))
  return rows


def rank_correlation(rows: Sequence[LayerErrors], granularity: str, bits: int) -> float | None:
  """Spearman's, of fan-in and error over layers; None where it has no meaning."""
  fan_ins = [row.fan_in for row in rows]
  errors = [row.errors[granularity, bits] for row in rows if (granularity, bits) in row.errors]
  if len(errors) != len(rows) or len(set(fan_ins)) < 3 or len(set(errors)) < 3:
    return None
  return float(stats.spearmanr(fan_ins, errors).statistic)
