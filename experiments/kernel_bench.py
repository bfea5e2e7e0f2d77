"""Speed of the interpolation ops: each kernel beside its XLA forms, against copy bandwidth.

    python -m experiments.kernel_bench --workdir runs/kernel_bench

On an NVIDIA GPU of capability 9.0 or newer it times the Mosaic kernels (`mosaic`), the XLA forms
(`xla`), the map materialised before the op (`materialised`), and `jax.image.resize`, which is
another function of the same traffic, at batch 32 and 256 in bfloat16: about ten minutes. Elsewhere
it times what is there and says so; on a CPU at batch 4 in float32, about four minutes on two cores.
`--tune` also times every candidate tile and prints entries for `kernels/<op>/tuned.py`.

Every row is the median of interleaved rounds of back-to-back calls on rotating inputs. `share` is
the least bytes the op must move, over its time, over the bandwidth of a copy in the same run. Needs
jax, flax, numpy and absl only, for machines where nothing can be installed.
"""

import functools
import json
import pathlib
import subprocess
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from cnnopt_jax.kernels import dispatch, pallas, rows
from cnnopt_jax.kernels.border_pad import border_pad
from cnnopt_jax.kernels.interp2x import interp2x
from cnnopt_jax.kernels.interp2x_add_relu import interp2x_add_relu
from cnnopt_jax.kernels.interp2x_max_pool import interp2x_max_pool

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
ROUND_SECONDS = 0.02  # Back-to-back calls of a round on a GPU, so that launches overlap.
ROTATED_BYTES = 256 << 20  # Inputs of a form together: several times the 60 MB of an H200's L2.

flags.DEFINE_string('workdir', 'runs/kernel_bench', 'Folder for bench.json and report.md.')
flags.DEFINE_multi_integer(
  'batch', None, 'Batch sizes; default 32 and 256, on a CPU 4.', lower_bound=1
)
flags.DEFINE_enum('dtype', None, ['float32', 'bfloat16'], 'Default bfloat16, on a CPU float32.')
flags.DEFINE_multi_enum('layer', list(LAYERS), list(LAYERS), 'Layers to time.')
flags.DEFINE_integer('rounds', 9, 'Interleaved rounds.', lower_bound=1)
flags.DEFINE_bool('tune', False, 'Time every candidate tile of the kernels; GPU only.')


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
  full = lambda x: jax.lax.optimization_barrier(interp2x(x, case.size, implementation='xla'))
  materialised = {
    'interp2x': lambda x: jax.image.resize(x, (x.shape[0], *case.size, x.shape[3]), 'linear'),
    'max_pool': lambda x: nn.max_pool(full(x), (2, 2), (2, 2)),
    'add_relu': lambda x, y: nn.relu(full(x) + full(y)),
    'add_relu_map': lambda x, y: nn.relu(full(x) + y),
  }
  found = {'mosaic': functools.partial(op, implementation='mosaic')} if gpu else {}
  found['xla'] = functools.partial(op, implementation='xla')
  if case.op in materialised:
    found['resize' if case.op == 'interp2x' else 'materialised'] = materialised[case.op]
  return found


def operands(case: Case, rng) -> list[jax.Array]:
  samples = tuple(-(-n // 2) for n in case.size)
  sizes = [samples] + {'add_relu': [samples], 'add_relu_map': [case.size]}.get(case.op, [])
  return [jax.random.normal(rng, (case.batch, *s, case.channels), case.dtype) for s in sizes]


def least_bytes(inputs, outputs) -> int:
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((inputs, outputs)))


def seconds(functions: dict[str, Callable[[int], Any]], rounds: int) -> dict[str, float]:
  """Median seconds of a call of each, in turn; calls of a round follow each other on the device.

  Args:
    functions: by name; they take the number of the call, to rotate their inputs.
    rounds: that the median is over.
  """
  calls = {}
  for name, function in functions.items():
    jax.block_until_ready(function(0))
    start = time.perf_counter()
    jax.block_until_ready(function(0))
    once = time.perf_counter() - start
    cpu = jax.default_backend() == 'cpu'
    calls[name] = 1 if cpu else int(np.clip(ROUND_SECONDS / once, 1, 999))
  times = {name: [] for name in functions}
  for _ in range(rounds):
    for name, function in functions.items():
      start = time.perf_counter()
      for i in range(calls[name]):
        out = function(i)
      jax.block_until_ready(out)
      times[name].append((time.perf_counter() - start) / calls[name])
  return {name: float(np.median(t)) for name, t in times.items()}


def copy_bandwidth(rounds: int) -> float:
  """Bytes read and written a second by the fastest simple copy, of far more than the caches."""
  # A CPU's copy of more pays for fresh pages instead.
  count = 1 << (26 if jax.default_backend() == 'cpu' else 30)
  x = jnp.ones(count // 4, jnp.float32)
  negate = jax.jit(lambda x: -x)
  return 2 * count / seconds({'copy': lambda i: negate(x)}, rounds)['copy']


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
    for name, took in seconds(functions, rounds).items():
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
  mosaic = __import__(op.__module__.replace('.api', '.mosaic'), fromlist=['OP'])
  arrays = operands(case, jax.random.key(0))
  width = arrays[0].shape[2]
  functions = {}
  for tile in rows.candidates(width, case.channels, case.dtype, mosaic.POSITION_BYTES):

    def both(*arrays, tile=tile):
      with dispatch.forced(tile):
        out, pull = jax.vjp(forms(case, True)['mosaic'], *arrays)
        return pull(out)

    functions[str(tile)] = rotated(jax.jit(both), [arrays])
  took = seconds(functions, rounds)
  best = min(took, key=took.get)
  return f'{op.__name__}: ({width}, {case.channels}, {case.dtype!r}): {best},  # {took[best]:.3g} s'


def run(
  workdir: pathlib.Path,
  *,
  batches=None,
  dtype=None,
  layers=tuple(LAYERS),
  rounds=9,
  tune_tiles=False,
) -> list[dict]:
  """Times, prints, and writes `bench.json` and `report.md` to `workdir`; returns the rows."""
  platform, kind = pallas.target()
  gpu = platform == 'cuda' and pallas.capability() >= 9
  batches = batches or ([32, 256] if gpu else [4])
  dtype = dtype or ('bfloat16' if gpu else 'float32')
  bandwidth = copy_bandwidth(rounds)
  rows_, entries = [dict(name='copy_bandwidth', value=bandwidth / 1e9, unit='GB/s')], []
  notes = [
    f'{kind}, JAX {jax.__version__}, revision {revision()}, '
    f'{time.strftime("%Y-%m-%d")}; a copy moves {bandwidth / 1e9:.4g} GB/s.'
  ]
  if not gpu:
    notes.append('No NVIDIA GPU of capability 9.0 was there: only the XLA forms were timed.')
  print('\n'.join(notes), flush=True)
  for layer in layers:
    size, channels, ops = LAYERS[layer]
    for batch in batches:
      for op in ops:
        case = Case(op, layer, batch, (size, size), channels, dtype)
        new = bench(case, gpu, bandwidth, rounds)
        rows_ += new
        print(table(new, header=len(rows_) == len(new) + 1), flush=True)
        if tune_tiles and gpu:
          entries.append(tune(case, rounds))
          print(entries[-1], flush=True)
  if gpu:
    network = end_to_end(32, 224, dtype, rounds)
    rows_ += network
    notes.append(
      f'VGG-16 with its head, {dtype}, batch 32, in one jit: '
      + ', '.join(f'{row["name"]} {row["value"]:.4g} {row["unit"]}' for row in network)
    )
    print(notes[-1], flush=True)
  workdir.mkdir(parents=True, exist_ok=True)
  (workdir / 'bench.json').write_text(json.dumps(rows_, indent=1) + '\n')
  parts = ['# Interpolation ops', *notes, table([row for row in rows_ if 'op' in row])]
  if entries:
    parts.append('\n'.join(['```', *entries, '```']))
  (workdir / 'report.md').write_text('\n\n'.join(parts) + '\n')
  return rows_


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
  took = seconds(
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


def table(rows_: list[dict], header: bool = True) -> str:
  """Markdown, in columns."""
  columns = dict(
    layer=11,
    op=13,
    direction=9,
    form=13,
    batch=6,
    size=5,
    channels=9,
    dtype=9,
    least_mb=10,
    value=10,
    share=7,
  )
  widths = columns.values()
  line = lambda cells: f'| {" | ".join(str(c).rjust(w) for c, w in zip(cells, widths))} |'
  lines = (
    [
      line(['us' if name == 'value' else name for name in columns]),
      line(['-' * (w - 1) + ':' for w in widths]),
    ]
    if header
    else []
  )
  lines += [line([f'{row[c]:.1f}' if c == 'value' else row[c] for c in columns]) for row in rows_]
  return '\n'.join(lines)


def revision() -> str:
  done = subprocess.run(
    ['git', '-C', str(pathlib.Path(__file__).parent), 'describe', '--always', '--dirty'],
    capture_output=True,
    text=True,
  )
  return done.stdout.strip() or 'unknown'


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'argument {argv[1]!r}: not a flag')
  values = flags.FLAGS
  run(
    pathlib.Path(values.workdir),
    batches=values.batch,
    dtype=values.dtype,
    layers=values.layer,
    rounds=values.rounds,
    tune_tiles=values.tune,
  )


if __name__ == '__main__':
  app.run(main)
