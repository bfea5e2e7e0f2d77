"""Which leaf a kernel is, whatever was done to the leaf on the way."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from cnnopt_jax.workload import AmbiguousWeightError, trace_layers
from cnnopt_jax.workload.provenance import CONSTANT, Operand, data, free_origin, join, parameter

X = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)
W = jax.ShapeDtypeStruct((3, 3, 4, 5), jnp.float32)
BITS = jax.ShapeDtypeStruct((), jnp.int32)


def _leaf(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _conv(x, w):
  return lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _fake_quantize(w, bits, axis=None):
  top = 2.0 ** (bits - 1) - 1
  step = jnp.max(jnp.abs(w), axis=axis, keepdims=True) / top
  q = jnp.clip(jnp.round(w / step), -top, top) * step
  return w + lax.stop_gradient(q - w)


@jax.custom_vjp
def _rounded(w):
  return jnp.round(w)


_rounded.defvjp(lambda w: (_rounded(w), None), lambda _, g: (g,))


@jax.custom_jvp
def _clipped(w):
  return jnp.clip(w, -1, 1)


_clipped.defjvp(lambda w, t: (_clipped(*w), *t))


def _standardise(w):
  return (w - w.mean((0, 1, 2))) / jnp.sqrt(w.var((0, 1, 2)) + 1e-5)


def _by_loop(w, bits):
  """Chooses the step in a loop whose length depends on the bits."""
  step = lax.while_loop(lambda s: jnp.max(jnp.abs(w)) > s * bits, lambda s: s * 2, jnp.float32(1))
  return lax.fori_loop(0, 3, lambda _, v: jnp.round(v / step) * step, w)


@pytest.mark.parametrize(
  'transform',
  [
    lambda w, bits: w.astype(jnp.bfloat16).astype(jnp.float32),
    lambda w, bits: _fake_quantize(w, bits),
    lambda w, bits: jax.jit(_fake_quantize)(w, bits),
    lambda w, bits: _fake_quantize(w, bits, axis=(0, 1, 2)),
    lambda w, bits: jax.checkpoint(_fake_quantize)(w, bits),
    lambda w, bits: _standardise(w),
    lambda w, bits: _fake_quantize(_standardise(w), bits),
    lambda w, bits: _rounded(_clipped(w)),
    lambda w, bits: (
      w[::-1].transpose(3, 0, 1, 2).reshape(5, -1).reshape(5, 3, 3, 4).transpose(1, 2, 3, 0)
    ),
    lambda w, bits: lax.switch(bits, [lambda w: w, jnp.sign, jnp.round], w),
    lambda w, bits: jnp.where(bits > 8, w, jnp.sign(w)),
    lambda w, bits: jnp.array([-1.0, 0.0, 1.0, 0.5])[jnp.clip(jnp.abs(w) * bits, 0, 3).astype(int)],
    lambda w, bits: w + jax.random.uniform(jax.random.key(bits), w.shape) / bits,
    lambda w, bits: (
      jnp.searchsorted(jnp.linspace(-1, 1, 5), w.ravel()).reshape(w.shape).astype(jnp.float32)
    ),
    lambda w, bits: _by_loop(w, bits),
    lambda w, bits: lax.map(lambda s: jnp.round(s * bits), w),
    lambda w, bits: lax.optimization_barrier((bits, w))[1],
    lambda w, bits: w * jnp.ones_like(w).at[0, 0].set(0),
    lambda w, bits: w / jnp.linalg.norm(w.reshape(-1, 5).T @ w.reshape(-1, 5)),
  ],
  ids=[
    'cast',
    'quantize',
    'jit',
    'per_channel',
    'checkpoint',
    'standardise',
    'standardise_quantize',
    'custom_rules',
    'axes',
    'switch',
    'where',
    'codebook',
    'noise',
    'search',
    'loops',
    'map',
    'barrier',
    'mask',
    'spectral',
  ],
)
def test_transformed_kernels(transform):
  def f(params, x, bits):
    return jax.nn.relu(_conv(x, transform(params['w'], bits)) + params['b'])

  params = {'w': W, 'b': jax.ShapeDtypeStruct((5,), jnp.float32)}
  table = trace_layers(f, params, X, BITS)
  row = table.layers[-1]
  assert (row.kind, row.weight, row.weights, row.output_channels) == ('conv', 'w', 180, 5)
  assert row.macs == 2 * 8 * 8 * 5 * 36
  assert {p.path: p.role for p in table.parameters} == {'w': 'weight', 'b': 'bias'}


def test_bits_for_each_channel_and_for_each_leaf():
  def f(params, x, bits):
    x = _conv(x, _fake_quantize(params['a'], bits['a'], (0, 1, 2)))
    return x.reshape(2, -1) @ _fake_quantize(params['b'], bits['b'], 0)

  params = {'a': W, 'b': jax.ShapeDtypeStruct((320, 7), jnp.float32)}
  bits = {'a': jax.ShapeDtypeStruct((5,), jnp.int32), 'b': BITS}
  assert [row.weight for row in trace_layers(f, params, X, bits)] == ['a', 'b']


def test_learned_steps_are_no_weights():
  def f(params, x):
    return _conv(x, jnp.round(params['w'] / params['step']) * params['step'] * params['gain'])

  params = {
    'w': W,
    'gain': jax.ShapeDtypeStruct((), jnp.float32),
    'step': jax.ShapeDtypeStruct((5,), jnp.float32),
  }
  table = trace_layers(f, params, X)
  assert [row.weight for row in table] == ['w']
  # `step` has one value for each output channel, but makes the kernel: it is no bias.
  assert {p.path: p.role for p in table.parameters} == {
    'gain': 'norm',
    'step': 'norm',
    'w': 'weight',
  }


def test_low_rank_addition_keeps_the__leaf():
  def f(params, x):
    return x @ (params['w'] + params['a'] @ params['b'])

  table = trace_layers(f, {'w': _leaf(6, 5), 'a': _leaf(6, 2), 'b': _leaf(2, 5)}, _leaf(3, 6))
  assert [(row.kind, row.weight) for row in table] == [('dense', 'b'), ('dense', 'w')]


def test_position_embedding_makes_no_weight_of_an_image():
  def f(params, x):
    x = x + params['position']
    return x @ params['w'], (x @ x.T)

  table = trace_layers(f, {'position': _leaf(6, 4), 'w': _leaf(4, 5)}, _leaf(6, 4))
  assert [row.weight for row in table] == ['w', None]
  assert [row.kind for row in table] == ['dense', 'matmul']


def test_weight_on_the_left():
  (row,) = trace_layers(lambda w, x: w @ x, _leaf(5, 4), _leaf(4, 3))
  assert (row.kind, row.input_shape, row.kernel_shape) == ('dense', (4, 3), (5, 4))
  assert (row.fan_in, row.output_channels, row.macs) == (4, 5, 60)


def test_embedding_rows_are_activations_but_one_hot_products_are_not():
  leaf = jax.ShapeDtypeStruct((10, 4), jnp.float32)
  tokens = jax.ShapeDtypeStruct((3,), jnp.int32)
  (row,) = trace_layers(lambda e, t: e[t] @ e[t].T, leaf, tokens)
  assert row.kind == 'matmul' and row.weight is None
  (row,) = trace_layers(lambda e, t: jax.nn.one_hot(t, 10) @ e, leaf, tokens)
  assert row.kind == 'dense' and row.fan_in == 10


def test_slices_of_one_leaf():
  def f(params, x):
    w = params['qkv']
    q, k, v = jnp.split(x @ w[0], 3, -1)
    return q @ k.T @ v, x @ w[1][:, :4], x @ w[2][:, 4:8]

  w = jax.ShapeDtypeStruct((3, 4, 12), jnp.float32)
  table = trace_layers(f, {'qkv': w}, jax.ShapeDtypeStruct((6, 4), jnp.float32))
  assert [row.weight for row in table] == ['qkv', None, None, 'qkv', 'qkv']
  assert [row.weights for row in table] == [48, 0, 0, 16, 16]
  assert table.weights == 144


def test_packed_leaf():
  def f(packed, x):
    return x @ jnp.stack([packed & 15, packed >> 4], -1).reshape(4, -1).astype(jnp.float32)

  (row,) = trace_layers(
    f, jax.ShapeDtypeStruct((4, 3), jnp.uint8), jax.ShapeDtypeStruct((2, 4), jnp.float32)
  )
  assert row.weight == '' and row.weights == 24


@pytest.mark.parametrize('mix', [jnp.add, lambda a, b: jnp.concatenate([a, b], 1)])
def test_kernel_of_several_leaves_is_an_error(mix):
  leaf = jax.ShapeDtypeStruct((4, 4), jnp.float32)
  x = jax.ShapeDtypeStruct((2, 4), jnp.float32)
  with pytest.raises(AmbiguousWeightError, match=r'dot_general at the top level .*\(a, b\)'):
    trace_layers(lambda p, x: x @ mix(p['a'], p['b']), {'a': leaf, 'b': leaf}, x)


def test_constant_kernels_have_no_leaf():
  table = trace_layers(
    lambda p, x: jax.image.resize(_conv(x, jnp.ones((3, 3, 4, 1))), (2, 16, 16, 1), 'linear'), {}, X
  )
  assert table.layers[0].kind == 'conv'
  assert {row.kind for row in table.layers[1:]} == {'matmul'}
  assert all(row.weight is None and row.weights == 0 for row in table)
  assert table.weights == 0 and table.parameters == ()


def test_other_networks_weights_are_data():
  (row,) = trace_layers(lambda p, q, x: _conv(x, q), {'w': W}, W, X)
  assert row.kind == 'conv' and row.weight is None and row.output_channels == 0


def test_origins_by_hand():
  w, b, x = (
    Operand(parameter('w', (12,)), 12),
    Operand(parameter('b', (3,)), 3),
    Operand(data(12), 12),
  )
  bits = Operand(data(1), 1)
  assert free_origin('mul', [w, bits], 12).leaf.path == 'w'
  assert free_origin('mul', [w, bits], 12).width == 1
  assert free_origin('mul', [w, x], 12).leaf is None
  assert free_origin('reduce_sum', [w], 3).leaf is None
  assert free_origin('add', [Operand(CONSTANT, 12)] * 2, 12) is CONSTANT
  assert free_origin('concatenate', [bits] * 3, 3).width == 3
  assert free_origin('reduce_max', [x], 1).width == 1
  both = join(w.origin, b.origin)
  assert both.leaf is None and {s.path for s in both.sources} == {'w', 'b'}
