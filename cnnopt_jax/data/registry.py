"""Data sets by name."""

import os
import pathlib

from cnnopt_jax.data import fashion_mnist
from cnnopt_jax.data.dataset import DataError, Dataset

DATASETS = ('fashion_mnist_subset', 'fashion_mnist', 'cifar10', 'cifar100', 'imagenet2012')


def load(
  name: str,
  *,
  data_dir: str | os.PathLike | None = None,
  image_size: int | None = None,
  download: bool = False,
) -> Dataset:
  """Loads a data set; nothing is downloaded unless `download` says so.

  | name                   | images           | classes | where it comes from                     |
  |------------------------|------------------|---------|-----------------------------------------|
  | `fashion_mnist_subset` | 12,000 and 2,000 | 10      | this package                            |
  | `fashion_mnist`        | 60,000 + 10,000  | 10      | four IDX .gz files in `data_dir`        |
  | `cifar10`, `cifar100`  | 50,000 + 10,000  | 10, 100 | TFDS in `data_dir`, format array_record |
  | `imagenet2012`         | 1.28 M + 50,000  | 1000    | TFDS in `data_dir`, format array_record |

  All but ImageNet are held in memory; ImageNet is decoded on access.

  Args:
    name: one of `DATASETS`.
    data_dir: folder to read. None means `/usr/share/datasets/fashion-mnist` for `fashion_mnist`
      and TFDS's default, `~/tensorflow_datasets`, for those of TFDS. The subset takes none.
    image_size: side of ImageNet's images in pixels, 224 if None. The others have their own size.
    download: whether TFDS may download and prepare what is missing in `data_dir`.

  Returns:
    The data set.

  Raises:
    DataError: one line that names the option to set, if the name is unknown, the data is missing,
      damaged or in another format, or an option does not apply.
  """
  if name not in DATASETS:
    raise DataError(f'data set {name!r}: unknown; allowed: {", ".join(DATASETS)}')
  if image_size is not None and name != 'imagenet2012':
    raise DataError(f'image_size={image_size}: {name} has a size of its own; allowed: None')
  if name == 'fashion_mnist_subset':
    if data_dir is not None:
      raise DataError(f'data_dir={str(data_dir)!r}: {name} is read from the package; allowed: None')
    return fashion_mnist.load_subset()
  folder = None if data_dir is None else pathlib.Path(data_dir).expanduser()
  if name == 'fashion_mnist':
    return fashion_mnist.load_whole(fashion_mnist.DEBIAN_DIR if folder is None else folder)

  from cnnopt_jax.data import prepared  # Late: it needs Pillow, the sets above do not.

  if name == 'imagenet2012':
    return prepared.load_imagenet(folder, image_size, download)
  return prepared.load_cifar(name, folder, download)
