"""Imports go one way: between the rooms, within `nvm`, and from experiments to packages only."""

import ast
import graphlib
import pathlib

import pytest

REPO = pathlib.Path(__file__).resolve().parents[1]

# What each top room may import, besides itself. `codesign` stands on everything, and nobody on it.
FOUNDATION = {'compilation', 'pareto', 'precision'}
ALLOWED = {
  'kernels': set(),
  'workload': set(),
  'quant': {'workload'},
  'vip': {'kernels', 'workload'},
  'models': {'kernels', 'quant', 'vip', 'workload'},
  'data': set(),
  'measure': {'workload'},
  'report': set(),
  'training': {'data', 'kernels', 'models', 'quant', 'report', 'vip', 'workload'},
  'traffic': {'workload'},
  'nvm': set(),
  'codesign': {'models', 'nvm', 'quant', 'report', 'traffic', 'vip', 'workload'},
}
# The rooms of `nvm` from the ground up; each may import those before it.
NVM = (
  *('structures', 'specs', 'technology', 'circuit', 'search', 'system', 'endurance', 'files'),
  'validation',
)


def modules(folder: str) -> dict[str, pathlib.Path]:
  """Dotted names of the modules below a folder of the repository."""
  found = {}
  for path in sorted((REPO / folder).rglob('*.py')):
    parts = path.relative_to(REPO).with_suffix('').parts
    if folder == 'kernels':
      parts = ('cnnopt_jax', *parts)
    found['.'.join(parts).removesuffix('.__init__')] = path
  return found


LIBRARY = {**modules('cnnopt_jax'), **modules('kernels')}
EXPERIMENTS = modules('experiments')


def imports(source: str, known) -> set[str]:
  """Modules that a source imports, inside functions too; `known` tells modules from names."""
  found = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      found.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, 'imports are absolute'
      for alias in node.names:
        inner = f'{node.module}.{alias.name}'
        found.add(inner if inner in known else node.module)
  return found


def room(module: str) -> str:
  """The part of a name below the package: 'vip' of 'cnnopt_jax.vip.plans'."""
  return module.split('.')[1] if '.' in module else ''


def upward(source: str, target: str) -> bool:
  """Whether one module of the library may not import the other."""
  ours, theirs = room(source), room(target)
  if ours == theirs == 'nvm':
    ours, theirs = (name.split('.')[2] if name.count('.') > 1 else '' for name in (source, target))
    above = ('', 'last_level')  # The package itself, and what joins its rooms.
    if theirs in above:
      return ours not in above
    return ours not in above and NVM.index(theirs) > NVM.index(ours)
  return ours != theirs and theirs not in ALLOWED.get(ours, set()) | FOUNDATION


def test_the_checker_sees_an_arrow_upwards():
  assert upward('cnnopt_jax.vip.plans', 'cnnopt_jax.models')
  assert upward('cnnopt_jax.nvm.system', 'cnnopt_jax.traffic.gpus')
  assert upward('cnnopt_jax.nvm.circuit.array', 'cnnopt_jax.nvm.search')
  assert upward('cnnopt_jax.kernels.conv.api', 'cnnopt_jax.vip')
  assert upward('cnnopt_jax.models.vgg', 'cnnopt_jax.codesign')
  assert not upward('cnnopt_jax.nvm.search.tuning', 'cnnopt_jax.nvm.circuit.array')
  assert not upward('cnnopt_jax.models.vgg', 'cnnopt_jax.vip')
  source = 'def f():\n  from cnnopt_jax import codesign\n'
  assert imports(source, LIBRARY) == {'cnnopt_jax.codesign'}


@pytest.mark.parametrize('module', LIBRARY)
def test_imports_of_the_library_go_down(module):
  found = imports(LIBRARY[module].read_text(), LIBRARY)
  assert not [name for name in found if name.split('.')[0] in ('experiments', 'configs', 'tests')]
  if module != 'cnnopt_jax':
    inside = [name for name in found if name.startswith('cnnopt_jax.')]
    assert not [name for name in inside if upward(module, name)]


def test_no_circle():
  known = {**LIBRARY, **EXPERIMENTS}
  graph = {
    name: {found for found in imports(path.read_text(), known) if found in known and found != name}
    for name, path in known.items()
  }
  # A package's __init__ gathers what stands in it; a module inside may name its package.
  packages = {name for name, path in known.items() if path.name == '__init__.py'}
  for name in graph:
    graph[name] -= {package for package in packages if name.startswith(package + '.')}
  graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize('module', EXPERIMENTS)
def test_experiments_import_packages_and_no_deep_modules(module):
  for name in imports(EXPERIMENTS[module].read_text(), LIBRARY):
    if name.startswith('cnnopt_jax.'):
      package, _, last = name.rpartition('.')
      exported = f"'{last}'" in LIBRARY[package].read_text()  # Such as `report.records`.
      is_package = LIBRARY[name].name == '__init__.py' or room(name) in FOUNDATION
      assert is_package or exported or name.startswith('cnnopt_jax.kernels.'), name
