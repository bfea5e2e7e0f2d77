"""Shapes, multiply-accumulates and weights against literals, closed forms and XLA's own count."""

import functools
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnopt_jax.workload import trace_layers


class _SmallNet(nn.Module):
  """One of each kind of convolution, hand-counted in `_SMALL_NET`."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x))
    x = nn.Conv(8, (3, 3), feature_group_count=8, use_bias=False, name='depthwise')(x)
    x = nn.BatchNorm(use_running_average=True)(x)
    x = nn.Conv(12, (3, 3), padding='VALID', feature_group_count=4)(x)
    x = nn.max_pool(x, (2, 2), strides=(2, 2))
    return nn.Dense(10)(x.reshape(x.shape[0], -1))


# Images of 16 x 16 x 3 in a batch of 2:
# path, kind, input, kernel, output, groups, fan-in, features, weights, MACs.
_SMALL_NET = [
  # 8x8x8 outputs of 3*3*3 products each.
  ('Conv_0', 'conv', (2, 16, 16, 3), (3, 3, 3, 8), (2, 8, 8, 8), 1, 27, 8, 216, 27_648),
  # 8x8x8 outputs of 3*3 products.
  ('depthwise', 'conv', (2, 8, 8, 8), (3, 3, 1, 8), (2, 8, 8, 8), 8, 9, 8, 72, 9_216),
  # 6x6x12 outputs of 3*3*2 products.
  ('Conv_1', 'conv', (2, 8, 8, 8), (3, 3, 2, 12), (2, 6, 6, 12), 4, 18, 12, 216, 15_552),
  # 10 outputs of 3*3*12 products.
  ('Dense_0', 'dense', (2, 108), (108, 10), (2, 10), 1, 108, 10, 1_080, 2_160),
]


def _small_net():
  net = _SmallNet()
  x = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
  return net, jax.eval_shape(net.init, jax.random.key(0), x), x


def test_linen_literals():
  net, variables, x = _small_net()
  table = trace_layers(
    lambda p, stats, x: net.apply({'params': p, 'batch_stats': stats}, x),
    variables['params'],
    variables['batch_stats'],
    x,
  )
  assert [
    (
      row.path,
      row.kind,
      row.input_shape,
      row.kernel_shape,
      row.output_shape,
      row.groups,
      row.fan_in,
      row.output_channels,
      row.weights,
      row.macs,
    )
    for row in table
  ] == _SMALL_NET
  assert [row.weight for row in table] == [
    'Conv_0/kernel',
    'depthwise/kernel',
    'Conv_1/kernel',
    'Dense_0/kernel',
  ]
  assert table.macs == 27_648 + 9_216 + 15_552 + 2_160 == 54_576
  assert table.weights == 216 + 72 + 216 + 1_080 == 1_584
  assert table.layers[0].strides == (2, 2) and table.layers[0].padding == ((0, 1), (0, 1))
  assert table.layers[2].padding == ((0, 0), (0, 0)) and table.layers[3].strides == ()
  assert {p.path: p.role for p in table.parameters} == {
    'BatchNorm_0/bias': 'norm',
    'BatchNorm_0/scale': 'norm',
    'Conv_0/bias': 'bias',
    'Conv_0/kernel': 'weight',
    'Conv_1/bias': 'bias',
    'Conv_1/kernel': 'weight',
    'Dense_0/bias': 'bias',
    'Dense_0/kernel': 'weight',
    'depthwise/kernel': 'weight',
  }


def test_all_variables_as_parameters():
  net, variables, x = _small_net()
  table = trace_layers(net.apply, variables, x)
  assert [row.path for row in table] == [f'params/{row[0]}' for row in _SMALL_NET]
  assert table.macs == 54_576 and table.weights == 1_584
  roles = {p.path: p.role for p in table.parameters}
  assert roles['batch_stats/BatchNorm_0/mean'] == 'norm'


_VGG16 = (64, 64, 'M', 128, 128, 'M', 256, 256, 256, 'M', 512, 512, 512, 'M', 512, 512, 512, 'M')


def _conv(x, w, strides=(1, 1), padding='SAME', **kwargs):
  return lax.conv_general_dilated(
    x, w, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **kwargs
  )


def _vgg16(params, x):
  i = 0
  for step in _VGG16:
    if step == 'M':
      x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')
    else:
      x = jax.nn.relu(_conv(x, params[f'conv{i}']['w']) + params[f'conv{i}']['b'])
      i += 1
  x = x.reshape(x.shape[0], -1)
  for name in ('fc0', 'fc1', 'fc2'):
    x = x @ params[name]['w'] + params[name]['b']
  return x


def _leaf(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_vgg16():
  widths = [step for step in _VGG16 if step != 'M']
  params = {
    f'conv{i}': {'w': _leaf(3, 3, cin, cout), 'b': _leaf(cout)}
    for i, (cin, cout) in enumerate(zip([3, *widths], widths))
  }
  dense = [(7 * 7 * 512, 4096), (4096, 4096), (4096, 1000)]
  params |= {f'fc{i}': {'w': _leaf(k, n), 'b': _leaf(n)} for i, (k, n) in enumerate(dense)}
  table = trace_layers(_vgg16, params, _leaf(1, 224, 224, 3))

  # Every convolution keeps its size, so a layer costs size^2 * 9 * Cin * Cout.
  size, cin, expected = 224, 3, []
  for step in _VGG16:
    if step == 'M':
      size //= 2
    else:
      expected.append(size**2 * 9 * cin * step)
      cin = step
  expected += [k * n for k, n in dense]
  np.testing.assert_array_equal(table.column('macs'), expected)
  assert sum(expected[:13]) == 15_346_630_656 and sum(expected[13:]) == 123_633_664
  assert table.macs == 15_470_264_320
  # 138,357,544 parameters, as published, less 13,416 biases.
  assert table.weights == 138_344_128
  biases = sum(p.size for p in table.parameters if p.role == 'bias')
  assert biases == 13_416 and table.weights + biases == 138_357_544


def _alexnet(params, x):
  """AlexNet as published: two groups in layers 2, 4 and 5."""
  geometry = [
    ((4, 4), 'VALID', 1),
    ((1, 1), 'SAME', 2),
    ((1, 1), 'SAME', 1),
    ((1, 1), 'SAME', 2),
    ((1, 1), 'SAME', 2),
  ]
  for i, (strides, padding, groups) in enumerate(geometry):
    x = jax.nn.relu(_conv(x, params[i], strides, padding, feature_group_count=groups))
    if i in (0, 1, 4):
      x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), 'VALID')
  x = x.reshape(x.shape[0], -1)
  for w in params[5:]:
    x = x @ w
  return x


def test_alexnet():
  params = [
    _leaf(11, 11, 3, 96),
    _leaf(5, 5, 48, 256),
    _leaf(3, 3, 256, 384),
    _leaf(3, 3, 192, 384),
    _leaf(3, 3, 192, 256),
    _leaf(9216, 4096),
    _leaf(4096, 4096),
    _leaf(4096, 1000),
  ]
  table = trace_layers(_alexnet, params, _leaf(1, 227, 227, 3))
  # Output maps of 55, 27, 13, 13, 13.
  assert table.column('macs').tolist() == [
    55**2 * 96 * 363,
    27**2 * 256 * 1200,
    13**2 * 384 * 2304,
    13**2 * 384 * 1728,
    13**2 * 256 * 1728,
    9216 * 4096,
    4096 * 4096,
    4096 * 1000,
  ]
  assert table.macs == 724_406_816
  assert table.weights == 60_954_656
  assert [row.weight for row in table] == [str(i) for i in range(8)]


def test_xla_counts_the_same_valid_convolutions_and_products():
  def f(params, x):
    x = _conv(x, params['a'], (2, 1), 'VALID')
    x = _conv(x, params['b'], (1, 1), 'VALID', rhs_dilation=(2, 1))
    return jnp.einsum('nhwc,hwcd->nd', x, params['c'])

  params = {'a': _leaf(3, 2, 4, 6), 'b': _leaf(2, 3, 6, 5), 'c': _leaf(4, 7, 5, 8)}
  x = _leaf(3, 13, 10, 4)
  flops = jax.jit(f).lower(params, x).cost_analysis()['flops']
  assert 2 * trace_layers(f, params, x).macs == flops


def test_padding_and_dilation_count_as_executed():
  def transposed(w, x):
    return lax.conv_transpose(x, w, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

  (row,) = trace_layers(transposed, _leaf(3, 3, 2, 5), _leaf(1, 4, 4, 2))
  assert row.output_shape == (1, 8, 8, 5) and row.lhs_dilation == (2, 2)
  assert row.macs == 8 * 8 * 5 * 3 * 3 * 2
  # A 3x3 window on a single pixel: eight of nine products are with padding.
  (row,) = trace_layers(lambda w, x: _conv(x, w), _leaf(3, 3, 2, 5), _leaf(1, 1, 1, 2))
  assert row.macs == 5 * 9 * 2 and row.path == '' and row.weight == ''


def test_convolutions_of_one_and_three_dimensions():
  def f(params, x, volume):
    return nn.Conv(5, (3,)).apply({'params': params['a']}, x), nn.Conv(
      4, (2, 3, 1), padding='VALID'
    ).apply({'params': params['b']}, volume)

  params = {
    'a': {'kernel': _leaf(3, 2, 5), 'bias': _leaf(5)},
    'b': {'kernel': _leaf(2, 3, 1, 2, 4), 'bias': _leaf(4)},
  }
  table = trace_layers(f, params, _leaf(1, 9, 2), _leaf(1, 4, 5, 6, 2))
  assert table.column('macs').tolist() == [9 * 5 * 6, 3 * 3 * 6 * 4 * 12]
  assert [row.path for row in table] == ['a', 'b']


@pytest.mark.parametrize('layout', ['NHWC', 'NCHW'])
def test_layouts(layout):
  def f(w, x):
    return lax.conv_general_dilated(
      x, w, (1, 1), 'VALID', dimension_numbers=(layout, 'OIHW', layout)
    )

  shape = (2, 6, 7, 3) if layout == 'NHWC' else (2, 3, 6, 7)
  (row,) = trace_layers(f, _leaf(4, 3, 3, 3), _leaf(*shape))
  assert row.macs == 2 * 4 * 5 * 4 * 27 and row.output_channels == 4
  assert row.output_shape[row.dimension_numbers.out_spec[1]] == 4


class _InvertedResiduals(nn.Module):
  """The body of MobileNetV2: 17 blocks, 52 convolutions with the stem and the last."""

  @nn.compact
  def __call__(self, x):
    def unit(x, features, size=1, strides=1, groups=1):
      x = nn.Conv(features, (size, size), strides, feature_group_count=groups, use_bias=False)(x)
      return nn.relu6(nn.BatchNorm(use_running_average=True)(x))

    x = unit(x, 32, 3, 2)
    for t, features, count, stride in (
      (1, 16, 1, 1),
      (6, 24, 2, 2),
      (6, 32, 3, 2),
      (6, 64, 4, 2),
      (6, 96, 3, 1),
      (6, 160, 3, 2),
      (6, 320, 1, 1),
    ):
      for i in range(count):
        y = unit(x, t * x.shape[-1]) if t > 1 else x
        y = unit(y, y.shape[-1], 3, stride if i == 0 else 1, y.shape[-1])
        y = unit(y, features)
        x = x + y if y.shape == x.shape else y
    x = unit(x, 1280)
    return nn.Dense(1000)(x.mean((1, 2)))


def test_mobilenet_v2_and_the_time_to_trace_it():
  net = _InvertedResiduals()
  x = _leaf(1, 224, 224, 3)
  variables = jax.eval_shape(net.init, jax.random.key(0), x)
  seconds = {'make_jaxpr': [], 'trace_layers': []}
  for _ in range(2):
    for name, function in (
      ('make_jaxpr', jax.make_jaxpr(net.apply)),
      ('trace_layers', functools.partial(trace_layers, net.apply)),
    ):
      start = time.perf_counter()
      table = function(variables, x)
      seconds[name].append(time.perf_counter() - start)
  # 300.8 million multiply-adds and 3,504,872 parameters (torchvision's model card: 0.3 GFLOPs,
  # recalled), 34,112 and 1,000 of which are normalisation's and the classifier's bias.
  assert table.macs == 300_774_272
  assert table.weights == 3_504_872 - 34_112 - 1_000
  assert len(table) == 53
  # JAX's own tracing takes most of the time; the margin is for a busy machine.
  assert min(seconds['trace_layers']) < 3 * min(seconds['make_jaxpr']) + 0.5
