"""What memory can do at most: the yardstick of whatever only moves bytes."""

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.measure.timing import back_to_back_seconds

# Far more than the caches hold; a CPU's copy of more pays for fresh pages instead.
_COPIED_BYTES = {'cpu': 1 << 26}
_COPIED_BYTES_ELSEWHERE = 1 << 30


def copy_bandwidth(rounds: int = 9, *, platform: str | None = None) -> float:
  """Bandwidth of the fastest simple copy, of far more than the caches.

  Args:
    rounds: that the median is over.
    platform: of the first device, which copies; None for JAX's default backend.

  Returns:
    Bytes read and written a second.
  """
  platform = platform or jax.default_backend()
  count = _COPIED_BYTES.get(platform, _COPIED_BYTES_ELSEWHERE)
  x = jax.device_put(jnp.ones(count // 4, jnp.float32), jax.devices(platform)[0])
  negate = jax.jit(lambda x: -x)
  seconds = back_to_back_seconds({'copy': lambda call: negate(x)}, rounds=rounds, platform=platform)
  return 2 * count / float(np.median(seconds['copy']))
