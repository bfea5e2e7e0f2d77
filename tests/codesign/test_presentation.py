"""Fronts against their definition, tables, plots."""

import numpy as np
import pytest

from cnnopt_jax import codesign, nvm

SMALL = dict(image_shape=(28, 28, 1), num_classes=10, width_multiplier=0.2)


@pytest.fixture(scope='module')
def report():
  rng = np.random.default_rng(0)
  caches = [
    nvm.LastLevelCache(f'c{i}', 1 << 20, nvm.CacheFigures(*rng.uniform(0.5, 5, 6)))
    for i in range(8)
  ]
  return codesign.evaluate('plain', bits=[2, 4, 32], cache=caches, batch=1, **SMALL)


def _beaten(values, known):
  """By the definition, all pairs."""
  return [
    any(known[j] and (other <= row).all() and (other < row).any() for j, other in enumerate(values))
    for row in values
  ]


@pytest.mark.parametrize('minimize', [('edp_js', 'area_mm2'), ('delay_s',), ()])
@pytest.mark.parametrize('maximize', [(), ('size_bits', 'macs')])
def test_fronts_against_the_definition(report, minimize, maximize):
  rng = np.random.default_rng(1)
  accuracy = rng.integers(0, 4, report.shape) / 4.0
  accuracy[0, :3] = np.nan
  for quality in (None, accuracy):
    if not minimize and not maximize and quality is None:
      continue
    columns = [report.figure(name) for name in minimize]
    columns += [-report.figure(name) for name in maximize]
    columns += [] if quality is None else [-quality]
    values = np.stack([np.ravel(column).astype(float) for column in columns], -1)
    known = ~np.isnan(values).any(-1)
    expected = known & ~np.array(_beaten(values, known))
    found = codesign.pareto(report, minimize, maximize, accuracy=quality)
    np.testing.assert_array_equal(found, expected.reshape(report.shape))


def test_accuracy_broadcasts_and_other_shapes_are_refused(report):
  by_bits = np.array([[0.8], [0.9], [0.91]])
  found = codesign.pareto(report, accuracy=by_bits)
  whole = codesign.pareto(report, accuracy=np.broadcast_to(by_bits, report.shape))
  np.testing.assert_array_equal(found, whole)
  with pytest.raises(ValueError, match=r'accuracy: shape \(5,\); allowed.*\(3, 8\)'):
    codesign.pareto(report, accuracy=np.ones(5))
  with pytest.raises(ValueError, match="figure='cost'; allowed: size_bits"):
    codesign.pareto(report, ('cost',))
  with pytest.raises(ValueError, match='at least one of them'):
    codesign.pareto(report, ())


def test_table_holds_the_front_by_edp(report):
  front = codesign.pareto(report)
  lines = codesign.table(report, front, ['edp_js', 'area_mm2']).splitlines()
  cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
  assert cells[0] == ['bits', 'cache', 'EDP, mJ s', 'area, mm2']
  body = cells[2:]
  assert len(body) == front.sum()
  edp = np.sort(report.edp_js[front])
  np.testing.assert_allclose([float(row[2]) for row in body], 1e3 * edp, rtol=1e-3)
  best = np.unravel_index(np.argmin(report.edp_js), report.shape)
  assert body[0][0] == str(report.labels['bits'][best[0]])
  assert body[0][1] == report.labels['cache'][best[1]]
  assert len(codesign.table(report).splitlines()) == 2 + report.edp_js.size
  cache = nvm.LastLevelCache('c', 1 << 20, nvm.CacheFigures(*range(1, 7)))
  point = codesign.table(codesign.evaluate('plain', cache=cache, **SMALL)).splitlines()
  assert len(point) == 3 and point[0].split()[1:10:2] == list(codesign.AXES)


def test_plots_are_drawn(report, tmp_path):
  codesign.plot(report, tmp_path / 'front.png')
  codesign.plot(report, tmp_path / 'accuracy.png', accuracy=np.array([[0.8], [0.9], [0.91]]))
  assert all(path.stat().st_size > 5_000 for path in tmp_path.glob('*.png'))
  assert len(list(tmp_path.glob('*.png'))) == 2
