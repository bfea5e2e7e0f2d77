"""The line format of `.cell` and `.cfg` files: `-Name (unit): value`, comments elsewhere.

Names, words and units are read in any case and spacing; `//` and `#` after a blank begin a comment.
A unit may have another SI prefix than the format's own. What is unknown or changes nothing becomes
a note, `file:line: field: what was done`; what would change the result is an error:

- an unknown field is a note, unless its name resembles a field that the file lacks: a misspelling
  would silently leave a default in place;
- a known field that this model has no use for is a note where it asks for something special;
- a field that asks for another device than the model has is an error.
"""

import difflib
import math
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

_LINE = re.compile(r'-\s*(?P<name>\w+)\s*(?:\((?P<unit>[^)]*)\))?\s*[:=]\s*(?P<value>.*)$')
_COMMENT = re.compile(r'(?:^|\s)(?://|#).*$')
# How alike two names are that differ in a letter or two; `Optimization` for `OptimizationTarget`
# is below it.
_MISSPELT = 0.85
_PREFIXES = {'f': 1e-15, 'p': 1e-12, 'n': 1e-9, 'u': 1e-6, 'µ': 1e-6, 'm': 1e-3, 'k': 1e3}
_BASES = ('hz', 'ohm', 'v', 'a', 'w', 'j', 's', 'f')


class OptionFileError(ValueError):
  """What is wrong with a file, as `file:line: field: problem`."""


class Option(NamedTuple):
  """One allowed field.

  Attributes:
    parse: from text to a value; raises ValueError with what is allowed.
    unit: what stands in parentheses, or another prefix of it; None if NVSim's files show none or
      words.
    ignored: why it changes nothing here, for a note; None if it is used.
    farad: whether `F` is farad rather than the feature size.
  """

  parse: Callable[[str], Any]
  unit: str | None = None
  ignored: str | None = None
  farad: bool = False


class Entry(NamedTuple):
  """One field as read: its value, its line, and the texts of its unit and value."""

  value: Any
  line: int
  unit: str = ''
  text: str = ''


class Options(dict[str, Entry]):
  """Fields by name; `notes` say in lines what was ignored or assumed."""

  def __init__(self) -> None:
    super().__init__()
    self.notes: list[str] = []

  def get_value(self, name: str, default: Any = None) -> Any:
    """A field's value, or the default where the file has none."""
    return self[name].value if name in self else default

  def line(self, *names: str) -> int:
    """The line of the first of the fields that the file has; 0 for none."""
    return next((self[name].line for name in names if name in self), 0)


def fail(path: pathlib.Path, line: int, field: str, problem: str) -> OptionFileError:
  """The error to raise."""
  return OptionFileError(f'{path}:{line}: {field}: {problem}')


def note(path: pathlib.Path, line: int, field: str, what: str) -> str:
  """The line to report."""
  return f'{path}:{line}: {field}: {what}'


def read_text(path: pathlib.Path) -> str:
  """A file's text; UTF-8, or Latin-1 where it is not.

  Raises:
    OptionFileError: for a binary or an empty file.
    OSError: if it cannot be read (a folder).
  """
  data = path.read_bytes()
  try:
    text = data.decode('utf-8-sig')
  except UnicodeDecodeError:
    text = data.decode('latin-1')
  # Control characters other than blanks are in no text file.
  if re.search(r'[\x00-\x08\x0e-\x1f]', text):
    raise fail(path, 0, 'file', 'binary; allowed: lines of "-Name (unit): value"')
  if not text.strip():
    raise fail(path, 0, 'file', 'empty; allowed: lines of "-Name (unit): value"')
  return text


def read_options(path: pathlib.Path, options: dict[str, Option]) -> Options:
  """Reads a file.

  Lines that do not start with a dash are comments, as NVSim takes them.

  Raises:
    OptionFileError: for a repeated or misspelt field, a wrong unit, or an impossible value.
    OSError: if the file cannot be read.
  """
  entries = Options()
  known = {name.lower(): name for name in options}
  unknown: list[tuple[str, int]] = []
  for number, line in enumerate(read_text(path).splitlines(), start=1):
    line = line.strip()
    if not line.startswith('-'):
      continue
    match = _LINE.match(line)
    if not match:
      raise fail(path, number, line.split()[0], 'not of the form "-Name (unit): value"')
    name, unit = match['name'], match['unit']
    value = _COMMENT.sub('', match['value']).strip()
    if name.lower() not in known:
      unknown.append((name, number))
      continue
    name = known[name.lower()]
    if name in entries:
      raise fail(path, number, name, f'given before, in line {entries[name].line}')
    option = options[name]
    try:
      parsed = option.parse(value)
    except ValueError as error:
      raise fail(path, number, name, f'{value!r}; {error}') from None
    if option.unit is not None and unit is not None:
      scale = _scale(unit, option)
      if not isinstance(parsed, float) and scale != 1.0:
        scale = None  # Counts and words have one unit.
      if scale is None:
        raise fail(path, number, name, f'unit ({unit}); allowed: ({option.unit})')
      parsed = parsed if scale == 1.0 else parsed * scale  # Words stay as they are.
    if option.ignored is not None:
      entries.notes.append(note(path, number, name, f'ignored: {option.ignored}'))
    entries[name] = Entry(parsed, number, (unit or '').strip(), value)
  if not entries:
    raise fail(path, 0, 'file', 'no field; allowed: lines of "-Name (unit): value"')
  for name, number in unknown:
    lacking = [other for other in known if known[other] not in entries]
    alike = difflib.get_close_matches(name.lower(), lacking, 1, _MISSPELT)
    if alike:
      raise fail(path, number, name, f'unknown; allowed: {known[alike[0]]}, or another field')
    entries.notes.append(note(path, number, name, 'ignored: unknown, and like no other field'))
  return entries


def _scale(unit: str, option: Option) -> float | None:
  """What to multiply a value in `unit` by for the option's unit; None for another quantity."""
  unit, wanted = (''.join(text.split()) for text in (unit, option.unit or ''))
  if unit.lower() == wanted.lower():
    return 1.0
  ours, theirs = (_si(text, option.farad) for text in (wanted, unit))
  if ours is None or theirs is None or ours[1] != theirs[1]:
    return None
  # Exponents, so that a change of prefix is one rounding.
  return float(f'1e{theirs[0] - ours[0]}')


def _si(unit: str, farad: bool) -> tuple[int, str] | None:
  """Exponent of ten and base of a unit such as `mV`, `kohm` or `uA`."""
  text = unit.lower()
  for base in _BASES:
    if base == 'f' and not farad:
      continue
    if not text.endswith(base):
      continue
    prefix = unit[: len(unit) - len(base)]
    if prefix == '':
      return 0, base
    if prefix == 'M' and base == 'ohm':  # Elsewhere in these files M can only be milli.
      return 6, base
    if prefix.lower() in _PREFIXES:
      return round(math.log10(_PREFIXES[prefix.lower()])), base
  return None


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


def or_word(parse: Callable[[str], Any], words: dict[str, Any]) -> Callable[[str], Any]:
  """Parses what `parse` does, or one of a few words such as `vdd` and `unknown`."""

  def parsed(text: str) -> Any:
    word = text.split()[0].lower() if text.split() else ''
    return words[word] if word in words else parse(text)

  return parsed


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
    spelled = {name.lower(): name for name in choices}.get(word.lower())
    if spelled is None or choices[spelled] is None:
      allowed = [name for name, value in choices.items() if value is not None]
      raise ValueError(
        ('not modelled; ' if spelled is not None else '') + 'allowed: ' + ', '.join(allowed)
      )
    return choices[spelled]

  return parse


def anything(text: str) -> str:
  """Keeps the text."""
  return text
