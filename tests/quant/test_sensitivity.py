"""Sensitivities against exact Hessians, closed forms and one network at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax.quant import fake_quantize, sensitivity
from cnnopt_jax.quant.plan import Quantizer, Rule, plan_weights
from cnnopt_jax.workload import trace_layers

PATHS = ('conv/kernel', 'head/bias', 'head/kernel')
BITS = (1, 2, 3, 5, 8, 32)
# The step that compiles soonest, and the bitwidth traced: what is tested here is not the quantizer.
QUANTIZER = Quantizer(step='gaussian')
quantize = jax.jit(
  functools.partial(fake_quantize, step='gaussian'),
  static_argnames=('channel_axis', 'levels', 'step'),
)


def network(params, images):
  x = jax.lax.conv_general_dilated(
    images, params['conv']['kernel'], (2, 2), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  x = jnp.tanh(x).reshape(len(x), -1)
  return x @ params['head']['kernel'] + params['head']['bias']


def loss(params, batch):
  images, labels = batch
  return -jnp.mean(jax.nn.log_softmax(network(params, images))[jnp.arange(len(labels)), labels])


run = jax.jit(loss)
gradient_of = jax.jit(jax.grad(loss))


@pytest.fixture(scope='module')
def params():
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / 2, jnp.float32)
  return {
    'conv': {'kernel': draw(3, 3, 2, 3)},
    'head': {'kernel': draw(12, 4), 'bias': draw(4)},
  }


@pytest.fixture(scope='module')
def batches():
  rng = np.random.default_rng(1)
  images = rng.normal(size=(3, 5, 6, 6, 2))
  return jnp.asarray(images, jnp.float32), jnp.asarray(rng.integers(0, 4, (3, 5)))


@pytest.fixture(scope='module')
def plan(params):
  return make_plan(params)


def make_plan(params, quantizer=QUANTIZER):
  return plan_weights(trace_layers(network, params, jnp.zeros((1, 6, 6, 2))), quantizer)


def nth(batches, i):
  return jax.tree.map(lambda x: x[i], batches)


def leaf(params, path):
  module, name = path.split('/')
  return params[module][name]


def replaced(params, path, value):
  module, name = path.split('/')
  return {**params, module: {**params[module], name: value}}


@pytest.fixture(scope='module')
def hessian(params, batches):
  """Blocks of the mean loss's Hessian, float64 [elements, elements] by pairs of paths."""

  def mean_loss(leaves):
    full = params
    for path, value in zip(PATHS, leaves):
      full = replaced(full, path, value)
    return jnp.mean(jnp.stack([loss(full, nth(batches, i)) for i in range(3)]))

  leaves = [leaf(params, path) for path in PATHS]
  blocks = jax.jit(jax.hessian(mean_loss))(leaves)
  return {
    (a, b): np.asarray(blocks[i][j], np.float64).reshape(leaves[i].size, leaves[j].size)
    for i, a in enumerate(PATHS)
    for j, b in enumerate(PATHS)
  }


@pytest.mark.parametrize('joint, at_once', [(True, 1), (True, 70), (False, 1)])
def test_traces_are_those_of_the_hessian(params, batches, hessian, joint, at_once):
  """Within four standard errors, which are themselves known to a few per cent of 500 probes."""
  found = sensitivity.hessian_traces(
    loss, params, PATHS, jax.random.key(3), 500, batches=batches, joint=joint, at_once=at_once
  )
  exact = np.array([np.trace(hessian[path, path]) for path in PATHS])
  assert found.paths == PATHS and found.sizes == (54, 4, 48)
  assert np.all(np.abs(found.traces - exact) < 4 * found.errors)
  assert np.all(found.errors < 0.2 * np.abs(exact))


def spread(blocks, path, joint):
  """Standard deviation of one probe's estimate by the formula of the docstring."""
  own = blocks[path, path]
  variance = 2 * np.sum((own - np.diag(np.diag(own))) ** 2)
  if joint:
    variance += sum(np.sum(blocks[path, other] ** 2) for other in PATHS if other != path)
  return np.sqrt(variance)


@pytest.mark.parametrize('joint', [True, False])
def test_standard_errors_are_those_of_the_formula(params, batches, hessian, joint):
  """One large batch, so that every probe meets the same Hessian.

  The standard deviation of 2000 samples of kurtosis at most 9 is known to sqrt(8 / 2000) / 2 = 3 %.
  """
  whole = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)
  found = sensitivity.hessian_traces(
    lambda params: loss(params, whole),
    params,
    PATHS,
    jax.random.key(0),
    2000,
    joint=joint,
    at_once=100,
  )
  expected = [spread(hessian, path, joint) / np.sqrt(2000) for path in PATHS]
  np.testing.assert_allclose(found.errors, expected, rtol=0.1)


def test_batches_with_probes_of_their_own_lower_the_error(params, batches):
  repeated = jax.tree.map(lambda x: jnp.repeat(x[:1], 8, 0), batches)
  one = jax.tree.map(lambda x: x[:1], batches)
  each = [
    sensitivity.hessian_traces(
      loss, params, PATHS, jax.random.key(1), 400, batches=b, at_once=50
    ).errors
    for b in (one, repeated)
  ]
  np.testing.assert_allclose(each[0] / each[1], np.sqrt(8), rtol=0.2)


def test_a_quadratic_with_a_diagonal_hessian_is_exact():
  scale = {'a': jnp.asarray([[1.0, 2.0], [3.0, -4.0]]), 'b': jnp.asarray([5.0, 7.0])}
  quadratic = lambda p: sum(jnp.sum(scale[k] * p[k] ** 2) / 2 for k in scale)
  ones = jax.tree.map(jnp.ones_like, scale)
  found = sensitivity.hessian_traces(quadratic, ones, ('b', 'a'), jax.random.key(0), 2)
  np.testing.assert_array_equal(found.traces, [12, 2])
  np.testing.assert_array_equal(found.errors, 0)


def test_off_diagonal_blocks_vanish_in_expectation():
  """A quadratic whose blocks are all off the diagonal: every probe errs, their mean does not."""
  coupling = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
  bilinear = lambda p: p['a'] @ coupling @ p['b']
  params = {'a': jnp.ones(3), 'b': jnp.ones(4)}
  find = lambda joint: sensitivity.hessian_traces(
    bilinear, params, ('a', 'b'), jax.random.key(0), 1000, joint=joint, at_once=1000
  )
  found = find(True)
  expected = jnp.linalg.norm(coupling) / np.sqrt(1000)
  np.testing.assert_allclose(found.errors, [expected, expected], rtol=0.1)
  assert np.all(np.abs(found.traces) < 4 * found.errors)
  np.testing.assert_array_equal(find(False).traces, 0)


def test_hessian_sensitivity_is_mean_curvature_times_half_the_squared_error(params, plan):
  paths = ('head/kernel', 'conv/kernel')
  traces = sensitivity.HessianTraces(
    paths, (48, 54), jnp.asarray([6.0, -2.0]), jnp.asarray([0.5, 0.25])
  )
  found = sensitivity.hessian_sensitivity(traces, params, plan, BITS)
  assert (found.paths, found.bits) == (paths, BITS)
  for row, path in enumerate(paths):
    w = leaf(params, path)
    squares = [np.sum((np.asarray(quantize(w, b), np.float64) - w) ** 2) for b in BITS]
    factor = np.array(squares) / traces.sizes[row] / 2
    np.testing.assert_allclose(found.values[row], traces.traces[row] * factor, rtol=1e-5)
    np.testing.assert_allclose(found.errors[row], traces.errors[row] * factor, rtol=1e-5)
  assert np.all(found.values[:, -1] == 0)


def test_hessian_sensitivity_is_the_loss_where_curvature_is_the_same_everywhere(params, plan):
  """At the minimum of a sphere the estimate leaves nothing out."""
  centred = lambda p: 1.5 * sum(jnp.sum((p[m]['kernel'] - params[m]['kernel']) ** 2) for m in p)
  traces = sensitivity.hessian_traces(
    centred, params, ('conv/kernel', 'head/kernel'), jax.random.key(0), 2
  )
  np.testing.assert_allclose(traces.traces, [3 * 54, 3 * 48], rtol=1e-6)
  expected = sensitivity.loss_change(centred, params, plan, BITS)
  found = sensitivity.hessian_sensitivity(traces, params, plan, BITS)
  np.testing.assert_allclose(found.values, expected.values, rtol=1e-5)


def test_first_order_is_the_signed_product_with_the_gradient(params, batches, plan):
  found = sensitivity.first_order_sensitivity(loss, params, plan, BITS, batches=batches)
  assert found.paths == ('conv/kernel', 'head/kernel')
  products = np.empty((3, 2, len(BITS)))
  for i in range(3):
    gradient = gradient_of(params, nth(batches, i))
    for row, path in enumerate(found.paths):
      w = leaf(params, path)
      errors = [np.asarray(quantize(w, b) - w, np.float64) for b in BITS]
      products[i, row] = [np.vdot(leaf(gradient, path), e) for e in errors]
  np.testing.assert_allclose(found.values, products.mean(0), rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(
    found.errors, products.std(0, ddof=1) / np.sqrt(3), rtol=1e-4, atol=1e-6
  )
  assert np.any(found.values < 0)


@pytest.mark.parametrize(
  'at_once, quantizer',
  [(1, QUANTIZER), (4, Quantizer(granularity='layer', step='absmax', levels='mid_rise'))],
)
def test_loss_change_is_that_of_one_network_at_a_time(params, batches, at_once, quantizer):
  plan = make_plan(params, quantizer)
  found = sensitivity.loss_change(loss, params, plan, BITS, batches=batches, at_once=at_once)
  changes = np.empty((3, 2, len(BITS)))
  for row, path in enumerate(found.paths):
    w = leaf(params, path)
    axes = None if quantizer.granularity == 'layer' else -1
    for column, b in enumerate(BITS):
      quantized = quantize(w, b, channel_axis=axes, levels=quantizer.levels, step=quantizer.step)
      for i in range(3):
        batch = nth(batches, i)
        changes[i, row, column] = run(replaced(params, path, quantized), batch) - run(params, batch)
  np.testing.assert_allclose(found.values, changes.mean(0), rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(
    found.errors, changes.std(0, ddof=1) / np.sqrt(3), rtol=1e-4, atol=1e-6
  )
  np.testing.assert_array_equal(found.values[:, -1], 0)


def test_taylor_terms_add_up_to_the_loss_change_at_many_bits(params, batches, plan, hessian):
  """At 8 bits the second order is exact to what the third adds, with the exact Hessian."""
  first = sensitivity.first_order_sensitivity(loss, params, plan, (6, 8), batches=batches)
  change = sensitivity.loss_change(loss, params, plan, (6, 8), batches=batches)
  for row, path in enumerate(first.paths):
    w = leaf(params, path)
    for column, b in enumerate((6, 8)):
      e = np.asarray(quantize(w, b) - w, np.float64).ravel()
      total = float(first.values[row, column]) + e @ hessian[path, path] @ e / 2
      np.testing.assert_allclose(change.values[row, column], total, rtol=0.05, atol=1e-6)


def test_losses_at_bits_take_traced_bits_and_compile_once(params, batches, plan):
  traced = []

  def counted(params, batch):
    traced.append(1)
    return loss(params, batch)

  fn = jax.jit(
    lambda bits: sensitivity.losses_at_bits(counted, params, plan, bits, batches=batches)
  )
  for rows in ([[32, 32], [2, 3]], [[4, 8], [1, 1]]):
    found = fn(jnp.asarray(rows))
    assert found.shape == (2, 3)
    for row, (conv, head) in zip(found, rows):
      quantized = replaced(params, 'conv/kernel', quantize(params['conv']['kernel'], conv))
      quantized = replaced(quantized, 'head/kernel', quantize(params['head']['kernel'], head))
      expected = [run(quantized, nth(batches, i)) for i in range(3)]
      np.testing.assert_allclose(row, expected, rtol=1e-5)
  assert len(traced) == 1


def test_one_trace_serves_all_leaves_and_bitwidths(params, batches, plan):
  traced = []

  def counted(params):
    traced.append(1)
    return loss(params, nth(batches, 0))

  change = sensitivity.loss_change(counted, params, plan, BITS)
  assert len(traced) == 1 and change.errors is None and change.values.shape == (2, len(BITS))
  first = sensitivity.first_order_sensitivity(counted, params, plan, BITS)
  assert len(traced) == 2 and first.errors is None


def test_leaves_that_a_rule_fixes_are_left_out_unless_named(params, batches):
  plan = make_plan(params, QUANTIZER._replace(rules=(Rule('conv', bits=8), Rule('head/bias'))))
  batch = nth(batches, 0)
  change = lambda **kwargs: sensitivity.loss_change(
    lambda params: loss(params, batch), params, plan, (2,), **kwargs
  )
  assert set(change().paths) == {'head/bias', 'head/kernel'}
  named = change(paths=('conv/kernel',))
  assert named.paths == ('conv/kernel',)
  alone = replaced(params, 'conv/kernel', quantize(params['conv']['kernel'], 2))
  np.testing.assert_allclose(named.values[0, 0], run(alone, batch) - run(params, batch), rtol=1e-4)


def test_bfloat16_leaves_are_summed_in_float32():
  scale = jnp.full(3000, 0.5, jnp.bfloat16)
  found = sensitivity.hessian_traces(
    lambda p: jnp.sum((scale * p['w'] ** 2).astype(jnp.float32)),
    {'w': jnp.ones(3000, jnp.bfloat16)},
    ('w',),
    jax.random.key(0),
    2,
  )
  assert found.traces.dtype == jnp.float32 and found.traces[0] == 3000


def test_what_is_not_allowed_is_named(params, plan):
  total = lambda params: jnp.sum(params['head']['kernel'])
  key = jax.random.key(0)
  with pytest.raises(ValueError, match="path 'head/kernl' is no leaf.*conv/kernel"):
    sensitivity.hessian_traces(total, params, ('head/kernl',), key, 4)
  with pytest.raises(ValueError, match='samples=1; allowed: 2 or more'):
    sensitivity.hessian_traces(total, params, PATHS, key, 1)
  with pytest.raises(ValueError, match="does not quantize 'head/bias'.*head/kernel"):
    sensitivity.loss_change(total, params, plan, (2,), paths=('head/bias',))
  with pytest.raises(ValueError, match='bits=9; allowed'):
    sensitivity.first_order_sensitivity(total, params, plan, (2, 9))
  with pytest.raises(ValueError, match='bits=1 with levels'):
    sensitivity.loss_change(total, params, make_plan(params, Quantizer(levels='mid_tread')), (1, 2))
  with pytest.raises(ValueError, match=r'bits of shape \(2,\).*candidates, 2'):
    sensitivity.losses_at_bits(total, params, plan, [2, 2])
