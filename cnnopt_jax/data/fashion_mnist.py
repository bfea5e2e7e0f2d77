"""Fashion-MNIST from IDX files: the subset inside this package, and the whole data set.

Reference: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms", arXiv:1708.07747, 2017. IDX is the format of LeCun's MNIST: two zero bytes, a
type code (8 for uint8), the number of axes, each axis as a big-endian uint32, then the elements.
"""

import gzip
import math
import pathlib
import struct
import zlib

import numpy as np

from cnnopt_jax.data.dataset import ArraySplit, DataError, Dataset, in_memory

SUBSET_DIR = pathlib.Path(__file__).parent / 'fashion_mnist_subset'
DEBIAN_DIR = pathlib.Path('/usr/share/datasets/fashion-mnist')
IMAGES_FILE = '{}-images-idx3-ubyte.gz'
LABELS_FILE = '{}-labels-idx1-ubyte.gz'
TRAIN_PREFIX, TEST_PREFIX = 'train', 't10k'
NUM_CLASSES = 10
_UINT8_CODE = 8
_SIDE = 28


def load_subset() -> Dataset:
  """Loads the 12,000 training and 2,000 test images that ship with the package."""
  return _load(
    'fashion_mnist_subset',
    SUBSET_DIR,
    f'installation in {str(SUBSET_DIR)!r}',
    'a complete installation of cnnopt-jax',
  )


def load_whole(data_dir: pathlib.Path) -> Dataset:
  """Loads the 60,000 training and 10,000 test images from four gzipped IDX files.

  Args:
    data_dir: folder of `train-images-idx3-ubyte.gz` and its three companions.

  Returns:
    The data set.

  Raises:
    DataError: if a file is missing, damaged or does not fit the others.
  """
  return _load(
    'fashion_mnist',
    data_dir,
    f'data_dir={str(data_dir)!r}',
    "a folder with the four .gz files of Fashion-MNIST, such as Debian's package "
    'dataset-fashion-mnist installs',
  )


def _load(name: str, folder: pathlib.Path, where: str, allowed: str) -> Dataset:
  if not folder.is_dir():
    raise DataError(f'{where}: no such folder; allowed: {allowed}')
  splits = []
  for prefix in (TRAIN_PREFIX, TEST_PREFIX):
    arrays = []
    for file_name, rank in ((IMAGES_FILE.format(prefix), 3), (LABELS_FILE.format(prefix), 1)):
      try:
        arrays.append(read_idx(folder / file_name, rank))
      except DataError as error:
        raise DataError(f'{where}: {error}; allowed: {allowed}') from error
    images, labels = arrays
    if images.shape[1:] != (_SIDE, _SIDE):
      raise DataError(
        f'{where}: {IMAGES_FILE.format(prefix)} holds images of '
        f'{images.shape[1]}x{images.shape[2]}; allowed: {_SIDE}x{_SIDE}'
      )
    splits.append(ArraySplit(images[..., None], labels.astype(np.int32)))
  train, test = splits
  return in_memory(name, train, test, NUM_CLASSES, where)


def read_idx(path: pathlib.Path, rank: int) -> np.ndarray:
  """Reads a gzipped IDX file of bytes.

  Args:
    path: of the file.
    rank: number of axes that it must have.

  Returns:
    Its array, uint8, read-only.

  Raises:
    DataError: if the file is missing, not gzip, truncated, of another type or rank, or if its
      length is not what its header says.
  """
  try:
    with gzip.open(path) as file:
      content = file.read()
  except FileNotFoundError:
    raise DataError(f'no file {path.name}') from None
  except (OSError, EOFError, zlib.error) as error:
    raise DataError(f'{path.name} is damaged ({error})') from error
  header_size = 4 * (1 + rank)
  if content[:4] != bytes((0, 0, _UINT8_CODE, rank)) or len(content) < header_size:
    raise DataError(
      f'{path.name} is not an IDX file of uint8 with {rank} axes '
      f'(it begins with {content[:4].hex(" ") or "nothing"})'
    )
  shape = struct.unpack(f'>{rank}I', content[4:header_size])
  size = len(content) - header_size
  if math.prod(shape) != size:
    raise DataError(
      f'{path.name} holds {size} bytes but its header says {"x".join(map(str, shape))}'
    )
  return np.frombuffer(content, np.uint8, offset=header_size).reshape(shape)


def write_idx(path: pathlib.Path, array: np.ndarray) -> None:
  """Writes what `read_idx` reads; the same array gives the same bytes.

  Args:
    path: of the file, replaced if it exists.
    array: uint8.
  """
  header = bytes((0, 0, _UINT8_CODE, array.ndim)) + struct.pack(f'>{array.ndim}I', *array.shape)
  # Without a time and a file name in its header, gzip is a function of the content.
  with open(path, 'wb') as raw, gzip.GzipFile('', 'wb', 9, raw, mtime=0) as file:
    file.write(header + array.tobytes())
