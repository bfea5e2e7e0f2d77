"""A job: one training step of several networks, as a sweep takes it on its devices."""

import functools
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax import models, training

CLASSES = 10
MEAN, STD = 70.0, 90.0
# So many steps that the learning rate stays where it is.
STEPS, RATE = 10**6, 0.05


class Job(NamedTuple):
  """Networks that train at once.

  Attributes:
    model: name in `models.MODELS`.
    image_shape: (H, W, C).
    batch_size: images a step and network.
    settings: bitwidth and width multiplier of each network.
    steps: that are timed at once.
  """

  model: str
  image_shape: tuple[int, int, int]
  batch_size: int
  settings: tuple[tuple[int, float], ...]
  steps: int


class Network(NamedTuple):
  """One network of a job, with all that its training step reads.

  Attributes:
    bits: weight bitwidth.
    width: width multiplier.
    macs: multiply-accumulates of one image.
    variables: initial ones, NumPy arrays by path without the collection.
    images: uint8 [B, H, W, C].
    labels: int32 [B].
  """

  bits: int
  width: float
  macs: int
  variables: dict[str, np.ndarray]
  images: np.ndarray
  labels: np.ndarray


RECIPE = training.Recipe(STEPS, STEPS, mean=(MEAN,), std=(STD,))


def networks(job: Job) -> list[Network]:
  """The networks of a job with initial weights and a batch each."""
  rng = np.random.default_rng(0)
  found = []
  for seed, (bits, width) in enumerate(job.settings):
    model = _model(job, width)
    state = training.init_state(model, _recipe(job), _members([seed], [bits]), job.image_shape)
    variables = {}
    for tree in (state.params, *state.statistics.values()):
      for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        variables['/'.join(key.key for key in path)] = np.asarray(leaf[0])
    images = rng.integers(0, 256, (job.batch_size, *job.image_shape), np.uint8)
    labels = rng.integers(0, CLASSES, job.batch_size).astype(np.int32)
    macs = models.layer_table(model, job.image_shape).macs
    found.append(Network(bits, width, macs, variables, images, labels))
  return found


def shares(costs: Sequence[float], count: int) -> list[list[int]]:
  """Splits work among `count` workers: the most costly first, each to whoever has least."""
  found: list[list[int]] = [[] for _ in range(count)]
  loads = [0.0] * count
  for index in sorted(range(len(costs)), key=lambda i: -costs[i]):
    least = loads.index(min(loads))
    found[least].append(index)
    loads[least] += costs[index]
  return [share for share in found if share]


class Ours:
  """The job on JAX devices, each with its share of the networks on a thread of its own."""

  def __init__(self, job: Job, devices: Sequence[jax.Device], *, quantized: bool = True):
    """Compiles nothing yet.

    Args:
      job: what trains.
      devices: that share the networks.
      quantized: False to train the same networks in float.
    """
    everyone = networks(job)
    costs = [network.macs for network in everyone]
    self._pool = futures.ThreadPoolExecutor(len(devices))
    self._programs = [
      [_Program(job, everyone, group, device, quantized) for group in _of_one_width(job, share)]
      for share, device in zip(shares(costs, len(devices)), devices)
    ]

  def take(self, steps: int) -> list[Any]:
    """Takes steps of every network and waits for them."""

    def work(programs):
      for program in programs:
        program.take(steps)
      return jax.block_until_ready([program.state.loss_sum for program in programs])

    return list(self._pool.map(work, self._programs))

  def losses(self) -> dict[int, float]:
    """Sum of the losses of all steps so far, by number of the network."""
    return {
      index: float(loss)
      for programs in self._programs
      for program in programs
      for index, loss in zip(program.group, program.state.loss_sum)
    }


class _Program:
  """Networks of one width on one device."""

  def __init__(self, job, everyone, group, device, quantized):
    self.group = group
    model, recipe = _model(job, job.settings[group[0]][1]), _recipe(job)
    members = _members(group, [job.settings[i][0] for i in group])
    if not quantized:
      members = members._replace(bits=None)
    placement = training.Placement(len(group), [device])
    state = training.init_state(model, recipe, members, job.image_shape)
    self.state, self._members = placement.place((state, members))
    self._batch_of = placement.batch_of(np.arange(len(group)))
    self._images = np.stack([everyone[i].images for i in group])
    self._labels = np.stack([everyone[i].labels for i in group])
    self._step: Callable[..., training.TrainState] = training.make_train_step(
      model, recipe, devices=[device]
    )

  def take(self, steps: int) -> None:
    for _ in range(steps):
      self.state = self._step(self.state, self._members, self._images, self._labels, self._batch_of)


def _of_one_width(job: Job, share: Sequence[int]) -> list[list[int]]:
  groups: dict[float, list[int]] = {}
  for index in share:
    groups.setdefault(job.settings[index][1], []).append(index)
  return list(groups.values())


@functools.cache
def _model(job: Job, width: float):
  return models.create(job.model, num_classes=CLASSES, width_multiplier=width)


def _recipe(job: Job) -> training.Recipe:
  channels = job.image_shape[-1]
  return RECIPE._replace(mean=(MEAN,) * channels, std=(STD,) * channels)


def _members(seeds: Sequence[int], bits: Sequence[int]) -> training.Members:
  return training.Members(
    jnp.asarray(seeds, jnp.int32), jnp.asarray(bits, jnp.int32), jnp.full(len(seeds), RATE)
  )
