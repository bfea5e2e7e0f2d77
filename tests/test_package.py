"""The wheel: every module and the default data, under one name, away from the repository."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

REPO = pathlib.Path(__file__).resolve().parents[1]


def modules():
  """Dotted names of all modules of the tree, `kernels/` as part of the package."""
  files = [path.relative_to(REPO) for path in sorted((REPO / 'cnnopt_jax').rglob('*.py'))]
  files += [
    pathlib.Path('cnnopt_jax', path.relative_to(REPO))
    for path in sorted((REPO / 'kernels').rglob('*.py'))
  ]
  names = ['.'.join(path.with_suffix('').parts) for path in files]
  return sorted({name.removesuffix('.__init__') for name in names})


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  source = tmp_path_factory.mktemp('source')  # Building writes into the tree that it builds from.
  for name in ('pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(REPO / name, source)
  ignore = shutil.ignore_patterns('__pycache__')
  for name in ('cnnopt_jax', 'kernels'):
    shutil.copytree(REPO / name, source / name, symlinks=True, ignore=ignore)
  out = tmp_path_factory.mktemp('wheel')
  subprocess.run(
    [
      sys.executable,
      '-m',
      'pip',
      'wheel',
      '-q',
      '--no-deps',
      '--no-build-isolation',
      '--wheel-dir',
      str(out),
      str(source),
    ],
    check=True,
  )
  return next(out.glob('*.whl'))


def test_holds_one_name_and_every_file(wheel):
  with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
  assert {name.split('/')[0].split('-')[0] for name in names} == {'cnnopt_jax'}
  assert 'cnnopt_jax.kernels.conv.api' in modules()
  for module in modules():
    path = module.replace('.', '/')
    assert f'{path}.py' in names or f'{path}/__init__.py' in names, module
  data = {path.name for path in (REPO / 'cnnopt_jax/data/fashion_mnist_subset').iterdir()}
  assert data <= {pathlib.Path(name).name for name in names}
  assert 'cnnopt_jax/py.typed' in names


def test_every_module_imports_from_it_outside_the_repository(wheel, tmp_path):
  site = tmp_path / 'site'
  with zipfile.ZipFile(wheel) as archive:
    archive.extractall(site)
  program = f"""
import importlib, pathlib
for name in {modules()!r}:
  module = importlib.import_module(name)
  assert pathlib.Path(module.__file__).is_relative_to({str(site)!r}), module.__file__
from cnnopt_jax import data
assert len(data.load('fashion_mnist_subset').train) == 12000
print('imported')
"""
  done = subprocess.run(
    [sys.executable, '-c', program],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    env={'PYTHONPATH': str(site), 'PATH': ''},
  )
  assert done.stdout == 'imported\n', done.stderr


def test_kernels_are_one_module_under_one_name():
  from cnnopt_jax import kernels

  assert kernels.__name__ == 'cnnopt_jax.kernels'
  assert (REPO / 'cnnopt_jax' / 'kernels').resolve() == REPO / 'kernels'
