"""Compares the memory model with reference figures of NVSim and CACTI.

    python -m experiments.nvm_validate --config configs/nvm_validate.py \\
        --reference tests/nvm/reference/nvsim_cache_search.csv --workdir runs/nvm_validate

`--reference` may be repeated; without it all files of tests/nvm/reference are read. Writes
`validation.json`, `{group: {median, p95, worst, rows}}`, and prints the worst rows. Groups and
errors are those of `cnnopt_jax/nvm/validation.py`. The exit code is 1 if a row's cell or quantity
is unknown, or if a reference of zero is not met.
"""

import collections
import json
import pathlib
import time

from absl import flags
from ml_collections import config_dict
from rich import console, table

from cnnopt_jax import nvm
from cnnopt_jax.nvm import reference, validation
from experiments import launch

REFERENCES = launch.REPO_ROOT / 'tests' / 'nvm' / 'reference'
ZERO_LIMIT = 1e-6
# Median and 95th percentile allowed by the project, for totals, parts and winners.
LIMITS = {'total': (0.01, 0.05), 'part': (1.0, 0.10), 'winner': (1.0, 0.03)}

SPEC = {
    'cells': launch.text('names of .cell files, with commas between'),
    'worst_rows': launch.integer(0, 1000),
    'associativity': launch.integer(1, 1024),
}


def run(config: config_dict.ConfigDict, workdir: pathlib.Path,
        references: list[str] | None = None) -> int:
  """Validates and returns the exit code."""
  cells = load_cells(config.cells)
  rows = []
  for path in map(pathlib.Path, references or sorted(map(str, REFERENCES.glob('*.csv')))):
    try:
      rows += reference.read_reference(path)
    except (OSError, ValueError) as error:
      raise launch.ConfigError(f'reference={str(path)!r}: {error}; allowed: a CSV in a format of '
                               'tests/nvm/reference') from None
  started = time.time()
  known, unknown = split_known(rows, cells)
  comparisons = compare(known, cells, config.associativity)
  groups = validation.summarize(comparisons)
  launch.write_atomically(workdir / 'validation.json', json.dumps(groups, indent=1) + '\n')
  report(groups, comparisons, config.worst_rows)
  print(f'{len(comparisons)} figures of {len(known)} rows in {time.time() - started:.1f} s')
  for name, count in sorted(unknown.items()):
    print(f'unknown {name}: {count} rows')
  unmet = [group for group, entry in groups.items()
           if group.startswith('zero/') and entry['worst'] >= ZERO_LIMIT]
  for group in unmet:
    print(f'{group}: {groups[group]["worst"]:.2e} of the total, allowed: below {ZERO_LIMIT}')
  return int(bool(unknown or unmet))


def load_cells(paths: str) -> dict[str, nvm.Cell]:
  """The library's cells by name and alias, and the files' by their stems."""
  cells = {name: nvm.named_cell(name) for name in (*nvm.CELLS, *nvm.ALIASES)}
  for path in map(pathlib.Path, filter(None, paths.split(','))):
    try:
      cells[path.stem] = nvm.read_cell(path)
    except (OSError, nvm.OptionFileError) as error:
      raise launch.ConfigError(f'config.cells={str(path)!r}: {error}; allowed: a readable .cell '
                               'file') from None
  return cells


def split_known(rows: list, cells: dict[str, nvm.Cell]) -> tuple[list, collections.Counter]:
  """Rows that can be compared, and how many of each unknown cell or quantity cannot."""
  known, unknown = [], collections.Counter()
  for row in rows:
    if row.design.cell not in cells:
      unknown[f'cell {row.design.cell}'] += 1
    elif isinstance(row, reference.Figure) and row.quantity not in validation.QUANTITIES:
      unknown[f'quantity {row.quantity}'] += 1
    else:
      known.append(row)
  return known, unknown


def compare(rows: list, cells: dict[str, nvm.Cell],
            associativity: int) -> list[validation.Comparison]:
  """All comparisons of all kinds of rows."""
  of_kind = lambda kind: [row for row in rows if isinstance(row, kind)]
  return (validation.compare_figures(of_kind(reference.Figure), cells)
          + validation.compare_caches(of_kind(reference.CacheRow), cells, associativity)
          + validation.compare_cacti(of_kind(reference.CactiRow), cells, associativity))


def limits(group: str) -> tuple[float, float] | None:
  """Median and 95th percentile allowed for a group; None where nothing is promised."""
  kind, quantity = group.split('/', 1)
  if kind == 'winner':
    return LIMITS['winner']
  if kind != 'forced':
    return None
  return LIMITS['total' if quantity in validation.TOTALS else 'part']


def report(groups: dict, comparisons: list[validation.Comparison], worst_rows: int) -> None:
  """Prints the groups with their limits, and the worst rows."""
  out = table.Table('group', 'median', 'p95', 'worst', 'rows', 'within limits')
  for group, entry in groups.items():
    allowed = limits(group)
    verdict = '-' if allowed is None else (
        'yes' if entry['median'] <= allowed[0] and entry['p95'] <= allowed[1] else 'NO')
    out.add_row(group, *(f'{entry[name]:.2e}' for name in ('median', 'p95', 'worst')),
                str(entry['rows']), verdict)
  console.Console(width=120).print(out)
  worst = sorted((c for c in comparisons if limits(c.group)), key=lambda c: -c.error)[:worst_rows]
  for row in worst:
    print(f'{row.error:9.2e}  ours {row.ours:.5g}, reference {row.reference:.5g}  {row.group}: '
          f'{row.label}')


if __name__ == '__main__':
  _references = flags.DEFINE_multi_string('reference', [], 'Reference CSV; may be repeated.')
  launch.main(lambda config, workdir: run(config, workdir, _references.value), SPEC,
              'configs/nvm_validate.py', 'runs/nvm_validate')
