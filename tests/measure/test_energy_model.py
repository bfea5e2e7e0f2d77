"""The model of energy, against sums done by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import measure
from cnnopt_jax.workload import trace_layers


def conv(x, kernel, stride=1):
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


@functools.cache
def chain(side=8):
  """Three 3x3 convolutions, 3 to 4 to 5 to 6 channels, and a dense layer; a batch of 2."""

  def net(params, x):
    for name in 'abc':
      x = jax.nn.relu(conv(x, params[name]['kernel']))
    return x.mean((1, 2)) @ params['d']['kernel']

  shape = lambda *sizes: {'kernel': jax.ShapeDtypeStruct(sizes, jnp.float32)}
  params = {
    'a': shape(3, 3, 3, 4),
    'b': shape(3, 3, 4, 5),
    'c': shape(3, 3, 5, 6),
    'd': shape(6, 7),
  }
  return trace_layers(net, params, jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32))


MACS = np.array([128 * 27 * 4, 128 * 36 * 5, 128 * 45 * 6, 2 * 6 * 7])
INPUTS, OUTPUTS = np.array([384, 512, 640, 12]), np.array([512, 640, 768, 14])
WEIGHTS = np.array([108, 180, 270, 42])


def check(work, macs, inputs, outputs, weight_bytes=4.0):
  np.testing.assert_allclose(work.macs, macs, rtol=1e-12)
  np.testing.assert_allclose(
    work.read_bytes, 4 * np.array(inputs) + weight_bytes * WEIGHTS, rtol=1e-12
  )
  np.testing.assert_allclose(work.written_bytes, 4 * np.array(outputs), rtol=1e-12)


def test_dense_work():
  check(measure.layer_work(chain()), MACS, INPUTS, OUTPUTS)


def test_weights_of_few_bits():
  check(measure.layer_work(chain(), weight_bits=2), MACS, INPUTS, OUTPUTS, weight_bytes=0.25)
  bits = chain().join({'b/kernel': 4}, 16)
  check(
    measure.layer_work(chain(), weight_bits=bits),
    MACS,
    INPUTS,
    OUTPUTS,
    weight_bytes=np.array([2, 0.5, 2, 2]),
  )


def test_virtual_layers_compute_write_and_are_read_by_quarters():
  work = measure.layer_work(chain(), virtual=['b'])
  check(work, MACS / [1, 4, 1, 1], INPUTS / [1, 1, 4, 1], OUTPUTS / [1, 4, 1, 1])
  # The mean over the last map comes between it and the dense layer, which reads another array.
  work = measure.layer_work(chain(), virtual=['a', 'c'])
  check(work, MACS / [4, 1, 4, 1], INPUTS / [1, 4, 1, 1], OUTPUTS / [4, 1, 4, 1])


def test_readers_may_be_named():
  full = measure.layer_work(chain(), virtual=['b'], readers=())
  check(full, MACS / [1, 4, 1, 1], INPUTS, OUTPUTS / [1, 4, 1, 1])
  other = measure.layer_work(chain(), virtual=['a'], readers=['b', 'c'])
  check(other, MACS / [4, 1, 1, 1], INPUTS / [1, 4, 4, 1], OUTPUTS / [4, 1, 1, 1])


def test_odd_maps_keep_the_row_and_column_at_their_end():
  part = 16 / 49
  dense, work = (measure.layer_work(chain(7), virtual=virtual) for virtual in ((), ('b',)))
  np.testing.assert_allclose(work.macs / dense.macs, [1, part, 1, 1])
  np.testing.assert_allclose(work.written_bytes / dense.written_bytes, [1, part, 1, 1])


def test_products_of_activations_read_both():
  attend = lambda params, q, k: jnp.einsum('nd,md->nm', q, k)
  table = trace_layers(attend, {}, jnp.zeros((3, 5)), jnp.zeros((4, 5)))
  work = measure.layer_work(table)
  assert (work.macs[0], work.read_bytes[0], work.written_bytes[0]) == (60, 4 * 35, 4 * 12)


def test_horowitz_figure():
  # 3.7 + 0.9 pJ; 1.3 to 2.6 nJ for 8 bytes of DRAM; 20 pJ for 8 bytes of a 32 KB cache.
  assert measure.horowitz_costs() == pytest.approx((4.6, 243.75))
  assert measure.horowitz_costs('float16', 'dram_low') == pytest.approx((1.5, 162.5))
  assert measure.horowitz_costs('int8', 'dram_high') == pytest.approx((0.3, 325))
  assert measure.horowitz_costs('int32', 'cache_32kib') == pytest.approx((3.2, 2.5))
  assert measure.horowitz_costs(memory='cache_8kib').byte_pj == 1.25
  assert measure.horowitz_costs(memory='cache_1mib').byte_pj == 12.5


def test_joules():
  work = measure.Work(np.array([1e12, 0]), np.array([0, 2e12]), np.array([0, 1e12]))
  energy = measure.model_energy(work, measure.EnergyCosts(4.0, 5.0))
  np.testing.assert_allclose(energy.mac_j, [4, 0])
  np.testing.assert_allclose(energy.byte_j, [0, 15])
  assert energy.modelled_energy_j == pytest.approx(19)


def test_modelled_and_measured_share_no_name():
  public = lambda kind: {name for name in dir(kind) if not name.startswith('_')} - set(dir(tuple))
  modelled = public(measure.ModelledEnergy)
  measured = public(measure.MeasuredEnergy) | public(measure.NotMeasured)
  assert 'modelled_energy_j' in modelled and 'measured_energy_j' in measured
  assert {name for name in modelled & measured if name.endswith('_j')} == set()


@pytest.mark.parametrize(
  'call, reason',
  [
    (lambda: measure.layer_work(chain(), virtual=['e']), "virtual: 'e' is no conv.*: a, b, c"),
    (lambda: measure.layer_work(chain(), virtual=['d']), "virtual: 'd' is no convolution"),
    (lambda: measure.layer_work(chain(), readers=['x']), "readers: 'x' is no convolution"),
    (lambda: measure.horowitz_costs('int4'), "arithmetic='int4'; allowed: int8, int32"),
    (lambda: measure.horowitz_costs(memory='hbm'), "memory='hbm'; allowed: cache_8kib"),
  ],
)
def test_unknown_names_are_refused(call, reason):
  with pytest.raises(ValueError, match=reason):
    call()
