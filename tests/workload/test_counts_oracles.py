"""Counts against sums over single convolutions."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from cnnopt_jax.workload import trace_layers


def convolution(**options):
  return lambda kernel, x: lax.conv_general_dilated(
    x, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **options
  )


@pytest.mark.parametrize(
  'options, channels',
  [(dict(batch_group_count=3), 4), (dict(feature_group_count=3), 12)],
)
def test_groups_of_batch_and_of_features_are_that_many_convolutions(options, channels):
  """Three groups of two filters of four channels: 6 images in thirds, or 12 channels in thirds."""
  batch = 6 // options.get('batch_group_count', 1)
  x = jax.ShapeDtypeStruct((6, 5, 5, channels), jnp.float32)
  kernel = jax.ShapeDtypeStruct((3, 3, 4, 6), jnp.float32)
  (row,) = trace_layers(convolution(**options), kernel, x)
  part = trace_layers(
    convolution(),
    jax.ShapeDtypeStruct((3, 3, 4, 2), jnp.float32),
    jax.ShapeDtypeStruct((batch, 5, 5, 4), jnp.float32),
  ).layers[0]
  assert row.groups == 3 and part.groups == 1
  assert row.macs == 3 * part.macs == 3 * batch * 3 * 3 * 2 * 3 * 3 * 4
  assert row.fan_in == part.fan_in and row.output_channels == 3 * part.output_channels
