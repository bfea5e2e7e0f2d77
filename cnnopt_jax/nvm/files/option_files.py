"""The line format of `.cell` and `.cfg` files: `-Name (unit): value`, comments elsewhere."""

import math
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

_LINE = re.compile(r'-\s*(?P<name>\w+)\s*(?:\((?P<unit>[^)]*)\))?\s*:\s*(?P<value>.*)$')


class OptionFileError(ValueError):
  """What is wrong with a file, as `file:line: field: problem`."""


class Option(NamedTuple):
  """One allowed field.

  Attributes:
    parse: from text to a value; raises ValueError with what is allowed.
    unit: what must stand in parentheses; None if NVSim's files show none or words.
  """

  parse: Callable[[str], Any]
  unit: str | None = None


class Entry(NamedTuple):
  """One field as read: its value and its line."""

  value: Any
  line: int


def fail(path: pathlib.Path, line: int, field: str, problem: str) -> OptionFileError:
  """The error to raise."""
  return OptionFileError(f'{path}:{line}: {field}: {problem}')


def read_options(path: pathlib.Path, options: dict[str, Option]) -> dict[str, Entry]:
  """Reads a file.

  Lines that do not start with a dash are comments, as NVSim takes them.

  Raises:
    OptionFileError: for an unknown or repeated field, a wrong unit, or an impossible value.
    OSError: if the file cannot be read.
  """
  entries: dict[str, Any] = {}
  for number, line in enumerate(path.read_text().splitlines(), start=1):
    line = line.strip()
    if not line.startswith('-'):
      continue
    match = _LINE.match(line)
    if not match:
      raise fail(path, number, line.split()[0], 'not of the form "-Name (unit): value"')
    name, unit, value = match['name'], match['unit'], match['value'].strip()
    if name not in options:
      raise fail(path, number, name, 'unknown; allowed: ' + ', '.join(options))
    if name in entries:
      raise fail(path, number, name, f'given before, in line {entries[name].line}')
    option = options[name]
    if option.unit is not None and (unit or '').strip() != option.unit:
      raise fail(path, number, name, f'unit ({unit}); allowed: ({option.unit})')
    try:
      entries[name] = Entry(option.parse(value), number)
    except ValueError as error:
      raise fail(path, number, name, f'{value!r}; {error}') from None
  return entries


def number(low: float = 0.0, *, above: bool = False) -> Callable[[str], float]:
  """Parses a finite number of at least `low`, or above it."""

  def parse(text: str) -> float:
    words = f'allowed: a number {"above" if above else "of at least"} {low:g}'
    try:
      value = float(text.split()[0]) if text else math.nan
    except ValueError:
      raise ValueError(words) from None
    if not math.isfinite(value) or value < low or (above and value == low):
      raise ValueError(words)
    return value

  return parse


def whole(low: int) -> Callable[[str], int]:
  """Parses a whole number of at least `low`."""

  def parse(text: str) -> int:
    if not text.split() or not text.split()[0].isdigit() or int(text.split()[0]) < low:
      raise ValueError(f'allowed: a whole number of at least {low}')
    return int(text.split()[0])

  return parse


def choice(choices: dict[str, Any]) -> Callable[[str], Any]:
  """Parses one of several words; a value of None marks a word that is known but not modelled."""

  def parse(text: str) -> Any:
    word = text.split()[0] if text else ''
    allowed = [name for name, value in choices.items() if value is not None]
    if word not in allowed:
      raise ValueError(
        ('not modelled; ' if word in choices else '') + 'allowed: ' + ', '.join(allowed)
      )
    return choices[word]

  return parse


def anything(text: str) -> str:
  """Keeps the text."""
  return text
