"""PyTorch's processes: each trains its share of a job's networks when it is told to."""

import contextlib
import importlib.util
import multiprocessing
import os
import signal
from typing import NamedTuple

from cnnopt_jax import quant
from experiments.sweep_bench import jobs


def is_installed() -> bool:
  return importlib.util.find_spec('torch') is not None


class Form(NamedTuple):
  """How PyTorch runs.

  Attributes:
    compiled: through `torch.compile`, or eagerly.
    processes: among which the networks are shared.
    threads: of each process.
  """

  compiled: bool
  processes: int
  threads: int


def forms() -> dict[str, Form]:
  """Eager and compiled, in one process with all threads and in one a core with one thread."""
  cores = len(os.sched_getaffinity(0))
  return {
    f'torch_{"compile" if compiled else "eager"}_{name}': Form(compiled, processes, threads)
    for compiled in (False, True)
    for name, processes, threads in (('one_process', 1, cores), ('process_a_core', cores, 1))
  }


class Peer:
  """A job in PyTorch."""

  def __init__(self, job: jobs.Job, networks: list[jobs.Network], form: Form):
    context = multiprocessing.get_context('spawn')
    self._pipes, self._processes = [], []
    self._shares = jobs.shares([network.macs for network in networks], form.processes)
    for share in self._shares:
      ours, theirs = context.Pipe()
      arguments = [networks[i] for i in share], form, theirs
      process = context.Process(target=_work, args=arguments, daemon=True)
      process.start()
      self._pipes.append(ours)
      self._processes.append(process)

  def take(self, steps: int) -> list[list[float]]:
    """Takes steps of every network and waits for them; the losses of the last one.

    Raises:
      RuntimeError: if a process has ended.
    """
    try:
      for pipe in self._pipes:
        pipe.send(steps)
      return [pipe.recv() for pipe in self._pipes]
    except (EOFError, OSError):
      raise RuntimeError('a process of PyTorch has ended; its error stands above') from None

  def losses(self) -> dict[int, float]:
    """The loss of one more step, by number of the network."""
    return {
      index: loss
      for share, losses in zip(self._shares, self.take(1))
      for index, loss in zip(share, losses)
    }

  def close(self) -> None:
    for pipe, process in zip(self._pipes, self._processes):
      if process.is_alive():
        pipe.send(0)
      process.join()


def _grid(bits: int) -> tuple[int, float, float, bool]:
  """What `torch_networks.quantizer` takes."""
  if bits == quant.IDENTITY_BITS:
    return bits, 1.0, 1.0, False
  kind = 'mid_rise' if bits <= 2 else 'mid_tread'
  half_range = (2**bits - (kind == 'mid_tread') - 1) / 2
  return bits, quant.gaussian_quantizer(bits, kind).clip, half_range, bits <= 2


def _work(networks: list[jobs.Network], form: Form, pipe) -> None:
  """A process: takes as many steps as it is told to, until it is told none."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends who tells, and with it the pipe.
  import torch

  from experiments.sweep_bench.torch_networks import Trainer

  torch.set_num_threads(form.threads)
  trainers = [
    Trainer(
      network.variables,
      _grid(network.bits),
      jobs.RATE,
      jobs.STEPS,
      network.images,
      network.labels,
      jobs.MEAN,
      jobs.STD,
      form.compiled,
    )
    for network in networks
  ]
  with contextlib.suppress(EOFError):
    while steps := pipe.recv():
      losses = [[trainer.step() for _ in range(steps)][-1] for trainer in trainers]
      pipe.send([float(loss) for loss in losses])
