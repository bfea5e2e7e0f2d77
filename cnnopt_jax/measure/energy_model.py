"""A model of energy from multiply-accumulates and bytes, for hardware without a meter.

    E = macs * mac_pj + bytes * byte_pj

A layer reads its input map and its weights once and writes its output map once; nothing stays on
chip from one layer to the next, and nothing is read twice within one. Norms, activations, pools,
control and leakage cost nothing. So the model ranks networks on one machine; its joules are those
of no machine, and its results have types and names of their own: `modelled_energy_j` is never a
`measured_energy_j`.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from cnnopt_jax.workload import Layer, LayerTable

# M. Horowitz, Computing's Energy Problem (and what we can do about it), ISSCC 2014, pages 10-14,
# figure 1.1.9: rough costs at 45 nm and 0.9 V. Multiplication and addition, pJ. The figure adds
# 8-bit integers for 0.03 pJ; products of them are summed in 32 bits here.
ARITHMETIC_PJ = {
  'int8': (0.2, 0.1),
  'int32': (3.1, 0.1),
  'float16': (1.1, 0.4),
  'float32': (3.7, 0.9),
}
# The same figure: one access of 64 bits, pJ. It gives DRAM as 1.3 to 2.6 nJ; 'dram' is the middle.
ACCESS_PJ = {
  'cache_8kib': 10.0,
  'cache_32kib': 20.0,
  'cache_1mib': 100.0,
  'dram_low': 1300.0,
  'dram': 1950.0,
  'dram_high': 2600.0,
}
ACCESS_BYTES = 8


class EnergyCosts(NamedTuple):
  """What the model multiplies with.

  Attributes:
    mac_pj: one multiplication and one addition, pJ.
    byte_pj: one byte read or written, pJ.
  """

  mac_pj: float
  byte_pj: float


class Work(NamedTuple):
  """What the layers of one call do.

  Attributes:
    macs: multiply-accumulates, [layers].
    read_bytes: bytes of input maps and weights, [layers].
    written_bytes: bytes of output maps, [layers].
  """

  macs: np.ndarray
  read_bytes: np.ndarray
  written_bytes: np.ndarray


class ModelledEnergy(NamedTuple):
  """Joules by the model; no hardware took them.

  Attributes:
    mac_j: of the multiply-accumulates, [layers].
    byte_j: of the bytes moved, [layers].
  """

  mac_j: np.ndarray
  byte_j: np.ndarray

  @property
  def modelled_energy_j(self) -> float:
    """Joules of one call, all layers."""
    return float(np.sum(self.mac_j) + np.sum(self.byte_j))


def horowitz_costs(arithmetic: str = 'float32', memory: str = 'dram') -> EnergyCosts:
  """Costs at 45 nm.

  Args:
    arithmetic: a key of `ARITHMETIC_PJ`.
    memory: where maps and weights lie, a key of `ACCESS_PJ`.

  Returns:
    The costs.

  Raises:
    ValueError: if a key is unknown.
  """
  for name, value, table in (
    ('arithmetic', arithmetic, ARITHMETIC_PJ),
    ('memory', memory, ACCESS_PJ),
  ):
    if value not in table:
      raise ValueError(f'{name}={value!r}; allowed: {", ".join(table)}')
  return EnergyCosts(sum(ARITHMETIC_PJ[arithmetic]), ACCESS_PJ[memory] / ACCESS_BYTES)


def layer_work(
  table: LayerTable,
  *,
  virtual: Collection[str] = (),
  readers: Collection[str] | None = None,
  weight_bits: float | np.ndarray | None = None,
) -> Work:
  """Multiply-accumulates and bytes of each layer.

  A virtual layer computes and writes every other row and column of its map: a quarter of it, or
  16/49 of 7x7. What reads that map through the interpolation, such as a folded 3x3 convolution,
  reads as much. A table that was traced from a network with virtual layers has their smaller maps
  in it; this is for one without.

  Args:
    table: the layers as they are without virtual maps.
    virtual: paths of the virtual layers, or of the modules around them.
    readers: paths of the layers whose input is a virtual map that is never written in full. None
      for each layer that follows a virtual one in the table and has an input of its output's
      shape, which is right for chains such as VGG; networks with branches have to say.
    weight_bits: size of one weight, a number or [layers], as `LayerTable.join` lines them up; None
      for the layer's own type.

  Returns:
    The work of one call, batch and all executions included.

  Raises:
    ValueError: if a path names no convolution.
  """
  is_virtual = _named(table, virtual, 'virtual')
  if readers is None:
    follows = [
      last.output_shape == layer.input_shape for last, layer in zip(table.layers, table.layers[1:])
    ]
    reads = np.array([False, *(v and f for v, f in zip(is_virtual, follows))], bool)[: len(table)]
  else:
    reads = _named(table, readers, 'readers')
  item_bytes = np.array([jnp.dtype(layer.dtype).itemsize for layer in table], np.float64)
  weight_bytes = item_bytes if weight_bits is None else np.asarray(weight_bits, np.float64) / 8
  outputs = np.where(is_virtual, [_kept(layer, 'output') for layer in table], 1.0)
  inputs = np.where(reads, [_kept(layer, 'input') for layer in table], 1.0)
  count = table.column('count')
  # The right operand of a product of activations is data, and is read each time.
  right = np.array([0 if layer.weight else math.prod(layer.kernel_shape) for layer in table])
  maps = table.column('input_elements') * inputs + right
  return Work(
    macs=table.column('macs') * outputs,
    read_bytes=maps * count * item_bytes + table.column('weights') * weight_bytes,
    written_bytes=table.column('output_elements') * outputs * count * item_bytes,
  )


def model_energy(work: Work, costs: EnergyCosts) -> ModelledEnergy:
  """Applies the model.

  Args:
    work: multiply-accumulates and bytes, of `layer_work` or from elsewhere.
    costs: of one of each.

  Returns:
    Joules.
  """
  moved = np.asarray(work.read_bytes, np.float64) + work.written_bytes
  return ModelledEnergy(
    np.asarray(work.macs, np.float64) * costs.mac_pj * 1e-12, moved * costs.byte_pj * 1e-12
  )


def _named(table: LayerTable, paths: Collection[str], field: str) -> np.ndarray:
  """Which layers the paths name, [layers]."""
  chosen = np.zeros(len(table), bool)
  for path in paths:
    found = [layer.kind == 'conv' and f'{layer.path}/'.startswith(f'{path}/') for layer in table]
    if not any(found):
      raise ValueError(
        f'{field}: {path!r} is no convolution; allowed: '
        + ', '.join(layer.path for layer in table if layer.kind == 'conv')
      )
    chosen |= found
  return chosen


def _kept(layer: Layer, side: str) -> float:
  """The share of a convolution's map that lies in even rows and columns; 1 for other layers."""
  if layer.dimension_numbers is None:
    return 1.0
  spec, shape = {
    'input': (layer.dimension_numbers.lhs_spec, layer.input_shape),
    'output': (layer.dimension_numbers.out_spec, layer.output_shape),
  }[side]
  return math.prod(-(-shape[axis] // 2) / shape[axis] for axis in spec[2:])
