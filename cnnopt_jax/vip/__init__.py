"""ViP, virtual pooling (Chen et al., WACV 2020, arXiv 1906.07912).

A convolution runs at twice its stride, and its map is restored by linear interpolation: a
`VirtualMap`. What reads such a map here reads through the interpolation, exactly, and the full map
is written only where nothing else will do.
"""

from cnnopt_jax.vip.certificates import LossCertificate, certify_loss, loss_bound
from cnnopt_jax.vip.convolution import FORMS, conv, conv_form, conv_forms
from cnnopt_jax.vip.elementwise import add, add_relu, concatenate, multiply, on_samples, relu
from cnnopt_jax.vip.folding import (
  FoldedKernel,
  WinogradKernel,
  fold,
  fold_kernel,
  winograd_kernel,
  winograd_transform,
)
from cnnopt_jax.vip.plans import (
  MASK_COLLECTION,
  MASK_NAME,
  PLANS,
  Plan,
  mask_variables,
  random_plans,
  resolve_plan,
  subplan,
)
from cnnopt_jax.vip.pooling import avg_pool, global_mean, max_pool
from cnnopt_jax.vip.sensitivity import (
  Difference,
  cumulative_plans,
  make_predictor,
  order_units,
  paired_difference,
  plan_masks,
)
from cnnopt_jax.vip.virtual_map import VirtualMap, materialize, written_maps
from cnnopt_jax.vip.virtualization import (
  Virtual,
  VirtualGraph,
  VirtualModule,
  WrittenMap,
  layer_names,
  virtualize,
)

__all__ = [
  'FORMS',
  'MASK_COLLECTION',
  'MASK_NAME',
  'PLANS',
  'Difference',
  'FoldedKernel',
  'LossCertificate',
  'Plan',
  'Virtual',
  'VirtualGraph',
  'VirtualMap',
  'VirtualModule',
  'WinogradKernel',
  'WrittenMap',
  'add',
  'add_relu',
  'avg_pool',
  'certify_loss',
  'concatenate',
  'conv',
  'conv_form',
  'conv_forms',
  'cumulative_plans',
  'fold',
  'fold_kernel',
  'global_mean',
  'layer_names',
  'loss_bound',
  'make_predictor',
  'mask_variables',
  'materialize',
  'max_pool',
  'multiply',
  'on_samples',
  'order_units',
  'paired_difference',
  'plan_masks',
  'random_plans',
  'relu',
  'resolve_plan',
  'subplan',
  'virtualize',
  'winograd_kernel',
  'winograd_transform',
  'written_maps',
]
