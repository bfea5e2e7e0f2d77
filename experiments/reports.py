"""What the reports of experiments share."""

import datetime
import pathlib
from typing import Any

from cnnopt_jax import report
from experiments import launch


def write(workdir: pathlib.Path, module: str, parts: list[str]) -> None:
  """Writes `report.md`: the parts, then how it was made."""
  parts = [*parts, made_by(module)]
  launch.write_atomically(workdir / 'report.md', '\n'.join(parts))


def made_by(module: str) -> str:
  """The command, the date and the machine."""
  environment = launch.environment()
  versions = environment.pop('versions')
  words = ', '.join(f'{key} {value}' for key, value in {**environment, **versions}.items())
  return (f'Made by `python -m experiments.{module} --config configs/{module}.py` on '
          f'{datetime.date.today()}: {words}.\n')


def bench_table(rows: list[dict[str, Any]]) -> str:
  """The rows of a bench.json as a Markdown table."""
  notes = lambda row: ', '.join(f'{key} {value}' for key, value in row.items()
                                if key not in ('name', 'value', 'unit'))
  return report.to_markdown([(row['name'], f'{row["value"]:.4g}', row['unit'], notes(row))
                             for row in rows], ('what', 'value', 'unit', 'notes'))
