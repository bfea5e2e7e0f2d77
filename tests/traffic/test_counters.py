"""The model beside the counters of a V100: one training step of VGG-16, batch 32, in PyTorch.

Figures: L2 sectors from the SMs and DRAM sectors, sums over the launches of each layer's forward
pass and of the whole step without the optimizer, measured with nvprof by the authors of GitHub
Yassawe/cacheThrashingVisualization (commit f926197b); docs/results/traffic_counters has them all.
"""

import numpy as np
import pytest

from cnnopt_jax import models, traffic

FIELDS = ('l2_reads', 'l2_writes', 'dram_reads', 'dram_writes')
STEP = (2693.7e6, 689.8e6, 1178.8e6, 797.9e6)
FORWARD = (956.8e6, 285.9e6, 373.1e6, 306.4e6)
SECONDS = 0.140
# Of the convolutions' and dense layers' own launches, millions.
LAYERS = {
  'conv1_1/conv': (2.89, 12.86, 0.90, 12.85),
  'conv1_2/conv': (163.89, 12.85, 53.05, 12.90),
  'conv2_1/conv': (80.69, 6.44, 11.58, 6.47),
  'conv2_2/conv': (86.03, 35.40, 36.78, 36.88),
  'conv3_1/conv': (41.26, 14.20, 14.63, 14.17),
  'conv3_2/conv': (83.68, 17.96, 25.17, 22.93),
  'conv3_3/conv': (83.60, 17.96, 25.36, 17.99),
  'conv4_1/conv': (41.02, 8.08, 7.31, 8.41),
  'conv4_2/conv': (78.49, 10.47, 14.81, 10.28),
  'conv4_3/conv': (78.48, 10.47, 12.83, 10.28),
  'conv5_1/conv': (20.13, 3.99, 7.41, 4.33),
  'conv5_2/conv': (20.10, 3.99, 6.95, 5.92),
  'conv5_3/conv': (20.02, 3.99, 7.59, 5.91),
  'head/hidden0': (17.41, 0.08, 13.03, 0.08),
  'head/hidden1': (2.86, 0.08, 2.16, 0.08),
}


@pytest.fixture(scope='module')
def found():
  table = models.layer_table(models.create('vgg16', num_classes=1000), (224, 224, 3), train=True)
  return traffic.predict_traffic(table, traffic.V100, 32, training=True)


def sums(rows):
  return np.array([sum(getattr(row, field) for row in rows) for field in FIELDS])


def test_totals_of_the_step_and_of_its_forward_pass(found):
  for mode, measured in (('forward_backward', STEP), ('forward', FORWARD)):
    np.testing.assert_allclose(sums(traffic.part_of(found, mode)), measured, rtol=0.15)
  seconds = sum(row.seconds for row in traffic.part_of(found, 'forward_backward'))
  assert seconds == pytest.approx(SECONDS, rel=0.25)


def test_shares(found):
  reads, writes, dram_reads, dram_writes = sums(traffic.part_of(found, 'forward_backward'))
  assert reads / (reads + writes) == pytest.approx(STEP[0] / sum(STEP[:2]), abs=0.03)
  assert (dram_reads + dram_writes) / (reads + writes) == pytest.approx(
    sum(STEP[2:]) / sum(STEP[:2]), abs=0.05
  )


def test_the_median_layer(found):
  errors = []
  for path, measured in LAYERS.items():
    rows = [r for r in found.rows if r.launch.path == path and r.launch.kind == 'forward']
    errors.append(np.abs(sums(rows) / np.array(measured) / 1e6 - 1))
  assert (np.median(errors, 0) < 0.25).all() and np.median(errors, 0)[0] < 0.05
