"""Four ways to take one training step of all members of one shape, and their memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import config_dict

from cnnopt_jax import models, training
from cnnopt_jax.kernels import conv


class Sweep:
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

  def mib(self, count: int) -> float:
    """Memory of the sweep's program of the first members: arguments, results and all between."""
    step = training.make_train_step(self._model, self._recipe)
    arguments = (
      self._start(),
      self._members,
      self._images,
      self._labels,
      self._batch_of,
    )
    few = jax.tree.map(lambda x: x[:count], arguments)
    sizes = step.lower(*few).compile().memory_analysis()
    held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return (held + sizes.temp_size_in_bytes) / 2**20
