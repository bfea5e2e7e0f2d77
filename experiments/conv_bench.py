"""The forms of a training convolution and of its two transposes, and what the choice loses.

    python -m experiments.conv_bench --config configs/conv_bench.py --workdir runs/conv_bench

Times every form of `kernels.conv` that computes a 3x3 convolution, its input gradient and its
weight gradient, on one core, as a sweep computes its members. `over_best` is the time of the form
that `kernels.conv.face_form` chooses over that of the fastest; the value of a row is XLA's time
over the chosen form's.
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

_LAYER = re.compile(r'([1-9]\d*)/([1-9]\d*) ([1-9]\d*) ([1-9]\d*)')

SPEC = {
  'batch_size': integer(1),
  'rounds': integer(1),
  'layers': tuple_of(
    text("'SIDE/STRIDE INPUTS OUTPUTS', such as '14/2 8 11'", lambda v: bool(_LAYER.fullmatch(v)))
  ),
}

_FACES = {'out': 'convolution', 'lhs': 'input gradient', 'rhs': 'weight gradient'}
_ONE_AROUND = ((1, 1), (1, 1))


class Layer(NamedTuple):
  """A 3x3 convolution with one position of padding; `side` of its square images."""

  side: int
  stride: int
  inputs: int
  outputs: int


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Times every form of every face and writes bench.json and report.md.

  Args:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the result.

  Returns:
    The rows of bench.json.
  """
  rows = []
  for entry in config.layers:
    layer = Layer(*map(int, _LAYER.fullmatch(entry).groups()))
    for target in _FACES:
      rows.append(_row(layer, target, config))
      print(rows[-1]['name'], f'{rows[-1]["value"]:.2f}', rows[-1]['form'], flush=True)
  rows = _totals(rows) + rows
  reports.write_bench(workdir, rows, show=False)
  reports.write(
    workdir,
    ['# Forms of convolutions for training, one core\n', reports.bench_table(rows)],
  )
  return rows


def programs(layer: Layer, target: str, batch_size: int) -> dict[str, Callable[[], Any]]:
  """Every form of a face as a function without arguments."""
  rng = np.random.default_rng(0)
  side = (layer.side - 1) // layer.stride + 1
  lhs, rhs, out = (
    jnp.asarray(rng.normal(size=shape), jnp.float32)
    for shape in (
      (batch_size, layer.side, layer.side, layer.inputs),
      (3, 3, layer.inputs, layer.outputs),
      (batch_size, side, side, layer.outputs),
    )
  )
  x, y = {'out': (lhs, rhs), 'lhs': (out, rhs), 'rhs': (lhs, out)}[target]

  def program(form):
    def compute(x, y):
      strides = (layer.stride, layer.stride)
      return conv.compute_face(form, target, x, y, lhs, rhs, strides, _ONE_AROUND)

    return functools.partial(jax.jit(compute), x, y)

  return {form: program(form) for form in conv.FACE_FORMS[target]}


def _row(layer: Layer, target: str, config) -> dict[str, Any]:
  lhs_shape = (config.batch_size, layer.side, layer.side, layer.inputs)
  rhs_shape = (3, 3, layer.inputs, layer.outputs)
  chosen = conv.face_form(target, lhs_shape, rhs_shape, (layer.stride, layer.stride))
  seconds = measure.interleaved_seconds(
    programs(layer, target, config.batch_size), rounds=config.rounds
  )
  medians = {form: float(np.median(s)) for form, s in seconds.items()}
  return dict(
    name=f'{layer.side}x{layer.side}/{layer.stride} {layer.inputs}->{layer.outputs} '
    f'{_FACES[target]}',
    value=medians['xla'] / medians[chosen],
    unit='xla over chosen',
    over_best=round(medians[chosen] / min(medians.values()), 3),
    form=chosen,
    **{f'{form}_ms': round(1e3 * s, 3) for form, s in medians.items()},
  )


def _totals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Geometric means over all layers and faces."""
  mean = lambda values: math.exp(sum(map(math.log, values)) / len(rows))
  return [
    dict(name='xla_over_chosen', value=mean([r['value'] for r in rows]), unit='ratio'),
    dict(name='chosen_over_best', value=mean([r['over_best'] for r in rows]), unit='ratio'),
  ]


if __name__ == '__main__':
  # JAX has as many threads as it finds cores when it starts; loops that it compiles use all.
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  launch.main(run, SPEC, 'configs/conv_bench.py', 'runs/conv_bench')
