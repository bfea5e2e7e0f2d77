"""The data set that a config names."""

from ml_collections import config_dict

from cnnopt_jax import data
from experiments.common import fields
from experiments.common.fields import boolean, integer, one_of, text

SPEC = {
  'dataset': one_of(*data.DATASETS),
  'data_dir': text('a folder, or empty for the default one'),
  'image_size': integer(0),
  'download': boolean(),
}


def load_data(config: config_dict.ConfigDict) -> data.Dataset:
  """Loads the data set that a config names; what is missing is a `ConfigError`."""
  try:
    return data.load(
      config.dataset,
      data_dir=config.data_dir or None,
      image_size=config.image_size or None,
      download=config.download,
    )
  except data.DataError as error:
    raise data_error(config, error) from None


def data_error(config: config_dict.ConfigDict, error: data.DataError) -> fields.ConfigError:
  """What is wrong with the data, as an error of the field that chose them."""
  return fields.ConfigError(f'config.dataset={config.dataset!r}: {error}')
