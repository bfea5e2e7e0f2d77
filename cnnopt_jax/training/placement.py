"""Members of a program over devices: CPU cores, GPUs, or a single one."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MEMBERS, EVERYWHERE = PartitionSpec('members'), PartitionSpec()


class Placement:
  """Which device computes which member.

  Each device has as many slots as the fullest one has members. Slots that are left over hold a copy
  of member 0, which is not computed on a CPU and is dropped elsewhere.

  JAX has one device a CPU core after `jax.config.update('jax_num_cpu_devices', cores)`.

  Attributes:
    count: M, the number of members.
    member_of: of each slot, int32 [S]; -1 for a slot left over.
  """

  def __init__(self, count: int, devices: Sequence[jax.Device] | None = None):
    """Spreads members in order, the same number on each device as far as they go.

    Args:
      count: M, the number of members.
      devices: that compute them; None for the first of JAX's default backend.

    Raises:
      ValueError: if there is no member or no device.
    """
    devices = jax.devices()[:1] if devices is None else list(devices)
    if count < 1 or not devices:
      raise ValueError(f'{count=}, {devices=}; allowed: at least 1 member and 1 device')
    each = -(-count // len(devices))
    slots = np.arange(each * len(devices), dtype=np.int32)
    self.member_of = np.where(slots < count, slots, -1)
    self.count = count
    self._mesh = mesh(tuple(devices))

  def place(self, tree: Any) -> Any:
    """Arrays [M, ...] as arrays [S, ...] over the devices."""
    sharding = NamedSharding(self._mesh, MEMBERS)
    slots = np.maximum(self.member_of, 0)
    return jax.tree.map(lambda x: jax.device_put(np.asarray(x)[slots], sharding), tree)

  def gather(self, tree: Any) -> Any:
    """What `place` spread, as NumPy arrays [M, ...]."""
    return jax.tree.map(lambda x: np.asarray(x)[: self.count], tree)

  def batch_of(self, index: np.ndarray) -> jax.Array:
    """An index of each member, int [M], as one of each slot, int32 [S]; -1 for one left over."""
    index = np.asarray(index, np.int32)[np.maximum(self.member_of, 0)]
    sharding = NamedSharding(self._mesh, MEMBERS)
    return jax.device_put(np.where(self.member_of < 0, -1, index), sharding)


@functools.cache
def mesh(devices: tuple[jax.Device, ...]) -> Mesh:
  """Devices along one axis, 'members'."""
  return jax.make_mesh(
    (len(devices),), ('members',), axis_types=(jax.sharding.AxisType.Auto,), devices=devices
  )


def over_members(
  function: Callable[..., Any],
  devices: tuple[jax.Device, ...],
  *,
  one_by_one: bool,
  otherwise: Callable[..., Any],
) -> Callable[..., Any]:
  """Maps a function of one member over the slots of a placement.

  Members one by one are computed each as if it were alone, to the last bit: a batched sum is
  rounded in another order, and one flipped bit of a weight grows into another accuracy. So what a
  member learns depends neither on who trains beside it nor on the number of devices. A branch of
  its own keeps XLA from fusing a member's computation with what is around it.

  Args:
    function: of (what a member has, its batch), both pytrees.
    devices: of the placement.
    one_by_one: whether a device computes its members one after the other, or as one batch.
    otherwise: of the same arguments; the result of a slot left over.

  Returns:
    A function of (what members have, leaves [S, ...]; batches, leaves [U, ...]; which batch each
    slot sees, int32 [S], -1 for a slot left over); its result has leaves [S, ...].
  """

  def slot(own, batches, index):
    batch = jax.tree.map(lambda x: x[jnp.maximum(index, 0)], batches)
    if one_by_one:
      return jax.lax.cond(index >= 0, function, otherwise, own, batch)
    return function(own, batch)

  def local(own, batches, batch_of):
    if one_by_one:
      return jax.lax.map(lambda member: slot(member[0], batches, member[1]), (own, batch_of))
    return jax.vmap(slot, in_axes=(0, None, 0))(own, batches, batch_of)

  return jax.shard_map(
    local,
    mesh=mesh(devices),
    in_specs=(MEMBERS, EVERYWHERE, MEMBERS),
    out_specs=MEMBERS,
    check_vma=False,
  )
