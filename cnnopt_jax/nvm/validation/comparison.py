"""How far the model is from reference figures, group by group.

Groups: `forced/<quantity>` is the relative error of our model on the organisation given in the
reference; `winner/<target>` is max(0, ours / reference - 1) on the target's own metric after our
own search, so near-ties count as nothing. For rows of a cache search, `forced/cache <figure>`
puts the reference's data array through our model. The reference does not print its tag arrays, so
ours is chosen as NVSim chooses: of all partitions in NVSim's order the first that is best for the
same target on its own, then the wires that are best for it (`tag_wires`). An error counts from the
nearest value that the reference's printed digits allow.
"""

import collections
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from cnnopt_jax import compilation, precision
from cnnopt_jax.nvm import specs, structures
from cnnopt_jax.nvm.circuit import array, cache
from cnnopt_jax.nvm.search import exploration, metrics, organizations
from cnnopt_jax.nvm.technology import nodes
from cnnopt_jax.nvm.validation.reference import CacheRow, CactiRow, Design, Figure

_BATCH = 32  # Designs evaluated together; a fixed size, so that files of any length compile once.


def _quantities() -> dict[str, Any]:
  """What each printed quantity is in an `ArrayPPA`."""

  def part(name):
    return lambda a: getattr(a.breakdown, name)

  def total(name):
    return lambda a: getattr(a, name)

  table = {
    'Total Area': total('area_mm2'),
    'Total Area > Mat Area': part('mat_area_mm2'),
    'Total Area > Subarray Area': part('subarray_area_mm2'),
    'Read Latency': total('read_latency_ns'),
    'Read Latency > H-Tree Latency': lambda a: 2 * a.breakdown.htree_latency_ns,
    'Read Latency > Mat Latency': part('mat_read_latency_ns'),
    'Read Latency > Bitline Latency': part('bitline_latency_ns'),
    'Read Latency > Senseamp Latency': part('sense_latency_ns'),
    'Read Latency > Mux Latency': part('mux_latency_ns'),
    'Read Latency > Precharge Latency': part('precharge_latency_ns'),
    'Read Dynamic Energy': total('read_energy_pj'),
    'Read Dynamic Energy > H-Tree Dynamic Energy': part('htree_read_energy_pj'),
    'Read Dynamic Energy > Mat Dynamic Energy': part('mat_read_energy_pj'),
    'Read Dynamic Energy > Subarray Dynamic Energy': part('subarray_read_energy_pj'),
    'Read Dynamic Energy > Bitline & Cell Read Energy': part('cell_read_energy_pj'),
    'Read Dynamic Energy > Senseamp Dynamic Energy': part('sense_energy_pj'),
    'Read Dynamic Energy > Precharge Dynamic Energy': part('precharge_energy_pj'),
    'Write Latency > Write Pulse Duration': part('reset_pulse_ns'),
    'SET Latency > SET Pulse Duration': part('set_pulse_ns'),
    'RESET Latency > RESET Pulse Duration': part('reset_pulse_ns'),
    'Write Dynamic Energy > Bitline & Cell Write Energy': part('cell_reset_energy_pj'),
    'SET Dynamic Energy > Cell SET Dynamic Energy': part('cell_set_energy_pj'),
    'RESET Dynamic Energy > Cell RESET Dynamic Energy': part('cell_reset_energy_pj'),
    'Leakage Power': total('leakage_mw'),
    'Leakage Power > H-Tree Leakage Power': part('htree_leakage_mw'),
    'Leakage Power > Mat Leakage Power': part('mat_leakage_mw'),
  }
  for kind, name in (('Read', 'read'), ('Write', 'write'), ('SET', 'set'), ('RESET', 'reset')):
    latency, energy = f'{kind} Latency', f'{kind} Dynamic Energy'
    subarray_energy = 'subarray_read_energy_pj' if name == 'read' else 'subarray_write_energy_pj'
    common: dict[str, Callable[[Any], Any]] = {
      latency: total(f'{name}_latency_ns'),
      energy: total(f'{name}_energy_pj'),
      f'{latency} > H-Tree Latency': part('htree_latency_ns'),
      f'{latency} > Mat Latency': functools.partial(_mat_latency_ns, name),
      f'{latency} > Subarray Latency': part(f'subarray_{name}_latency_ns'),
      f'{latency} > Predecoder Latency': part('predecoder_latency_ns'),
      f'{latency} > Row Decoder Latency': part('row_decoder_latency_ns'),
      f'{latency} > Charge Latency': part('charge_latency_ns'),
      f'{latency} > Charger Latency': part('charge_latency_ns'),
      f'{energy} > H-Tree Dynamic Energy': part('htree_write_energy_pj'),
      f'{energy} > Mat Dynamic Energy': part(f'mat_{name}_energy_pj'),
      f'{energy} > Predecoder Dynamic Energy': part('predecoder_energy_pj'),
      f'{energy} > Subarray Dynamic Energy': part(subarray_energy),
      f'{energy} > Row Decoder Dynamic Energy': part('row_decoder_energy_pj'),
      f'{energy} > Mux Decoder Dynamic Energy': part('mux_decoder_energy_pj'),
      f'{energy} > Mux Dynamic Energy': part('mux_energy_pj'),
    }
    table = common | table
  return table


def _mat_latency_ns(name: str, a: array.ArrayPPA) -> Any:
  subarray = getattr(a.breakdown, f'subarray_{name}_latency_ns')
  return a.breakdown.predecoder_latency_ns + subarray


QUANTITIES = _quantities()
TOTALS = (
  'Total Area',
  'Read Latency',
  'Write Latency',
  'Read Dynamic Energy',
  'Write Dynamic Energy',
  'Leakage Power',
  *(
    f'cache {name}'
    for name in (
      'area_mm2',
      'hit_latency_ns',
      'write_latency_ns',
      'hit_energy_nj',
      'write_energy_nj',
      'leakage_mw',
    )
  ),
)


class Comparison(NamedTuple):
  """One figure of ours beside the reference.

  Attributes:
    group: `forced/...` or `winner/...`; `zero/...` where the reference is zero.
    error: as the module's docstring says; for `zero/...`, ours over the design's total.
    ours, reference: in the reference's unit.
    label: what it is, for people.
  """

  group: str
  error: float
  ours: float
  reference: float
  label: str


def _log2(count):
  return np.array([int(count).bit_length() - 1])


def forced_organization(
  design: Design, mode: specs.Mode = specs.Mode.RAM, *, associativity: int = 1
) -> structures.Organization:
  """The organisation of a reference design: mats of 2 x 2 subarrays, all active."""
  subarrays = (2, 2)
  counts = (*design.mats, *design.active, *subarrays, *subarrays, *design.mux)
  partition = organizations.Partition._make(map(_log2, counts))
  spec = specs.CacheSpec(design.capacity_bytes, design.word_bits // 8, associativity)
  org, valid = organizations.resolve_data(
    spec, mode, partition, np.zeros(1, np.int32), nvsim_compatible=True
  )
  if not valid[0]:
    raise ValueError(f'{design}: no such organisation')
  return organizations.select(org, 0)


def unmodelled(row: Figure | CacheRow | CactiRow) -> str | None:
  """Why a row's design is outside the model, None if it is not."""
  try:
    _technology(row.design)
    if isinstance(row, Figure):
      forced_organization(row.design)
    elif isinstance(row, CacheRow):
      specs.validate_spec(specs.CacheSpec(row.design.capacity_bytes, row.line_bytes))
  except ValueError as error:
    return str(error)
  return None


@functools.partial(jax.jit, compiler_options=compilation.QUICKLY)
def _evaluate(cells, techs, orgs):
  model = functools.partial(array.array_model, nvsim_compatible=True)
  return jax.vmap(model)(cells, techs, orgs)


@precision.in_float64
def evaluate_designs(
  parts: list[tuple[structures.Cell, structures.Technology, structures.Organization]],
) -> list[array.ArrayPPA]:
  """NVSim-compatible figures of designs of any cells and technologies, in batches."""
  results = []
  for start in range(0, len(parts), _BATCH):
    batch = parts[start : start + _BATCH]
    padded = batch + batch[:1] * (_BATCH - len(batch))
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *padded)
    stacked = jax.tree.map(array.as_array, jax.tree.map(_as_float, stacked))
    ppa = precision.to_numpy(_evaluate(*stacked))
    results += [jax.tree.map(lambda x, i=i: x[i], ppa) for i in range(len(batch))]
  return results


def _as_float(leaf):
  """Library cells mix ints and floats; a batch needs one type, selectors stay integers."""
  return leaf if leaf.dtype == np.int32 else leaf.astype(np.float64)


def _technology(design: Design) -> structures.Technology:
  return nodes.technology_node(design.node_nm, design.roadmap, 350, nvsim_compatible=True)


def compare_figures(
  figures: list[Figure], cells: Mapping[str, structures.Cell]
) -> list[Comparison]:
  """Compares forced designs; every cell must be known."""
  designs = list(dict.fromkeys(figure.design for figure in figures))
  parts = [(cells[d.cell], _technology(d), forced_organization(d)) for d in designs]
  ppas = dict(zip(designs, evaluate_designs(parts)))
  comparisons = []
  for figure in figures:
    ppa = ppas[figure.design]
    ours = float(QUANTITIES[figure.quantity](ppa))
    label = f'{_name(figure.design)} line {figure.line}'
    total = float(QUANTITIES[figure.quantity.split(' > ')[0]](ppa))
    comparisons.append(
      _comparison(f'forced/{figure.quantity}', ours, figure.value, figure.step, total, label)
    )
  return comparisons


def _comparison(group, ours, reference, step, total, label):
  if reference == 0:
    return Comparison(group.replace('forced/', 'zero/'), abs(ours) / total, ours, 0.0, label)
  error = max(0.0, abs(ours - reference) - step) / abs(reference)
  return Comparison(group, error, ours, reference, label)


def _name(design: Design) -> str:
  return (
    f'{design.cell} {design.node_nm} nm {design.roadmap} {design.capacity_bytes >> 10} KiB '
    f'mats {design.mats[0]}x{design.mats[1]} mux {"/".join(map(str, design.mux))}'
  )


def compare_caches(
  rows: list[CacheRow], cells: Mapping[str, structures.Cell], associativity: int = 16
) -> list[Comparison]:
  """Compares cache searches: the reference's data arrays, and our own winners."""
  problems = collections.defaultdict(list)
  for row in rows:
    d = row.design
    problems[d.cell, d.node_nm, d.roadmap, d.capacity_bytes, row.line_bytes, row.mode].append(row)
  comparisons = []
  for (name, *_, capacity, line_bytes, mode), members in problems.items():
    tech = _technology(members[0].design)
    winners = {
      winner.target: winner
      for winner in exploration.explore(
        {name: cells[name]},
        tech,
        [capacity],
        [mode],
        line_bytes=line_bytes,
        associativity=associativity,
        nvsim_compatible=True,
      )
    }
    spec = specs.CacheSpec(capacity, line_bytes, associativity)
    arrays = evaluate_designs(
      [
        part
        for row in members
        for winner in (winners[row.target],)
        for part in (
          (cells[name], tech, forced_organization(row.design, mode, associativity=associativity)),
          (cells[name], winner.tag_technology, winner.tag_organization),
        )
      ]
    )
    for row, data, tag in zip(members, arrays[::2], arrays[1::2]):
      label = f'{_name(row.design)} {mode.value} {row.target.name} line {row.line}'
      totals = _cache_totals(data, tag, spec, mode, tech)
      for figure, reference in row.figures.items():
        ours = float(getattr(totals, figure))
        comparisons.append(_comparison(f'forced/cache {figure}', ours, reference, 0.0, ours, label))
      with precision.float64():
        ours, reference = (
          float(metrics.cache_metrics(totals)[row.target])
          for totals in (winners[row.target].totals, cache.CacheTotals(**row.figures, valid=True))
        )
      comparisons.append(
        Comparison(
          f'winner/{row.target.name}', max(0.0, ours / reference - 1), ours, reference, label
        )
      )
  return comparisons


def compare_cacti(
  rows: list[CactiRow], cells: Mapping[str, structures.Cell], associativity: int = 16
) -> list[Comparison]:
  """How far our read-EDP winner is from CACTI's cache, as `cacti/<figure>`; no fit is claimed.

  The tools differ in cells, transistors and layout rules; NVSim is about as far from CACTI.
  """
  comparisons = []
  for row in rows:
    d = row.design
    [winner] = exploration.explore(
      {d.cell: cells[d.cell]},
      nodes.technology_node(d.node_nm, d.roadmap, 350),
      [d.capacity_bytes],
      [row.mode],
      [specs.Target.READ_EDP],
      associativity=associativity,
    )
    for figure, reference in row.figures.items():
      ours = getattr(winner.totals, figure)
      comparisons.append(
        Comparison(
          f'cacti/{figure}',
          abs(ours / reference - 1),
          ours,
          reference,
          f'{_name(d)} {row.mode.value} line {row.line}',
        )
      )
  return comparisons


def _cache_totals(data, tag, spec, mode, tech):
  data_totals, tag_totals = (
    cache.array_totals(
      ppa, ppa.breakdown.mat_read_latency_ns, ppa.breakdown.column_decoder_latency_ns
    )
    for ppa in (data, tag)
  )
  with precision.float64():
    return precision.to_numpy(
      cache.combine(
        data_totals, tag_totals, specs.CACHE_MODES.index(mode), cache.bank_bus(spec, tech)
      )
    )


def summarize(comparisons: list[Comparison]) -> dict[str, dict[str, float]]:
  """`{group: {median, p95, worst, rows}}`, sorted by group."""
  groups = collections.defaultdict(list)
  for comparison in comparisons:
    groups[comparison.group].append(comparison.error)
  return {
    group: {
      'median': float(np.median(errors)),
      'p95': float(np.percentile(errors, 95)),
      'worst': float(np.max(errors)),
      'rows': len(errors),
    }
    for group, errors in sorted(groups.items())
  }
