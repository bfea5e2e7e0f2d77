"""`explore_config`: a `.cfg` file from its text to the caches that it asks for."""

import dataclasses
from typing import NamedTuple

from cnnopt_jax.nvm import search, specs, structures
from cnnopt_jax.nvm.files.cell_files import CellFile, read_cell_file
from cnnopt_jax.nvm.files.config_files import Config
from cnnopt_jax.nvm.files.option_files import fail, note

_Kind = structures.Kind


class ConfigDesigns(NamedTuple):
  """What a `.cfg` file asks for, searched.

  Attributes:
    cell: as it is built, with the `.cfg` file's retention.
    technology: of all arrays.
    winners: one per target, in the order of `Target`; not valid if nothing could be built.
    obstacles: why not.
    notes: of both files and of the search, `file:line: field: what was done`.
  """

  cell: structures.Cell
  technology: structures.Technology
  winners: list[search.Winner]
  obstacles: list[str]
  notes: tuple[str, ...]


def config_cell(config: Config) -> CellFile:
  """Reads the cell that a `.cfg` file names.

  Raises:
    OptionFileError: `file:line: field: problem` of the cell file, or of the `.cfg` file if there
      is no such file.
  """
  try:
    return read_cell_file(config.cell_path)
  except OSError as error:
    raise fail(
      config.path,
      config.cell_line,
      'MemoryCellInputFile',
      f'{config.cell_path}: {error.strerror}; allowed: a file beside this one or relative to it',
    ) from None


def explore_config(config: Config, cell_file: CellFile | None = None) -> ConfigDesigns:
  """Searches what a `.cfg` file asks for.

  The tags of a cache are made of the same cell, as in NVSim. Without `UseCactiAssumption` NVSim
  would look at 19.8 million organisations; here the assumption always holds, which a note says.

  Args:
    config: of `read_config`.
    cell_file: in place of the cell that the file names.

  Returns:
    The designs.

  Raises:
    OptionFileError: of the cell, or if no organisation has the shape that the file forces.
  """
  cell, cell_notes = cell_file or config_cell(config)
  notes = [*config.notes, *cell_notes]
  if config.retention_us is not None and cell.kind in (_Kind.EDRAM, _Kind.GAIN_CELL):
    cell = dataclasses.replace(cell, retention_us=config.retention_us)
    notes.append(
      note(config.path, 0, 'RetentionTime', f"{config.retention_us:g} us, in place of the cell's")
    )
  if not config.cacti:
    notes.append(
      note(
        config.path, 0, 'UseCactiAssumption', 'not Yes; mats and banks are searched as if it was'
      )
    )
  technology = config.technology()
  targets = [*specs.Target][:-1] if config.target is None else [config.target]
  try:
    winners = search.explore_forced(
      cell,
      technology,
      config.spec,
      config.mode,
      targets,
      forced=search.Forced(config.bank, config.mat, config.mux, config.buffering),
      name=config.cell_path.stem,
    )
  except ValueError as error:
    raise fail(config.path, 0, 'Capacity', str(error)) from None
  blocked: list[str] = []
  if not any(winner.totals.valid for winner in winners):
    blocked = search.obstacles(cell, technology) or ['no organisation of this capacity is possible']
  return ConfigDesigns(cell, technology, winners, blocked, tuple(notes))
