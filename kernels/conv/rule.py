"""Which batching rule and which forms a convolution gets: stated in advance, or by a context.

    rule         where kernels are mapped                      where
    'unroll'     the members one after the other               default on a CPU
    'group'      one grouped convolution, as lax has it        default elsewhere
    'measured'   the faster of both, timed for each shape      on request
    'lax'        lax's own primitive and its rule              on request

XLA's CPU backend has no fast grouped convolution: unrolled, the members take a training step
several times as fast there (`conv_rule_vs_plain_vmap` of experiments/sweep_bench), and each is
computed to the last bit as without `jax.vmap`. Elsewhere nothing has been measured, so the default
is what JAX does without this library. Derivatives taken after a convolution was grouped, and all
of 'lax', are lax's own, whose padding may be negative, where XLA's CPU backend errs (`padding.py`).
"""

import contextlib
import contextvars
from collections.abc import Iterator

from cnnopt_jax.kernels import platforms

BATCHING_RULES = ('unroll', 'group', 'measured', 'lax')
_FORMS = ('chosen', 'xla')

_asked_for: contextvars.ContextVar[str | None] = contextvars.ContextVar(
  'batching_rule', default=None
)


def default_batching_rule(platform: str | None = None) -> str:
  """The rule of a platform where none is asked for; nothing is timed.

  Args:
    platform: as in `platforms.is_cpu`.

  Returns:
    'unroll' on a CPU, 'group' elsewhere.
  """
  return 'unroll' if platforms.is_cpu(platform) else 'group'


@contextlib.contextmanager
def batching_rule(form: str | None = None, *, platform: str | None = None) -> Iterator[None]:
  """Convolutions traced here get this batching rule.

      with conv.batching_rule('group'):
        program = jax.jit(jax.vmap(step)).lower(state, images).compile()

  The rule is fixed when `conv_general_dilated` is called and stays with that convolution: in its
  jaxpr, its derivatives, and under every later `jax.vmap`. It acts while a program is traced and is
  no part of what `jax.jit` keys its programs on, so a function that was already compiled for these
  shapes keeps the rule it was traced with: make a new `jax.jit`, or lower explicitly as above.

  Args:
    form: one of `BATCHING_RULES`; None for the default of `platform`.
    platform: as in `platforms.is_cpu`; has no effect on a rule that is named.

  Raises:
    ValueError: if the rule or the platform is unknown.
  """
  if form is not None and form not in BATCHING_RULES:
    raise ValueError(f'{form=}; allowed: None, {", ".join(BATCHING_RULES)}')
  default = default_batching_rule(platform)
  token = _asked_for.set(form or default)
  try:
    yield
  finally:
    _asked_for.reset(token)


def current_rule() -> str:
  """The rule that a convolution called here gets."""
  return _asked_for.get() or default_batching_rule()


_forms: contextvars.ContextVar[str] = contextvars.ContextVar('forms', default='chosen')


@contextlib.contextmanager
def forms(which: str) -> Iterator[None]:
  """Convolutions traced here are computed by these forms, as `batching_rule` fixes the rule.

  Args:
    which: 'chosen', on a CPU the form that `face_form` names; 'xla', lax's convolution everywhere.

  Raises:
    ValueError: if it is neither.
  """
  if which not in _FORMS:
    raise ValueError(f'{which=}; allowed: {", ".join(_FORMS)}')
  token = _forms.set(which)
  try:
    yield
  finally:
    _forms.reset(token)


def current_forms() -> str:
  """The forms that a convolution called here gets."""
  return _forms.get()
