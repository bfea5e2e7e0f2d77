"""Caches of SRAM, STT, SOT and any `.cell` from 1 to 64 MiB: table, plots, iso-area capacities.

    python -m experiments.nvm_cache --config configs/nvm_cache.py --workdir runs/nvm_cache
    python -m experiments.nvm_cache mine.cell other.cell
    python -m experiments.nvm_cache mine.cfg             builds what the file asks for, no table
    python -m experiments.nvm_cache mine.cfg mine.cell   of that cell instead of its own

Every cache is EDAP-tuned as in DeepNVM (`nvm.edap_tuned`). Writes `results.csv`, `report.md` and
`caches.png`. The report ends with DeepNVM++'s table, AS RECALLED AND UNVERIFIED, beside ours, and
with the cell parameter that most reduces the energy-delay product at `sensitivity_mib`.

The exit code is 0 if everything was built, 1 if a cell could not be at one of its capacities (the
table and the report say why), and 2 for a file or flag that cannot be understood.
"""

import csv
import io
import pathlib
import sys

import matplotlib
from ml_collections import config_dict

from cnnopt_jax import nvm
from cnnopt_jax import report as formats
from cnnopt_jax.nvm import validation
from experiments.common import (
  caches,
  cell_reports,
  cfg_designs,
  fields,
  launch,
  reports,
  run_folder,
)

matplotlib.use('Agg')

SPEC = {
  'cells': fields.tuple_of(fields.one_of(*nvm.CELLS)),
  'cell_files': fields.text('names of .cell files, with commas between'),
  'cfg_files': fields.text('names of .cfg files, with commas between'),
  'tag_cell': fields.one_of('same', *nvm.CELLS),
  'node_nm': fields.integer(16, 120),
  'roadmap': fields.one_of('HP', 'LSTP', 'LOP'),
  'temperature_k': fields.integer(300, 400),
  'capacities_mib': fields.tuple_of(fields.integer(1, 1024)).formerly('capacities_mb'),
  'capacities_kib': fields.tuple_of(fields.integer(1, 1 << 20), min_length=0),
  'iso_area_mib': fields.integer(1, 64).formerly('iso_area_mb'),
  'sensitivity_mib': fields.integer(1, 1024).formerly('sensitivity_mb'),
  'writes_per_s': fields.number(0),
  'hottest_share': fields.number(0, 1, above=True),
  'nvsim_compatible': fields.boolean(),
}

FIGURES = {
  'hit_latency_ns': 'read latency, ns',
  'write_latency_ns': 'write latency, ns',
  'hit_energy_nj': 'read energy, nJ',
  'write_energy_nj': 'write energy, nJ',
  'leakage_mw': 'leakage, mW',
  'area_mm2': 'area, mm$^2$',
}
# DeepNVM++'s caches, recalled and unverified, by the names that its cells have here.
PAPER_CELLS = {'sram': 'sram', 'stt': 'paper_stt', 'sot': 'paper_sot'}
RECALLED = {
  (PAPER_CELLS[name], mib): figures for (name, mib), figures in validation.RECALLED_CACHES.items()
}
MIB = 1 << 20


def main(config: config_dict.ConfigDict, workdir: pathlib.Path) -> int:
  """Runs what the config asks for and returns the exit code."""
  if config.cfg_files:
    return cfg_designs.run(config, workdir)
  return exit_code(run(config, workdir))


def exit_code(tuned: dict) -> int:
  """1 if something could not be built."""
  return launch.FAILED_EXIT_CODE if None in tuned.values() else 0


def with_files(argv: list[str]) -> list[str]:
  """A command line whose `.cell` and `.cfg` files are fields of the config."""
  found: dict[str, list[str]] = {'.cell': [], '.cfg': []}
  rest = []
  for previous, argument in zip(['', *argv], argv):
    is_value = previous in ('--config', '-config', '--workdir', '-workdir')
    kind = pathlib.Path(argument).suffix.lower()
    if kind in found and not argument.startswith('-') and not is_value:
      found[kind].append(argument)
    else:
      rest.append(argument)
  return rest + [
    f'--config.{kind[1:]}_files={",".join(names)}' for kind, names in found.items() if names
  ]


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> dict:
  """Explores, writes the files and returns `{(cell, capacity in bytes): winner}`.

  A cache that cannot be built is None there.
  """
  users = caches.read_user_cells(config.cell_files, 'config.cell_files')
  cells = {name: nvm.CELLS[name] for name in config.cells}
  cells |= {name: user.cell for name, user in users.items()}
  tech = caches.technology_of(config, nvsim_compatible=config.nvsim_compatible)
  options = caches.options_of(config) | {'nvsim_compatible': config.nvsim_compatible}
  tuned = tune(cells, tech, config, options)
  iso = iso_area(cells, tech, config.iso_area_mib, options)
  paper = nvm.edap_tuned(
    {name: nvm.CELLS[name] for name, _ in RECALLED},
    tech,
    sorted({mib * MIB for _, mib in RECALLED}),
    **options,
  )
  slopes = {name: steepest(name, cell, tech, config, options) for name, cell in cells.items()}
  run_folder.write_atomically(workdir / 'results.csv', as_csv(tuned))
  blocked = {name: reasons(name, cell, tech, tuned) for name, cell in cells.items()}
  parts = report(config, tuned, iso, paper, slopes)
  parts[2:2] = [
    cell_reports.sources(cells, users),
    *cell_reports.unbuilt(blocked),
    *cell_reports.notes(users),
  ]
  parts += cell_reports.refresh(cells, tech, tuned, config.temperature_k)
  parts += cell_reports.lifetimes(
    cells, config.sensitivity_mib * MIB, config.writes_per_s, config.hottest_share
  )
  reports.write(workdir, parts)
  run_folder.record(workdir, config)
  plot(tuned, config, workdir / 'caches.png')
  print((workdir / 'report.md').read_text())
  return tuned


def tune(cells: dict, tech: nvm.Technology, config, options: dict) -> dict:
  """The tuned caches of all cells and capacities, None where there is none.

  Capacities too small for 16 ways are searched with as many as they have.
  """
  sizes = [kib << 10 for kib in config.capacities_kib] + [
    mib * MIB for mib in config.capacities_mib
  ]
  if not sizes:
    raise fields.ConfigError('config.capacities_mib=(); allowed: one, or one in capacities_kib')
  found = {}
  for ways in dict.fromkeys(map(nvm.fitting_ways, sizes)):
    fitting = [size for size in sizes if nvm.fitting_ways(size) == ways]
    try:
      found |= nvm.edap_tuned(cells, tech, fitting, **options, associativity=ways)
    except ValueError as error:  # A capacity that has no sets.
      raise fields.ConfigError(f'config.capacities_kib: {error}') from None
  return {(name, size): found.get((name, size)) for name in cells for size in sorted(set(sizes))}


def reasons(name: str, cell: nvm.Cell, tech: nvm.Technology, tuned: dict) -> list[str]:
  """Why a cell could not be built at all its capacities; empty if it was."""
  sizes = [size for (other, size), winner in tuned.items() if other == name and winner is None]
  if not sizes:
    return []
  at = ', '.join(map(cell_reports.size_name, sizes))
  why = nvm.obstacles(cell, tech) or ['no organisation of that capacity is possible']
  return [f'{name} cannot be built at {at}: {reason}' for reason in why]


def iso_area(
  cells: dict[str, nvm.Cell], tech: nvm.Technology, sram_mib: int, options: dict
) -> dict[str, nvm.Winner]:
  """The largest cache of each cell in the area of an SRAM cache, of at least its capacity."""
  capacity = sram_mib * MIB
  budget = nvm.edap_tuned({'sram': nvm.CELLS['sram']}, tech, [capacity], **options)
  found = {'sram': budget['sram', capacity]}
  area = found['sram'].totals.area_mm2
  for name, cell in cells.items():
    if name != 'sram':
      winner = nvm.largest_within_area(cell, tech, area, least_mib=sram_mib, name=name, **options)
      if winner is not None:
        found[name] = winner
  return found


def steepest(name: str, cell: nvm.Cell, tech: nvm.Technology, config, options: dict):
  """EDP of the tuned cache and its elasticities in the cell's parameters, largest first."""
  capacity = config.sensitivity_mib * MIB
  winner = nvm.edap_tuned({name: cell}, tech, [capacity], **options).get((name, capacity))
  if winner is None:
    return None
  slope = nvm.sensitivity(
    nvm.edp,
    cell,
    tech,
    winner.data_organization,
    winner.tag_organization,
    nvm.CacheSpec(capacity),
    winner.mode,
    tag_technology=winner.tag_technology if config.nvsim_compatible else None,
    **options,
  )
  ranked = sorted(slope.cell_elasticity.items(), key=lambda item: -abs(item[1]))
  return slope.value, [(field, value) for field, value in ranked[:3] if value]


def as_csv(tuned: dict) -> str:
  """One line per cell and capacity."""
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  # `capacity_mb` is in MiB; the name is that of older files.
  writer.writerow(
    ['cell', 'capacity_mb', *FIGURES, 'edap', 'mode', 'target', 'rows', 'columns', 'mats']
  )
  for (name, capacity), winner in tuned.items():
    if winner is None:
      blank = [''] * (len(FIGURES) + 1)
      writer.writerow([name, f'{capacity / MIB:g}', *blank, 'cannot be built', *[''] * 4])
      continue
    org = winner.data_organization
    writer.writerow(
      [
        name,
        f'{capacity / MIB:g}',
        *(f'{getattr(winner.totals, f):.6g}' for f in FIGURES),
        f'{winner.edap:.6g}',
        winner.mode.value,
        winner.target.name,
        int(org.rows),
        int(org.columns),
        f'{int(org.mat_rows)}x{int(org.mat_columns)}',
      ]
    )
  return out.getvalue()


def report(config, tuned: dict, iso: dict, paper: dict, slopes: dict) -> list[str]:
  """The parts of `report.md`."""

  def figures(winner):
    if winner is None:
      return ['-'] * len(FIGURES)
    return [f'{getattr(winner.totals, name):.4g}' for name in FIGURES]

  heads = [name.replace('$^2$', '2') for name in FIGURES.values()]
  recalled = [
    row
    for (name, mib), values in RECALLED.items()
    for row in (
      [name, mib, 'recalled', *(f'{value:g}' for value in values)],
      [name, mib, 'ours', *figures(paper[name, mib * MIB])],
    )
  ]
  moved = [
    [
      name,
      f'{slope[0]:.4g}',
      *(f'{field} {value:+.2f}' for field, value in slope[1]),
      *[''] * (3 - len(slope[1])),
    ]
    for name, slope in slopes.items()
    if slope
  ]
  return [
    f'# Caches at {config.node_nm} nm {config.roadmap}, {config.temperature_k} K\n',
    f'EDAP-tuned, 16 ways, 64 B lines, tags: {config.tag_cell}.'
    + (' The 16 nm table is our own.' if config.node_nm == 16 else '')
    + '\n',
    formats.to_markdown(
      [
        [
          name,
          cell_reports.size_name(capacity),
          *figures(winner),
          winner.mode.value if winner else 'cannot be built',
        ]
        for (name, capacity), winner in tuned.items()
      ],
      ['cell', 'MB', *heads, 'mode'],
    ),
    '![figures against capacity](caches.png)\n',
    f'## In the area of {config.iso_area_mib} MB of SRAM\n',
    formats.to_markdown(
      [[name, w.capacity_bytes // MIB, *figures(w)] for name, w in iso.items()],
      ['cell', 'MB', *heads],
    ),
    '## DeepNVM++ (recalled, unverified) beside ours\n',
    formats.to_markdown(recalled, ['cell', 'MB', 'whose', *heads]),
    *(differences(paper) if config.node_nm == 16 else []),
    f'## What moves the energy-delay product at {config.sensitivity_mib} MB\n',
    'Relative change of EDP per relative change of a cell parameter, organisation fixed.\n',
    formats.to_markdown(moved, ['cell', 'EDP, nJ ns', 'first', 'second', 'third']),
  ]


def differences(paper: dict) -> list[str]:
  """Why the recalled figures are not ours at 16 nm, the node they are said to be of."""

  def of(name, mib):
    return dict(zip(FIGURES, RECALLED[name, mib]))

  sram, stt = of('sram', 3), of('paper_stt', 3)
  bits = 3 * MIB * 8
  cells_mm2 = bits * nvm.CELLS['sram'].area_f2 * (16e-6) ** 2  # F in mm.
  feature = 16 * (sram['area_mm2'] / cells_mm2) ** 0.5
  ours = paper['sram', 3 * MIB].totals
  line_pj = 512 * nvm.CELLS['paper_stt'].set_energy_pj
  at_22 = nvm.edap_tuned({'sram': nvm.CELLS['sram']}, nvm.technology_node(22), [4 * MIB])
  leak = at_22['sram', 4 * MIB].totals.leakage_mw / 4
  return [
    'Nothing is tuned towards the recalled table. What explains the differences:\n',
    f'- Area. The cells alone of 3 MB of SRAM take {cells_mm2:.2f} mm2 at 16 nm '
    f'(146 F2 each); the recalled {sram["area_mm2"]} mm2 would be those cells at {feature:.0f} '
    'nm without any periphery. That F is not 16 nm, or that table holds more than the cache. '
    'The ratio of STT to SRAM compares better: '
    f'{stt["area_mm2"] / sram["area_mm2"]:.2f} recalled, '
    f'{paper["paper_stt", 3 * MIB].totals.area_mm2 / ours.area_mm2:.2f} ours.\n'
    f'- Latency and read energy follow the area: wires are bare, their delay grows with the '
    'square of their length, so with the area, and that is '
    f'{sram["area_mm2"] / ours.area_mm2:.1f} times ours.\n'
    f"- Leakage. {sram['leakage_mw'] / 3:.0f} mW per MB recalled; NVSim's transistors of 22 nm "
    f'at 350 K leak {leak:.0f} in our model, and our 16 nm table puts their off-currents at a '
    'third. The ratio of SRAM to STT is '
    f'{sram["leakage_mw"] / stt["leakage_mw"]:.1f} recalled, '
    f'{ours.leakage_mw / paper["paper_stt", 3 * MIB].totals.leakage_mw:.1f} ours.\n'
    f'- STT write energy. 512 bits of {nvm.CELLS["paper_stt"].set_energy_pj} pJ are '
    f'{line_pj * 1e-3:.2f} nJ, more than the recalled {stt["write_energy_nj"]} nJ for a line: '
    "that figure must divide by something, as NVSim's normal mode divides by the ways. Ours "
    'counts every bit once.\n',
  ]


def plot(tuned: dict, config, path: pathlib.Path) -> None:
  """Six panels against capacity."""
  from matplotlib import pyplot as plt  # After the backend is chosen.

  figure, axes = plt.subplots(2, 3, figsize=(12, 6.5), layout='constrained')
  for axis, (field, label) in zip(axes.flat, FIGURES.items()):
    for name in dict.fromkeys(name for name, _ in tuned):
      points = sorted(
        (capacity / MIB, getattr(winner.totals, field))
        for (other, capacity), winner in tuned.items()
        if other == name and winner is not None
      )
      if points:
        axis.plot(*zip(*points), marker='o', markersize=3, label=name)
    axis.set(xscale='log', yscale='log', xlabel='capacity, MB', ylabel=label)
    ticks = sorted({capacity / MIB for _, capacity in tuned})
    axis.set_xticks(ticks, [f'{tick:.3g}' for tick in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
  axes[0, 0].legend()
  figure.suptitle(
    f'EDAP-tuned caches, {config.node_nm} nm {config.roadmap}, tags: {config.tag_cell}'
  )
  figure.savefig(path, dpi=120)
  plt.close(figure)


if __name__ == '__main__':
  sys.argv[1:] = with_files(sys.argv[1:])
  launch.main(main, SPEC, 'configs/nvm_cache.py', 'runs/nvm_cache')
