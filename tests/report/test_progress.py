"""Bars on a terminal, lines elsewhere; files as a whole."""

import pytest

from cnnopt_jax import report


def test_off_a_terminal_a_line_stands_for_a_bar(capsys):
  with report.Progress() as progress:
    assert not progress.is_terminal
    at = progress.bar('a first stage', 3)
    for done in range(4):
      at(done)
    quiet = progress.bar('never seen', 2, announce=False)
    quiet(1, 'nor this')
    progress.line('one more ' + 'word ' * 40)
  out = capsys.readouterr().out.splitlines()
  assert out == ['a first stage', 'one more ' + 'word ' * 40]


def test_on_a_terminal_the_bar_shows_how_far_it_is(monkeypatch, capsys):
  monkeypatch.setenv('TTY_COMPATIBLE', '1')
  monkeypatch.setenv('FORCE_COLOR', '1')
  with report.Progress() as progress:
    assert progress.is_terminal
    at = progress.bar('before', 4)
    at(1, 'at work')
    at(3)
  out = capsys.readouterr().out
  assert 'at work' in out and '75%' in out


def test_a_file_is_replaced_as_a_whole(tmp_path, monkeypatch):
  path = tmp_path / 'results.csv'
  report.write_atomically(path, 'old')

  def killed(*paths):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr('os.replace', killed)
    with pytest.raises(KeyboardInterrupt):
      report.write_atomically(path, 'new')
  assert path.read_text() == 'old'
  report.write_atomically(path, 'new')
  assert path.read_text() == 'new'
