"""What a study has found: records by cell, differences between kinds of networks, laws."""

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import config_dict

from experiments.bitwidth_study import law
from experiments.bitwidth_study.plan import FREE, MIXED, Cell, Network, Unit, singles_of
from experiments.common.comparisons import Difference, accuracies, difference, paired_differences

COST_WORDS = {'size': 'size', 'bit_operations': 'bit operations'}


class Results(NamedTuple):
  """A study as far as it has come.

  Attributes:
    config: of the study.
    networks: by name.
    cells: all.
    units: all that there is to train.
    found: records.
    workdir: of the run.
  """

  config: config_dict.ConfigDict
  networks: Mapping[str, Network]
  cells: Sequence[Cell]
  units: Sequence[Unit]
  found: Sequence[dict[str, Any]]
  workdir: pathlib.Path

  def kinds(self, cell: Cell) -> dict[str, list[dict[str, Any]]]:
    """Records of a cell by kind, those with any: single bitwidths, then mixed ones."""
    by_name = {one['name']: one for one in self.found}
    network = self.networks[cell.network]
    names = {
      bits_words(bits): [one.name for one in singles_of(network, cell, bits)]
      for bits in self.config.bits
    }
    seeds = self.config.seeds
    names[MIXED] = [f'{cell.name}_{MIXED}_seed{seed}' for seed in seeds]
    for bits in self.config.free_widths:
      kind = f'{FREE}, width of {bits_words(bits)}'
      names[kind] = [f'{cell.name}_{FREE}_b{bits}_seed{seed}' for seed in seeds]
    every = {kind: [by_name[n] for n in given if n in by_name] for kind, given in names.items()}
    return {kind: rows for kind, rows in every.items() if rows}

  def singles(self, cell: Cell) -> dict[int, list[dict[str, Any]]]:
    """Records of a cell's networks of one bitwidth."""
    kinds = self.kinds(cell)
    return {b: kinds[bits_words(b)] for b in self.config.bits if bits_words(b) in kinds}

  def best(self, cell: Cell) -> int | None:
    """The most accurate single bitwidth."""
    means = {b: mean_accuracy(rows) for b, rows in self.singles(cell).items() if accuracies(rows)}
    return max(means, key=lambda b: means[b], default=None)

  @property
  def missing(self) -> int:
    """How many units have networks that are not on record."""
    names, seeds = {one['name'] for one in self.found}, len(self.config.seeds)

    def is_whole(unit: Unit) -> bool:
      if not all(member.name in names for member in unit.members):
        return False
      if unit.cell is None:
        return True
      kinds = self.kinds(unit.cell)
      mixed = [rows for kind, rows in kinds.items() if kind == MIXED or kind.startswith(FREE)]
      return [len(rows) for rows in mixed] == [seeds] * (1 + len(self.config.free_widths))

    return sum(not is_whole(unit) for unit in self.units)


def bits_words(bits: int) -> str:
  return f'{bits} bit' + 's' * (bits > 1)


def mean_accuracy(rows: Sequence[Mapping[str, Any]]) -> float:
  return statistics.fmean(accuracies(rows))


def cell_words(cell: Cell) -> str:
  return f'{cell.network}, equal {COST_WORDS[cell.cost]}, budget {cell.budget_width:g}'


def against_mixed(results: Results) -> list[Difference]:
  """The best single bitwidth of each cell against its mixed network of no accuracy lost."""
  pairs = []
  for cell in results.cells:
    kinds, best = results.kinds(cell), results.best(cell)
    if MIXED in kinds and best is not None:
      each = paired_differences(kinds[bits_words(best)], kinds[MIXED])
      pairs.append((f'{cell_words(cell)}: {bits_words(best)}', MIXED, each))
  return _differences(pairs)


def against_free(results: Results) -> list[Difference]:
  """Mixed networks of free width against the best single bitwidth."""
  pairs = []
  for cell in results.cells:
    kinds, best = results.kinds(cell), results.best(cell)
    if best is None:
      continue
    for kind, rows in kinds.items():
      if kind.startswith(FREE):
        each = paired_differences(rows, kinds[bits_words(best)])
        pairs.append((f'{cell_words(cell)}: {kind}', bits_words(best), each))
  return _differences(pairs)


def against_most(results: Results) -> list[Difference]:
  """The best single bitwidth of each cell against the most bits."""
  most, pairs = max(results.config.bits), []
  for cell in results.cells:
    singles, best = results.singles(cell), results.best(cell)
    if best not in (None, most) and most in singles:
      each = paired_differences(singles[best], singles[most])
      pairs.append((f'{cell_words(cell)}: {bits_words(best)}', bits_words(most), each))
  return _differences(pairs)


def _differences(pairs) -> list[Difference]:
  found = [difference(one, other, each, len(pairs)) for one, other, each in pairs]
  return [one for one in found if one is not None]


def pooled(results: Results, one: int, other: int, network: str, cost: str) -> Difference | None:
  """One bitwidth against another over all budgets of a network, seed by seed."""
  cells = [c for c in results.cells if (c.network, c.cost) == (network, cost)]
  by_seed: dict[int, list[float]] = {}
  for cell in cells:
    singles = results.singles(cell)
    if one not in singles or other not in singles:
      return None
    for seed in results.config.seeds:
      rows = [[r for r in singles[b] if r['seed'] == seed] for b in (one, other)]
      each = paired_differences(*rows)
      if not each:
        return None
      by_seed.setdefault(seed, []).extend(each)
  means = [statistics.fmean(each) for each in by_seed.values()]
  return difference(f'{network}: {bits_words(one)}', bits_words(other), means)


def points_of(results: Results, network: str) -> law.Points:
  """What a law is fitted to: every network of one bitwidth once, held out by budget."""
  rows: dict[str, tuple[int, int, float, str]] = {}
  for cell in results.cells:
    if cell.network != network:
      continue
    for bits, records in results.singles(cell).items():
      if not accuracies(records):
        continue
      weights = sum(leaf.size for leaf in cell.singles[bits].plan.quantized)
      name = records[0]['name'].rpartition('_')[0]
      error = 1 - mean_accuracy(records)
      if error <= 0:  # Laws are of its logarithm.
        continue
      rows.setdefault(name, (weights, bits, error, f'{cell.cost} {cell.budget_width:g}'))
  columns = list(zip(*rows.values())) or [()] * 4
  return law.Points(*(np.asarray(column) for column in columns))


def laws_of(results: Results, network: str) -> list[law.Law]:
  points = points_of(results, network)
  fitted = [law.fit(points, name) for name in law.LAWS]
  return [one for one in fitted if one is not None]


def any_layers(results: Results, name: str):
  cell = next(cell for cell in results.cells if cell.network == name)
  return next(iter(cell.singles.values())).layers
