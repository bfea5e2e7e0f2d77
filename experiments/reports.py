"""What the reports of experiments share."""

import datetime
import pathlib
import shlex
import sys
from typing import Any

from cnnopt_jax import report
from experiments import launch, run_folder


def write(
  workdir: pathlib.Path, parts: list[str], environment: dict[str, Any] | None = None
) -> None:
  """Writes `report.md`: the parts, then how it was made.

  Args:
    workdir: of the run.
    parts: Markdown, set a line apart.
    environment: where the numbers were made; that of this process where it is not given.
  """
  launch.write_atomically(workdir / run_folder.REPORT, '\n'.join([*parts, made_by(environment)]))


def made_by(environment: dict[str, Any] | None = None) -> str:
  """The command that this process was given, the date, the code and the machine."""
  environment = dict(environment or launch.environment())
  versions = environment.pop('versions')
  words = ', '.join(f'{key} {value}' for key, value in {**environment, **versions}.items())
  spec = sys.modules['__main__'].__spec__
  program = ['-m', spec.name] if spec else sys.argv[:1]
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
