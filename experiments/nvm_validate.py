"""Compares the memory model with reference figures of NVSim and CACTI.

    python -m experiments.nvm_validate --config configs/nvm_validate.py \\
        --reference tests/nvm/reference/nvsim_cache_search.csv --workdir runs/nvm_validate

`--reference` may be repeated; without it all files of tests/nvm/reference are read. Writes
`validation.json`, `{group: {median, p95, worst, rows}}`, and `report.md`, and prints the worst
rows. Groups and errors are those of `cnnopt_jax.nvm.validation`. The exit code is 1 if a row's
cell or quantity is unknown or its design outside the model, or if a reference of zero is not met.
"""

import collections
import json
import pathlib
import time

from absl import flags
from ml_collections import config_dict
from rich import console, table

from cnnopt_jax import nvm
from cnnopt_jax import report as formats
from cnnopt_jax.nvm import validation
from experiments.common import caches, fields, launch, reports, run_folder

REFERENCES = run_folder.REPO_ROOT / 'tests' / 'nvm' / 'reference'
ZERO_LIMIT = 1e-6
# Median and 95th percentile allowed by the project, for totals, parts and winners.
LIMITS = {'total': (0.01, 0.05), 'part': (1.0, 0.10), 'winner': (1.0, 0.03)}

SPEC = {
  'cells': fields.text('names of .cell files, with commas between'),
  'worst_rows': fields.integer(0, 1000),
  'associativity': fields.integer(1, 1024),
}


def run(
  config: config_dict.ConfigDict, workdir: pathlib.Path, references: list[str] | None = None
) -> int:
  """Validates and returns the exit code."""
  cells = load_cells(config.cells)
  rows = []
  for path in map(pathlib.Path, references or sorted(map(str, REFERENCES.glob('*.csv')))):
    try:
      rows += validation.read_reference(path)
    except (OSError, ValueError) as error:
      raise fields.ConfigError(
        f'reference={str(path)!r}: {error}; allowed: a CSV in a format of tests/nvm/reference'
      ) from None
  started = time.time()
  known, unknown = split_known(rows, cells)
  comparisons = compare(known, cells, config.associativity)
  groups = validation.summarize(comparisons)
  run_folder.write_atomically(workdir / 'validation.json', json.dumps(groups, indent=1) + '\n')
  reports.write(workdir, markdown(groups, unknown))
  report(groups, comparisons, config.worst_rows)
  print(f'{len(comparisons)} figures of {len(known)} rows in {time.time() - started:.1f} s')
  for name, count in sorted(unknown.items()):
    print(f'unknown {name}: {count} rows')
  unmet = [
    group
    for group, entry in groups.items()
    if group.startswith('zero/') and entry['worst'] >= ZERO_LIMIT
  ]
  for group in unmet:
    print(f'{group}: {groups[group]["worst"]:.2e} of the total, allowed: below {ZERO_LIMIT}')
  return int(bool(unknown or unmet))


def load_cells(paths: str) -> dict[str, nvm.Cell]:
  """The library's cells by name and alias, and the files' by their stems."""
  cells = {name: nvm.named_cell(name) for name in (*nvm.CELLS, *nvm.ALIASES)}
  return cells | caches.read_cells(paths, 'config.cells')


def split_known(rows: list, cells: dict[str, nvm.Cell]) -> tuple[list, collections.Counter]:
  """Rows that can be compared, and how many of each unknown kind cannot."""
  known, unknown = [], collections.Counter()
  for row in rows:
    if row.design.cell not in cells:
      unknown[f'cell {row.design.cell}'] += 1
    elif isinstance(row, validation.Figure) and row.quantity not in validation.QUANTITIES:
      unknown[f'quantity {row.quantity}'] += 1
    elif problem := validation.unmodelled(row):
      unknown[f'design: {problem}'] += 1
    else:
      known.append(row)
  return known, unknown


def compare(
  rows: list, cells: dict[str, nvm.Cell], associativity: int
) -> list[validation.Comparison]:
  """All comparisons of all kinds of rows."""

  def of_kind(kind):
    return [row for row in rows if isinstance(row, kind)]

  return (
    validation.compare_figures(of_kind(validation.Figure), cells)
    + validation.compare_caches(of_kind(validation.CacheRow), cells, associativity)
    + validation.compare_cacti(of_kind(validation.CactiRow), cells, associativity)
  )


def limits(group: str) -> tuple[float, float] | None:
  """Median and 95th percentile allowed for a group; None where nothing is promised."""
  kind, quantity = group.split('/', 1)
  if kind == 'winner':
    return LIMITS['winner']
  if kind != 'forced':
    return None
  return LIMITS['total' if quantity in validation.TOTALS else 'part']


def verdict(group: str, entry: dict) -> str:
  """Whether a group is within its limits."""
  allowed = limits(group)
  if allowed is None:
    return '-'
  return 'yes' if entry['median'] <= allowed[0] and entry['p95'] <= allowed[1] else 'NO'


def markdown(groups: dict, unknown: collections.Counter) -> list[str]:
  """The parts of `report.md`."""
  rows = [
    [
      f'`{group}`',
      *(f'{entry[name]:.1e}' for name in ('median', 'p95', 'worst')),
      entry['rows'],
      verdict(group, entry),
    ]
    for group, entry in groups.items()
  ]
  header = ['group', 'median', 'p95', 'worst', 'rows', 'within limits']
  total, part, winner = (LIMITS[name] for name in ('total', 'part', 'winner'))
  return [
    '# The memory model against NVSim and CACTI\n',
    formats.to_markdown(rows, header),
    f'Limits: totals median {total[0]:.0%} and 95th percentile {total[1]:.0%}, parts '
    f'{part[1]:.0%}, winners {winner[1]:.0%}. `forced/...`: relative error of our model, with '
    "NVSim's artefacts, on the organisation that the reference gives; `winner/...`: how much "
    "worse our own search's winner is than NVSim's on the target's metric; `zero/...`: where "
    "the reference is zero, ours over the design's total; `cacti/...`: a difference between two "
    'tools, no fit is claimed.\n',
    'NVSim does not print which tag array it took. Ours is chosen by its rule: the first '
    'partition, in the order of its loops, that is best for the same target on its own; then '
    'other local wires, then other wires and drives between mats, where strictly better.\n',
    *[f'Not compared: {name}, {count} rows.\n' for name, count in sorted(unknown.items())],
  ]


def report(groups: dict, comparisons: list[validation.Comparison], worst_rows: int) -> None:
  """Prints the groups with their limits, and the worst rows."""
  out = table.Table('group', 'median', 'p95', 'worst', 'rows', 'within limits')
  for group, entry in groups.items():
    out.add_row(
      group,
      *(f'{entry[name]:.2e}' for name in ('median', 'p95', 'worst')),
      str(entry['rows']),
      verdict(group, entry),
    )
  console.Console(width=120).print(out)
  worst = sorted((c for c in comparisons if limits(c.group)), key=lambda c: -c.error)[:worst_rows]
  for row in worst:
    print(
      f'{row.error:9.2e}  ours {row.ours:.5g}, reference {row.reference:.5g}  {row.group}: '
      f'{row.label}'
    )


if __name__ == '__main__':
  _references = flags.DEFINE_multi_string('reference', [], 'Reference CSV; may be repeated.')
  launch.main(
    lambda config, workdir: run(config, workdir, _references.value),
    SPEC,
    'configs/nvm_validate.py',
    'runs/nvm_validate',
  )
