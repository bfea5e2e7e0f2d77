"""Measured time and energy, and modelled energy, which is never called measured."""

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
from cnnopt_jax.measure.timing import Timing, interleaved_seconds, summarize

__all__ = [
  'EnergyCosts',
  'MeasuredEnergy',
  'Meter',
  'ModelledEnergy',
  'NotMeasured',
  'Timing',
  'Work',
  'find_meter',
  'horowitz_costs',
  'interleaved_seconds',
  'layer_work',
  'measure_energy',
  'model_energy',
  'nvml_meter',
  'rapl_meter',
  'summarize',
]
