"""What the reports of the memory model's experiments share."""

import datetime
import pathlib

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
