"""What the fields of a config may hold, and the one line that says what is wrong with one."""

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import config_dict


class ConfigError(ValueError):
  """A flag, a config field or a folder that the user has to change; one line, exit code 2."""


class Field(NamedTuple):
  """What one config field may hold.

  Attributes:
    kind: `int`, `float`, `str`, `bool`, or `tuple`.
    check: predicate on the value (for tuples: on the whole tuple, after `element`).
    allowed: the words that follow "allowed:" in the error.
    element: for tuples, the `Field` of each element.
    old_names: names that the field had in older configs, still accepted.
    problem: of a field that may also be a mapping, given as a dict: what is wrong with it ('' for
      nothing), in words that follow `config.`.
  """

  kind: type
  check: Callable[[Any], bool]
  allowed: str
  element: 'Field | None' = None
  old_names: tuple[str, ...] = ()
  problem: Callable[[dict[str, Any]], str] | None = None

  def formerly(self, *names: str) -> 'Field':
    """The same field, which older configs and command lines know by other names.

    SPEC = {'capacities_mib': fields.tuple_of(fields.integer(1)).formerly('capacities_mb')}
    """
    return self._replace(old_names=names)


def one_of(*values) -> Field:
  return Field(type(values[0]), lambda v: v in values, 'one of ' + ', '.join(map(str, values)))


def integer(low: int, high: float = math.inf) -> Field:
  return Field(int, lambda v: low <= v <= high, f'an integer {_interval(low, high)}')


def number(low: float, high: float = math.inf, *, above: bool = False) -> Field:
  """A finite float in [low, high]; `above=True` excludes `low` itself."""
  ok = lambda v: math.isfinite(v) and (low < v if above else low <= v) and v <= high
  return Field(float, ok, f'a finite number {_interval(low, high, above)}')


def boolean() -> Field:
  return Field(bool, lambda v: True, 'true or false')


def text(allowed: str = 'a string', check: Callable[[str], bool] = lambda v: True) -> Field:
  return Field(str, check, allowed)


def tuple_of(element: Field, *, min_length: int = 1, unique: bool = True) -> Field:
  ok = lambda v: len(v) >= min_length and (not unique or len(set(v)) == len(v))
  words = f'a tuple of at least {min_length}, ' if min_length else 'a tuple, '
  words += ('no two equal, ' if unique else '') + f'each {element.allowed}'
  return Field(tuple, ok, words, element)


def _interval(low, high, above: bool = False) -> str:
  if high == math.inf:
    return f'above {low}' if above else f'of at least {low}'
  return f'above {low} and at most {high}' if above else f'from {low} to {high}'


def check(config: Mapping[str, Any], spec: Mapping[str, Field]) -> config_dict.ConfigDict:
  """Checks every field, element by element, and returns the config frozen with exact types.

  Args:
    config: a `ConfigDict` or dict with exactly the keys of `spec`, or old names of them.
    spec: the allowed fields.

  Returns:
    A locked `ConfigDict` in the order of `spec`; ints given for float fields are floats.

  Raises:
    ConfigError: naming the first offending field, its value and what is allowed.
  """
  config = _with_new_names(config, spec)
  unknown = [key for key in config if key not in spec]
  if unknown:
    raise ConfigError(
      f'config.{unknown[0]}={_show(config[unknown[0]])}: unknown field; allowed: ' + ', '.join(spec)
    )
  checked = config_dict.ConfigDict()
  for name, field in spec.items():
    if name not in config:
      raise ConfigError(f'config.{name}: missing; allowed: {field.allowed}')
    checked[name] = _checked(f'config.{name}', config[name], field)
  return checked.lock()


def renamed(spec: Mapping[str, Field]) -> dict[str, str]:
  """`{old name: name}` of all fields that were called otherwise."""
  return {old: name for name, field in spec.items() for old in field.old_names}


def _with_new_names(config: Mapping[str, Any], spec: Mapping[str, Field]) -> dict[str, Any]:
  """The fields by the names that they have now; says so on stderr where one was given by an old."""
  names, found = renamed(spec), {}
  for key in config:
    name = names.get(key, key)
    if name in found:
      raise ConfigError(f'config.{key}={_show(config[key])}: given twice; allowed: {name} alone')
    if name != key:
      print(f'note: config.{key} is called config.{name} now', file=sys.stderr)
    found[name] = config[key]
  return found


def _checked(name: str, value: Any, field: Field) -> Any:
  error = ConfigError(f'{name}={_show(value)}; allowed: {field.allowed}')
  if field.problem is not None and isinstance(value, Mapping):
    given = value.to_dict() if isinstance(value, config_dict.ConfigDict) else dict(value)
    if problem := field.problem(given):
      raise ConfigError(f'config.{problem}')
    return given
  if field.kind is float and type(value) is int:
    value = float(value)
  if type(value) is not field.kind:
    raise error
  if field.element is not None:
    value = _split(value, field.element)
    value = tuple(_checked(f'{name}[{i}]', v, field.element) for i, v in enumerate(value))
  if not field.check(value):
    raise error
  return value


def _split(value: tuple[Any, ...], element: Field) -> tuple[Any, ...]:
  """Strings given as a,b on a command line, which reads numbers so but leaves these as they are."""
  if element.kind is str and len(value) == 1 and type(value[0]) is str:
    if not element.check(value[0]) and ',' in value[0]:
      return tuple(value[0].split(','))
  return value


def _show(value: Any) -> str:
  shown = repr(value)
  return shown if len(shown) <= 80 else shown[:77] + '...'
