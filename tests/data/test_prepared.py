"""CIFAR and ImageNet from folders prepared here, without TensorFlow, under their real names."""

import io
import json
import re
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from cnnopt_jax import data
from cnnopt_jax.data import prepared

CIFAR_CLASSES = {'cifar10': 10, 'cifar100': 100}


def png(array):
  file = io.BytesIO()
  Image.fromarray(array).save(file, 'PNG')
  return file.getvalue()


def prepare(name, root, splits):
  """Prepares a folder that the ordinary builder of `name` reads.

  Encoded images spare TFDS the encoders of TensorFlow.
  """
  builder_cls = tfds.builder_cls(name)  # Registers on import, so not under `skip_registration`.
  with tfds.core.registered.skip_registration():

    class Prepared(builder_cls):
      # TFDS needs the undeclared package importlib_resources to find a class in another module.
      __module__ = '__main__'

      def _split_generators(self, dl_manager):
        return {split: self._given(examples) for split, examples in splits.items()}

      def _given(self, examples):
        for index, example in enumerate(examples):
          yield index, {**example, 'image': io.BytesIO(example['image'])}

    Prepared.name = name
    Prepared(data_dir=root, file_format='array_record').download_and_prepare()
  return root


def cifar_examples(name, count, seed):
  """Arrays and examples; the label that counts is 'label', not 'coarse_label'."""
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
  labels = rng.integers(0, CIFAR_CLASSES[name], count)
  examples = [
    {'id': f'{seed}_{i}', 'image': png(image), 'label': int(label)}
    for i, (image, label) in enumerate(zip(images, labels))
  ]
  if name == 'cifar100':
    examples = [{**example, 'coarse_label': example['label'] // 5} for example in examples]
  return images, labels, examples


@pytest.fixture(scope='module', params=CIFAR_CLASSES)
def cifar(request, tmp_path_factory):
  """(name, root, {split: (images, labels)})."""
  name = request.param
  arrays, splits = {}, {}
  for seed, (split, count) in enumerate((('train', 13), ('test', 5))):
    *arrays[split], splits[split] = cifar_examples(name, count, seed)
  return name, prepare(name, tmp_path_factory.mktemp(name), splits), arrays


def in_file_order(images, labels):
  """Rows to compare as sets: TFDS shuffles what it prepares."""
  return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels))


@pytest.mark.parametrize('read_at_once', [None, 4])  # The second: several reads and a remainder.
def test_cifar(cifar, read_at_once):
  name, root, arrays = cifar
  if read_at_once is None:
    dataset = data.load(name, data_dir=root)
  else:
    dataset = prepared.load_cifar(name, root, False, read_at_once=read_at_once)
  assert dataset.image_shape == (32, 32, 3) and dataset.num_classes == CIFAR_CLASSES[name]
  for split_name, split in (('train', dataset.train), ('test', dataset.test)):
    images, labels = split.get(np.arange(len(split)))
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    assert in_file_order(images, labels) == in_file_order(*arrays[split_name])
  train_images = arrays['train'][0].astype(np.float64)
  np.testing.assert_allclose(dataset.mean, train_images.mean((0, 1, 2)), rtol=1e-12)
  np.testing.assert_allclose(dataset.std, train_images.std((0, 1, 2)), rtol=1e-12)
  assert 'tensorflow' not in sys.modules


@pytest.fixture
def cifar10_folder(tmp_path):
  """A fresh folder to damage, and the folder of the version in it."""
  splits = {'train': cifar_examples('cifar10', 3, 0)[2], 'test': cifar_examples('cifar10', 2, 1)[2]}
  prepare('cifar10', tmp_path, splits)
  return tmp_path, next(tmp_path.glob('cifar10/*'))


def edit_info(folder, change):
  path = folder / 'dataset_info.json'
  info = json.loads(path.read_text())
  change(info)
  path.write_text(json.dumps(info))


def load_error(root, **options):
  with pytest.raises(data.DataError) as error:
    data.load('cifar10', data_dir=root, **options)
  message = str(error.value)
  assert '\n' not in message and message.startswith(f'data_dir={str(root)!r}: ')
  return message


def test_folder_in_tfrecord_names_the_format_to_ask_for(cifar10_folder):
  root, folder = cifar10_folder
  # Writing tfrecord would need TensorFlow; TFDS tells formats apart by these names.
  edit_info(folder, lambda info: info.update(fileFormat='tfrecord'))
  for file in folder.glob('*.array_record-*'):
    file.rename(folder / file.name.replace('array_record', 'tfrecord'))
  for download in (False, True):  # Nothing is downloaded beside what is prepared.
    message = load_error(root, download=download)
    assert 'prepared there as tfrecord' in message and "file_format='array_record'" in message


def test_missing_data(tmp_path):
  assert re.search('cifar10 is not prepared there; .* or download=True', load_error(tmp_path))
  nowhere = tmp_path / 'nowhere'
  assert 'no such folder; allowed: a folder that holds cifar10' in load_error(nowhere)
  assert not nowhere.exists()


def test_default_folder_is_that_of_tfds(tmp_path, monkeypatch):
  monkeypatch.setattr(tfds.core.constants, 'DATA_DIR', str(tmp_path / 'default'))
  with pytest.raises(data.DataError, match=f"data_dir='{tmp_path}/default': no such folder"):
    data.load('imagenet2012')


def test_download_prepares_array_record_and_says_what_is_missing(tmp_path, monkeypatch):
  asked = {}

  def data_source(name, **kwargs):
    asked.update(kwargs)
    raise ModuleNotFoundError("No module named 'tensorflow'", name='tensorflow')

  monkeypatch.setattr(tfds, 'data_source', data_source)
  message = load_error(tmp_path, download=True)
  assert asked['download'] and asked['builder_kwargs'] == {'file_format': 'array_record'}
  assert 'needs the package tensorflow; allowed: a folder prepared by `tfds build' in message
  load_error(tmp_path)
  assert not asked['download']


def truncate(path):
  path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
  'damage, message',
  [
    (lambda f: edit_info(f, lambda info: info['splits'].pop()), "Unknown split '(test|train)'"),
    (lambda f: next(f.glob('*test*')).unlink(), 'anew'),
    (lambda f: truncate(next(f.glob('*test*'))), 'anew'),
    (lambda f: (f / 'dataset_info.json').write_text('{'), 'prepared there as unreadable'),
  ],
  ids=['split', 'no file', 'cut file', 'cut info'],
)
def test_damaged_folder(cifar10_folder, damage, message):
  root, folder = cifar10_folder
  damage(folder)
  assert re.search(message, load_error(root))


IMAGENET_SIZES = [(60, 100), (100, 60), (48, 48), (33, 70), (20, 20)]


def ramp(height, width):
  """Red grows with the column, green with the row, blue is flat."""
  y, x = np.mgrid[:height, :width]
  return np.stack([20 + 2 * x, 10 + 2 * y, np.full_like(x, 77)], -1).astype(np.uint8)


@pytest.fixture(scope='module')
def imagenet_folder(tmp_path_factory):
  """Ramps of several sizes, labelled by their number, and a grey image of value 123."""
  images = [ramp(*size) for size in IMAGENET_SIZES] + [np.full((40, 50), 123, np.uint8)]
  examples = [
    {'image': png(image), 'label': 100 + i, 'file_name': f'{i}.JPEG'}
    for i, image in enumerate(images)
  ]
  return prepare(
    'imagenet2012',
    tmp_path_factory.mktemp('imagenet'),
    {'train': examples, 'validation': examples[:2]},
  )


def test_imagenet_crops_scales_and_makes_rgb(imagenet_folder):
  size = 16
  dataset = data.load('imagenet2012', data_dir=imagenet_folder, image_size=size)
  assert dataset.image_shape == (16, 16, 3) and dataset.num_classes == 1000
  assert (len(dataset.train), len(dataset.test)) == (6, 2)
  assert all(0 < value < 256 for value in dataset.mean + dataset.std)
  images, labels = dataset.train.get(np.arange(6).reshape(2, 3))
  assert images.shape == (2, 3, size, size, 3) and images.dtype == np.uint8
  assert labels.shape == (2, 3) and labels.dtype == np.int32
  assert sorted(labels.ravel()) == list(range(100, 106))
  for image, label in zip(images.reshape(6, size, size, 3), labels.ravel()):
    if label == 105:
      assert (image == 123).all()
      continue
    height, width = IMAGENET_SIZES[label - 100]
    side = min(height, width) * 224 / 256
    # Scaling keeps a straight line: pixel i stands for the middle of its share of the square.
    middle = (np.arange(size) + 0.5) * side / size - 0.5
    red = 20 + 2 * ((width - side) / 2 + middle)
    green = 10 + 2 * ((height - side) / 2 + middle)
    np.testing.assert_allclose(image[:, :, 0], np.broadcast_to(red, (size, size)), atol=1)
    np.testing.assert_allclose(image[:, :, 1].T, np.broadcast_to(green, (size, size)), atol=1)
    assert (image[:, :, 2] == 77).all()

  again, again_labels = dataset.train.get(np.array([5, 0, 5]))
  np.testing.assert_array_equal(again, images.reshape(6, size, size, 3)[[5, 0, 5]])
  np.testing.assert_array_equal(again_labels, labels.ravel()[[5, 0, 5]])


def test_imagenet_default_size_and_batches(imagenet_folder):
  dataset = data.load('imagenet2012', data_dir=imagenet_folder)
  (first, _), (second, _) = data.batches(dataset.test, [np.array([0, 1]), np.array([1])])
  assert first.shape == (2, 224, 224, 3) and second.shape == (1, 224, 224, 3)
  np.testing.assert_array_equal(first[1], second[0])


def test_imagenet_under_the_mock_of_tfds(tmp_path):
  with tfds.testing.mock_data(num_examples=5):
    dataset = data.load('imagenet2012', data_dir=tmp_path, image_size=24)
    images, labels = dataset.test.get(np.array([3, 4, 3]))
  assert images.shape == (3, 24, 24, 3) and ((0 <= labels) & (labels < 1000)).all()
  np.testing.assert_array_equal(images[0], images[2])


def test_imagenet_damaged_image_or_label():
  image = ramp(8, 8)
  source = [{'image': image, 'label': 1}, {'image': None, 'label': 1}, {'image': image, 'label': 9}]
  with prepared.futures.ThreadPoolExecutor(2) as pool:
    split = prepared.DecodedSplit(source, 9, 4, pool, "data_dir='x': imagenet2012")
    assert split.get(np.array([0, 0]))[1].tolist() == [1, 1]
    with pytest.raises(data.DataError, match="^data_dir='x': imagenet2012: image 1 is damaged"):
      split.get(np.array([0, 1]))
    with pytest.raises(data.DataError, match="^data_dir='x': .* label: 9; allowed: 0 to 8"):
      split.get(np.array([2]))


def test_imagenet_size_must_be_positive(tmp_path):
  with pytest.raises(data.DataError, match='image_size=0; allowed: at least 1'):
    data.load('imagenet2012', data_dir=tmp_path, image_size=0)
