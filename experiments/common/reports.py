"""What the reports of experiments share."""

import datetime
import json
import pathlib
import shlex
import sys
from typing import Any

from cnnopt_jax import report
from experiments.common import run_folder


def write(
  workdir: pathlib.Path, parts: list[str], environment: dict[str, Any] | None = None
) -> None:
  """Writes `report.md`: the parts, then how it was made.

  Args:
    workdir: of the run.
    parts: Markdown, set a line apart.
    environment: where the numbers were made; that of this process where it is not given.
  """
  run_folder.write_atomically(
    workdir / run_folder.REPORT, '\n'.join([*parts, made_by(environment)])
  )


def made_by(environment: dict[str, Any] | None = None) -> str:
  """The command that this process was given, the date, the code and the machine."""
  environment = dict(environment or run_folder.describe_environment())
  versions = environment.pop('versions')
  words = ', '.join(f'{key} {value}' for key, value in {**environment, **versions}.items())
  spec = sys.modules['__main__'].__spec__
  program = ['-m', spec.name.removesuffix('.__main__')] if spec else sys.argv[:1]
  command = shlex.join(['python', *program, *sys.argv[1:]])
  return f'Made by `{command}` on {datetime.date.today()}: {words}.\n'


def bench_table(rows: list[dict[str, Any]]) -> str:
  """The rows of a bench.json as a Markdown table."""
  notes = lambda row: ', '.join(
    f'{key} {value}' for key, value in row.items() if key not in ('name', 'value', 'unit')
  )
  return report.to_markdown(
    [(row['name'], f'{row["value"]:.4g}', row['unit'], notes(row)) for row in rows],
    ('what', 'value', 'unit', 'notes'),
  )


def write_bench(workdir: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """Writes `bench.json`, a list of `{name, value, unit, ...}`, and prints it as a table."""
  from rich import console, table  # Late, as above.

  run_folder.write_atomically(workdir / 'bench.json', json.dumps(rows, indent=1) + '\n')
  out = table.Table('name', 'value', 'unit', 'notes')
  for row in rows:
    notes = ', '.join(f'{k}={v}' for k, v in row.items() if k not in ('name', 'value', 'unit'))
    value = row['value']
    out.add_row(
      row['name'], f'{value:.4g}' if type(value) is float else str(value), row['unit'], notes
    )
  console.Console().print(out)
