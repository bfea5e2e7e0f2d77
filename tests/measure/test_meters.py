"""Meters read from a made-up folder of power zones and a made-up NVML."""

import pathlib
import re
import sys

import numpy as np
import pytest

from cnnopt_jax import measure
from cnnopt_jax.measure import meters

RANGE = 262_143_328_850  # That of an Intel Xeon: 2^32 - 1 counts of 61 microjoules.


def zone(folder, name, energy, limit=RANGE):
  folder.mkdir(parents=True)
  for file, value in (('name', name), ('energy_uj', energy), ('max_energy_range_uj', limit)):
    (folder / file).write_text(f'{value}\n')


@pytest.fixture
def powercap(tmp_path):
  """Two packages and all that must not be counted, laid out as the kernel does it."""
  root = tmp_path / 'powercap'
  for i in range(2):
    package = root / f'intel-rapl:{i}'
    zone(package, f'package-{i}', 1000 * i)
    zone(package / f'{package.name}:0', 'core', 5)
    zone(package / f'{package.name}:1', 'dram', 7, limit=100)
    for part in (0, 1):
      (root / f'{package.name}:{part}').symlink_to(package / f'{package.name}:{part}')
  zone(root / 'intel-rapl:2', 'psys', 9)
  zone(root / 'intel-rapl-mmio:0', 'package-0', 1)
  (root / 'intel-rapl').mkdir()
  return root


def test_rapl_counts_packages_and_memory_once(powercap):
  meter = measure.rapl_meter(powercap)
  assert meter.source == 'rapl'
  assert meter.domains == ('package-0', 'package-0/dram', 'package-1', 'package-1/dram')
  before = meter.read()
  assert list(before) == [0, 7, 1000, 7]
  (powercap / 'intel-rapl:1' / 'energy_uj').write_text('2501000\n')
  np.testing.assert_allclose(meter.joules(before, meter.read()), [0, 0, 2.5, 0])


def test_rapl_counters_wrap_around(powercap):
  meter = measure.rapl_meter(powercap)
  # 50 counts to the end and 20 after it; the memory's counter ends at 100.
  joules = meter.joules([RANGE - 50, 90, 5, 0], [20, 15, 5, 100])
  np.testing.assert_allclose(joules, np.array([70, 25, 0, 100]) * 1e-6, rtol=1e-12)


def test_rapl_of_one_package_without_memory(tmp_path):
  zone(tmp_path / 'intel-rapl:0', 'package-0', 3)
  assert measure.rapl_meter(tmp_path).domains == ('package-0',)


def test_rapl_says_what_may_not_be_read(powercap, monkeypatch):
  read_text = pathlib.Path.read_text

  def denied(path, *args, **kwargs):  # File modes do not stop the user root.
    if path.name == 'energy_uj':
      raise PermissionError(13, 'Permission denied', str(path))
    return read_text(path, *args, **kwargs)

  monkeypatch.setattr(pathlib.Path, 'read_text', denied)
  found = measure.rapl_meter(powercap)
  assert found.source == 'not measured' and found.measured_energy_j is None
  assert found.reason == f'RAPL: {powercap}/intel-rapl:0/energy_uj: Permission denied'


@pytest.mark.parametrize(
  'damage, reason',
  [
    (lambda root: (root / 'intel-rapl:0/energy_uj').unlink(), 'energy_uj: No such file'),
    (lambda root: (root / 'intel-rapl:1/max_energy_range_uj').unlink(), 'range_uj: No such file'),
    (lambda root: (root / 'intel-rapl:1/energy_uj').write_text('many'), "no integer.*'many'"),
  ],
)
def test_rapl_is_all_packages_or_nothing(powercap, damage, reason):
  damage(powercap)
  found = measure.rapl_meter(powercap)
  assert isinstance(found, measure.NotMeasured)
  assert re.search(reason, found.reason), found.reason


def test_no_power_zones(tmp_path):
  for root in (tmp_path, tmp_path / 'missing'):
    found = measure.rapl_meter(root)
    reason = f'RAPL: the kernel shows no processor package under {root}'
    assert found == measure.NotMeasured(reason)


class FakeNvml:
  """What `pynvml` offers, with three GPUs whose counters this class holds."""

  class NVMLError(Exception):
    pass

  def __init__(self, fails=()):
    self.energy_mj, self.fails, self.started = [100, 2000, 30_000], fails, False

  def nvmlInit(self):
    self._check('init')
    self.started = True

  def nvmlDeviceGetCount(self):
    return len(self.energy_mj)

  def nvmlDeviceGetHandleByIndex(self, index):
    return self._handle(index)

  def nvmlDeviceGetHandleByUUID(self, uuid):
    return self._handle({'GPU-two': 2}.get(uuid, -1))

  def nvmlDeviceGetName(self, handle):
    return f'NVIDIA {handle[0]}'

  def nvmlDeviceGetTotalEnergyConsumption(self, handle):
    self._check('energy')
    return self.energy_mj[handle[0]]

  def _handle(self, index):
    assert self.started
    if index not in range(3):
      raise self.NVMLError('Not Found')
    return (index,)

  def _check(self, what):
    if what in self.fails:
      raise self.NVMLError(f'{what}: Not Supported')


@pytest.mark.parametrize(
  'visible, domains, joules',
  [
    (None, ('GPU 0 NVIDIA 0', 'GPU 1 NVIDIA 1', 'GPU 2 NVIDIA 2'), [0.001, 0.02, 3]),
    ('1, 0', ('GPU 1 NVIDIA 1', 'GPU 0 NVIDIA 0'), [0.02, 0.001]),
    ('GPU-two', ('GPU GPU-two NVIDIA 2',), [3]),
  ],
)
def test_nvml_counts_the_visible_gpus(monkeypatch, visible, domains, joules):
  set_visible(monkeypatch, visible)
  library = FakeNvml()
  meter = measure.nvml_meter(library)
  assert meter.source == 'nvml' and meter.domains == domains
  before = meter.read()
  library.energy_mj = [101, 2020, 33_000]
  np.testing.assert_allclose(meter.joules(before, meter.read()), joules, rtol=1e-12)


@pytest.mark.parametrize(
  'visible, fails, reason',
  [
    (None, 'init', 'NVML: init: Not Supported'),
    (None, ('energy',), 'NVML: energy: Not Supported'),  # GPUs before Volta.
    ('', (), "NVML: no GPU; CUDA_VISIBLE_DEVICES=''"),
    ('7', (), 'NVML: Not Found'),
    ('MIG-x', (), 'NVML: Not Found'),
  ],
)
def test_nvml_says_why_it_cannot(monkeypatch, visible, fails, reason):
  set_visible(monkeypatch, visible)
  assert measure.nvml_meter(FakeNvml(fails)) == measure.NotMeasured(reason)


def test_nvml_without_its_package(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pynvml', None)
  assert measure.nvml_meter().reason == "NVML: the package 'nvidia-ml-py' is not installed"


def set_visible(monkeypatch, visible):
  if visible is None:
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  else:
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)


def test_the_platform_chooses_the_meter(monkeypatch):
  monkeypatch.setattr(meters, 'rapl_meter', lambda: 'processor')
  monkeypatch.setattr(meters, 'nvml_meter', lambda: 'GPU')
  assert measure.find_meter('cpu') == 'processor'
  assert measure.find_meter('gpu') == 'GPU'
  assert measure.find_meter('tpu').reason == "platform='tpu'; with a meter: cpu, gpu"
