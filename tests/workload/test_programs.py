"""Programs within the program: jit, vmap, remat, scan, cond, while; and what is refused."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive

from cnnopt_jax.workload import UnboundedLoopError, UnknownPrimitiveError, trace_layers
from cnnopt_jax.workload.primitives import CALLS, FREE


def _leaf(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _conv(x, w, **kwargs):
  return lax.conv_general_dilated(
    x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **kwargs
  )


@pytest.mark.parametrize(
  'wrap',
  [
    jax.jit,
    jax.checkpoint,
    lambda f: jax.jit(jax.checkpoint(jax.jit(f))),
    lambda f: jax.named_call(f, name='stage'),
  ],
)
def test_calls(wrap):
  @wrap
  def inner(w, x):
    return _conv(x, w)

  table = trace_layers(
    lambda p, x: inner(p['b'], inner(p['a'], x)),
    {'a': _leaf(3, 3, 4, 4), 'b': _leaf(1, 1, 4, 4)},
    _leaf(1, 5, 5, 4),
  )
  assert [(row.weight, row.macs) for row in table] == [('a', 25 * 4 * 36), ('b', 25 * 4 * 4)]


def test_vmap_over_images():
  def f(params, x):
    return _conv(x[None], params['w'])[0].mean((0, 1)) @ params['v']

  params = {'w': _leaf(3, 3, 4, 6), 'v': _leaf(6, 7)}
  table = trace_layers(jax.vmap(f, (None, 0)), params, _leaf(8, 5, 5, 4))
  assert table.macs == 8 * (25 * 6 * 36 + 6 * 7)
  assert [row.weight for row in table] == ['w', 'v']
  assert [row.output_channels for row in table] == [6, 7]


def test_vmap_over_an_ensemble():
  table = trace_layers(
    jax.vmap(lambda p, x: _conv(x, p['w']).reshape(-1) @ p['v']),
    {'w': _leaf(3, 3, 3, 4, 6), 'v': _leaf(3, 150, 7)},
    _leaf(3, 1, 5, 5, 4),
  )
  assert [row.weight for row in table] == ['w', 'v']
  assert [row.groups for row in table] == [3, 3]
  assert [row.output_channels for row in table] == [18, 21]
  assert table.macs == 3 * (25 * 6 * 36 + 150 * 7)


def test_scan_over_stacked_weights():
  def f(params, x):
    def step(x, layer):
      return jnp.tanh(x @ jnp.round(layer['w']) + layer['b']) @ params['shared'], None

    return lax.scan(step, x, params['layers'])[0]

  params = {'layers': {'w': _leaf(5, 4, 4), 'b': _leaf(5, 4)}, 'shared': _leaf(4, 4)}
  stacked, shared = table = trace_layers(f, params, _leaf(2, 4))
  assert (stacked.weight, stacked.count, stacked.macs) == ('layers/w', 5, 5 * 2 * 16)
  assert (stacked.kernel_shape, stacked.weights, stacked.output_channels) == ((4, 4), 80, 20)
  assert (shared.weight, shared.count, shared.macs, shared.weights) == ('shared', 5, 160, 16)
  assert [p.role for p in table.parameters] == ['bias', 'weight', 'weight']
  assert table.weights == 96


def test_scans_in_a_scan():
  def f(params, x):
    def outer(x, layers):
      return lax.scan(lambda x, w: (x @ w, None), x, layers)[0], None

    return lax.scan(outer, x, params)[0]

  (row,) = trace_layers(f, {'w': _leaf(2, 3, 4, 4)}['w'], _leaf(1, 4))
  assert (row.count, row.macs, row.weights, row.weight) == (6, 96, 96, '')


def test_scan_hands_leaves_through_and_ends_with_growing_origins():
  def f(params, x):
    # Quantized slice by slice, then used whole.
    _, q = lax.scan(lambda c, w: (c, jnp.round(w)), 0.0, params['w'])

    # What is carried is a sum of what it was: each pass of the inner scan cuts it into slices.
    def outer(c, _):
      total, _ = lax.scan(lambda s, row: (s + row, None), jnp.zeros(4), c)
      return jnp.broadcast_to(total, (4, 4)), None

    mixed, _ = lax.scan(outer, params['v'], None, length=6)
    return x @ q, x @ (x.T @ x + mixed)

  table = trace_layers(f, {'w': _leaf(4, 3), 'v': _leaf(4, 4)}, _leaf(2, 4))
  assert table.layers[0].weight == 'w' and table.layers[0].weights == 12
  assert [row.kind for row in table] == ['dense', 'matmul', 'matmul']


def test_cond_counts_the_costliest_branch():
  def f(params, x):
    return lax.switch(
      jnp.int32(x.sum()),
      [lambda: x @ params['a'], lambda: (x @ params['b']) @ params['c'], lambda: x * 2],
    )

  table = trace_layers(f, {'a': _leaf(4, 4), 'b': _leaf(4, 9), 'c': _leaf(9, 4)}, _leaf(3, 4))
  assert [row.weight for row in table] == ['b', 'c'] and table.macs == 3 * 72


def test_while():
  def f(body):
    return lambda w, x: lax.while_loop(lambda x: x.sum() < 9, lambda x: body(w, x), x)

  assert trace_layers(f(lambda w, x: w + x), _leaf(4, 4), _leaf(4, 4)).macs == 0
  with pytest.raises(UnboundedLoopError, match="while at 'stage' multiplies and accumulates"):
    trace_layers(jax.named_scope('stage')(f(lambda w, x: x @ w)), _leaf(4, 4), _leaf(4, 4))
  with pytest.raises(ValueError, match='fixed length'):
    trace_layers(
      lambda w, x: lax.while_loop(lambda x: (x @ w).sum() < 9, jnp.sin, x), _leaf(4, 4), _leaf(4, 4)
    )
  (row,) = trace_layers(
    lambda w, x: lax.fori_loop(0, 7, lambda _, x: x @ w, x), _leaf(4, 4), _leaf(1, 4)
  )
  assert (row.count, row.macs) == (7, 112)


@pytest.mark.parametrize(
  'name, function',
  [
    ('fft', jnp.fft.fft),
    ('cholesky', jnp.linalg.cholesky),
    ('pure_callback', lambda x: jax.pure_callback(lambda x: x, x, x)),
    ('triangular_solve', lambda x: lax.linalg.triangular_solve(x, x, left_side=True)),
  ],
)
def test_unknown_primitives(name, function):
  @jax.jit
  def f(params, x):
    with jax.named_scope('Mixer_0'):
      return function(x)

  with pytest.raises(UnknownPrimitiveError, match=f"{name} at 'Mixer_0'"):
    trace_layers(f, {}, _leaf(4, 4))


def _own_convolution(**params):
  primitive = Primitive('cnnopt_conv')

  @primitive.def_abstract_eval
  def _(x, w, *, target, **kwargs):
    return ShapedArray((2, 5, 5, 6), x.dtype)

  numbers = lax.conv_dimension_numbers((2, 5, 5, 4), (3, 3, 2, 6), ('NHWC', 'HWIO', 'NHWC'))
  return lambda x, w: primitive.bind(
    x,
    w,
    window_strides=(1, 1),
    padding=((1, 1), (1, 1)),
    lhs_dilation=(1, 1),
    rhs_dilation=(1, 1),
    dimension_numbers=numbers,
    feature_group_count=2,
    batch_group_count=1,
    precision=None,
    preferred_element_type=None,
    **params,
  )


def test_own_convolution_counts_as_jax_does():
  params, x = {'w': _leaf(3, 3, 2, 6)}, _leaf(2, 5, 5, 4)
  (own,) = trace_layers(lambda p, x: _own_convolution(target='out')(x, p['w']), params, x)
  (reference,) = trace_layers(lambda p, x: _conv(x, p['w'], feature_group_count=2), params, x)
  assert own == reference and own.macs == 2 * 25 * 6 * 18
  with pytest.raises(UnknownPrimitiveError, match='cnnopt_conv'):
    trace_layers(lambda p, x: _own_convolution(target='lhs')(x, p['w']), params, x)


def test_gradients_cost_twice_the_layer():
  def loss(params, x):
    x = jax.nn.relu(_conv(x, params['a'], feature_group_count=2))
    return (x.reshape(2, -1) @ params['b']).sum()

  params, x = {'a': _leaf(1, 1, 2, 6), 'b': _leaf(150, 7)}, _leaf(2, 5, 5, 4)
  forward = trace_layers(loss, params, x)
  table = trace_layers(jax.grad(loss, (0, 1)), params, x)
  # With a 1x1 kernel nothing is padded, and each of the two gradients costs what the layer does.
  assert forward.macs == 2 * (25 * 6 * 2 + 150 * 7)
  assert table.macs == 3 * forward.macs
  assert {p.path: p.role for p in table.parameters} == {'a': 'weight', 'b': 'weight'}


def test_lists_do_not_overlap():
  assert not FREE & set(CALLS)
  assert not FREE & {'conv_general_dilated', 'dot_general', 'cnnopt_conv', 'scan', 'while', 'cond'}


def test_every_public_primitive_is_decided():
  # A primitive that a new version of JAX adds belongs in one of these lists.
  refused = {
    'all_gather',
    'all_to_all',
    'axis_index',
    'custom_linear_solve',
    'fft',
    'pmax',
    'pmin',
    'ppermute',
    'psum',
    'ragged_all_to_all',
    'ragged_dot_general',
    'reduce_scatter',
  }
  handled = FREE | set(CALLS) | {'conv_general_dilated', 'dot_general', 'scan', 'while', 'cond'}
  public = {primitive.name for name, primitive in vars(lax).items() if name.endswith('_p')}
  assert len(public) > 100
  assert public <= handled | refused
  assert not handled & refused
