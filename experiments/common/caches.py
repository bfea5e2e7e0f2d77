"""The caches that a config describes."""

import pathlib
from collections.abc import Iterable
from typing import Any

from cnnopt_jax import nvm
from experiments.common import fields

TECHNOLOGIES = ('sram', 'stt', 'sot')
MIB = 1 << 20

# What a config says of them.
SPEC = {
  'stt_cell': fields.one_of(*nvm.CELLS),
  'sot_cell': fields.one_of(*nvm.CELLS),
  'tag_cell': fields.one_of('same', *nvm.CELLS),
  'node_nm': fields.integer(16, 120),
  'roadmap': fields.one_of('HP', 'LSTP', 'LOP'),
  'temperature_k': fields.integer(300, 400),
}


def tuned(
  config, technologies: Iterable[str], capacities_mib: Iterable[int]
) -> dict[tuple[str, int], nvm.LastLevelCache]:
  """`{(technology, MiB): cache}` of this library's EDAP-tuned caches, all searched together."""
  found = nvm.edap_tuned(
    {name: cell_of(config, name) for name in technologies},
    technology_of(config),
    [mib * MIB for mib in capacities_mib],
    **options_of(config),
  )
  return {
    (name, capacity // MIB): nvm.LastLevelCache.of(name, capacity, winner.totals)
    for (name, capacity), winner in found.items()
  }


def cell_of(config, technology: str) -> nvm.Cell:
  """The cell that stands for a technology."""
  names = {'sram': 'sram', 'stt': config.stt_cell, 'sot': config.sot_cell}
  return nvm.CELLS[names[technology]]


def technology_of(config, **options: Any) -> nvm.Technology:
  """The node of a config; a node that there is not is a `ConfigError`."""
  try:
    return nvm.technology_node(config.node_nm, config.roadmap, config.temperature_k, **options)
  except ValueError as error:
    raise fields.ConfigError(f'config.{error}') from None


def options_of(config) -> dict[str, Any]:
  """Options of a search: the cell of the tags."""
  return {'tag_cell': None if config.tag_cell == 'same' else nvm.CELLS[config.tag_cell]}


def read_cells(paths: str, where: str) -> dict[str, nvm.Cell]:
  """Cells of `.cell` files by their stems.

  Args:
    paths: names of files, with commas between.
    where: the field that names them.

  Raises:
    ConfigError: naming the field, the file and what is wrong with it.
  """
  cells = {}
  for path in map(pathlib.Path, filter(None, paths.split(','))):
    try:
      cells[path.stem] = nvm.read_cell(path)
    except (OSError, nvm.OptionFileError) as error:
      raise fields.ConfigError(
        f'{where}={str(path)!r}: {error}; allowed: a readable .cell file'
      ) from None
  return cells
