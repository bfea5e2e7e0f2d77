"""Members over devices: what each learns depends on no other member and on no number of devices."""

import jax
import numpy as np
import pytest

from cnnopt_jax import training
from tests.experiments import runs


@pytest.mark.parametrize(
  'count, devices, member_of',
  [
    (3, 1, [0, 1, 2]),
    (3, 2, [0, 1, 2, -1]),
    (4, 2, [0, 1, 2, 3]),
    (1, 2, [0, -1]),
  ],
)
def test_slots(count, devices, member_of):
  placement = training.Placement(count, jax.devices()[:devices])
  np.testing.assert_array_equal(placement.member_of, member_of)
  tree = {'a': np.arange(count * 2.0).reshape(count, 2), 'b': np.arange(count)}
  placed = placement.place(tree)
  assert len(placed['a'].sharding.device_set) == devices
  np.testing.assert_array_equal(placed['b'], np.maximum(member_of, 0))
  jax.tree.map(np.testing.assert_array_equal, placement.gather(placed), tree)
  batch_of = placement.batch_of(np.arange(count) % 2)
  np.testing.assert_array_equal(
    batch_of, [-1 if member < 0 else member % 2 for member in member_of]
  )


@pytest.mark.parametrize('count, devices', [(0, 1), (2, 0)])
def test_nothing_to_place(count, devices):
  with pytest.raises(ValueError, match='allowed: at least 1 member and 1 device'):
    training.Placement(count, jax.devices()[:devices])


# Trains 5 members, stopping once; prints a digest of each member's state and its accuracy.
TRAIN = """
import hashlib, sys
import jax, numpy as np
devices, count, stop = map(int, sys.argv[2:])
jax.config.update('jax_num_cpu_devices', max(2, devices))
from cnnopt_jax import data, training
from cnnopt_jax.models import PlainNet
rng = np.random.default_rng(0)
split = lambda n: data.ArraySplit(
  rng.integers(0, 256, (n, 8, 8, 1)).astype(np.uint8), rng.integers(0, 3, n).astype(np.int32))
dataset = data.Dataset('noise', split(256), split(70), (8, 8, 1), 3, (60.0,), (70.0,))
recipe = training.Recipe(10, 5, shift=1, flip=True, mean=dataset.mean, std=dataset.std)
members = training.Members(
  np.int32([0, 1, 0, 2, 1])[:count], np.int32([1, 2, 4, 8, 32])[:count], np.float32([.05] * count))
model = PlainNet(3, channels=(5, 12), strides=(2, 1))
checkpoints, taken = training.Checkpoints(sys.argv[1]), []
try:
  trained = training.train(
    model, recipe, members, dataset, batch_size=32, checkpoints=checkpoints,
    devices=jax.devices()[:devices], on_step=taken.append, stop=lambda: taken[-1] == stop)
except training.Stopped:
  sys.exit()
state = trained.state
variables = {'params': state.params, **state.statistics}
accuracies = training.accuracies(
  model, variables, members.bits, dataset, devices=jax.devices()[:devices])
for i in range(count):
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(state):
    digest.update(leaf[i].tobytes())
  alone = training.accuracy(
    model, jax.tree.map(lambda x: x[i], variables), members.bits[i], dataset)
  print(digest.hexdigest(), accuracies[i] == alone, accuracies[i])
"""


def train(folder, devices, count=5, stop=0):
  return runs.python(TRAIN, folder, devices, count, stop).splitlines()


@pytest.mark.default_flags
def test_bytes_do_not_depend_on_the_devices_nor_on_the_company(tmp_path):
  """One, two and four devices, one after the other in one folder, one member and five."""
  want = train(tmp_path / 'one', 1)
  assert len(set(want)) == 5 and all(' True ' in line for line in want)
  assert train(tmp_path / 'two', 2) == want
  assert train(tmp_path / 'first', 4, count=1) == want[:1]
  assert train(tmp_path / 'moved', 4, stop=7) == []
  assert train(tmp_path / 'moved', 1) == want
