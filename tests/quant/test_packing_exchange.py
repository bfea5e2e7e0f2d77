"""Packed weights in other hands: qwix, and JAX without this library."""

import subprocess
import sys
import sysconfig

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax.quant import packing
from tests.quant.packed import (
  apply,
  assert_same_bits,
  assert_same_trees,
  pack_one,
  packed_net,
  planned,
  weights,
)


def test_qwix():
  qwix = pytest.importorskip('qwix')
  w = weights((20, 6))
  largest = np.abs(w).max(0)
  for bits in range(2, 9):
    theirs = qwix.quantize(w, f'int{bits}', channelwise_axes=(1,))
    leaf = packing.from_qwix(theirs)
    assert_same_bits(packing.unpack_leaf(leaf), qwix.dequantize(theirs))
    back = packing.to_qwix(leaf)
    assert back.qvalue.dtype == theirs.qvalue.dtype
    assert_same_bits(back.qvalue.astype(jnp.int8), theirs.qvalue.astype(jnp.int8))
    assert_same_bits(back.scale, theirs.scale)
    # Their grid ends half a step beyond the largest magnitude, ours at it.
    np.testing.assert_allclose(theirs.scale[0] * (2 ** (bits - 1) - 0.5), largest, rtol=1e-6)
    ours, values = pack_one(w, bits, (1,), levels='mid_tread', step='absmax')
    np.testing.assert_allclose(ours.steps * (2 ** (bits - 1) - 1), largest, rtol=1e-6)
    assert_same_bits(qwix.dequantize(packing.to_qwix(ours)), values)
    assert_same_trees(packing.from_qwix(packing.to_qwix(ours)), ours)
    folded = packing.to_qwix(ours.replace(steps=None))
    assert_same_bits(qwix.dequantize(folded), packing.unpack_leaf(ours.replace(steps=None)))
    # On one grid, rounding agrees.
    lowest = -(2 ** (bits - 1))
    scaled = jnp.round(w / theirs.scale).clip(lowest, -lowest - 1)
    np.testing.assert_array_equal(theirs.qvalue.astype(jnp.float32), scaled)
  for bits in range(1, 8):
    ours, values = pack_one(w, bits, (1,), levels='mid_rise')
    assert_same_bits(qwix.dequantize(packing.to_qwix(ours)), values)
    assert_same_bits(packing.unpack_leaf(packing.from_qwix(packing.to_qwix(ours))), values)


def test_qwix_arrays_of_other_kinds_are_refused():
  qwix = pytest.importorskip('qwix')
  w = weights((20, 6))
  with pytest.raises(ValueError, match='8 with mid-rise levels; allowed: 1 to 7'):
    packing.to_qwix(pack_one(w, 8, (1,), levels='mid_rise')[0])
  with pytest.raises(ValueError, match='zero_point'):
    packing.from_qwix(qwix.quantize(w, 'int4', calibration_method='minmax'))
  with pytest.raises(ValueError, match='qtype=float8_e4m3fn; allowed: int2 to int8'):
    packing.from_qwix(qwix.quantize(w, jnp.float8_e4m3fn))
  with pytest.raises(ValueError, match=r'scale of shape \(5, 1\)'):
    packing.from_qwix(qwix.quantize(w, jnp.int8, tiled_axes={0: 4}))


FRESH = """
import sys
sys.path.append(sys.argv[1])
import importlib.util
assert importlib.util.find_spec('cnnopt_jax') is None
import jax, numpy as np
network = jax.export.deserialize(bytearray(open('network', 'rb').read()))
np.save('y.npy', network.call(np.load('x.npy')))
"""


def test_an_exported_network_runs_without_this_library(tmp_path):
  pytest.importorskip('flatbuffers')
  _, _, packed, x = packed_net()
  serialized = packing.export(apply, packed, (x,))
  (tmp_path / 'network').write_bytes(serialized)
  np.save(tmp_path / 'x.npy', x)
  # Isolated and without `site`, so that packages installed in place are not found.
  site = sysconfig.get_paths()['purelib']
  subprocess.run([sys.executable, '-I', '-S', '-c', FRESH, site], cwd=tmp_path, check=True)
  expected = jax.jit(apply)(packing.unpack(packed), x)
  np.testing.assert_array_equal(np.load(tmp_path / 'y.npy'), expected)


def test_an_exported_network_holds_few_bits_and_takes_any_batch():
  export = pytest.importorskip('flatbuffers') and jax.export
  params = {'w': weights((300, 400))}
  packed = packing.pack(params, {'w': 2}, planned(params, {'w': (1,)}))
  spec = jax.ShapeDtypeStruct(export.symbolic_shape('n, 300'), jnp.float32)
  serialized = packing.export(lambda params, x: x @ params['w'], packed, (spec,))
  assert 30_000 + 1600 < len(serialized) < 30_000 + 1600 + 10_000
  for n in (1, 3):
    x = weights((n, 300), seed=n)
    np.testing.assert_allclose(
      export.deserialize(bytearray(serialized)).call(x),
      x @ packing.unpack(packed)['w'],
      rtol=1e-5,
      atol=1e-4,
    )
