"""The last line of a report: by what it was made."""

import os
import platform
import subprocess
import sys
from importlib import machinery

import pytest

from experiments.common import reports, run_folder


def test_a_report_ends_with_the_command_that_made_it(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['/where/vip.py', '--config.plans=()', '--workdir', 'runs/a b'])
  monkeypatch.setattr(
    sys.modules['__main__'], '__spec__', machinery.ModuleSpec('experiments.vip.__main__', None)
  )
  reports.write(
    tmp_path,
    ['# A title\n', 'a line\n'],
    {**run_folder.describe_environment(), 'git': 'abc', 'device': 'a toaster'},
  )
  text = (tmp_path / 'report.md').read_text()
  assert text.startswith('# A title\n\na line\n\nMade by `python -m experiments.vip ')
  assert "'--config.plans=()' --workdir 'runs/a b'` on " in text
  assert 'git abc' in text and 'device a toaster' in text and 'jaxlib ' in text


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='a setting of glibc')
def test_huge_pages_are_asked_for_once_and_only_where_the_user_has_not_spoken(tmp_path):
  script = tmp_path / 'script.py'
  script.write_text(
    'import os, sys\nfrom experiments.common import huge_pages, run_folder\n'
    'huge_pages.use_huge_pages()\n'
    'print(os.environ["GLIBC_TUNABLES"], run_folder.describe_environment()["huge_pages"],'
    ' sys.argv[1:])'
  )

  def answer(**tunables):
    environment = {key: value for key, value in os.environ.items() if key != 'GLIBC_TUNABLES'}
    return subprocess.run(
      [sys.executable, script, '--a b'],
      text=True,
      capture_output=True,
      check=True,
      env={**environment, 'PYTHONPATH': str(run_folder.REPO_ROOT), **tunables},
    ).stdout.strip()

  assert answer() == "glibc.malloc.hugetlb=1 True ['--a b']"
  assert answer(GLIBC_TUNABLES='glibc.malloc.hugetlb=0') == (
    "glibc.malloc.hugetlb=0 False ['--a b']"
  )
  assert answer(GLIBC_TUNABLES='glibc.malloc.tcache_count=7') == (
    "glibc.malloc.tcache_count=7:glibc.malloc.hugetlb=1 True ['--a b']"
  )
