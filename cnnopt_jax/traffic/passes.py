"""Kernels between layers: each reads and writes whole arrays."""

from collections.abc import Sequence

from cnnopt_jax.traffic.kernels import Array, Kernel, once


def one_pass(
  name: str, reads: Sequence[Array], writes: Sequence[Array], sector_bytes: int
) -> Kernel:
  """Arrays read and written once, all from their starts to their ends at the same time."""
  accesses = [once(array, False, sector_bytes=sector_bytes) for array in reads]
  accesses += [once(array, True, sector_bytes=sector_bytes) for array in writes]
  return Kernel(name, tuple(accesses))
