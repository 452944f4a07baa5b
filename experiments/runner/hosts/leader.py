"""Process 0 of a group: it collects what is exchanged and watches the others."""

import threading
import time
from typing import Any

from experiments.runner.hosts.channel import END, GRACE, Channel, Line, lost
from experiments.setup.host_flags import LOST


class Leader(Channel):
  """Process 0: collects the parts of each exchange and watches the others.

  lines   connections of the others, by number
  names   each process in words

  Further arguments are those of Channel.

  >>> alone = Leader({}, ["process 0 on a"], heartbeat=100.0, hang_timeout=3600.0)
  >>> alone.exchange("a number", 7)
  [7]
  >>> alone.close()
  """

  def __init__(self, lines: dict[int, Line], names: list[str], **settings: Any):
    super().__init__(**settings)
    self._lines, self.names = lines, names
    self._last = dict.fromkeys(lines, time.monotonic())  # message of each process
    self._parts: dict[int, dict[int, dict[str, Any]]] = {}  # by exchange and process
    self._arrived: dict[str, set[int]] = {}  # by place
    self._moved = time.monotonic()  # the last exchange
    self._failed: tuple[float, str, int] | None = None  # until, sentence, exit code
    self._left: set[int] = set()
    for line in lines.values():
      line.send({"names": names})
    for number, line in lines.items():
      threading.Thread(target=self._listen, args=(number, line), daemon=True).start()
    self._every_beat(self._watch)

  def leave(self, sentence: str, code: int) -> None:
    super().close()
    until = time.monotonic() + GRACE
    while time.monotonic() < until and len(self._left) < len(self._lines):
      time.sleep(0.05)
    self._tell_end(sentence, code)
    self.close()

  def close(self) -> None:
    super().close()
    for line in self._lines.values():
      line.close()

  def _post(self, message: dict[str, Any]) -> None:
    self._take(self.index, message)

  def _take(self, number: int, message: dict[str, Any]) -> None:
    if "n" in message:
      self._collect(number, message)
    elif "at" in message:
      self._arrive(number, message["at"])

  def _arrive(self, number: int, place: str) -> None:
    with self._changed:
      arrived = self._arrived.setdefault(place, set())
      arrived.add(number)
      if len(arrived) < len(self.names):
        return
    for line in self._lines.values():
      line.send({"at": place})
    self._pass(place)

  def _listen(self, number: int, line: Line) -> None:
    while (message := line.receive()) is not None:
      self._last[number] = time.monotonic()
      if "end" in message:
        self._left.add(number)
        self._note_failure(message["end"], message["code"])
      self._take(number, message)
    line.drop()
    if number not in self._left and not self._closed:
      self._end(lost(self.names[number], "died"), LOST)

  def _collect(self, number: int, message: dict[str, Any]) -> None:
    with self._changed:
      parts = self._parts.setdefault(message["n"], {})
      parts[number] = message
      if message["error"] and not self._failed:
        until = time.monotonic() + self.heartbeat
        self._failed = until, message["error"], message["code"]
      if len(parts) < len(self.names):
        return
      del self._parts[message["n"]]
      self._moved, self._failed = time.monotonic(), None
    answer = self._answer_to(message["n"], [parts[i] for i in range(len(self.names))])
    self._closed = self._closed or answer["last"]
    for line in self._lines.values():
      line.send(answer)
    self._answer(answer)

  def _answer_to(self, n: int, parts: list[dict[str, Any]]) -> dict[str, Any]:
    errors = list(dict.fromkeys(part["error"] for part in parts if part["error"]))
    labels = [part["label"] for part in parts]
    if not errors and len({*labels}) > 1:
      places = ", ".join(f"{n}: {x}" for n, x in zip(self.names, labels, strict=True))
      errors = [f"the processes are at different places of the program ({places})"]
    code = max(part["code"] for part in parts) or (1 if errors else 0)
    values = [part["value"] for part in parts]
    answer = {"n": n, "values": values, "error": "; ".join(errors), "code": code}
    return answer | {"last": labels[0] == END and not errors}

  def _note_failure(self, sentence: str, code: int) -> None:
    with self._changed:
      self._failed = self._failed or (time.monotonic() + GRACE, sentence, code)

  def _watch(self) -> None:
    now = time.monotonic()
    for number, line in self._lines.items():
      line.send({})
      if now - self._last[number] > self.heartbeat and number not in self._left:
        why = f"was silent for {self.heartbeat:g} seconds (--heartbeat)"
        self._end(lost(self.names[number], why), LOST)
    if self._failed and now > self._failed[0]:
      self._end(*self._failed[1:])
    if now - self._moved > self.hang_timeout:
      self._end(*self._hanging())

  def _hanging(self) -> tuple[str, int]:
    """Returns the sentence on the processes that the others wait for."""
    arrived = {number for parts in self._parts.values() for number in parts}
    late = [name for i, name in enumerate(self.names) if i not in arrived]
    late = late if arrived else ["no process"]
    verb = "did not go on" if arrived else "went on"
    why = f"{verb} for {self.hang_timeout:g} seconds (--hang_timeout)"
    return lost(" and ".join(late), why), LOST

  def _tell_end(self, sentence: str, code: int) -> None:
    for line in self._lines.values():
      line.send({"end": sentence, "code": code})

  def _end(self, sentence: str, code: int) -> None:
    with self._changed:
      if self._closed:
        return
      self._closed = True
    self._tell_end(sentence, code)
    time.sleep(0.2)  # the others first: JAX aborts them when this process is gone
    self._quit(sentence, code)
