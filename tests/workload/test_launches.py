"""Kernels of small programs by hand, launches of inference and training, virtual maps, bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import models, workload
from cnnopt_jax.workload import schedule, trace_layers, with_virtual_maps


def _leaf(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _flow(f, params, *args):
  return trace_layers(f, params, *args).dataflow


def _sizes(flow, kernel):
  return (
    [flow.tensors[i].elements for i in kernel.reads],
    [flow.tensors[i].elements for i in kernel.writes],
  )


def _two_layers(params, x):
  y = jnp.maximum(x @ params['a'] + params['bias'], 0) * 2
  return y @ params['b']


TWO = {'a': _leaf(6, 8), 'b': _leaf(8, 3), 'bias': _leaf(8)}


def test_elementwise_operations_fuse_between_layers():
  flow = _flow(_two_layers, TWO, _leaf(5, 6))
  assert [k.layer for k in flow.kernels] == [0, -1, 1]
  assert [_sizes(flow, k) for k in flow.kernels] == [
    ([30, 48], [40]),
    ([40], [40]),
    ([40, 24], [15]),
  ]
  assert [t.role for t in flow.tensors] == [
    'input',
    'parameter',
    'activation',
    'activation',
    'parameter',
    'activation',
  ]


def test_a_reduction_ends_a_kernel_and_shares_its_reads():
  def norm(params, x):
    y = x @ params
    mean, square = y.mean(0), (y * y).mean(0)
    return (y - mean) / jnp.sqrt(square - mean * mean)

  flow = _flow(norm, _leaf(6, 8), _leaf(5, 6))
  # Both statistics in one pass; the normalisation has to wait for them.
  assert [_sizes(flow, k) for k in flow.kernels] == [([30, 48], [40]), ([40], []), ([40], [40])]


def test_residual_sum_concatenation_and_pooling():
  def net(params, x):
    y = jnp.concatenate([x, jnp.maximum(x @ params, 0) + x], axis=-1)
    return jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')

  flow = _flow(net, _leaf(3, 3), _leaf(2, 4, 4, 3))
  # The sum and the concatenation fuse; a pool is a kernel of its own.
  assert [_sizes(flow, k) for k in flow.kernels] == [
    ([96, 9], [96]),
    ([96, 96], [192]),
    ([192], [48]),
  ]


def test_unused_results_and_views_cost_nothing():
  def net(params, x):
    jnp.exp(x @ params)
    return x.reshape(6, 5).T @ params.reshape(6, 8)

  flow = _flow(net, _leaf(6, 8), _leaf(5, 6))
  assert [_sizes(flow, k) for k in flow.kernels] == [([30, 48], [40])]


def test_loops_have_no_dataflow():
  def loop(params, x):
    return jax.lax.scan(lambda x, _: (x @ params, None), x, None, 3)[0]

  table = trace_layers(loop, _leaf(4, 4), _leaf(2, 4))
  assert table.dataflow is None and table.macs == 96
  with pytest.raises(ValueError, match='no dataflow'):
    schedule(table)


def test_launches_of_inference():
  launched = schedule(trace_layers(_two_layers, TWO, _leaf(5, 6)))
  assert [launch.kind for launch in launched.launches] == ['forward', 'elementwise', 'forward']
  assert launched.macs == 5 * (48 + 24) and launched.activations == 30 + 40 + 40 + 15


def test_launches_of_a_training_step():
  table = trace_layers(_two_layers, TWO, _leaf(5, 6))
  launched = schedule(table, training=True)

  def role(i):
    return launched.tensors[i].role, launched.tensors[i].elements

  backward = [
    (s.kind, [role(i) for i in s.reads], [role(i) for i in s.writes])
    for s in launched.launches[3:7]
  ]
  output, hidden = ('gradient', 15), ('activation', 40)
  assert backward == [
    ('weight_gradient', [output, hidden], [('parameter_gradient', 24)]),
    ('data_gradient', [output, ('parameter', 24)], [('gradient', 40)]),
    ('elementwise_gradient', [('gradient', 40), hidden], [('gradient', 40)]),
    # The input is data: no gradient of it.
    ('weight_gradient', [('gradient', 40), ('input', 30)], [('parameter_gradient', 48)]),
  ]
  assert [
    (s.path, [role(i)[1] for i in s.reads], len(s.writes)) for s in launched.launches[7:]
  ] == [
    ('a', [48] * 3, 2),
    ('b', [24] * 3, 2),
    ('bias', [8] * 3, 2),
  ]
  assert launched.macs == 3 * table.macs - table.layers[0].macs


def test_gradients_of_an_array_with_two_readers_are_added():
  def net(params, x):
    y = x @ params['a']
    return y @ params['b'] + y @ params['c']

  launched = schedule(
    trace_layers(net, {k: _leaf(4, 4) for k in 'abc'}, _leaf(3, 4)), training=True
  )
  to_y = [s for s in launched.launches if s.kind == 'data_gradient']
  assert len(to_y) == 2 and to_y[0].writes == to_y[1].writes
  assert len(to_y[0].reads) == 2 and to_y[1].reads[2:] == to_y[0].writes


def test_bytes_at_bits():
  launched = schedule(trace_layers(_two_layers, TWO, _leaf(5, 6)), training=True)

  def by_role(sizes, role):
    return sorted({(t.path, int(s)) for t, s in zip(launched.tensors, sizes) if t.role == role})

  sizes = launched.tensor_bytes(batch=3, weight_bits={'a': 3}, activation_bits=16)
  assert ('a', 18) in by_role(sizes, 'parameter') and ('b', 96) in by_role(sizes, 'parameter')
  assert by_role(sizes, 'input') == [('', 3 * 30 * 2)]
  assert ('a', 4 * 48) in by_role(sizes, 'parameter_gradient')
  with pytest.raises(KeyError, match="'z'"):
    launched.tensor_bytes(weight_bits={'z': 3})


def test_virtual_maps_joined_by_path():
  model = models.create('plain', num_classes=10)
  table = models.layer_table(model, (28, 28, 1))
  virtual = with_virtual_maps(table, ['unit1/conv', 'unit2/conv'])
  for dense, layer in zip(table, virtual):
    side = dense.output_shape[1]
    if layer.path in ('unit1/conv', 'unit2/conv'):
      assert layer.strides == tuple(2 * s for s in dense.strides)
      assert layer.output_shape[1:3] == (-(-side // 2),) * 2
      assert layer.macs * side**2 == dense.macs * layer.output_shape[1] ** 2
    else:
      assert layer == dense
  before, after = schedule(table), schedule(virtual)
  # The map that a virtual layer writes is small; what the next kernel makes of it is full.
  changed = [(a.elements, b.elements) for a, b in zip(before.tensors, after.tensors) if a != b]
  assert changed == [(14**2 * 24, 7**2 * 24), (7**2 * 32, 4**2 * 32)]
  with pytest.raises(KeyError, match='unit9'):
    with_virtual_maps(table, ['unit9/conv'])
  with pytest.raises(ValueError, match="'dense'.*allowed: conv"):
    with_virtual_maps(table, ['head/dense'])


def test_training_table_has_the_statistics_of_batch_norm():
  model = models.create('resnet8', num_classes=10)
  inference, training = (models.layer_table(model, (32, 32, 3), train=t) for t in (False, True))

  def count(table):
    return sum(k.layer < 0 for k in table.dataflow.kernels)

  assert count(training) == count(inference) + 7  # One pass for each of the seven norms.
  assert training.macs == inference.macs


@pytest.mark.parametrize(
  'name, side', [('alexnet', 227), ('squeezenet1_1', 224), ('resnet18', 224), ('mobilenet_v2', 224)]
)
def test_every_kernel_reads_what_was_written_before(name, side):
  table = models.layer_table(models.create(name, num_classes=1000), (side, side, 3))
  launched = schedule(table, training=True)
  written = set()
  for launch in launched.launches:
    for tensor in launch.reads:
      role = launched.tensors[tensor].role
      assert (
        tensor in written
        or role in ('input', 'parameter', 'momentum')
        or (role in ('gradient', 'parameter_gradient'))
      )
      if role == 'activation':
        assert tensor in written, launch
    written.update(launch.writes)
  layers = {launch.layer for launch in launched.launches if launch.kind == 'weight_gradient'}
  assert layers == set(range(len(table)))
  assert launched.macs == 3 * table.macs - table.layers[0].macs
  sizes = launched.tensor_bytes()
  assert sizes.dtype == np.int64 and (sizes > 0).all()
  assert isinstance(launched, workload.Schedule)
