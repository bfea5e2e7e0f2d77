"""Prepared parameters have one source, the trained ones; plans of constructors name units."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnopt_jax import models, quant, training, vip

SHAPE = (12, 12, 3)
STAGES = ((32, 32), (32,))


def network(plan=()):
  return models.VGG(5, stages=STAGES, plan=plan)


@functools.cache
def trained():
  """Variables and images, float32."""
  images = jax.random.normal(jax.random.key(1), (4, *SHAPE))
  return jax.jit(network().init)(jax.random.key(0), images), images


def prepared(plan=()):
  variables, _ = trained()
  params = models.inference_params(network(plan), variables['params'], SHAPE, platform='cpu')
  return {**variables, 'params': params}


class Foreign(nn.Module):
  """A network that knows nothing of this package."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(5)(nn.relu(nn.Conv(32, (3, 3))(x)).mean((1, 2)))


@pytest.mark.parametrize(
  'make',
  [
    network,
    lambda plan: models.create('resnet8', num_classes=5).clone(plan=plan),
    lambda plan: models.create('mobilenet_v2', num_classes=5).clone(plan=plan),
    lambda plan: models.SqueezeNet(5, plan=plan),
    lambda plan: models.EfficientNetLite0(num_classes=5, plan=plan),
  ],
)
def test_a_constructor_takes_the_plans_that_create_takes_and_no_other(make):
  dense = make(())
  units = models.unit_names(dense)
  assert make('all').plan == units and make('all') == models.with_plan(dense, 'all')
  assert make('none').plan == make(None).plan == make([]).plan == ()
  assert make([units[2], units[0]]).plan == (units[0], units[2])
  for typo in (('conv1_9',), (*units[:2], units[2] + 'x'), {units[0]: 1, '': 2}):
    with pytest.raises(ValueError, match=f"plan: no unit '.*'; allowed: {units[0]}, {units[1]}"):
      make(typo)
  for word in ('al', units[0], 'vgg'):
    with pytest.raises(ValueError, match=f"plan='{word}'; allowed: all, none, vgg16_round1"):
      make(word)


def test_an_authors_plan_is_for_its_network():
  plan = models.VGG(5, stages=models.VGG16_STAGES, plan='vgg16_round2').plan
  assert set(plan) == set(vip.PLANS['vgg16_round2'])
  with pytest.raises(ValueError, match="plan: no unit 'conv2_2'; allowed: conv1_1, conv1_2"):
    network('vgg16_round2')


def test_a_plan_given_to_a_constructor_is_computed():
  variables, images = trained()
  dense, virtual, named = (
    network(plan).apply(variables, images) for plan in ((), 'all', ['conv1_2'])
  )
  assert len({float(jnp.abs(y).sum()) for y in (dense, virtual, named)}) == 3


def test_a_network_inside_another_is_checked_too():
  class Outer(nn.Module):
    plan: str

    @nn.compact
    def __call__(self, x):
      return models.PlainNet(3, width_multiplier=0.1, plan=self.plan, name='inner')(x)

  x = jnp.zeros((1, 8, 8, 3))
  variables = jax.eval_shape(Outer('all').init, jax.random.key(0), x)
  assert set(variables['params']) == {'inner'}
  with pytest.raises(ValueError, match="plan='unit1'; allowed: all, none"):
    jax.eval_shape(Outer('unit1').init, jax.random.key(0), x)


def test_masks_of_units_that_are_none_are_refused():
  variables, images = trained()
  masks = vip.mask_variables(('conv1_1', 'conv1_3'), jnp.ones(2))
  with pytest.raises(ValueError, match="no unit 'conv1_3'; allowed: conv1_1, conv1_2, conv2_1"):
    network().apply({**variables, **masks}, images)
  with pytest.raises(ValueError, match="no unit 'conv1_3'; allowed: conv1_1"):
    vip.plan_masks(('conv1_1',), [('conv1_3',)])


def test_a_network_without_conv_units_is_refused():
  params = Foreign().init(jax.random.key(0), jnp.zeros((1, *SHAPE)))['params']
  for ask in (
    lambda: models.inference_params(Foreign(), params, SHAPE),
    lambda: models.virtual_inputs(Foreign(), SHAPE),
    lambda: models.unit_names(Foreign()),
    lambda: models.with_plan(Foreign(), 'all'),
  ):
    with pytest.raises(ValueError, match='model=Foreign has no models.ConvUnit; allowed: networks'):
      ask()


def test_what_is_prepared_for_one_plan_is_refused_under_another():
  _, images = trained()
  dense, virtual = prepared(), prepared('all')
  for variables, plan in ((dense, ()), (virtual, 'all'), (dense, ('conv1_1',)[:0])):
    network(plan).apply(variables, images)
  with pytest.raises(
    ValueError, match="'conv1_2' is prepared for an array and reads a virtual map"
  ):
    network('all').apply(dense, images)
  with pytest.raises(
    ValueError, match="'conv1_2' is prepared for a virtual map and reads an array"
  ):
    network().apply(virtual, images)
  for plan in ((), 'all'):
    with pytest.raises(ValueError, match="'conv1_2/conv/kernel' is prepared for inference, a Wino"):
      models.inference_params(network(plan), dense['params'], SHAPE)


@pytest.mark.parametrize('plan', [(), 'all'])
def test_prepared_parameters_are_not_trained(plan):
  """Steps along the gradients of taps and transform would leave them of two kernels."""
  _, images = trained()
  variables, model = prepared(plan), network(plan)

  def loss(params, images):
    return jnp.square(model.apply({**variables, 'params': params}, images)).mean()

  for wrapped in (loss, jax.jit(loss), jax.checkpoint(loss)):
    with pytest.raises(
      ValueError, match='derivative by a prepared kernel.*train the trained param'
    ):
      jax.grad(wrapped)(variables['params'], images)
  # Those by anything else are as they were.
  raw, _ = trained()
  want = jax.grad(lambda x: jnp.square(model.apply(raw, x)).mean())(images)
  np.testing.assert_allclose(
    jax.jit(jax.grad(loss, 1))(variables['params'], images), want, rtol=1e-3, atol=1e-6
  )
  recipe = training.Recipe(steps=2, steps_per_epoch=1)
  members = training.Members(jnp.zeros(1, jnp.int32), jnp.full(1, 4, jnp.int32), jnp.ones(1))
  stacked = jax.tree.map(lambda x: x[None], variables)
  with pytest.raises(ValueError, match='is prepared for inference.*train these, then prepare'):
    training.init_state(model, recipe, members, SHAPE, variables=stacked)


def test_prepared_parameters_are_not_quantized():
  variables, images = trained()
  for step, asks in (
    ('absmax', (quant.quantize_params, quant.pack)),
    ('learned', (quant.initial_steps,)),
  ):
    plan = models.weight_plan(network(), SHAPE, quant.Quantizer(step=step))
    for ask in asks:
      with pytest.raises(
        ValueError, match='is prepared for inference, a .*quantize these, then pre'
      ):
        ask(prepared()['params'], 4, plan)
  plan = models.weight_plan(network(), SHAPE)
  # The order that is allowed.
  few = quant.quantize_params(variables['params'], 4, plan)
  params = models.inference_params(network('all'), few, SHAPE)
  apply = network('all').apply
  np.testing.assert_allclose(
    apply({**variables, 'params': params}, images),
    apply({**variables, 'params': few}, images),
    rtol=1e-4,
    atol=1e-5,
  )


def test_prepared_parameters_in_a_narrower_type_keep_their_transform():
  variables, images = trained()
  narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables['params'])
  params = models.inference_params(network(), narrow, SHAPE, platform='cpu')
  kernel = params['conv1_2']['conv']['kernel']
  assert kernel.dtype == jnp.bfloat16 and kernel.transformed.dtype == jnp.float32
  assert kernel.astype(jnp.bfloat16).transformed.dtype == jnp.float32
  logits = network().apply({**variables, 'params': params}, images.astype(jnp.bfloat16))
  want = network().apply({**variables, 'params': narrow}, images.astype(jnp.bfloat16))
  np.testing.assert_allclose(logits, want, rtol=0.05, atol=0.05)
