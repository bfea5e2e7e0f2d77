"""Depth-wise networks train at every bitwidth: members of one program, losses that fall."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import models, training
from cnnopt_jax.models import mobilenet
from cnnopt_jax.quant import Quantizer

BITS = (1, 2, 3, 4, 8, 32)
# The first blocks of MobileNetV2: all seventeen blocks take half a minute to compile.
FIRST_STAGES = mobilenet.STAGES[0], (6, 24, 1, 2)


@pytest.mark.parametrize(
  'name, width, granularity',
  [
    ('ir_resnet8', 0.2, 'channel'),
    ('ir_resnet8', 0.2, 'layer'),
    ('mobilenet_v2', 0.2, 'channel'),
  ],
)
def test_the_loss_falls_at_every_bitwidth(name, width, granularity, setting, dataset, monkeypatch):
  """On one batch, seen again and again: whether gradients lead down, not what is learned."""
  monkeypatch.setattr(mobilenet, 'STAGES', FIRST_STAGES)
  recipe = setting.recipe._replace(
    steps=10,
    steps_per_epoch=1,
    shift=0,
    flip=False,
    quantizer=Quantizer(granularity=granularity, step='gaussian'),
  )
  members = setting.members([0] * len(BITS), BITS, 0.05)
  model = models.create(name, num_classes=dataset.num_classes, width_multiplier=width)
  state = training.init_state(model, recipe, members, dataset.image_shape)
  step = training.make_train_step(model, recipe)
  images, labels = dataset.train.get(np.arange(8)[None])
  losses = []
  for _ in range(recipe.steps):
    state = step(state, members, images, labels, jnp.zeros(len(BITS), jnp.int32))
    losses.append(np.asarray(state.loss_sum))
  assert (np.asarray(state.diverged_step) == -1).all()
  assert (losses[-1] < 0.9 * losses[0]).all(), losses
