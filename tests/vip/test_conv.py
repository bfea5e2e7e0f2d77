"""Convolutions that read and write virtual maps, against NumPy loops over the full map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import vip
from tests.vip import oracle

SIZES = ((1, 1), (2, 1), (3, 2), (5, 6), (8, 7))


def random_map(size, channels, n=2, dtype=np.float64, seed=0):
  samples = tuple(-(-s // 2) for s in size)
  values = np.random.default_rng(seed).normal(size=(n, *samples, channels))
  return vip.VirtualMap(jnp.asarray(values, dtype), size)


def random_kernel(shape, dtype=np.float64):
  return jnp.asarray(np.random.default_rng(1).normal(size=shape), dtype)


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def compiled(function):
  """A program that runs once compiles several times as fast unoptimised."""
  quickly = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}
  return jax.jit(function, compiler_options=quickly)


def cases(size):
  """(kernel side, padding, stride, groups)."""
  for k, p in ((1, 0), (3, 1), (3, 0), (5, 2), (3, 2)):
    for stride in (1, 2, 3, 4) if (k, p) == (3, 1) else (1, 2):
      for groups in (1, 2) if (k, p, stride) in ((3, 1, 1), (3, 1, 2)) else (1,):
        if min(size) + 2 * p >= k:
          yield k, p, stride, groups


@pytest.mark.parametrize('size', SIZES)
def test_every_form_reads_the_full_map(size):
  x = random_map(size, 4)
  full = oracle.restore(np.asarray(x.samples), size)
  kernels = {case: random_kernel((case[0], case[0], 4 // case[3], 6)) for case in cases(size)}

  def read(x):
    results = {}
    for (k, p, stride, groups), kernel in kernels.items():
      padding = ((p, p), (p, p))
      for form in (None, *vip.conv_forms(x, kernel.shape, stride, padding, groups)):
        results[k, p, stride, groups, str(form)] = vip.conv(
            x, kernel, stride=stride, padding=padding, groups=groups, form=form)
    return results

  results = jax.tree.map(np.asarray, compiled(read)(x))
  assert {key[-1] for key in results} == set(vip.FORMS) - {'direct'} | {'None'}
  for (k, p, stride, groups, form), got in results.items():
    want = oracle.conv(full, np.asarray(kernels[k, p, stride, groups]), stride, ((p, p), (p, p)),
                       groups)
    assert got.shape == want.shape, (k, p, stride, groups, form)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-13, err_msg=f'{k, p, stride, form}')
