"""A batch over the cores of a processor."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

# What each device of `over_cores` is given, or gives: the same, or its images' part.
WHOLE, SPLIT = PartitionSpec(), PartitionSpec('batch')


def over_cores(
  function: Callable[..., Any],
  params: Any,
  x: jax.Array,
  result: PartitionSpec = SPLIT,
  *,
  platform: str | None = None,
) -> Callable[[], Any] | None:
  """`function` of (parameters, images) with the batch split over the devices of a CPU.

  Where channels are few, XLA runs a convolution on one core: then each may have its own images.
  JAX has one device a core after `jax.config.update('jax_num_cpu_devices', cores)`.

  Args:
    function: sees the images of one device, on the mesh axis 'batch'.
    params: every device gets them.
    x: [N, ...].
    result: `SPLIT` where each device gives its images' part, `WHOLE` where all give the same.
    platform: of the devices; None for JAX's default backend.

  Returns:
    A function without arguments; None where there is one device, no equal split, or no CPU.
  """
  platform = platform or jax.default_backend()
  devices = math.gcd(len(x), jax.device_count(platform)) if platform == 'cpu' else 1
  if devices == 1:
    return None
  mesh = jax.make_mesh(
    (devices,),
    ('batch',),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=jax.devices(platform)[:devices],
  )
  run = jax.jit(
    jax.shard_map(function, mesh=mesh, in_specs=(WHOLE, SPLIT), out_specs=result),
    compiler_options={'xla_cpu_multi_thread_eigen': False},  # A thread a device.
  )
  params = jax.device_put(params, NamedSharding(mesh, WHOLE))
  x = jax.device_put(x, NamedSharding(mesh, SPLIT))
  return lambda: run(params, x)
