"""Records that survive a kill, and tables."""

import csv
import io
import json
import resource
import warnings

import numpy as np
import pytest

from cnnopt_jax import report


def test_records_round_trip(tmp_path):
  path = tmp_path / 'records.jsonl'
  assert report.records.read(path) == []
  report.records.append(path, [{'a': 1, 'b': 0.1}, {'a': None}])
  report.records.append(path, [{'a': 'x\ny'}])
  assert report.records.read(path) == [{'a': 1, 'b': 0.1}, {'a': None}, {'a': 'x\ny'}]


def test_every_torn_last_record_is_dropped(tmp_path):
  path = tmp_path / 'records.jsonl'
  whole = ''.join(json.dumps({'n': n}) + '\n' for n in range(2))
  last = json.dumps({'n': 2}) + '\n'
  for length in range(len(last) - 1):
    path.write_text(whole + last[:length])
    assert report.records.read(path) == [{'n': 0}, {'n': 1}]
    report.records.append(path, [{'n': 2}])
    assert report.records.read(path)[-1] == {'n': 2}


def test_a_last_record_that_lacks_its_end_of_line_is_kept(tmp_path):
  """As an editor leaves it: what it records was finished."""
  path = tmp_path / 'records.jsonl'
  path.write_text('{"n": 0}\n{"n": 1}')
  assert report.records.read(path) == [{'n': 0}, {'n': 1}]
  report.records.append(path, [{'n': 2}])
  assert report.records.read(path) == [{'n': 0}, {'n': 1}, {'n': 2}]


@pytest.mark.parametrize('line', ['{"n": ', '3', 'garbage'])
def test_a_broken_line_in_the_middle_is_named(tmp_path, line):
  path = tmp_path / 'records.jsonl'
  path.write_text('{"n": 0}\n' + line + '\n{"n": 2}\n')
  with pytest.raises(ValueError, match='records.jsonl, line 2'):
    report.records.read(path)


def test_nan_is_no_record(tmp_path):
  with pytest.raises(ValueError):
    report.records.append(tmp_path / 'records.jsonl', [{'a': float('nan')}])


def test_csv_is_exact():
  rows = [{'x': 0.1 + 0.2, 'y': None, 'z': 'a,b', 'more': 1}]
  read = list(csv.DictReader(io.StringIO(report.to_csv(rows, ('x', 'y', 'z')))))
  assert read == [{'x': repr(0.1 + 0.2), 'y': '', 'z': 'a,b'}]


def test_markdown():
  assert report.to_markdown([('a', '1'), ('bcd', '20')], ('name', 'n')) == (
    '| name |  n |\n| ---- | -: |\n| a    |  1 |\n| bcd  | 20 |\n'
  )


def test_a_full_disk_leaves_the_old_files(tmp_path):
  """A limit on the size of files, which Python sees as it does a full disk."""
  old = 'old' * 100

  def draw(series=()):
    report.tradeoff(tmp_path / 'p.png', series, xlabel='size', ylabel='accuracy')

  with warnings.catch_warnings():
    warnings.simplefilter('error')
    draw()  # No member to show is no error, and no warning.
  picture = (tmp_path / 'p.png').read_bytes()
  report.write_atomically(tmp_path / 'report.md', old)
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
  try:
    for write in (
      lambda: report.write_atomically(tmp_path / 'report.md', 'new' * 1000),
      lambda: draw([report.Series('4 bits', [8, 16], [0.8, 0.9], [0.01, 0.02])]),
    ):
      with pytest.raises(OSError, match='too large'):
        write()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert (tmp_path / 'report.md').read_text() == old
  assert (tmp_path / 'p.png').read_bytes() == picture
  assert len(list(tmp_path.iterdir())) == 2


def test_plot_is_a_picture(tmp_path):
  from matplotlib import image

  report.tradeoff(
    tmp_path / 'p.png',
    [
      report.Series('4 bits', [8, 16], [0.8, 0.9], [0.01, 0.02]),
      report.Series('float', [30], [0.9], [0.0], reference=True),
    ],
    xlabel='size, KiB',
    ylabel='accuracy',
  )
  pixels = image.imread(tmp_path / 'p.png')
  blue = np.array([0x1F, 0x77, 0xB4]) / 255  # Matplotlib's first colour.
  is_blue = np.abs(pixels[..., :3] - blue).max(-1) < 0.02
  # Both points stand inside the axes, far apart, not in the legend alone.
  assert np.ptp(np.flatnonzero(is_blue.any(0))) > 0.2 * pixels.shape[1]


def test_predictions_are_drawn_with_none_and_with_some(tmp_path):
  for series in ([], [report.Series('a', (1.0, 2.0), (1.1, 1.9), ())]):
    path = tmp_path / f'{len(series)}.png'
    report.agreement(path, series, xlabel='measured', ylabel='predicted')
    assert path.read_bytes()[:4] == b'\x89PNG'


def test_intervals_are_drawn_with_none_and_with_some(tmp_path):
  for rows in ([], [report.Interval('one', 0.01, -0.005, 0.025), report.Interval('two', 0, 0, 0)]):
    report.intervals(tmp_path / 'plot.png', rows, xlabel='difference')
    assert (tmp_path / 'plot.png').read_bytes().startswith(b'\x89PNG')
