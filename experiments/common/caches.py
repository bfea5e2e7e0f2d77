"""The caches that a config describes."""

import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

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


class UserCell(NamedTuple):
  """A cell of a user's file.

  Attributes:
    path: of the file.
    cell: the cell.
    notes: what in the file was ignored or assumed, one a line.
  """

  path: pathlib.Path
  cell: nvm.Cell
  notes: tuple[str, ...]


def read_user_cells(paths: str, where: str) -> dict[str, UserCell]:
  """Cells of `.cell` files, by names that no built-in cell has.

  A name is the file's stem; where that is a built-in cell's or an earlier file's, its name with
  `.cell`; and where that is an earlier file's too, the path.

  Args:
    paths: names of files, with commas between.
    where: the field that names them.

  Raises:
    ConfigError: naming the field, the file and what is wrong with it.
  """
  found: dict[str, UserCell] = {}
  for path in map(pathlib.Path, filter(None, paths.split(','))):
    taken = {*nvm.CELLS, *nvm.ALIASES, *found}
    name = next(n for n in (path.stem, path.name, str(path), f'{path} again') if n not in taken)
    try:
      found[name] = UserCell(path, *nvm.read_cell_file(path))
    except OSError as error:
      raise fields.ConfigError(
        f'{where}={str(path)!r}: {error.strerror}; allowed: a readable .cell file'
      ) from None
    except nvm.OptionFileError as error:
      raise fields.ConfigError(
        f'{where}={str(path)!r}: {error}; allowed: a readable .cell file'
      ) from None
  return found


def read_cells(paths: str, where: str) -> dict[str, nvm.Cell]:
  """The cells of `read_user_cells`."""
  return {name: read.cell for name, read in read_user_cells(paths, where).items()}
