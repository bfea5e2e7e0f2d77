"""Checkpoints on a disk that fails: damage, other arrays, no room."""

import json
import os
import random
import resource
import shutil

import jax
import numpy as np
import pytest

from cnnopt_jax import training


def state(shape=(2, 3), dtype=np.float32):
  """Of two members; what a field holds does not matter here."""
  arrays = np.arange(6, dtype=dtype).reshape(shape)
  return training.TrainState(
    **{field: {'a': arrays, 'b': np.ones(2, np.int32)} for field in training.TrainState._fields}
  )


def save(folder, steps, seconds=1.5):
  checkpoints = training.Checkpoints(folder)
  for step in steps:
    checkpoints.save(step, state(), seconds)
  checkpoints.close()


def restored(folder, like=None):
  checkpoints = training.Checkpoints(folder)
  try:
    return checkpoints.restore(state() if like is None else like)
  finally:
    checkpoints.close()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """With one checkpoint, of step 8."""
  folder = tmp_path_factory.mktemp('program')
  save(folder, [4, 8])
  return folder


def is_as_saved(found):
  jax.tree.map(np.testing.assert_array_equal, found[0], state())
  return found[1] == 1.5


def test_only_the_newest_is_kept_and_it_is_as_it_was_saved(folder):
  assert [path.name for path in folder.iterdir()] == ['8']
  assert is_as_saved(restored(folder))


DAMAGES = {
  'truncated': lambda path, content: os.truncate(path, len(content) // 2),
  'garbage': lambda path, content: path.write_bytes(random.Random(0).randbytes(len(content))),
  'a bit': lambda path, content: path.write_bytes(
    content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
  ),
  'missing': lambda path, content: path.unlink(),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_of_any_file_is_one_line(folder, tmp_path, damage, capfd):
  files = [path.relative_to(folder) for path in folder.rglob('*') if path.is_file()]
  assert len(files) > 8
  for i, name in enumerate(files):
    copy = tmp_path / str(i)
    shutil.copytree(folder, copy)
    DAMAGES[damage](copy / name, (copy / name).read_bytes())
    if (damage, name.name) == ('missing', 'sha256.json'):  # As a kill may leave it.
      assert is_as_saved(restored(copy))
      continue
    with pytest.raises(training.CheckpointError) as error:
      restored(copy)
    assert str(error.value).startswith(f'{copy}: damaged: 8/') and '\n' not in str(error.value)
  assert capfd.readouterr() == ('', '')


def test_a_checkpoint_of_an_earlier_version_is_read_and_its_damage_told(folder, tmp_path):
  """Those had no digests."""
  copy = tmp_path / 'copy'
  shutil.copytree(folder, copy)
  (copy / '8' / 'sha256.json').unlink()
  assert is_as_saved(restored(copy))
  (copy / '8' / 'default' / '_METADATA').write_text('{')
  with pytest.raises(training.CheckpointError, match='copy: damaged: '):
    restored(copy)
  shutil.rmtree(copy / '8' / 'default')
  with pytest.raises(training.CheckpointError, match='copy: damaged: '):
    restored(copy)


@pytest.mark.parametrize(
  'like, message',
  [
    (
      state(dtype=np.float64),
      r'was saved as float32 \[2, 3\] and is float64 \[2, 3\] now \(JAX_EN',
    ),
    (state(shape=(3, 2)), r'was saved as float32 \[2, 3\] and is float32 \[3, 2\] now'),
    (state()._replace(params={}), r'state/params/a was saved as .* and is nothing now'),
  ],
)
def test_other_arrays_are_not_read_as_if_they_were_the_same(folder, like, message):
  with pytest.raises(training.CheckpointError, match=message):
    restored(folder, like)


def test_variables_of_other_shapes_are_refused(tmp_path):
  variables = {'params': {'kernel': np.ones((2, 3), np.float32)}}
  training.save_variables(tmp_path / 'm', variables)
  for other in (np.ones((3, 2), np.float32), np.ones((2, 3), np.float64)):
    with pytest.raises(ValueError, match='params/kernel was saved as'):
      training.load_variables(tmp_path / 'm', {'params': {'kernel': other}})


def test_a_full_disk_is_one_error_and_the_last_checkpoint_stays(tmp_path, capfd):
  """A limit on the size of files, which is met as a full disk is."""
  save(tmp_path / 'program', [8])
  checkpoints = training.Checkpoints(tmp_path / 'program')
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
  try:
    with pytest.raises(OSError, match='File too large') as error:
      checkpoints.save(16, state(), 2.0)
    assert error.value.filename == str(tmp_path / 'program')
    with pytest.raises(OSError, match='File too large'):
      training.save_variables(tmp_path / 'members' / 'm', {'a': np.ones(3)})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert is_as_saved(checkpoints.restore(state()))
  assert [path.name for path in (tmp_path / 'program').iterdir()] == ['8']
  checkpoints.save(16, state(), 2.0)  # There is room again.
  checkpoints.close()
  assert [path.name for path in (tmp_path / 'program').iterdir()] == ['16']
  digests = json.loads((tmp_path / 'program' / '16' / 'sha256.json').read_text())
  assert 'default/_METADATA' in digests
  assert capfd.readouterr() == ('', '')
