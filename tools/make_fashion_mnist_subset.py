"""Makes the class-balanced subset of Fashion-MNIST that ships with the package.

    python tools/make_fashion_mnist_subset.py            # writes it
    python tools/make_fashion_mnist_subset.py --check    # compares what is there with the source

Of each class it takes the first images in the order of the source file, and keeps that order, in
which the classes are mixed. There is no random choice: the same source gives the same files, byte
for byte with one version of zlib.
"""

import argparse
import pathlib
import sys

import numpy as np

from cnnopt_jax.data import DataError, fashion_mnist


def select(labels: np.ndarray, per_class: int) -> np.ndarray:
  """Positions of the first `per_class` images of each class, ascending.

  Args:
    labels: uint8 [N], each in 0..9.
    per_class: how many of each of the ten classes.

  Returns:
    int64 [10 * per_class].

  Raises:
    DataError: if a class has fewer images.
  """
  chosen = []
  for label in range(fashion_mnist.NUM_CLASSES):
    positions = np.flatnonzero(labels == label)
    if not 0 < per_class <= len(positions):
      raise DataError(
        f'per class {per_class}: class {label} of the source has {len(positions)} '
        f'images; allowed: 1 to {len(positions)}'
      )
    chosen.append(positions[:per_class])
  return np.sort(np.concatenate(chosen))


def subset(
  source: pathlib.Path, train_per_class: int, test_per_class: int
) -> dict[str, np.ndarray]:
  """Reads the source's four files and selects from them.

  Args:
    source: folder of the whole data set.
    train_per_class: training images of each class.
    test_per_class: test images of each class.

  Returns:
    File name -> uint8 array: images [N, 28, 28] and labels [N] of both splits.

  Raises:
    DataError: if a file is missing or damaged, or a class has too few images.
  """
  files = {}
  for prefix, per_class in (
    (fashion_mnist.TRAIN_PREFIX, train_per_class),
    (fashion_mnist.TEST_PREFIX, test_per_class),
  ):
    images_file = fashion_mnist.IMAGES_FILE.format(prefix)
    labels_file = fashion_mnist.LABELS_FILE.format(prefix)
    labels = fashion_mnist.read_idx(source / labels_file, 1)
    positions = select(labels, per_class)
    files[images_file] = fashion_mnist.read_idx(source / images_file, 3)[positions]
    files[labels_file] = labels[positions]
  return files


def differences(files: dict[str, np.ndarray], folder: pathlib.Path) -> list[str]:
  """Says what in `folder` differs from `files`; content is compared, not its compression."""
  lines = []
  for name, expected in files.items():
    try:
      found = fashion_mnist.read_idx(folder / name, expected.ndim)
    except DataError as error:
      lines.append(str(error))
      continue
    if not np.array_equal(found, expected):
      lines.append(f'{name} differs from the source')
  return lines


def main(argv: list[str] | None = None) -> int:
  """Returns the exit code: 0, 1 if `--check` finds differences, 2 if the source is unusable."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    '--source',
    type=pathlib.Path,
    default=fashion_mnist.DEBIAN_DIR,
    help='folder of the whole data set (default: %(default)s)',
  )
  parser.add_argument(
    '--output',
    type=pathlib.Path,
    default=fashion_mnist.SUBSET_DIR,
    help="folder of the subset (default: the package's own)",
  )
  parser.add_argument('--train-per-class', type=int, default=1200)
  parser.add_argument('--test-per-class', type=int, default=200)
  parser.add_argument('--check', action='store_true', help='compare, write nothing')
  args = parser.parse_args(argv)
  try:
    files = subset(args.source, args.train_per_class, args.test_per_class)
  except DataError as error:
    print(f'error: --source={args.source}: {error}', file=sys.stderr)
    return 2
  if args.check:
    lines = differences(files, args.output)
    print('\n'.join(lines) or f'{args.output}: as the source says')
    return 1 if lines else 0
  args.output.mkdir(parents=True, exist_ok=True)
  for name, array in files.items():
    fashion_mnist.write_idx(args.output / name, array)
    print(f'{name}: {array.shape}, {(args.output / name).stat().st_size:,} bytes')
  return 0


if __name__ == '__main__':
  sys.exit(main())
