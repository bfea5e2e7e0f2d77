"""`obstacles`: why a cell cannot be built into an array of a technology, in words."""

import jax
import numpy as np

from cnnopt_jax import precision
from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.circuit import array, cell_model
from cnnopt_jax.nvm.search import organizations
from cnnopt_jax.nvm.technology import devices

_LEAST_ROWS = 2


@precision.in_float64
def obstacles(cell: structures.Cell, technology: structures.Technology) -> list[str]:
  """What rules a cell out whatever the organisation: the tests of `subarray`, at their mildest.

  Args:
    cell, technology: as in `explore`.

  Returns:
    One line for each reason, `field=value: reason; allowed: ...`. Empty if there is none, which
    does not promise that every capacity can be built.
  """
  cell, tech = jax.tree.map(array.as_array, (cell, technology))
  p = devices.process(tech)
  model = cell_model.cell_model(p, cell, False)
  return [
    *_currents(p, cell, model, tech),
    *_levels(model),
    *_amplifiers(p, model),
    *_charge(p, cell, model),
  ]


def _currents(p, cell, model, tech) -> list[str]:
  current = float(model.write_current if bool(model.has_transistor) else model.reset_current)
  widest = float(p.max_width * p.on_n)
  if bool(model.is_charge) or current <= widest:
    return []
  needed = current / float(p.on_n * p.f)
  return [
    f'write current={current:g} mA: a transistor of {needed:.4g} F would carry it; allowed: '
    f'{float(tech.max_width_f):g} F (MaxNmosSize), which carries {widest:.3g} mA'
  ]


def _levels(model) -> list[str]:
  if bool(model.readable):
    return []
  below, above = (
    1e3 * float(value)
    for value in (model.precharge - model.level_on, model.level_off - model.precharge)
  )
  return [
    f'read levels={below:.3g} and {above:.3g} mV from the reference: the states cannot be told '
    f'apart; allowed: more than MinSenseVoltage ({1e3 * float(model.sense_voltage):g} mV) both'
  ]


def _amplifiers(p, model) -> list[str]:
  lines = 1 if bool(model.is_edram) else 2 ** (organizations.CACTI_SPACE.max_mux + 2)
  pitch, least = float(model.width / p.f) * lines, devices.FOLD_OVERHEAD_F
  if pitch > least:
    return []
  return [f'cell width={pitch:.3g} F: no amplifier fits; allowed: above {least:g} F']


def _charge(p, cell, model) -> list[str]:
  found = []
  line = _LEAST_ROWS * float(model.height * p.wire_c + model.bitline_cap)
  storage = float(model.storage_cap)
  if bool(model.is_edram):
    shared = float(p.vdd) / 2 * storage / (storage + line)
    if shared < float(model.sense_voltage):
      found.append(
        f'DRAMCellCapacitance={storage:g} fF: a bit line of {_LEAST_ROWS} cells moves by '
        f'{1e3 * shared:.3g} mV; allowed: MinSenseVoltage ({1e3 * float(model.sense_voltage):g} mV)'
      )
  retention = float(model.retention)
  if retention and _LEAST_ROWS * float(model.store) > 1e6 * retention:
    found.append(f'RetentionTime={retention:g} us: shorter than {_LEAST_ROWS} writes')
  if not np.isfinite(float(cell.area_f2)):
    found.append(f'CellArea={float(cell.area_f2)}; allowed: finite')
  return found
