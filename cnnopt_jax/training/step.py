"""One training step of a sweep: pure for one member, mapped over members, jitted once."""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from cnnopt_jax import compilation, data, models
from cnnopt_jax.kernels import platforms
from cnnopt_jax.quant import GAUSSIAN, Quantizer, WeightPlan, initial_steps, quantize_params
from cnnopt_jax.training.placement import over_members
from cnnopt_jax.workload import path_string, refuse_prepared


class Recipe(NamedTuple):
  """How every member of a sweep trains.

  Attributes:
    steps: number of training steps.
    steps_per_epoch: batches in one pass over the training images.
    momentum: of SGD with Nesterov's correction.
    weight_decay: on kernels and embeddings, coupled to the learning rate; neither on biases nor on
      parameters of norms, be they stacked or not, nor on quantization steps.
    label_smoothing: probability mass spread over all classes.
    shift: largest random shift of a training image, in pixels.
    flip: whether training images are mirrored at random.
    mean: of each channel, subtracted from images in 0..255.
    std: of each channel, divided by.
    quantizer: how weights are quantized in the forward pass.
  """

  steps: int
  steps_per_epoch: int
  momentum: float = 0.9
  weight_decay: float = 5e-4
  label_smoothing: float = 0.0
  shift: int = 0
  flip: bool = False
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (255.0,)
  quantizer: Quantizer = GAUSSIAN


class Members(NamedTuple):
  """What tells the members of one program apart.

  Attributes:
    seed: of initial weights, batch order and augmentation, int32 [M].
    bits: weight bitwidth, int32 [M]; a dict of such by path for mixed precision; None where all are
      float, so that nothing is quantized only to be put back.
    learning_rate: at the first step, float32 [M].
  """

  seed: jax.Array
  bits: Any
  learning_rate: jax.Array


class TrainState(NamedTuple):
  """State of training; every leaf of a sweep's state has a leading axis of M members.

  Attributes:
    step: steps taken, int32 [].
    params: trained parameters.
    statistics: every other variable collection of the network, such as running means.
    optimizer: state of the optimizer; that of the quantization steps lies beside the parameters'.
    loss_sum: sum of the losses of the current epoch's steps, float32 [].
    diverged_step: first step whose loss was not finite, int32 []; -1 while there is none. From
      there on parameters, statistics, optimizer and quantization steps stand still.
    quantizer_steps: trained quantization steps by path, where the quantizer learns them
      (`quant.initial_steps`); else empty.
  """

  step: jax.Array
  params: Any
  statistics: Any
  optimizer: optax.OptState
  loss_sum: jax.Array
  diverged_step: jax.Array
  quantizer_steps: Mapping[str, jax.Array] = {}


# Where the steps lie in the tree of all that is trained: no module or parameter is called so.
_STEPS = '#steps'
# Least share of a step that one update leaves of it.
_LEAST_SHARE = 0.5


def make_optimizer(recipe: Recipe, plan: WeightPlan) -> optax.GradientTransformation:
  """SGD with Nesterov momentum and a cosine decay to zero, for a learning rate of 1.

  Updates are linear in the learning rate, so the step multiplies them by each member's own, and
  members with different rates share a program.

  Args:
    recipe: how the network trains.
    plan: of the network; says which parameters decay. Nothing else of a tree does.
  """
  roles = {leaf.path: leaf.role for leaf in plan.leaves}

  def decays(params):
    return jax.tree_util.tree_map_with_path(
      lambda path, _: roles.get(path_string(path), 'step') not in ('bias', 'norm', 'step'), params
    )

  return optax.chain(
    optax.add_decayed_weights(recipe.weight_decay, mask=decays),
    optax.sgd(optax.cosine_decay_schedule(1.0, recipe.steps), recipe.momentum, nesterov=True),
  )


def init_state(
  model: nn.Module,
  recipe: Recipe,
  members: Members,
  image_shape: tuple[int, int, int],
  *,
  variables: Mapping[str, Any] | None = None,
) -> TrainState:
  """Initial state of all members; random weights are a function of each member's seed alone.

  Quantization steps that are learned follow from the weights and the bits.

  Args:
    model: network whose `apply` takes images [N, H, W, C] and `train`.
    recipe: how it will train.
    members: M of them.
    image_shape: (H, W, C).
    variables: trained ones to start from, every leaf [M, ...], copied; None for random weights.

  Returns:
    The state, every leaf with a leading axis [M].

  Raises:
    ValueError: if the variables' parameters are prepared for inference.
  """
  if variables is not None:
    refuse_prepared(variables['params'], 'train these, then prepare')
  init = functools.partial(_init, model, recipe, image_shape)
  # Drawn once.
  state = jax.jit(init, compiler_options=compilation.QUICKLY)(members.seed, members.bits)
  if variables is not None:
    given = dict(jax.tree.map(jnp.array, variables))
    state = state._replace(params=given.pop('params'), statistics=given)
  if not state.quantizer_steps:
    return state
  plan = models.weight_plan(model, image_shape, recipe.quantizer)
  first = jax.jit(functools.partial(initial_steps, plan=plan), compiler_options=compilation.QUICKLY)
  # Member by member: whoever else is there, a mean is rounded in the same order.
  each = [
    first(*jax.tree.map(operator.itemgetter(i), (state.params, members.bits)))
    for i in range(len(members.seed))
  ]
  return state._replace(quantizer_steps=jax.tree.map(lambda *steps: jnp.stack(steps), *each))


def abstract_state(
  model: nn.Module, recipe: Recipe, members: Members, image_shape: tuple[int, int, int]
) -> TrainState:
  """Shapes and dtypes of `init_state` with the same arguments; nothing is computed."""
  return jax.eval_shape(
    functools.partial(_init, model, recipe, image_shape), members.seed, members.bits
  )


def _init(model, recipe, image_shape, seeds, bits) -> TrainState:
  """The initial state, with zeros for quantization steps."""
  plan = models.weight_plan(model, image_shape, recipe.quantizer)
  optimizer = make_optimizer(recipe, plan)

  def init(seed, bits):
    variables = dict(model.init(jax.random.key(seed), jnp.zeros((1, *image_shape))))
    params = variables.pop('params')
    like = jax.eval_shape(functools.partial(initial_steps, plan=plan), params, bits)
    steps = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    return TrainState(
      jnp.zeros((), jnp.int32),
      params,
      variables,
      optimizer.init(_trained(params, steps)),
      jnp.zeros(()),
      jnp.full((), -1, jnp.int32),
      steps,
    )

  return jax.vmap(init)(seeds, bits)


def _trained(params: Any, steps: Any) -> Any:
  """All that is trained as one tree: the parameters alone where no step is."""
  return {**params, _STEPS: steps} if steps else params


def make_train_step(
  model: nn.Module,
  recipe: Recipe,
  *,
  devices: Sequence[jax.Device] | None = None,
  one_by_one: bool | None = None,
) -> Callable[..., TrainState]:
  """The jitted step of all members; their bitwidths and learning rates are data.

  The same arguments give the same function, which compiles once for each number of members.

  Args:
    model: as in `init_state`.
    recipe: how it trains.
    devices: over which `Placement` has spread the members; None for the first of JAX's default
      backend, on which arrays [M, ...] need no placement.
    one_by_one: whether a device computes its members one after the other, each as if it were alone,
      to the last bit, or as one batch (convolutions as `kernels.conv.batching_rule` has them). None
      for True on a CPU, where it is faster too.

  Returns:
    `step(state, members, images, labels, batch_of) -> state`. The old state's memory is donated.
    images are uint8 [U, B, H, W, C] and labels int32 [U, B], U different batches; `batch_of`,
    int32 [M], says which of them each member sees.
  """
  devices = tuple(jax.devices()[:1] if devices is None else devices)
  if one_by_one is None:
    one_by_one = platforms.is_cpu(devices[0].platform)
  return _train_step_of(model, recipe, devices, one_by_one)


@functools.cache
def _train_step_of(model, recipe, devices, one_by_one):
  def one(own, batch):
    return train_step(*own, *batch, model=model, recipe=recipe)

  def unchanged(own, batch):
    return own[0]

  every = over_members(one, devices, one_by_one=one_by_one, otherwise=unchanged)

  def step(state, members, images, labels, batch_of):
    return every((state, members), (images, labels), batch_of)

  on_cpu = platforms.is_cpu(devices[0].platform)
  return jax.jit(step, donate_argnums=0, compiler_options=compilation.ON_CPU if on_cpu else None)


def train_step(
  state: TrainState,
  member: Members,
  images: jax.Array,
  labels: jax.Array,
  *,
  model: nn.Module,
  recipe: Recipe,
) -> TrainState:
  """One step of one member.

  Quantization steps that are learned (LSQ) take the same optimizer as weights, without decay; an
  update leaves at least half of a step, so that each stays positive.

  Args:
    state: of this member.
    member: this member, every field a scalar.
    images: uint8 [B, H, W, C].
    labels: int32 [B].
    model: the network.
    recipe: how it trains.

  Returns:
    The next state.
  """
  epoch, step_in_epoch = jnp.divmod(state.step, recipe.steps_per_epoch)
  key = data.augmentation_key(member.seed, epoch, step_in_epoch)
  images = data.augment(key, images, shift=recipe.shift, flip=recipe.flip)
  images = data.normalize(images, recipe.mean, recipe.std)
  plan = models.weight_plan(model, images.shape[1:], recipe.quantizer)

  def loss_fn(params, steps):
    quantized = quantize_params(params, member.bits, plan, steps=steps)
    variables = {'params': quantized, **state.statistics}
    logits, statistics = model.apply(variables, images, train=True, mutable=list(state.statistics))
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), recipe.label_smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean(), dict(statistics)

  loss_and_grads = jax.value_and_grad(loss_fn, (0, 1), has_aux=True)
  (loss, statistics), grads = loss_and_grads(state.params, state.quantizer_steps)
  old = _trained(state.params, state.quantizer_steps)
  updates, optimizer = make_optimizer(recipe, plan).update(_trained(*grads), state.optimizer, old)
  updates = jax.tree.map(lambda u: member.learning_rate * u, updates)
  params = optax.apply_updates(old, updates)
  steps = params.pop(_STEPS) if state.quantizer_steps else {}
  # A step stays positive: an update that would take more than half of it takes half.
  steps = jax.tree.map(lambda n, o: jnp.maximum(n, _LEAST_SHARE * o), steps, state.quantizer_steps)

  finite = jnp.isfinite(loss)
  running = (state.diverged_step < 0) & finite

  def keep(new, old):
    return jax.tree.map(lambda n, o: jnp.where(running, n, o), new, old)

  loss_sum = jnp.where(step_in_epoch == 0, 0.0, state.loss_sum) + loss
  return TrainState(
    step=state.step + 1,
    params=keep(params, state.params),
    statistics=keep(statistics, state.statistics),
    optimizer=keep(optimizer, state.optimizer),
    loss_sum=loss_sum,
    diverged_step=jnp.where((state.diverged_step < 0) & ~finite, state.step, state.diverged_step),
    quantizer_steps=keep(steps, dict(state.quantizer_steps)),
  )
