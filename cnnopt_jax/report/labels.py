"""Names of points in a plot, set where nothing else is drawn."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# From the point, in points of the page, tried in turn.
_DISTANCES = (7, 11, 16, 23, 32, 44, 60, 80)
_DIRECTIONS = ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1))
_LEADER = 15  # A name farther from its point than this is tied to it by a line.
_CLEARANCE = 2.0  # Between a name and anything else, in pixels of 1/100 inch.


class Label(NamedTuple):
  """A name and its point.

  Attributes:
    text: of the name.
    x: of the point.
    y: of the point.
    transform: of the point's numbers to pixels, a Matplotlib transform.
  """

  text: str
  x: float
  y: float
  transform: Any


def sampled_path(corners: np.ndarray) -> np.ndarray:
  """Points a pixel apart along a line, [points, 2], from its corners in pixels, [corners, 2]."""
  pieces = [
    np.linspace(a, b, max(2, int(np.hypot(*(b - a))) + 1)) for a, b in zip(corners, corners[1:])
  ]
  return np.concatenate([corners, *pieces])


def place_labels(axes: Any, labels: Sequence[Label], drawn: np.ndarray) -> list[Any]:
  """Writes names beside their points, off each other and off all that is drawn.

  The first place that is free is taken, the nearest first; where none is, the one that covers
  least. The layout of the figure must be settled: later changes of the limits move names.

  Args:
    axes: Matplotlib's.
    labels: names and points.
    drawn: pixels that lines, bars and marks cover, [pixels, 2].

  Returns:
    The texts.
  """
  inside = axes.get_window_extent().padded(-_CLEARANCE)
  texts: list[Any] = []
  taken: list[Any] = []
  for label in labels:
    text = axes.annotate(
      label.text,
      (label.x, label.y),
      xycoords=label.transform,
      xytext=(0, 0),
      textcoords='offset points',
      fontsize=7,
      color='0.25',
    )
    text.set_in_layout(False)
    place, distance, box = _best_place(label, text, inside, taken, drawn)
    _move(text, place, distance)
    taken.append(box)
    texts.append(text)
    if distance > _LEADER:
      axes.annotate(
        '',
        (label.x, label.y),
        xycoords=label.transform,
        xytext=_offset(place, distance),
        textcoords='offset points',
        arrowprops=dict(arrowstyle='-', linewidth=0.5, color='0.6', shrinkA=0, shrinkB=3),
      ).set_in_layout(False)
  return texts


def _best_place(
  label: Label, text: Any, inside: Any, taken: Sequence[Any], drawn: np.ndarray
) -> tuple[tuple[int, int], float, Any]:
  """Direction, distance and box of the first place that costs nothing, or the least."""
  found: list[Any] = []
  for distance in _DISTANCES:
    for place in _DIRECTIONS:
      _move(text, place, distance)
      box = text.get_window_extent().padded(_CLEARANCE)
      cost = _cost(box, inside, taken, drawn)
      # Beyond another's bar a name would be taken for that one's.
      cost += _crossed(label, _offset(place, distance), taken, drawn)
      found.append((cost, len(found), place, distance, box))
      if not cost:
        return place, distance, box
  return min(found)[2:]


def _offset(place: tuple[int, int], distance: float) -> tuple[float, float]:
  across, up = np.array(place) / np.hypot(*place) * distance
  return float(across), float(up)


def _move(text: Any, place: tuple[int, int], distance: float) -> None:
  text.set_position(_offset(place, distance))
  text.set_ha({1: 'left', 0: 'center', -1: 'right'}[place[0]])
  text.set_va({1: 'bottom', 0: 'center', -1: 'top'}[place[1]])


def _crossed(
  label: Label, offset: tuple[float, float], taken: Sequence[Any], drawn: np.ndarray
) -> int:
  """The cost of what a line from a name to its point crosses; along its own bar there is none."""
  point = label.transform.transform((label.x, label.y))
  line = sampled_path(np.array([point, point + np.array(offset) * 100 / 72]))
  others = drawn[np.abs(drawn[:, 0] - point[0]) > 4.5]
  near = (np.abs(line[:, None] - others) < 1.5).all(-1)
  names = sum(any(box.contains(*pixel) for pixel in line) for box in taken)
  return 10 * int(near.any(-1).sum()) + 1000 * names


def _cost(box: Any, inside: Any, taken: Sequence[Any], drawn: np.ndarray) -> int:
  """Pixels that a name in this place covers; names and the frame count for more than any line."""
  low, high = np.array([box.x0, box.y0]), np.array([box.x1, box.y1])
  covered = int(((low <= drawn) & (drawn <= high)).all(-1).sum())
  outside = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
  return 20 * covered + 1000 * sum(map(box.overlaps, taken)) + 10000 * outside
