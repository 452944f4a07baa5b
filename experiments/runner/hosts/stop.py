"""Stop flag of several processes: a signal to one of them stops all at one step."""

import signal

from transformer_jax import hosts
from transformer_jax.training.signals import Stop


class SharedStop(Stop):
  """Flag that is true on all processes once one of them has a signal.

  It is asked once per dispatch and between runs, by all processes: each time they
  exchange their signals. JAX has a notifier of its own, which takes SIGTERM alone and
  excludes our handler; this one also serves Ctrl-C, and gives the exit code.

  own   the flag of this process

  >>> stop = SharedStop(Stop())
  >>> bool(stop)
  False
  >>> stop.own.received = signal.SIGTERM
  >>> bool(stop), stop.exit_code
  (True, 143)
  """

  def __init__(self, own: Stop):
    super().__init__()
    self.own = own

  def __bool__(self) -> bool:
    if self.received is None:
      signals = hosts.group().exchange("stop", self.own.received or 0)
      self.received = signal.Signals(max(signals)) if any(signals) else None
    return self.received is not None
