"""A process besides the leader: it sends its part, and watches the leader."""

import threading
import time
from typing import Any

from experiments.runner.hosts.channel import Channel, Line, lost
from experiments.setup.host_flags import LOST


class Follower(Channel):
  """A process besides the leader.

  line    connection to the leader
  index   number of this process

  Further arguments are those of Channel.

  >>> import socket
  >>> ours, theirs = map(Line, socket.socketpair())
  >>> names, waits = ["process 0 on a", "process 1 on b"], {"hang_timeout": 3600.0}
  >>> follower = Follower(theirs, 1, names, heartbeat=100.0, **waits)
  >>> ours.send({"n": 1, "values": [5, 7], "error": "", "code": 0, "last": True})
  >>> follower.exchange("the end", 7)
  [5, 7]
  >>> follower.close(), ours.drop()
  (None, None)
  """

  def __init__(self, line: Line, index: int, names: list[str], **settings: Any):
    super().__init__(**settings)
    self._line, self.index, self.names = line, index, names
    self._last = time.monotonic()
    threading.Thread(target=self._listen, daemon=True).start()
    self._every_beat(self._watch)

  def leave(self, sentence: str, code: int) -> None:
    self._line.send({"end": sentence, "code": code})
    self.close()

  def close(self) -> None:
    super().close()
    self._line.close()

  def _post(self, message: dict[str, Any]) -> None:
    self._line.send(message)

  def _listen(self) -> None:
    while (message := self._line.receive()) is not None:
      self._last = time.monotonic()
      if "end" in message:
        self._end(message["end"], message["code"])
      elif "n" in message:
        self._answer(message)
      elif "at" in message:
        self._pass(message["at"])
    self._line.drop()
    self._end(lost(self.names[0], "died"), LOST)

  def _watch(self) -> None:
    self._line.send({})
    if time.monotonic() - self._last > self.heartbeat:
      why = f"was silent for {self.heartbeat:g} seconds (--heartbeat)"
      self._end(lost(self.names[0], why), LOST)

  def _end(self, sentence: str, code: int) -> None:
    with self._changed:
      if self._closed:
        return
      self._closed = True
    self._quit(sentence, code)
