"""Files of packed weights: what comes back, how many bytes they take, what is wrong with them."""

import json
import math
import os
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from flax import nnx
from safetensors import numpy as safetensors_numpy

from cnnopt_jax.quant import fake_quantize, packing
from tests.quant.packed import (
  BITS,
  apply,
  assert_same_bits,
  assert_same_trees,
  flat,
  pack_one,
  packed_net,
  planned,
  weights,
)


@pytest.fixture(scope='module')
def net():
  return packed_net()


def test_a_network(net, tmp_path):
  params, _, packed, x = net
  quantized = packing.unpack(packed)
  for path, leaf in flat(params).items():
    expected = fake_quantize(leaf, BITS.get(path, 32), levels='mid_tread', step='gaussian')
    assert_same_bits(flat(quantized)[path], expected)
  path = tmp_path / 'net.safetensors'
  packing.save(path, packed)
  loaded = packing.load(path)
  assert_same_trees(loaded, packed)
  assert_same_trees(packing.unpack(loaded), quantized)
  predict = jax.jit(lambda packed, x: apply(packing.unpack(packed), x))
  assert_same_bits(predict(loaded, x), predict(packed, x))
  assert_same_bits(jax.jit(apply)(packing.unpack(loaded), x), jax.jit(apply)(quantized, x))


def test_bytes_are_those_counted(net, tmp_path):
  params, _, packed, _ = net
  path = tmp_path / 'net.safetensors'
  size = packing.save(path, packed)
  assert size == packing.file_size(packed) and size.total == path.stat().st_size
  sizes = {path: leaf.size for path, leaf in flat(params).items()}
  assert size.codes == math.ceil(216 * 3 / 8) + 72 + math.ceil(40 / 5)
  assert size.steps == 4 * (8 + 8 + 5)
  assert size.floats == 4 * sum(n for path, n in sizes.items() if path not in BITS)
  counted = sum(math.ceil(n * BITS.get(path, 32) / 8) for path, n in sizes.items()) + size.steps
  assert size.total - size.header <= counted + 64 + len(sizes)
  assert size.header == 8 + int.from_bytes(path.read_bytes()[:8], 'little')


def test_a_file_is_the_same_each_time_and_anybody_can_open_it(net, tmp_path):
  _, _, packed, _ = net
  metadata = {'accuracy': 0.1 + 0.2, 'names': ['é', None]}
  for name in ('a', 'b'):
    packing.save(tmp_path / name, packed, metadata)
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()
  assert sorted(os.listdir(tmp_path)) == ['a', 'b']
  assert packing.load_metadata(tmp_path / 'a') == metadata
  with safetensors.safe_open(tmp_path / 'a', 'numpy') as file:
    plan = json.loads(file.metadata()['cnnopt_jax'])['plan']
    np.testing.assert_array_equal(file.get_tensor('stem/bias'), packed['stem/bias'])
    np.testing.assert_array_equal(file.get_tensor('stem/kernel#codes'), packed['stem/kernel'].codes)
  assert next(entry for entry in plan if entry['path'] == 'stem/kernel') == {
    'path': 'stem/kernel',
    'role': 'weight',
    'shape': [3, 3, 3, 8],
    'dtype': 'float32',
    'bits': 3,
    'output_axes': [3],
    'levels': 'mid_tread',
  }


@pytest.mark.parametrize('bits, levels', [(1, 'mid_rise'), (2, 'mid_tread'), (8, 'mid_tread')])
def test_steps_of_one_are_not_stored(bits, levels, tmp_path):
  stepped, values = pack_one(weights((3, 3, 5, 7)), bits, (3,), levels=levels)
  leaf = stepped.replace(steps=None)
  integers = packing.unpack_leaf(leaf)
  np.testing.assert_array_equal(integers + (levels == 'mid_rise') / 2, np.ceil(integers))
  assert_same_bits(integers * np.asarray(stepped.steps), values)
  assert_same_bits(packing.leaves.unpacked_on_host(leaf), integers)
  assert_same_trees(packing.pack_values(integers, None, bits, levels, (3,)), leaf)
  with pytest.raises(ValueError, match='not multiples of their steps'):
    packing.pack_values(values, None, bits, levels, (3,))
  structure = jax.tree.structure({'w': 0})
  one = packing.PackedParams((leaf,), ('w',), ('weight',), structure)
  size = packing.save(tmp_path / 'file', one)
  assert size == packing.file_size(one) and (size.codes, size.steps) == (leaf.codes.nbytes, 0)
  assert_same_trees(packing.load(tmp_path / 'file'), one)
  with safetensors.safe_open(tmp_path / 'file', 'numpy') as file:
    assert list(file.keys()) == ['w#codes']
    (entry,) = json.loads(file.metadata()['cnnopt_jax'])['plan']
  assert entry.pop('unit_steps') is True
  packing.save(tmp_path / 'with_steps', one.replace(leaves=(stepped,)))
  with safetensors.safe_open(tmp_path / 'with_steps', 'numpy') as file:
    assert json.loads(file.metadata()['cnnopt_jax'])['plan'] == [entry]


SMALL = {'layer': {'kernel': weights((2, 3)), 'bias': jnp.arange(3.0)}}


def small_file(path):
  plan = planned(SMALL, {'layer/kernel': (1,)})
  packed = packing.pack(SMALL, {'layer/kernel': 3, 'layer/bias': 32}, plan)
  packing.save(path, packed, {'note': 'x'})
  return path


def test_every_flipped_bit_and_every_cut_is_found(tmp_path):
  path = small_file(tmp_path / 'small.safetensors')
  content = path.read_bytes()
  for i in range(len(content)):
    flipped = content[:i] + bytes([content[i] ^ (1 << i % 8)]) + content[i + 1 :]
    for damaged in (flipped, content[:i]) if i % 8 == 0 else (flipped,):
      path.write_bytes(damaged)
      with pytest.raises(ValueError, match='small.safetensors: '):
        packing.load(path)


def rewritten(path, change):
  """A small file with its tensors and plan changed, which a checksum cannot tell beforehand."""
  small_file(path)
  with safetensors.safe_open(path, 'numpy') as file:
    tensors = {name: file.get_tensor(name) for name in file.keys()}
    content = json.loads(file.metadata()['cnnopt_jax'])
  strings = change(tensors, content) or {'cnnopt_jax': json.dumps(content)}
  safetensors_numpy.save_file(tensors, path, strings)


KERNEL = 'layer/kernel'


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda t, c: t.pop(f'{KERNEL}#steps'), "tensor 'layer/kernel#steps' is missing"),
    (lambda t, c: t.update(more=t['layer/bias']), "tensor 'more' is not in its plan"),
    (
      lambda t, c: t.update({f'{KERNEL}#codes': np.zeros(4, np.uint8)}),
      r"'layer/kernel#codes' is U8 \(4,\); its plan says U8 \(3,\)",
    ),
    (
      lambda t, c: t.update({'layer/bias': np.zeros(3, np.float16)}),
      r"'layer/bias' is F16 \(3,\); its plan says F32 \(3,\)",
    ),
    (lambda t, c: c['plan'][1].update(bits=8), r'U8 \(3,\); its plan says U8 \(6,\)'),
    (lambda t, c: c['plan'][1].update(bits=12), 'bits=12'),
    (lambda t, c: c['plan'][1].update(output_axes=[2]), 'output_axes'),
    (lambda t, c: c['plan'][1].update(shape=[2, -3]), 'shape'),
    (lambda t, c: c['plan'][1].update(dtype='int32'), 'floating-point'),
    (lambda t, c: c['plan'][1].update(unit_steps=1), 'unit_steps=1; allowed: true, or false'),
    (
      lambda t, c: c['plan'][1].update(unit_steps=True),
      "tensor 'layer/kernel#steps' is not in its plan",
    ),
    (lambda t, c: c['plan'][1].update(levels='mid_rise'), 'checksum is wrong'),
    (lambda t, c: c['plan'][0].pop('role'), "lack an entry.*'role'"),
    (lambda t, c: c.update(format='2'), "format='2'; allowed"),
    (lambda t, c: c['metadata'].update(note='y'), 'checksum is wrong'),
    (lambda t, c: t.update({'layer/bias': t['layer/bias'] + 1}), 'checksum is wrong'),
    (lambda t, c: {'cnnopt_jax': '{"plan'}, 'its metadata are no JSON'),
    (lambda t, c: {'cnnopt_jax': '[]'}, 'lack an entry'),
    (lambda t, c: {'other': 'x'}, "no 'cnnopt_jax' in its metadata"),
  ],
)
def test_a_file_that_does_not_hold_together_is_refused(tmp_path, change, message):
  path = tmp_path / 'file'
  rewritten(path, lambda *given: found if isinstance(found := change(*given), dict) else None)
  with pytest.raises(ValueError, match=f'file: .*{message}'):
    packing.load(path)


def test_foreign_files_are_refused(tmp_path):
  path = tmp_path / 'file'
  with open(path, 'wb') as file:
    np.savez(file, a=np.zeros(3))
  zipped = path.read_bytes()
  for content in (b'', b'{}', pickle.dumps(SMALL), zipped, bytes(1000), os.urandom(1000)):
    path.write_bytes(content)
    for read in (packing.load, packing.load_metadata):
      with pytest.raises(ValueError, match='file: no safetensors file, or cut off'):
        read(path)
  path.write_bytes(safetensors_numpy.save({'a': np.zeros(3)}))
  with pytest.raises(ValueError, match="file: .*no 'cnnopt_jax' in its metadata"):
    packing.load(path)
  with pytest.raises(FileNotFoundError):
    packing.load(tmp_path / 'none')


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
  path = small_file(tmp_path / 'file')
  content = path.read_bytes()
  packed = packing.load(path)
  with pytest.raises(ValueError, match='metadata: .*allowed: what JSON can hold'):
    packing.save(path, packed, {'x': {1, 2}})
  with pytest.raises(ValueError, match='layer/bias: dtype=complex128; allowed: bool'):
    complex_leaf = packed.replace(leaves=(np.zeros(3, complex), packed.leaves[1]))
    packing.save(path, complex_leaf)
  with pytest.raises(ValueError, match='layer/bias: no array of numbers'):
    packing.save(path, packed.replace(leaves=(jax.random.key(0), packed.leaves[1])))
  (tmp_path / 'folder').mkdir()
  with pytest.raises(OSError):
    packing.save(tmp_path / 'folder', packed)
  assert path.read_bytes() == content
  assert sorted(os.listdir(tmp_path)) == ['file', 'folder']


def test_any_leaf_and_any_structure(tmp_path):
  params = {
    'list': [weights((4, 3), seed=i) for i in range(11)],
    'kinds': (
      jnp.asarray([[1.5, -0.0]], jnp.bfloat16).T,
      np.array([True, False]),
      np.arange(6, dtype=np.int64).reshape(2, 3)[:, ::2],
      np.float64(0.1),
      jnp.zeros((0, 2)),
      np.float16(-0.0),
    ),
    'stack': weights((2, 4, 3)),
  }
  axes = {f'list/{i}': (1,) for i in range(11)} | {'stack': (0, 2)}
  bits = dict.fromkeys(flat(params), 32) | {f'list/{i}': 3 for i in range(11)}
  bits['stack'] = np.array([3, 32])
  packed = packing.pack(params, bits, planned(params, axes))
  packing.save(tmp_path / 'file', packed)
  like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.float32), params)
  assert_same_trees(packing.load(tmp_path / 'file', like), packed)
  assert_same_trees(packing.unpack(packing.load(tmp_path / 'file', like)), packing.unpack(packed))
  nested = packing.unpack(packing.load(tmp_path / 'file'))
  assert_same_trees(nested['list'], {str(i): packing.unpack(packed)['list'][i] for i in range(11)})
  with pytest.raises(ValueError, match="file: path='more' is only in like"):
    packing.load(tmp_path / 'file', {**like, 'more': 0})
  with pytest.raises(ValueError, match=r'file: stack is \(2, 4, 3\) in the file and \(\) in like'):
    packing.load(tmp_path / 'file', {**like, 'stack': 0})
  one = packing.pack(weights(), {'': 4}, planned(weights(), {'': (3,)}))
  packing.save(tmp_path / 'one', one)
  assert_same_trees(packing.load(tmp_path / 'one'), one)
  none = packing.pack({}, {}, planned({}, {}))
  packing.save(tmp_path / 'none', none)
  assert packing.unpack(packing.load(tmp_path / 'none')) == {}


def test_paths_that_no_nested_dict_has_load_like_a_tree(tmp_path):
  params = {'a': jnp.zeros(2), 'a/b': jnp.ones(3)}
  packing.save(tmp_path / 'file', packing.pack(params, {'a': 32, 'a/b': 32}, planned(params, {})))
  with pytest.raises(ValueError, match="file: path='a/b' leads through another leaf.*like"):
    packing.load(tmp_path / 'file')
  assert_same_trees(packing.unpack(packing.load(tmp_path / 'file', params)), params)
  collide = {'a': weights((2, 3)), 'a#codes': jnp.zeros(2)}
  packed = packing.pack(collide, {'a': 4, 'a#codes': 32}, planned(collide, {'a': (1,)}))
  with pytest.raises(ValueError, match="the name 'a#codes' is taken"):
    packing.save(tmp_path / 'file', packed)


def test_nnx(tmp_path):
  graph, state = nnx.split(nnx.Linear(4, 3, rngs=nnx.Rngs(0)))
  bits = {'kernel': 4, 'bias': 32}
  packed = packing.pack(state, bits, planned(state, {'kernel': (1,)}))  # By 'mse'.
  packing.save(tmp_path / 'file', packed)
  unpacked = packing.unpack(packing.load(tmp_path / 'file', state))
  expected = fake_quantize(flat(state)['kernel'], 4)
  np.testing.assert_allclose(flat(unpacked)['kernel'], expected, rtol=1e-3)
  assert nnx.merge(graph, unpacked)(jnp.ones((1, 4))).shape == (1, 3)
