"""Hardware that counts the energy it takes: processors through RAPL, NVIDIA GPUs through NVML."""

import importlib
import os
import pathlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple

import jax
import numpy as np

POWERCAP = '/sys/class/powercap'


class Meter(NamedTuple):
  """Counters of energy that start at no particular value.

  Attributes:
    source: 'rapl' or 'nvml'.
    domains: what each counter counts, such as 'package-0' or 'GPU 0 NVIDIA H200'.
    read: returns the counters, one integer for each domain.
    joules_per_count: what one step of a counter is worth.
    ranges: the greatest value of each counter, after which it starts again at 0.
  """

  source: str
  domains: tuple[str, ...]
  read: Callable[[], Sequence[int]]
  joules_per_count: float
  ranges: tuple[int, ...]

  def joules(self, before: Sequence[int], after: Sequence[int]) -> np.ndarray:
    """Energy between two readings, less than one turn of a counter apart.

    Args:
      before: the first reading.
      after: the second one.

    Returns:
      Joules of each domain, [domains].
    """
    counts = [
      b - a if b >= a else b - a + limit
      for a, b, limit in zip(before, after, self.ranges, strict=True)
    ]
    return np.array(counts, np.float64) * self.joules_per_count


class NotMeasured(NamedTuple):
  """Stands where a meter or a measurement would, and says why there is none.

  Attributes:
    reason: one line.
    source: always 'not measured'.
    measured_energy_j: always None.
  """

  reason: str
  source: str = 'not measured'
  measured_energy_j: None = None


def find_meter(platform: str | None = None) -> Meter | NotMeasured:
  """Finds the meter of the hardware that computes.

  A GPU's meter does not count the processor that feeds it, and the other way round: the two
  sources are never added up or taken for one another.

  Args:
    platform: 'cpu' or 'gpu'; None for JAX's default backend.

  Returns:
    `rapl_meter()` or `nvml_meter()`.
  """
  match platform or jax.default_backend():
    case 'cpu':
      return rapl_meter()
    case 'gpu' | 'cuda':
      return nvml_meter()
    case other:
      return NotMeasured(f'platform={other!r}; with a meter: cpu, gpu')


def rapl_meter(root: str | pathlib.Path = POWERCAP) -> Meter | NotMeasured:
  """All processor packages, and their memory where the processor counts it.

  Linux shows the counters of Intel's and AMD's processors as `intel-rapl:<package>/energy_uj`, and
  those of parts in folders below. 'core' and 'uncore' are parts of their package and 'psys' holds
  the packages, so only 'package-*' and the 'dram' beside it are added up. Whatever else runs on
  the machine is counted too.

  Args:
    root: the kernel's folder of power zones.

  Returns:
    The meter, in microjoules, or why there is none.
  """
  root = pathlib.Path(root)
  zones = {}
  try:
    for package in sorted(root.glob('intel-rapl:[0-9]*')):
      if package.name.count(':') > 1:
        continue  # The kernel lists parts beside their packages too.
      name = _read(package / 'name')
      if not name.startswith('package'):
        continue
      zones[name] = package
      for part in sorted(package.glob(f'{package.name}:*')):
        if _read(part / 'name') == 'dram':
          zones[f'{name}/dram'] = part
    if not zones:
      return NotMeasured(f'RAPL: the kernel shows no processor package under {root}')
    counters = [zone / 'energy_uj' for zone in zones.values()]
    ranges = tuple(int(_read(zone / 'max_energy_range_uj')) for zone in zones.values())
    meter = Meter(
      'rapl', tuple(zones), lambda: [int(_read(path)) for path in counters], 1e-6, ranges
    )
    meter.read()
  except OSError as error:
    return NotMeasured(f'RAPL: {error.filename}: {error.strerror}')
  except ValueError as error:
    return NotMeasured(f'RAPL: a counter under {root} is no integer: {error}')
  return meter


def _read(path: pathlib.Path) -> str:
  return path.read_text().strip()


def nvml_meter(library: ModuleType | None = None) -> Meter | NotMeasured:
  """The GPUs that this process may use, whole boards with their memory, Volta or newer.

  `CUDA_VISIBLE_DEVICES` chooses them. NVML numbers GPUs by their place on the PCI bus, and CUDA
  does so too if `CUDA_DEVICE_ORDER=PCI_BUS_ID`; it matters where a machine has unlike ones.

  Args:
    library: NVIDIA's `pynvml`, of the package `nvidia-ml-py`; None to import it.

  Returns:
    The meter, in millijoules, or why there is none.
  """
  if library is None:
    try:
      library = importlib.import_module('pynvml')  # Comes with the extra `cuda`.
    except ImportError:
      return NotMeasured("NVML: the package 'nvidia-ml-py' is not installed")
  try:
    library.nvmlInit()  # Until the process ends: a meter may be read at any time.
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is None:
      names = list(map(str, range(library.nvmlDeviceGetCount())))
    else:
      names = [name.strip() for name in visible.split(',') if name.strip()]
    if not names:
      return NotMeasured(f'NVML: no GPU; CUDA_VISIBLE_DEVICES={visible!r}')
    handles = [
      library.nvmlDeviceGetHandleByIndex(int(name))
      if name.isdecimal()
      else library.nvmlDeviceGetHandleByUUID(name)
      for name in names
    ]
    domains = tuple(
      f'GPU {name} {library.nvmlDeviceGetName(handle)}' for name, handle in zip(names, handles)
    )

    def read():
      return [library.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles]

    read()
  except library.NVMLError as error:
    return NotMeasured(f'NVML: {error}')
  return Meter('nvml', domains, read, 1e-3, (2**64 - 1,) * len(domains))
