"""The sweep as a process: results, kills, resumes, wrong input."""

import csv
import json
import re
import resource
import shutil
import signal
import subprocess

import numpy as np
import pytest

from cnnopt_jax import report
from experiments import quant_sweep
from experiments.quant_sweep.report import COLUMNS
from tests.experiments import runs

SECONDS = 'seconds'


def rows(workdir):
  with open(workdir / 'results.csv') as file:
    return list(csv.DictReader(file))


def without_seconds(workdir):
  """results.csv byte for byte, the last column, seconds, cut off."""
  lines = (workdir / 'results.csv').read_text().splitlines()
  assert lines[0].endswith(f',{SECONDS}')
  return [line.rpartition(',')[0] for line in lines]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """An uninterrupted run: its folder and what it printed."""
  workdir = tmp_path_factory.mktemp('whole')
  code, out, err = runs.run('quant_sweep', workdir, **runs.TINY)
  assert code == 0, err
  return workdir, out


def test_results(whole):
  workdir, out = whole
  found = rows(workdir)
  assert [(r['bits'], r['seed']) for r in found] == [('2', '0'), ('4', '0')]
  sizes = [int(r['size_bits']) for r in found]
  assert max(sizes) <= 1.02 * min(sizes)
  for r in found:
    terms = [int(r[f'size_{t}_bits']) for t in ('weights', 'scales', 'biases', 'norms', 'others')]
    assert sum(terms) == int(r['size_bits'])
    assert 0 < float(r['test_accuracy']) < 1 and float(r['train_loss']) > 0
    assert r['role'] == 'ranked' and r['accounting'] == 'stored' and r['diverged_step'] == ''
  for name in ('config.json', 'records.jsonl', 'report.md', 'pareto.png'):
    assert (workdir / name).stat().st_size > 100
  text = (workdir / 'report.md').read_text()
  verdict = re.search(r'At 2.122 KiB, \d bits is best: 0\.\d{4}; next \d bits: 0\.\d{4} ', text)
  assert verdict and verdict.group() in out
  config = json.loads((workdir / 'config.json').read_text())
  assert config['config']['bits'] == [2, 4]
  assert {'git', 'versions', 'device', 'cores'} <= config['environment'].keys()


def test_recorded_members_load_and_evaluate_to_the_recorded_accuracy(whole):
  workdir, _ = whole
  for r in rows(workdir):
    found = runs.python(
      'from experiments import quant_sweep\n'
      f'member = quant_sweep.load_member({str(workdir)!r}, {r["name"]!r})\n'
      'print(member.test_accuracy(), member.bits)'
    )
    assert found.split() == [r['test_accuracy'], r['bits']]
  with pytest.raises(KeyError, match='allowed: 2.122kib_b2'):
    quant_sweep.load_member(workdir, 'nobody')


def test_the_same_command_again_trains_nothing(whole):
  workdir, _ = whole
  before = (workdir / 'results.csv').read_bytes(), (workdir / 'records.jsonl').read_bytes()
  code, out, _ = runs.run('quant_sweep', workdir, **runs.TINY)
  assert code == 0 and 'is best' in out and 'epoch' not in out
  assert before == (
    (workdir / 'results.csv').read_bytes(),
    (workdir / 'records.jsonl').read_bytes(),
  )


def test_killed_at_several_moments_ends_in_the_same_results(whole, tmp_path):
  """SIGKILL after a checkpoint, while one is written, and after a record; then to the end.

  And on other numbers of devices: a member is the same on any. Gone on with from checkpoints where
  earlier versions kept them, which left no mark either.
  """
  records, checkpoints = tmp_path / 'records.jsonl', tmp_path / 'unfinished'
  moments = [
    lambda: any(checkpoints.glob('program0/8')),
    lambda: any(checkpoints.glob('program0/*tmp*')),
    records.exists,
  ]
  for moment in moments:
    code, _, _ = runs.signal_when(runs.start('quant_sweep', tmp_path, **runs.TINY), moment)
    assert code == -signal.SIGKILL
  recorded = report.records.read(records)
  checkpoints.rename(tmp_path / 'checkpoints')
  (tmp_path / '.lock').write_text('')
  # Begun on a device a program, gone on with on one for all.
  code, out, err = runs.run('quant_sweep', tmp_path, **runs.TINY, devices=1)
  assert code == 0, err
  for record in recorded:  # Not trained again.
    assert f'{record["bits"]} bits, epoch' not in out
  assert without_seconds(tmp_path) == without_seconds(whole[0])


def test_stopped_while_compiling_and_while_training(whole, tmp_path):
  moments = {
    signal.SIGINT: (tmp_path / 'unfinished' / 'program0').exists,
    signal.SIGTERM: (tmp_path / 'unfinished' / 'program0' / '8').exists,
  }
  for signum, moment in moments.items():
    process = runs.start('quant_sweep', tmp_path, **runs.TINY)
    code, _, err = runs.signal_when(process, moment, signum)
    assert code == 128 + signum
    assert err == f'stopped by {signum.name}; the same command goes on from {tmp_path}\n'
  code, _, err = runs.run('quant_sweep', tmp_path, **runs.TINY)
  assert code == 0, err
  assert without_seconds(tmp_path) == without_seconds(whole[0])


def test_a_full_disk_and_a_damaged_checkpoint_lose_nothing_finished(whole, tmp_path, monkeypatch):
  workdir = tmp_path / 'run'
  shutil.copytree(whole[0], workdir)
  records = workdir / 'records.jsonl'
  finished = records.read_text().splitlines(keepends=True)[0]
  records.write_text(finished)
  with monkeypatch.context() as patched:
    # The cache of programs, which others share, is read alone.
    patched.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '1e9')
    process = runs.start('quant_sweep', workdir, **runs.TINY)
  # A limit on the size of files, which is met as a full disk is.
  resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
  code, _, err = runs.finish(process)
  assert code == 1 and re.match(r'error: .*/unfinished/program\d: File too large; what is fin', err)
  assert err.count('\n') == 1 and records.read_text() == finished

  checkpoint = lambda: list(workdir.glob('unfinished/program*/8/sha256.json'))
  runs.signal_when(runs.start('quant_sweep', workdir, **runs.TINY), checkpoint)
  program = checkpoint()[0].parents[1]
  with open(next(program.glob('8/default/d/*')), 'r+b') as file:
    file.truncate(100)
  code, _, err = runs.run('quant_sweep', workdir, **runs.TINY)
  assert code == 2 and err.startswith(f'error: {program}: damaged: 8/default/d/')
  assert 'allowed: that folder deleted' in err and err.count('\n') == 1

  shutil.rmtree(program)
  (workdir / 'unfinished' / 'notes.txt').write_text("a user's")
  code, _, err = runs.run('quant_sweep', workdir, **runs.TINY)
  assert code == 0, err
  assert records.read_text().startswith(finished)
  assert without_seconds(workdir) == without_seconds(whole[0])
  assert [path.name for path in (workdir / 'unfinished').iterdir()] == ['notes.txt']


def test_torn_and_partial_records_are_made_whole(whole, tmp_path):
  """One record and half a line: the other member is trained and recorded again."""
  workdir = tmp_path / 'run'
  shutil.copytree(whole[0], workdir)
  lines = (workdir / 'records.jsonl').read_text().splitlines(keepends=True)
  (workdir / 'records.jsonl').write_text(lines[0] + lines[1][:40])
  (workdir / 'results.csv').unlink()
  code, _, err = runs.run('quant_sweep', workdir, **runs.TINY)
  assert code == 0, err
  assert without_seconds(workdir) == without_seconds(whole[0])


def test_a_changed_config_or_environment(whole, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(whole[0], workdir)
  code, _, err = runs.run('quant_sweep', workdir, **{**runs.TINY, 'epochs': 4})
  assert code == 2 and err.startswith('error: config.epochs=4 but') and err.count('\n') == 1
  content = json.loads((workdir / 'config.json').read_text())
  content['environment'].update(cores=999, python='2.7')
  for name in ('devices', 'start', 'width_multipliers'):  # As in the folders of earlier versions.
    del content['config'][name]
  (workdir / 'config.json').write_text(json.dumps(content))
  code, _, err = runs.run('quant_sweep', workdir, **runs.TINY)
  assert code == 0 and "warning: python was '2.7'" in err
  assert err.count('\n') == 1  # Results do not depend on the number of cores.


def test_a_diverged_member_is_recorded_and_the_others_go_on(whole, tmp_path):
  # Two members of one program, on two of three devices.
  config = {**runs.TINY, 'bits': '4', 'learning_rates': '0.1,1e30', 'devices': 3}
  code, out, err = runs.run('quant_sweep', tmp_path, **config)
  assert code == 0, err
  fine, diverged = rows(tmp_path)
  assert (fine['learning_rate'], diverged['learning_rate']) == ('0.1', '1e+30')
  assert diverged['test_accuracy'] == diverged['train_loss'] == ''
  assert 0 < int(diverged['diverged_step']) < 24
  expected = rows(whole[0])[1]
  fine.pop(SECONDS), expected.pop(SECONDS)
  assert fine == expected  # Whoever trains beside a member does not touch it.
  assert 'diverged' in out


def test_where_all_diverge_nothing_is_ranked_and_the_exit_code_says_so(tmp_path):
  config = {**runs.TINY, 'bits': '4', 'learning_rates': '1e9', 'epochs': 1}
  code, out, err = runs.run('quant_sweep', tmp_path, **config)
  assert code == 1 and not err
  sentence = 'At 2.122 KiB, nothing is ranked: all 1 members diverged, '
  assert sentence in out and sentence in (tmp_path / 'report.md').read_text()
  assert rows(tmp_path)[0]['test_accuracy'] == ''


@pytest.mark.parametrize(
  'config, message',
  [
    (dict(bits='nan'), r"config.bits\[0\]='nan'; allowed: one of 1, 2"),
    (dict(bits=''), r'config.bits.*allowed: '),
    (dict(bits='9'), r'config.bits\[0\]=9; allowed: one of 1, 2, 3, 4, 5, 6, 7, 8, 32'),
    (dict(bits='2,2'), r'config.bits=\(2, 2\); allowed: a tuple .* no two equal'),
    (dict(seeds='-1'), r'config.seeds\[0\]=-1; allowed: an integer from 0'),
    (dict(epochs=0), 'config.epochs=0; allowed: an integer of at least 1'),
    (dict(epochs='many'), 'epochs'),
    (dict(learning_rates='nan'), r'config.learning_rates\[0\]=.?nan'),
    (dict(sizes_kib='0.05'), r'config.sizes_kib=0.05 \(410 bits\) with .*nearest: '),
    (dict(model='lenet'), "config.model='lenet'; allowed: one of plain, vgg8"),
    (dict(widht='1'), 'config.widht: unknown field; allowed: model, '),
    (dict(data_dir='/nowhere', dataset='cifar10'), "config.dataset='cifar10': .*data_dir"),
    (dict(batch_size=20000), 'config.batch_size=20000; allowed: at most the 12000'),
    (dict(levels='mid_tread', bits='1,2'), "config.bits holds 1.*'auto' or 'mid_rise'"),
    (dict(epochs=10**9), 'config.epochs=1000000000; allowed: at most 11'),
    (dict(devices=-1), 'config.devices=-1; allowed: an integer from 0 to 1024'),
    (dict(layer_bits='head'), "config.layer_bits='head'; allowed: 'PATTERN=BITS'"),
    (dict(layer_bits='tail=8'), 'config.layer_bits=.*matches no parameter'),
  ],
)
def test_wrong_input_is_one_line_and_exit_code_2(config, message, tmp_path):
  code, out, err = runs.run('quant_sweep', tmp_path / 'run', **config)
  assert code == 2, err
  assert re.search(message, err), err
  assert err.startswith('error: ') and err.count('\n') == 1 and not out


def test_an_unwritable_folder(tmp_path):
  (tmp_path / 'file').write_text('')
  code, _, err = runs.run('quant_sweep', tmp_path / 'file' / 'run')
  assert code == 2 and re.match(r"error: workdir='.*file/run': Not a directory; allowed: ", err)
  assert err.count('\n') == 1


@pytest.mark.parametrize(
  'flag, message',
  [
    ('--sizes=3', "Unknown command line flag 'sizes'"),
    ('stray', "argument 'stray': not a flag"),
    ('--config=/nowhere.py', "config='/nowhere.py': no file; allowed: "),
    ('--config=configs', "config='configs': no file; allowed: "),
    ('--config=tests/experiments/runs.py', "config='tests/experiments/runs.py': AttributeError"),
    ('--workdir=', "workdir=''; allowed: a folder"),
  ],
)
def test_a_wrong_flag(flag, message, tmp_path):
  command = [*runs.command('quant_sweep', tmp_path / 'run'), flag]
  done = subprocess.run(command, cwd=runs.REPO, capture_output=True, text=True)
  assert done.returncode == 2 and message in done.stderr
  assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
  assert not (tmp_path / 'run').exists()


def test_a_folder_of_something_else_is_left_as_it_was(tmp_path):
  (tmp_path / 'report.md').write_text("a user's")
  code, _, err = runs.run('quant_sweep', tmp_path, **runs.TINY)
  assert code == 2 and err.count('\n') == 1
  assert err.startswith(f"error: workdir='{tmp_path}': it holds 'report.md' and no run of exper")
  assert [path.name for path in tmp_path.iterdir()] == ['report.md']


def test_two_processes_cannot_share_a_folder(tmp_path):
  first = runs.start('quant_sweep', tmp_path, **runs.TINY)
  try:
    while not (tmp_path / 'config.json').exists():
      assert first.poll() is None
    code, _, err = runs.run('quant_sweep', tmp_path, **runs.TINY)
    assert code == 2 and 'another process is running in it' in err
  finally:
    first.kill()
    first.communicate()


def test_records_name_every_column(whole):
  for record in report.records.read(whole[0] / 'records.jsonl'):
    assert tuple(record) == COLUMNS
    assert np.isfinite(record['seconds'])
