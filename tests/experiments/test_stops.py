"""What a signal does to a command: small ones here, a sweep in test_quant_sweep."""

import signal
import subprocess
import sys
import time

import pytest

from tests.experiments import runs

# A command whose main thread waits for others, as one does whose programs compile.
START = """
import pathlib, signal, sys, threading, time
from experiments.common import stops
stops.listen()
stops.listen()
def ready():
  print('ready', flush=True)
"""
WAIT = 'threading.Event().wait()\n'
SAVE = """
unsaved = True
stops.wait_for(lambda: unsaved)
stops.goes_on_from(pathlib.Path('runs/x'))
ready()
while not stops.requested():
  time.sleep(0.01)
time.sleep(0.2)
print('saved')
unsaved = False
"""


def signalled(code, *signals, shell=()):
  """Exit code and what was printed after 'ready'; signals come when that is printed."""
  process = subprocess.Popen(
    [*shell, sys.executable, '-c', START + code],
    cwd=runs.REPO,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )
  assert process.stdout.readline() == 'ready\n'
  for signum in signals:
    process.send_signal(signum)
    time.sleep(0.1)
  return runs.finish(process, timeout=30)


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_where_nothing_is_unsaved_it_ends_at_once(signum):
  assert signalled('ready()\n' + WAIT, signum) == (128 + signum, '', f'stopped by {signum.name}\n')


def test_what_is_unsaved_is_saved_first():
  line = 'stopped by SIGINT; the same command goes on from runs/x\n'
  assert signalled(SAVE + WAIT, signal.SIGINT) == (130, 'saved\n', line)
  # Whoever has saved need not wait for the thread that listens.
  ending = 'while True: stops.end_if_requested()\n'
  assert signalled(SAVE + ending, signal.SIGINT) == (130, 'saved\n', line)


def test_a_second_one_ends_it_with_its_work_unsaved():
  code = 'stops.wait_for(lambda: True)\nready()\n' + WAIT
  for second in (signal.SIGINT, signal.SIGTERM):
    expected = f'stopped at once by {second.name}\n'
    assert signalled(code, signal.SIGINT, second) == (128 + second, '', expected)


def test_an_ignored_signal_stays_ignored():
  shell = ('sh', '-c', 'trap "" INT; exec "$0" "$@"')
  code, _, err = signalled('ready()\n' + WAIT, signal.SIGINT, signal.SIGTERM, shell=shell)
  assert (code, err) == (143, 'stopped by SIGTERM\n')


def test_a_command_listens_from_its_first_import_on_and_a_library_never():
  code = (
    'import sys, signal, threading\n{}\nimport experiments\n'
    'print([thread.name for thread in threading.enumerate()])'
  )
  for argv, expected in (("sys.argv[0] = '-m'", ['MainThread', 'signals']), ('', ['MainThread'])):
    assert runs.python(code.format(argv)).strip() == str(expected)
