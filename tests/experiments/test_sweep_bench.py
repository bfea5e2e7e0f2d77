"""The benchmark of sweeps, in a small form and without its peer."""

import json
import types

import jax
import numpy as np
import pytest

from experiments import sweep_bench
from experiments.sweep_bench import jobs, torch_peer
from tests.experiments import runs

TINY = jobs.Job('plain', (8, 8, 1), 4, ((2, 0.1), (32, 0.1), (4, 0.2)), steps=2)


def test_rows_of_a_job_and_of_the_four_ways(tmp_path, capsys, monkeypatch):
  monkeypatch.setitem(sweep_bench.JOBS, 'sweep', TINY._replace(settings=TINY.settings[:2]))
  monkeypatch.setattr(torch_peer, 'is_installed', lambda: False)
  config = runs.load_config(
    'sweep_bench',
    peers=('torch',),
    jobs=('sweep',),
    devices=2,
    members=2,
    rounds=2,
    batch_size=4,
    image_size=8,
    width_multiplier=0.1,
  )
  rows = sweep_bench.run(config, tmp_path)
  out = capsys.readouterr().out
  assert 'torch is not installed' in out and 'throughput_vs_loop' in out
  assert json.loads((tmp_path / 'bench.json').read_text()) == rows
  values = {row['name']: row['value'] for row in rows}
  assert values['throughput_vs_loop'] == pytest.approx(values['loop_step'] / values['sweep_step'])
  assert values['sweep: scaling_2_devices_over_1'] == pytest.approx(
    values['sweep: 1_devices_step'] / values['sweep: ours_step']
  )
  assert values['sweep: quant_step_vs_float_step'] == pytest.approx(
    values['sweep: ours_step'] / values['sweep: float_step']
  )
  assert not any('torch' in name for name in values)
  assert 0 < values['memory_of_1_members'] < values['memory_of_2_members']


def test_shares_are_even():
  assert jobs.shares([1.68, 0.9, 0.63, 0.48, 0.25, 0.25], 2) == [[0, 4, 5], [1, 2, 3]]
  assert jobs.shares([1.0], 3) == [[0]]


def test_the_job_is_the_sweep_s_step_of_every_network():
  """On one device and on two; in float the losses differ."""
  one, two = (jobs.Ours(TINY, jax.devices()[:count]) for count in (1, 2))
  for ours in (one, two):
    ours.take(3)
  assert one.losses() == two.losses() and set(one.losses()) == {0, 1, 2}
  in_float = jobs.Ours(TINY, jax.devices()[:1], quantized=False)
  in_float.take(3)
  assert in_float.losses()[1] == pytest.approx(one.losses()[1], rel=1e-5)
  assert in_float.losses()[0] != pytest.approx(one.losses()[0], rel=1e-5)


def test_networks_are_those_that_train():
  networks = jobs.networks(TINY)
  assert [network.bits for network in networks] == [2, 32, 4]
  assert networks[0].variables['unit0/conv/kernel'].shape == (3, 3, 1, 2)
  assert np.all(networks[0].variables['unit0/norm/var'] == 1)


def test_unlike_losses_are_refused():
  stub = types.SimpleNamespace(losses=lambda: {0: 1.0})
  ours = jobs.Ours(TINY._replace(settings=((2, 0.1),)), jax.devices()[:1])
  with pytest.raises(RuntimeError, match='job tiny, network 0: torch has loss 2.0'):
    sweep_bench._check_losses('tiny', {'ours': ours, 'torch': stub})


def test_peers_have_all_threads_or_a_process_a_core():
  forms = torch_peer.forms()
  assert len(forms) == 4
  assert all(1 in (form.processes, form.threads) for form in forms.values())
