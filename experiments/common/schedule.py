"""Programs of a sweep side by side, each on devices of its own."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax

# Devices that one program may leave idle: more go to another program instead.
_MOST_IDLE = 0.1


def group_size(members: int, free: int, waiting: int) -> int:
  """How many of the free devices a program gets.

  As many as its members keep busy: with two devices, three members leave one of them idle for a
  third of the time, and another program can have it. Where no other waits, all that make it faster.

  Args:
    members: of the program, at least 1.
    free: devices, at least 1.
    waiting: programs that will begin after this one.

  Returns:
    1 to `free`.
  """
  sizes = range(1, min(members, free) + 1)
  if not waiting:
    rounds = -(-members // sizes[-1])
    return -(-members // rounds)
  return max(size for size in sizes if members / (size * -(-members // size)) >= 1 - _MOST_IDLE)


def side_by_side(
  train: Callable[[int, list[jax.Device], Callable[[], bool]], Any],
  costs: dict[int, tuple[int, float]],
  devices: Sequence[jax.Device],
) -> Iterator[tuple[int, Any]]:
  """Runs programs on threads, the most costly first, and yields each result as it comes.

  Args:
    train: runs one program, by its number, on some devices; it asks its last argument now and then
      whether to give up, because another has failed.
    costs: for each program its members and what one of them costs, in any unit.
    devices: all that there are.

  Yields:
    Number of a program and what `train` returned.

  Raises:
    Exception: the first that `train` raised, once all programs have ended.
  """
  waiting = sorted(costs, key=lambda program: -costs[program][0] * costs[program][1])
  free, running = list(devices), {}
  failed = threading.Event()
  with futures.ThreadPoolExecutor(len(devices), thread_name_prefix='program') as pool:
    try:
      while waiting or running:
        while waiting and free:
          program = waiting.pop(0)
          size = group_size(costs[program][0], len(free), len(waiting))
          group, free = free[:size], free[size:]
          running[pool.submit(train, program, group, failed.is_set)] = program, group
        for future in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
          program, group = running.pop(future)
          free += group
          yield program, future.result()
    except BaseException:
      failed.set()  # The pool waits for its threads.
      raise
