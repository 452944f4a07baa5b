"""Processes that train one run together, usually one on each host.

All of them execute the same program on their own devices. Process 0, the leader, alone
writes files and prints. What they decide, they decide together: `exchange` is the only
way in which one learns of another, and a process alone exchanges with itself. Several
are joined by experiments/runner/hosts/join.py.
"""

from collections.abc import Callable, Sequence
from typing import Any


class HostError(RuntimeError):
  """An error of another process, which ends the work of this one too.

  exit_code   that of the process with the error

  >>> error = HostError("process 1 on b: OSError: No space left on device")
  >>> error.exit_code
  1
  """

  def __init__(self, sentence: str, exit_code: int = 1):
    self.exit_code = exit_code
    super().__init__(sentence)


class ProcessGroup:
  """A process alone; several processes are a subclass.

  index   number of this process; 0 is the leader
  names   each process in words, as in "process 1 on b", by its number

  >>> ProcessGroup().exchange("stop", 15)
  [15]
  """

  index: int = 0
  names: Sequence[str] = ("this process",)

  def exchange(
    self, label: str, value: Any, error: Exception | None = None
  ) -> list[Any]:
    """Returns the values of all processes, by their numbers.

    label   says what is exchanged; all processes must be at the same exchange
    value   JSON
    error   of this process, which then has no value

    Raises HostError on every process where one has an error.
    """
    return [value]

  def meet(self, place: str, given_up: Callable[[], bool]) -> None:
    """Waits until all processes are at a place; may be called in any thread.

    place      each is met at once only
    given_up   true: this process waits no longer, which raises TimeoutError
    """


_group: list[ProcessGroup] = [ProcessGroup()]


def use(group: ProcessGroup) -> None:
  """Makes a group that of this process."""
  _group[:] = [group]


def group() -> ProcessGroup:
  """Returns the group of this process."""
  return _group[0]


def count() -> int:
  """Returns the number of processes."""
  return len(group().names)


def is_leader() -> bool:
  """Returns whether this process writes files and prints."""
  return group().index == 0


def together(label: str, call: Callable[[], Any]) -> Any:
  """Returns what a call returns that all processes make.

  An error of one process is raised on all of them, after the call: the own error here,
  HostError elsewhere. One that was exchanged before is only raised.

  >>> together("a sum", lambda: 1 + 1)
  2
  """
  if count() == 1:
    return call()
  try:
    value = call()
  except Exception as error:
    _tell(label, error)
    raise
  group().exchange(label, None)
  return value


def from_leader(label: str, call: Callable[[], Any]) -> Any:
  """Returns what the leader's call returns, on all processes; the others do not call.

  The value is JSON. An error is raised on all of them, as by `together`.

  >>> from_leader("the steps on disk", lambda: [10, 20])
  [10, 20]
  """
  if count() == 1:
    return call()
  value = None
  if is_leader():
    try:
      value = call()
    except Exception as error:
      _tell(label, error)
      raise
  return group().exchange(label, value)[0]


def known(error: Exception) -> Exception:
  """Returns an error of which all processes know, so that it is not exchanged again."""
  error.of_all_hosts = True  # type: ignore[attr-defined]
  return error


def _tell(label: str, error: Exception) -> None:
  """Exchanges an error of this process, unless all know it."""
  if isinstance(error, HostError) or getattr(error, "of_all_hosts", False):
    return
  try:
    group().exchange(label, None, known(error))
  except HostError:
    return  # the caller raises its own
