"""Profiles that a config names: what they are said to cover, by their names or the config."""

import pathlib
import re
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from cnnopt_jax import models, traffic
from experiments.common import fields

NAME = 'WORKLOAD.MODE.BATCH.csv or WORKLOAD.MODE.BATCH.GPU.csv'


def _said_or_empty(names: Iterable[str]) -> fields.Field:
  known = ('', *names)
  return fields.text("'' or one of " + ', '.join(known[1:]), lambda value: value in known)


FILES = fields.text('paths of CSV files, with commas between')
# What a config says of profiles whose names do not say it; '' and 0 leave it to the names.
SPEC = {
  'profile_workload': _said_or_empty(models.MODELS),
  'profile_mode': _said_or_empty(traffic.PROFILE_MODES),
  'profile_batch': fields.integer(0, 4096),
  'profile_gpu': _said_or_empty(traffic.GPUS),
}


class Profile(NamedTuple):
  """A profile, and what it covers.

  Attributes:
    path: of the file.
    workload: a key of `models.MODELS`.
    mode: one of `traffic.PROFILE_MODES`.
    batch: images.
    gpu: a key of `traffic.GPUS`, or the name of the config's own GPU; '' where neither name, config
      nor file says it.
    launches: what it holds.
  """

  path: pathlib.Path
  workload: str
  mode: str
  batch: int
  gpu: str
  launches: tuple[traffic.LaunchProfile, ...]

  @property
  def case(self) -> tuple[str, str, int]:
    return self.workload, self.mode, self.batch


def read(config, field: str) -> list[Profile]:
  """The profiles that a field of a config names, checked against what they are said to cover.

  Args:
    config: with `SPEC`'s fields and `gpu`, on which all of them have to be measured.
    field: that names the files.

  Raises:
    ConfigError: naming the file, and what is not said, said twice, broken, or does not fit.
  """
  own = traffic.make_gpu(config.gpu)
  key = config.gpu if isinstance(config.gpu, str) else own.name
  found: list[Profile] = []
  for path in map(pathlib.Path, filter(None, (p.strip() for p in config[field].split(',')))):
    where = f'config.{field}: {str(path)!r}'
    workload, mode, batch, gpu = _said(config, path, where, own, key)
    try:
      launches = traffic.read_launches(path)
    except (OSError, traffic.ProfileError) as error:
      raise fields.ConfigError(f'config.{field}: {error}') from None
    gpu = gpu or _gpu_of(next((one.device for one in launches if one.device), ''), own, key)
    if gpu and gpu != key:
      raise fields.ConfigError(
        f'{where} is of GPU {gpu}, but config.gpu={key!r}; allowed: --config.gpu={gpu}'
      )
    try:
      traffic.check_launches(launches, mode, own)
    except traffic.ProfileError as error:
      raise fields.ConfigError(f'{where} is said to be {mode}: {error}') from None
    twice = next((one for one in found if one.case == (workload, mode, batch)), None)
    if twice is not None:
      raise fields.ConfigError(f'{where}: {workload}.{mode}.{batch} is also {str(twice.path)!r}')
    found.append(Profile(path, workload, mode, batch, gpu, launches))
  return found


def _said(
  config, path: pathlib.Path, where: str, own: traffic.Gpu, key: str
) -> tuple[str, str, int, str]:
  """Workload, mode, batch and GPU, by the name of the file or the config."""
  parts = path.name.removesuffix('.csv').split('.')
  named: dict[str, str | int] = {}
  if len(parts) in (3, 4) and parts[0] in models.MODELS:
    if parts[1] not in traffic.PROFILE_MODES or not re.fullmatch('[1-9][0-9]{0,3}', parts[2]):
      raise fields.ConfigError(
        f'{where}; allowed: {NAME}, MODE one of {", ".join(traffic.PROFILE_MODES)}'
      )
    named = {'workload': parts[0], 'mode': parts[1], 'batch': int(parts[2])}
    if len(parts) == 4:
      named['gpu'] = _gpu_of(parts[3], own, key)
      if not named['gpu']:
        raise fields.ConfigError(f'{where}: GPU {parts[3]!r}; allowed: {", ".join(traffic.GPUS)}')
  said = {}
  for name in ('workload', 'mode', 'batch', 'gpu'):
    given, other = config[f'profile_{name}'], named.get(name)
    if name == 'gpu' and given:
      given = _gpu_of(given, own, key)
    if given and other and given != other:
      raise fields.ConfigError(
        f'{where}, but config.profile_{name}={given!r}; allowed: one of them'
      )
    said[name] = given or other
    if not said[name] and name != 'gpu':
      raise fields.ConfigError(
        f'{where}: of which {name}? allowed: {NAME}, or --config.profile_{name}'
      )
  return said['workload'], said['mode'], said['batch'], said['gpu'] or ''


def _gpu_of(name: str, own: traffic.Gpu, key: str) -> str:
  """The key of a GPU, first of the config's own; '' for none of ours."""
  model = traffic.gpu_model(name)
  known = {key: own, **traffic.GPUS}
  return next((k for k, gpu in known.items() if traffic.gpu_model(gpu.name) == model), '')


def grouped(config, profile: Profile, layers: Collection[str]) -> dict[str, traffic.LayerProfile]:
  """A profile's launches by layer, as `config.layers` says; '' for NVTX ranges.

  Args:
    config: with the field `layers`.
    profile: to group.
    layers: paths of the network's layers in order of execution.

  Raises:
    ConfigError: naming the field, the file and what is wrong.
  """
  by = config.layers or 'nvtx'
  by = by if by in ('nvtx', 'order') else 'ranges'
  options: dict[str, Any] = {}
  try:
    if by == 'ranges':
      options['ranges'] = traffic.read_layer_ranges(config.layers)
    elif by == 'order':
      if profile.mode not in ('inference', 'forward'):
        raise ValueError(f'order is that of a forward pass, but the profile is of {profile.mode}')
      options['layers'] = list(layers)
    return traffic.group_by_layer(profile.launches, by, **options)
  except (OSError, ValueError) as error:
    raise fields.ConfigError(
      f'config.layers={config.layers!r}, {str(profile.path)!r}: {error}'
    ) from None


def demands(config, field: str) -> dict[tuple[str, str, int], traffic.ProfileDemand]:
  """What the profiles of a field ask of L2 and DRAM, by workload, mode and batch.

  Raises:
    ConfigError: as `read`; and for a profile without one of the four counters, of a part of a
      training step, or of a GPU that nothing names: DRAM's counts hold for its L2 alone.
  """
  found = {}
  for one in read(config, field):
    where = f'config.{field}: {str(one.path)!r}'
    if one.mode not in ('inference', 'training'):
      raise fields.ConfigError(
        f'{where} is {one.mode}; allowed as a demand: inference, or training with its update'
      )
    if not one.gpu:
      raise fields.ConfigError(
        f'{where}: of which GPU? allowed: WORKLOAD.MODE.BATCH.GPU.csv, or --config.profile_gpu'
      )
    try:
      found[one.case] = traffic.profile_demand(one.launches, traffic.make_gpu(config.gpu))
    except traffic.ProfileError as error:
      raise fields.ConfigError(f'{where}: {error}') from None
  return found


def unknown_case(field: str, case: tuple[str, str, int], allowed) -> fields.ConfigError:
  """That a profile covers nothing of what is evaluated."""
  known = ', '.join('.'.join(map(str, one)) for one in allowed)
  said = '.'.join(map(str, case))
  return fields.ConfigError(f'config.{field}: a profile of {said}; allowed here: {known}')
