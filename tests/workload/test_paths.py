"""Path strings of the trees that dict, sequence, linen, nnx and Equinox parameters are."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey

from cnnopt_jax.workload import path_string


def _paths(tree):
  return [path_string(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


@pytest.mark.parametrize(
  'key_path, expected',
  [
    ((), ''),
    ((DictKey('Conv_0'), DictKey('kernel')), 'Conv_0/kernel'),
    ((GetAttrKey('layers'), SequenceKey(3), GetAttrKey('weight')), 'layers/3/weight'),
    ((FlattenedIndexKey(2),), '2'),
    ((DictKey('a'), GetAttrKey('value')), 'a'),
    ((DictKey('a'), DictKey('value')), 'a/value'),
    ((GetAttrKey('value'), DictKey('kernel')), 'value/kernel'),
    ((GetAttrKey('value'),), 'value'),
    ((DictKey(7), DictKey('w')), '7/w'),
  ],
)
def test_keys(key_path, expected):
  assert path_string(key_path) == expected


def test_unknown_key():
  with pytest.raises(TypeError, match='str'):
    path_string(('kernel',))


def test_plain_containers():
  tree = {'b': [jnp.zeros(1), (jnp.zeros(1),)], 'a': None, 'c': {'w': jnp.zeros(1)}}
  assert _paths(tree) == ['b/0', 'b/1/0', 'c/w']


class _Nnx(nnx.Module):
  def __init__(self, rngs):
    self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
    self.layers = nnx.List([nnx.Linear(4, 5, rngs=rngs)])


def test_nnx_forms_agree():
  model = _Nnx(nnx.Rngs(0))
  state = nnx.split(model)[1]
  expected = ['conv/bias', 'conv/kernel', 'layers/0/bias', 'layers/0/kernel']
  assert _paths(model) == _paths(state) == _paths(nnx.to_pure_dict(state)) == expected


def test_linen_boxes():
  dense = nn.Dense(2, kernel_init=nn.with_partitioning(nn.initializers.ones, (None, 'x')))
  params = jax.eval_shape(dense.init, jax.random.key(0), jnp.ones((1, 3)))
  assert _paths(params) == ['params/bias', 'params/kernel']


def test_equinox():
  model = eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0))
  arrays = eqx.filter(model, eqx.is_array)
  assert _paths(arrays) == ['layers/0/weight', 'layers/0/bias', 'layers/1/weight', 'layers/1/bias']
