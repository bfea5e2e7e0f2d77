"""Records that survive a kill, and tables."""

import csv
import io
import json
import resource
import warnings

import numpy as np
import pytest

from cnnopt_jax import report
from cnnopt_jax.report import plots


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


def covered(axes, texts):
  """Of each text, the pixels of the axes' lines and bars inside its box."""
  lines = [line.get_transform().transform(line.get_xydata()) for line in axes.get_lines()]
  for container in axes.containers:
    for bars in container[2]:
      lines += [bars.get_transform().transform(segment) for segment in bars.get_segments()]
  drawn = np.concatenate([plots.sampled_path(line) for line in lines if len(line)])
  boxes = [text.get_window_extent() for text in texts]
  return [sum(box.contains(*pixel) for pixel in drawn) for box in boxes], boxes


@pytest.mark.parametrize('controls', [1, 3, 4])
def test_names_and_legend_stand_off_the_data(controls):
  rounds = report.Series(
    'rounds', [9.5, 6.0, 4.1], [0.905, 0.895, 0.889], [0.007] * 3, names=['one', 'two', 'three']
  )
  same = [  # Of one cost, and nearly of one accuracy: the crowd that a control makes.
    report.Series('' if i else 'dense', [11.5], [0.91 + 0.0005 * i], [0.005], True, [f'control{i}'])
    for i in range(controls)
  ]
  options = dict(xlabel='ms', ylabel='accuracy', title='a title', ticks=())
  fig = plots.tradeoff_figure([rounds, *same], **options)
  (axes,), (legend,) = fig.axes, fig.legends
  fig.draw_without_rendering()
  texts = [text for text in axes.texts if text.get_text()]
  assert [text.get_text() for text in texts] == [*rounds.names, *(s.names[0] for s in same)]
  counts, boxes = covered(axes, texts)
  assert counts == [0] * len(texts)
  assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
  inside = axes.get_window_extent()
  for box in boxes:
    assert inside.x0 <= box.x0 and box.x1 <= inside.x1
    assert inside.y0 <= box.y0 and box.y1 <= inside.y1
  assert legend.get_window_extent().y1 < inside.y0
  assert [text.get_text() for text in legend.get_texts()] == ['rounds', 'dense']
  page = fig.bbox
  assert page.x0 <= legend.get_window_extent().x0 and legend.get_window_extent().x1 <= page.x1


def test_only_series_of_about_one_cost_are_set_apart():
  def places(xs):
    series = [report.Series(str(i), [x], [0.5], [0.0]) for i, x in enumerate(xs)]
    fig = plots.tradeoff_figure(series, xlabel='', ylabel='', title='', ticks=())
    fig.draw_without_rendering()
    (axes,) = fig.axes
    shifted = [line.get_transform().transform((x, 0.5))[0] for line, x in zip(lines(axes), xs)]
    return np.array(shifted) - [axes.transData.transform((x, 0.5))[0] for x in xs]

  def lines(axes):
    return [container[0] for container in axes.containers]

  np.testing.assert_allclose(places([2.0, 3.0, 4.0]), 0, atol=1e-9)
  half = 3.5 * 100 / 72
  for alike in (3.0, 3.03):
    np.testing.assert_allclose(places([2.0, 3.0, alike]), [0, -half, half], atol=1e-9)


def test_predictions_are_drawn_with_none_and_with_some(tmp_path):
  for series in ([], [report.Series('a', (1.0, 2.0), (1.1, 1.9), ())]):
    path = tmp_path / f'{len(series)}.png'
    report.agreement(path, series, xlabel='measured', ylabel='predicted')
    assert path.read_bytes()[:4] == b'\x89PNG'


def test_intervals_are_drawn_with_none_and_with_some(tmp_path):
  for rows in ([], [report.Interval('one', 0.01, -0.005, 0.025), report.Interval('two', 0, 0, 0)]):
    report.intervals(tmp_path / 'plot.png', rows, xlabel='difference')
    assert (tmp_path / 'plot.png').read_bytes().startswith(b'\x89PNG')
