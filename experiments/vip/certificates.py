"""What the rounds of a run lose at most: the certificates in its table, verdicts and report."""

from cnnopt_jax import report, vip
from experiments.vip.records import Results

CONTROL = 'the dense network fine-tuned as long'  # What a round is held against, in words.
_CONFIDENCE = 0.95


def certify(results: Results) -> list[vip.LossCertificate | None]:
  """What each round loses at most to its control; None where images or control are not on record.

  All rounds are in the count that the confidence is divided by, whether certified or not.
  """
  controls = results.controls or (None,) * len(results.rounds)
  found: list[vip.LossCertificate | None] = []
  for tuned, control in zip(results.rounds, controls):
    if control is None or tuned.correct is None or control.correct is None:
      found.append(None)
      continue
    count = len(results.rounds)
    found.append(
      vip.certify_loss(control.correct, tuned.correct, plans=count, confidence=_CONFIDENCE)
    )
  return found


def verdict(results: Results) -> list[str]:
  """A sentence on what the rounds lose at most; none where no round is certified."""
  found = [(f'round{i}', one) for i, one in enumerate(certify(results), 1) if one is not None]
  if not found:
    return []
  losses = ', '.join(f'{100 * one.bound:.2f} points in {name}' for name, one in found)
  return [
    f'With {100 * _CONFIDENCE:g} % confidence in all of it at once, from {found[0][1].images} '
    f'held-out images, the loss to {CONTROL} is at most {losses}.'
  ]


def part(results: Results) -> list[str]:
  """What stands in the report of the certificates; nothing where no round is certified."""
  rows = [
    (
      f'round{i}',
      str(one.images),
      ', '.join(map(str, one.lost)),
      ', '.join(map(str, one.gained)),
      f'{100 * one.loss:+.2f}',
      ', '.join(f'{100 * bound:+.2f}' for bound in one.network_bounds),
      f'{100 * one.bound:+.2f}',
    )
    for i, one in enumerate(certify(results), 1)
    if one is not None
  ]
  if not rows:
    return []
  header = ('', 'images', 'lost', 'gained', 'loss, points', 'at most, by seed', 'at most, mean')
  networks = len(results.rounds) * len(results.rounds[0].accuracies)
  return [
    f'## Certificate: what a plan loses at most\n\n{report.to_markdown(rows, header)}',
    '"Lost" are the images that only the control gets right, "gained" those that only the plan '
    'does, one number a seed. The bounds are exact and paired (`vip.certify_loss`; the proof is in '
    f'`vip/certificates.py`), and {100 * _CONFIDENCE:g} % is the confidence that all of them hold '
    f'at once: {100 * (1 - _CONFIDENCE):g} % is divided by the {networks} pairs of networks, so '
    'that a round may be picked by its loss. The images are the whole test split. It trained '
    'nothing and chose no unit, order, plan or checkpoint of this run: training images and times '
    "did. Whether an earlier look at it chose the config's numbers, a run cannot know. The bounds "
    'are about these trained networks and images drawn as these were, not about other seeds.\n',
  ]
