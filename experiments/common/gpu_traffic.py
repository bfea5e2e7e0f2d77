"""What a config says of the traffic model: GPU, library, type of products, algorithms of layers."""

import collections
import dataclasses
import math
import pathlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cnnopt_jax import traffic
from cnnopt_jax.workload import LayerTable
from experiments.common import fields, profiles

# Said in every report: what the model's figures are worth.
COMPARED = (
  'The traffic model has been compared with the counters of a V100, for VGG-16 in PyTorch '
  '(docs/results/traffic_counters), and with no others.'
)
_KINDS = {float: 'a number above 0', int: 'a whole number of at least 1', str: 'a string'}
_MAY_BE_ZERO = ('tf32_macs', 'bfloat16_macs')


def _problem(figures: dict[str, Any]) -> str:
  """What is wrong with a user's own GPU, in words that follow `config.`; '' for nothing."""
  kinds = {field.name: field.type for field in dataclasses.fields(traffic.Gpu)}
  base = figures.get('base')
  if 'base' in figures and (not isinstance(base, str) or base not in traffic.GPUS):
    return f'gpu.base={base!r}; allowed: one of {", ".join(traffic.GPUS)}'
  for name, value in figures.items():
    if name in kinds and not _fits(kinds[name], value, name in _MAY_BE_ZERO):
      words = _KINDS.get(kinds[name], 'pairs of whole numbers of at least 1')
      return f'gpu.{name}={value!r}; allowed: {words}{" or 0" * (name in _MAY_BE_ZERO)}'
  try:
    traffic.make_gpu(figures)
  except ValueError as error:
    return str(error) if str(error).startswith('gpu') else f'gpu.{error}'
  return ''


def _fits(kind: Any, value: Any, may_be_zero: bool) -> bool:
  if kind is int:
    return type(value) is int and value >= 1
  if kind is float:
    known = type(value) in (int, float) and math.isfinite(value)
    return known and (value > 0 or may_be_zero and value == 0)
  if kind is str:
    return isinstance(value, str)
  pairs = isinstance(value, (list, tuple)) and all(isinstance(v, (list, tuple)) for v in value)
  return pairs and bool(value) and all(len(v) == 2 and all(map(_is_size, v)) for v in value)


def _is_size(value: Any) -> bool:
  return type(value) is int and value >= 1


SPEC = {
  'gpu': fields.one_of(*traffic.GPUS)._replace(
    allowed=f'one of {", ".join(traffic.GPUS)}, or figures of a traffic.Gpu, perhaps with a base',
    problem=_problem,
  ),
  'library': fields.one_of(*traffic.LIBRARIES),
  'math': fields.one_of(*traffic.MATHS),
  'algorithms': fields.text(
    "'', pairs such as 'conv1_1=implicit_gemm,conv2_1:weight_gradient=winograd_nonfused', or the "
    'path of a profile with layers'
  ),
  'layers': fields.text("'', 'nvtx', 'order' or the path of a file of ranges"),
}


def gpu_of(config) -> traffic.Gpu:
  """The GPU of a config that `fields.check` has passed."""
  return traffic.make_gpu(config.gpu)


def shown(config) -> str:
  """The config's GPU in an error: its key, or the name of a user's own."""
  return repr(config.gpu if isinstance(config.gpu, str) else gpu_of(config).name)


def library_of(config) -> traffic.Library:
  """The library, with its products in the config's type.

  Raises:
    ConfigError: if the GPU has no unit for it.
  """
  try:
    gpu_of(config).macs(config.math)
  except ValueError as error:
    raise fields.ConfigError(f'config.{error}') from None
  return dataclasses.replace(traffic.LIBRARIES[config.library], math=config.math)


def algorithms_of(
  config, layers: Mapping[str, Collection[str]]
) -> dict[str, dict[tuple[str, str], str]]:
  """The algorithms that a config asks for: of the library's choice where it asks for none.

  Args:
    config: with the fields of `SPEC` and `profiles.SPEC`.
    layers: paths of each network's layers.

  Returns:
    `{network: {(path, kind): algorithm}}`, as `predict_traffic(chosen=...)` takes it.

  Raises:
    ConfigError: for an algorithm that there is not, a path of no layer of any network, and
      whatever is wrong with a profile.
  """
  found: dict[str, dict[tuple[str, str], str]] = {name: {} for name in layers}
  text = config.algorithms.strip()
  if not text:
    return found
  if '=' in text and not pathlib.Path(text).exists():
    for path, kinds, algorithm in _pairs(text):
      named = {name: traffic.match_layer(path, paths) for name, paths in layers.items()}
      if not any(named.values()):
        raise _no_layer(path, layers)
      for name, paths in named.items():
        found[name] |= {(one, kind): algorithm for one in paths for kind in kinds}
    return found
  for profile in profiles.read(config, 'algorithms'):
    if profile.workload not in layers:
      raise fields.ConfigError(
        f'config.algorithms: a profile of {profile.workload}; allowed here: {", ".join(layers)}'
      )
    found[profile.workload] |= of_profile(config, profile, layers[profile.workload])
  return found


def of_profile(
  config, profile: profiles.Profile, paths: Collection[str]
) -> dict[tuple[str, str], str]:
  """`{(path, kind): algorithm}` of the layers of a profile, by the paths of the network's layers.

  Raises:
    ConfigError: if it has no layers, or none of them is one of the network's.
  """
  grouped = profiles.grouped(config, profile, paths)
  launches = {path: [profile.launches[i] for i in one.indices] for path, one in grouped.items()}
  where = f'config.algorithms={config.algorithms!r}, {str(profile.path)!r}'
  try:
    said = traffic.profile_algorithms(launches)
  except traffic.ProfileError as error:
    raise fields.ConfigError(f'{where}: {error}') from None
  found = {
    (layer, kind): algorithm
    for (path, kind), algorithm in said.items()
    for layer in traffic.match_layer(path, paths)
  }
  if not found:
    raise fields.ConfigError(
      f'{where}: none of its layers tells its algorithm; allowed: kernels of '
      f'{_known()}, in layers named as {next(iter(paths))!r}'
    )
  return found


def _pairs(text: str) -> list[tuple[str, tuple[str, ...], str]]:
  """(path, kinds, algorithm) of each entry."""
  found = []
  for entry in text.split(','):
    path, _, algorithm = (part.strip() for part in entry.partition('='))
    path, kind = traffic.split_kind(path)
    if not path or algorithm not in traffic.ALGORITHMS:
      raise fields.ConfigError(
        f'config.algorithms={entry!r}; allowed: LAYER=ALGORITHM or LAYER:KIND=ALGORITHM with '
        f'one of {_known()} and {", ".join(traffic.KERNEL_KINDS)}'
      )
    found.append((path, (kind,) if kind else traffic.KERNEL_KINDS, algorithm))
  return found


def _known() -> str:
  return ', '.join(traffic.ALGORITHMS)


def _no_layer(path: str, layers: Mapping[str, Collection[str]]) -> fields.ConfigError:
  shown = '; '.join(f'of {name} {", ".join(paths)}' for name, paths in layers.items())
  shown = shown if len(shown) <= 400 else shown[:397] + '...'
  return fields.ConfigError(f'config.algorithms: {path!r} is no layer; allowed: {shown}')


def check(
  config,
  workload: str,
  table: LayerTable,
  chosen: Mapping[tuple[str, str], str],
  *,
  training: bool,
) -> None:
  """Refuses algorithms that cannot compute their layers, before any long work.

  Raises:
    ConfigError: naming the network, the layer, the kind of kernel and the algorithm.
  """
  try:
    traffic.check_algorithms(table, library_of(config), dict(chosen), training=training)
  except ValueError as error:
    raise fields.ConfigError(
      f'config.algorithms={config.algorithms!r}: {workload}, {error}'
    ) from None


def described(config) -> str:
  """GPU, library, type of products and where algorithms are from, for a report."""
  asked = config.algorithms and f'; algorithms asked for: {config.algorithms}'
  return (
    f'GPU: {gpu_of(config).name}; library: {library_of(config).name}; products in {config.math}'
    + (asked or "; algorithms: the library's choice")
  )


def counts(predicted: Iterable[traffic.Traffic | traffic.ProfiledTraffic]) -> str:
  """One line: how many layers each algorithm was given, by kind of kernel."""
  numbers: dict[str, collections.Counter[str]] = {}
  for found in predicted:
    for (_, kind), name in found.algorithms.items():
      numbers.setdefault(kind, collections.Counter())[name] += 1
  parts = (
    f'{kind} {", ".join(f"{name} {count}" for name, count in numbers[kind].most_common())}'
    for kind in traffic.KERNEL_KINDS
    if kind in numbers
  )
  return 'Algorithms, by layers of all cases: ' + '; '.join(parts) + '.'
