"""What Ctrl-C (SIGINT) and SIGTERM do to a command: what is in training is saved, and it ends.

A thread waits for the signals, not Python's main one: that sees none while XLA compiles, and a
KeyboardInterrupt in it leaves threads behind that crash as the interpreter takes itself down under
them. The process ends by `os._exit`, so that no thread is waited for: nothing of a run on disk
needs more than that, as a kill at any moment leaves it whole.
"""

import contextlib
import math
import os
import pathlib
import select
import signal
import sys
import threading
import time
from collections.abc import Callable

_THREAD = 'signals'
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Who stops a command sees nothing before its step is taken and saved; a long one is told of.
_PATIENCE_S = 5.0

_received: list[int] = []  # The first signal.
_ending = threading.Lock()
_unsaved: list[Callable[[], bool]] = []
_goes_on_from: list[pathlib.Path] = []


def requested() -> bool:
  """Whether this command has been told to stop: to be asked between two steps."""
  return bool(_received)


def wait_for(unsaved: Callable[[], bool]) -> None:
  """A command that is told to stop ends only once `unsaved()` is false."""
  _unsaved.append(unsaved)


def goes_on_from(workdir: pathlib.Path) -> None:
  """Says that the same command goes on from `workdir`, which its last line then tells."""
  _goes_on_from.append(workdir)


def listen() -> None:
  """From here on the process ends as this module says; in the main thread, once.

  Signals that are ignored stay so, as a shell has it for what runs in the background.
  """
  if any(thread.name == _THREAD for thread in threading.enumerate()):
    return
  read, write = os.pipe()
  os.set_blocking(write, False)
  signal.set_wakeup_fd(write, warn_on_full_buffer=False)
  for signum in _SIGNALS:
    if signal.getsignal(signum) is not signal.SIG_IGN:
      signal.signal(signum, lambda *_: None)  # Python writes its number to the pipe.
  threading.Thread(target=_watch, args=[read], name=_THREAD, daemon=True).start()


def end_if_requested() -> None:
  """Ends the process if it has been told to stop, which the caller has made ready for that."""
  if _received:
    _end(_received[0])


def _watch(pipe: int) -> None:
  """Waits for a signal, and then for what is unsaved or for a second one."""
  signum = _next_signal(pipe)
  _received.append(signum)
  told = time.monotonic() + _PATIENCE_S
  while any(unsaved() for unsaved in _unsaved):
    if time.monotonic() > told:
      told = math.inf
      _say(f'{signal.Signals(signum).name}: stops after this step is saved; once more: at once')
    if again := _next_signal(pipe, 0.02):
      _end(again, at_once=True)
  _end(signum)


def _next_signal(pipe: int, timeout: float | None = None) -> int:
  """Number of the next of `_SIGNALS`; 0 if there is none for `timeout` seconds."""
  while select.select([pipe], [], [], timeout)[0]:
    signum = os.read(pipe, 1)[0]
    if signum in _SIGNALS:
      return signum
  return 0


def _end(signum: int, *, at_once: bool = False) -> None:
  """Ends the process with one line and the exit code that shells know: 128 and the signal."""
  _ending.acquire()  # Never released: one thread says it.
  if not at_once:
    # What is printed may wait for a reader that has stopped reading.
    flush = threading.Thread(target=_flush, daemon=True)
    flush.start()
    flush.join(1)
  how = 'at once ' * at_once
  where = f'; the same command goes on from {_goes_on_from[-1]}' if _goes_on_from else ''
  _say(f'stopped {how}by {signal.Signals(signum).name}{where}')
  os._exit(128 + signum)


def _flush() -> None:
  with contextlib.suppress(OSError, ValueError):
    sys.stdout.flush()


def _say(line: str) -> None:
  """Past Python's buffers, whose locks another thread may hold."""
  with contextlib.suppress(OSError):
    if os.isatty(1):
      os.write(1, b'\x1b[?25h\n')  # A progress bar hides the cursor.
    os.write(2, (line + '\n').encode())
