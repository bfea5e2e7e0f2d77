"""What a sweep plans and what it concludes, without training."""

import pytest

from cnnopt_jax import data
from experiments import quant_sweep
from experiments.common import fields
from experiments.quant_sweep import plan, report
from tests.experiments import runs


@pytest.fixture(scope='module')
def dataset():
  return data.load('fashion_mnist_subset')


def plan_of(dataset, **changes):
  return plan.make_plan(runs.load_config('quant_sweep', **changes), dataset)


def test_shipped_config_compares_equal_sizes(dataset):
  found = plan_of(dataset)
  ranked = [m for m in found.members if m.role == 'ranked']
  sizes = {m.bits: m.match.size.total for m in ranked}
  assert set(sizes) == {1, 2, 3, 4, 8}
  assert max(sizes.values()) <= 1.02 * min(sizes.values())
  widths = {m.bits: m.match.width for m in ranked}
  assert sorted(widths, key=widths.get) == [8, 4, 3, 2, 1]
  references = [m for m in found.members if m.role == 'reference']
  assert {m.match.width for m in references} == {widths[8]} and {m.bits for m in references} == {32}
  # The reference joins the program of the 8-bit members: their shapes are the same.
  assert [{m.bits for m in program} for program in found.programs] == [{1}, {2}, {3}, {4}, {8, 32}]
  assert len({m.name for m in found.members}) == len(found.members)


def test_programs_are_cut_at_max_members(dataset):
  found = plan_of(dataset, max_members=2, seeds=(0, 1, 2), bits=(4,), reference=False)
  assert [len(program) for program in found.programs] == [2, 1]


def test_layer_bits_count_in_the_size_but_not_in_a_float_reference(dataset):
  found = plan_of(
    dataset, bits=(2,), layer_bits=('unit0=8', 'head=32'), sizes_kib=(8.03,), accounting='weights'
  )
  member = found.members[0]
  shapes = {p.path: p.size for p in member.match.layers.parameters if p.role == 'weight'}
  bits = {path: 8 if 'unit0' in path else 32 if 'head' in path else 2 for path in shapes}
  assert member.match.size.total == sum(bits[path] * shapes[path] for path in shapes)
  reference = next(m for m in found.members if m.role == 'reference')
  weights = [p.size for p in reference.match.layers.parameters if p.role == 'weight']
  assert reference.match.size.weights == 32 * sum(weights)


def record(bits, accuracy, seed=0, role='ranked', budget=8.0):
  return dict(
    budget_kib=budget,
    role=role,
    bits=bits,
    average_bits=bits,
    learning_rate=0.1,
    seed=seed,
    test_accuracy=accuracy,
    train_loss=None if accuracy is None else 1.0,
  )


def test_verdicts():
  clear = [
    record(1, 0.90, 0),
    record(1, 0.91, 1),
    record(4, 0.70, 0),
    record(4, 0.71, 1),
    record(32, 0.99, role='reference'),
  ]
  [sentence] = report.verdicts(clear)
  assert sentence == ('At 8 KiB, 1 bit is best: 0.9050 ± 0.0071; next 4 bits: 0.7050 ± 0.0071.')
  close = [record(1, 0.90, 0), record(1, 0.80, 1), record(4, 0.84, 0), record(4, 0.85, 1)]
  assert 'the seeds cannot tell' in report.verdicts(close)[0]
  assert 'one seed' in report.verdicts([record(2, 0.5), record(3, 0.4)])[0]
  tie = [record(bits, 0.1, seed) for bits in (1, 4) for seed in (0, 1)]
  assert 'the seeds cannot tell' in report.verdicts(tie)[0]


def test_verdicts_tell_what_diverged():
  all_diverged = [record(2, None), record(4, None), record(32, 0.9, role='reference')]
  [sentence] = report.verdicts(all_diverged)
  assert sentence.startswith('At 8 KiB, nothing is ranked: all 2 members diverged')
  assert not report.has_ranking(all_diverged)
  some = [*all_diverged, record(3, 0.4), record(3, None, 1), record(1, 0.3)]
  assert report.verdicts(some)[0].endswith('; all members diverged at 2 bits, 4 bits.')
  assert report.has_ranking(some)
  assert report.verdicts([record(32, 0.9, role='reference')]) == []


def test_diverged_groups_stand_last_and_are_counted():
  groups = report.groups(
    [record(2, None), record(3, 0.4), record(3, None, 1), record(32, 0.9, role='reference')]
  )
  assert [(g.bits, g.diverged) for g in groups] == [(3, 1), (2, 1), (32, 0)]
  assert groups[0].mean == 0.4


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(bits=[1, 2]), r'config.bits=\[1, 2\]; allowed: a tuple'),
    (dict(epochs=2.0), 'config.epochs=2.0; allowed: an integer'),
    (dict(flip=1), 'config.flip=1; allowed: true or false'),
    (dict(momentum=float('inf')), 'config.momentum=inf; allowed: a finite number from 0 to 1'),
    (dict(bits=(True,)), r'config.bits\[0\]=True'),
  ],
)
def test_wrong_types_are_named(changes, message):
  config = {**runs.load_config('quant_sweep').to_dict(), **changes}
  with pytest.raises(fields.ConfigError, match=message):
    fields.check(config, quant_sweep.SPEC)


def test_strings_may_be_given_as_numbers_are():
  """A command line gives 1,2 as two numbers and a,b as one string."""
  spec = {'names': fields.tuple_of(fields.one_of('a', 'b', 'c,d'), min_length=0)}
  for given, found in (
    (('a',), ('a',)),
    (('a,b',), ('a', 'b')),
    (('c,d',), ('c,d',)),
    (('a', 'b'), ('a', 'b')),
    ((), ()),
  ):
    assert fields.check({'names': given}, spec).names == found
  with pytest.raises(fields.ConfigError, match=r"config.names\[1\]='x'; allowed: one of a, b"):
    fields.check({'names': ('a,x',)}, spec)


def test_missing_and_unknown_fields_are_named():
  config = runs.load_config('quant_sweep').to_dict()
  with pytest.raises(fields.ConfigError, match='config.width=1: unknown field; allowed: model'):
    fields.check({**config, 'width': 1}, quant_sweep.SPEC)
  del config['seeds']
  with pytest.raises(fields.ConfigError, match='config.seeds: missing'):
    fields.check(config, quant_sweep.SPEC)


def test_ints_pass_for_floats_and_nothing_else_changes():
  config = fields.check(
    {**runs.load_config('quant_sweep').to_dict(), 'momentum': 0}, quant_sweep.SPEC
  )
  assert type(config.momentum) is float
