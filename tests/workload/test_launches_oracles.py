"""Bytes of a schedule's arrays against numbers counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from cnnopt_jax.workload import schedule, trace_layers


@pytest.mark.parametrize('bits, expected', [(1, 2), (3, 5), (4, 6), (5, 8), (32, 48)])
def test_a_last_byte_that_is_begun_counts_whole(bits, expected):
  """12 weights of 3 bits are 36 bits, five bytes of which the last is half used."""
  kernel = jax.ShapeDtypeStruct((4, 3), jnp.float32)
  x = jax.ShapeDtypeStruct((2, 4), jnp.float32)
  plan = schedule(trace_layers(lambda kernel, x: x @ kernel, kernel, x))
  roles = [tensor.role for tensor in plan.tensors]
  sizes = dict(zip(roles, plan.tensor_bytes(weight_bits=bits, activation_bits=5), strict=True))
  # Of 5 bits: 2 x 4 inputs in 5 bytes, 2 x 3 results in 30 bits.
  assert sizes == {'input': 5, 'parameter': expected, 'activation': 4}
