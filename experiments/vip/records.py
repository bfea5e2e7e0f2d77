"""What the stages of a run find, one type each, and how records.jsonl holds it.

A line is an object with the stage's `name` and the fields of its type; a type inside a type is an
object too, a tuple a list, and a number that is none (NaN) null. Truth values by image take a bit
each: `{"shape": [members, images], "bits": "..."}`, in base64, the first in the highest bit of a
byte. What an earlier version did not record yet is None.
"""

import base64
import math
import pathlib
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cnnopt_jax import vip
from cnnopt_jax.report import records
from cnnopt_jax.vip.bounds import BoundRow
from experiments.common import run_folder
from experiments.common.fields import ConfigError


class DenseAccuracy(NamedTuple):
  """Stage `dense`.

  Attributes:
    accuracies: on the test images, one a seed.
  """

  accuracies: tuple[float, ...]


class Latency(NamedTuple):
  """Stage `latency`.

  Attributes:
    dense_ms: of a batch.
    saved_ms: by each unit alone.
  """

  dense_ms: float
  saved_ms: tuple[float, ...]


class Sensitivity(NamedTuple):
  """Stage `sensitivity`, without fine-tuning, mean over seeds.

  Attributes:
    dense_accuracy: on the training images that were looked at.
    losses: accuracy that each unit alone loses on them.
  """

  dense_accuracy: float
  losses: tuple[float, ...]


class RandomPlans(NamedTuple):
  """Stage `random`: random plans, and as many of the order's first units, without fine-tuning.

  Attributes:
    plans: the random ones.
    random_accuracy: of each, mean over seeds.
    ordered_accuracy: of the order's plan of as many units.
    differences: order minus random, paired by image, of each.
    difference: the same over all plans.
    random_ms: of a batch.
    ordered_ms: of a batch.
  """

  plans: tuple[vip.Plan, ...]
  random_accuracy: tuple[float, ...]
  ordered_accuracy: tuple[float, ...]
  differences: tuple[vip.Difference, ...]
  difference: vip.Difference
  random_ms: tuple[float, ...]
  ordered_ms: tuple[float, ...]


class ErrorBounds(NamedTuple):
  """Stage `bound`.

  Attributes:
    rows: one a unit.
    chain: network-level ratio after each unit; None where the units are no chain.
  """

  rows: tuple[BoundRow, ...]
  chain: tuple[float, ...] | None


class FineTuned(NamedTuple):
  """Stages `round1`, `control1` and so on.

  Attributes:
    plan: virtual units; none for a control.
    accuracies_before: under the plan before this fine-tuning, one a seed.
    accuracies: after it.
    correct: whether each member is right on each test image after it, bool [members, images].
  """

  plan: vip.Plan
  accuracies_before: tuple[float, ...]
  accuracies: tuple[float, ...]
  correct: np.ndarray | None = None


class PlanCost(NamedTuple):
  """What inference under one plan takes.

  Attributes:
    latency_ms: of a batch, median.
    latency_p25_ms: lower quartile.
    latency_p75_ms: upper quartile.
    macs: multiply-accumulates of one image.
    energy_source: 'rapl', 'nvml' or 'not measured'.
    measured_energy_mj: of one image; None where it was not measured.
    modelled_energy_mj: of one image.
    written_maps: virtual maps that something needed in full.
  """

  latency_ms: float
  latency_p25_ms: float
  latency_p75_ms: float
  macs: float
  energy_source: str
  measured_energy_mj: float | None
  modelled_energy_mj: float
  written_maps: int


class Cost(NamedTuple):
  """Stage `cost`.

  Attributes:
    rows: of the dense network and of each round.
    energy_not_measured: why; empty where it was.
  """

  rows: tuple[PlanCost, ...]
  energy_not_measured: str


class Results(NamedTuple):
  """All that a finished run has found; `rounds` and `controls` in their order."""

  dense: DenseAccuracy
  latency: Latency
  sensitivity: Sensitivity
  random: RandomPlans
  bound: ErrorBounds
  rounds: tuple[FineTuned, ...]
  controls: tuple[FineTuned, ...]
  cost: Cost


class StageRecords:
  """The stages of a run that are finished, on file."""

  def __init__(self, workdir: pathlib.Path):
    self._path = workdir / run_folder.RECORDS
    self._found = {line['name']: line for line in run_folder.read_records(workdir, ['name'])}

  def __contains__(self, name: str) -> bool:
    return name in self._found

  def stage(self, name: str, kind: type, compute: Callable[[], Any]) -> Any:
    """What a stage found: from its record, or by computing and recording it.

    Args:
      name: of the stage.
      kind: type of its finding.
      compute: called where there is no record.

    Returns:
      An instance of `kind`.

    Raises:
      ConfigError: if the record is not of that type.
    """
    if name not in self._found:
      line = {'name': name, **to_json(compute())}
      records.append(self._path, [line])
      self._found[name] = line
    try:
      return from_json(kind, self._found[name])
    except (KeyError, TypeError, ValueError) as error:
      raise ConfigError(
        f'{self._path}: the record {name!r} is no {kind.__name__} ({error!r}); '
        'allowed: another --workdir'
      ) from None


def to_json(value: Any) -> Any:
  """A finding as JSON's objects, lists and numbers; arrays are of truth values."""
  if isinstance(value, np.ndarray):
    packed = np.packbits(value).tobytes()
    return {'shape': list(value.shape), 'bits': base64.b64encode(packed).decode()}
  if hasattr(value, '_asdict'):
    return {name: to_json(field) for name, field in value._asdict().items()}
  if isinstance(value, tuple | list):
    return [to_json(item) for item in value]
  return None if isinstance(value, float) and math.isnan(value) else value


def from_json(kind: Any, content: Any) -> Any:
  """The inverse of `to_json`, by the types of the fields; what else an object holds is left.

  Args:
    kind: one of the types above, or of their fields.
    content: as JSON has it.

  Returns:
    The finding.

  Raises:
    KeyError, TypeError, ValueError: if the content is not of that kind.
  """
  if isinstance(kind, types.UnionType):  # None, or the other type.
    (other,) = (option for option in typing.get_args(kind) if option is not types.NoneType)
    return None if content is None else from_json(other, content)
  if hasattr(kind, '_fields'):
    return _from_object(kind, content)
  if kind is np.ndarray:
    return _unpack(content)
  if typing.get_origin(kind) is tuple:
    element, _ = typing.get_args(kind)
    return tuple(from_json(element, item) for item in content)
  if content is None and kind is float:
    return math.nan
  return kind(content)


def _from_object(kind: Any, content: Mapping[str, Any]) -> Any:
  hints = typing.get_type_hints(kind)
  given = [name for name in kind._fields if name in content or name not in kind._field_defaults]
  return kind(**{name: from_json(hints[name], content[name]) for name in given})


def _unpack(content: Mapping[str, Any]) -> np.ndarray:
  """The array of `to_json`; ValueError where its bits are not as many as its shape says."""
  shape, packed = content['shape'], base64.b64decode(content['bits'], validate=True)
  size = math.prod(shape)
  if len(packed) != -(-size // 8):
    raise ValueError(f'{len(packed)} bytes for shape {shape}')
  bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=size)
  return bits.astype(bool).reshape(shape)
