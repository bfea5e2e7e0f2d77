"""Networks of many libraries and layouts, and by hand the axes of their output features."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx
from jax import lax

KEY = jax.random.key(0)


def _linen(module, *inputs):
  variables = module.init(KEY, *inputs)
  params = variables.pop('params')
  return lambda p, *x: module.apply({'params': p, **variables}, *x), params, inputs


class _Convolutions(nn.Module):
  """Regular, depth-wise, grouped, dilated kernels and norms."""

  @nn.compact
  def __call__(self, x):
    x = nn.BatchNorm(use_running_average=True, name='norm')(nn.Conv(8, (3, 3), name='stem')(x))
    x = nn.Conv(8, (3, 3), feature_group_count=8, name='depthwise')(nn.relu(x))
    x = nn.Conv(12, (3, 3), feature_group_count=4, name='grouped')(x)
    x = nn.WeightNorm(nn.Conv(6, (3, 3), kernel_dilation=2, name='dilated'), name='weight_norm')(x)
    return nn.Dense(5, name='head')(x.mean((1, 2)))


class _Block(nn.Module):
  @nn.compact
  def __call__(self, x, _):
    return x + nn.Dense(12)(nn.relu(nn.Dense(24)(nn.LayerNorm()(x)))), None


class _Stack(nn.Module):
  @nn.compact
  def __call__(self, x):
    stack = nn.scan(_Block, variable_axes={'params': 0}, split_rngs={'params': True}, length=3)
    return stack(name='stack')(x, None)[0]


class _Tied(nn.Module):
  @nn.compact
  def __call__(self, tokens):
    table = nn.Embed(10, 4, name='table')
    return table.attend(nn.Dense(4, name='dense')(table(tokens)))


class _Nnx(nnx.Module):
  def __init__(self):
    rngs = nnx.Rngs(0)
    self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
    self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
    self.heads = nnx.LinearGeneral(4, (3, 5), rngs=rngs)

  def __call__(self, x):
    return self.heads(self.norm(self.conv(x)).mean((1, 2)))


def _nnx():
  graph, params, rest = nnx.split(_Nnx(), nnx.Param, ...)
  return lambda p, x: nnx.merge(graph, p, rest)(x), params, (jnp.ones((2, 6, 6, 3)),)


class _Equinox(eqx.Module):
  layers: list

  def __init__(self):
    keys = jax.random.split(KEY, 4)
    self.layers = [
      eqx.nn.Conv2d(3, 4, 3, key=keys[0]),
      eqx.nn.GroupNorm(2, 4),
      eqx.nn.Conv2d(4, 4, 3, groups=2, key=keys[1]),
      eqx.nn.ConvTranspose2d(4, 6, 3, key=keys[2]),
      jnp.ravel,
      eqx.nn.Linear(216, 5, key=keys[3]),
      eqx.nn.LayerNorm(5),
    ]

  def __call__(self, x):
    for layer in self.layers:
      x = layer(x)
    return x


def _haiku():
  def network(x):
    x = hk.LayerNorm(-1, True, True)(hk.Conv2D(4, 3)(x))
    x = hk.DepthwiseConv2D(2, 3)(x)
    return hk.Linear(5)(x.mean((1, 2)))

  transformed = hk.without_apply_rng(hk.transform(network))
  image = jnp.ones((2, 6, 6, 3))
  return transformed.apply, transformed.init(KEY, image), (image,)


def _torch_layout():
  """Kernels [out, in, h, w] and [out, in], as a port of a PyTorch network has them."""

  def apply(p, x):
    numbers = ('NCHW', 'OIHW', 'NCHW')
    x = lax.conv_general_dilated(x, p['conv']['weight'], (1, 1), 'SAME', dimension_numbers=numbers)
    x = x * p['bn']['weight'][:, None, None] + p['bn']['bias'][:, None, None]
    return x.mean((2, 3)) @ p['fc']['weight'].T + p['fc']['bias']

  shapes = {
    'conv': {'weight': (8, 3, 3, 3)},
    'bn': {'weight': (8,), 'bias': (8,)},
    'fc': {'weight': (5, 8), 'bias': (5,)},
  }
  draw = np.random.default_rng(0).normal
  params = jax.tree.map(
    lambda s: jnp.asarray(draw(size=s), jnp.float32), shapes, is_leaf=lambda s: isinstance(s, tuple)
  )
  return apply, params, (jnp.ones((2, 3, 6, 6)),)


def _members():
  """Five networks of one shape under `vmap`."""
  conv = nn.Conv(6, (3, 3))
  x = jnp.ones((5, 1, 8, 8, 4))
  params = jax.vmap(lambda key: conv.init(key, x[0]))(jax.random.split(KEY, 5))['params']
  return lambda p, x: jax.vmap(lambda p, x: conv.apply({'params': p}, x))(p, x), params, (x,)


def _complex():
  dense = nn.Dense(3, dtype=jnp.complex64, param_dtype=jnp.complex64)
  return _linen(dense, jnp.ones((2, 4), jnp.complex64))


def _bare():
  layer = eqx.nn.Linear(4, 5, key=KEY)
  return lambda layer, x: jax.vmap(layer)(x), layer, (jnp.ones((2, 4)),)


HEADS = {f'{name}/kernel': (1, 2) for name in ('query', 'key', 'value')}

# For each network how it is made, and by hand the output axes of all that is to be quantized.
LAYOUTS = {
  'linen, convolutions': (
    lambda: _linen(_Convolutions(), jnp.ones((2, 9, 9, 3))),
    {f'{name}/kernel': (3,) for name in ('stem', 'depthwise', 'grouped', 'dilated')}
    | {'head/kernel': (1,)},
  ),
  'linen, transposed kernel': (
    lambda: _linen(nn.ConvTranspose(6, (3, 3), transpose_kernel=True), jnp.ones((1, 8, 8, 4))),
    {'kernel': (2,)},
  ),
  'linen, transposed convolution': (
    lambda: _linen(nn.ConvTranspose(6, (3, 3), strides=(2, 2)), jnp.ones((1, 8, 8, 4))),
    {'kernel': (3,)},
  ),
  'linen, 1-D': (lambda: _linen(nn.Conv(8, (3,)), jnp.ones((1, 8, 4))), {'kernel': (2,)}),
  'linen, 3-D': (
    lambda: _linen(nn.Conv(8, (3, 3, 3)), jnp.ones((1, 4, 4, 4, 2))),
    {'kernel': (4,)},
  ),
  'linen, attention': (
    lambda: _linen(nn.MultiHeadDotProductAttention(4, qkv_features=16), jnp.ones((1, 5, 12))),
    HEADS | {'out/kernel': (2,)},
  ),
  'linen, dense over two axes': (
    lambda: _linen(nn.DenseGeneral((4, 8), axis=(-2, -1)), jnp.ones((2, 5, 12))),
    {'kernel': (2, 3)},
  ),
  'linen, stack': (
    lambda: _linen(_Stack(), jnp.ones((2, 12))),
    {'stack/Dense_0/kernel': (0, 2), 'stack/Dense_1/kernel': (0, 2)},
  ),
  'linen, recurrent': (
    lambda: _linen(nn.RNN(nn.GRUCell(6)), jnp.ones((2, 5, 4))),
    {f'cell/{name}/kernel': (1,) for name in ('hn', 'hr', 'hz', 'in', 'ir', 'iz')},
  ),
  'linen, tied embedding': (
    lambda: _linen(_Tied(), jnp.ones((2, 5), jnp.int32)),
    {'dense/kernel': (1,)},
  ),
  'linen, complex': (_complex, {}),
  'linen, members': (_members, {'kernel': (0, 4)}),
  'nnx': (_nnx, {'conv/kernel': (3,), 'heads/kernel': (1, 2)}),
  'equinox': (
    lambda: (lambda net, x: net(x), _Equinox(), (jnp.ones((3, 8, 8)),)),
    {f'layers/{i}/weight': (0,) for i in (0, 2, 3, 5)},
  ),
  'equinox, bare': (_bare, {'weight': (0,)}),
  'haiku': (
    _haiku,
    {'conv2_d/w': (3,), 'depthwise_conv2_d/w': (3,), 'linear/w': (1,)},
  ),
  'PyTorch layout': (_torch_layout, {'conv/weight': (0,), 'fc/weight': (0,)}),
}
