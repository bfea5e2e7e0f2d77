"""Programs side by side: which devices each gets, what is yielded, what an error does."""

import contextlib
import threading

import pytest

from experiments.common import schedule


@pytest.mark.parametrize(
  'members, free, waiting, size',
  [
    (3, 1, 4, 1),
    (3, 2, 4, 1),  # Two devices would idle for a third of the time.
    (3, 2, 0, 2),  # Nobody else wants the other.
    (3, 16, 4, 3),
    (6, 4, 4, 3),
    (6, 4, 0, 3),  # A fourth would not make it faster.
    (7, 4, 1, 1),
    (8, 8, 1, 8),
    (1, 8, 0, 1),
    (19, 2, 3, 2),
  ],
)
def test_group_size(members, free, waiting, size):
  assert schedule.group_size(members, free, waiting) == size


def test_no_device_has_two_programs_and_none_waits_for_nothing():
  """Programs meet in pairs at a barrier: two run at once, whenever two are left."""
  barrier = threading.Barrier(2, timeout=30)
  busy, overlaps = set(), []

  def train(program, devices, given_up):
    overlaps.append(busy & set(devices))
    busy.update(devices)
    barrier.wait()
    busy.difference_update(devices)
    barrier.wait()
    return program * 10

  costs = {program: (3, 1.0) for program in range(4)}
  found = dict(schedule.side_by_side(train, costs, ['a', 'b']))
  assert found == {0: 0, 1: 10, 2: 20, 3: 30}
  assert overlaps == [set()] * 4


def test_the_costly_ones_begin_first():
  begun = []

  def train(program, devices, given_up):
    begun.append((program, tuple(devices)))

  costs = {0: (3, 1.0), 1: (1, 9.0), 2: (4, 1.0)}
  list(schedule.side_by_side(train, costs, ['a']))
  assert begun == [(1, ('a',)), (2, ('a',)), (0, ('a',))]


def test_an_error_makes_the_others_give_up():
  others = threading.Event()
  gave_up = []

  def train(program, devices, given_up):
    if program == 1:
      assert others.wait(30)
      raise KeyError('program 1')
    others.set()
    while not given_up():
      pass
    gave_up.append(program)

  with pytest.raises(KeyError, match='program 1'):
    list(schedule.side_by_side(train, {0: (1, 2.0), 1: (1, 1.0), 2: (1, 0.5)}, ['a', 'b']))
  assert gave_up == [0]


def test_who_stops_reading_makes_the_others_give_up():
  """As when a result cannot be written: the programs in training do not run to their ends."""
  gave_up = []

  def train(program, devices, given_up):
    if program == 1:
      return 'done'
    while not given_up():
      pass
    gave_up.append(program)

  results = schedule.side_by_side(train, {0: (1, 2.0), 1: (1, 1.0)}, ['a', 'b'])
  with pytest.raises(OSError), contextlib.closing(results):
    assert next(results) == (1, 'done')
    raise OSError('no space left')
  assert gave_up == [0]
