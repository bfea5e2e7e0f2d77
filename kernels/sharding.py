"""What primitives owe `jax.shard_map`: operands and results that vary over the same mesh axes.

Inside a mapped function JAX tracks over which axes of the mesh a value differs between devices.
Its own ops mark operands alike before they join them, and so a gradient for what is the same
everywhere is summed over the devices; a primitive of one's own must do that for itself.
"""

import jax


def alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
  """The arrays, each marked as varying over every mesh axis that any of them varies over."""
  varying = [jax.typeof(x).manual_axis_type.varying for x in arrays]
  axes = frozenset().union(*varying)
  return tuple(
    jax.lax.pcast(x, tuple(sorted(axes - own)), to='varying') if axes - own else x
    for x, own in zip(arrays, varying)
  )
