"""The shipped subset, the reader of IDX files and the tool that made the subset."""

import gzip
import hashlib
import re
import struct
import subprocess
import sys

import numpy as np
import pytest

from cnnopt_jax import data
from cnnopt_jax.data import fashion_mnist
from tools import make_fashion_mnist_subset as tool

PREFIXES = ('train', 't10k')


@pytest.fixture(scope='module')
def subset():
  return data.load('fashion_mnist_subset')


def idx_bytes(array):
  """An IDX file by the letter of its description, one number after the other."""
  header = b'\x00\x00\x08' + bytes([array.ndim])
  for size in array.shape:
    header += struct.pack('>I', size)
  return header + bytes(array.ravel().tolist())


def whole(per_class=(3, 2), seed=0):
  """File name -> array of a small data set of the right form, classes in random order."""
  rng = np.random.default_rng(seed)
  files = {}
  for prefix, count in zip(PREFIXES, per_class):
    labels = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), count))
    files[f'{prefix}-images-idx3-ubyte.gz'] = rng.integers(0, 256, (len(labels), 28, 28), np.uint8)
    files[f'{prefix}-labels-idx1-ubyte.gz'] = labels
  return files


def write(folder, files):
  folder.mkdir(exist_ok=True)
  for name, array in files.items():
    (folder / name).write_bytes(gzip.compress(idx_bytes(array)))
  return folder


def test_subset_is_balanced_mixed_and_small(subset):
  for split, per_class in ((subset.train, 1200), (subset.test, 200)):
    images, labels = split.get(np.arange(len(split)))
    assert images.shape == (10 * per_class, 28, 28, 1) and images.dtype == np.uint8
    assert labels.dtype == np.int32
    assert np.bincount(labels).tolist() == [per_class] * 10
    # Every hundred images of the first half hold every class: the order is not by class.
    first_half = labels[: 5 * per_class].reshape(-1, 100)
    assert all(len(np.unique(hundred)) == 10 for hundred in first_half)
  assert subset.image_shape == (28, 28, 1) and subset.num_classes == 10
  size = sum(file.stat().st_size for file in fashion_mnist.SUBSET_DIR.iterdir())
  assert size < 6 * 2**20
  licence = (fashion_mnist.SUBSET_DIR / 'LICENSE').read_text()
  assert '2017 Zalando SE' in licence and 'Permission is hereby granted' in licence


def test_subset_statistics_are_those_of_its_training_images(subset):
  images = subset.train.images.astype(np.float64)
  np.testing.assert_allclose(subset.mean, [images.mean()], rtol=1e-12)
  np.testing.assert_allclose(subset.std, [images.std()], rtol=1e-12)


def test_subset_is_what_its_readme_and_its_source_say():
  readme = (fashion_mnist.SUBSET_DIR / 'README.md').read_text()
  stated = dict(re.findall(r'`(\S+-ubyte)` \| `([0-9a-f]{64})`', readme))
  found = {
    path.stem: hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    for path in fashion_mnist.SUBSET_DIR.glob('*.gz')
  }
  assert len(found) == 4 and found == stated
  if fashion_mnist.DEBIAN_DIR.is_dir():  # The digests above hold where the source is not at hand.
    assert tool.main(['--check']) == 0


def test_whole_data_set_from_hand_made_files(tmp_path):
  files = whole()
  dataset = data.load('fashion_mnist', data_dir=write(tmp_path, files))
  assert (len(dataset.train), len(dataset.test)) == (30, 20)
  for prefix, split in zip(PREFIXES, (dataset.train, dataset.test)):
    indices = np.array([[4, 0, 4], [1, 2, 19]])
    images, labels = split.get(indices)
    assert images.shape == (2, 3, 28, 28, 1) and labels.shape == (2, 3)
    np.testing.assert_array_equal(images[..., 0], files[f'{prefix}-images-idx3-ubyte.gz'][indices])
    np.testing.assert_array_equal(labels, files[f'{prefix}-labels-idx1-ubyte.gz'][indices])


LABELS = 'train-labels-idx1-ubyte.gz'
IMAGES = 'train-images-idx3-ubyte.gz'
DAMAGES = {
  'no file': (LABELS, lambda raw: None),
  'not gzip': (LABELS, lambda raw: raw),
  'gzip cut': (IMAGES, lambda raw: gzip.compress(raw)[:-40]),
  'gzip bits': (IMAGES, lambda raw: gzip.compress(raw)[:-4000] + bytes(4000)),
  'empty': (IMAGES, lambda raw: gzip.compress(b'')),
  'header cut': (IMAGES, lambda raw: gzip.compress(raw[:10])),
  'magic of floats': (IMAGES, lambda raw: gzip.compress(b'\x00\x00\x0d\x03' + raw[4:])),
  'magic of other rank': (LABELS, lambda raw: gzip.compress(b'\x00\x00\x08\x02' + raw[4:])),
  'too short': (IMAGES, lambda raw: gzip.compress(raw[:-1])),
  'too long': (IMAGES, lambda raw: gzip.compress(raw + b'\x00')),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_file_is_named(tmp_path, damage):
  files = whole()
  write(tmp_path, files)
  name, change = DAMAGES[damage]
  content = change(idx_bytes(files[name]))
  if content is None:
    (tmp_path / name).unlink()
  else:
    (tmp_path / name).write_bytes(content)
  with pytest.raises(data.DataError, match=r'^data_dir=.*' + re.escape(name)) as error:
    data.load('fashion_mnist', data_dir=tmp_path)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'name, change, message',
  [
    (LABELS, lambda a: a[:-1], '30 training images of fashion_mnist but 29 labels'),
    (LABELS, lambda a: np.where(np.arange(30) == 7, 10, a), 'training labels .*: 10; .* 0 to 9'),
    (IMAGES, lambda a: a[:, :27], 'holds images of 27x28; allowed: 28x28'),
  ],
)
def test_files_that_do_not_fit(tmp_path, name, change, message):
  files = whole()
  files[name] = change(files[name])
  with pytest.raises(data.DataError, match='^data_dir=.*' + message):
    data.load('fashion_mnist', data_dir=write(tmp_path, files))


def test_no_images_at_all(tmp_path):
  with pytest.raises(data.DataError, match='no test images'):
    data.load('fashion_mnist', data_dir=write(tmp_path, whole((1, 0))))


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(name='fashion-mnist'), "'fashion-mnist': unknown; allowed: fashion_mnist_subset, "),
    (dict(name='fashion_mnist', data_dir='/no/such/folder'), "data_dir='/no/such/folder': no such"),
    (dict(name='fashion_mnist_subset', data_dir='/tmp'), "data_dir='/tmp': .* from the package"),
    (dict(name='fashion_mnist_subset', image_size=32), 'image_size=32: .*; allowed: None'),
    (dict(name='cifar10', image_size=64), 'image_size=64: .*; allowed: None'),
  ],
)
def test_options_that_do_not_apply(options, message):
  with pytest.raises(data.DataError, match=message):
    data.load(**options)


def test_importing_and_loading_the_default_needs_no_tensorflow():
  code = (
    'import sys; from cnnopt_jax import data; data.load("fashion_mnist_subset"); '
    'print({"tensorflow", "tensorflow_datasets", "PIL"} & set(sys.modules))'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == 'set()'


def test_tool_takes_the_first_of_each_class_in_file_order():
  labels = np.array([3, 1, 3, 0, 3, *range(10), *range(10)], np.uint8)
  # Two of each: the second 3 is at 2, the first 2 and 4..9 come with the first range.
  expected = [0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 13, 14, 17, 19, 20, 21, 22, 23, 24]
  assert tool.select(labels, 2).tolist() == expected
  with pytest.raises(data.DataError, match='class 2 of the source has 2 images'):
    tool.select(labels, 3)


def test_tool_writes_checks_and_repeats_itself(tmp_path, capsys):
  files = whole((4, 3))
  source, output = write(tmp_path / 'source', files), tmp_path / 'subset'
  command = [
    '--source',
    str(source),
    '--output',
    str(output),
    '--train-per-class',
    '2',
    '--test-per-class',
    '1',
  ]
  assert tool.main([*command, '--check']) == 1  # Nothing there yet.
  assert tool.main(command) == 0
  assert tool.main([*command, '--check']) == 0
  first = {path.name: path.read_bytes() for path in output.iterdir()}
  assert tool.main(command) == 0
  assert first == {path.name: path.read_bytes() for path in output.iterdir()}
  dataset = data.load('fashion_mnist', data_dir=output)
  assert (len(dataset.train), len(dataset.test)) == (20, 10)
  chosen = tool.select(files[LABELS], 2)
  np.testing.assert_array_equal(dataset.train.images[..., 0], files[IMAGES][chosen])

  changed = dataset.test.labels.astype(np.uint8)[::-1]
  fashion_mnist.write_idx(output / 't10k-labels-idx1-ubyte.gz', changed)
  assert tool.main([*command, '--check']) == 1
  assert 't10k-labels-idx1-ubyte.gz differs' in capsys.readouterr().out
  assert tool.main(['--source', str(tmp_path / 'nothing')]) == 2
