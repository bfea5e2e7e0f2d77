"""What a caller may choose, checked before any long work: each returns a label and a value."""

import pathlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from cnnopt_jax import models, nvm, quant, traffic, vip
from cnnopt_jax.workload import LayerTable

FLOAT_BITS = quant.IDENTITY_BITS

Algorithms = Mapping[str | tuple[str, str], str]


class Network(NamedTuple):
  """A network to evaluate.

  Attributes:
    label: its name.
    table: of one image.
    units: `{what a plan names: path of its convolution}`, in the network's order.
  """

  label: str
  table: LayerTable
  units: dict[str, str]


def listed(name: str, value: Any) -> tuple[list[Any], bool]:
  """The entries of a choice, and whether it is an axis: a list, a range or an array `[N]` is."""
  if isinstance(value, (np.ndarray, jax.Array)) and value.ndim:
    if value.ndim > 1:
      raise ValueError(f'{name}: an array of shape {value.shape}; allowed: one axis')
    value = value.tolist()
  if not isinstance(value, (list, range)):
    return [value], False
  if not len(value):
    raise ValueError(f'{name}=[]; allowed: at least one entry')
  return list(value), True


def checked(
  network: str | LayerTable,
  given: Mapping[str, tuple[list[Any], bool]],
  gpu: traffic.Gpu,
  training: bool,
  quantizer: quant.Quantizer,
  **source: Any,
) -> tuple[Network, quant.WeightPlan, dict[str, list[tuple[int | str, Any]]]]:
  """The network, how its weights are quantized, and (label, value) of every entry of every choice.

  Args:
    network: as in `evaluate`.
    given: for each of `AXES`, what `listed` returns.
    gpu: whose cache a technology replaces.
    training: as in `evaluate`.
    quantizer: as in `evaluate`.
    **source: of `network_of`.

  Raises:
    ValueError: naming the argument, its value and what is allowed.
  """
  entries = {name: listed_ for name, (listed_, _) in given.items()}
  # What needs no network first: tracing one takes a second.
  chosen: dict[str, list[tuple[int | str, Any]]] = {
    'cache': [('', cache_of(entry, gpu)) for entry in entries['cache']],
    'batch': [batch_of(entry) for entry in entries['batch']],
    'dram': [dram_of(entry) for entry in entries['dram']],
  }
  found = network_of(network, training=training, **source)
  weights = quant.plan_weights(found.table, quantizer)
  chosen['bits'] = [bits_of(entry, weights, training) for entry in entries['bits']]
  chosen['plan'] = [plan_of(entry, found) for entry in entries['plan']]
  return found, weights, chosen


def network_of(
  network: str | LayerTable,
  *,
  training: bool,
  image_shape: tuple[int, int, int] | None,
  num_classes: int,
  width_multiplier: float,
) -> Network:
  """A network of `models` by name, or a table as it is."""
  if isinstance(network, LayerTable):
    if image_shape is not None:
      raise ValueError(
        f'image_shape={image_shape} of a table; allowed: None, as the table was traced with one'
      )
    if network.dataflow is None:
      raise ValueError(
        'network: the table has no dataflow; allowed: tables of workload.trace_layers, of a '
        'program without loops and branches'
      )
    convolutions = [layer.path for layer in network if layer.kind == 'conv']
    return Network('table', network, {path: path for path in convolutions})
  if network not in models.MODELS:
    raise ValueError(
      f'network={network!r}; allowed: a LayerTable, or one of {", ".join(models.MODELS)}'
    )
  shape = models.default_image_shape(network) if image_shape is None else tuple(image_shape)
  if len(shape) != 3 or any(size < 1 for size in shape):
    raise ValueError(f'image_shape={image_shape}; allowed: (H, W, C)')
  model = models.create(network, num_classes=num_classes, width_multiplier=width_multiplier)
  table = models.layer_table(model, shape, train=training)
  return Network(network, table, {unit: f'{unit}/conv' for unit in models.unit_names(model)})


def plan_of(plan: str | tuple[str, ...], network: Network) -> tuple[str, list[str]]:
  """Paths of the virtual convolutions of a plan, labelled as it was spelled."""
  if not isinstance(plan, (str, tuple)):
    raise ValueError(f'plan={plan!r}; allowed: a name of a plan, or a tuple of names of units')
  try:
    units = vip.resolve_plan(plan, tuple(network.units))
  except ValueError as error:
    # A unit's name alone is the likeliest mistake.
    raise ValueError(f'{error} (a tuple of names is one plan, a list an axis of plans)') from None
  label = plan if isinstance(plan, str) else '+'.join(plan) or 'none'
  return label, [network.units[unit] for unit in units]


def bits_of(bits: Any, plan: quant.WeightPlan, training: bool) -> tuple[int | str, dict[str, int]]:
  """`{path of a leaf: bits}` of one bitwidth, a tree of them, or a dict by path."""
  label: int | str = 'mixed'
  if isinstance(bits, (int, float, str, np.generic)) or getattr(bits, 'ndim', 1) == 0:
    bits = bits.item() if hasattr(bits, 'item') else bits
    quant.validate_bits(bits)
    label = bits
  try:
    found = quant.bits_by_path(plan, bits)
  except ValueError as error:
    # A grid spelled as a tuple is the likeliest mistake.
    raise ValueError(f"{error} (a list is a grid's axis)") from None
  few = next((b for b in found.values() if b != FLOAT_BITS), None)
  if training and few is not None:
    raise ValueError(f'bits={few} in training; allowed: {FLOAT_BITS}, as the optimizer keeps them')
  return label, found


def library_of(library: str | traffic.Library, gpu: traffic.Gpu) -> traffic.Library:
  """A library by its key or as it is, if the GPU has units for its products."""
  if not isinstance(library, traffic.Library):
    if library not in traffic.LIBRARIES:
      raise ValueError(
        f'library={library!r}; allowed: a traffic.Library, or one of {", ".join(traffic.LIBRARIES)}'
      )
    library = traffic.LIBRARIES[library]
  gpu.macs(library.math)
  return library


def algorithms_of(
  algorithms: Algorithms, virtual: Collection[str]
) -> dict[str | tuple[str, str], str]:
  """What is asked for, without the virtual layers of a plan."""
  return {
    key: name
    for key, name in algorithms.items()
    if (key if isinstance(key, str) else key[0]) not in virtual
  }


def batch_of(batch: int) -> tuple[int, int]:
  """A number of images."""
  if isinstance(batch, bool) or not isinstance(batch, (int, np.integer)) or batch < 1:
    raise ValueError(f'batch={batch!r}; allowed: an integer of at least 1')
  return int(batch), int(batch)


def check_measured(
  measured: Mapping[int, traffic.ProfileDemand], batches: list[int], gpu: traffic.Gpu
) -> None:
  """Refuses demands of profiles of another batch or GPU than those that are evaluated."""
  for batch, demand in measured.items():
    if batch not in batches:
      raise ValueError(f'measured: batch {batch}; allowed: {", ".join(map(str, batches))}')
    if demand.gpu != gpu:
      raise ValueError(f'measured: on a {demand.gpu.name}; allowed: gpu, a {gpu.name}')


def dram_of(dram: str | nvm.Dram | None) -> tuple[str, nvm.Dram]:
  """A DRAM by its key or as it is; None for none."""
  if isinstance(dram, nvm.Dram):
    return f'{dram.access_nj:.3g} nJ {dram.access_ns:.3g} ns', dram
  key = 'none' if dram is None else dram
  if key not in nvm.DRAMS:
    raise ValueError(f'dram={dram!r}; allowed: None, an nvm.Dram, or one of {", ".join(nvm.DRAMS)}')
  return key, nvm.DRAMS[key]


def cache_of(cache: Any, gpu: traffic.Gpu) -> nvm.LastLevelCache | tuple[str, nvm.Cell]:
  """A cache; or the name and cell of a technology that `built` makes one of, which takes long."""
  if isinstance(cache, nvm.LastLevelCache):
    return cache
  if isinstance(cache, nvm.CacheFigures):
    return nvm.LastLevelCache('figures', gpu.l2_bytes, cache)
  if isinstance(cache, (str, pathlib.Path, nvm.Cell)):
    return nvm.find_cell(cache)
  raise ValueError(
    f'cache={cache!r}; allowed: what nvm.tuned returns, nvm.CacheFigures, an nvm.Cell, the path '
    f'of a .cell file, or one of {", ".join(nvm.CELLS)}'
  )


def built(cache: nvm.LastLevelCache | tuple[str, nvm.Cell], gpu: traffic.Gpu) -> nvm.LastLevelCache:
  """The cache itself: a technology replaces the GPU's own last-level cache at its capacity."""
  if isinstance(cache, nvm.LastLevelCache):
    return cache
  name, cell = cache
  made = nvm.tuned(cell, mib=gpu.l2_bytes / (1 << 20))
  return nvm.LastLevelCache(name, made.capacity_bytes, made.figures)


def weights_read(table: LayerTable, bits: Mapping[str, int]) -> dict[str, int]:
  """The weights among `bits` that a kernel reads as they are stored."""
  read = {tensor.path for tensor in table.dataflow.tensors} if table.dataflow else set()
  return {path: value for path, value in bits.items() if path in read}
