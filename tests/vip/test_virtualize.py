"""`virtualize`: equal to the shipped networks and to references, and what it writes and refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from cnnopt_jax import models, vip
from cnnopt_jax.models import layers
from tests.vip import plain_networks, public_networks
from tests.vip.public_networks import noise


@pytest.fixture(autouse=True)
def float32():
  """As users run; the folder's own fixture is for the oracle's float64."""
  with jax.enable_x64(False):
    yield


def images(*shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape, jnp.float32)


def assert_close(a, b, scale=1.0):
  """Equal but for the order of sums, some hundreds of roundings deep."""

  def check(x, y):
    x, y = np.asarray(x), np.asarray(y)
    tolerance = 512 * np.finfo(y.dtype).eps * scale
    np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * max(1e-3, np.abs(y).max(initial=0)))

  jax.tree.map(check, a, b)


def assert_trained_alike(ours, theirs):
  """Of `trained`. A norm over few pixels divides by as little as sqrt(1e-5), and many follow."""

  def check(x, y):
    bound = 1e-8 * max(1e-3, np.abs(y).max(initial=0))
    np.testing.assert_allclose(x, y, rtol=0, atol=bound)

  jax.tree.map(check, ours, theirs)


def trained(model, variables, x):
  """Gradients of a loss in training, the result, and the new statistics; in float64.

  In float32 two pixels of a max-pool's window that differ by a rounding change places, and with
  them goes a whole gradient.
  """
  variables, x = jax.tree.map(lambda a: a.astype(jnp.float64), (variables, x))

  def loss(params):
    y, new = model.apply({**variables, 'params': params}, x, train=True, mutable=['batch_stats'])
    return jnp.sin(y).sum(), (y, new)

  return jax.jit(jax.grad(loss, has_aux=True))(variables['params'])


REWRITTEN = {
  'resnet8': (
    models.SmallResNet(5, 1, 0.25),
    plain_networks.SmallResNet(5, (4, 8, 16)),
    (2, 16, 12, 3),
  ),
  'vgg': (models.VGG(5, ((4,), (6, 8))), plain_networks.VGG(5, ((4,), (6, 8))), (2, 13, 16, 3)),
  'vgg_biases': (
    models.VGG(5, ((4,), (6, 8)), norm=False, hidden=(7,)),
    plain_networks.VGG(5, ((4,), (6, 8)), norm=False, hidden=(7,)),
    (2, 13, 16, 3),
  ),
  'bottleneck': (
    models.ResNet(5, (1, 1, 1, 1), width_multiplier=1 / 16),
    plain_networks.ResNet(5, 4, (1, 1, 1, 1), True),
    (2, 49, 40, 3),
  ),
}


@pytest.mark.parametrize('every', [1, 2])
@pytest.mark.parametrize('name', REWRITTEN)
def test_equals_the_hand_written_network(name, every):
  hand, plain, shape = REWRITTEN[name]
  x = images(*shape)
  variables = noise(hand.init(jax.random.key(1), x))
  units = models.unit_names(hand)
  names = tuple(f'{unit}/conv' for unit in units)
  assert vip.layer_names(plain, x) == names
  hand = models.with_plan(hand, units[::every])
  virtual = vip.virtualize(plain, names[::every], x)
  y = jax.jit(virtual.apply)(variables, x)
  assert_close(y, jax.jit(hand.apply)(variables, x))
  dense = jax.jit(plain.apply)(variables, x)
  assert np.abs(y - dense).max() > 1e-3 * np.abs(dense).max()
  if name != 'vgg_biases':  # Its hidden layers train nothing that the others do not.
    with jax.enable_x64(True):
      assert_trained_alike(trained(virtual, variables, x), trained(hand, variables, x))


SHIPPED = {'alexnet': (67, 67, 3), 'squeezenet1_1': (33, 35, 3), 'all_cnn': (16, 14, 3)}


def _plain_conv(x, kernel, *, stride, padding, groups, virtual):
  assert not virtual
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def _plain_norm(use_running_average, *, epsilon, name):
  return nn.BatchNorm(use_running_average, momentum=0.9, epsilon=epsilon, name=name)


@pytest.mark.parametrize('name', SHIPPED)
def test_equals_shipped_networks_whose_ops_are_replaced_by_plain_ones(name, monkeypatch):
  model = models.create(name, num_classes=5, width_multiplier=0.125)
  x = images(1, *SHIPPED[name])
  variables = model.init(jax.random.key(1), x)
  plan = models.unit_names(model)
  expected = jax.jit(models.with_plan(model, plan).apply)(variables, x)
  monkeypatch.setattr(vip, 'conv', _plain_conv)
  monkeypatch.setattr(layers, 'BatchNorm', _plain_norm)
  virtual = vip.virtualize(model, [f'{unit}/conv' for unit in plan], x)
  assert_close(jax.jit(virtual.apply)(variables, x), expected)


@pytest.mark.parametrize(
  'model, reference, every',
  [
    (public_networks.ResNet18(), public_networks.reference_resnet, 1),
    (public_networks.DenseNet(), public_networks.reference_densenet, 2),
  ],
)
def test_public_linen_networks(model, reference, every):
  x = images(2, 15, 12, 3)
  variables = noise(model.init(jax.random.key(1), x))
  plan = vip.layer_names(model, x)[::every]
  virtual = vip.virtualize(model, plan, x)
  y = jax.jit(virtual.apply)(variables, x)
  with jax.enable_x64(True):
    ours = trained(virtual, variables, x)
  with reference(plan):
    assert_close(y, jax.jit(lambda v: model.apply(v, x))(variables))
    with jax.enable_x64(True):
      assert_trained_alike(ours, trained(model, variables, x))


@pytest.mark.parametrize('every', [2])
def test_a_public_nnx_network(every):
  model = noise(public_networks.MobileNet(rngs=nnx.Rngs(0)))
  x = images(2, 21, 18, 3)
  names = vip.layer_names(model, x)
  assert names[:2] == ('stem/conv', 'block0/expand/conv') and len(names) == 10
  plan = names[::every]
  reference = public_networks.reference_mobilenet(model, plan)

  @nnx.jit
  def gradient(model, x):
    return nnx.value_and_grad(lambda m: jnp.sin(vip.virtualize(m, plan)(x)).sum())(model)

  @nnx.jit
  def expected(model, x):
    return nnx.value_and_grad(lambda m: jnp.sin(m(x)).sum())(model)

  loss, grads = gradient(model, x)
  reference_loss, reference_grads = expected(reference, x)
  assert_close(loss, reference_loss)
  # The reference's units have one module more around them.
  ours, theirs = (
    {tuple(k for k in path if k != 'unit'): v[...] for path, v in nnx.to_flat_state(tree)}
    for tree in (nnx.state(grads), nnx.state(reference_grads))
  )
  assert_close(ours, theirs, scale=8)
  # The statistics that training left in both, and inference with them.
  ours, theirs = (
    {tuple(k for k in path if k != 'unit'): v[...] for path, v in nnx.to_flat_state(tree)}
    for tree in (nnx.state(model, nnx.BatchStat), nnx.state(reference, nnx.BatchStat))
  )
  assert_close(ours, theirs)
  model.eval()
  reference.eval()
  virtual = vip.virtualize(model, plan, x)
  assert_close(jax.jit(lambda x: virtual(x))(x), jax.jit(lambda x: reference(x))(x))


def test_an_empty_plan_changes_nothing():
  model, x = public_networks.ResNet18(), images(1, 16, 16, 3)
  variables = model.init(jax.random.key(1), x)
  virtual = vip.virtualize(model, 'none', x)
  np.testing.assert_array_equal(virtual.apply(variables, x), model.apply(variables, x))
  assert virtual.report(variables, x) == ()


def _function(params, x):
  """A network of no library."""

  def conv(name, x):
    numbers = ('NHWC', 'HWIO', 'NHWC')
    return jax.lax.conv_general_dilated(
      x, params[name]['kernel'], (1, 1), 'SAME', dimension_numbers=numbers
    )

  y = conv('first', x)
  y = jnp.where(y > 0, y, 0.1 * y)
  y = y * jax.nn.sigmoid(y)
  return conv('second', y)


_PARAMS = {
  'first': {'kernel': images(3, 3, 2, 4, seed=1)},
  'second': {'kernel': images(3, 3, 4, 4, seed=2)},
}


def test_any_function_under_jit_vmap_and_compiled_once():
  virtual = vip.virtualize(_function, ['first'])
  x = images(3, 2, 9, 8, 2)
  traces = []

  @jax.jit
  def apply(params, x):
    traces.append(None)
    return jax.vmap(virtual, (None, 0))(params, x)

  y = apply(_PARAMS, x)
  apply(_PARAMS, x + 1)
  assert len(traces) == 1
  numbers = dict(dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  first, second = (_PARAMS[name]['kernel'] for name in ('first', 'second'))
  for one, given in zip(y, x):
    s = jax.lax.conv_general_dilated(given, first, (1, 1), 'SAME', **numbers)[:, ::2, ::2]
    s = jnp.where(s > 0, s, 0.1 * s)
    full = public_networks.restored(s * jax.nn.sigmoid(s), (9, 8))
    assert_close(one, jax.lax.conv_general_dilated(full, second, (1, 1), 'SAME', **numbers))


def test_a_map_that_is_given_out_is_written_and_reported():
  virtual = vip.virtualize(_function, 'all')
  (row,) = virtual.report(_PARAMS, jax.ShapeDtypeStruct((2, 9, 8, 2), jnp.float32))
  assert row == (('second',), 'output', 'output', (2, 9, 8, 4))
  assert row.elements == 2 * 9 * 8 * 4


def test_the_report_lists_what_the_program_writes():
  model, x = plain_networks.SmallResNet(5, (4, 8, 16)), images(1, 16, 16, 3)
  variables = model.init(jax.random.key(1), x)
  virtual = vip.virtualize(model, vip.layer_names(model, x)[::2], x)
  rows = virtual.report(variables, x)
  assert [row.shape for row in rows] == list(vip.written_maps(virtual.apply, variables, x))
  assert ('stage0_block0', 'custom_jvp_call') in [(row.place, row.op) for row in rows]
  assert rows[-1].layers == ('stage2_block0/unit1/conv',)


def test_relu_keeps_its_derivative_at_zero():
  # Of `max` alone it would be one half.
  def function(params, x):
    numbers = ('NHWC', 'HWIO', 'NHWC')
    y = jax.lax.conv_general_dilated(x, params['kernel'], (1, 1), 'SAME', dimension_numbers=numbers)
    return nn.relu(y).sum()

  params = {'kernel': jnp.ones((1, 1, 1, 1))}
  virtual = vip.virtualize(function, 'all')
  gradient = jax.grad(virtual, 1)(params, jnp.zeros((1, 4, 4, 1)))
  np.testing.assert_array_equal(gradient, 0)


def test_bfloat16():
  model, x = public_networks.ResNet18(), images(1, 16, 16, 3).astype(jnp.bfloat16)
  variables = jax.tree.map(lambda a: a.astype(jnp.bfloat16), model.init(jax.random.key(1), x))
  virtual = vip.virtualize(model, 'all', x)
  assert jax.eval_shape(virtual.apply, variables, x).dtype == jnp.bfloat16


class Unusual(nn.Module):
  """Convolutions that no map can come from, and one that can."""

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(3, (3, 3), name='usual')(x)
    x = nn.ConvTranspose(3, (2, 2), (2, 2), name='up')(x)
    step = lambda module, x, _: (module(x), None)
    loop = nn.scan(step, variable_axes={'params': 0}, split_rngs={'params': True}, length=2)
    x, _ = loop(nn.Conv(3, (3, 3), name='looped'), x, None)
    return nn.Conv(3, (3,), name='lines')(x[:, 0])


@pytest.mark.parametrize(
  'plan, message',
  [
    (['usual', 'up'], "'up' cannot be virtual: it is a transposed"),
    (['looped'], "'looped' cannot be virtual: it stands inside scan"),
    (['lines'], "'lines' cannot be virtual: it has 1 spatial axes"),
    (['usal'], "no unit 'usal'; allowed: usual"),
    ('vgg16_round9', "plan='vgg16_round9'; allowed"),
    ('vgg16_round1', "no unit 'conv1_2'; allowed: usual"),
  ],
)
def test_refusals_name_the_module(plan, message):
  x = images(1, 8, 8, 3)
  assert vip.layer_names(Unusual(), x) == ('usual',)
  with pytest.raises(ValueError, match=message):
    vip.virtualize(Unusual(), plan, x)
  with pytest.raises(ValueError, match=message):  # At the call, too.
    vip.virtualize(Unusual(), plan).report(Unusual().init(jax.random.key(0), x), x)


def test_refuses_what_is_no_network_and_other_layouts():
  with pytest.raises(ValueError, match='model=dict; allowed'):
    vip.virtualize({}, 'all')

  def function(params, x):
    return jax.lax.conv(x, params['a']['w'], (1, 1), 'SAME')

  params = {'a': {'w': jnp.ones((3, 2, 3, 3))}}
  with pytest.raises(ValueError, match="'a' cannot be virtual: its layout"):
    vip.virtualize(function, ['a'], params, images(1, 2, 8, 8))


@pytest.mark.default_flags
def test_gradients_of_a_compiled_network_are_its_slope():
  """Maxima over means of samples: a compiler may compute a mean twice, and round it otherwise."""
  model = models.with_plan(models.ResNet(5, (1, 1, 1, 1), width_multiplier=1 / 16), ['stem'])
  x = jax.random.normal(jax.random.key(0), (2, 49, 40, 3))
  variables = jax.tree.map(
    lambda a: a + 0.1 * jax.random.normal(jax.random.key(a.size), a.shape),
    model.init(jax.random.key(1), x),
  )
  with jax.enable_x64(True):
    variables, x = jax.tree.map(lambda a: a.astype(jnp.float64), (variables, x))

    @jax.jit
    def loss(params):
      y, _ = model.apply({**variables, 'params': params}, x, train=True, mutable=['batch_stats'])
      return jnp.sin(y).sum()

    params = variables['params']
    along = jax.tree.map(
      lambda a: jax.random.normal(jax.random.key(a.size), a.shape, a.dtype), params
    )
    gradient = jax.jit(jax.grad(loss))(params)
    slope = sum((g * a).sum() for g, a in zip(jax.tree.leaves(gradient), jax.tree.leaves(along)))
    ahead, behind = (
      loss(jax.tree.map(lambda p, a, t=t: p + t * a, params, along)) for t in (1e-6, -1e-6)
    )
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-4)
