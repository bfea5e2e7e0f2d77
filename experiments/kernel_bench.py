"""Speed of the interpolation ops: each kernel beside its XLA forms, against copy bandwidth.

    python -m experiments.kernel_bench --config configs/kernel_bench.py --workdir runs/kernel_bench

On an NVIDIA GPU of capability 9.0 or newer it times the Mosaic kernels (`mosaic`), the XLA forms
(`xla`), the map materialised before the op (`materialised`), and `jax.image.resize`, which is
another function of the same traffic, at batch 32 and 256 in bfloat16: about ten minutes. Elsewhere
it times what is there and says so; on a CPU at batch 4 in float32, about four minutes on two cores.
`--config.tune=true` also times every candidate tile and prints entries for `kernels/<op>/tuned.py`.

Every row is the median of interleaved rounds of back-to-back calls on rotating inputs. `share` is
the least bytes the op must move, over its time, over the bandwidth of a copy in the same run. The
ops need jax, flax, numpy, absl and ml_collections only, for machines where little can be installed;
the whole network, which is timed on a GPU alone, needs what `cnnopt_jax.models` does.
"""

import functools
import importlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_dict

from cnnopt_jax import measure
from cnnopt_jax.kernels import dispatch, pallas, rows
from cnnopt_jax.kernels.border_pad import border_pad
from cnnopt_jax.kernels.interp2x import interp2x
from cnnopt_jax.kernels.interp2x_add_relu import interp2x_add_relu
from cnnopt_jax.kernels.interp2x_max_pool import interp2x_max_pool
from experiments.common import fields, launch, reports
from experiments.common.fields import boolean, integer, one_of, tuple_of

# Name: size of the map (square), channels, and the ops that read such a map in the network.
LAYERS = {
  'vgg16_1': (224, 64, ('interp2x', 'max_pool', 'border_pad')),
  'vgg16_2': (112, 128, ('interp2x', 'max_pool', 'border_pad')),
  'vgg16_3': (56, 256, ('interp2x', 'max_pool', 'border_pad')),
  'vgg16_4': (28, 512, ('interp2x', 'max_pool', 'border_pad')),
  'vgg16_5': (14, 512, ('interp2x', 'max_pool', 'border_pad')),
  'resnet50_2': (56, 256, ('add_relu', 'add_relu_map')),
  'resnet50_3': (28, 512, ('add_relu', 'add_relu_map')),
  'resnet50_4': (14, 1024, ('add_relu', 'add_relu_map')),
  'resnet50_5': (7, 2048, ('add_relu', 'add_relu_map')),
  'cifar_1': (32, 16, ('interp2x', 'add_relu')),
  'cifar_2': (16, 32, ('interp2x', 'add_relu')),
  'cifar_3': (8, 64, ('interp2x', 'add_relu')),
}
OPS = {
  'interp2x': interp2x,
  'max_pool': interp2x_max_pool,
  'border_pad': border_pad,
  'add_relu': interp2x_add_relu,
  'add_relu_map': functools.partial(interp2x_add_relu, b_virtual=False),
}
ROTATED_BYTES = 256 << 20  # Inputs of a form together: several times the 60 MB of an H200's L2.
DTYPES = ('float32', 'bfloat16')

SPEC = {
  'batches': tuple_of(integer(1), min_length=0),
  'dtype': one_of('auto', *DTYPES),
  'layers': tuple_of(one_of(*LAYERS), min_length=0),
  'rounds': integer(1),
  'tune': boolean(),
}


class Case(NamedTuple):
  """One op on one layer."""

  op: str
  layer: str
  batch: int
  size: tuple[int, int]
  channels: int
  dtype: str


def forms(case: Case, gpu: bool) -> dict[str, Callable[..., jax.Array]]:
  """What is compared: functions of the op's operands."""
  op = functools.partial(OPS[case.op], size=case.size)
  found = {'mosaic': functools.partial(op, implementation='mosaic')} if gpu else {}
  found['xla'] = functools.partial(op, implementation='xla')
  return {**found, **_other_forms(case)}


def _other_forms(case: Case) -> dict[str, Callable[..., jax.Array]]:
  """The map written in full before the op reads it; for the interpolation itself, JAX's resize."""

  def full(x):
    # The barrier keeps XLA from fusing the interpolation into what reads it.
    return jax.lax.optimization_barrier(interp2x(x, case.size, implementation='xla'))

  def resize(x):
    return jax.image.resize(x, (x.shape[0], *case.size, x.shape[3]), 'linear')

  return {
    'interp2x': {'resize': resize},
    'max_pool': {'materialised': lambda x: nn.max_pool(full(x), (2, 2), (2, 2))},
    'add_relu': {'materialised': lambda x, y: nn.relu(full(x) + full(y))},
    'add_relu_map': {'materialised': lambda x, y: nn.relu(full(x) + y)},
  }.get(case.op, {})


def operands(case: Case, rng) -> list[jax.Array]:
  """Random samples, and the second operand of an addition."""
  samples = tuple(-(-n // 2) for n in case.size)
  sizes = [samples] + {'add_relu': [samples], 'add_relu_map': [case.size]}.get(case.op, [])
  return [jax.random.normal(rng, (case.batch, *s, case.channels), case.dtype) for s in sizes]


def least_bytes(inputs, outputs) -> int:
  """Bytes that an op must read and write."""
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((inputs, outputs)))


def medians(functions: dict[str, Callable[[int], Any]], rounds: int) -> dict[str, float]:
  """Median seconds of a call of each, in turn."""
  seconds = measure.back_to_back_seconds(functions, rounds=rounds)
  return {name: float(np.median(s)) for name, s in seconds.items()}


def bench(case: Case, gpu: bool, bandwidth: float, rounds: int) -> list[dict]:
  """Rows of one op on one layer, forward and backward."""
  found = forms(case, gpu)
  first = operands(case, jax.random.key(0))
  out = jax.eval_shape(found['xla'], *first)
  copies = int(np.clip(ROTATED_BYTES // least_bytes(first, out), 1, 8)) if gpu else 1
  rng = jax.random.split(jax.random.key(1), copies)
  inputs = [operands(case, key) for key in rng]
  cotangents = [jax.random.normal(key, out.shape, out.dtype) for key in rng]
  rows_ = []
  for direction in ('forward', 'backward'):
    if direction == 'forward':
      functions = {name: rotated(jax.jit(form), inputs) for name, form in found.items()}
      least = least_bytes(first, out)
    else:
      functions = {name: backward(form, inputs, cotangents) for name, form in found.items()}
      # A linear op's operands are not read; where ReLU was positive is, of the result.
      extra = {'max_pool': first, 'add_relu': out, 'add_relu_map': out}.get(case.op, [])
      least = least_bytes((out, first), extra)
    error = distance(functions['mosaic'](0), functions['xla'](0)) if gpu else None
    for name, took in medians(functions, rounds).items():
      rows_.append(
        dict(
          name=f'{case.layer}_{case.op}_{direction}_{name}',
          value=1e6 * took,
          unit='us',
          op=case.op,
          layer=case.layer,
          direction=direction,
          form=name,
          batch=case.batch,
          size=case.size[0],
          channels=case.channels,
          dtype=case.dtype,
          least_mb=round(least / 1e6, 3),
          share=round(least / took / bandwidth, 3),
          **({'error_against_xla': error} if name == 'mosaic' else {}),
        )
      )
  return rows_


def rotated(function: Callable, inputs: list) -> Callable[[int], Any]:
  """The function of a call's number that takes the next inputs each time."""
  return lambda i: function(*inputs[i % len(inputs)])


def backward(form: Callable, inputs: list, cotangents: list) -> Callable[[int], Any]:
  """The transpose alone: what it needs of the forward pass is computed beforehand."""
  pulls = [jax.jit(lambda *arrays: jax.vjp(form, *arrays)[1])(*arrays) for arrays in inputs]
  return rotated(jax.jit(lambda pull, g: pull(g)), list(zip(pulls, cotangents)))


def distance(ours, theirs) -> float:
  """Norm of the difference over the norm of `theirs`, of the worst result."""
  return max(
    float(
      jnp.linalg.norm((a.astype(jnp.float32) - b).ravel())
      / jnp.linalg.norm(b.astype(jnp.float32).ravel())
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
  )


def tune(case: Case, rounds: int) -> str:
  """The fastest tile, forward and backward together, as an entry of the op's table."""
  op = getattr(OPS[case.op], 'func', OPS[case.op])
  mosaic = importlib.import_module(op.__module__.replace('.api', '.mosaic'))
  arrays = operands(case, jax.random.key(0))
  width = arrays[0].shape[2]
  functions = {}
  for tile in rows.candidates(width, case.channels, case.dtype, mosaic.POSITION_BYTES):

    def both(*arrays, tile=tile):
      with dispatch.forced(tile):
        out, pull = jax.vjp(forms(case, True)['mosaic'], *arrays)
        return pull(out)

    functions[str(tile)] = rotated(jax.jit(both), [arrays])
  took = medians(functions, rounds)
  best = min(took, key=took.get)
  return f'{op.__name__}: ({width}, {case.channels}, {case.dtype!r}): {best},  # {took[best]:.3g} s'


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Times and prints everything, and writes bench.json and report.md.

  Args:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the result.

  Returns:
    The rows of bench.json.
  """
  platform, kind = pallas.target()
  gpu = platform == 'cuda' and pallas.capability() >= 9
  dtype = config.dtype if config.dtype != 'auto' else 'bfloat16' if gpu else 'float32'
  bandwidth = measure.copy_bandwidth(config.rounds)
  found, entries = [dict(name='copy_bandwidth', value=bandwidth / 1e9, unit='GB/s')], []
  notes = [f'{kind}: a copy moves {bandwidth / 1e9:.4g} GB/s.']
  if not gpu:
    notes.append('No NVIDIA GPU of capability 9.0 was there: only the XLA forms were timed.')
  print('\n'.join(notes), flush=True)
  for case in cases(config.layers or LAYERS, config.batches or ((32, 256) if gpu else (4,)), dtype):
    new = bench(case, gpu, bandwidth, config.rounds)
    print(table(new, header=len(found) == 1), flush=True)
    found += new
    if config.tune and gpu:
      entries.append(tune(case, config.rounds))
      print(entries[-1], flush=True)
  ops = found[1:]
  if gpu:
    network = end_to_end(32, 224, dtype, config.rounds)
    found += network
    notes.append(
      f'VGG-16 with its head, {dtype}, batch 32, in one jit: '
      + ', '.join(f'{row["name"]} {row["value"]:.4g} {row["unit"]}' for row in network)
    )
    print(notes[-1], flush=True)
  reports.write_bench(workdir, found, show=False)
  tiles = ['\n'.join(['```', *entries, '```\n'])] if entries else []
  notes = [note + '\n' for note in notes]
  reports.write(workdir, ['# Interpolation ops\n', *notes, table(ops) + '\n', *tiles])
  return found


def cases(layers: Sequence[str], batches: Sequence[int], dtype: str) -> list[Case]:
  """Every op that reads such a map, of each layer at each batch."""
  found = []
  for layer in layers:
    size, channels, ops = LAYERS[layer]
    found += [
      Case(op, layer, batch, (size, size), channels, dtype) for batch in batches for op in ops
    ]
  return found


def end_to_end(
  batch: int, size: int, dtype: str, rounds: int, network: str = 'vgg16'
) -> list[dict]:
  """A network under no plan and with every unit virtual, folded, in one jit each."""
  # Needs chex and optax too, which the ops do without.
  from cnnopt_jax import models

  dense = models.create(network, num_classes=1000)
  virtual = models.with_plan(dense, 'all')
  images = jax.random.normal(jax.random.key(0), (batch, size, size, 3), dtype)
  shapes = jax.eval_shape(dense.init, jax.random.key(0), images)
  # Of the size that keeps maps of order one.
  params = jax.tree.map(
    lambda s: (
      jax.random.normal(jax.random.key(1), s.shape, jnp.float32)
      * (2 / max(1, np.prod(s.shape[:-1]))) ** 0.5
    ).astype(dtype),
    shapes['params'],
  )
  programs = {
    name: (
      jax.jit(model.apply),
      {'params': models.inference_params(model, params, images.shape[1:])},
    )
    for name, model in (('dense', dense), ('all_virtual', virtual))
  }
  took = medians(
    {
      name: lambda i, program=program: program[0](program[1], images)
      for name, program in programs.items()
    },
    rounds,
  )
  found = [
    dict(name=f'{network}_{name}', value=1e6 * t, unit='us', batch=batch, size=size, dtype=dtype)
    for name, t in took.items()
  ]
  return [
    *found,
    dict(
      name=f'{network}_all_virtual_vs_dense',
      unit='ratio',
      value=took['dense'] / took['all_virtual'],
    ),
  ]


# Of the printed table: name and width. Fixed, for rows are printed as they are measured.
COLUMNS = {
  'layer': 11,
  'op': 13,
  'direction': 9,
  'form': 13,
  'batch': 6,
  'size': 5,
  'channels': 9,
  'dtype': 9,
  'least_mb': 10,
  'value': 10,
  'share': 7,
}


def table(rows_: list[dict], header: bool = True) -> str:
  """Markdown, in columns."""

  def line(cells):
    shown = (str(cell).rjust(width) for cell, width in zip(cells, COLUMNS.values()))
    return f'| {" | ".join(shown)} |'

  lines = []
  if header:
    lines.append(line(['us' if name == 'value' else name for name in COLUMNS]))
    lines.append(line(['-' * (width - 1) + ':' for width in COLUMNS.values()]))
  for row in rows_:
    lines.append(line([f'{row[c]:.1f}' if c == 'value' else row[c] for c in COLUMNS]))
  return '\n'.join(lines)


# Flags from before there was a config, and the fields that they set.
_OLD_FLAGS = {
  'batch': 'batches',
  'dtype': 'dtype',
  'layer': 'layers',
  'rounds': 'rounds',
  'tune': 'tune',
}


def _define_old_flags() -> None:
  now = {flag: f'Now --config.{field}.' for flag, field in _OLD_FLAGS.items()}
  flags.DEFINE_multi_integer('batch', None, now['batch'])
  flags.DEFINE_string('dtype', None, now['dtype'])
  flags.DEFINE_multi_string('layer', None, now['layer'])
  flags.DEFINE_integer('rounds', None, now['rounds'])
  flags.DEFINE_bool('tune', None, now['tune'])


def _run_with_old_flags(config: config_dict.ConfigDict, workdir: pathlib.Path):
  given = {field: flags.FLAGS[flag].value for flag, field in _OLD_FLAGS.items()}
  changes = {
    field: tuple(value) if isinstance(value, list) else value
    for field, value in given.items()
    if value is not None
  }
  return run(fields.check({**config, **changes}, SPEC), workdir)


if __name__ == '__main__':
  _define_old_flags()
  launch.main(_run_with_old_flags, SPEC, 'configs/kernel_bench.py', 'runs/kernel_bench')
