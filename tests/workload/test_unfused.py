"""Kernels of a framework that fuses nothing: a block by hand, in order, with what each touches."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from cnnopt_jax import models, workload

WIDTH = 8


class Block(nn.Module):
  """A convolution, norm, ReLU and a sum; a pooled convolution with dropout; and both together."""

  @nn.compact
  def __call__(self, x):
    y = nn.Conv(WIDTH, (3, 3), use_bias=False, name='first')(x)
    y = nn.relu(nn.BatchNorm(use_running_average=False, name='norm')(y)) + x
    z = nn.max_pool(nn.Conv(WIDTH, (3, 3), name='second')(y), (2, 2), (2, 2))
    z = nn.Dropout(0.5, deterministic=False, name='drop')(z)
    return jnp.concatenate([z, nn.avg_pool(y, (2, 2), (2, 2))], -1)


@pytest.fixture(scope='module')
def table():
  x = jnp.ones((2, 4, 4, WIDTH))
  keys = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
  variables = Block().init(keys, x)

  def apply(params, x):
    return Block().apply(
      {'params': params, 'batch_stats': variables['batch_stats']},
      x,
      rngs={'dropout': jax.random.key(1)},
      mutable=['batch_stats'],
    )[0]

  return workload.trace_layers(apply, variables['params'], x)


def launched(table, **options):
  schedule = workload.schedule(table, training=True, fused=False, **options)
  return schedule, [
    (
      launch.operation or launch.kind,
      [schedule.tensors[t].elements for t in launch.reads],
      [schedule.tensors[t].elements for t in launch.writes],
    )
    for launch in schedule.launches
  ]


FULL, POOLED, WEIGHT = 2 * 4 * 4 * WIDTH, 2 * 2 * 2 * WIDTH, 9 * WIDTH * WIDTH


def test_the_forward_pass(table):
  _, found = launched(table)
  forward = found[: [name for name, _, _ in found].index('mean_pool_gradient')]
  # Two ways lead from the sum on: their order is the program's.
  assert sorted(forward) == sorted(
    [
      ('forward', [FULL, WEIGHT], [FULL]),
      ('statistics', [FULL], []),
      ('norm', [FULL], [FULL]),
      ('activation', [FULL], [FULL]),
      ('sum', [FULL, FULL], [FULL]),
      ('forward', [FULL, WEIGHT], [FULL]),
      ('bias', [FULL], [FULL]),
      ('max_pool', [FULL], [POOLED, 2 * POOLED]),
      ('dropout', [POOLED], [POOLED, POOLED // 4]),
      ('mean_pool', [FULL], [POOLED]),
      ('concatenation', [POOLED, POOLED], [2 * POOLED]),
    ]
  )


def test_the_backward_pass(table):
  _, found = launched(table)
  backward = [entry for entry in found if entry[0] not in ('update', 'forward')]
  backward = backward[[name for name, _, _ in backward].index('mean_pool_gradient') :]
  assert sorted(backward) == sorted(
    [
      ('mean_pool_gradient', [POOLED], [FULL]),
      ('dropout_gradient', [POOLED, POOLED // 4], [POOLED]),
      ('fill', [], [FULL]),
      ('max_pool_gradient', [POOLED, 2 * POOLED], [FULL]),
      ('bias_gradient', [FULL], []),
      ('data_gradient', [FULL, WEIGHT], [FULL]),
      ('weight_gradient', [FULL, FULL], [WEIGHT]),
      ('accumulation', [WEIGHT, WEIGHT], [WEIGHT]),
      ('accumulation', [FULL, FULL], [FULL]),  # The sum has two readers.
      ('activation_gradient', [FULL, FULL], [FULL]),
      ('statistics_gradient', [FULL, FULL], []),
      ('norm_gradient', [FULL, FULL], [FULL]),
      ('weight_gradient', [FULL, FULL], [WEIGHT]),
      ('accumulation', [WEIGHT, WEIGHT], [WEIGHT]),
    ]
  )


def test_data_gradients_come_first_and_what_is_read_was_written(table):
  schedule, _ = launched(table)
  kinds = [launch.kind for launch in schedule.launches if launch.path == 'second']
  assert kinds.index('data_gradient') < kinds.index('weight_gradient')
  tensors = schedule.tensors
  written = {i for i, t in enumerate(tensors) if t.role in ('input', 'parameter', 'momentum')}
  outside = set()
  for launch in schedule.launches:
    for read in launch.reads:
      if read not in written and read not in launch.writes and launch.kind != 'update':
        outside.add(tensors[read].alias)
    written.update(launch.writes)
  # The gradient that the loss writes, in the two parts that were concatenated.
  (loss,) = outside
  assert tensors[loss].elements == 2 * POOLED and tensors[loss].role == 'gradient'


def test_options(table):
  _, kept = launched(table, accumulate=False)
  assert ('accumulation', [WEIGHT, WEIGHT], [WEIGHT]) not in kept
  schedule, _ = launched(table)
  aliased = [t for t in schedule.tensors if t.alias >= 0 and t.role == 'activation']
  # ReLU's result takes the norm's place, the sum ReLU's, the bias its convolution's.
  assert len(aliased) == 3
  schedule, _ = launched(table, in_place=False)
  assert not any(t.alias >= 0 for t in schedule.tensors if t.role == 'activation')


def test_an_inference_norm_is_one_pass():
  table = models.layer_table(models.create('resnet8', num_classes=10), (32, 32, 3))
  schedule = workload.schedule(table, fused=False)
  names = [launch.operation for launch in schedule.launches[:3]]
  assert names == ['', 'activation', 'activation']
