"""GPUs, as far as the traffic between their processors, last-level cache and DRAM needs them."""

import dataclasses

MIB = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
  """A GPU and the blocking of the matrix products that its libraries run.

  Attributes:
    name: of the product.
    sms: streaming multiprocessors.
    l1_bytes: first-level data cache of each, bytes.
    l2_bytes: last-level cache, bytes.
    line_bytes: of a line of the last-level cache.
    sector_bytes: of a transaction between L1, L2 and DRAM.
    tiles: (rows, columns) of the output that one thread block computes, the largest first.
    tile_depth: of the reduction, elements loaded at a time.
    blocks_per_sm: thread blocks that run at once on a multiprocessor.
    source: where the figures are from.
  """

  name: str
  sms: int
  l1_bytes: int
  l2_bytes: int
  line_bytes: int
  sector_bytes: int
  tiles: tuple[tuple[int, int], ...]
  tile_depth: int
  blocks_per_sm: int
  source: str

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.type is int and not value >= 1:
        raise ValueError(f'{field.name}={value!r}; allowed: at least 1')
    if not self.tiles or any(size < 1 for tile in self.tiles for size in tile):
      raise ValueError(f'tiles={self.tiles!r}; allowed: pairs of at least 1')

  @property
  def slots(self) -> int:
    """Thread blocks that run at once."""
    return self.sms * self.blocks_per_sm


GTX_1080_TI = Gpu(
  name='GTX 1080 Ti',
  sms=28,
  l1_bytes=48 << 10,
  l2_bytes=2816 << 10,
  line_bytes=128,
  sector_bytes=32,
  tiles=((128, 128), (128, 64), (64, 64), (128, 32), (64, 32), (32, 32)),
  tile_depth=8,
  blocks_per_sm=2,
  source='As recalled, not read again. 28 SMs: NVIDIA, GeForce GTX 1080 Ti specifications. '
  '48 KB of L1 an SM and 32 B sectors: CUDA Pascal Tuning Guide, section 1.4. 2816 KB of L2: '
  'cudaDeviceProp.l2CacheSize, eleven slices of 256 KB (DeepNVM rounds to 3 MB). Tiles: names '
  'of the sgemm and implicit_sgemm kernels of cuBLAS and cuDNN 7, two of whose blocks of 256 '
  'threads fit the registers of an SM.',
)

H200 = Gpu(
  name='H200',
  sms=132,
  l1_bytes=256 << 10,
  l2_bytes=50 * MIB,
  line_bytes=128,
  sector_bytes=32,
  tiles=((256, 128), (128, 256), (128, 128), (128, 64), (64, 64), (64, 32)),
  tile_depth=32,
  blocks_per_sm=1,
  source='As recalled, not read again. 132 SMs, 256 KB of L1 and shared memory an SM, 50 MB of '
  'L2: NVIDIA H100 Tensor Core GPU Architecture whitepaper, table 2 (the H200 has the H100 SXM '
  'processor); 32 B sectors: Nsight Compute documentation, memory tables. Tiles: TF32 kernels '
  'of CUTLASS 3.',
)

GPUS = {'gtx_1080_ti': GTX_1080_TI, 'h200': H200}
