"""Compiled programs are kept by default, in a folder of the user's; a flag turns that off."""

import os
import subprocess

import pytest

from experiments.common import compile_cache
from tests.experiments import runs


@pytest.mark.parametrize('flag, kept', [('--compile_cache', True), ('--nocompile_cache', False)])
def test_programs_are_kept(tmp_path, flag, kept):
  environment = {key: value for key, value in os.environ.items() if not key.startswith('JAX_')}
  environment.update(
    XDG_CACHE_HOME=str(tmp_path / 'cache'),
    MPLCONFIGDIR=str(tmp_path),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
  )
  config = dict(layers="('8/1 9 9',)", batch_size=2, rounds=1)
  command = [*runs.command('conv_bench', tmp_path / 'run', **config), flag]
  subprocess.run(command, cwd=runs.REPO, env=environment, check=True, capture_output=True)
  programs = list((tmp_path / 'cache').glob('cnnopt_jax/programs-*/*-cache'))
  assert bool(programs) == kept


def test_the_folder_is_of_the_user_and_of_the_processor(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  here = compile_cache.default_folder()
  assert here.parent == tmp_path / 'cnnopt_jax'
  monkeypatch.setattr(compile_cache, '_processor', lambda: 'another')
  assert compile_cache.default_folder() != here
  monkeypatch.delenv('XDG_CACHE_HOME')
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  assert compile_cache.default_folder().parent == tmp_path / 'home' / '.cache' / 'cnnopt_jax'
