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
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from ml_collections import config_dict

from cnnopt_jax import measure, models, vip
from experiments.common import reports
from experiments.common.fields import integer
from experiments.vip_bench import programs
from experiments.vip_bench.comparison import Bench

SPEC = {
  'batch_size': integer(1),
  'image_size': integer(32),
  'rounds': integer(1),
  'training_rounds': integer(1),
  'form_rounds': integer(1),
}


def bench_convolutions(bench: Bench, vgg: programs.VGGBench, rounds: int) -> None:
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


def bench_whole(bench: Bench, vgg: programs.VGGBench, rounds: int) -> None:
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


def bench_training(bench: Bench, vgg: programs.VGGBench, x: jax.Array, rounds: int) -> None:
  """A training step of VGG-16's convolutions, dense and all virtual."""
  params = {name: vgg.params[name] for name in vgg.units}

  def training_step(plan):
    convolutions = programs.whole(programs.vgg_units(vgg.stages, plan))

    def step(params, x, mean=lambda loss: loss):

      def loss(params):
        return mean(jnp.mean(convolutions(params, x) ** 2))

      return jax.tree.map(lambda p, g: p - 1e-6 * g, params, jax.grad(loss)(params))

    over_devices = functools.partial(step, mean=lambda loss: lax.pmean(loss, 'batch'))
    return programs.found(
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
  model = models.create(network.model, num_classes=programs.NUM_CLASSES)
  virtual = models.with_plan(model, network.plan)
  size = network.image_size or config.image_size
  shape = (network.images * config.batch_size, size, size, 3)
  x = jax.random.normal(jax.random.key(2), shape)
  variables = programs.quick_init(model, x)

  def program(model, transformed):
    params = models.inference_params(model, variables['params'], x.shape[1:])
    prepared = {**variables, 'params': params if transformed else programs.untransformed(params)}
    return programs.found(
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
  stages = models.create('vgg16', num_classes=programs.NUM_CLASSES).stages
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
  vgg = programs.VGGBench(x)
  bench_convolutions(bench, vgg, config.rounds)
  bench_whole(bench, vgg, config.rounds)
  bench_training(bench, vgg, x, config.training_rounds)
  for network in NETWORKS:
    bench_network(bench, config, network)
  bench_forms(bench, config)
  reports.write_bench(workdir, bench.rows)
  reports.write(workdir, ['# Speed of virtual pooling\n', reports.bench_table(bench.rows)])
  return bench.rows
