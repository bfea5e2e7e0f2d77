"""Trained members on disk: packed weights, and the statistics of their norms."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from safetensors import numpy as safetensors

from cnnopt_jax import models, quant
from cnnopt_jax.workload import path_string

WEIGHTS, STATISTICS = 'weights.safetensors', 'statistics.safetensors'


def save_member(
  folder: pathlib.Path,
  variables: Mapping[str, Any],
  bits: Any,
  plan: quant.WeightPlan,
  steps: Mapping[str, Any] | None = None,
  *,
  fold: bool = False,
) -> dict[str, Any]:
  """Writes a trained network in its bits, replacing what is there.

  Args:
    folder: of the member; is made.
    variables: of the network, 'params' in float.
    bits: as in `quant.quantize_params`.
    plan: of the network.
    steps: learned ones, as in `quant.quantize_params`.
    fold: whether norms take the quantization steps of the layers before them (`models.fold_steps`),
      which then are not stored; the network computes the same up to rounding.

  Returns:
    The variables that were written, NumPy arrays: 'params' quantized.

  Raises:
    OSError: if the disk has no room for them.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  statistics = jax.tree.map(np.asarray, {k: v for k, v in variables.items() if k != 'params'})
  packed = quant.pack(variables['params'], bits, plan, steps)
  if fold:
    packed, statistics = models.fold_steps(packed, statistics, plan)
  leaves = jax.tree_util.tree_flatten_with_path(statistics)[0]
  content = safetensors.save({path_string(path): np.array(leaf) for path, leaf in leaves})
  temporary = folder / f'{STATISTICS}.tmp'
  temporary.write_bytes(content)
  os.replace(temporary, folder / STATISTICS)
  quant.save(folder / WEIGHTS, packed)
  return {'params': quant.unpack_on_host(packed), **statistics}


def load_saved(folder: pathlib.Path, like: Mapping[str, Any]) -> dict[str, Any]:
  """Reads what `save_member` wrote.

  Args:
    folder: of the member.
    like: variables of the same structure, abstract or not.

  Returns:
    The variables, NumPy arrays: 'params' quantized, and folded if they were when they were written.

  Raises:
    FileNotFoundError: if there is nothing there.
    ValueError: if a file is damaged or of another network.
  """
  folder = pathlib.Path(folder)
  params = quant.unpack_on_host(quant.load(folder / WEIGHTS, like['params']))
  path = folder / STATISTICS
  try:
    found = safetensors.load(path.read_bytes())
  except OSError:
    raise
  except Exception as error:  # Whatever safetensors meets in a file that is none of its.
    raise ValueError(f'{path}: damaged: {error}') from None
  rest = {name: value for name, value in like.items() if name != 'params'}

  def read(path_to, leaf):
    name = path_string(path_to)
    if name not in found or found[name].shape != leaf.shape or found[name].dtype != leaf.dtype:
      raise ValueError(f'{path}: no {name} {leaf.dtype}{list(leaf.shape)}; allowed: a member of it')
    return found[name]

  return {'params': params, **jax.tree_util.tree_map_with_path(read, rest)}
