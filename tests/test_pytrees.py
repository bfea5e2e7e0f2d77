"""No two classes of the library's trees can be taken for each other.

JAX (0.10.2 to 0.12.0) compares registered dataclasses by the number of their arrays and by their
static fields, not by class. Such trees hash apart, so a jitted function mostly tells them apart;
but when their hashes meet in its table of programs, it runs the one compiled for the other class.
"""

import dataclasses
import importlib
import inspect
import itertools
import pkgutil

import jax
import jax.numpy as jnp

import cnnopt_jax
from cnnopt_jax import vip


def tree_classes():
  found = set()
  for module in pkgutil.walk_packages(cnnopt_jax.__path__, 'cnnopt_jax.'):
    for _, value in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
      if dataclasses.is_dataclass(value) and value.__module__.startswith('cnnopt_jax.'):
        if '_flax_dataclass' in vars(value):
          found.add(value)
  return sorted(found, key=lambda c: c.__name__)


def filled(cls):
  """With zeros for arrays, and static fields as they are by default."""
  fields = {}
  for field in dataclasses.fields(cls):
    static = not field.metadata.get('pytree_node', True)
    given = field.default is not dataclasses.MISSING
    fields[field.name] = field.default if static and given else 0.0
  return cls(**fields)


def test_structures_of_all_classes_differ():
  classes = tree_classes()
  assert {vip.FoldedKernel, vip.WinogradKernel, vip.VirtualMap} < set(classes)
  structures = [jax.tree.structure(filled(cls)) for cls in classes]
  for (a, one), (b, other) in itertools.combinations(zip(classes, structures), 2):
    assert one != other, (a, b)


def test_prepared_kernels_of_equal_shapes_are_different_trees():
  kernel = jnp.ones((3, 3, 32, 32))
  folded = vip.fold_kernel(kernel, platform='cpu')
  transformed = vip.winograd_kernel(kernel, platform='cpu')
  shapes = lambda tree: [leaf.shape for leaf in jax.tree.leaves(tree)]
  assert shapes(folded) == shapes(transformed)
  assert jax.tree.structure(folded) != jax.tree.structure(transformed)
  doubled = jax.tree.map(lambda x: 2 * x, folded)
  assert jax.tree.structure(doubled) == jax.tree.structure(folded)
