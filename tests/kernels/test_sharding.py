"""The ops and networks under `jax.shard_map`, as other projects train them on several devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cnnopt_jax import models, quant
from cnnopt_jax.kernels import conv, pallas
from tests.kernels.interpolation import OPS, operands

NHWC = ('NHWC', 'HWIO', 'NHWC')
AUTO = (jax.sharding.AxisType.Auto,)


def two_devices():
  """Of the CPU, wherever the tests run."""
  return jax.make_mesh((2,), ('batch',), axis_types=AUTO, devices=jax.devices('cpu')[:2])


def over_devices(function, whole=0):
  """`function` with the batch split over two devices, but for its first `whole` arguments."""
  return jax.jit(
    lambda *args: jax.shard_map(
      function,
      mesh=two_devices(),
      out_specs=P('batch'),
      in_specs=(P(),) * whole + (P('batch'),) * (len(args) - whole),
    )(*args)
  )


@pytest.mark.parametrize('name', OPS)
def test_interpolation_and_its_derivatives(name):
  def run(*arrays):
    out, pull = jax.vjp(functools.partial(OPS[name][0], size=(5, 6)), *arrays)
    return (
      out,
      *pull(jnp.cos(out)),
      jax.jvp(functools.partial(OPS[name][0], size=(5, 6)), arrays, arrays)[1],
    )

  arrays = list(map(jnp.asarray, operands(name, 4, (5, 6), 3)))
  for ours, theirs in zip(over_devices(run)(*arrays), jax.jit(run)(*arrays), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('kernel', [(3, 3, 2, 3), (3, 3, 1, 2), (1, 1, 2, 3)])
def test_a_shared_kernel_s_gradient_is_summed_over_devices(kernel):
  """As lax's own convolution has it, whose rule adds the sum."""
  x = jax.random.normal(jax.random.key(0), (4, 6, 5, 2))
  groups = 2 // kernel[2]
  kernel = jax.random.normal(jax.random.key(1), kernel)

  def gradients(op, sums):
    def loss(kernel, x):
      y = op(x, kernel, (1, 1), 'SAME', dimension_numbers=NHWC, feature_group_count=groups)
      return sums(jnp.sum(jnp.sin(y)))

    return jax.grad(loss, (0, 1))

  expected = gradients(lax.conv_general_dilated, lambda x: x)(kernel, x)
  mesh = two_devices()
  for op in (lax.conv_general_dilated, conv.conv_general_dilated):
    split = jax.shard_map(
      gradients(op, lambda x: lax.psum(x, 'batch')),
      mesh=mesh,
      in_specs=(P(), P('batch')),
      out_specs=(P(), P('batch')),
    )
    for ours, theirs in zip(jax.jit(split)(kernel, x), expected, strict=True):
      np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_quantized_network_with_virtual_maps_trains_on_two_devices():
  images = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
  model = models.create(
    'vgg8', num_classes=10, width_multiplier=0.25, plan=('conv1_1', 'conv2_1', 'conv2_2')
  )
  variables = jax.jit(model.init)(jax.random.key(1), images)
  plan = models.weight_plan(model, (16, 16, 3), quant.GAUSSIAN)

  def loss(params, images):
    params = quant.quantize_params(params, 3, plan)
    return jnp.mean(model.apply({**variables, 'params': params}, images) ** 2)

  def step(params, images):
    return jax.grad(lambda params: lax.pmean(loss(params, images), 'batch'))(params)

  mesh = two_devices()
  split = jax.shard_map(step, mesh=mesh, in_specs=(P(), P('batch')), out_specs=P())
  one = jax.jit(jax.grad(loss))
  sharded = jax.device_put(images, NamedSharding(mesh, P('batch')))  # The compiler splits it.
  expected = one(variables['params'], images)
  for got in (jax.jit(split)(variables['params'], images), one(variables['params'], sharded)):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, expected)


def test_prepared_parameters_on_two_devices():
  images = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
  model = models.create('vgg8', num_classes=10, plan=('conv1_1', 'conv1_2'))
  variables = jax.jit(model.init)(jax.random.key(1), images)
  params = models.inference_params(model, variables['params'], (32, 32, 3))
  apply = lambda params, x: model.apply({**variables, 'params': params}, x)
  np.testing.assert_allclose(
    over_devices(apply, whole=1)(params, images),
    jax.jit(apply)(params, images),
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize('name', OPS)
def test_the_kernels_lower_for_two_h200(name):
  mesh = jax.sharding.AbstractMesh(
    (2,),
    ('batch',),
    axis_types=AUTO,
    abstract_device=jax.sharding.AbstractDevice('NVIDIA H200', 132, 'cuda'),
  )
  size, channels = (56, 56), 64
  shapes = {'s': (28, 28), 'm': size}
  types = [jax.ShapeDtypeStruct((8, *shapes[kind], channels), jnp.float32) for kind in OPS[name][2]]

  def run(implementation, *arrays):
    op = functools.partial(OPS[name][0], size=size, implementation=implementation)
    out, pull = jax.vjp(op, *arrays)
    return out, *pull(out)

  for implementation in ('mosaic', None):
    with jax.sharding.use_abstract_mesh(mesh):
      split = jax.jit(
        jax.shard_map(
          functools.partial(run, implementation),
          mesh=mesh,
          in_specs=P('batch'),
          out_specs=P('batch'),
        )
      )
      text = split.trace(*types).lower(lowering_platforms=('cuda',)).as_text()
    assert text.count('mosaic_gpu_v2') == 2


def test_the_mesh_of_this_machine_is_no_other_device():
  seen = []
  mesh = jax.make_mesh((1,), ('batch',), axis_types=AUTO, devices=jax.devices()[:1])
  look = lambda x: seen.append((pallas.abstract(), pallas.target()[1])) or x
  jax.jit(jax.shard_map(look, mesh=mesh, in_specs=P('batch'), out_specs=P('batch')))(jnp.ones(2))
  assert seen == [(False, jax.devices()[0].device_kind)]
