"""Whose a folder is, and whether a run may go on there."""

import json
import subprocess
import sys

import jax
import pytest

from experiments.common import fields, run_folder
from tests.experiments import runs

NAME, KNOWN = 'experiments.quant_sweep', ('bits', 'seeds')
OURS = {'config': {'bits': [2]}, 'environment': {}}


def take(folder):
  with run_folder.locked(folder, NAME, KNOWN):
    return (folder / '.lock').read_text()


def test_new_empty_and_own_folders_are_taken(tmp_path):
  assert take(tmp_path / 'new' / 'run') == NAME + '\n'
  (tmp_path / 'new' / 'run' / 'report.md').write_text('')
  assert take(tmp_path / 'new' / 'run') == NAME + '\n'  # By the mark.
  (tmp_path / 'empty').mkdir()
  take(tmp_path / 'empty')
  (tmp_path / 'killed').mkdir()
  (tmp_path / 'killed' / '.lock').write_text('')  # Before its mark was written.
  take(tmp_path / 'killed')
  (tmp_path / 'old').mkdir()
  (tmp_path / 'old' / '.lock').write_text('')
  (tmp_path / 'old' / 'config.json').write_text(json.dumps(OURS))
  (tmp_path / 'old' / 'checkpoints').mkdir()
  assert take(tmp_path / 'old') == NAME + '\n'  # Of a version that left no mark.


@pytest.mark.parametrize(
  'name, content, what',
  [
    ('report.md', 'mine', "'report.md' and no run of"),
    ('checkpoints/epoch9', 'mine', "'checkpoints' and no run of"),
    ('.lock', 'mine', "'.lock' and no run of"),
    ('.lock', 'experiments.vip\n', 'a run of experiments.vip'),
    ('config.json', '{"model": "gpt"}', "'config.json' and no run of"),
    ('config.json', '{"config": 1, "environment": {}}', "'config.json' and no run of"),
    ('config.json', '{"config": {"rounds": 1}, "environment": {}}', 'a run of another experiment'),
    ('config.json', '\udcff{', "'config.json' and no run of"),
  ],
)
def test_other_folders_are_refused_and_left_alone(tmp_path, name, content, what):
  path = tmp_path / name
  path.parent.mkdir(exist_ok=True)
  path.write_bytes(content.encode(errors='surrogateescape'))
  before = sorted(tmp_path.rglob('*')), path.read_bytes()
  with pytest.raises(fields.ConfigError) as error:
    take(tmp_path)
  what = what.replace('no run of', f'no run of {NAME}')
  assert str(error.value) == (
    f"workdir='{tmp_path}': it holds {what}; allowed: a new or an empty folder"
  )
  assert (sorted(tmp_path.rglob('*')), path.read_bytes()) == before


def test_what_is_no_folder_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  for path in (tmp_path / 'file', tmp_path / 'file' / 'run', '/proc/run'):
    with pytest.raises(fields.ConfigError, match='allowed: a folder that can be made and written'):
      run_folder.locked(path, NAME, KNOWN).__enter__()


def test_a_lock_ends_with_its_process(tmp_path):
  code = (
    'import pathlib, sys\nfrom experiments.common import run_folder\n'
    f'with run_folder.locked(pathlib.Path({str(tmp_path)!r}), {NAME!r}, ()):\n'
    '  print("held", flush=True)\n  sys.stdin.read()'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code], cwd=runs.REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE
  )
  assert process.stdout.readline() == b'held\n'
  with pytest.raises(fields.ConfigError, match='another process is running in it'):
    take(tmp_path)
  process.kill()
  process.communicate()
  take(tmp_path)


@pytest.fixture
def config():
  return runs.load_config('quant_sweep')


def test_x64_must_be_as_it_was(tmp_path, config, capsys):
  assert run_folder.claim(tmp_path, config)['x64'] is False
  with jax.enable_x64(True):
    with pytest.raises(
      fields.ConfigError, match='JAX_ENABLE_X64=True but .* was made with False; allowed: the same'
    ):
      run_folder.claim(tmp_path, config)
  path = tmp_path / 'config.json'
  content = json.loads(path.read_text())
  del content['environment']['x64']  # As in the folders of earlier versions.
  path.write_text(json.dumps(content))
  run_folder.claim(tmp_path, config)
  assert capsys.readouterr().err == ''
  with jax.enable_x64(True):
    run_folder.claim(tmp_path, config)
  assert capsys.readouterr().err.startswith(
    'warning: x64 was False when this run began and is True'
  )


def test_a_damaged_or_missing_config_is_named(tmp_path, config):
  run_folder.claim(tmp_path, config)
  path = tmp_path / 'config.json'
  for content in ('', '{"config": ', '[]', '{"config": [], "environment": {}}', '\0'):
    path.write_text(content)
    with pytest.raises(fields.ConfigError, match='config.json: damaged, or of no run; allowed: '):
      run_folder.claim(tmp_path, config)
  path.unlink()
  run_folder.claim(tmp_path, config)  # Nothing was done yet.
  path.unlink()
  (tmp_path / 'records.jsonl').write_text('{}\n')
  with pytest.raises(fields.ConfigError, match='records.jsonl: nothing says of which config'):
    run_folder.claim(tmp_path, config)


@pytest.mark.parametrize('line', ['garbage', '\0\0', '{"name": ', '{"other": 1}', '3'])
def test_a_damaged_record_is_named(tmp_path, line):
  (tmp_path / 'records.jsonl').write_text(f'{{"name": "a"}}\n{line}\n{{"name": "b"}}\n')
  with pytest.raises(
    fields.ConfigError, match=r'records.jsonl, line 2: .*; allowed: that line deleted, so that its'
  ):
    run_folder.read_records(tmp_path, ['name'])
