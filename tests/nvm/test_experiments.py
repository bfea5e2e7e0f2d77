"""The three experiments: what they write, what they refuse, and their exit codes."""

import json
import re
import subprocess
import sys

import pytest

from cnnopt_jax import nvm
from experiments import nvm_bench, nvm_cache, nvm_validate
from experiments.common import cell_reports, fields, launch, run_folder
from tests.experiments import runs

from .test_cell_files import STT

HEADER = (
  'cell,node_nm,roadmap,capacity_kib,mat_rows,mat_cols,active_cols,mux_senseamp,quantity,'
  'value,unit\n'
)
ROW = 'stt,22,HP,1024,4,4,4,8,'


def _config(name, spec, **changes):
  return fields.check(runs.load_config(name, **changes), spec)


def test_validation_writes_groups_and_names_what_it_does_not_know(tmp_path, capsys):
  csv, cell = tmp_path / 'rows.csv', tmp_path / 'mine.cell'
  csv.write_text(
    HEADER
    + ROW
    + 'Read Latency,1.918,ns\n'
    + ROW
    + 'Leakage Power > H-Tree Leakage Power,0,mW\n'
    + ROW.replace('stt', 'mine')
    + 'Total Area,363475.776,um2\n'
    + ROW.replace('stt', 'feram')
    + 'Read Latency,1.918,ns\n'
  )
  cell.write_text(STT)
  config = _config('nvm_validate', nvm_validate.SPEC, cells=str(cell))
  assert nvm_validate.run(config, tmp_path, [str(csv)]) == 1
  assert 'unknown cell feram: 1 rows' in capsys.readouterr().out
  groups = json.loads((tmp_path / 'validation.json').read_text())
  assert set(groups) == {
    'forced/Read Latency',
    'forced/Total Area',
    'zero/Leakage Power > H-Tree Leakage Power',
  }
  assert all(set(entry) == {'median', 'p95', 'worst', 'rows'} for entry in groups.values())
  assert groups['forced/Read Latency']['worst'] < 1e-6 > groups['forced/Total Area']['worst']
  without = csv.read_text().replace(ROW.replace('stt', 'feram') + 'Read Latency,1.918,ns\n', '')
  csv.write_text(without)
  assert nvm_validate.run(config, tmp_path, [str(csv)]) == 0


def test_validation_reports_a_wrong_figure(tmp_path):
  csv = tmp_path / 'rows.csv'
  csv.write_text(HEADER + ROW + 'Read Latency,2.0,ns\n')
  assert nvm_validate.run(_config('nvm_validate', nvm_validate.SPEC), tmp_path, [str(csv)]) == 0
  groups = json.loads((tmp_path / 'validation.json').read_text())
  # Ours is 1.9183 ns; 2.000 is known to half a picosecond.
  assert groups['forced/Read Latency']['worst'] == pytest.approx((2 - 1.9183 - 5e-4) / 2, rel=1e-2)


@pytest.mark.parametrize(
  'content, named',
  [
    ('a,b\n1,2\n', 'line 1'),
    (HEADER + ROW + 'Read Latency,fast,ns\n', 'line 2'),
    (HEADER + ROW + 'Read Latency,1.9,furlong\n', 'line 2'),
  ],
)
def test_an_unreadable_reference_is_named(tmp_path, content, named):
  csv = tmp_path / 'rows.csv'
  csv.write_text(content)
  with pytest.raises(fields.ConfigError, match=named):
    nvm_validate.run(_config('nvm_validate', nvm_validate.SPEC), tmp_path, [str(csv)])


def test_the_reference_flag_and_the_exit_code(tmp_path):
  cell = tmp_path / 'bad.cell'
  cell.write_text(STT.replace('-CellArea (F^2): 54', '-CellArea (F^2): -1'))
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'experiments.nvm_validate',
      '--reference',
      str(tmp_path / 'no.csv'),
      f'--config.cells={cell}',
      '--workdir',
      str(tmp_path / 'run'),
    ],
    cwd=run_folder.REPO_ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == launch.USAGE_EXIT_CODE
  assert f'{cell}:4: CellArea' in done.stderr and 'Traceback' not in done.stderr


def test_bench_writes_its_figures(tmp_path):
  config = _config(
    'nvm_bench',
    nvm_bench.SPEC,
    repeats=1,
    sweep_cells=('stt',),
    sweep_capacities_mib=(1,),
    capacity_mib=1,
    stream_accesses=1000,
    traffic_workloads=('squeezenet1_1',),
  )
  rows = {row['name']: row for row in nvm_bench.run(config, tmp_path)}
  assert json.loads((tmp_path / 'bench.json').read_text()) == list(rows.values())
  assert rows['organisations_per_s']['value'] > 1e4 and rows['full_search_ms']['unit'] == 'ms'
  assert rows['traffic_training_s']['squeezenet1_1'] > 0


def test_the_cache_table(tmp_path):
  """With a cell that cannot be built, a user's sram.cell beside the built-in one, and 1 KB."""
  cell, own, strong = (tmp_path / f'{name}.cell' for name in ('mine', 'sram', 'strong'))
  cell.write_text(STT)
  own.write_text('-MemCellType: SRAM\n-CellArea (F^2): 300\n-CellAspectRatio: 1.46\n')
  strong.write_text(STT.replace('Current (uA): 80', 'Current (mA): 80') + '-Endurance: 1e9\n')
  config = _config(
    'nvm_cache',
    nvm_cache.SPEC,
    cells=('sram', 'stt'),
    cell_files=f'{cell},{own},{strong}',
    capacities_kib=(1,),
    capacities_mib=(1,),
    iso_area_mib=1,
    sensitivity_mib=1,
    node_nm=22,
  )
  tuned = nvm_cache.run(config, tmp_path)
  assert tuned['mine', 1 << 20].totals == tuned['stt', 1 << 20].totals
  assert tuned['strong', 1 << 20] is None and nvm_cache.exit_code(tuned) == launch.FAILED_EXIT_CODE
  areas = [tuned[name, 1 << 20].totals.area_mm2 for name in ('sram', 'sram.cell')]
  assert areas[1] > 1.5 * areas[0]
  assert 0 < tuned['sram', 1 << 10].totals.area_mm2 < areas[0] / 100
  report = (tmp_path / 'report.md').read_text()
  assert 'recalled' in report and re.search(r'\| mine +\| +1 \|', report)
  assert 'strong cannot be built at 1 KB, 1: write current=80 mA' in report
  assert f'`{own}`' in report and 'built in' in report and re.search(r'\| sram +\| 1 KB \|', report)
  # 1e9 writes to each of 16,384 lines, at 1e7 a second, are 0.0519 years.
  assert re.search(r'\| strong \| +1e\+09 \| +0.0519 \|', report)
  assert (tmp_path / 'caches.png').stat().st_size > 1e4
  lines = (tmp_path / 'results.csv').read_text().splitlines()
  assert len(lines) == 1 + 2 * 5 and sum('cannot be built' in line for line in lines) == 2


def test_refresh_is_told_apart_in_a_report():
  tech, cell = nvm.technology_node(22), nvm.CELLS['edram']
  tuned = nvm.edap_tuned({'edram': cell}, tech, [1 << 20], tag_cell=nvm.CELLS['sram'])
  (winner,) = tuned.values()
  parts = cell_reports.refresh({'edram': cell}, tech, {**tuned, ('x', 1): None}, 350)
  array = nvm.array_ppa(cell, tech, winner.data_organization)
  assert parts[0] == '## Refresh at 350 K\n'
  assert f' {float(array.breakdown.refresh_mw):.4g} |' in parts[2]
  assert cell_reports.refresh({'stt': nvm.CELLS['stt']}, tech, {}, 350) == []


def test_iso_area_holds_what_fits_beside_sram():
  tech = nvm.technology_node(22)
  found = nvm_cache.iso_area({'sram': nvm.CELLS['sram'], 'stt': nvm.CELLS['stt']}, tech, 1, {})
  assert list(found) == ['sram', 'stt'] and found['sram'].capacity_bytes == 1 << 20
  assert found['stt'].capacity_bytes > 1 << 20
  assert found['stt'].totals.area_mm2 <= found['sram'].totals.area_mm2
  huge = {'huge': nvm.CELLS['sram'].replace(area_f2=400.0)}
  assert list(nvm_cache.iso_area(huge, tech, 1, {})) == ['sram']


def test_old_names_of_fields_are_accepted(capsys):
  config = runs.load_config('nvm_cache')
  old = {
    name.replace('_mib', '_mb') if 'mib' in name else name: value for name, value in config.items()
  }
  checked = fields.check(old, nvm_cache.SPEC)
  assert checked == fields.check(config, nvm_cache.SPEC)
  notes = capsys.readouterr().err.splitlines()
  assert notes == [
    f'note: config.{name}_mb is called config.{name}_mib now'
    for name in ('capacities', 'iso_area', 'sensitivity')
  ]
  with pytest.raises(fields.ConfigError, match='given twice; allowed: iso_area_mib alone'):
    fields.check({**config, 'iso_area_mb': 1}, nvm_cache.SPEC)
  with pytest.raises(fields.ConfigError, match='config.iso_area_mib=0; allowed'):
    fields.check({**old, 'iso_area_mb': 0}, nvm_cache.SPEC)


OLD_CONFIG = """
from configs import nvm_cache
def get_config():
  config = nvm_cache.get_config()
  for name in ('capacities', 'iso_area', 'sensitivity'):
    config[name + '_mb'] = config[name + '_mib']
    del config[name + '_mib']
  return config
"""


@pytest.mark.parametrize('flag', ['capacities_mb', 'capacities_mib'])
@pytest.mark.parametrize('old_file', [False, True])
def test_overrides_by_either_name(tmp_path, flag, old_file):
  """The last field is refused, so nothing is computed; the first was understood before it."""
  flags = [f'--config.{flag}=1,0', '--workdir', str(tmp_path)]
  if old_file:
    (tmp_path / 'old.py').write_text(OLD_CONFIG)
    flags = [f'--config={tmp_path / "old.py"}', *flags]
  done = subprocess.run(
    [sys.executable, '-m', 'experiments.nvm_cache', *flags],
    cwd=run_folder.REPO_ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == launch.USAGE_EXIT_CODE
  assert done.stderr.splitlines()[-1].startswith('error: config.capacities_mib[1]=0; allowed')


def test_a_bad_cell_file_is_refused_by_line(tmp_path):
  cell = tmp_path / 'bad.cell'
  cell.write_text(STT.replace('SetCurrent', 'SetCurrant'))
  config = _config('nvm_cache', nvm_cache.SPEC, cell_files=str(cell))
  with pytest.raises(fields.ConfigError, match=f'{cell}:17: SetCurrant: unknown'):
    nvm_cache.run(config, tmp_path)


def test_files_named_on_the_command_line():
  assert nvm_cache.with_files(
    ['a.cell', '--workdir', 'x.cfg', 'B.CFG', 'c.cell', '--config=d.cfg']
  ) == [
    *('--workdir', 'x.cfg', '--config=d.cfg'),
    *('--config.cell_files=a.cell,c.cell', '--config.cfg_files=B.CFG'),
  ]


def _command(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.nvm_cache', *map(str, arguments)],
    cwd=run_folder.REPO_ROOT,
    capture_output=True,
    text=True,
  )


def test_a_file_that_is_none_ends_in_one_line(tmp_path):
  """Binary, empty, a folder, absent, without a field that is needed."""
  (tmp_path / 'binary.cell').write_bytes(bytes(range(256)))
  (tmp_path / 'folder.cell').mkdir()
  (tmp_path / 'lacking.cfg').write_text('-ProcessNode: 22\n')
  cases = {
    'binary.cell': 'binary.cell:0: file: binary',
    'folder.cell': 'Is a directory',
    'lacking.cfg': 'lacking.cfg:0: Capacity: missing',
    'absent.cfg': 'No such file',
  }
  for name, words in cases.items():
    done = _command(tmp_path / name, '--workdir', tmp_path / 'run')
    assert done.returncode == launch.USAGE_EXIT_CODE, name
    assert words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


CFG = """-DesignTarget: cache
-CacheAccessMode: Sequential
-OptimizationTarget: ReadEDP
-ProcessNode: 22
-Capacity (KB): 1024
-WordWidth (bit): 512
-Associativity (for cache only): 16
-MemoryCellInputFile: mine.cell
-UseCactiAssumption: Yes
"""


def test_a_cfg_is_built_and_one_that_cannot_be_exits_with_1(tmp_path):
  (tmp_path / 'mine.cell').write_text(STT)
  (tmp_path / 'mine.cfg').write_text(CFG)
  for name in ('one', 'two'):
    (tmp_path / name).mkdir()
  strong = tmp_path / 'strong.cell'
  strong.write_text(STT.replace('Current (uA): 80', 'Current (mA): 80'))
  config = _config('nvm_cache', nvm_cache.SPEC, cfg_files=str(tmp_path / 'mine.cfg'))
  assert nvm_cache.main(config, tmp_path / 'one') == 0
  lines = (tmp_path / 'one' / 'results.csv').read_text().splitlines()
  assert len(lines) == 2 and 'READ_EDP' in lines[1] and lines[1].endswith(',yes')
  assert '| read_edp' in (tmp_path / 'one' / 'report.md').read_text()
  config = _config(
    'nvm_cache', nvm_cache.SPEC, cfg_files=str(tmp_path / 'mine.cfg'), cell_files=str(strong)
  )
  assert nvm_cache.main(config, tmp_path / 'two') == launch.FAILED_EXIT_CODE
  report = (tmp_path / 'two' / 'report.md').read_text()
  assert 'cannot be built: write current=80 mA' in report and str(strong) in report
