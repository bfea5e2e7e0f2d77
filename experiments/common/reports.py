"""What the reports of experiments share."""

import datetime
import json
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from rich import console, table

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
  report.write_atomically(workdir / run_folder.REPORT, '\n'.join([*parts, made_by(environment)]))


def made_by(environment: dict[str, Any] | None = None) -> str:
  """The command that this process was given, the date, the code and the machine."""
  environment = dict(environment or run_folder.describe_environment())
  versions = environment.pop('versions')
  words = ', '.join(f'{key} {value}' for key, value in {**environment, **versions}.items())
  spec = sys.modules['__main__'].__spec__
  program = ['-m', spec.name.removesuffix('.__main__')] if spec else sys.argv[:1]
  command = shlex.join(['python', *program, *sys.argv[1:]])
  return f'Made by `{command}` on {datetime.date.today()}: {words}.\n'


def show_table(title: str, rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
  """Prints a table."""
  out = table.Table(*header, title=title)
  for row in rows:
    out.add_row(*row)
  console.Console().print(out)


def bench_table(rows: list[dict[str, Any]]) -> str:
  """The rows of a bench.json as a Markdown table."""
  return report.to_markdown(
    [(row['name'], f'{row["value"]:.4g}', row['unit'], _notes(row, ' ')) for row in rows],
    ('what', 'value', 'unit', 'notes'),
  )


def write_bench(workdir: pathlib.Path, rows: list[dict[str, Any]], *, show: bool = True) -> None:
  """Writes `bench.json`, a list of `{name, value, unit, ...}`, and prints it as a table.

  Args:
    workdir: of the run.
    rows: of the list.
    show: False for a benchmark that has printed its rows as it went.
  """
  report.write_atomically(workdir / 'bench.json', json.dumps(rows, indent=1) + '\n')
  if not show:
    return
  out = table.Table('name', 'value', 'unit', 'notes')
  for row in rows:
    value = row['value']
    shown = f'{value:.4g}' if type(value) is float else str(value)
    out.add_row(row['name'], shown, row['unit'], _notes(row, '='))
  console.Console().print(out)


def _notes(row: dict[str, Any], between: str) -> str:
  """Whatever a row says besides its name, value and unit."""
  return ', '.join(
    f'{key}{between}{value}' for key, value in row.items() if key not in ('name', 'value', 'unit')
  )
