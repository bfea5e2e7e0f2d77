"""A network's layers as a table, traced from any JAX function."""

from cnnopt_jax.workload.dataflow import Dataflow, FusedKernel, Tensor
from cnnopt_jax.workload.launches import KernelLaunch, Schedule
from cnnopt_jax.workload.paths import path_string
from cnnopt_jax.workload.prepared import Prepared, refuse_prepared
from cnnopt_jax.workload.provenance import AmbiguousWeightError
from cnnopt_jax.workload.schedules import schedule
from cnnopt_jax.workload.table import Layer, LayerTable, Parameter
from cnnopt_jax.workload.trace import trace_layers
from cnnopt_jax.workload.virtual_maps import with_virtual_maps
from cnnopt_jax.workload.walk import UnboundedLoopError, UnknownPrimitiveError

__all__ = [
  'AmbiguousWeightError',
  'Dataflow',
  'FusedKernel',
  'KernelLaunch',
  'Layer',
  'LayerTable',
  'Parameter',
  'Prepared',
  'Schedule',
  'Tensor',
  'UnboundedLoopError',
  'UnknownPrimitiveError',
  'path_string',
  'refuse_prepared',
  'schedule',
  'trace_layers',
  'with_virtual_maps',
]
