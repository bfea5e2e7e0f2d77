"""The README's code runs."""

import importlib.util
import pathlib
import re

import numpy as np

README = (pathlib.Path(__file__).resolve().parents[1] / 'README.md').read_text()


def test_library_snippets_run_in_order(capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  blocks = re.findall(r'```python\n(.*?)```', README, re.S)
  library = [block for block in blocks if 'load_member' not in block]
  assert len(library) == 9 and len(blocks) == 10
  scope = {}
  for block in library:
    # Small images: what is tested is that it runs.
    block = block.replace('batch=4,', 'batch=4, image_shape=(64, 64, 3),')
    exec(compile(block, 'README.md', 'exec'), scope)
  assert scope['grid'].shape == (2, 2, 2) and (scope['grid'].edp_js > 0).all()
  losses = np.asarray(scope['losses'])
  assert losses.shape == (6,) and len(set(losses.tolist())) == 6
  assert len(np.unique(scope['weights']['Conv_0']['kernel'][..., 0])) > 4  # 8 bits.
  np.testing.assert_array_equal(
    scope['weights']['Dense_0']['kernel'], scope['params']['Dense_0']['kernel']
  )
  assert 512_000 / 1.02 <= scope['match'].size.total <= 512_000
  assert scope['pooled'].shape == (4, 16, 16, 16) and scope['y'].size == (32, 32)
  assert scope['logits'].shape == (8, 10)
  np.testing.assert_allclose(
    scope['logits'], scope['virtual'].apply(scope['variables'], scope['images']), atol=1e-4
  )
  out = capsys.readouterr().out
  assert 'Conv_0' in out and 'at most 2.26 points' in out


def test_commands_name_files_that_exist():
  root = pathlib.Path(__file__).resolve().parents[1]
  for path in re.findall(r'configs/\w+\.py', README):
    assert (root / path).exists(), path
  for module in re.findall(r'-m (experiments\.\w+)', README):
    assert importlib.util.find_spec(module), module
