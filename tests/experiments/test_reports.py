"""The last line of a report: by what it was made."""

import sys
from importlib import machinery

from experiments import launch, reports


def test_a_report_ends_with_the_command_that_made_it(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['/where/vip.py', '--config.plans=()', '--workdir', 'runs/a b'])
  monkeypatch.setattr(sys.modules['__main__'], '__spec__',
                      machinery.ModuleSpec('experiments.vip', None))
  reports.write(tmp_path, ['# A title\n', 'a line\n'],
                {**launch.environment(), 'git': 'abc', 'device': 'a toaster'})
  text = (tmp_path / 'report.md').read_text()
  assert text.startswith('# A title\n\na line\n\nMade by `python -m experiments.vip ')
  assert "'--config.plans=()' --workdir 'runs/a b'` on " in text
  assert 'git abc' in text and 'device a toaster' in text and 'jaxlib ' in text
