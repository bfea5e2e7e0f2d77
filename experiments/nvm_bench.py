"""Speed of the search, the system model, stack distances and traffic, and growth with size.

    python -m experiments.nvm_bench --config configs/nvm_bench.py --workdir runs/nvm_bench

Writes `bench.json`, a list of `{name, value, unit, ...}`, and `report.md`. A full search is eight
targets (and EDAP) in three modes with tags; NVSim takes 15 to 75 s for one mode on one core.
Organisations are enumerated once per cache, from integers alone, and kept; `enumeration_s` says
what that costs.
"""

import functools
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from cnnopt_jax import models, nvm, traffic
from cnnopt_jax.nvm import circuit, search
from experiments.common import fields, launch, reports, run_folder

SPEC = {
  'cell': fields.one_of(*nvm.CELLS),
  'capacity_mib': fields.integer(1, 1024).formerly('capacity_mb'),
  'repeats': fields.integer(1, 1000),
  'sweep_cells': fields.tuple_of(fields.one_of(*nvm.CELLS)),
  'sweep_capacities_mib': fields.tuple_of(fields.integer(1, 1024)).formerly('sweep_capacities_mb'),
  'stream_accesses': fields.integer(1000, 100_000_000),
  'traffic_workloads': fields.tuple_of(fields.one_of(*models.MODELS)),
}
NVSIM_S = (15, 75)  # One mode on one core, by the reference runs.


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict]:
  """Measures, writes and returns the rows of `bench.json`."""
  tech = nvm.technology_node(22)
  cells = {config.cell: nvm.CELLS[config.cell]}
  capacity = config.capacity_mib << 20
  rows = []

  def add(name, value, unit, **notes):
    rows.append({'name': name, 'value': value, 'unit': unit, **notes})

  problems, enumeration = timed(lambda: enumerate_problems(capacity))

  def search_all():
    return nvm.explore(cells, tech, [capacity])

  _, first = timed(search_all)
  _, again = best_of(search_all, config.repeats)
  add('compile_s', first - again, 's', what='first search less a later one')
  add('enumeration_s', enumeration, 's', what='one cache, three modes and tags, once')
  count = sum(len(problem.factored.mat_index) for problem in problems)
  add(
    'full_search_ms',
    1e3 * again,
    'ms',
    organisations=count,
    targets=9,
    modes=3,
    capacity_mb=config.capacity_mib,  # MiB; the name is that of older files.
    nvsim_ms=[3e3 * seconds for seconds in NVSIM_S],
  )
  add('organisations_per_s', count / again, '1/s', organisations=count)

  data_s, data_count = data_only(config, tech, problems[:-1])
  add(
    'data_search_ms',
    1e3 * data_s,
    'ms',
    organisations=data_count,
    what='three modes, data arrays alone',
  )

  sweep_cells = {name: nvm.CELLS[name] for name in config.sweep_cells}
  capacities = [mib << 20 for mib in config.sweep_capacities_mib]

  def sweep():
    return nvm.explore(sweep_cells, tech, capacities)

  found, cold = timed(sweep)
  _, warm = timed(sweep)
  add(
    'sweep_s',
    warm,
    's',
    caches=len(found) // len(nvm.Target),
    winners=len(found),
    with_enumeration_s=round(cold, 3),
  )
  rows += growth(config, tech)
  rows += system_evaluations(config.repeats)
  rows += stack_streams(config.stream_accesses)
  rows += predictions(config.traffic_workloads)
  run_folder.record(workdir, config)
  reports.write_bench(workdir, rows)
  reports.write(workdir, ['# Speed of the cache models\n', reports.bench_table(rows)])
  return rows


def enumerate_problems(capacity: int) -> list[search.Problem]:
  """Data arrays of the three modes, and the tags."""
  spec = nvm.CacheSpec(capacity)
  with nvm.float64():
    modes = [mode for mode in nvm.Mode if mode != nvm.Mode.RAM]
    return [search.problem(spec, mode, nvm.CACTI_SPACE, False, False) for mode in modes] + [
      search.problem(spec, nvm.Mode.SEQUENTIAL, nvm.TAG_SPACE, True, False)
    ]


def data_only(config, tech, problems) -> tuple[float, int]:
  """Seconds for evaluating all data arrays and picking their winners, and how many."""
  with nvm.float64():
    cell, technology = jax.tree.map(circuit.as_array, (nvm.CELLS[config.cell], tech))

    def search_data():
      return jax.block_until_ready(
        [
          search.pick_alone(
            search.evaluate_arrays(cell, technology, problem.padded, False),
            search.picked_size(problem.padded),
          )
          for problem in problems
        ]
      )

    search_data()
    _, seconds = best_of(search_data, config.repeats)
  return seconds, sum(len(problem.factored.mat_index) for problem in problems)


def growth(config, tech) -> list[dict]:
  """Time against the number of data organisations, by searching ever larger caches."""
  rows = []
  with nvm.float64():
    cell, technology = jax.tree.map(circuit.as_array, (nvm.CELLS[config.cell], tech))
    for fraction in (1, 2, 4, 8):
      spec = nvm.CacheSpec(config.capacity_mib << 20)
      whole = search.problem(spec, nvm.Mode.SEQUENTIAL, nvm.CACTI_SPACE, False, False)
      counts = tuple(max(1, count // fraction) for count in whole.padded.counts)
      part = whole.padded._replace(counts=counts)

      def evaluate(part=part):
        return jax.block_until_ready(search.evaluate_arrays(cell, technology, part, False))

      evaluate()
      _, seconds = best_of(evaluate, config.repeats)
      rows.append(
        {
          'name': f'evaluate_{counts[2]}_ms',
          'value': 1e3 * seconds,
          'unit': 'ms',
          'us_per_organisation': round(1e6 * seconds / counts[2], 3),
        }
      )
  return rows


def system_evaluations(repeats: int) -> list[dict]:
  """Workloads x caches x DRAMs evaluated per second, after compilation."""
  rng, rows = np.random.default_rng(0), []
  evaluate = jax.jit(nvm.system_totals_grid)
  for workloads, caches in ((10, 50), (100, 500), (400, 1000)):
    demand = nvm.Demand(
      *rng.uniform(1e6, 1e9, (2, workloads)), rng.uniform(1e6, 1e9, (workloads, caches))
    )
    figures = nvm.CacheFigures(*rng.uniform(0.1, 10, (6, caches)))
    drams = nvm.Dram(*rng.uniform(1, 5, (2, 2)))

    def call(args=(demand, figures, drams)):
      return jax.block_until_ready(evaluate(*args))

    call()
    _, seconds = best_of(call, repeats)
    count = workloads * caches * 2
    rows.append(
      {
        'name': f'system_evaluations_{count}_per_s',
        'value': count / seconds,
        'unit': '1/s',
        'ms': round(1e3 * seconds, 3),
      }
    )
  return rows


def stack_streams(accesses: int) -> list[dict]:
  """Seconds for the stack distances of five kinds of stream, and growth with their length."""
  rng, rows = np.random.default_rng(0), []
  streams = {
    'uniform': rng.integers(0, 1 << 20, accesses),
    'zipf': rng.zipf(1.2, accesses) % (1 << 24),
    'loop': np.arange(accesses) % 100_000,
    'cold': np.arange(accesses),
    'same': np.zeros(accesses, np.int64),
  }
  cases = [(kind, stream) for kind, stream in streams.items()]
  cases += [('uniform', streams['uniform'][: accesses // n]) for n in (10, 100)]
  for kind, stream in cases:
    stream = jnp.asarray(stream.astype(np.int32))

    def call(stream=stream):
      return jax.block_until_ready(traffic.stack_distances(stream))

    call()
    _, seconds = best_of(call, 2)
    rows.append(
      {
        'name': f'stack_{kind}_{len(stream)}_s',
        'value': seconds,
        'unit': 's',
        'ns_per_access': round(1e9 * seconds / len(stream), 1),
      }
    )
  return rows


def predictions(workloads: tuple[str, ...]) -> list[dict]:
  """Seconds for tracing networks and predicting their traffic, compilation included."""

  def predict(name, training, batch):
    table = models.layer_table(
      models.create(name, num_classes=1000), models.default_image_shape(name), train=training
    )
    return traffic.predict_traffic(table, traffic.GTX_1080_TI, batch, training=training)

  rows = []
  for mode, training, batch in (('inference', False, 4), ('training', True, 64)):
    each = {n: timed(functools.partial(predict, n, training, batch))[1] for n in workloads}
    rows.append(
      {
        'name': f'traffic_{mode}_s',
        'value': sum(each.values()),
        'unit': 's',
        **{name: round(seconds, 2) for name, seconds in each.items()},
      }
    )
  return rows


def timed(function):
  """Result and seconds."""
  start = time.perf_counter()
  result = function()
  return result, time.perf_counter() - start


def best_of(function, repeats: int):
  """Result and least seconds of several runs: other work on the machine only adds."""
  runs = [timed(function) for _ in range(repeats)]
  return runs[-1][0], min(seconds for _, seconds in runs)


if __name__ == '__main__':
  launch.main(run, SPEC, 'configs/nvm_bench.py', 'runs/nvm_bench')
