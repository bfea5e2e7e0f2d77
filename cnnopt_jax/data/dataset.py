"""What a data set is: two splits with random access, and what a network has to know about them."""

import dataclasses
from typing import Protocol

import numpy as np


class DataError(ValueError):
  """Data that is missing, unreadable or wrong; one line that names the option to set."""


class Split(Protocol):
  """Random access to the images of one split."""

  def __len__(self) -> int:
    """Number of images."""

  def get(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reads images by position; may be called from several threads.

    Args:
      indices: int [...], each in 0..len - 1.

    Returns:
      Images uint8 [..., H, W, C] and labels int32 [...].
    """


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySplit:
  """A split that lies in memory.

  Attributes:
    images: uint8 [N, H, W, C].
    labels: int32 [N].
  """

  images: np.ndarray
  labels: np.ndarray

  def __len__(self) -> int:
    return len(self.labels)

  def get(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `Split.get`."""
    return self.images[indices], self.labels[indices]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A data set for classification.

  Attributes:
    name: as given to `load`.
    train: the split to train on.
    test: the split to report accuracy on.
    image_shape: (H, W, C).
    num_classes: labels are 0..num_classes - 1.
    mean: of each channel of the training images, C numbers in 0..255.
    std: standard deviation of each channel, in the same unit.
  """

  name: str
  train: Split
  test: Split
  image_shape: tuple[int, int, int]
  num_classes: int
  mean: tuple[float, ...]
  std: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class PartSplit:
  """Some images of a split.

  Attributes:
    whole: the split.
    positions: of the images in it, int [N].
  """

  whole: Split
  positions: np.ndarray

  def __len__(self) -> int:
    return len(self.positions)

  def get(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `Split.get`."""
    return self.whole.get(self.positions[indices])


def hold_out(dataset: Dataset, count: int) -> tuple[Dataset, Split]:
  """Sets training images aside, for choices that must not be made by the test images.

  Args:
    dataset: to take them from.
    count: how many; always the same ones, drawn at random.

  Returns:
    The data set without them, and they.

  Raises:
    ValueError: if there are not more.
  """
  if not 0 < count < len(dataset.train):
    raise ValueError(f'count={count}; allowed: 1 to {len(dataset.train) - 1} training images')
  order = np.random.default_rng(0).permutation(len(dataset.train))
  # In the order of the split, which a file reads fastest.
  held, kept = np.sort(order[:count]), np.sort(order[count:])
  rest = dataclasses.replace(dataset, train=PartSplit(dataset.train, kept))
  return rest, PartSplit(dataset.train, held)


def in_memory(
  name: str, train: ArraySplit, test: ArraySplit, num_classes: int, where: str
) -> Dataset:
  """Builds a data set from arrays, with the mean and deviation of its training images.

  Args:
    name: of the data set.
    train: images uint8 [N, H, W, C], labels int32 [N].
    test: the same for other images.
    num_classes: every label must be below it.
    where: which option chose the data, the beginning of an error's text.

  Returns:
    The data set.

  Raises:
    DataError: if images and labels differ in number, a split is empty, the splits differ in image
      shape, or a label is out of range.
  """
  for split_name, split in (('training', train), ('test', test)):
    count = len(split.images)
    if count != len(split.labels):
      raise DataError(
        f'{where}: {count} {split_name} images of {name} but {len(split.labels)} '
        'labels; allowed: files of one release'
      )
    if not count:
      raise DataError(f'{where}: no {split_name} images of {name}; allowed: at least one')
    check_labels(split.labels, num_classes, f'{where}: {split_name} labels of {name}')
  image_shape = train.images.shape[1:]
  if test.images.shape[1:] != image_shape:
    raise DataError(
      f'{where}: training images of {name} have shape {image_shape}, test images '
      f'{test.images.shape[1:]}; allowed: files of one release'
    )
  mean, std = channel_statistics(train.images)
  return Dataset(name, train, test, image_shape, num_classes, mean, std)


def check_labels(labels: np.ndarray, num_classes: int, what: str) -> None:
  """Raises `DataError` where a label is not in 0..num_classes - 1."""
  wrong = labels[(labels < 0) | (labels >= num_classes)]
  if wrong.size:
    raise DataError(f'{what}: {int(wrong[0])}; allowed: 0 to {num_classes - 1}')


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Mean and standard deviation of each channel.

  Args:
    images: uint8 [N, H, W, C].

  Returns:
    Two tuples of C numbers in 0..255. The deviation of a channel that never varies is given as 1,
    so that `normalize` can divide by it.
  """
  axes = (0, 1, 2)
  mean = images.mean(axes, dtype=np.float64)
  # uint16 holds 255**2, and needs a quarter of the memory of float64 deviations.
  second_moment = np.square(images, dtype=np.uint16).mean(axes, dtype=np.float64)
  std = np.sqrt(np.maximum(second_moment - mean**2, 0))
  return tuple(mean.tolist()), tuple(value or 1.0 for value in std.tolist())
