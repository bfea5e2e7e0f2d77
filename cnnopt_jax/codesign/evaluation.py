"""`evaluate`: a network, its bits and its plan, on a cache: one report."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from cnnopt_jax import compilation, nvm, precision, quant, traffic
from cnnopt_jax.codesign import choices
from cnnopt_jax.codesign.grid import AXES, CodesignReport
from cnnopt_jax.workload import LayerTable, with_virtual_maps

# All combinations of a grid in one program. Its figures are those of single evaluations bit for
# bit, which XLA's optimiser would change by contracting products and sums.
_grid_totals = jax.jit(nvm.system_totals, compiler_options=compilation.QUICKLY)

Cache = nvm.LastLevelCache | nvm.CacheFigures | nvm.Cell | str | pathlib.Path


def evaluate(
  network: str | LayerTable,
  *,
  cache: Cache | list[Cache],
  bits: Any = 32,
  plan: str | tuple[str, ...] | list[str | tuple[str, ...]] = (),
  gpu: str | traffic.Gpu | Mapping[str, Any] = 'gtx_1080_ti',
  batch: int | list[int] = 4,
  training: bool = False,
  dram: str | nvm.Dram | None | list[str | nvm.Dram | None] = 'gddr5x',
  accounting: str = 'stored',
  quantizer: quant.Quantizer = quant.Quantizer(),
  image_shape: tuple[int, int, int] | None = None,
  num_classes: int = 1000,
  width_multiplier: float = 1.0,
  measured: Mapping[int, traffic.ProfileDemand] | None = None,
  library: str | traffic.Library = traffic.PYTORCH,
  algorithms: choices.Algorithms | None = None,
) -> CodesignReport:
  """Says what a network costs: size, multiply-accumulates, traffic, energy, delay, EDP and area.

  Weights are stored in their bits and widened in the kernels; activations have 32, or 16 where the
  library's products are of bfloat16. Traffic is that
  of `traffic.predict_traffic` on the GPU with another last-level cache; energy and delay are those
  of `nvm.system_totals`.

  A list (a range, an array `[N]`) in place of `bits`, `plan`, `cache`, `batch` or `dram` is an axis
  of the report, and the system model is evaluated once, over the whole grid. A tuple is no list.

  Args:
    network: a key of `models.MODELS`, or the table of any network, traced by
      `workload.trace_layers` with one image (for training as it trains, as
      `models.layer_table(..., train=True)` does).
    cache: the last-level cache: what `nvm.tuned(technology, mib=...)` returns, or
      `nvm.LastLevelCache(name, capacity_bytes, figures)`. Without a capacity (a key of `nvm.CELLS`,
      the path of a `.cell` file, an `nvm.Cell`, `nvm.CacheFigures`) it has that of the GPU's own.
    bits: of the weights: one bitwidth, 1 to 8 or 32; or a dict by path, or a tree like that of the
      parameters or a prefix of it, as in `quant.quantize_params`.
    plan: which layers compute virtual maps: 'none', 'all', a key of `vip.PLANS`, or a tuple of
      names: of units of a network of `models`, of paths of convolutions of a table.
    gpu: as `traffic.make_gpu` takes it: a key of `traffic.GPUS`, a `traffic.Gpu`, or its fields.
    batch: images.
    training: a training step instead of an inference; `bits` are then 32.
    dram: a key of `nvm.DRAMS`, an `nvm.Dram`, or None to leave DRAM out.
    accounting: what the size counts beside weights: a key of `quant.ACCOUNTINGS`.
    quantizer: rules for single layers, and whether a channel or a layer has a step.
    image_shape: (H, W, C), by default `models.default_image_shape`; of a table None.
    num_classes, width_multiplier: of a network of `models`.
    measured: demands of profiles by batch, in place of the model's. They are of `gpu`, of the same
      network, of 32 bits, without virtual maps; other bits, plans and capacities of the cache are
      scaled by the model's ratio, as `traffic.ProfiledTraffic` says.
    library: a key of `traffic.LIBRARIES`, or a `traffic.Library`.
    algorithms: of layers, as `chosen` of `traffic.predict_traffic`. Those that a plan makes virtual
      are other convolutions than the ones that are named: the library chooses theirs.

  Returns:
    The report.

  Raises:
    ValueError: naming the argument, its value and what is allowed, before anything is computed.
  """
  gpu = traffic.make_gpu(gpu)
  library = choices.library_of(library, gpu)
  if accounting not in quant.ACCOUNTINGS:
    raise ValueError(f'accounting={accounting!r}; allowed: {", ".join(quant.ACCOUNTINGS)}')
  given = {
    name: choices.listed(name, value)
    for name, value in zip(AXES, (bits, plan, cache, batch, dram), strict=True)
  }
  source = dict(image_shape=image_shape, num_classes=num_classes, width_multiplier=width_multiplier)
  found, weights, chosen = choices.checked(network, given, gpu, training, quantizer, **source)
  choices.check_measured(measured or {}, [value for _, value in chosen['batch']], gpu)
  try:
    traffic.check_algorithms(found.table, library, algorithms or {}, training=training)
  except ValueError as error:
    raise ValueError(f'algorithms: {error}') from None
  # All is checked; now the long work: searching caches, predicting traffic.
  values = {name: [value for _, value in entries] for name, entries in chosen.items()}
  caches = [choices.built(entry, gpu) for entry in values['cache']]
  sizes = [quant.model_size(weights, by_path, accounting) for by_path in values['bits']]
  predict = _Predictor(found.table, gpu, training, library, algorithms or {})
  streams = _all_traffic(predict, values['plan'], values['bits'], values['batch'])
  _replace_by_profiles(streams, predict, values['batch'], measured or {})
  figures = _accesses(streams, caches)
  figures |= _totals(nvm.Demand(**figures), caches, values['dram'])
  macs = [with_virtual_maps(found.table, paths).macs for paths in values['plan']]
  figures |= {'macs': _along('plan', macs), 'traffic': streams}
  terms = {name: _along('bits', column) for name, column in zip(sizes[0]._fields, zip(*sizes))}
  is_axis = [given[name][1] for name in AXES]
  figures = _collapsed(figures | terms, is_axis)
  labels = {name: tuple(label for label, _ in chosen[name]) for name in AXES}
  return CodesignReport(
    network=found.label,
    gpu=gpu.name,
    library=library.name,
    training=training,
    accounting=accounting,
    axes=tuple(name for name in AXES if given[name][1]),
    labels=labels | {'cache': tuple(map(str, caches))},
    size=quant.ModelSize._make(figures.pop(name) for name in terms),
    **figures,
  )


class _Predictor(NamedTuple):
  """What every prediction of a grid has in common; fields as the arguments of `evaluate`."""

  table: LayerTable
  gpu: traffic.Gpu
  training: bool
  library: traffic.Library
  algorithms: choices.Algorithms

  def __call__(
    self, virtual: Sequence[str], bits: Mapping[str, int] | None, batch: int
  ) -> traffic.Traffic:
    """Traffic with the maps of these convolutions virtual; of 32 bits where `bits` is None."""
    table = with_virtual_maps(self.table, virtual)
    stored = None if self.training else bits
    return traffic.predict_traffic(
      table,
      self.gpu,
      batch,
      training=self.training,
      library=self.library,
      chosen=choices.algorithms_of(self.algorithms, virtual),
      weight_bits=32 if stored is None else choices.weights_read(table, stored),
    )


def _all_traffic(
  predict: _Predictor,
  plans: Sequence[list[str]],
  bits: Sequence[dict[str, int]],
  batches: Sequence[int],
) -> np.ndarray:
  """Traffic of every combination, `[bits, plan, 1, batch, 1]`; each is predicted once."""
  found = np.empty((len(bits), len(plans), 1, len(batches), 1), object)
  for i, j, _, k, _ in np.ndindex(found.shape):
    found[i, j, 0, k, 0] = predict(plans[j], bits[i], batches[k])
  return found


def _replace_by_profiles(
  streams: np.ndarray,
  predict: _Predictor,
  batches: Sequence[int],
  measured: Mapping[int, traffic.ProfileDemand],
) -> None:
  """Puts measured demands in the place of the model's, `[bits, plan, 1, batch, 1]`."""
  for k, batch in enumerate(batches):
    if batch not in measured:
      continue
    demand = measured[batch]
    # What was measured: weights of 32 bits, no virtual maps.
    reference = predict((), None, batch)
    for i, j in np.ndindex(streams.shape[:2]):
      streams[i, j, 0, k, 0] = traffic.ProfiledTraffic(demand, reference, streams[i, j, 0, k, 0])


def _accesses(streams: np.ndarray, caches: Sequence[nvm.LastLevelCache]) -> dict[str, np.ndarray]:
  """Fields of `nvm.Demand` of every combination, `[bits, plan, 1 or cache, batch, 1]`."""
  capacities = np.array([cache.capacity_bytes for cache in caches])
  reads, writes = np.empty(streams.shape), np.empty(streams.shape)
  dram = np.empty((*streams.shape[:2], len(caches), *streams.shape[3:]))
  for index, found in np.ndenumerate(streams):
    reads[index], writes[index] = found.l2_reads, found.l2_writes
    dram[index[0], index[1], :, index[3], 0] = sum(found.dram(capacities))
  return {'l2_reads': reads, 'l2_writes': writes, 'dram_accesses': dram}


def _totals(
  demand: nvm.Demand, caches: Sequence[nvm.LastLevelCache], drams: Sequence[nvm.Dram]
) -> dict[str, np.ndarray]:
  """`nvm.SystemTotals` by name, in shapes that broadcast to the whole grid."""
  columns = zip(*(cache.figures for cache in caches))
  figures = nvm.CacheFigures(*(_along('cache', np.array(column, float)) for column in columns))
  dram = nvm.Dram(*(_along('dram', np.array(column, float)) for column in zip(*drams)))
  with nvm.float64():
    return precision.to_numpy(_grid_totals(demand, figures, dram))._asdict()


def _along(name: str, values: Any) -> np.ndarray:
  """Values `[N]` along one axis of the grid."""
  shape = [1] * len(AXES)
  shape[AXES.index(name)] = -1
  return np.asarray(values).reshape(shape)


def _collapsed(figures: dict[str, np.ndarray], is_axis: Sequence[bool]) -> dict[str, np.ndarray]:
  """All figures in the shape of the whole grid, without the axes of what was no list."""
  shape = np.broadcast_shapes(*(values.shape for values in figures.values()))
  dropped = tuple(i for i, kept in enumerate(is_axis) if not kept)
  return {name: np.broadcast_to(values, shape).squeeze(dropped) for name, values in figures.items()}
