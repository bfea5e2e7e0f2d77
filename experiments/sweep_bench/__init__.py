"""How fast a vmapped sweep trains, against its members one by one and against plain `jax.vmap`.

    python -m experiments.sweep_bench --config configs/sweep_bench.py --workdir runs/sweep_bench

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
from flax import linen as nn
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


class _Sweep:
  """The members of the benchmark, and the ways to take one training step of all of them."""

  def __init__(self, config: config_dict.ConfigDict):
    self.count, shape = config.members, (config.image_size, config.image_size, 1)
    self._model: nn.Module = models.create(
      config.model, num_classes=10, width_multiplier=config.width_multiplier
    )
    self._recipe = training.Recipe(steps=10**6, steps_per_epoch=10**3, shift=2, flip=True)
    self._members = training.Members(
      jnp.arange(self.count, dtype=jnp.int32),
      jnp.asarray(np.resize([1, 2, 3, 4, 8, 32], self.count), jnp.int32),
      jnp.full(self.count, 0.01),
    )
    self._shape = shape
    rng = np.random.default_rng(0)
    self._images = rng.integers(0, 256, (self.count, config.batch_size, *shape), np.uint8)
    self._labels = rng.integers(0, 10, (self.count, config.batch_size)).astype(np.int32)
    self._batch_of = jnp.arange(self.count)

  def _start(self) -> training.TrainState:
    return training.init_state(self._model, self._recipe, self._members, self._shape)

  def together(self, step):
    """A step of all members as a function without arguments."""
    state = [self._start()]  # The step donates its input, so the newest state is kept here.

    def take():
      state[0] = step(state[0], self._members, self._images, self._labels, self._batch_of)
      return state[0]

    return take

  def sweep(self):
    """The sweep's own program."""
    return self.together(training.make_train_step(self._model, self._recipe))

  def one_by_one(self):
    """One compiled step of one member, called for each."""
    step = training.make_train_step(self._model, self._recipe)

    def pick(tree, i):
      return jax.tree.map(lambda x: x[i : i + 1], tree)

    states = [pick(self._start(), i) for i in range(self.count)]
    others = [
      (*pick((self._members, self._images, self._labels), i), self._batch_of[:1])
      for i in range(self.count)
    ]

    def take():
      for i in range(self.count):
        states[i] = step(states[i], *others[i])
      return states

    return take

  def vmapped(self, batching_rule: str | None):
    """`jax.vmap` of the step, its convolutions batched by a rule of `kernels.conv`."""
    one = functools.partial(training.train_step, model=self._model, recipe=self._recipe)

    def step(state, members, images, labels, _):
      return jax.vmap(one)(state, members, images, labels)

    arguments = self._start(), self._members, self._images, self._labels, self._batch_of
    with conv.batching_rule(batching_rule):  # Read while the step is traced.
      compiled = jax.jit(step, donate_argnums=0).lower(*arguments).compile()
    return self.together(compiled)


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Times the four ways and writes bench.json and report.md.

  Args:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the result.

  Returns:
    The rows of bench.json.
  """
  sweep = _Sweep(config)
  seconds = measure.interleaved_seconds(
    {
      'sweep': sweep.sweep(),
      'loop': sweep.one_by_one(),
      'plain_vmap': sweep.vmapped('lax'),
      'conv_rule': sweep.vmapped(None),
    },
    rounds=config.rounds,
  )
  rows = _rows(seconds, config)
  reports.write_bench(workdir, rows)
  reports.write(workdir, ['# Throughput of a vmapped sweep\n', reports.bench_table(rows)])
  return rows


def _rows(seconds: dict[str, np.ndarray], config) -> list[dict[str, Any]]:
  """Ratios of medians, then the medians."""
  timings = {name: measure.summarize(s) for name, s in seconds.items()}
  setting = dict(
    members=config.members, batch_size=config.batch_size, device=jax.devices()[0].device_kind
  )
  ratios = {
    'throughput_vs_loop': ('loop', 'sweep'),
    'throughput_vs_plain_vmap': ('plain_vmap', 'sweep'),
    'conv_rule_vs_plain_vmap': ('plain_vmap', 'conv_rule'),
  }
  rows = [
    dict(
      name=name,
      value=timings[slow].median_s / timings[fast].median_s,
      unit='ratio',
      **setting,
    )
    for name, (slow, fast) in ratios.items()
  ]
  return rows + [
    dict(
      name=f'{name}_step',
      value=1e3 * t.median_s,
      unit='ms',
      p25=round(1e3 * t.lower_quartile_s, 2),
      p75=round(1e3 * t.upper_quartile_s, 2),
      **setting,
    )
    for name, t in timings.items()
  ]


if __name__ == '__main__':
  launch.main(run, SPEC, 'configs/sweep_bench.py', 'runs/sweep_bench')
