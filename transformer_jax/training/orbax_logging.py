"""Filter of Orbax's log output; `Keeper` reports each failure once.

Nothing is hidden: every failure also raises in `Keeper`, which checks the disk itself.
`--verbosity=1` restores Orbax's log.
"""

import asyncio
import logging
import os

from absl import logging as absl_logging


class PatientLoop(asyncio.SelectorEventLoop):
  """Event loop that waits for every read and write before it closes.

  Orbax closes its loop as soon as one of them fails. Each of the others would then
  print a traceback about the closed loop, at any time.

  >>> loop = PatientLoop()
  >>> loop.run_until_complete(asyncio.sleep(0, "read"))
  'read'
  >>> loop.close()
  """

  def close(self) -> None:
    if not self.is_closed():
      left = asyncio.all_tasks(self)
      if left:
        self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
      self.run_until_complete(asyncio.sleep(0))
    super().close()


def quieten_orbax() -> None:
  """Drops Orbax's log lines and makes its event loops patient, for good."""
  logger = logging.getLogger("absl")
  if _is_wanted not in logger.filters:
    logger.addFilter(_is_wanted)
  # Orbax takes no loop of ours. asyncio.run() does not go through this name.
  asyncio.new_event_loop = PatientLoop


def _is_wanted(record: logging.LogRecord) -> bool:
  from_orbax = f"{os.sep}orbax{os.sep}" in record.pathname
  return not from_orbax or absl_logging.get_verbosity() >= absl_logging.DEBUG
