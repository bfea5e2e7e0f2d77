"""The headline figures of the abstracts beside ours."""

from cnnopt_jax.nvm import validation
from cnnopt_jax.report import to_markdown
from experiments.nvm_eval.rows import SOURCES, mean, select


def headline_rows(study: str, rows) -> list[list[str]]:
  """Claims of the abstracts beside what both sources give: paper, claim, published, model."""
  table = []
  for claim in validation.HEADLINES:
    if claim.study != study:
      continue
    cells = [_measured(claim, select(rows, source=source)) for source in SOURCES]
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

  def agrees(value):
    return abs(value / claim.value - 1) <= 0.1

  if claim.figure != 'edp':
    row = rows[0]
    # Only equal-area studies ask for capacity; their SRAM has 3 MB.
    value = row['area_reduction'] if claim.figure == 'area' else row['capacity_mib'] / 3
    return f'{value:.2f}', 'reproduced' if agrees(value) else 'not reproduced'
  pick = max if claim.is_bound else mean
  values = [
    pick([r['edp_reduction'] for r in select(rows, with_dram=with_dram)])
    for with_dram in (False, True)
  ]
  close = [words for value, words in zip(values, ('without', 'with')) if agrees(value)]
  return (
    f'{values[0]:.2f}; with DRAM {values[1]:.2f}',
    f'agrees ({" and ".join(close)} DRAM)' if close else 'not reproduced',
  )


def section(config, rows, figures) -> list[str]:
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
