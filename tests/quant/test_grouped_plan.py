"""Groups of inputs through the plan: quantizer, size and bytes count the same steps."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

from cnnopt_jax import quant
from cnnopt_jax.quant import Quantizer, Rule, packing
from cnnopt_jax.workload import trace_layers
from tests.quant import packed as nets
from tests.quant.layouts import LAYOUTS
from tests.quant.packed import assert_same_bits, assert_same_trees, flat, planned, weights


@functools.partial(jax.jit, static_argnames='plan')
def quantize_params(params, bits, plan):
  return quant.quantize_params(params, bits, plan)


GROUPED = Quantizer(step='absmax', levels='mid_tread', group_size=5)


def quantized_by_hand(w, axes, size, bits):
  """Mid-tread levels up to the largest magnitude of each group, in loops; and the steps."""
  channels = {}
  for place, index in enumerate(np.ndindex(*w.shape)):
    channels.setdefault(tuple(index[axis] for axis in axes), []).append(place)
  values, steps, top = np.array(w).ravel(), [], np.float32(2 ** (bits - 1) - 1)
  for _, places in sorted(channels.items()):
    for first in range(0, len(places), size):
      group = places[first : first + size]
      step = np.abs(values[group]).max() / top
      values[group] = np.clip(np.round(values[group] / step), -top, top) * step
      steps.append(step)
  return values.reshape(w.shape), np.asarray(steps)


def check_steps(params, axes, plan):
  """Those used, packed, counted and printed are the same."""
  quantized = flat(quantize_params(params, 4, plan))
  packed = packing.pack(params, 4, plan)
  unpacked = flat(packing.unpack(packed))
  assert_same_trees(packing.unpack_on_host(packed), packing.unpack(packed))
  used = 0
  for path, w in flat(params).items():
    if path not in axes:
      assert_same_bits(quantized[path], w)
      continue
    expected, steps = quantized_by_hand(w, axes[path], plan.quantizer.group_size, 4)
    np.testing.assert_allclose(quantized[path], expected, rtol=1e-5)
    np.testing.assert_allclose(unpacked[path], quantized[path], rtol=1e-6)
    np.testing.assert_allclose(packed[path].steps, steps, rtol=1e-6)
    used += len(steps)
  assert quant.model_size(plan, 4).scales == 32 * used
  assert sum(leaf.steps for leaf in plan.leaves) == used
  assert quant.file_size(packed).steps == 4 * used
  assert str(used) in quant.plan_table(plan, None).splitlines()[-1].split()
  return used


@pytest.mark.parametrize('name', ['linen, attention', 'linen, stack'])
def test_steps_used_are_steps_counted(name):
  make, axes = LAYOUTS[name]
  apply, params, inputs = make()
  plan = quant.plan_weights(trace_layers(apply, params, *inputs), GROUPED)
  assert {leaf.path: leaf.output_axes for leaf in plan.quantized} == axes
  check_steps(params, axes, plan)


AXES = {'stem/kernel': (3,), 'depthwise/kernel': (3,), 'head/kernel': (1,)}


@pytest.fixture(scope='module')
def net():
  """Parameters, plan, packed at `nets.BITS`, images."""
  return nets.packed_net(group_size=4)


def test_of_regular_depth_wise_and_dense_kernels(net):
  """27, 9 and 8 inputs a channel: groups of 4 leave 3, 1 and nothing over."""
  params, plan, _, _ = net
  plan = plan._replace(quantizer=GROUPED._replace(group_size=4))
  assert check_steps(params, AXES, plan) == 8 * 7 + 8 * 3 + 5 * 2


def test_files_and_programs_hold_them_bit_for_bit(net, tmp_path):
  params, plan, packed, x = net
  bits = quant.bits_by_path(plan, nets.BITS)
  unpacked = packing.unpack(packed)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
    unpacked,
    quantize_params(params, bits, plan),
  )
  path = tmp_path / 'net.safetensors'
  size = packing.save(path, packed, {'note': 1})
  loaded = packing.load(path, like=params)
  assert_same_trees(packing.unpack(loaded), unpacked)
  assert_same_trees(packing.unpack_on_host(packing.load(path)), unpacked)
  assert size.steps == 4 * (8 * 7 + 8 * 3 + 5 * 2)
  # The README's bound: what is counted, and a byte a leaf at most.
  counted = quant.model_size(plan, bits).total / 8
  assert counted <= size.total - size.header <= counted + len(packed.leaves)
  with safetensors.safe_open(path, 'numpy') as file:
    entries = json.loads(file.metadata()['cnnopt_jax'])['plan']
  assert [e['group_size'] for e in entries if e['bits'] < 32] == [4, 4, 4]
  if pytest.importorskip('flatbuffers'):
    program = jax.export.deserialize(bytearray(packing.export(nets.apply, loaded, (x,))))
    assert_same_bits(program.call(x), jax.jit(nets.apply)(unpacked, x))


def test_a_wider_group_than_a_channel_is_a_step_a_channel(net):
  params, plan, _, _ = net
  plan = plan._replace(quantizer=GROUPED)
  wide = plan._replace(leaves=tuple(leaf._replace(group_size=10**9) for leaf in plan.leaves))
  plain = plan._replace(leaves=tuple(leaf._replace(group_size=0) for leaf in plan.leaves))
  assert [leaf.steps for leaf in wide.quantized] == [leaf.steps for leaf in plain.quantized]
  found = [quantize_params(params, 3, one) for one in (wide, plain)]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), *found)


def test_a_stack_has_a_bitwidth_for_each_layer():
  w = weights((3, 7, 4))
  plan = planned({'w': w}, {'w': (0, 2)}, 1, step='absmax', levels='mid_tread', group_size=3)
  bits = {'w': np.array([4, 32, 2])}
  quantized = quantize_params({'w': w}, bits, plan)['w']
  for layer in (0, 2):
    expected, _ = quantized_by_hand(w[layer], (1,), 3, int(bits['w'][layer]))
    np.testing.assert_allclose(quantized[layer], expected, rtol=1e-6)
  packed = packing.pack({'w': w}, bits, plan)
  assert_same_bits(packing.unpack(packed)['w'], quantized)
  steps = [part.steps.size for part in packed['w'].slices if hasattr(part, 'steps')]
  assert steps == [4 * 3] * 2 and quant.model_size(plan, bits).scales == 32 * sum(steps)


def test_rules_choose_what_is_grouped(net):
  layers = trace_layers(nets.apply, net[0], net[3])
  first, second = 'head/kernel', 'stem/kernel'
  rules = (Rule(first, 32), Rule(second, 8, ()))
  plan = quant.plan_weights(layers, GROUPED._replace(rules=rules))
  leaves = {leaf.path: leaf for leaf in plan.leaves}
  assert leaves[first].steps == 0
  assert leaves[second].steps == -(-leaves[second].size // 5)


def test_traced_bits_and_sensitivities():
  w = weights((7, 4))
  plan = planned({'w': w}, {'w': (1,)}, step='absmax', levels='mid_tread', group_size=3)
  expected, _ = quantized_by_hand(w, (1,), 3, 2)
  each = jax.jit(jax.vmap(lambda b: quant.quantize_params({'w': w}, b, plan)['w']))
  few, same = each(jnp.array([2, 32]))
  np.testing.assert_allclose(few, expected, rtol=1e-6)
  assert_same_bits(same, w)
  costs = quant.loss_change(lambda params: jnp.sum(params['w'] ** 2), {'w': w}, plan, (2,))
  np.testing.assert_allclose(costs.values, [[np.sum(expected**2) - np.sum(w**2)]], rtol=1e-4)


def test_what_is_not_allowed(net):
  params, plan, packed, _ = net
  make, _ = LAYOUTS['linen, 1-D']
  apply, kernel, inputs = make()
  layers = trace_layers(apply, kernel, *inputs)
  with pytest.raises(ValueError, match="group_size=5 with granularity='layer'; allowed: 'channel'"):
    quant.plan_weights(layers, GROUPED._replace(granularity='layer'))
  for size in (-1, 2.0, True, None):
    with pytest.raises(ValueError, match='group_size=.*; allowed: an int of 1 or more, 0 for no'):
      quant.plan_weights(layers, GROUPED._replace(group_size=size))
  with pytest.raises(ValueError, match="axis_name='x' with group_size=4; allowed: None"):
    quant.quantize_params(params, 4, plan, axis_name='x')
  with pytest.raises(ValueError, match='not multiples of their steps'):
    packing.pack_values(weights((4, 2)), jnp.ones(4), 4, 'mid_tread', (1,), 2)
  with pytest.raises(ValueError, match='group_size=-4; allowed: 1 or more'):
    packing.records.abstract({**packing.records.record(packed['stem/kernel']), 'group_size': -4})


def test_qwix_has_no_such_groups(net):
  pytest.importorskip('qwix')
  with pytest.raises(ValueError, match='group_size=4; allowed: a leaf without groups'):
    packing.to_qwix(net[2]['stem/kernel'])
