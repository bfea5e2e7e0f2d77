"""Models of three libraries: paths, weights and roles."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from cnnopt_jax.workload import trace_layers


def _leaf(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


class _Block(nn.Module):
  features: int

  @nn.compact
  def __call__(self, x):
    return nn.relu(nn.Conv(self.features, (3, 3))(x))


class _Step(nn.Module):
  @nn.compact
  def __call__(self, x, _):
    return nn.Conv(4, (3, 3), use_bias=True)(x), None


class _Attention(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.MultiHeadDotProductAttention(num_heads=2, name='mix')(x)
    return nn.DenseGeneral((2, 5), axis=-1)(x)


class _Nested(nn.Module):
  def setup(self):
    self.stages = [_Block(4), nn.remat(_Block)(4)]
    self.head = _Attention()

  def features(self, x):
    for stage in self.stages:
      x = stage(x)
    return x

  @nn.compact
  def __call__(self, x):
    x = self.features(x)
    x, _ = nn.scan(_Step, variable_axes={'params': 0}, split_rngs={'params': True}, length=3)(
      name='loop'
    )(x, None)
    return self.head(x.reshape(x.shape[0], -1, 4))


@pytest.mark.parametrize('wrap', [lambda f: f, jax.jit, lambda f: jax.jit(jax.remat(f))])
def test_linen_nested_modules(wrap):
  net, x = _Nested(), _leaf(2, 4, 4, 3)
  params = jax.eval_shape(net.init, jax.random.key(0), x)['params']
  table = trace_layers(wrap(lambda p, x: net.apply({'params': p}, x)), params, x)
  positions, heads = 16, 2
  assert [(row.path, row.kind, row.macs // 2) for row in table] == [
    ('stages_0/Conv_0', 'conv', 16 * 4 * 27),
    ('stages_1/Conv_0', 'conv', 16 * 4 * 36),
    ('loop/Conv_0', 'conv', 3 * 16 * 4 * 36),
    ('head/mix/query', 'dense', positions * 16),
    ('head/mix/key', 'dense', positions * 16),
    ('head/mix/value', 'dense', positions * 16),
    ('head/mix', 'matmul', heads * positions**2 * 2),
    ('head/mix', 'matmul', heads * positions**2 * 2),
    ('head/mix/out', 'dense', positions * 16),
    ('head/DenseGeneral_0', 'dense', positions * 4 * 10),
  ]
  assert [row.weight for row in table if row.kind == 'matmul'] == [None, None]
  assert all(row.weight == f'{row.path}/kernel' for row in table if row.kind != 'matmul')
  assert table.layers[2].weights == 3 * 144 and table.layers[2].count == 3
  roles = {p.path: p.role for p in table.parameters}
  assert set(roles.values()) == {'weight', 'bias'}
  assert roles['loop/Conv_0/bias'] == roles['head/mix/query/bias'] == 'bias'
  assert roles['head/DenseGeneral_0/bias'] == 'bias'


def test_rows_without_weight_follow_the_variables_tree():
  net, x = _Attention(), _leaf(1, 5, 4)
  table = trace_layers(net.apply, jax.eval_shape(net.init, jax.random.key(0), x), x)
  assert [row.path for row in table if row.kind == 'matmul'] == ['params/mix'] * 2


def test_two_networks_in_one_tree():
  x = _leaf(1, 5, 4)
  params = jax.eval_shape(_Attention().init, jax.random.key(0), x)['params']

  def f(params, x):
    return [_Attention().apply({'params': params[name]}, x) for name in ('student', 'teacher')]

  table = trace_layers(f, {'student': params, 'teacher': params}, x)
  assert table.layers[0].path == 'student/mix/query'
  assert table.layers[-1].path == 'teacher/DenseGeneral_0'


class _Tied(nn.Module):
  @nn.compact
  def __call__(self, tokens):
    embed = nn.Embed(11, 6)
    x = nn.Embed(7, 6, name='position')(jnp.arange(tokens.shape[-1]))
    dense = nn.Dense(6, dtype=jnp.bfloat16)
    return embed.attend(dense(dense(embed(tokens) + x)))


def test_weight_sharing_and_embeddings():
  net, tokens = _Tied(), _leaf(2, 7, dtype=jnp.int32)
  params = jax.eval_shape(net.init, jax.random.key(0), tokens)['params']
  table = trace_layers(lambda p, t: net.apply({'params': p}, t), params, tokens)
  assert [row.weight for row in table] == ['Dense_0/kernel', 'Dense_0/kernel', 'Embed_0/embedding']
  assert [row.dtype for row in table][:2] == ['bfloat16', 'bfloat16']
  assert [row.output_channels for row in table] == [6, 6, 11]
  assert {p.path: p.role for p in table.parameters} == {
    'Dense_0/bias': 'bias',
    'Dense_0/kernel': 'weight',
    'Embed_0/embedding': 'embedding',  # Tied: a kernel too.
    'position/embedding': 'other',
  }
  assert table.weights == 36
  assert table.macs == 14 * (36 + 36 + 66)


class _Nnx(nnx.Module):
  def __init__(self, rngs):
    self.stem = nnx.Conv(3, 4, (3, 3), rngs=rngs)
    self.norm = nnx.BatchNorm(4, rngs=rngs)
    self.drop = nnx.Dropout(0.5, rngs=rngs)
    self.layers = nnx.List([nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 5, rngs=rngs)])

  def __call__(self, x):
    x = self.drop(nnx.relu(self.norm(self.stem(x)))).mean((1, 2))
    for layer in self.layers:
      x = layer(x)
    return x


def test_nnx():
  model, x = _Nnx(nnx.Rngs(0)), _leaf(2, 4, 4, 3)
  table = trace_layers(lambda model, x: model(x), model, x)
  assert [row.path for row in table] == ['stem', 'layers/0', 'layers/1']
  assert table.macs == 2 * (16 * 4 * 27 + 24 + 30)
  definition, params, rest = nnx.split(model, nnx.Param, ...)
  functional = trace_layers(lambda p, rest, x: nnx.merge(definition, p, rest)(x), params, rest, x)
  assert functional.layers == table.layers
  assert {p.path: p.role for p in functional.parameters} == {
    'stem/kernel': 'weight',
    'stem/bias': 'bias',
    'norm/scale': 'norm',
    'norm/bias': 'norm',
    'layers/0/kernel': 'weight',
    'layers/0/bias': 'bias',
    'layers/1/kernel': 'weight',
    'layers/1/bias': 'bias',
  }


class _Equinox(eqx.Module):
  convs: list
  act: callable
  attention: eqx.nn.MultiheadAttention
  head: eqx.nn.Linear

  def __init__(self, key):
    self.convs = [eqx.nn.Conv2d(3, 4, 3, key=key), eqx.nn.Conv2d(4, 4, 3, groups=2, key=key)]
    self.act = jax.nn.gelu
    self.attention = eqx.nn.MultiheadAttention(2, 4, key=key)
    self.head = eqx.nn.Linear(4, 5, key=key)

  def __call__(self, x):
    for conv in self.convs:
      x = self.act(conv(x))
    x = x.reshape(4, -1).T
    return self.head(self.attention(x, x, x).mean(0))


def test_equinox():
  model = eqx.filter_eval_shape(_Equinox, jax.random.key(0))
  table = trace_layers(lambda model, x: jax.vmap(model)(x), model, _leaf(2, 3, 8, 8))
  macs = {row.path: row.macs // 2 for row in table if row.weight is not None}
  assert macs == {
    'convs/0': 36 * 4 * 27,
    'convs/1': 16 * 4 * 18,
    'attention/query_proj': 256,
    'attention/key_proj': 256,
    'attention/value_proj': 256,
    'attention/output_proj': 256,
    'head': 20,
  }
  products = [row for row in table if row.kind == 'matmul']
  assert [row.macs // 2 for row in products] == [2 * 16 * 16 * 2] * 2
  roles = {p.path: p.role for p in table.parameters}
  # Equinox's convolution keeps its bias as [C, 1, 1].
  assert roles['convs/0/bias'] == roles['head/bias'] == 'bias'
  assert {row.weight for row in table} - {None} == {p for p, r in roles.items() if r == 'weight'}
