"""GPUs, as far as the traffic between their processors, last-level cache and DRAM needs them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

MIB = 1 << 20
MATHS = ('float32', 'tf32', 'bfloat16')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
  """A GPU, and the tiles of the matrix products that its libraries run.

  Attributes:
    name: of the product.
    sms: streaming multiprocessors.
    registers: of each, of 32 bits.
    l1_bytes: first-level cache of each that is left to loads while products run, bytes: where L1
      and shared memory are one, half of them.
    l2_bytes: last-level cache, bytes.
    l2_ways: its associativity.
    l2_slices: parts of it that work at the same time.
    line_bytes: of a line of the last-level cache.
    sector_bytes: of a transaction between L1, L2 and DRAM.
    fetch_bytes: that L2 takes from DRAM at a time (cudaLimitMaxL2FetchGranularity's default).
    clock_hz: boost clock.
    float32_macs, tf32_macs, bfloat16_macs: multiply-accumulates a second at that clock; 0 where the
      hardware has no such unit.
    l2_bandwidth, dram_bandwidth: bytes a second.
    tiles: (rows, columns) of the output that one thread block computes, in the order in which they
      are preferred.
    tile_depth: of the reduction, elements loaded at a time.
    source: where the figures are from.
  """

  name: str
  sms: int
  registers: int = 1 << 16
  l1_bytes: int
  l2_bytes: int
  l2_ways: int = 16
  l2_slices: int
  line_bytes: int = 128
  sector_bytes: int = 32
  fetch_bytes: int = 64
  clock_hz: float
  float32_macs: float
  tf32_macs: float = 0.0
  bfloat16_macs: float = 0.0
  l2_bandwidth: float
  dram_bandwidth: float
  tiles: tuple[tuple[int, int], ...]
  tile_depth: int
  source: str

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.type is int and not (isinstance(value, int) and value >= 1):
        raise ValueError(f'{field.name}={value!r}; allowed: whole numbers of at least 1')
      if field.type is float and field.name not in ('tf32_macs', 'bfloat16_macs'):
        if not 0 < value < math.inf:
          raise ValueError(f'{field.name}={value!r}; allowed: above 0')
    if not self.tiles or any(len(t) != 2 or min(t) < 1 for t in self.tiles):
      raise ValueError(f'tiles={self.tiles!r}; allowed: pairs of at least 1')

  def macs(self, math_type: str) -> float:
    """Multiply-accumulates a second of one of `MATHS`.

    Raises:
      ValueError: if the GPU has no unit for them.
    """
    rate = getattr(self, f'{math_type}_macs') if math_type in MATHS else 0.0
    if not rate:
      able = [m for m in MATHS if getattr(self, f'{m}_macs')]
      raise ValueError(f'math={math_type!r} on a {self.name}; allowed: {", ".join(able)}')
    return rate


def make_gpu(gpu: str | Gpu | Mapping[str, Any]) -> Gpu:
  """A GPU by its key in `GPUS`, as it is, or of a user's own figures.

  Args:
    gpu: a key, a `Gpu`, or its fields; fields that are missing are those of `base`, a key.

  Returns:
    The GPU.

  Raises:
    ValueError: for an unknown key or field, a missing field without a base, or a value that is not
      allowed.
  """
  if isinstance(gpu, Gpu):
    return gpu
  if isinstance(gpu, str):
    if gpu not in GPUS:
      raise ValueError(f'gpu={gpu!r}; allowed: a traffic.Gpu, or one of {", ".join(GPUS)}')
    return GPUS[gpu]
  fields = {'source': "a user's own", **gpu}
  base = fields.pop('base', None)
  names = {field.name: field for field in dataclasses.fields(Gpu)}
  unknown = sorted(set(fields) - set(names))
  if unknown:
    raise ValueError(f'gpu.{unknown[0]}; allowed: base, {", ".join(names)}')
  if 'tiles' in fields:
    fields['tiles'] = tuple(tuple(tile) for tile in fields['tiles'])
  if base is not None:
    return dataclasses.replace(make_gpu(base), **fields)
  missing = [
    name
    for name, field in names.items()
    if field.default is dataclasses.MISSING and name not in fields
  ]
  if missing:
    raise ValueError(f'gpu.{missing[0]} is missing; allowed: all of its fields, or a `base`')
  return Gpu(**fields)


_SIMT_TILES = (
  *((128, 128), (128, 64), (64, 128), (64, 64), (32, 128), (128, 32)),
  *((64, 32), (32, 64), (32, 32)),
)
_TENSOR_TILES = ((256, 128), (128, 256), (128, 128), (128, 64), (64, 64), (64, 32))
_RECALLED = 'As recalled, not read again. '

GTX_1080_TI = Gpu(
  name='GTX 1080 Ti',
  sms=28,
  l1_bytes=48 << 10,
  l2_bytes=2816 << 10,
  l2_slices=11,
  clock_hz=1.582e9,
  float32_macs=28 * 128 * 1.582e9,
  l2_bandwidth=11 * 64 * 1.582e9,
  dram_bandwidth=484e9,
  tiles=_SIMT_TILES,
  tile_depth=8,
  source=_RECALLED + '28 SMs of 128 lanes, 1582 MHz, 484 GB/s: NVIDIA, GeForce GTX 1080 Ti '
  'specifications. 48 KB of L1 an SM, apart from shared memory, and 32 B sectors: CUDA Pascal '
  'Tuning Guide, section 1.4. 2816 KB of L2: cudaDeviceProp.l2CacheSize, eleven slices of 256 KB '
  '(DeepNVM rounds to 3 MB), 64 B a clock each. Tiles: names of the sgemm and implicit_sgemm '
  'kernels of cuBLAS and cuDNN 7.',
)

V100 = Gpu(
  name='V100',
  sms=80,
  l1_bytes=64 << 10,
  l2_bytes=6 * MIB,
  l2_slices=64,
  clock_hz=1.53e9,
  float32_macs=80 * 64 * 1.53e9,
  l2_bandwidth=2.155e12,
  dram_bandwidth=900e9,
  tiles=_SIMT_TILES,
  tile_depth=8,
  source=_RECALLED + '80 SMs of 64 lanes, 1530 MHz, 128 KB of L1 and shared memory an SM, 6144 KB '
  'of L2, 900 GB/s: NVIDIA Tesla V100 GPU Architecture whitepaper, table 1. 16 ways and 2155 GB/s '
  'of L2, measured: Jia et al., Dissecting the NVIDIA Volta GPU Architecture, arXiv 1804.06826, '
  'chapter 3. Tiles: names of the volta_sgemm kernels.',
)

RTX_2080_TI = Gpu(
  name='RTX 2080 Ti',
  sms=68,
  l1_bytes=48 << 10,
  l2_bytes=5632 << 10,
  l2_slices=22,
  clock_hz=1.545e9,
  float32_macs=68 * 64 * 1.545e9,
  l2_bandwidth=22 * 64 * 1.545e9,
  dram_bandwidth=616e9,
  tiles=_SIMT_TILES,
  tile_depth=8,
  source=_RECALLED + '68 SMs of 64 lanes, 1545 MHz, 5632 KB of L2, 616 GB/s: NVIDIA Turing GPU '
  'Architecture whitepaper, appendix A; 96 KB of L1 and shared memory an SM: the same. 64 B a '
  'clock and slice: Jia et al., Dissecting the NVIDIA Turing T4 GPU, arXiv 1903.07486.',
)

A100 = Gpu(
  name='A100',
  sms=108,
  l1_bytes=96 << 10,
  l2_bytes=40 * MIB,
  l2_slices=80,
  clock_hz=1.41e9,
  float32_macs=108 * 64 * 1.41e9,
  tf32_macs=78e12,
  bfloat16_macs=156e12,
  l2_bandwidth=5120 * 1.41e9,
  dram_bandwidth=1555e9,
  tiles=_TENSOR_TILES,
  tile_depth=32,
  source=_RECALLED
  + '108 SMs of 64 lanes, 1410 MHz, 192 KB of L1 and shared memory an SM, 40 MB of '
  'L2 that reads 5120 B a clock, 1555 GB/s (40 GB), 156 and 312 TFLOP/s of TF32 and bfloat16: '
  'NVIDIA A100 Tensor Core GPU Architecture whitepaper, table 4 and page 42. Tiles: kernels of '
  'CUTLASS.',
)

H100 = Gpu(
  name='H100',
  sms=132,
  l1_bytes=128 << 10,
  l2_bytes=50 * MIB,
  l2_slices=80,
  clock_hz=1.83e9,
  float32_macs=132 * 128 * 1.83e9,
  tf32_macs=247e12,
  bfloat16_macs=495e12,
  l2_bandwidth=5.5e12,
  dram_bandwidth=3350e9,
  tiles=_TENSOR_TILES,
  tile_depth=32,
  source=_RECALLED
  + '132 SMs of 128 lanes, 256 KB of L1 and shared memory an SM, 50 MB of L2, 3350 '
  'GB/s, 494 and 989 TFLOP/s of TF32 and bfloat16 without sparsity (SXM5): NVIDIA H100 Tensor Core '
  'GPU Architecture whitepaper, table 2; 32 B sectors: Nsight Compute, memory tables. '
  'L2 bandwidth: of the order that public microbenchmarks give. Tiles: TF32 kernels of CUTLASS 3.',
)

H200 = dataclasses.replace(
  H100,
  name='H200',
  dram_bandwidth=4800e9,
  source=_RECALLED
  + 'The H100 SXM5 processor with 4800 GB/s: NVIDIA H200 data sheet. '
  + H100.source.removeprefix(_RECALLED),
)

RTX_4090 = Gpu(
  name='RTX 4090',
  sms=128,
  l1_bytes=64 << 10,
  l2_bytes=72 * MIB,
  l2_slices=48,
  clock_hz=2.52e9,
  float32_macs=128 * 128 * 2.52e9,
  tf32_macs=41.3e12,
  bfloat16_macs=82.6e12,
  l2_bandwidth=48 * 64 * 2.52e9,
  dram_bandwidth=1008e9,
  tiles=_TENSOR_TILES,
  tile_depth=32,
  source=_RECALLED
  + '128 SMs of 128 lanes, 2520 MHz, 128 KB of L1 and shared memory an SM, 72 MB of '
  'L2, 1008 GB/s, 82.6 and 165.2 TFLOP/s of TF32 and bfloat16 without sparsity: NVIDIA Ada GPU '
  'Architecture whitepaper, appendix A. 64 B a clock and slice of L2: assumed as of Turing.',
)

GPUS = {
  'gtx_1080_ti': GTX_1080_TI,
  'v100': V100,
  'rtx_2080_ti': RTX_2080_TI,
  'a100': A100,
  'rtx_4090': RTX_4090,
  'h100': H100,
  'h200': H200,
}
