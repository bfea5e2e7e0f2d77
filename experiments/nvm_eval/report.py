"""Tables and plots of `experiments.nvm_eval`."""

import functools
import itertools
import pathlib

import numpy as np
from matplotlib import figure

from cnnopt_jax import nvm, traffic
from cnnopt_jax.nvm import validation
from cnnopt_jax.report import to_markdown
from experiments.common import gpu_traffic, reports
from experiments.common.caches import MIB, TECHNOLOGIES
from experiments.nvm_eval import headlines, plots
from experiments.nvm_eval.rows import SOURCES, mean, select

TITLES = {
  'iso_capacity': 'Caches of equal capacity',
  'iso_area': 'Caches of equal area',
  'scaling': 'Caches from small to large',
  'batch': 'Batch sizes',
}
CURVE_MIB = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_REDUCTIONS = {
  'dynamic energy': 'dynamic_energy_reduction',
  'leakage energy': 'leakage_energy_reduction',
  'total energy': 'total_energy_reduction',
  'delay': 'delay_reduction',
  'EDP': 'edp_reduction',
}


def write(config, workdir: pathlib.Path, rows, compared, demands) -> None:
  """Writes report.md and the plots into the folder of a run.

  Args:
    config: checked.
    workdir: of the run.
    rows: of results.csv.
    compared: `plan.Cache` objects.
    demands: `{plan.Case: traffic}`.
  """
  ordered = sorted(compared, key=lambda c: (c.source == 'model', TECHNOLOGIES.index(c.technology)))
  figures = {(c.source, c.technology, c.capacity_mib): c.cache.figures for c in ordered}
  lines = [
    f'# {TITLES[config.analysis]}',
    '',
    *_preamble(config, demands),
    *_measured(demands),
    '',
    '## Caches',
    '',
    _caches(figures),
    *_tables(config, rows),
    *headlines.section(config, rows, figures),
    '## Traffic',
    '',
    _traffic(config, demands),
    *_dram(workdir, demands),
    *_sensitivity(config, workdir, rows, figures, demands),
  ]
  picture = {
    'iso_capacity': plots.bars,
    'iso_area': plots.bars,
    'scaling': plots.capacity_lines,
    'batch': plots.batch_lines,
  }[config.analysis]
  picture(workdir / f'{config.analysis}.png', rows)
  lines += ['', f'![{TITLES[config.analysis]}]({config.analysis}.png)', '']
  reports.write(workdir, lines)


def _preamble(config, demands) -> list[str]:
  dram = nvm.DRAMS[config.dram]
  return [
    "Every reduction is the SRAM cache's figure over this cache's: above 1 is better. Accesses "
    f'are those that the traffic model predicts. {gpu_traffic.COMPARED} '
    '`experiments.nvm_profile` compares it with further profiles. '
    f'Delay charges every access its latency, one after another. DRAM: {dram.access_nj:.3g} '
    f'nJ and {dram.access_ns:.3g} ns for an access of 32 B, our own constants. Cells: '
    f'{config.stt_cell}, {config.sot_cell}; tags: {config.tag_cell}; {config.node_nm} nm '
    f'{config.roadmap}, {config.temperature_k} K.'
    + (' The 16 nm table is our own.' if config.node_nm == 16 else ''),
    '',
    f'{gpu_traffic.described(config)}. {gpu_traffic.counts(demands.values())}',
  ]


def _measured(demands) -> list[str]:
  """Which demands are those of profiles."""
  found = {c: d.demand for c, d in demands.items() if isinstance(d, traffic.ProfiledTraffic)}
  if not found:
    return []
  body = [
    [
      *case,
      demand.gpu.name,
      *(f'{value / 1e6:.4g}' for value in demand[:4]),
      '-' if demand.seconds is None else f'{1e3 * demand.seconds:.4g}',
    ]
    for case, demand in found.items()
  ]
  head = ['workload', 'mode', 'batch', 'GPU', *(f'{n}, M' for n in traffic.PROFILE_COUNTERS), 'ms']
  return [
    '',
    'Not modelled but counted by a profiler, in sectors of 32 B; DRAM at the capacity of that '
    "GPU's L2, and for other capacities scaled by the model's ratio:",
    '',
    to_markdown(body, head),
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


def _tables(config, rows) -> list[str]:
  lines = []
  for source in SOURCES:
    for with_dram in (False, True):
      chosen = [
        r for r in select(rows, source=source, with_dram=with_dram) if r['technology'] != 'sram'
      ]
      if not chosen:
        continue
      lines += [
        '',
        f'## Reductions by {SOURCES[source]}, {"with" if with_dram else "without"} DRAM',
        '',
      ]
      body = []

      def key(r):
        return (r['technology'], r['capacity_mib'])

      for (name, mib), group in itertools.groupby(sorted(chosen, key=key), key):
        group = list(group)
        if config.analysis == 'scaling':  # One line a mode: the workloads' mean.
          groups = [
            (mode, select(group, mode=mode)) for mode in dict.fromkeys(r['mode'] for r in group)
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
  return [f'{mean([r[column] for r in group]):.3g}' for column in _REDUCTIONS.values()]


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
    recalled = validation.RECALLED_DRAM_REDUCTIONS
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
  recalled = [f'{100 * value:.1f} %' for value in validation.RECALLED_DRAM_REDUCTIONS.values()]
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
  dram = nvm.DRAMS[config.dram]
  pairs = sorted(
    {(r['source'], r['technology'], r['capacity_mib']) for r in rows if r['technology'] != 'sram'}
  )
  pairs = [pair for pair in pairs if config.analysis != 'scaling' or pair[2] in (3, 32)]
  gain = functools.partial(_mean_edp_reduction, config, figures, demands)
  _plot_sensitivity(gain, pairs, dram, workdir / 'dram_sensitivity.png')
  columns = {
    'all channels busy, 0.07 ns': 0.07,
    f'ours, {dram.access_ns:.2g} ns': dram.access_ns,
    'row closed, 25 ns': 25.0,
    'as a program sees it, 250 ns': 250.0,
  }
  body = [
    [
      *pair,
      *(f'{float(gain(pair, nvm.Dram(dram.access_nj, time))):.3g}' for time in columns.values()),
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


def _mean_edp_reduction(config, figures, demands, pair, dram) -> np.ndarray:
  """Geometric mean over the workloads of SRAM's EDP over a cache's; of the shape of `dram`.

  `pair` is (source, technology, MiB).
  """
  source, name, mib = pair
  # Of equal area: the published caches are compared with the only SRAM cache of their table.
  baseline = {'model': config.baseline_mib, 'published': 3}[source]
  sram_mib = baseline if config.analysis == 'iso_area' else mib
  logs = []
  for found in demands.values():
    edps = [
      nvm.system_totals(
        nvm.Demand(found.l2_reads, found.l2_writes, float(sum(found.dram(size * MIB)))),
        figures[source, who, size],
        dram,
      ).edp_js
      for who, size in (('sram', sram_mib), (name, mib))
    ]
    logs.append(np.log(edps[0] / edps[1]))
  return np.exp(np.mean(logs, 0))


def _plot_sensitivity(gain, pairs, dram, path) -> None:
  """`gain(pair, dram)` over the time of an access, at a quarter, all and four times its energy."""
  times = np.geomspace(0.05, 500, 41)
  drawing = figure.Figure(figsize=(9.2, 3.6), layout='constrained')
  axes = dict(zip(SOURCES, drawing.subplots(1, 2, sharey=True)))
  for pair, (factor, style) in itertools.product(pairs, ((0.25, '--'), (1.0, '-'), (4.0, ':'))):
    source, name, mib = pair
    energy = factor * dram.access_nj
    axes[source].plot(
      times,
      gain(pair, nvm.Dram(np.full_like(times, energy), times)),
      style,
      color=plots.COLORS[name],
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
  drawing.savefig(path, dpi=150)
