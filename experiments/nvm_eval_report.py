"""Tables and plots of `nvm_eval`."""

import itertools
import pathlib
import statistics

import numpy as np
from matplotlib import figure

from cnnopt_jax.nvm import system
from cnnopt_jax.nvm.validation import published
from cnnopt_jax.report import to_markdown
from experiments.common import reports

MIB = 1 << 20
SOURCES = {'published': "DeepNVM++'s table (recalled, unverified)", 'model': 'our cache model'}
TITLES = {
  'iso_capacity': 'Caches of equal capacity',
  'iso_area': 'Caches of equal area',
  'scaling': 'Caches from small to large',
  'batch': 'Batch sizes',
}
CURVE_MIB = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_COLORS = {'sram': '0.4', 'stt': 'C0', 'sot': 'C1'}
_REDUCTIONS = {
  'dynamic energy': 'dynamic_energy_reduction',
  'leakage energy': 'leakage_energy_reduction',
  'total energy': 'total_energy_reduction',
  'delay': 'delay_reduction',
  'EDP': 'edp_reduction',
}


def write(config, workdir: pathlib.Path, rows, figures, demands) -> None:
  """Writes report.md and the plots into the folder of a run."""
  lines = [
    f'# {TITLES[config.analysis]}',
    '',
    *_preamble(config),
    '',
    '## Caches',
    '',
    _caches(figures),
    *_tables(config, rows),
    *_headlines(config, rows, figures),
    '## Traffic',
    '',
    _traffic(config, demands),
    *_dram(workdir, demands),
    *_sensitivity(config, workdir, rows, figures, demands),
  ]
  picture = {
    'iso_capacity': _bars,
    'iso_area': _bars,
    'scaling': _capacity_lines,
    'batch': _batch_lines,
  }[config.analysis]
  picture(workdir / f'{config.analysis}.png', rows)
  lines += ['', f'![{TITLES[config.analysis]}]({config.analysis}.png)', '']
  reports.write(workdir, lines)


def _preamble(config) -> list[str]:
  dram = system.GDDR5X if config.dram == 'gddr5x' else system.HBM
  return [
    "Every reduction is the SRAM cache's figure over this cache's: above 1 is better. Accesses "
    f'are those that the traffic model predicts for a {config.gpu}; **the traffic model has not '
    'been validated on hardware** (`experiments.nvm_profile` does so where a GPU with counters '
    f'is). Delay charges every access its latency, one after another. DRAM: {dram.access_nj:.3g} '
    f'nJ and {dram.access_ns:.3g} ns for an access of 32 B, our own constants. Cells: '
    f'{config.stt_cell}, {config.sot_cell}; tags: {config.tag_cell}; {config.node_nm} nm '
    f'{config.roadmap}, {config.temperature_k} K.'
    + (' The 16 nm table is our own.' if config.node_nm == 16 else '')
  ]


def _caches(figures) -> str:
  head = [
    'source',
    'technology',
    'MiB',
    'read ns',
    'write ns',
    'read nJ',
    'write nJ',
    'leakage mW',
    'area mm2',
  ]
  return to_markdown(
    [
      [source, name, mib, *(f'{float(v):.4g}' for v in values)]
      for (source, name, mib), values in figures.items()
    ],
    head,
  )


def _mean(values) -> float:
  """Geometric: the mean of factors."""
  return statistics.geometric_mean(values)


def _select(rows, **wanted):
  return [r for r in rows if all(r[key] == value for key, value in wanted.items())]


def _tables(config, rows) -> list[str]:
  lines = []
  for source in SOURCES:
    for with_dram in (False, True):
      chosen = [
        r for r in _select(rows, source=source, with_dram=with_dram) if r['technology'] != 'sram'
      ]
      if not chosen:
        continue
      lines += [
        '',
        f'## Reductions by {SOURCES[source]}, {"with" if with_dram else "without"} DRAM',
        '',
      ]
      body = []
      key = lambda r: (r['technology'], r['capacity_mib'])
      for (name, mib), group in itertools.groupby(sorted(chosen, key=key), key):
        group = list(group)
        if config.analysis == 'scaling':  # One line a mode: the workloads' mean.
          groups = [
            (mode, _select(group, mode=mode)) for mode in dict.fromkeys(r['mode'] for r in group)
          ]
          body += [[name, mib, 'mean', mode, '', *_means(part)] for mode, part in groups]
          continue
        body += [
          [
            name,
            mib,
            r['workload'],
            r['mode'],
            r['batch'],
            *(f'{r[column]:.3g}' for column in _REDUCTIONS.values()),
          ]
          for r in group
        ]
        body.append([name, mib, 'mean', '', '', *_means(group)])
      lines.append(
        to_markdown(body, ['technology', 'MiB', 'workload', 'mode', 'batch', *_REDUCTIONS])
      )
  return lines


def _means(group) -> list[str]:
  return [f'{_mean([r[column] for r in group]):.3g}' for column in _REDUCTIONS.values()]


def headline_rows(study: str, rows) -> list[list[str]]:
  """Claims of the abstracts beside what both sources give: paper, claim, published, model."""
  table = []
  for claim in published.HEADLINES:
    if claim.study != study:
      continue
    cells = [_measured(claim, _select(rows, source=source)) for source in SOURCES]
    word = 'up to ' if claim.is_bound else ''
    table.append(
      [
        claim.paper,
        claim.technology.upper(),
        claim.figure,
        f'{word}{claim.value:g}x',
        *(text for text, _ in cells),
        *(verdict for _, verdict in cells),
      ]
    )
  return table


def _measured(claim, rows) -> tuple[str, str]:
  """A claim's figure in some rows, and whether it agrees within a tenth."""
  names = ('stt', 'sot') if claim.technology == 'both' else (claim.technology,)
  rows = [r for r in rows if r['technology'] in names]
  if not rows:
    return '-', '-'
  agrees = lambda value: abs(value / claim.value - 1) <= 0.1
  if claim.figure != 'edp':
    row = rows[0]
    # Only equal-area studies ask for capacity; their SRAM has 3 MB.
    value = row['area_reduction'] if claim.figure == 'area' else row['capacity_mib'] / 3
    return f'{value:.2f}', 'reproduced' if agrees(value) else 'not reproduced'
  pick = max if claim.is_bound else _mean
  values = [
    pick([r['edp_reduction'] for r in _select(rows, with_dram=with_dram)])
    for with_dram in (False, True)
  ]
  close = [words for value, words in zip(values, ('without', 'with')) if agrees(value)]
  return (
    f'{values[0]:.2f}; with DRAM {values[1]:.2f}',
    f'agrees ({" and ".join(close)} DRAM)' if close else 'not reproduced',
  )


def _headlines(config, rows, figures) -> list[str]:
  table = headline_rows(config.analysis, rows)
  if not table:
    return []
  base = config.baseline_mib
  sram = {source: figures.get((source, 'sram', base)) for source in SOURCES}
  why = []
  if all(sram.values()):
    recalled, ours = sram.values()
    why = [
      '',
      'Why our model gives less: NVM saves leakage and pays in latency and write energy. '
      f'Our {base} MiB of SRAM leaks {ours.leakage_mw:.0f} mW and reads in '
      f'{ours.read_ns:.2f} ns; the recalled one leaks {recalled.leakage_mw:.0f} mW and reads '
      f'in {recalled.read_ns:.2f} ns: {recalled.leakage_mw / ours.leakage_mw:.1f} times the '
      f'leakage, for {recalled.read_ns / ours.read_ns:.1f} times as long. And its STT writes '
      'for less energy than its SRAM, which is an artefact of dividing the write energy of a '
      'cache in normal mode by its associativity.',
      '',
    ]
  return [
    '',
    '## Headline figures of the abstracts',
    '',
    to_markdown(
      table,
      [
        'version',
        'technology',
        'figure',
        'abstract',
        'published table',
        'own model',
        'by the table',
        'by our model',
      ],
    ),
    'Reproduced and agrees: within a tenth. EDP depends on what the abstracts do not give: '
    'the accesses that were measured, and the energy and time of DRAM. Ours are a model and '
    'constants of our own, so an EDP that agrees is no confirmation, and one that does not '
    'is no refutation. Area and capacity depend on the caches alone: by the recalled table '
    'they check the recollection, by our model they check the model'
    + (' (its 16 nm node is our own table).' if config.node_nm == 16 else '.'),
    *why,
  ]


def _traffic(config, demands) -> str:
  body = []
  base = config.baseline_mib
  for case, found in demands.items():
    accesses = found.l2_reads + found.l2_writes
    dram = float(sum(found.dram(base * MIB)))
    body.append(
      [
        case.workload,
        case.mode,
        case.batch,
        f'{found.macs / 1e9:.4g}',
        f'{found.l2_reads / 1e6:.4g}',
        f'{found.l2_writes / 1e6:.4g}',
        f'{found.l2_reads / accesses:.2f}',
        f'{dram / 1e6:.4g}',
        f'{dram / accesses:.2f}',
      ]
    )
  return to_markdown(
    body,
    [
      'workload',
      'mode',
      'batch',
      'GMAC',
      'L2 reads, M',
      'L2 writes, M',
      'read share',
      f'DRAM at {base} MiB, M',
      'DRAM/L2',
    ],
  )


def _dram(workdir, demands) -> list[str]:
  """Reduction curves, and the recalled points of AlexNet."""
  modes = list(dict.fromkeys(case.mode for case in demands))
  drawing = figure.Figure(figsize=(4.6 * len(modes), 3.6), layout='constrained')
  curves = {}
  for i, mode in enumerate(modes):
    axes = drawing.add_subplot(1, len(modes), i + 1)
    for case, found in demands.items():
      if case.mode == mode:
        curves[case] = sum(found.dram(np.array(CURVE_MIB) * MIB))
        label = case.workload if len({c.workload for c in demands}) > 1 else f'batch {case.batch}'
        axes.plot(
          CURVE_MIB,
          curves[case] / curves[case][CURVE_MIB.index(3)],
          marker='o',
          markersize=3,
          label=label,
        )
    recalled = published.RECALLED_DRAM_REDUCTIONS
    axes.plot(
      list(recalled), [1 - value for value in recalled.values()], 'kx', label='AlexNet, recalled'
    )
    axes.set(
      xscale='log',
      xlabel='last-level cache, MiB',
      ylabel='DRAM accesses over those at 3',
      title=mode,
    )
    axes.set_xticks([1, 3, 10, 32, 100, 256], ['1', '3', '10', '32', '100', '256'])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, frameon=False)
  drawing.savefig(workdir / 'dram.png', dpi=150)
  body = []
  for case, curve in curves.items():
    base = curve[CURVE_MIB.index(3)]
    reductions = [f'{100 * (1 - curve[CURVE_MIB.index(mib)] / base):.1f} %' for mib in (7, 10, 32)]
    body.append([case.workload, case.mode, case.batch, *reductions])
  recalled = [f'{100 * value:.1f} %' for value in published.RECALLED_DRAM_REDUCTIONS.values()]
  body.append(['alexnet, recalled and unverified', '', '', *recalled, ''])
  return [
    '',
    '## DRAM accesses fewer than with 3 MiB',
    '',
    to_markdown(body, ['workload', 'mode', 'batch', '7 MiB', '10 MiB', '32 MiB']),
    'The recalled figures are of a simulator (GPGPU-Sim) whose kernels and replacement '
    'differ from the blocked GEMMs and LRU assumed here; nothing was fitted to them.',
    '',
    '![DRAM accesses against capacity](dram.png)',
  ]


def _sensitivity(config, workdir, rows, figures, demands) -> list[str]:
  """Mean EDP reduction against the DRAM's time and energy of an access."""
  dram = system.GDDR5X if config.dram == 'gddr5x' else system.HBM
  pairs = sorted(
    {(r['source'], r['technology'], r['capacity_mib']) for r in rows if r['technology'] != 'sram'}
  )
  pairs = [pair for pair in pairs if config.analysis != 'scaling' or pair[2] in (3, 32)]

  def gain(pair, drams):
    source, name, mib = pair
    sram_mib = config.baseline_mib if config.analysis == 'iso_area' else mib
    logs = []
    for found in demands.values():
      edps = [
        system.system_totals(
          system.Demand(found.l2_reads, found.l2_writes, float(sum(found.dram(size * MIB)))),
          figures[source, who, size],
          drams,
        ).edp_js
        for who, size in (('sram', sram_mib), (name, mib))
      ]
      logs.append(np.log(edps[0] / edps[1]))
    return np.exp(np.mean(logs, 0))

  times = np.geomspace(0.05, 500, 41)
  drawing = figure.Figure(figsize=(9.2, 3.6), layout='constrained')
  axes = dict(zip(SOURCES, drawing.subplots(1, 2, sharey=True)))
  for pair, (factor, style) in itertools.product(pairs, ((0.25, '--'), (1.0, '-'), (4.0, ':'))):
    source, name, mib = pair
    energy = factor * dram.access_nj
    axes[source].plot(
      times,
      gain(pair, system.Dram(np.full_like(times, energy), times)),
      style,
      color=_COLORS[name],
      alpha=1.0 if mib <= 10 else 0.4,
      label=f'{name} {mib} MiB, {energy:.2g} nJ',
    )
  for source, axis in axes.items():
    axis.axvline(dram.access_ns, color='0.7', linewidth=0.8)
    axis.set(xscale='log', xlabel='time of a DRAM access, ns', title=SOURCES[source])
    axis.grid(alpha=0.3)
    if len(axis.lines) > 1:
      axis.legend(fontsize=6, frameon=False)
  axes['published'].set_ylabel('mean EDP reduction with DRAM')
  drawing.savefig(workdir / 'dram_sensitivity.png', dpi=150)
  columns = {
    'all channels busy, 0.07 ns': 0.07,
    f'ours, {dram.access_ns:.2g} ns': dram.access_ns,
    'row closed, 25 ns': 25.0,
    'as a program sees it, 250 ns': 250.0,
  }
  body = [
    [
      *pair,
      *(f'{float(gain(pair, system.Dram(dram.access_nj, time))):.3g}' for time in columns.values()),
    ]
    for pair in pairs
  ]
  return [
    '',
    '## What the DRAM constants move',
    '',
    'Mean EDP reduction over all workloads, with DRAM, by the time of an access:',
    '',
    to_markdown(body, ['source', 'technology', 'MiB', *columns]),
    '![mean EDP reduction against DRAM time and energy](dram_sensitivity.png)',
  ]


def _bars(path: pathlib.Path, rows) -> None:
  """EDP reductions with DRAM, a group of bars for each workload."""
  drawing = figure.Figure(figsize=(9.2, 6.4), layout='constrained')
  axes = drawing.subplots(2, 2, sharey='row')
  for (i, with_dram), (j, source) in itertools.product(
    enumerate((False, True)), enumerate(SOURCES)
  ):
    chosen = _select(rows, source=source, with_dram=with_dram)
    cases = list(dict.fromkeys((r['workload'], r['mode']) for r in chosen))
    for k, name in enumerate(('stt', 'sot')):
      values = [r['edp_reduction'] for r in _select(chosen, technology=name)]
      if values:
        axes[i, j].bar(
          np.arange(len(values)) + 0.4 * k - 0.2, values, 0.4, label=name, color=_COLORS[name]
        )
    axes[i, j].axhline(1, color='0.3', linewidth=0.8)
    axes[i, j].set_xticks(
      range(len(cases)), [f'{name}\n{mode[:5]}.' for name, mode in cases], rotation=60, fontsize=6
    )
    axes[i, j].set_title(
      f'{SOURCES[source]}, {"with" if with_dram else "without"} DRAM', fontsize=8
    )
    axes[i, j].grid(alpha=0.3, axis='y')
  axes[0, 0].legend(frameon=False)
  for axis in axes[:, 0]:
    axis.set_ylabel('EDP, SRAM over this')
  drawing.savefig(path, dpi=150)


def _lines(path: pathlib.Path, rows, x: str, xlabel: str) -> None:
  """Our model's figures, and the EDP reduction, against one column; means over workloads."""
  panels = {
    'area_mm2': 'area, mm2',
    'total_energy_j': 'energy, J',
    'delay_s': 'delay, s',
    'edp_reduction': 'EDP, SRAM over this',
  }
  modes = list(dict.fromkeys(r['mode'] for r in rows))
  drawing = figure.Figure(figsize=(12, 3 * len(modes)), layout='constrained')
  axes = drawing.subplots(len(modes), 4, squeeze=False)
  for (i, mode), (j, (column, label)) in itertools.product(
    enumerate(modes), enumerate(panels.items())
  ):
    axis = axes[i, j]
    chosen = _select(rows, mode=mode, with_dram=True)
    for name, source in itertools.product(_COLORS, SOURCES):
      points = {}
      for r in _select(chosen, technology=name, source=source):
        points.setdefault(r[x], []).append(r[column])
      wanted = source == 'model' or column == 'edp_reduction' and len(points) > 1
      if points and wanted and not (column == 'edp_reduction' and name == 'sram'):
        axis.plot(
          sorted(points),
          [_mean(points[key]) for key in sorted(points)],
          marker='o',
          markersize=3,
          color=_COLORS[name],
          linestyle='-' if source == 'model' else ':',
          label=name if source == 'model' else f'{name}, recalled table',
        )
    axis.set(xscale='log', xlabel=xlabel, ylabel=label, title=mode)
    if column == 'edp_reduction':
      axis.set_ylim(bottom=0)
      axis.axhline(1, color='0.3', linewidth=0.8)
    else:
      axis.set_yscale('log')
    ticks = sorted({r[x] for r in chosen})
    axis.set_xticks(ticks, list(map(str, ticks)), fontsize=6)
    axis.xaxis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=6, frameon=False)
  drawing.suptitle('Our cache model, with DRAM; mean over workloads')
  drawing.savefig(path, dpi=150)


def _capacity_lines(path, rows) -> None:
  _lines(path, rows, 'capacity_mib', 'capacity, MiB')


def _batch_lines(path, rows) -> None:
  _lines(path, rows, 'batch', 'batch')
