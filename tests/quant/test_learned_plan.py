"""Learned steps through the plan: what they start as, what they make of weights, their bytes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import quant
from cnnopt_jax.quant import Quantizer, packing
from tests.quant import packed as nets
from tests.quant.packed import assert_same_bits, assert_same_trees, flat, planned, weights

AXES = {'stem/kernel': (3,), 'depthwise/kernel': (3,), 'head/kernel': (1,)}
quantize_params = jax.jit(quant.quantize_params, static_argnames='plan')
initial_steps = jax.jit(quant.initial_steps, static_argnames='plan')


def highest(bits):
  """Q_P of the levels 'auto'."""
  return 2 ** (bits - 1) - (0.5 if bits <= 2 else 1)


def lsq(w, step, bits):
  """LSQ with the levels 'auto' in float64, and the derivative by the step of each element."""
  w, step = np.asarray(w, np.float64), np.asarray(step, np.float64)
  x, top = w / step, highest(bits)
  nearest = np.floor(x) + 0.5 if bits <= 2 else np.round(x)
  code = np.where(np.abs(x) < top, nearest, np.sign(x) * top)
  return code * step, np.where(np.abs(x) < top, code - x, code)


@pytest.fixture(scope='module')
def net():
  """Parameters, plan, images."""
  params, plan, _, x = nets.packed_net()
  return params, plan._replace(quantizer=Quantizer(step='learned')), x


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_by_the_formulas(net, bits):
  """2 mean|w| / sqrt(Q_P) for each channel at the start, and the values of these steps."""
  params, plan, _ = net
  steps = initial_steps(params, jnp.asarray(bits), plan)
  quantized = flat(quantize_params(params, jnp.asarray(bits), plan, steps=steps))
  assert set(steps) == set(AXES)
  for path, w in flat(params).items():
    if path not in AXES:
      assert_same_bits(quantized[path], w)
      continue
    inputs = tuple(axis for axis in range(w.ndim) if axis not in AXES[path])
    expected = 2 * np.abs(w).mean(inputs, keepdims=True) / np.sqrt(highest(bits))
    np.testing.assert_allclose(steps[path], expected, rtol=1e-6)
    np.testing.assert_allclose(quantized[path], lsq(w, steps[path], bits)[0], rtol=1e-6)
  assert sum(step.size for step in steps.values()) == sum(leaf.steps for leaf in plan.leaves)


def test_steps_get_the_gradient_of_the_paper_whatever_the_bits():
  w = weights((20, 3))
  plan = planned({'w': w}, {'w': (1,)}, step='learned')
  ct = np.random.default_rng(0).normal(size=w.shape)

  @jax.jit
  @functools.partial(jax.vmap, in_axes=(None, 0))
  def gradient(steps, bits):
    def total(steps):
      return jnp.sum(ct * quant.quantize_params({'w': w}, bits, plan, steps=steps)['w'])

    return jax.grad(total)(steps)

  steps = {'w': jnp.asarray([[0.3, 1.0, 2.5]])}
  found = gradient(steps, jnp.asarray([1, 3, 32]))['w']
  for row, bits in zip(found, (1, 3)):
    slope = lsq(w, steps['w'], bits)[1]
    expected = (ct * slope).sum(0, keepdims=True) / np.sqrt(20 * highest(bits))
    np.testing.assert_allclose(row, expected, rtol=1e-4)
  np.testing.assert_array_equal(found[2], np.zeros((1, 3)))


def test_packed_with_their_steps_bit_for_bit(net, tmp_path):
  params, plan, x = net
  steps = initial_steps(params, nets.BITS, plan)
  steps = {path: 0.8 * step for path, step in steps.items()}
  packed = packing.pack(params, nets.BITS, plan, steps)
  quantized = quantize_params(params, nets.BITS, plan, steps=steps)
  assert_same_trees(packing.unpack(packed), quantized)
  assert_same_trees(packing.unpack_on_host(packed), quantized)
  for path, step in steps.items():
    assert_same_bits(packed[path].steps, np.ravel(step))
  size = packing.save(tmp_path / 'net', packed)
  assert_same_trees(packing.unpack(packing.load(tmp_path / 'net')), quantized)
  counted = quant.model_size(plan, nets.BITS).total / 8
  assert counted <= size.total - size.header <= counted + len(packed.leaves)
  predict = jax.jit(nets.apply)
  assert_same_bits(predict(packing.unpack(packed), x), predict(quantized, x))


def test_a_stack_has_steps_for_each_layer():
  w, bits = weights((3, 7, 4)), {'w': np.array([3, 32, 1])}
  for axes, shape in (((0, 2), (3, 1, 4)), ((), (3, 1, 1))):
    plan = planned({'w': w}, {'w': axes}, 1, step='learned')
    steps = quant.initial_steps({'w': w}, bits, plan)
    assert steps['w'].shape == shape
    packed = packing.pack({'w': w}, bits, plan, steps)
    values = packing.unpack(packed)['w']
    assert_same_bits(values[1], w[1])
    for layer in (0, 2):
      expected = lsq(w[layer], steps['w'][layer], int(bits['w'][layer]))[0]
      np.testing.assert_allclose(values[layer], expected, rtol=1e-6)
    np.testing.assert_allclose(
      quant.quantize_params({'w': w}, bits, plan, steps=steps)['w'], values
    )
    assert quant.model_size(plan, bits).scales == 32 * 2 * shape[-1]


def test_float_needs_no_steps(net):
  params, plan, _ = net
  for bits in (None, 32):
    assert_same_trees(quant.quantize_params(params, bits, plan), params)
  assert_same_trees(packing.unpack(packing.pack(params, 32, plan)), params)
  assert quant.initial_steps(params, None, plan) == {}
  assert quant.initial_steps(params, 4, plan._replace(quantizer=quant.GAUSSIAN)) == {}


def test_what_is_not_allowed(net):
  params, plan, _ = net
  steps = {leaf.path: np.ones(leaf.steps_shape, np.float32) for leaf in plan.quantized}
  few = {path: step for path, step in steps.items() if path != 'head/kernel'}
  refused = [
    (None, r"steps=None with step='learned'; allowed: .*initial_steps\(params, bits, plan\)"),
    (few, "steps has none for 'head/kernel'; allowed"),
    ({**steps, 'head/bias': 1.0}, "steps has 'head/bias'; allowed: what the plan quantizes: dep"),
    ({**steps, 'head/kernel': np.ones(5)}, r"'head/kernel'. has shape \(5,\); allowed: \(1, 5\)"),
  ]
  for given, message in refused:
    with pytest.raises(ValueError, match=message):
      quant.quantize_params(params, 4, plan, steps=given)
    with pytest.raises(ValueError, match=message):
      packing.pack(params, 4, plan, given)
  with pytest.raises(ValueError, match="steps with step='gaussian'; allowed: with step='learned'"):
    quant.quantize_params(params, 4, plan._replace(quantizer=quant.GAUSSIAN), steps=steps)
  with pytest.raises(ValueError, match="axis_name=.* with step='learned'; allowed: None"):
    quant.quantize_params(params, 4, plan, steps=steps, axis_name='x')
  with pytest.raises(ValueError, match='head/kernel: not all steps are finite'):
    packing.pack(params, 4, plan, {**steps, 'head/kernel': np.full((1, 5), np.nan)})
  with pytest.raises(ValueError, match="step='learned' of networks that were not trained"):
    quant.loss_change(lambda params: 0.0, params, plan, (4,))
  with pytest.raises(ValueError, match="group_size=4 with step='learned'; allowed: gaussian"):
    quant.validate_quantizer(Quantizer(step='learned', group_size=4))
  with pytest.raises(ValueError, match="step='lsq'; allowed: gaussian, mse, absmax, learned"):
    quant.validate_quantizer(Quantizer(step='lsq'))
