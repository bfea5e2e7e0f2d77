"""`group_by_layer`: the launches of a profile, joined into the layers of a network."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cnnopt_jax.traffic.profiles.launches import LaunchProfile, total_of
from cnnopt_jax.traffic.profiles.tables import ProfileError

WAYS = ('nvtx', 'ranges', 'order')
# What computes convolutions and products, transforms and preparations included; what the same
# libraries compute between them.
_PRODUCT = re.compile(
  r'gemm|gemv|conv(?!ert)|winograd|cudnn|cask|cutlass|xmma|split_?k|fft|wgrad|dgrad|fprop|implicit',
  re.IGNORECASE,
)
_BETWEEN = re.compile(
  r'\bbn_|batch_?norm|pool|softmax|lrn|dropout|elementwise|activation|add_?tensor|bias|'
  r'(?<!splitk)reduce_kernel',
  re.IGNORECASE,
)
_RANGE = re.compile(r'([0-9]{1,9})\s*-\s*([0-9]{1,9})')

Ranges = Mapping[str, Sequence[tuple[int, int]]]


class LayerProfile(NamedTuple):
  """The launches of a layer, summed.

  Attributes:
    path: of the layer; '' for the launches of none.
    indices: of its launches in the profile.
    seconds: s; None where the profile has them not of every launch, as all figures.
    l2_reads, l2_writes, dram_reads, dram_writes: sectors.
  """

  path: str
  indices: tuple[int, ...]
  seconds: float | None
  l2_reads: float | None
  l2_writes: float | None
  dram_reads: float | None
  dram_writes: float | None


def group_by_layer(
  launches: Sequence[LaunchProfile],
  by: str = 'nvtx',
  *,
  ranges: Ranges | None = None,
  layers: Sequence[str] | None = None,
) -> dict[str, LayerProfile]:
  """Sums launches by layer.

  Args:
    launches: of a trace, in order.
    by: 'nvtx': the layer of a launch is the NVTX ranges around it. 'ranges': what a user's mapping
      says, see `read_layer_ranges`. 'order': every run of convolution and product kernels that
      another kernel (bias, norm, activation, pooling) ends is the next of `layers`; for the forward
      pass of a program that fuses nothing.
    ranges: half-open ranges of launches by layer.
    layers: paths of the layers in order of execution.

  Returns:
    `{path: figures}` in order of the first launch; '' for the launches of no layer. Every launch is
    in one entry.

  Raises:
    ValueError: for arguments that do not belong to `by`, or a range outside of the launches.
    ProfileError: for a summary, whose order is unknown, a profile without NVTX ranges, or runs that
      are not as many as the layers.
  """
  if by not in WAYS:
    raise ValueError(f'by={by!r}; allowed: {", ".join(WAYS)}')
  if (ranges is not None) != (by == 'ranges') or (layers is not None) != (by == 'order'):
    raise ValueError(f"by={by!r}; allowed: ranges with by='ranges' alone, layers with by='order'")
  if any(launch.launches > 1 for launch in launches):
    raise ProfileError('a summary of a profile has no order; allowed: a trace, launch by launch')
  if by == 'nvtx':
    paths = [launch.nvtx or '' for launch in launches]
    if not any(paths):
      raise ProfileError('no launch has an NVTX range; allowed: ncu --nvtx, or another way')
  elif ranges is not None:
    paths = _by_ranges(len(launches), ranges)
  else:
    paths = _by_order(launches, layers or ())
  members: dict[str, list[int]] = {}
  for i, path in enumerate(paths):
    members.setdefault(path, []).append(i)
  return {path: _layer(path, launches, found) for path, found in members.items()}


def _layer(path: str, launches: Sequence[LaunchProfile], indices: list[int]) -> LayerProfile:
  mine = [launches[i] for i in indices]
  figures = (total_of(mine, field) for field in LayerProfile._fields[2:])
  return LayerProfile(path, tuple(indices), *figures)


def _by_ranges(count: int, ranges: Ranges) -> list[str]:
  paths = [''] * count
  for path, parts in ranges.items():
    for start, stop in parts:
      if not 0 <= start < stop <= count:
        raise ValueError(f'{path}: launches {start}-{stop}; allowed: from 0 to {count}, half-open')
      if taken := next(filter(None, paths[start:stop]), None):
        raise ValueError(f'{path}: launches {start}-{stop} are also those of {taken}')
      paths[start:stop] = [path] * (stop - start)
  return paths


def _by_order(launches: Sequence[LaunchProfile], layers: Sequence[str]) -> list[str]:
  """The n-th run of products is of the n-th layer; a fill belongs to what follows it."""
  is_product = [
    bool(_PRODUCT.search(one.kernel) and not _BETWEEN.search(one.kernel)) for one in launches
  ]
  for i in reversed(range(len(launches) - 1)):
    is_product[i] = is_product[i] or launches[i].is_copy and is_product[i + 1]
  run, runs = -1, []
  for i, product in enumerate(is_product):
    run += product and not (i and is_product[i - 1])
    runs.append(run if product else -1)
  if run + 1 != len(layers):
    raise ProfileError(
      f'{run + 1} runs of convolution and product kernels; allowed: as many as the '
      f'{len(layers)} layers, or NVTX ranges, or a mapping'
    )
  return [layers[i] if i >= 0 else '' for i in runs]


def read_layer_ranges(path: str | pathlib.Path) -> dict[str, tuple[tuple[int, int], ...]]:
  """Reads which launches are of which layer.

  Lines such as 'conv1_1 0-2' or 'conv1_1,0,2' (launches 0 and 1, counted from 0, copies and fills
  too), '#' before a comment; or JSON such as `{"conv1_1": [0, 2], "fc6": [[79, 81], [97, 99]]}`. A
  layer may have several ranges.

  Args:
    path: of the file.

  Returns:
    `{path of the layer: half-open ranges}`.

  Raises:
    OSError: if the file cannot be read.
    ProfileError: naming file, line and what is wrong.
  """
  path = pathlib.Path(path)
  try:
    text = path.read_text(encoding='utf-8-sig')
  except UnicodeDecodeError as error:
    raise ProfileError(f'{path}, line 1: not text ({error.reason})') from None
  found: dict[str, list[tuple[int, int]]] = {}
  entries = _of_json(path, text) if text.lstrip().startswith('{') else _of_lines(path, text)
  for where, layer, start, stop in entries:
    if not start < stop:
      raise ProfileError(
        f'{path}, {where}: {start}-{stop} is empty; allowed: START-STOP, half-open'
      )
    if any(start < e and s < stop for parts in found.values() for s, e in parts):
      raise ProfileError(f'{path}, {where}: launches {start}-{stop} are given twice')
    found.setdefault(layer, []).append((start, stop))
  if not found:
    raise ProfileError(f'{path}, line 1: no layer; allowed: lines such as "conv1_1 0-2"')
  return {layer: tuple(parts) for layer, parts in found.items()}


def _of_json(path: pathlib.Path, text: str) -> list[tuple[str, str, int, int]]:
  try:
    read = json.loads(text)
  except ValueError as error:
    raise ProfileError(f'{path}, line {getattr(error, "lineno", 1)}: {error}') from None
  entries = []
  for layer, parts in read.items():
    parts = parts if isinstance(parts, list) and not _is_pair(parts) else [parts]
    for part in parts:
      if isinstance(part, str) and (match := _RANGE.fullmatch(part.strip())):
        part = [int(match[1]), int(match[2])]
      if not _is_pair(part):
        raise ProfileError(f'{path}, field {layer!r}: {part!r}; allowed: [START, STOP]')
      entries.append((f'field {layer!r}', layer, part[0], part[1]))
  return entries


def _is_pair(part: object) -> bool:
  return isinstance(part, list) and len(part) == 2 and all(type(n) is int and n >= 0 for n in part)


def _of_lines(path: pathlib.Path, text: str) -> list[tuple[str, str, int, int]]:
  entries = []
  for number, line in enumerate(text.splitlines(), 1):
    line = line.partition('#')[0].strip()
    match = re.fullmatch(r'(\S.*?)[\s,;]+([0-9]{1,9})[\s,;-]+([0-9]{1,9})', line)
    if match:
      entries.append((f'line {number}', match[1], int(match[2]), int(match[3])))
    elif line and entries:
      raise ProfileError(f'{path}, line {number}: {line!r}; allowed: "conv1_1 0-2"')
    elif line and re.search(r'\d+\s*[-,;]\s*\d+', line):  # A head of names has no range.
      raise ProfileError(f'{path}, line {number}: {line!r}; allowed: "conv1_1 0-2"')
  return entries
