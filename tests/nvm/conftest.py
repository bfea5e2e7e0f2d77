"""Programs of the memory model take seconds to compile: the workers of one run share them."""

import jax
import pytest


@pytest.fixture(scope='session', autouse=True)
def _shared_programs(tmp_path_factory, worker_id):
  base = tmp_path_factory.getbasetemp()
  folder = (base if worker_id == 'master' else base.parent) / 'programs'
  before = jax.config.jax_compilation_cache_dir
  jax.config.update('jax_compilation_cache_dir', str(folder))
  yield
  jax.config.update('jax_compilation_cache_dir', before)
