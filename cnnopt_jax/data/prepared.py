"""CIFAR-10, CIFAR-100 and ImageNet, prepared by TensorFlow Datasets and read without TensorFlow.

`tfds.data_source` gives random access to folders in the array_record format. Preparing them from
the original archives needs TensorFlow once, on any machine; reading does not.
"""

import dataclasses
import json
import pathlib
from concurrent import futures
from typing import Any

import numpy as np
from PIL import Image

from cnnopt_jax.data.dataset import ArraySplit, DataError, Dataset, check_labels, in_memory

DEFAULT_IMAGE_SIZE = 224
# Share of the short side that a crop keeps: 224 of 256, the usual protocol of evaluation.
_CROP_SHARE = 224 / 256
# Mean and deviation of ImageNet's RGB values in 0..255: 255 times what the documentation of
# torchvision.models states (https://pytorch.org/vision/stable/models.html).
_IMAGENET_MEAN = (255 * 0.485, 255 * 0.456, 255 * 0.406)
_IMAGENET_STD = (255 * 0.229, 255 * 0.224, 255 * 0.225)
_IMAGENET_CLASSES = 1000


def load_cifar(
  name: str, data_dir: pathlib.Path | None, download: bool, *, read_at_once: int = 1000
) -> Dataset:
  """Reads CIFAR into memory, 32x32 RGB.

  Args:
    name: `cifar10`, or `cifar100` with its 100 fine labels.
    data_dir: of TFDS; None for its default, `TFDS_DATA_DIR` or `~/tensorflow_datasets`.
    download: whether TFDS may fetch and prepare what is missing.
    read_at_once: images of one read; bounds the memory for the decoded copies.

  Returns:
    The data set.

  Raises:
    DataError: if it is not there in array_record format, damaged, or could not be prepared.
  """
  root, sources = _open(name, ('train', 'test'), data_dir, download)
  where = f'data_dir={str(root)!r}'
  try:
    splits = [_read_all(source, read_at_once) for source in sources]
  except Exception as error:  # As many types as TFDS has libraries below it.
    raise DataError(
      f'{where}: {name} is damaged ({_line(error)}); allowed: a folder prepared anew'
    ) from error
  train, test = splits
  return in_memory(name, train, test, {'cifar10': 10, 'cifar100': 100}[name], where)


def load_imagenet(data_dir: pathlib.Path | None, image_size: int | None, download: bool) -> Dataset:
  """Opens ImageNet (ILSVRC 2012), decoded on access; its validation split is the test split.

  Args:
    data_dir: as in `load_cifar`.
    image_size: side of the images in pixels, 224 if None. An image is the largest centred square,
      less the margin that a crop of 224 from 256 leaves off, scaled by antialiased bilinear
      interpolation.
    download: as in `load_cifar`; TFDS asks for the archives in its `manual_dir`.

  Returns:
    The data set, RGB, with the customary mean and deviation.

  Raises:
    DataError: as `load_cifar`, and if `image_size` is not positive.
  """
  size = DEFAULT_IMAGE_SIZE if image_size is None else image_size
  if size < 1:
    raise DataError(f'image_size={size}; allowed: at least 1')
  name = 'imagenet2012'
  root, sources = _open(name, ('train', 'validation'), data_dir, download)
  pool = futures.ThreadPoolExecutor(thread_name_prefix='decode')
  train, test = (
    DecodedSplit(source, _IMAGENET_CLASSES, size, pool, f'data_dir={str(root)!r}: {name}')
    for source in sources
  )
  return Dataset(
    name,
    train,
    test,
    (size, size, 3),
    _IMAGENET_CLASSES,
    _IMAGENET_MEAN,
    _IMAGENET_STD,
  )


@dataclasses.dataclass(frozen=True, eq=False)
class DecodedSplit:
  """A split whose images are decoded, cropped and scaled when they are asked for.

  Attributes:
    source: of TFDS, with features 'image', uint8 [h, w, 1 or 3], and 'label'.
    num_classes: of the labels.
    size: side of the images that `get` returns, in pixels.
    pool: threads that decode; Pillow and OpenCV release the interpreter lock meanwhile.
    where: beginning of an error's text.
  """

  source: Any
  num_classes: int
  size: int
  pool: futures.Executor
  where: str

  def __len__(self) -> int:
    return len(self.source)

  def get(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `Split.get`.

    Raises:
      DataError: if an image cannot be read or its label is out of range.
    """
    indices = np.asarray(indices)
    images = np.empty((indices.size, self.size, self.size, 3), np.uint8)
    labels = np.empty(indices.size, np.int32)

    def read(slot: int, index: int) -> None:
      try:
        example = self.source[index]
        images[slot] = center_square(example['image'], self.size)
        labels[slot] = example['label']
      except Exception as error:
        raise DataError(
          f'{self.where}: image {index} is damaged ({_line(error)}); '
          'allowed: a folder prepared anew'
        ) from error

    list(self.pool.map(read, range(indices.size), indices.ravel().tolist()))
    check_labels(labels, self.num_classes, f'{self.where}: label')
    return images.reshape(*indices.shape, *images.shape[1:]), labels.reshape(indices.shape)


def center_square(image: np.ndarray, size: int) -> np.ndarray:
  """Cuts the centred square of 224/256 of the short side and scales it.

  Args:
    image: uint8 [h, w, 1 or 3]; a grey image is repeated over three channels.
    size: side of the result in pixels.

  Returns:
    uint8 [size, size, 3].
  """
  height, width = image.shape[:2]
  side = min(height, width) * _CROP_SHARE
  left, top = (width - side) / 2, (height - side) / 2
  picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert('RGB')
  return np.asarray(
    picture.resize(
      (size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
    )
  )


def _open(
  name: str, splits: tuple[str, str], data_dir: pathlib.Path | None, download: bool
) -> tuple[pathlib.Path, list[Any]]:
  """Returns TFDS's root folder and one data source for each split."""
  import tensorflow_datasets as tfds  # Late: it takes most of a second.

  root = pathlib.Path(tfds.core.constants.DATA_DIR if data_dir is None else data_dir).expanduser()
  # The format is asked for only where data is prepared: with it, TFDS does not look for folders of
  # earlier versions; without it, TFDS prepares tfrecord.
  prepares = download and not _prepared_formats(root, name)
  kwargs = {'file_format': 'array_record'} if prepares else None
  try:
    sources = tfds.data_source(
      name, split=list(splits), data_dir=root, download=prepares, builder_kwargs=kwargs
    )
  except Exception as error:  # As many types as TFDS has libraries below it.
    raise DataError(f'data_dir={str(root)!r}: {_reason(root, name, error, prepares)}') from error
  return root, sources


def _prepared_formats(root: pathlib.Path, name: str) -> set[str]:
  """File formats of the versions of a data set that are prepared under TFDS's root folder."""
  formats = set()
  for info in root.glob(f'{name}/*/dataset_info.json'):
    try:
      formats.add(json.loads(info.read_text()).get('fileFormat', 'tfrecord'))
    except (OSError, ValueError):
      formats.add('unreadable')
  return formats


def _reason(root: pathlib.Path, name: str, error: Exception, prepares: bool) -> str:
  """Says what is wrong and which option helps; TFDS takes missing data for data in tfrecord."""
  build = f'`tfds build {name} --file_format=array_record --data_dir=...`'
  formats = _prepared_formats(root, name)
  if prepares:
    cause = (
      f'preparing it needs the package {error.name}'
      if isinstance(error, ImportError)
      else f'it could not be prepared ({_line(error)})'
    )
    return (
      f'{name}: download=True, but {cause}; allowed: a folder prepared by {build} '
      'where TensorFlow is installed'
    )
  if not root.is_dir():
    return f'no such folder; allowed: a folder that holds {name}, or download=True'
  if not formats:
    return f'{name} is not prepared there; allowed: a folder prepared by {build}, or download=True'
  if 'array_record' not in formats:
    return (
      f'{name} is prepared there as {", ".join(sorted(formats))}; allowed: another data_dir, '
      f"prepared with file_format='array_record' by {build}"
    )
  return f'{name} cannot be read ({_line(error)}); allowed: a folder prepared anew by {build}'


def _read_all(source: Any, at_once: int) -> ArraySplit:
  """Reads a TFDS source of images of one shape into memory."""
  count = len(source)
  images, labels = np.empty((0, 0, 0, 0), np.uint8), np.empty(count, np.int32)
  for start in range(0, count, at_once):
    stop = min(start + at_once, count)
    examples = source.__getitems__(list(range(start, stop)))
    if not start:
      images = np.empty((count, *examples[0]['image'].shape), np.uint8)
    images[start:stop] = [example['image'] for example in examples]
    labels[start:stop] = [example['label'] for example in examples]
  return ArraySplit(images, labels)


def _line(error: Exception) -> str:
  """The type and the beginning of an error's text, on one line."""
  text = ' '.join(str(error).split())
  return f'{type(error).__name__}: {text if len(text) <= 160 else text[:157] + "..."}'
