"""The devices of a run: a CPU's cores, or what accelerators there are."""

import os

import jax

from experiments.common.fields import ConfigError

MOST_DEVICES = 1024


def devices(count: int) -> list[jax.Device]:
  """The devices that a run computes on; before JAX first computes.

  Every core of a CPU becomes a device. With one core there are two devices, of which the second is
  for nobody: XLA rounds some sums otherwise where it has one thread alone, and results shall be
  the same bytes on any number of cores.

  Args:
    count: how many, as `config.devices` says; 0 for all, on a CPU one for each core that this
      process may use.

  Returns:
    Devices of JAX's default backend.

  Raises:
    ConfigError: if there are not so many, or none of the kind that `JAX_PLATFORMS` asks for.
  """
  wanted = count or len(os.sched_getaffinity(0))
  try:
    jax.config.update('jax_num_cpu_devices', max(2, wanted))
  except RuntimeError:  # JAX has computed already, with as many devices as it was told then.
    pass
  try:
    found = jax.devices()
  except (RuntimeError, AssertionError) as error:  # JAX has both for it.
    raise ConfigError(
      f'JAX_PLATFORMS={os.environ.get("JAX_PLATFORMS", "")!r}: JAX finds no such device '
      f'({str(error) or "no word why"}); allowed: cpu, or nothing for what there is'
    ) from None
  if found[0].platform == 'cpu':
    found = found[:wanted]
  if count > len(found):
    raise ConfigError(f'config.devices={count}; allowed: 0 to {len(found)}')
  return found[:count] if count else found
