"""Measured time, bandwidth and energy, and modelled energy, which is never called measured."""

from cnnopt_jax.measure.bandwidth import copy_bandwidth
from cnnopt_jax.measure.cores import SPLIT, WHOLE, over_cores
from cnnopt_jax.measure.energy import MeasuredEnergy, measure_energy
from cnnopt_jax.measure.energy_model import (
  EnergyCosts,
  ModelledEnergy,
  Work,
  horowitz_costs,
  layer_work,
  model_energy,
)
from cnnopt_jax.measure.meters import Meter, NotMeasured, find_meter, nvml_meter, rapl_meter
from cnnopt_jax.measure.timing import (
  Timing,
  back_to_back_seconds,
  interleaved_seconds,
  summarize,
)

__all__ = [
  'SPLIT',
  'WHOLE',
  'EnergyCosts',
  'MeasuredEnergy',
  'Meter',
  'ModelledEnergy',
  'NotMeasured',
  'Timing',
  'Work',
  'back_to_back_seconds',
  'copy_bandwidth',
  'find_meter',
  'horowitz_costs',
  'interleaved_seconds',
  'layer_work',
  'measure_energy',
  'model_energy',
  'nvml_meter',
  'over_cores',
  'rapl_meter',
  'summarize',
]
