"""Packed weights, byte for byte: codes against NumPy's bits, values against `fake_quantize`."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax.quant import fake_quantize, packing, quantize_params
from tests.quant.packed import (
  BITS,
  assert_same_bits,
  assert_same_trees,
  pack_one,
  packed_net,
  planned,
  weights,
)

SIZES = (0, 1, 9, 1003)


def numpy_pack(codes, bits):
  """NumPy's bits, lowest first."""
  stream = np.unpackbits(codes.reshape(-1, 1), axis=1, bitorder='little')[:, :bits]
  return np.packbits(stream.ravel(), bitorder='little')


@pytest.mark.parametrize('bits', range(1, 9))
def test_codes_are_a_stream_of_bits(bits):
  rng = np.random.default_rng(bits)
  for shape in [*[(size,) for size in SIZES], (), (3, 5, 7)]:
    codes = rng.integers(0, 2**bits, shape, dtype=np.uint8)
    packed = packing.pack_codes(codes, bits)
    np.testing.assert_array_equal(packed, numpy_pack(codes, bits), strict=True)
    assert packed.size == math.ceil(codes.size * bits / 8)
    np.testing.assert_array_equal(packing.unpack_codes(packed, bits, shape), codes, strict=True)


def test_codes_by_hand():
  assert packing.pack_codes(jnp.asarray([1, 2, 3]), 3).tolist() == [
    1 + (2 << 3) + (3 << 6) & 255,
    0,
  ]
  assert packing.pack_codes(jnp.asarray([[1, 0], [1, 1]]), 1).tolist() == [0b1101]
  assert packing.pack_ternary(jnp.asarray([2, 1, 0, 0, 1, 2])).tolist() == [2 + 3 + 81, 2]


def test_ternary_codes_are_digits_of_base_three():
  everything = np.arange(243, dtype=np.uint8)
  digits = everything[:, None] // 3 ** np.arange(5) % 3
  np.testing.assert_array_equal(packing.pack_ternary(digits), everything, strict=True)
  np.testing.assert_array_equal(packing.unpack_ternary(everything, (243, 5)), digits)
  for size in SIZES:
    packed = packing.pack_ternary(digits.ravel()[:size])
    assert packed.shape == (math.ceil(size / 5),)
    np.testing.assert_array_equal(packing.unpack_ternary(packed, (size,)), digits.ravel()[:size])


def test_codes_that_are_not_allowed_are_refused():
  for bits in (0, 9, True):
    with pytest.raises(ValueError, match='bits=.*allowed: 1 to 8'):
      packing.pack_codes(jnp.zeros(3), bits)
  for packed in (jnp.zeros(4, jnp.uint8), jnp.zeros(3, jnp.int8)):
    with pytest.raises(ValueError, match=r'allowed: uint8 \(3,\) for 3 bits of shape \(2, 4\)'):
      packing.unpack_codes(packed, 3, (2, 4))
  with pytest.raises(ValueError, match=r'allowed: uint8 \(2,\) for ternary'):
    packing.unpack_ternary(jnp.zeros(3, jnp.uint8), (8,))


@pytest.mark.parametrize('levels', ['auto', 'mid_tread', 'mid_rise'])
@pytest.mark.parametrize('bits', range(1, 9))
def test_values_are_those_of_fake_quantize(bits, levels):
  if (bits, levels) == (1, 'mid_tread'):
    return
  w = weights()
  mid_rise = levels == 'mid_rise' or (levels == 'auto' and bits <= 2)
  leaf, values = pack_one(w, bits, (3,), levels=levels)
  assert_same_bits(values, fake_quantize(w, bits, levels=levels))
  ternary = bits == 2 and not mid_rise
  assert leaf.codes.nbytes == math.ceil(w.size / 5 if ternary else w.size * bits / 8)
  assert leaf.steps.nbytes == 4 * 6
  # The codes are those of the definition.
  count = 2**bits if mid_rise else 2**bits - 1
  unpack = packing.unpack_ternary if ternary else lambda b, s: packing.unpack_codes(b, bits, s)
  codes = np.asarray(unpack(leaf.codes, leaf.shape)) - (count - 1) / 2
  np.testing.assert_allclose(codes * np.asarray(leaf.steps), values, rtol=1e-6)
  assert len(np.unique(codes)) == count or bits > 4


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16, jnp.float64])
def test_types(dtype):
  with jax.enable_x64(dtype is jnp.float64):
    for bits, step in ((2, 'absmax'), (8, 'gaussian')):
      w = weights(dtype=dtype)
      leaf, values = pack_one(w, bits, (3,), step=step)
      assert_same_bits(values, fake_quantize(w, bits, step=step))
      assert leaf.steps.dtype == jnp.promote_types(dtype, jnp.float32)
  if dtype is jnp.float64:
    with pytest.raises(ValueError, match='dtype=float64; allowed: with jax_enable_x64'):
      packing.unpack_leaf(leaf)


@pytest.mark.parametrize('axes', [(), (0,), (0, 3), (1, 2)])
def test_axes(axes):
  w = weights()
  step = 'mse' if axes == (0, 3) else 'gaussian'
  leaf, values = pack_one(w, 3, axes, step=step)
  # Two programs may round a sum, and so a step, otherwise.
  np.testing.assert_allclose(values, fake_quantize(w, 3, channel_axis=axes, step=step), rtol=1e-6)
  assert leaf.steps.size == math.prod(w.shape[axis] for axis in axes)
  scalar = jnp.float32(0.3)
  assert_same_bits(pack_one(scalar, 3, ())[1], fake_quantize(scalar, 3, channel_axis=()))


@pytest.mark.parametrize('levels', ['mid_tread', 'mid_rise'])
def test_zeros_and_extremes(levels):
  columns = [[0, -0.0, 0], [1e-30, -1e-30, 0], [1e-39, -1e-39, 0], [-1e-45, 0, 0], [1e30, -1, 1]]
  for dtype in (jnp.float32, jnp.float16):
    largest = float(jnp.finfo(dtype).max)
    w = jnp.asarray(np.minimum(np.array(columns).T, largest), dtype)
    for bits in (2, 8):
      assert_same_bits(
        pack_one(w, bits, (1,), levels=levels)[1], fake_quantize(w, bits, levels=levels)
      )


def test_a_stack_has_a_bitwidth_for_each_layer():
  w = weights((4, 3, 3, 5, 6))
  bits = np.array([4, 2, 32, 8])
  plan = planned({'w': w}, {'w': (0, 4)}, stack_axes=1)
  packed = packing.pack({'w': w}, {'w': bits}, plan)
  assert_same_trees(packing.unpack(packed), quantize_params({'w': w}, {'w': bits}, plan))
  for layer, width, values in zip(w, bits.tolist(), packing.unpack(packed)['w'], strict=True):
    np.testing.assert_allclose(values, fake_quantize(layer, width), rtol=1e-6)
  n = w[0].size
  sizes = [part.nbytes for part in jax.tree.leaves(packed)]
  assert sizes == [math.ceil(n / 2), 24, math.ceil(n / 4), 24, 4 * n, n, 24]


def test_a_network_has_the_values_that_it_is_quantized_to():
  params, plan, packed, _ = packed_net()
  assert_same_trees(packing.unpack(packed), quantize_params(params, BITS, plan))
  assert_same_trees(jax.jit(packing.unpack)(packed), packing.unpack(packed))
  assert_same_trees(packing.unpack_on_host(packed), packing.unpack(packed))


def test_values_off_the_grid_are_refused():
  with pytest.raises(ValueError, match='not multiples of their steps'):
    packing.pack_values(weights(), jnp.ones(6), 4, 'mid_tread', (3,))


def test_what_cannot_be_packed_is_named():
  params = {'a': {'kernel': weights()}, 'b': jnp.zeros(3)}
  plan = planned(params, {'a/kernel': (3,)})
  bits = {'a/kernel': 4, 'b': 32}
  with pytest.raises(ValueError, match="path='b' is only in the plan"):
    packing.pack({'a': params['a']}, bits, plan)
  with pytest.raises(ValueError, match=r'a/kernel.*the plan has \(3, 3, 5, 6\)'):
    packing.pack({**params, 'a': {'kernel': weights((3, 3, 5, 7))}}, bits, plan)
  with pytest.raises(ValueError, match="bits has none for 'a/kernel'"):
    packing.pack(params, {'b': 32}, plan)
  with pytest.raises(ValueError, match="bits.'a/kernel'.=9; allowed: .*1 to 8"):
    packing.pack(params, {**bits, 'a/kernel': 9}, plan)
  with pytest.raises(ValueError, match='a/kernel.*shape .2,.; allowed: a scalar'):
    packing.pack(params, {**bits, 'a/kernel': np.array([4, 4])}, plan)
  with pytest.raises(ValueError, match='a/kernel.*not all values are finite'):
    packing.pack({**params, 'a': {'kernel': weights().at[0].set(jnp.nan)}}, bits, plan)
  with pytest.raises(ValueError, match="two leaves have the path 'a/b'"):
    packing.pack({'a/b': 1.0, 'a': {'b': 1.0}}, bits, plan)


@pytest.mark.parametrize(
  'bits, levels', [(b, 'mid_rise') for b in range(1, 9)] + [(2, 'mid_tread')]
)
def test_numpy_packs_and_unpacks_to_the_same_bytes(bits, levels):
  w = weights((3, 7, 5))
  leaf = pack_one(w, bits, (2,), levels=levels)[0]
  codes = packing.leaves.codes_of(leaf)
  again = packing.pack_ternary(codes) if leaf.is_ternary else packing.pack_codes(codes, bits)
  np.testing.assert_array_equal(leaf.codes, again)
  assert_same_bits(packing.leaves.unpacked_on_host(leaf), packing.unpack_leaf(leaf))
