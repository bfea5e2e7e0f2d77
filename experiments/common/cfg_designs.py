"""What `.cfg` files ask for: searched, written as a table, with notes on what was ignored."""

import csv
import io
import pathlib
import sys

from ml_collections import config_dict

from cnnopt_jax import nvm
from cnnopt_jax import report as formats
from experiments.common import caches, fields, reports, run_folder

FIGURES = {
  'hit_latency_ns': 'read latency, ns',
  'miss_latency_ns': 'miss latency, ns',
  'write_latency_ns': 'write latency, ns',
  'hit_energy_nj': 'read energy, nJ',
  'write_energy_nj': 'write energy, nJ',
  'leakage_mw': 'leakage, mW',
  'area_mm2': 'area, mm2',
}
WHERE = 'config.cfg_files'


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> int:
  """Builds what `config.cfg_files` ask for; the exit code is 1 if something cannot be built.

  A single file in `config.cell_files` takes the place of the cells that they name.

  Raises:
    ConfigError: naming the file and what is wrong with it.
  """
  users = list(caches.read_user_cells(config.cell_files, 'config.cell_files').values())
  if len(users) > 1:
    raise fields.ConfigError(
      f'config.cell_files={config.cell_files!r}; allowed: one .cell file beside .cfg files'
    )
  paths = [pathlib.Path(name) for name in config.cfg_files.split(',') if name]
  # All files are read before anything is searched.
  asked = [_read(path, users) for path in paths]
  designs = [_explore(path, *files) for path, files in zip(paths, asked)]
  parts = []
  for path, (wanted, _), found in zip(paths, asked, designs):
    cell_path = users[0].path if users else wanted.cell_path
    parts += _report(path, cell_path, wanted, found)
  run_folder.write_atomically(workdir / 'results.csv', _csv(paths, designs))
  reports.write(workdir, parts)
  run_folder.record(workdir, config)
  print((workdir / 'report.md').read_text())
  for found in designs:
    for line in found.notes:
      print(f'note: {line}', file=sys.stderr)
  return int(any(found.obstacles for found in designs))


def _read(path: pathlib.Path, users: list) -> tuple[nvm.Config, nvm.CellFile]:
  """A `.cfg` file and its cell, as a `ConfigError` if one of the two cannot be read."""
  try:
    wanted = nvm.read_config(path)
    if users:
      return wanted, nvm.CellFile(users[0].cell, users[0].notes)
    if not wanted.cell_path.exists():
      raise fields.ConfigError(
        f'{path}:{wanted.cell_line}: MemoryCellInputFile: {wanted.cell_path}: no such file; '
        'allowed: one beside the .cfg file or relative to it, or a .cell file named after it'
      )
    return wanted, nvm.config_cell(wanted)
  except OSError as error:
    raise fields.ConfigError(
      f'{WHERE}={str(path)!r}: {error.strerror}; allowed: a readable .cfg file'
    ) from None
  except nvm.OptionFileError as error:
    raise fields.ConfigError(f'{WHERE}={str(path)!r}: {error}') from None


def _explore(path: pathlib.Path, wanted: nvm.Config, cell: nvm.CellFile) -> nvm.ConfigDesigns:
  try:
    return nvm.explore_config(wanted, cell)
  except nvm.OptionFileError as error:
    raise fields.ConfigError(f'{WHERE}={str(path)!r}: {error}') from None


def _report(path, cell_path, wanted: nvm.Config, found: nvm.ConfigDesigns) -> list[str]:
  """The parts of `report.md` of one file."""
  spec = wanted.spec
  shape = f'{spec.capacity_bytes / 1024:g} KB, {spec.line_bytes} B a line'
  if wanted.mode is not nvm.Mode.RAM:
    shape += f', {spec.associativity} ways, {wanted.mode.value}'
  lines = [
    f'# {path.name}\n',
    f'{shape}; {wanted.node_nm} nm {wanted.roadmap}, {wanted.temperature_k} K. '
    f'Cell: {nvm.Kind(int(found.cell.kind)).name} of `{cell_path}`.\n',
  ]
  if found.obstacles:
    lines.append('\n'.join(f'- **cannot be built: {line}**' for line in found.obstacles) + '\n')
  rows = [
    [winner.target.name.lower(), *(f'{getattr(winner.totals, name):.4g}' for name in FIGURES)]
    for winner in found.winners
    if winner.totals.valid
  ]
  if rows:
    lines.append(formats.to_markdown(rows, ['least', *FIGURES.values()]))
  built = [winner for winner in found.winners if winner.totals.valid]
  if built and found.cell.kind in (nvm.Kind.EDRAM, nvm.Kind.GAIN_CELL):
    bank = nvm.array_ppa(found.cell, found.technology, built[0].data_organization)
    banks = spec.capacity_bytes // (spec.capacity_bytes & -spec.capacity_bytes)
    lines.append(
      f'Of the leakage, refresh of the data once in {found.cell.retention_us:g} us takes '
      f'{banks * float(bank.breakdown.refresh_mw):.4g} mW at {wanted.temperature_k} K.\n'
    )
  if found.notes:
    lines.append('\n'.join(f'- {line}' for line in found.notes) + '\n')
  return lines


def _csv(paths, designs) -> str:
  """One line per file and target."""
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  writer.writerow(['cfg', 'target', *FIGURES, 'rows', 'columns', 'mats', 'built'])
  for path, found in zip(paths, designs):
    for winner in found.winners:
      valid, org = bool(winner.totals.valid), winner.data_organization
      figures = [f'{getattr(winner.totals, name):.6g}' if valid else '' for name in FIGURES]
      shape = [int(org.rows), int(org.columns), f'{int(org.mat_rows)}x{int(org.mat_columns)}']
      row = [str(path), winner.target.name, *figures, *(shape if valid else [''] * 3)]
      writer.writerow([*row, 'yes' if valid else 'no: ' + '; '.join(found.obstacles)])
  return out.getvalue()
