"""How a framework and its library run a network on a GPU."""

import dataclasses

from cnnopt_jax import workload
from cnnopt_jax.traffic.gpus import MATHS, Gpu
from cnnopt_jax.traffic.kernels import Kernel
from cnnopt_jax.workload import LayerTable, Schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Library:
  """A framework with its library of convolutions.

  The last five are what the kernels of such a library leave of a GPU's figures; they were set while
  looking at one profile, of VGG-16 in PyTorch on a V100 (docs/results/traffic_counters), all of its
  launches at once.

  Attributes:
    name: of it.
    fused: whether what lies between layers is compiled into few kernels, or runs one by one.
    accumulate: whether an unfused training step adds each weight's gradient to one that is there.
    in_place: whether unfused biases, activations and sums overwrite what nobody else reads.
    math: type of the products, one of `MATHS`; in bfloat16 maps have 16 bits.
    workspace_bytes: most that an algorithm may take.
    unsynchronised: share of what blocks that run at once read of each other's data that has left L2
      again when they come to it, where what they walk through does not fit.
    matrix_rate: of the GPU's multiply-accumulates, by products.
    bandwidth: of the GPU's L2 and DRAM bandwidth.
    launch_s: least time of a kernel, seconds.
  """

  name: str
  fused: bool
  accumulate: bool = True
  in_place: bool = True
  math: str = 'float32'
  workspace_bytes: int = 1 << 30
  unsynchronised: float = 1 / 3
  matrix_rate: float = 0.75
  bandwidth: float = 0.9
  launch_s: float = 3e-6

  def __post_init__(self):
    if self.math not in MATHS:
      raise ValueError(f'math={self.math!r}; allowed: {", ".join(MATHS)}')
    for name in ('unsynchronised', 'matrix_rate', 'bandwidth'):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(f'{name}={getattr(self, name)!r}; allowed: 0 to 1')

  @property
  def activation_bits(self) -> int:
    """Of maps in memory."""
    return 16 if self.math == 'bfloat16' else 32

  def schedule(self, table: LayerTable, training: bool) -> Schedule:
    """The launches of a network, as `workload.schedule` has them."""
    return workload.schedule(
      table,
      training=training,
      fused=self.fused,
      accumulate=self.accumulate,
      in_place=self.in_place,
    )

  def seconds(self, gpu: Gpu, kernel: Kernel, dram_bytes: float | None = None) -> float:
    """A kernel's time: the longest of its products, its traffic with L2 and with DRAM.

    Args:
      gpu: the GPU.
      kernel: the kernel.
      dram_bytes: moved; by default what it has to move where nothing is in L2.

    Returns:
      Seconds.
    """
    moved = kernel.bytes if dram_bytes is None else dram_bytes
    sectors = kernel.reads + kernel.writes
    return max(
      self.launch_s,
      kernel.macs / (self.matrix_rate * gpu.macs(self.math)),
      gpu.sector_bytes * sectors / (self.bandwidth * gpu.l2_bandwidth),
      moved / (self.bandwidth * gpu.dram_bandwidth),
    )


PYTORCH = Library(name='PyTorch, eager, with cuDNN', fused=False)
XLA = Library(name='XLA with cuDNN', fused=True)
LIBRARIES = {'pytorch': PYTORCH, 'xla': XLA}
