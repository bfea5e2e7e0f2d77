"""Columns, joins, totals and the printed form of a table, and the arguments of the tracer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax.workload import LayerTable, trace_layers


def _leaf(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _table():
  def f(params, x):
    for layer in params['layers']:
      x = x @ layer['w'] + layer['b']
    return x @ x.T

  layers = [{'w': _leaf(4, 6), 'b': _leaf(6)}, {'w': _leaf(6, 3), 'b': _leaf(3)}]
  return trace_layers(f, {'layers': layers, 'unused': _leaf(2, 2)}, _leaf(2, 4))


def test_columns():
  table = _table()
  assert len(table) == 3 and [row.kind for row in table] == ['dense', 'dense', 'matmul']
  np.testing.assert_array_equal(table.column('macs'), [48, 36, 12])
  np.testing.assert_array_equal(table.column('fan_in'), [4, 6, 3])
  np.testing.assert_array_equal(table.column('input_elements'), [8, 12, 6])
  np.testing.assert_array_equal(table.column('output_elements'), [12, 6, 4])
  assert table.column('macs').dtype == table.column('output_elements').dtype == np.int64
  assert table.column('weight').tolist() == ['layers/0/w', 'layers/1/w', None]
  assert table.column('input_shape').tolist() == [(2, 4), (2, 6), (2, 3)]
  with pytest.raises(ValueError, match="no column 'flops'"):
    table.column('flops')


def test_identity_of_every_row():
  table = _table()
  np.testing.assert_array_equal(
    table.column('macs'),
    table.column('output_elements') * table.column('fan_in') * table.column('count'),
  )


def test_join():
  table = _table()
  bits = {'layers/0/w': 4, 'layers/1/w': 2, 'layers/1/b': 32}
  np.testing.assert_array_equal(table.join(bits, 32), [4, 2, 32])
  assert (table.column('weights') * table.join(bits, 0)).sum() == 24 * 4 + 18 * 2
  np.testing.assert_array_equal(
    table.join({'layers/1': True}, False, on='path'), [False, True, False]
  )
  with pytest.raises(KeyError, match='layers/2/w'):
    table.join({'layers/2/w': 4}, 32)
  with pytest.raises(KeyError, match='layers/9'):
    table.join({'layers/9': 4}, 32, on='path')
  with pytest.raises(ValueError, match='kind'):
    table.join({}, 32, on='kind')


def test_totals_and_parameters():
  table = _table()
  assert table.macs == 96 and table.weights == 42
  assert [(p.path, p.role, p.size) for p in table.parameters] == [
    ('layers/0/b', 'bias', 6),
    ('layers/0/w', 'weight', 24),
    ('layers/1/b', 'bias', 3),
    ('layers/1/w', 'weight', 18),
    ('unused', 'other', 4),
  ]
  assert table.parameters[0].dtype == 'float32'


def test_printed_form():
  assert str(_table()).splitlines() == [
    'layer     kind    input  kernel  output  groups  times  weights  MACs',
    '---------------------------------------------------------------------',
    'layers/0  dense   2x4    4x6     2x6          1      1       24    48',
    'layers/1  dense   2x6    6x3     2x3          1      1       18    36',
    '          matmul  2x3    3x2     2x2          1      1        0    12',
    '---------------------------------------------------------------------',
    'total                                                        42    96',
  ]


def test_empty_table():
  table = trace_layers(lambda p, x: x + 1, {}, _leaf(3))
  assert table == LayerTable((), ()) and table.macs == table.weights == 0
  assert table.column('macs').shape == (0,) and table.join({}, 1).shape == (0,)
  assert 'total' in str(table)


def test_arguments():
  def f(params, x, flag, *, scale, name):
    assert flag is True and scale == 2 and name == 'net' and params['act'] is jnp.tanh
    return {'out': params['act'](x @ params['w']) * scale, 'name': name}

  params = {'w': np.ones((4, 3), np.float32), 'act': jnp.tanh}
  table = trace_layers(f, params, jnp.ones((2, 4)), True, scale=2, name='net')
  assert table.macs == 24 and [p.path for p in table.parameters] == ['w']


def test_nothing_is_executed():
  # A terabyte of weights.
  table = trace_layers(lambda w, x: x @ w, _leaf(2**19, 2**19), _leaf(2**10, 2**19))
  assert table.macs == 2**48 and table.weights == 2**38


def test_equal_paths_are_an_error():
  with pytest.raises(ValueError, match="path 'a/b'"):
    trace_layers(lambda p, x: x, {'a': {'b': _leaf(2)}, 'a/b': _leaf(2)}, _leaf(1))
