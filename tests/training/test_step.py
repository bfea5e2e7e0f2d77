"""The training step: what it computes, that members stay apart, that it compiles once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnopt_jax import data, models, quant, training
from cnnopt_jax.kernels import conv
from cnnopt_jax.quant import quantize_params
from cnnopt_jax.workload import trace_layers


def take_steps(setting, dataset, members, count, model=None):
  model = model or setting.model
  state = training.init_state(model, setting.recipe, members, dataset.image_shape)
  step = training.make_train_step(model, setting.recipe)
  rng = np.random.default_rng(1)
  for _ in range(count):
    images, labels = dataset.train.get(rng.integers(0, len(dataset.train), (1, 32)))
    state = step(state, members, images, labels, jnp.zeros(len(members.seed), jnp.int32))
  return state, step


def pick(tree, index):
  return jax.tree.map(lambda x: np.asarray(x[index]), tree)


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize('bits', [2, 32])
def test_equals_sgd_written_out(setting, dataset, bits):
  """Loss, gradient, Nesterov momentum, decay of kernels and cosine schedule, step by step."""
  members = setting.members([3], [bits], 0.05)
  recipe = setting.recipe
  state, _ = take_steps(setting, dataset, members, 5)
  start = pick(training.init_state(setting.model, recipe, members, dataset.image_shape), 0)
  params, stats, momentum = start.params, start.statistics, None
  rng = np.random.default_rng(1)
  plan = models.weight_plan(setting.model, dataset.image_shape, quant.GAUSSIAN)
  losses = []
  for t in range(5):
    images, labels = dataset.train.get(rng.integers(0, len(dataset.train), (1, 32)))
    key = data.augmentation_key(3, t // 8, t % 8)
    x = data.augment(key, jnp.asarray(images[0]), shift=1, flip=True)
    x = (x.astype(jnp.float32) - 60) / 70

    def loss_fn(params):
      quantized = quantize_params(params, bits, plan)
      logits, new = setting.model.apply(
        {'params': quantized, **stats},  # noqa: B023
        x,  # noqa: B023
        train=True,
        mutable=['batch_stats'],
      )
      log_p = jax.nn.log_softmax(logits)
      smooth = 0.9 * jnp.mean(log_p[jnp.arange(32), labels[0]]) + 0.1 * jnp.mean(log_p)  # noqa: B023
      return -smooth, new

    (loss, new), grads = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(params)
    losses.append(float(loss))
    stats = dict(new)
    grads = jax.tree.map(lambda g, p: g + 5e-4 * p * (p.ndim > 1), grads, params)
    momentum = (
      grads if momentum is None else jax.tree.map(lambda m, g: 0.9 * m + g, momentum, grads)
    )
    rate = 0.05 * 0.5 * (1 + np.cos(np.pi * t / 24))
    params = jax.tree.map(lambda p, m, g: p - rate * (0.9 * m + g), params, momentum, grads)  # noqa: B023
  # The same sums in another order, through five steps of a quantizer whose levels can flip.
  tolerance = 2e-5 if bits == 32 else 2e-3
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[0], b, atol=tolerance), state.params, params
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[0], b, atol=10 * tolerance), state.statistics, stats
  )
  np.testing.assert_allclose(state.loss_sum[0], sum(losses), rtol=1e-3)


def test_optimizer_is_optax_sgd(setting):
  params = {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}
  layers = trace_layers(lambda p, x: x @ p['kernel'] + p['bias'], params, jnp.ones((1, 2)))
  grads = jax.tree.map(lambda p: 0.3 * p, params)
  ours = training.make_optimizer(setting.recipe, quant.plan_weights(layers))
  theirs = optax.chain(
    optax.add_decayed_weights(5e-4, mask={'kernel': True, 'bias': False}),
    optax.sgd(optax.cosine_decay_schedule(0.2, 24), momentum=0.9, nesterov=True),
  )
  ours_state, theirs_state = ours.init(params), theirs.init(params)
  for _ in range(4):
    a, ours_state = ours.update(grads, ours_state, params)
    b, theirs_state = theirs.update(grads, theirs_state, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(0.2 * a, b, rtol=1e-6), a, b)


def test_one_compilation_whatever_the_bitwidth(setting, dataset):
  state, step = take_steps(setting, dataset, setting.members([0, 1], [1, 2]), 2)
  before = step._cache_size()
  images, labels = dataset.train.get(np.arange(32)[None])
  for bits in ([3, 4], [8, 32], [1, 1]):
    members = setting.members([0, 1], bits, 0.01)
    state = step(state, members, images, labels, jnp.zeros(2, jnp.int32))
  assert step._cache_size() == before
  assert training.make_train_step(setting.model, setting.recipe) is step


def test_the_old_state_is_donated(setting, dataset):
  members = setting.members([0], [4])
  state = training.init_state(setting.model, setting.recipe, members, dataset.image_shape)
  step = training.make_train_step(setting.model, setting.recipe)
  images, labels = dataset.train.get(np.arange(32)[None])
  new = step(state, members, images, labels, jnp.zeros(1, jnp.int32))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(new))


@pytest.mark.default_flags
def test_members_together_equal_single_runs(setting, dataset):
  """Bit for bit: on a CPU a program computes its members one by one."""
  seeds, bits, rates = [5, 6, 5, 7], [1, 4, 32, 3], [0.05, 0.1, 0.05, 0.02]
  together, _ = take_steps(setting, dataset, setting.members(seeds, bits, rates), 6)
  for i in range(4):
    alone, _ = take_steps(
      setting, dataset, setting.members(seeds[i : i + 1], bits[i : i + 1], rates[i : i + 1]), 6
    )
    assert_same(pick(together, i), pick(alone, 0))


def test_members_one_by_one_and_as_a_batch_learn_the_same(setting, dataset):
  """One program has a convolution of one member, the other of both; None means a CPU's."""
  members = setting.members([5, 6], [32, 32], 0.02)
  batch = dataset.train.get(np.arange(32)[None])
  found, programs = [], []
  for one_by_one in (True, False):
    state = training.init_state(setting.model, setting.recipe, members, dataset.image_shape)
    with conv.batching_rule('unroll' if one_by_one else 'group'):
      step = training.make_train_step(setting.model, setting.recipe, one_by_one=one_by_one)
      programs.append(step.lower(state, members, *batch, jnp.zeros(2, jnp.int32)).as_text())
      found.append(step(state, members, *batch, jnp.zeros(2, jnp.int32)))
  assert 'feature_group_count = 2' in programs[1] and 'feature_group_count = 2' not in programs[0]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *found)
  default = training.make_train_step(setting.model, setting.recipe)
  on_cpu = jax.default_backend() == 'cpu'
  assert default is training.make_train_step(setting.model, setting.recipe, one_by_one=on_cpu)


def test_seed_decides_the_initial_weights_alone(setting, dataset):
  state = training.init_state(
    setting.model, setting.recipe, setting.members([2, 2, 9], [1, 32, 1]), dataset.image_shape
  )
  assert_same(pick(state, 0), pick(state, 1))
  kernel = state.params['unit0']['conv']['kernel']
  assert np.abs(kernel[0] - kernel[2]).max() > 0.01


@pytest.mark.default_flags
def test_a_diverged_member_is_masked_and_the_others_go_on(setting, dataset):
  members = setting.members([0, 1, 2], [4, 4, 4], [0.05, 1e30, 0.05])
  state, _ = take_steps(setting, dataset, members, 8)
  assert state.diverged_step[0] == -1 and state.diverged_step[2] == -1
  first = int(state.diverged_step[1])
  assert 0 < first < 8
  assert list(state.step) == [8, 8, 8]
  for i in (0, 2):
    alone, _ = take_steps(setting, dataset, setting.members([i], [4], 0.05), 8)
    assert_same(pick(state, i), pick(alone, 0))
  before, _ = take_steps(setting, dataset, members, first)
  later, _ = take_steps(setting, dataset, members, first + 1)
  assert_same(pick(before, 1).params, pick(state, 1).params)
  assert_same(pick(later, 1).optimizer, pick(state, 1).optimizer)
