"""How fast a vmapped sweep trains, against its members one by one and against plain `jax.vmap`.

    python -m experiments.sweep_bench --workdir runs/sweep_bench

Four ways to take one training step (forward, backward, update) of every member, timed in turn in
one run: the sweep's program; one compiled single-member step called for each member; plain
`jax.vmap` of the step with `jax.lax.conv_general_dilated`, whose batching rule makes grouped
convolutions; and plain `jax.vmap` of the step with this library's convolution.
"""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from cnnopt_jax import measure, models, training
from cnnopt_jax.kernels import conv
from experiments.common import launch, reports
from experiments.common.fields import integer, number, one_of

SPEC = {
  'model': one_of(*models.MODELS),
  'width_multiplier': number(0, above=True),
  'image_size': integer(8),
  'members': integer(2),
  'batch_size': integer(1),
  'rounds': integer(1),
}


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Times the three ways and writes bench.json.

  Args:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the result.

  Returns:
    The rows of bench.json.
  """
  count, shape = config.members, (config.image_size, config.image_size, 1)
  model = models.create(config.model, num_classes=10, width_multiplier=config.width_multiplier)
  recipe = training.Recipe(steps=10**6, steps_per_epoch=10**3, shift=2, flip=True)
  members = training.Members(
    jnp.arange(count, dtype=jnp.int32),
    jnp.asarray(np.resize([1, 2, 3, 4, 8, 32], count), jnp.int32),
    jnp.full(count, 0.01),
  )
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (count, config.batch_size, *shape), np.uint8)
  labels = rng.integers(0, 10, (count, config.batch_size)).astype(np.int32)
  batch_of = jnp.arange(count)

  def start():
    return training.init_state(model, recipe, members, shape)

  def together(step):
    state = [start()]  # The step donates its input, so the newest state is kept here.

    def take():
      state[0] = step(state[0], members, images, labels, batch_of)
      return state[0]

    return take

  def one_by_one():
    step = training.make_train_step(model, recipe)
    pick = lambda tree, i: jax.tree.map(lambda x: x[i : i + 1], tree)
    states = [pick(start(), i) for i in range(count)]
    one = [(pick(members, i), images[i : i + 1], labels[i : i + 1]) for i in range(count)]

    def take():
      for i in range(count):
        states[i] = step(states[i], *one[i], batch_of[:1])
      return states

    return take

  def vmapped():
    one = functools.partial(training.train_step, model=model, recipe=recipe)
    step = lambda state, members, images, labels, _: jax.vmap(one)(state, members, images, labels)
    return (
      jax.jit(step, donate_argnums=0).lower(start(), members, images, labels, batch_of).compile()
    )

  with conv.batching_rule('lax'):
    plain = vmapped()
  seconds = measure.interleaved_seconds(
    {
      'sweep': together(training.make_train_step(model, recipe)),
      'loop': one_by_one(),
      'plain_vmap': together(plain),
      'conv_rule': together(vmapped()),
    },
    rounds=config.rounds,
  )
  median = {name: float(np.median(s)) for name, s in seconds.items()}
  setting = dict(members=count, batch_size=config.batch_size, device=jax.devices()[0].device_kind)
  rows = [
    dict(
      name=f'throughput_vs_{other}', value=median[other] / median['sweep'], unit='ratio', **setting
    )
    for other in ('loop', 'plain_vmap')
  ]
  rows.append(
    dict(
      name='conv_rule_vs_plain_vmap',
      unit='ratio',
      value=median['plain_vmap'] / median['conv_rule'],
      **setting,
    )
  )
  rows += [
    dict(
      name=f'{name}_step',
      value=1e3 * median[name],
      unit='ms',
      p25=round(1e3 * float(np.quantile(s, 0.25)), 2),
      p75=round(1e3 * float(np.quantile(s, 0.75)), 2),
      **setting,
    )
    for name, s in seconds.items()
  ]
  reports.write_bench(workdir, rows)
  return rows


if __name__ == '__main__':
  launch.main(run, SPEC, 'configs/sweep_bench.py', 'runs/sweep_bench')
