"""Training from checkpoints, and evaluation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import models, quant, training
from cnnopt_jax.quant import quantize_params
from cnnopt_jax.training import loop, testing


def run(setting, dataset, folder, **kwargs):
  checkpoints = training.Checkpoints(folder)
  try:
    return training.train(
      setting.model,
      setting.recipe,
      setting.members([0, 1, 0], [1, 4, 32]),
      dataset,
      batch_size=setting.batch_size,
      checkpoints=checkpoints,
      **kwargs,
    )
  finally:
    checkpoints.close()


@pytest.fixture(scope='module')
def whole(setting, dataset, tmp_path_factory):
  return run(setting, dataset, tmp_path_factory.mktemp('whole'))


@pytest.mark.default_flags
@pytest.mark.parametrize('stops', [(3, 11), (8, 24)])
def test_stopped_and_resumed_equals_uninterrupted(setting, dataset, whole, tmp_path, stops):
  for stop in stops:
    steps = []

    def stopping(stop=stop, steps=steps):
      return steps[-1] >= stop

    with pytest.raises(training.Stopped):
      run(setting, dataset, tmp_path, on_step=steps.append, stop=stopping)
    assert steps[-1] == stop
  resumed = run(setting, dataset, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, resumed.state, whole.state)
  assert resumed.seconds > 0


def test_a_finished_program_takes_no_more_steps(setting, dataset, whole, tmp_path):
  run(setting, dataset, tmp_path)
  steps = []
  again = run(setting, dataset, tmp_path, on_step=steps.append)
  assert steps == [setting.recipe.steps]
  jax.tree.map(np.testing.assert_array_equal, again.state, whole.state)


def test_each_step_sees_the_batch_of_its_seed_and_step(setting):
  from cnnopt_jax import data

  seeds = np.array([3, 8])
  indices = list(loop.batch_indices_from(0, setting.recipe, seeds, 256, 32))
  assert len(indices) == 24
  for step, batch in enumerate(indices):
    for seed, row in zip(seeds, batch):
      expected = data.batch_indices(int(seed), step // 8, step % 8, 256, 32)
      np.testing.assert_array_equal(row, expected)
  for start in (1, 8, 11):
    rest = loop.batch_indices_from(start, setting.recipe, seeds, 256, 32)
    for a, b in itertools.zip_longest(rest, indices[start:]):
      np.testing.assert_array_equal(a, b)


def test_it_learns(setting, dataset, whole):
  mean_loss = np.asarray(whole.state.loss_sum) / setting.recipe.steps_per_epoch
  first_loss = np.log(3)
  assert np.all(mean_loss < 0.9 * first_loss)


def test_accuracy_is_the_share_of_right_answers(setting, dataset, whole):
  state = jax.tree.map(lambda x: x[0], whole.state)
  variables = {'params': state.params, **state.statistics}
  images = (dataset.test.images.astype(np.float32) - 60) / 70
  plan = models.weight_plan(setting.model, dataset.image_shape, quant.GAUSSIAN)
  for bits in (1, 8):
    params = quantize_params(state.params, bits, plan)
    logits = setting.model.apply({**variables, 'params': params}, images)
    expected = np.mean(np.argmax(logits, -1) == dataset.test.labels)
    for batch_size in (70, 32, 500):  # Whole, padded last batch, one padded batch.
      assert (
        training.accuracy(setting.model, variables, bits, dataset, batch_size=batch_size)
        == expected
      )


def test_correct_predictions_are_those_of_the_first_images(dataset):
  labels = dataset.test.labels
  seen = []

  def predict(images):
    """Right for the classes 0 and 1: tells a thin stripe from a broader one."""
    assert images.shape == (32, 8, 8, 1)
    seen.append(images)
    return np.where((images[:, 2:4] > 120).all((1, 2, 3)), 1, 0)

  for count in (None, 70, 33, 5):
    correct = training.correct_predictions(predict, dataset.test, count=count, batch_size=32)
    np.testing.assert_array_equal(correct, labels[:count] != 2)
  assert [images.any() for images in seen] == [True] * len(seen)
  assert len(seen) == 3 + 3 + 2 + 1


def test_members_without_bits_train_like_those_of_32(setting, dataset):
  images, labels = dataset.train.get(np.arange(32)[None])
  step = training.make_train_step(setting.model, setting.recipe)
  found = []
  for members in (setting.members([0, 1], [32, 32]), setting.members([0, 1], [0, 0])):
    if not members.bits.any():
      members = members._replace(bits=None)
    state = training.init_state(setting.model, setting.recipe, members, dataset.image_shape)
    found.append(step(state, members, images, labels, jnp.zeros(2, jnp.int32)).params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), *found)


def test_accuracy_compiles_once_for_all_bitwidths(setting, dataset, whole):
  state = jax.tree.map(lambda x: x[0], whole.state)
  quantizer = quant.Quantizer(step='absmax')
  for bits in (1, 2, 8, 32):
    training.accuracy(
      setting.model, {'params': state.params, **state.statistics}, bits, dataset, quantizer
    )
  first_device = tuple(jax.devices()[:1])
  predictor = testing._predictor(setting.model, quantizer, dataset.mean, dataset.std, first_device)
  assert predictor._cache_size() == 1


def test_variables_round_trip(setting, dataset, tmp_path):
  variables = setting.model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
  training.save_variables(tmp_path / 'm', variables)
  training.save_variables(tmp_path / 'm', variables)
  like = jax.eval_shape(setting.model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
  loaded = training.load_variables(tmp_path / 'm', like)
  jax.tree.map(np.testing.assert_array_equal, loaded, variables)
  with pytest.raises(FileNotFoundError):
    training.load_variables(tmp_path / 'none', like)
