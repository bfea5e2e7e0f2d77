"""The kernels' benchmark: what it writes, on what it depends, and its GPU path, interpreted."""

import json
import subprocess
import sys

import pytest

from cnnopt_jax.kernels import pallas, rows
from experiments import kernel_bench
from tests.experiments import runs


def test_on_a_cpu_it_times_xla_and_says_so(tmp_path, capsys):
  config = runs.load_config('kernel_bench', batches=(1,), layers=('cifar_3',), rounds=1)
  found = kernel_bench.run(config, tmp_path)
  assert 'No NVIDIA GPU of capability 9.0 was there' in capsys.readouterr().out
  text = (tmp_path / 'report.md').read_text()
  assert 'No NVIDIA GPU' in text and 'Made by `' in text
  assert json.loads((tmp_path / 'bench.json').read_text()) == found
  assert {row['form'] for row in found[1:]} == {'xla', 'resize', 'materialised'}
  row = found[1]
  assert row['name'] == 'cifar_3_interp2x_forward_xla'
  assert row['least_mb'] * 1e6 == pytest.approx(5 * 4 * 4 * 64 * 4, abs=500)


def test_its_gpu_path_runs_interpreted():
  case = kernel_bench.Case('max_pool', 'tiny', 1, (4, 9), 32, 'float32')
  with pallas.interpreted():
    found = kernel_bench.bench(case, True, 1e9, rounds=1)
    entry = kernel_bench.tune(case, rounds=1)
  kernel = [row for row in found if row['form'] == 'mosaic']
  assert [row['direction'] for row in kernel] == ['forward', 'backward']
  assert all(row['error_against_xla'] < 1e-6 for row in kernel)
  assert entry.startswith("interp2x_max_pool: (5, 32, 'float32'): Tile(columns=4, channels=32")
  assert rows.Tile(4, 32, 1) in rows.candidates(5, 32, 'float32', 20)


def test_the_whole_network_is_timed():
  dense, virtual, ratio = kernel_bench.end_to_end(1, 16, 'bfloat16', 1, network='all_cnn')
  assert ratio['value'] == pytest.approx(dense['value'] / virtual['value'])


def test_flags_from_before_there_was_a_config_still_set_its_fields(tmp_path):
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'experiments.kernel_bench', f'--workdir={tmp_path}'),
      *('--batch=1', '--batch', '2', '--layer=cifar_3', '--rounds=1', '--dtype=bfloat16'),
    ],
    cwd=runs.REPO,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads((tmp_path / 'bench.json').read_text())[1:]
  assert {row['batch'] for row in found} == {1, 2}
  assert {(row['layer'], row['dtype']) for row in found} == {('cifar_3', 'bfloat16')}


@pytest.mark.parametrize(
  'flag, message',
  [
    ('--layer=lenet', r"config.layers[0]='lenet'; allowed: one of vgg16_1, "),
    ('--config.dtype=int8', "config.dtype='int8'; allowed: one of auto, float32, bfloat16"),
    ('--config.batches=0,', 'config.batches[0]=0; allowed: an integer of at least 1'),
  ],
)
def test_wrong_input_is_one_line(flag, message, tmp_path):
  command = [*runs.command('kernel_bench', tmp_path / 'run'), flag]
  done = subprocess.run(command, cwd=runs.REPO, capture_output=True, text=True)
  assert done.returncode == 2 and done.stderr.startswith(f'error: {message}')
  assert done.stderr.count('\n') == 1


def test_needs_nothing_that_a_gpu_machine_may_lack():
  program = """
import sys
for name in ('matplotlib', 'chex', 'tensorflow_datasets', 'scipy', 'PIL'):
  sys.modules[name] = None
import experiments.kernel_bench
"""
  subprocess.run([sys.executable, '-c', program], check=True, cwd=runs.REPO)
