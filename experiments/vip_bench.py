"""How much faster virtual pooling makes networks of published size.

    python -m experiments.vip_bench --config configs/vip_bench.py --workdir runs/vip_bench

Every figure is a ratio of medians of calls taken in turn in this run, against the fastest dense
program found: the network in one jit, its convolutions and its head apart, unit by unit, and, on a
CPU, its batch split over the cores, each a device of JAX, with the first layer, of three input
channels, as a convolution and as a product of patches, and with kernels raw and transformed for
`kernels.winograd`. The virtual programs are tried in the same divisions. bench.json names the
fastest of each. Rows that end in `_xla` have no transformed kernels
on either side: what virtual maps are worth where XLA does the convolutions.
"""

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from ml_collections import config_dict

from cnnopt_jax import compilation, measure, models, vip
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

Program = Callable[[], Any]  # Without arguments, so that it can be timed.


def unit_names(stages) -> tuple[str, ...]:
  """Names of VGG's conv units, in order."""
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


def programs(params, x, steps, head=None) -> dict[str, Program]:
  """The ways to divide a network into jits: name to a function without arguments."""
  jitted = [(name, jax.jit(step)) for name, step in steps]
  head_apart = None if head is None else jax.jit(head)

  def by_unit():
    y = x
    for name, step in jitted:
      y = step(params.get(name), y)
    return y if head is None else head_apart(params['head'], y)

  chained = whole(steps)
  convolutions = jax.jit(chained)
  split = measure.over_cores(chained, {name: params[name] for name, _ in steps if name}, x)
  if head is None:
    return _found(
      {
        'one jit': functools.partial(convolutions, params, x),
        'unit by unit': by_unit,
        'batch over cores': split,
      }
    )
  one = jax.jit(lambda params, x: head(params['head'], chained(params, x)))

  def over_cores_then_head():
    return head_apart(params['head'], jax.device_put(split(), jax.devices()[0]))

  return _found(
    {
      'one jit': functools.partial(one, params, x),
      'convolutions and head apart': lambda: head_apart(params['head'], convolutions(params, x)),
      'unit by unit': by_unit,
      'batch over cores, head apart': split and over_cores_then_head,
    }
  )


def _found(programs: dict[str, Program | None]) -> dict[str, Program]:
  """Those that there are: `measure.over_cores` has none where it cannot split."""
  return {form: program for form, program in programs.items() if program}


def quick_init(model: nn.Module, x: jax.Array) -> Any:
  """Random variables; unoptimised code draws them ten times as soon."""
  return jax.jit(model.init, compiler_options=compilation.QUICKLY)(jax.random.key(0), x[:1])


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
    self, programs: dict[str, dict[str, Program]], ratios: dict[str, tuple], rounds: int
  ) -> None:
    """Times programs in turn, each in its fastest form.

    Forms that three rounds show to be slow are left out of the rounds that count; of the others,
    the fastest by those is taken.

    Args:
      programs: by name and form.
      ratios: a row's name to the names of the programs divided; of several, the fastest.
      rounds: that count.
    """
    chosen = self._fastest_forms(programs, rounds)
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

  def _fastest_forms(
    self, programs: dict[str, dict[str, Program]], rounds: int
  ) -> dict[str, tuple[str, measure.Timing]]:
    """The fastest form of each program, and its time."""
    every = {
      (name, form): program for name, forms in programs.items() for form, program in forms.items()
    }
    tried = _time(every, _TRIAL_ROUNDS)
    best = {
      name: min(tried[name, form].lower_quartile_s for form in forms)
      for name, forms in programs.items()
    }
    in_the_running = {
      key: program
      for key, program in every.items()
      if tried[key].lower_quartile_s <= _IN_THE_RUNNING * best[key[0]]
    }
    chosen = {}
    for (name, form), t in _time(in_the_running, rounds).items():
      print(f'{name}, {form}: {1e3 * t.median_s:.1f} ms', flush=True)
      if name not in chosen or t.median_s < chosen[name][1].median_s:
        chosen[name] = form, t
    return chosen


def _time(programs: dict[Any, Program], rounds: int) -> dict[Any, measure.Timing]:
  seconds = measure.interleaved_seconds(programs, rounds=rounds)
  return {name: measure.summarize(s) for name, s in seconds.items()}


class VGGBench:
  """VGG-16 and ThiNet's widths of it, layer by layer, with their parameters.

  Attributes:
    model: VGG-16.
    stages: its channels.
    units: names of its conv units.
    params: its parameters, as they are trained.
    thinet_stages: ThiNet's channels.
    thinet_params: its parameters.
  """

  def __init__(self, x: jax.Array):
    self._x = x
    self.model, thinet = (
      models.create(name, num_classes=NUM_CLASSES) for name in ('vgg16', 'thinet')
    )
    self.stages, self.thinet_stages = self.model.stages, thinet.stages
    self.units = unit_names(self.stages)
    self.params, self.thinet_params = (
      quick_init(model, x)['params'] for model in (self.model, thinet)
    )

  def prepared(self, params: Any, stages, plan: vip.Plan) -> Any:
    """Parameters for inference under a plan."""
    model = models.with_plan(self.model.clone(stages=stages), plan)
    return models.inference_params(model, params, self._x.shape[1:])

  def forms(
    self, params: Any, stages, plan: vip.Plan, head=None, written: bool = False
  ) -> dict[str, Program]:
    """Every division of a network under a plan, with its first layer in both forms if dense."""
    found = {}
    for patches in (False,) if 'conv1_1' in plan else (False, True):
      steps = vgg_units(stages, plan, written=written, patches=patches)
      for form, program in programs(params, self._x, steps, head).items():
        found[form + ', first layer by patches' * patches] = program
    return found

  def with_and_without_transforms(
    self, name: str, params: Any, stages, plan: vip.Plan, head=None
  ) -> dict[str, dict[str, Program]]:
    """Forms on prepared parameters, and as `name_xla` on those without transformed kernels."""
    prepared = self.prepared(params, stages, plan)
    return {
      name: self.forms(prepared, stages, plan, head),
      f'{name}_xla': self.forms(_untransformed(prepared), stages, plan, head),
    }

  def head(self, params: Any, y: jax.Array) -> jax.Array:
    """Logits of the last map, as both networks compute them."""
    return models.VGGHead(NUM_CLASSES, self.model.hidden).apply({'params': params}, y)


def bench_convolutions(bench: Bench, vgg: VGGBench, rounds: int) -> None:
  """The convolutions of VGG-16, all virtual, and of ThiNet by its plan."""
  stages, params, thinet_plan = vgg.stages, vgg.params, vip.PLANS['thinet_round3']
  virtual = vgg.with_and_without_transforms('vgg16_all_virtual', params, stages, vgg.units)
  written = vgg.forms(params, stages, vgg.units, written=True)
  a, b = virtual['vgg16_all_virtual']['one jit'](), written['one jit']()
  bench.rows.append(
    dict(
      name='vgg16_all_virtual_difference',
      value=float(jnp.abs(a - b).max() / jnp.abs(b).max()),
      unit='largest difference to the written form, of the largest value',
    )
  )
  thinet = vgg.thinet_params, vgg.thinet_stages
  dense = 'vgg16_dense', 'vgg16_dense_xla'
  bench.compare(
    {
      'vgg16_dense': vgg.forms(vgg.prepared(params, stages, ()), stages, ()),
      'vgg16_dense_xla': vgg.forms(params, stages, ()),
      **virtual,
      'vgg16_materialised': written,
      'vgg16_folded_in_call': vgg.forms(params, stages, vgg.units),
      'thinet_dense': vgg.forms(vgg.prepared(*thinet, ()), vgg.thinet_stages, ()),
      **vgg.with_and_without_transforms('thinet_vip', *thinet, thinet_plan),
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


def bench_whole(bench: Bench, vgg: VGGBench, rounds: int) -> None:
  """VGG-16 and ThiNet with their heads, by the authors' plans."""
  stages, params = vgg.stages, vgg.params
  thinet = vgg.thinet_params, vgg.thinet_stages
  round4, thinet_plan = vip.PLANS['vgg16_round4'], vip.PLANS['thinet_round3']
  dense = 'vgg16_whole_dense', 'vgg16_whole_dense_xla'
  dense_params = vgg.prepared(params, stages, ())
  bench.compare(
    {
      'vgg16_whole_dense': vgg.forms(dense_params, stages, (), vgg.head),
      'vgg16_whole_dense_xla': vgg.forms(params, stages, (), vgg.head),
      **vgg.with_and_without_transforms('vgg16_whole_round4', params, stages, round4, vgg.head),
      **vgg.with_and_without_transforms('thinet_whole_vip', *thinet, thinet_plan, vgg.head),
    },
    {
      'vgg16_round4_whole_vs_dense': (dense, 'vgg16_whole_round4'),
      'thinet_vip_whole_vs_vgg16_dense': (dense, 'thinet_whole_vip'),
      'vgg16_round4_whole_vs_dense_xla': ('vgg16_whole_dense_xla', 'vgg16_whole_round4_xla'),
      'thinet_vip_whole_vs_vgg16_dense_xla': ('vgg16_whole_dense_xla', 'thinet_whole_vip_xla'),
    },
    rounds,
  )


def bench_training(bench: Bench, vgg: VGGBench, x: jax.Array, rounds: int) -> None:
  """A training step of VGG-16's convolutions, dense and all virtual."""
  params = {name: vgg.params[name] for name in vgg.units}

  def training_step(plan):
    convolutions = whole(vgg_units(vgg.stages, plan))

    def step(params, x, mean=lambda loss: loss):

      def loss(params):
        return mean(jnp.mean(convolutions(params, x) ** 2))

      return jax.tree.map(lambda p, g: p - 1e-6 * g, params, jax.grad(loss)(params))

    over_devices = functools.partial(step, mean=lambda loss: lax.pmean(loss, 'batch'))
    return _found(
      {
        'one jit': functools.partial(jax.jit(step), params, x),
        'batch over cores': measure.over_cores(over_devices, params, x, result=measure.WHOLE),
      }
    )

  bench.compare(
    {
      'vgg16_training_dense': training_step(()),
      'vgg16_training_virtual': training_step(vgg.units),
    },
    {'vgg16_training_step_vs_dense': ('vgg16_training_dense', 'vgg16_training_virtual')},
    rounds,
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


class Network(NamedTuple):
  """A network that is timed against itself under a plan.

  Attributes:
    row: name of the ratio in bench.json.
    model: a key of `models.MODELS`.
    plan: as `models.create` takes it.
    image_size: rows and columns; None for the config's.
    images: for each of the config's batch.
  """

  row: str
  model: str
  plan: str
  image_size: int | None = None
  images: int = 1


NETWORKS = (
  Network('resnet50_round2_vs_dense', 'resnet50', 'resnet50_round2'),
  Network('all_cnn_32x32_all_virtual_vs_dense', 'all_cnn', 'all', image_size=32, images=16),
)


def bench_network(bench: Bench, config, network: Network) -> None:
  """A network against itself under a plan."""
  model = models.create(network.model, num_classes=NUM_CLASSES)
  virtual = models.with_plan(model, network.plan)
  size = network.image_size or config.image_size
  shape = (network.images * config.batch_size, size, size, 3)
  x = jax.random.normal(jax.random.key(2), shape)
  variables = quick_init(model, x)

  def program(model, transformed):
    params = models.inference_params(model, variables['params'], x.shape[1:])
    prepared = {**variables, 'params': params if transformed else _untransformed(params)}
    return _found(
      {
        'one jit': functools.partial(jax.jit(model.apply), prepared, x),
        'batch over cores': measure.over_cores(model.apply, prepared, x),
      }
    )

  dense, dense_xla, fast, fast_xla = (
    network.model + suffix for suffix in ('_dense', '_dense_xla', '_virtual', '_virtual_xla')
  )
  bench.compare(
    {
      dense: program(model, True),
      dense_xla: program(model, False),
      fast: program(virtual, True),
      fast_xla: program(virtual, False),
    },
    {
      network.row: ((dense, dense_xla), fast),
      f'{network.row}_xla': (dense_xla, fast_xla),
    },
    config.rounds,
  )


def bench_forms(bench: Bench, config) -> None:
  """Each form of a unit that reads a virtual map, at VGG-16's shapes; the form chosen is named."""
  stages = models.create('vgg16', num_classes=NUM_CLASSES).stages
  for virtual in (True, False):
    for i, stage in enumerate(stages, 1):
      side = config.image_size // 2**i
      bench.rows.append(_forms_row(config, side, stage[-1], virtual))


def _forms_row(config, side: int, channels: int, virtual: bool) -> dict[str, Any]:
  """All forms of a 3x3 unit on a virtual map of twice `side`, and which one `vip.conv` takes."""
  samples = jax.random.normal(jax.random.key(0), (config.batch_size, side, side, channels))
  kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, channels))
  x = vip.VirtualMap(samples, (2 * side, 2 * side))
  setting = (x, kernel.shape, 2 if virtual else 1, ((1, 1), (1, 1)), 1)
  chosen = vip.conv_form(*setting, virtual, transformed=virtual)

  def program(form):
    def unit(x, weights):
      y = vip.conv(x, weights, virtual=virtual, form=form)
      return vip.on_samples(lambda y: nn.relu(y + 0.1), y)

    weights = vip.fold_kernel(kernel) if virtual and form != 'materialized' else kernel
    return functools.partial(jax.jit(unit), x, weights)

  seconds = measure.interleaved_seconds(
    {form: program(form) for form in vip.conv_forms(*setting)}, rounds=config.form_rounds
  )
  medians = {form: float(np.median(s)) for form, s in seconds.items()}
  return dict(
    name=f'conv_of_virtual_{side}x{side}x{channels}_{"virtual" if virtual else "dense"}',
    value=medians['materialized'] / medians[chosen],
    unit='ratio, materialised to chosen',
    chosen=chosen,
    **{form: f'{1e3 * s:.2f} ms' for form, s in medians.items()},
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
  vgg = VGGBench(x)
  bench_convolutions(bench, vgg, config.rounds)
  bench_whole(bench, vgg, config.rounds)
  bench_training(bench, vgg, x, config.training_rounds)
  for network in NETWORKS:
    bench_network(bench, config, network)
  bench_forms(bench, config)
  reports.write_bench(workdir, bench.rows)
  reports.write(workdir, ['# Speed of virtual pooling\n', reports.bench_table(bench.rows)])
  return bench.rows


if __name__ == '__main__':
  huge_pages.use_huge_pages()
  jax.config.update('jax_num_cpu_devices', len(os.sched_getaffinity(0)))
  launch.main(run, SPEC, 'configs/vip_bench.py', 'runs/vip_bench')
