"""Quantization steps that are trained along with the weights (LSQ)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnopt_jax import data, models, quant, training

LEARNED = quant.Quantizer(step='learned')
BITS = [1, 2, 32]
KERNELS = ('head/dense/kernel', 'unit0/conv/kernel', 'unit1/conv/kernel')


def recipe_of(setting):
  return setting.recipe._replace(quantizer=LEARNED, label_smoothing=0.0)


def run(setting, dataset, folder, rates=0.05, **kwargs):
  checkpoints = training.Checkpoints(folder)
  try:
    return training.train(
      setting.model,
      recipe_of(setting),
      setting.members([0, 1, 0], BITS, rates),
      dataset,
      batch_size=setting.batch_size,
      checkpoints=checkpoints,
      **kwargs,
    ).state
  finally:
    checkpoints.close()


@pytest.fixture(scope='module')
def start(setting, dataset):
  members = setting.members([0, 1, 0], BITS)
  state = training.init_state(setting.model, recipe_of(setting), members, dataset.image_shape)
  return jax.tree.map(np.asarray, state)


@pytest.fixture(scope='module')
def epochs(setting, dataset, tmp_path_factory):
  """The state after each epoch."""
  found = []
  keep = lambda epoch, state: found.append(state)
  run(setting, dataset, tmp_path_factory.mktemp('whole'), on_epoch=keep)
  return found


@pytest.fixture(scope='module')
def whole(epochs):
  return epochs[-1]


def pick(tree, index):
  return jax.tree.map(lambda x: np.asarray(x[index]), tree)


def kernel_of(params, path):
  for part in path.split('/'):
    params = params[part]
  return np.asarray(params, np.float64)


def channels(x):
  """The sum, or mean, over all but the last axis is by channel."""
  return tuple(range(x.ndim - 1))


def test_they_start_from_the_weights_and_the_bits(start):
  assert set(start.quantizer_steps) == set(KERNELS)
  for i, bits in enumerate(BITS):
    for path, steps in pick(start.quantizer_steps, i).items():
      w = kernel_of(pick(start.params, i), path)
      top = {1: 0.5, 2: 1.5, 32: 2.0**31 - 1}[bits]
      expected = 2 * np.abs(w).mean(channels(w), keepdims=True) / np.sqrt(top)
      np.testing.assert_allclose(steps, expected, rtol=1e-5)


@pytest.mark.parametrize('rate', [0.05, 1e4])
def test_one_step_is_that_of_the_paper(setting, dataset, start, rate):
  """Nesterov's first update, 1 + momentum times the gradient, no decay; and never below a half."""
  recipe, members = recipe_of(setting), setting.members([0, 1, 0], BITS, rate)
  images, labels = dataset.train.get(np.arange(32)[None])
  step = training.make_train_step(setting.model, recipe)
  after = step(jax.tree.map(jnp.asarray, start), members, images, labels, jnp.zeros(3, jnp.int32))
  own, member = pick(start, 1), 1  # Of two bits.
  x = data.augment(data.augmentation_key(1, 0, 0), jnp.asarray(images[0]), shift=1, flip=True)
  x = (x.astype(jnp.float32) - 60) / 70
  codes, slopes, quantized = {}, {}, own.params
  for path in KERNELS:
    w, s = kernel_of(own.params, path), np.float64(own.quantizer_steps[path])
    ratio = w / s
    codes[path] = np.clip(np.floor(ratio) + 0.5, -1.5, 1.5)
    inside = np.abs(ratio) < 1.5
    slopes[path] = np.where(inside, codes[path] - ratio, codes[path])
    quantized = replaced(quantized, path, np.float32(codes[path] * s))

  def loss(params):
    logits, _ = setting.model.apply(
      {'params': params, **own.statistics}, x, train=True, mutable=['batch_stats']
    )
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels[0]).mean()

  gradient = jax.jit(jax.grad(loss))(quantized)
  for path in KERNELS:
    g, old = kernel_of(gradient, path), own.quantizer_steps[path]
    count = g[..., 0].size
    scaled = (g * slopes[path]).sum(channels(g), keepdims=True) / np.sqrt(count * 1.5)
    expected = np.maximum(old - rate * 1.9 * scaled, old / 2)
    found = after.quantizer_steps[path][member]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6 + 1e-6 * rate)
    assert np.all(found > 0) and np.any(found == old / 2) == (rate > 1)
  # In float there is nothing to learn.
  assert_same(pick(after.quantizer_steps, 2), pick(start.quantizer_steps, 2))


def replaced(params, path, value):
  first, _, rest = path.partition('/')
  return {**params, first: replaced(params[first], rest, value) if rest else value}


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_training_lowers_the_loss_and_moves_the_steps(start, epochs, whole):
  losses = np.stack([state.loss_sum for state in epochs])
  assert np.all(losses[-1] < losses[0]) and np.all(whole.diverged_step == -1)
  for path in KERNELS:
    before, after = start.quantizer_steps[path], whole.quantizer_steps[path]
    assert np.all(after > 0)
    moved = np.abs(after / before - 1).max((1, 2) if before.ndim == 3 else (1, 2, 3, 4))
    assert np.all(moved[:2] > 1e-3) and moved[2] == 0


def test_the_one_in_float_learns_as_without_steps(setting, dataset, whole, tmp_path):
  checkpoints = training.Checkpoints(tmp_path)
  plain = training.train(
    setting.model,
    setting.recipe._replace(label_smoothing=0.0),
    setting.members([0], [32]),
    dataset,
    batch_size=setting.batch_size,
    checkpoints=checkpoints,
  ).state
  checkpoints.close()
  assert plain.quantizer_steps == {}
  for a, b in zip(jax.tree.leaves(plain.params), jax.tree.leaves(whole.params), strict=True):
    np.testing.assert_allclose(a[0], b[2], rtol=1e-3, atol=1e-4)
  # A checkpoint without learned steps is that of earlier versions, which knew of none.
  assert 'quantizer_steps' not in (next(tmp_path.glob('*/default/_METADATA'))).read_text()
  checkpoints = training.Checkpoints(tmp_path)
  assert_same(checkpoints.restore(plain)[0], plain)
  with pytest.raises(training.CheckpointError, match='quantizer_steps/.* was saved as nothing'):
    checkpoints.restore(plain._replace(quantizer_steps=pick(whole.quantizer_steps, slice(1))))
  checkpoints.close()


def test_stopped_and_resumed_equals_uninterrupted(setting, dataset, whole, tmp_path):
  steps = []
  with pytest.raises(training.Stopped):
    run(setting, dataset, tmp_path, on_step=steps.append, stop=lambda: steps[-1] >= 11)
  assert steps[-1] == 11
  assert_same(run(setting, dataset, tmp_path), whole)


def test_a_diverged_member_stands_still(setting, dataset, start, whole, tmp_path):
  found = run(setting, dataset, tmp_path, [0.05, 1e30, 0.05])
  assert found.diverged_step[0] == found.diverged_step[2] == -1 < found.diverged_step[1] < 8
  for i in (0, 2):  # To the last bit, whoever trains beside them.
    assert_same(pick(found, i), pick(whole, i))


def test_saved_members_predict_bit_for_bit_the_same(setting, dataset, whole, tmp_path):
  plan = models.weight_plan(setting.model, dataset.image_shape, LEARNED)
  variables = {'params': whole.params, **whole.statistics}
  bits = {path: np.asarray(BITS, np.int32) for path in KERNELS}
  images = (dataset.test.images.astype(np.float32) - 60) / 70
  predict = jax.jit(setting.model.apply)
  saved = []
  for i in range(3):
    own, steps = pick(variables, i), pick(whole.quantizer_steps, i)
    by_path = {path: int(b[i]) for path, b in bits.items()}
    saved.append(training.save_member(tmp_path / str(i), own, by_path, plan, steps))
    read = training.load_saved(tmp_path / str(i), own)
    assert_same(read, saved[-1])
    quantized = quant.quantize_params(own['params'], by_path, plan, steps=steps)
    expected = predict({**own, 'params': quantized}, images)
    np.testing.assert_array_equal(predict(read, images), expected)
  options = dict(dataset=dataset, quantizer=LEARNED, steps=whole.quantizer_steps)
  found = training.accuracies(setting.model, variables, bits, **options)
  correct = training.correctness(setting.model, variables, bits, **options)
  assert correct.shape == (3, len(dataset.test)) and correct.dtype == bool
  np.testing.assert_array_equal(correct.mean(1), found)
  stacked = jax.tree.map(lambda *x: np.stack(x), *saved)
  as_they_are = dict.fromkeys(bits, np.full(3, 32, np.int32))
  np.testing.assert_array_equal(
    found, training.accuracies(setting.model, stacked, as_they_are, **options)
  )
  alone = training.accuracy(
    setting.model, pick(variables, 1), 2, dataset, LEARNED, steps=pick(whole.quantizer_steps, 1)
  )
  assert alone == found[1]
