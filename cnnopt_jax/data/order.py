"""Which images each step sees, as functions of seed and step alone, and how they reach the device.

No iterator has state to save: a run that resumes at a step asks for that step's indices.
"""

import collections
from collections.abc import Iterable, Iterator
from concurrent import futures

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.data.dataset import DataError, Split

# The same seed also makes the initial weights: each use folds in a number of its own.
_ORDER_STREAM = 0x6F72
_AUGMENTATION_STREAM = 0x6175


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
  """Number of full batches in one pass; what is left over waits for another epoch's order.

  Raises:
    DataError: if there is no full batch.
  """
  if not 1 <= batch_size <= num_examples:
    raise DataError(
      f'batch_size={batch_size}; allowed: 1 to {num_examples}, the number of training images'
    )
  return num_examples // batch_size


def epoch_order(seed: chex.Numeric, epoch: chex.Numeric, num_examples: int) -> jax.Array:
  """Order of the images in one epoch.

  Jittable in seed and epoch; `vmap` over seeds gives what a loop gives.

  Args:
    seed: int scalar.
    epoch: int scalar, from 0.
    num_examples: N.

  Returns:
    A permutation of 0..N - 1, int32 [N].
  """
  chex.assert_rank([seed, epoch], 0)
  key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _ORDER_STREAM), epoch)
  return jax.random.permutation(key, jnp.arange(num_examples, dtype=jnp.int32))


def batch_indices(
  seed: chex.Numeric, epoch: chex.Numeric, step: chex.Numeric, num_examples: int, batch_size: int
) -> jax.Array:
  """Images of one step: `epoch_order(seed, epoch, N)[step * B:(step + 1) * B]`.

  A loop over many steps of one epoch is better off slicing `epoch_order` itself.

  Args:
    seed: int scalar.
    epoch: int scalar, from 0.
    step: int scalar, within the epoch: 0..steps_per_epoch(N, B) - 1.
    num_examples: N.
    batch_size: B.

  Returns:
    int32 [B].

  Raises:
    DataError: if there is no full batch, or a concrete step is not in the epoch. A traced step
      beyond it would read the last full batch.
  """
  steps = steps_per_epoch(num_examples, batch_size)
  if not isinstance(step, jax.core.Tracer) and not 0 <= step < steps:
    raise DataError(f'step={step}; allowed: 0 to {steps - 1}, counted within the epoch')
  order = epoch_order(seed, epoch, num_examples)
  start = jnp.clip(step, 0, steps - 1) * batch_size
  return jax.lax.dynamic_slice(order, (start,), (batch_size,))


def augmentation_key(seed: chex.Numeric, epoch: chex.Numeric, step: chex.Numeric) -> jax.Array:
  """Random key of one step's augmentation; jittable, and `vmap` over seeds is a loop.

  Args:
    seed: int scalar.
    epoch: int scalar, from 0.
    step: int scalar, within the epoch.

  Returns:
    A typed key, scalar.
  """
  chex.assert_rank([seed, epoch, step], 0)
  key = jax.random.fold_in(jax.random.key(seed), _AUGMENTATION_STREAM)
  return jax.random.fold_in(jax.random.fold_in(key, epoch), step)


def batches(
  split: Split, indices: Iterable[np.ndarray], *, ahead: int = 2
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Reads batches on a thread while the caller computes.

  Args:
    split: where from.
    indices: of each batch, int [...]; drawn in the caller's thread, `ahead` batches early.
    ahead: how many batches may wait, at least 1.

  Yields:
    `split.get` of each, in order: images uint8 [..., H, W, C] and labels int32 [...].

  Raises:
    Exception: what `split.get` raised, at the batch that it raised for.
  """
  if ahead < 1:
    raise ValueError(f'ahead={ahead}; allowed: at least 1')
  with futures.ThreadPoolExecutor(1, thread_name_prefix='batches') as reader:
    waiting: collections.deque[futures.Future] = collections.deque()
    try:
      for batch in indices:
        waiting.append(reader.submit(split.get, np.asarray(batch)))
        if len(waiting) > ahead:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:  # Also when the caller stops early: only the read in progress is waited for.
      for future in waiting:
        future.cancel()
