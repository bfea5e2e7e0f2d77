"""How much faster virtual pooling makes networks of published size.

    python -m experiments.vip_bench --workdir runs/vip_bench

Every figure is a ratio of medians of calls taken in turn in this run, against the fastest dense
program found: the network in one jit, its convolutions and its head apart, unit by unit, and, on a
CPU, its batch split over the cores, each a device of JAX, with the first layer, of three input
channels, as a convolution and as a product of patches, and with kernels raw and transformed for
`kernels.winograd`. The virtual programs are tried in the same divisions. bench.json names the
fastest of each. Rows that end in `_xla` have no transformed kernels
on either side: what virtual maps are worth where XLA does the convolutions.
"""

import functools
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import config_dict

from cnnopt_jax import measure, models, vip
from cnnopt_jax.models import THINET_STAGES, VGG16_STAGES, DenseHead
from experiments.common import huge_pages, launch, reports
from experiments.common.fields import integer

SPEC = {
  'batch_size': integer(1),
  'image_size': integer(32),
  'rounds': integer(1),
  'training_rounds': integer(1),
  'form_rounds': integer(1),
}
_TRIAL_ROUNDS, _IN_THE_RUNNING = 3, 1.2  # Forms this much slower than the best leave.
NUM_CLASSES = 1000
HIDDEN = (4096, 4096)


def unit_names(stages) -> tuple[str, ...]:
  return tuple(
    f'conv{stage}_{unit}'
    for stage, units in enumerate(stages, 1)
    for unit in range(1, len(units) + 1)
  )


def vgg_units(
  stages, plan: vip.Plan, *, written: bool = False, patches: bool = False
) -> list[tuple[str, Callable[..., Any]]]:
  """VGG's convolutions and pools as functions of (parameters of the unit, map).

  Args:
    stages: channels of each stage.
    plan: virtual units.
    written: virtual maps are written in full before they are read.
    patches: the first layer is a product of patches where it is dense.

  Returns:
    (name of the unit, or '' for a pool; function), in order.
  """

  def unit(params, x, virtual, first):
    kernel, bias = params['conv']['kernel'], params['conv']['bias']
    form = 'materialized' if written and isinstance(x, vip.VirtualMap) else None
    form = 'patches' if patches and first and not virtual else form
    y = vip.conv(x, kernel, virtual=virtual, form=form)
    return vip.on_samples(lambda y: nn.relu(y + bias), y)

  def pool(params, x):
    return vip.max_pool(vip.materialize(x) if written else x, 2, 2)

  names = iter(unit_names(stages))
  steps = []
  for channels in stages:
    for _ in channels:
      name = next(names)
      steps.append((name, functools.partial(unit, virtual=name in plan, first=name == 'conv1_1')))
    steps.append(('', pool))
  return steps


def whole(steps):
  """All steps as one function of (parameters, images)."""

  def convolutions(params, x):
    for name, step in steps:
      x = step(params.get(name), x)
    return x

  return convolutions


_WHOLE, _SPLIT = PartitionSpec(), PartitionSpec('batch')


def over_cores(
  function: Callable[..., Any], params: Any, x: jax.Array, result: PartitionSpec = _SPLIT
) -> Callable[[], Any] | None:
  """`function` of (parameters, images) with the batch split over the devices of a CPU.

  Where channels are few, XLA runs a convolution on one core: then each may have its own images.

  Args:
    function: sees the images of one device, on the mesh axis 'batch'.
    params: every device gets them.
    x: [N, ...].
    result: whether each device gives its images' part, or all give the same.

  Returns:
    A function without arguments; None where there is one device, or no equal split.
  """
  devices = math.gcd(len(x), jax.device_count()) if jax.default_backend() == 'cpu' else 1
  if devices == 1:
    return None
  mesh = jax.make_mesh((devices,), ('batch',), axis_types=(jax.sharding.AxisType.Auto,))
  run = jax.jit(
    jax.shard_map(function, mesh=mesh, in_specs=(_WHOLE, _SPLIT), out_specs=result),
    compiler_options={'xla_cpu_multi_thread_eigen': False},
  )  # A thread a device.
  params = jax.device_put(params, NamedSharding(mesh, _WHOLE))
  x = jax.device_put(x, NamedSharding(mesh, _SPLIT))
  return lambda: run(params, x)


def programs(params, x, steps, head=None) -> dict[str, Callable[[], Any]]:
  """The ways to divide a network into jits: name to a function without arguments."""
  jitted = [(name, jax.jit(step)) for name, step in steps]

  def by_unit():
    y = x
    for name, step in jitted:
      y = step(params.get(name), y)
    return y if head is None else head_apart(params['head'], y)

  convolutions = jax.jit(whole(steps))
  split = over_cores(whole(steps), {name: params[name] for name, _ in steps if name}, x)
  if head is None:
    found = {
      'one jit': lambda: convolutions(params, x),
      'unit by unit': by_unit,
      'batch over cores': split,
    }
  else:
    head_apart = jax.jit(head)
    one = jax.jit(lambda params, x: head(params['head'], whole(steps)(params, x)))
    found = {
      'one jit': lambda: one(params, x),
      'convolutions and head apart': lambda: head_apart(params['head'], convolutions(params, x)),
      'unit by unit': by_unit,
      'batch over cores, head apart': split
      and (lambda: head_apart(params['head'], jax.device_put(split(), jax.devices()[0]))),
    }
  return _found(found)


def _found(programs):
  return {form: program for form, program in programs.items() if program}


def quick_init(model: nn.Module, x: jax.Array) -> Any:
  """Random variables; unoptimised code draws them ten times as soon."""
  quickly = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}
  return jax.jit(model.init, compiler_options=quickly)(jax.random.key(0), x[:1])


class Bench:
  """Times groups of programs, and turns medians into rows."""

  def __init__(self, config):
    self.rows = []
    self._setting = dict(
      batch_size=config.batch_size,
      image_size=config.image_size,
      device=jax.devices()[0].device_kind,
    )

  def compare(
    self, programs: dict[str, dict[str, Callable[[], Any]]], ratios: dict[str, tuple], rounds: int
  ) -> None:
    """Times programs in turn, each in its fastest form.

    Forms that three rounds show to be slow are left out of the rounds that count; of the others,
    the fastest by those is taken.

    Args:
      programs: by name and form.
      ratios: a row's name to the names of the programs divided; of several, the fastest.
      rounds: that count.
    """
    every = {
      (name, form): program for name, forms in programs.items() for form, program in forms.items()
    }
    tried = self._time(every, _TRIAL_ROUNDS)
    best = {
      name: min(tried[name, form].lower_quartile_s for form in forms)
      for name, forms in programs.items()
    }
    timings = self._time(
      {
        key: program
        for key, program in every.items()
        if tried[key].lower_quartile_s <= _IN_THE_RUNNING * best[key[0]]
      },
      rounds,
    )
    chosen = {}
    for (name, form), t in timings.items():
      print(f'{name}, {form}: {1e3 * t.median_s:.1f} ms', flush=True)
      if name not in chosen or t.median_s < chosen[name][1].median_s:
        chosen[name] = form, t
    for name, (slow, fast) in ratios.items():
      slow = min(
        slow if isinstance(slow, tuple) else (slow,),
        key=lambda program: chosen[program][1].median_s,
      )
      self.rows.append(
        dict(
          name=name,
          value=chosen[slow][1].median_s / chosen[fast][1].median_s,
          unit='ratio',
          dense_form=f'{slow}, {chosen[slow][0]}',
          form=chosen[fast][0],
          **self._setting,
        )
      )
    for name, (form, t) in chosen.items():
      self.rows.append(
        dict(
          name=f'{name}_ms',
          value=1e3 * t.median_s,
          unit='ms',
          p25=round(1e3 * t.lower_quartile_s, 1),
          p75=round(1e3 * t.upper_quartile_s, 1),
          form=form,
        )
      )

  def _time(self, programs, rounds):
    seconds = measure.interleaved_seconds(programs, rounds=rounds)
    return {name: measure.summarize(s) for name, s in seconds.items()}


def bench_vgg(bench: Bench, config, x: jax.Array) -> None:
  """VGG-16's convolutions, all virtual; whole networks; a training step; ThiNet's widths."""
  rounds = config.rounds
  side = config.image_size
  dense_params, thinet_params = (
    quick_init(models.create(name, num_classes=NUM_CLASSES), x)['params']
    for name in ('vgg16', 'thinet')
  )

  def prepared(name, params, plan):
    model = models.create(name, num_classes=NUM_CLASSES, plan=plan)
    return models.inference_params(model, params, (side, side, 3))

  every = unit_names(VGG16_STAGES)

  def forms(params, stages, plan, head=None, written=False):
    found = {}
    for patches in (False,) if 'conv1_1' in plan else (False, True):
      steps = vgg_units(stages, plan, written=written, patches=patches)
      for form, program in programs(params, x, steps, head).items():
        found[form + ', first layer by patches' * patches] = program
    return found

  def dense_forms(name, params, stages, head=None):
    return forms(prepared(name, params, ()), stages, (), head)

  virtual_params = prepared('vgg16', dense_params, every)
  virtual = forms(virtual_params, VGG16_STAGES, every)
  written = forms(dense_params, VGG16_STAGES, every, written=True)
  a, b = virtual['one jit'](), written['one jit']()
  difference = float(jnp.abs(a - b).max() / jnp.abs(b).max())
  bench.rows.append(
    dict(
      name='vgg16_all_virtual_difference',
      value=difference,
      unit='largest difference to the written form, of the largest value',
    )
  )

  thinet_plan = vip.PLANS['thinet_round3']
  thinet_prepared = prepared('thinet', thinet_params, thinet_plan)
  dense = 'vgg16_dense', 'vgg16_dense_xla'
  bench.compare(
    {
      'vgg16_dense': dense_forms('vgg16', dense_params, VGG16_STAGES),
      'vgg16_dense_xla': forms(dense_params, VGG16_STAGES, ()),
      'vgg16_all_virtual': virtual,
      'vgg16_all_virtual_xla': forms(_untransformed(virtual_params), VGG16_STAGES, every),
      'vgg16_materialised': written,
      'vgg16_folded_in_call': forms(dense_params, VGG16_STAGES, every),
      'thinet_dense': dense_forms('thinet', thinet_params, THINET_STAGES),
      'thinet_vip': forms(thinet_prepared, THINET_STAGES, thinet_plan),
      'thinet_vip_xla': forms(_untransformed(thinet_prepared), THINET_STAGES, thinet_plan),
    },
    {
      'vgg16_all_virtual_vs_dense': (dense, 'vgg16_all_virtual'),
      'vgg16_all_virtual_vs_materialised': ('vgg16_materialised', 'vgg16_all_virtual'),
      'vgg16_folded_in_call_vs_dense': (dense, 'vgg16_folded_in_call'),
      'vgg16_materialised_vs_dense': (dense, 'vgg16_materialised'),
      'thinet_vip_convs_vs_vgg16_dense': (dense, 'thinet_vip'),
      'thinet_vip_convs_vs_thinet_dense': ('thinet_dense', 'thinet_vip'),
      'vgg16_all_virtual_vs_dense_xla': ('vgg16_dense_xla', 'vgg16_all_virtual_xla'),
      'vgg16_all_virtual_vs_materialised_xla': ('vgg16_materialised', 'vgg16_all_virtual_xla'),
      'thinet_vip_convs_vs_vgg16_dense_xla': ('vgg16_dense_xla', 'thinet_vip_xla'),
    },
    rounds,
  )

  head_model = DenseHead(NUM_CLASSES, HIDDEN)
  head = lambda params, y: head_model.apply({'params': params}, y)
  plan = vip.PLANS['vgg16_round4']
  round4_params = prepared('vgg16', dense_params, plan)
  dense = 'vgg16_whole_dense', 'vgg16_whole_dense_xla'
  bench.compare(
    {
      'vgg16_whole_dense': dense_forms('vgg16', dense_params, VGG16_STAGES, head),
      'vgg16_whole_dense_xla': forms(dense_params, VGG16_STAGES, (), head),
      'vgg16_whole_round4': forms(round4_params, VGG16_STAGES, plan, head),
      'vgg16_whole_round4_xla': forms(_untransformed(round4_params), VGG16_STAGES, plan, head),
      'thinet_whole_vip': forms(thinet_prepared, THINET_STAGES, thinet_plan, head),
      'thinet_whole_vip_xla': forms(
        _untransformed(thinet_prepared), THINET_STAGES, thinet_plan, head
      ),
    },
    {
      'vgg16_round4_whole_vs_dense': (dense, 'vgg16_whole_round4'),
      'thinet_vip_whole_vs_vgg16_dense': (dense, 'thinet_whole_vip'),
      'vgg16_round4_whole_vs_dense_xla': ('vgg16_whole_dense_xla', 'vgg16_whole_round4_xla'),
      'thinet_vip_whole_vs_vgg16_dense_xla': ('vgg16_whole_dense_xla', 'thinet_whole_vip_xla'),
    },
    rounds,
  )

  def training_step(plan):
    convolutions = whole(vgg_units(VGG16_STAGES, plan))
    params = {name: dense_params[name] for name in every}

    def step(params, x, mean=lambda loss: loss):
      loss = lambda params: mean(jnp.mean(convolutions(params, x) ** 2))
      return jax.tree.map(lambda p, g: p - 1e-6 * g, params, jax.grad(loss)(params))

    one = jax.jit(step)
    split = over_cores(
      functools.partial(step, mean=lambda loss: lax.pmean(loss, 'batch')), params, x, result=_WHOLE
    )
    return _found({'one jit': lambda: one(params, x), 'batch over cores': split})

  bench.compare(
    {'vgg16_training_dense': training_step(()), 'vgg16_training_virtual': training_step(every)},
    {'vgg16_training_step_vs_dense': ('vgg16_training_dense', 'vgg16_training_virtual')},
    config.training_rounds,
  )


def _untransformed(params: Any) -> Any:
  """Parameters for inference without transforms; folded kernels stay folded."""

  def strip(leaf):
    if isinstance(leaf, vip.FoldedKernel):
      return leaf.replace(transformed=None)
    return leaf.taps if isinstance(leaf, vip.WinogradKernel) else leaf

  return jax.tree.map(
    strip, params, is_leaf=lambda leaf: isinstance(leaf, vip.FoldedKernel | vip.WinogradKernel)
  )


def bench_network(bench: Bench, config, name: str, plan: str, x: jax.Array, row: str) -> None:
  """A network against itself under a plan."""
  model = models.create(name, num_classes=NUM_CLASSES)
  virtual = models.with_plan(model, plan)
  variables = quick_init(model, x)

  def program(network, transformed):
    params = models.inference_params(network, variables['params'], x.shape[1:])
    prepared = {**variables, 'params': params if transformed else _untransformed(params)}
    apply = jax.jit(network.apply)
    split = over_cores(network.apply, prepared, x)
    return _found({'one jit': lambda: apply(prepared, x), 'batch over cores': split})

  dense, dense_xla, fast, fast_xla = (
    name + suffix for suffix in ('_dense', '_dense_xla', '_virtual', '_virtual_xla')
  )
  bench.compare(
    {
      dense: program(model, True),
      dense_xla: program(model, False),
      fast: program(virtual, True),
      fast_xla: program(virtual, False),
    },
    {row: ((dense, dense_xla), fast), f'{row}_xla': (dense_xla, fast_xla)},
    config.rounds,
  )


def bench_forms(bench: Bench, config) -> None:
  """Each form of a unit that reads a virtual map, at VGG-16's shapes; the form chosen is named."""
  sides = [config.image_size // 2 ** (i + 1) for i in range(5)]
  for virtual in (True, False):
    for side, stage in zip(sides, VGG16_STAGES):
      channels = stage[-1]
      samples = jax.random.normal(jax.random.key(0), (config.batch_size, side, side, channels))
      kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, channels))
      x = vip.VirtualMap(samples, (2 * side, 2 * side))
      setting = (x, kernel.shape, 2 if virtual else 1, ((1, 1), (1, 1)), 1)
      chosen = vip.conv_form(*setting, virtual, transformed=virtual)
      runs = {}
      for form in vip.conv_forms(*setting):

        def unit(x, weights, form=form, virtual=virtual):
          y = vip.conv(x, weights, virtual=virtual, form=form)
          return vip.on_samples(lambda y: nn.relu(y + 0.1), y)

        run = jax.jit(unit)
        weights = vip.fold_kernel(kernel) if virtual and form != 'materialized' else kernel
        runs[form] = functools.partial(run, x, weights)
      seconds = measure.interleaved_seconds(runs, rounds=config.form_rounds)
      medians = {form: float(np.median(s)) for form, s in seconds.items()}
      bench.rows.append(
        dict(
          name=f'conv_of_virtual_{side}x{side}x{channels}_{"virtual" if virtual else "dense"}',
          value=medians['materialized'] / medians[chosen],
          unit='ratio, materialised to chosen',
          chosen=chosen,
          **{form: f'{1e3 * s:.2f} ms' for form, s in medians.items()},
        )
      )


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Times everything and writes bench.json.

  Args:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the result.

  Returns:
    The rows of bench.json.
  """
  image = (config.image_size, config.image_size, 3)
  x = jax.random.normal(jax.random.key(2), (config.batch_size, *image))
  bench = Bench(config)
  bench_vgg(bench, config, x)
  bench_network(bench, config, 'resnet50', 'resnet50_round2', x, 'resnet50_round2_vs_dense')
  small = jax.random.normal(jax.random.key(2), (16 * config.batch_size, 32, 32, 3))
  bench_network(bench, config, 'all_cnn', 'all', small, 'all_cnn_32x32_all_virtual_vs_dense')
  bench_forms(bench, config)
  reports.write_bench(workdir, bench.rows)
  reports.write(workdir, ['# Speed of virtual pooling\n', reports.bench_table(bench.rows)])
  return bench.rows


if __name__ == '__main__':
  huge_pages.use_huge_pages()
  jax.config.update('jax_num_cpu_devices', len(os.sched_getaffinity(0)))
  launch.main(run, SPEC, 'configs/vip_bench.py', 'runs/vip_bench')
