"""What a run of `experiments.vip` is about: its config, network, data and units."""

import dataclasses
import pathlib
from collections.abc import Callable

from flax import linen as nn
from ml_collections import config_dict

from cnnopt_jax import data, models, quant, report
from experiments.common import inputs
from experiments.common.fields import ConfigError, boolean, integer, number, one_of, tuple_of

SPEC = {
  'model': one_of(*models.MODELS),
  'width_multiplier': number(0, above=True),
  'bits': one_of(*quant.BITS, quant.IDENTITY_BITS),
  **inputs.SPEC,
  'seeds': tuple_of(integer(0, 2**31 - 1)),
  'epochs': integer(1),
  'batch_size': integer(1),
  'learning_rate': number(0, above=True),
  'momentum': number(0, 1),
  'weight_decay': number(0),
  'label_smoothing': number(0, 1),
  'shift': integer(0, 64),
  'flip': boolean(),
  'checkpoint_steps': integer(0),
  'rounds': integer(1),
  'fine_tune_epochs': integer(1),
  'fine_tune_learning_rate': number(0, above=True),
  'control': boolean(),
  'sensitivity_images': integer(1),
  'random_plans': integer(1),
  'bound_images': integer(1),
  'timing_batch': integer(1),
  'timing_rounds': integer(1),
  'energy_seconds': number(0, above=True),
}


@dataclasses.dataclass(frozen=True)
class Setting:
  """What every stage of a run is given; it never changes.

  Attributes:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the run.
    dataset: to train and test on.
    model: the dense network.
    units: its conv units, in its order.
    progress: a bar for each stage.
    stop: becomes true after a signal.
  """

  config: config_dict.ConfigDict
  workdir: pathlib.Path
  dataset: data.Dataset
  model: nn.Module
  units: tuple[str, ...]
  progress: report.Progress
  stop: Callable[[], bool]

  @property
  def bits(self) -> int | None:
    """Of a weight; None for float."""
    return None if self.config.bits == quant.IDENTITY_BITS else self.config.bits


def make_setting(
  config: config_dict.ConfigDict,
  workdir: pathlib.Path,
  progress: report.Progress,
  stop: Callable[[], bool],
) -> Setting:
  """Loads the data, makes the network, and holds the config's numbers against both.

  Raises:
    ConfigError: if data are missing or a number exceeds what there is.
  """
  dataset = inputs.load_data(config)
  model = models.create(
    config.model, num_classes=dataset.num_classes, width_multiplier=config.width_multiplier
  )
  units = models.unit_names(model)
  for field, limit, what in (
    ('rounds', len(units), f'the {len(units)} conv units of {config.model}'),
    ('batch_size', len(dataset.train), 'the number of training images'),
    ('sensitivity_images', len(dataset.train), 'the number of training images'),
    ('bound_images', len(dataset.test), 'the number of test images'),
  ):
    if config[field] > limit:
      raise ConfigError(f'config.{field}={config[field]}; allowed: at most {what}, {limit}')
  return Setting(config, workdir, dataset, model, units, progress, stop)
