"""The forms of a training convolution and of its two transposes, and what the choice loses.

    python -m experiments.conv_bench --config configs/conv_bench.py --workdir runs/conv_bench

Times every form of `kernels.conv` that computes a convolution, its input gradient and its weight
gradient, on one core, as a sweep computes its members: 3x3 convolutions, 1x1 ones and depth-wise
ones. `over_best` is the time of the form that `kernels.conv.face_form` chooses over that of the
fastest; the value of a row is XLA's time over the chosen form's. Totals are of each kind.
"""

import functools
import math
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from cnnopt_jax import measure
from cnnopt_jax.kernels import conv
from experiments.common import launch, reports
from experiments.common.fields import integer, text, tuple_of

_SIDE, _STRIDE, _INPUTS, _OUTPUTS = (
  rf'(?P<{name}>[1-9]\d*)' for name in ('side', 'stride', 'inputs', 'outputs')
)
_LAYER = re.compile(
  rf'{_SIDE}/{_STRIDE} {_INPUTS}( {_OUTPUTS}(?P<one_tap> 1x1)?|(?P<five> 5x5)? depthwise)'
)

SPEC = {
  'batch_size': integer(1),
  'rounds': integer(1),
  'layers': tuple_of(
    text(
      "'SIDE/STRIDE INPUTS OUTPUTS', such as '14/2 8 11' or '14/2 8 11 1x1', and "
      "'SIDE/STRIDE CHANNELS depthwise' or '... 5x5 depthwise'",
      lambda v: bool(_LAYER.fullmatch(v)),
    )
  ),
}

_FACES = {'out': 'convolution', 'lhs': 'input gradient', 'rhs': 'weight gradient'}
# The kinds of layers, and how the names of their totals begin.
_TOTALS = {'3x3': '', '1x1': 'one_tap_', 'depthwise': 'depthwise_'}


class Layer(NamedTuple):
  """A convolution of square images, padded to `side` / `stride` positions a side.

  Attributes:
    side: of its images.
    stride: in both directions.
    inputs: channels of the images.
    outputs: channels of the result; of a depth-wise convolution, as many.
    taps: of its kernel, in each direction.
    kind: '3x3', '1x1' or 'depthwise'.
  """

  side: int
  stride: int
  inputs: int
  outputs: int
  taps: int = 3
  kind: str = '3x3'

  @property
  def name(self) -> str:
    size = f'{self.side}x{self.side}/{self.stride}'
    if self.kind == 'depthwise':
      return f'{size} {self.inputs} {self.taps}x{self.taps} depthwise'
    return f'{size} {self.inputs}->{self.outputs}' + (' 1x1' if self.kind == '1x1' else '')

  def shapes(self, batch_size: int) -> tuple[tuple[int, ...], ...]:
    """Of images, kernel and result."""
    side = (self.side - 1) // self.stride + 1
    inputs = 1 if self.kind == 'depthwise' else self.inputs
    return (
      (batch_size, self.side, self.side, self.inputs),
      (self.taps, self.taps, inputs, self.outputs),
      (batch_size, side, side, self.outputs),
    )


def parse(entry: str) -> Layer:
  """The layer that an entry of `config.layers` names."""
  found = _LAYER.fullmatch(entry)
  if found is None:
    raise ValueError(f'{entry=}; allowed: as in `SPEC`')
  side, stride, inputs = (int(found[name]) for name in ('side', 'stride', 'inputs'))
  if found['outputs'] is None:
    return Layer(side, stride, inputs, inputs, 5 if found['five'] else 3, 'depthwise')
  taps, kind = (1, '1x1') if found['one_tap'] else (3, '3x3')
  return Layer(side, stride, inputs, int(found['outputs']), taps, kind)


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Times every form of every face and writes bench.json and report.md.

  Args:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the result.

  Returns:
    The rows of bench.json.
  """
  of_kind: dict[str, list[dict[str, Any]]] = {}
  for entry in config.layers:
    layer = parse(entry)
    for target in _FACES:
      row = _row(layer, target, config)
      of_kind.setdefault(layer.kind, []).append(row)
      print(row['name'], f'{row["value"]:.2f}', row['form'], flush=True)
  kinds = [kind for kind in _TOTALS if kind in of_kind]
  rows = [total for kind in kinds for total in _totals(_TOTALS[kind], of_kind[kind])]
  rows += [row for kind in kinds for row in of_kind[kind]]
  reports.write_bench(workdir, rows, show=False)
  reports.write(
    workdir,
    ['# Forms of convolutions for training, one core\n', reports.bench_table(rows)],
  )
  return rows


def programs(layer: Layer, target: str, batch_size: int) -> dict[str, Callable[[], Any]]:
  """Every form of a face as a function without arguments."""
  rng = np.random.default_rng(0)
  lhs, rhs, out = (
    jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in layer.shapes(batch_size)
  )
  x, y = {'out': (lhs, rhs), 'lhs': (out, rhs), 'rhs': (lhs, out)}[target]

  def program(form):
    def compute(x, y):
      strides, around = (layer.stride,) * 2, ((layer.taps // 2,) * 2,) * 2
      return conv.compute_face(form, target, x, y, lhs, rhs, strides, around)

    return functools.partial(jax.jit(compute), x, y)

  forms = conv.applicable_forms(target, lhs.shape, rhs.shape)
  return {form: program(form) for form in forms}


def _row(layer: Layer, target: str, config) -> dict[str, Any]:
  lhs_shape, rhs_shape, _ = layer.shapes(config.batch_size)
  chosen = conv.face_form(target, lhs_shape, rhs_shape, (layer.stride, layer.stride))
  seconds = measure.interleaved_seconds(
    programs(layer, target, config.batch_size), rounds=config.rounds
  )
  medians = {form: float(np.median(s)) for form, s in seconds.items()}
  return dict(
    name=f'{layer.name} {_FACES[target]}',
    value=medians['xla'] / medians[chosen],
    unit='xla over chosen',
    over_best=round(medians[chosen] / min(medians.values()), 3),
    form=chosen,
    **{f'{form}_ms': round(1e3 * s, 3) for form, s in medians.items()},
  )


def _totals(prefix: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Geometric means over all layers of a kind and their faces."""
  mean = lambda values: math.exp(sum(map(math.log, values)) / len(rows))
  better, lost = mean([r['value'] for r in rows]), mean([r['over_best'] for r in rows])
  return [
    dict(name=f'{prefix}xla_over_chosen', value=better, unit='ratio'),
    dict(name=f'{prefix}chosen_over_best', value=lost, unit='ratio'),
  ]


if __name__ == '__main__':
  # JAX has as many threads as it finds cores when it starts; loops that it compiles use all.
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  launch.main(run, SPEC, 'configs/conv_bench.py', 'runs/conv_bench')
