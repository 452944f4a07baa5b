"""Processes of a run as threads of this one: exchanges, errors, deaths and silence."""

import queue
import re
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from joined_processes import free_port

from experiments.runner.hosts import compare, join, meeting
from experiments.runner.hosts.channel import END, Line
from experiments.runner.hosts.follower import Follower
from experiments.runner.hosts.leader import Leader
from experiments.runner.hosts.stop import SharedStop
from experiments.setup import host_flags
from experiments.setup.host_flags import LOST, Hosts
from experiments.setup.validate import ConfigError
from transformer_jax import hosts
from transformer_jax.hosts import HostError
from transformer_jax.training.signals import Stop

WAIT = 30.0  # seconds; nothing here takes one
# A leader that closes first has died for its followers, which would end this process.
SETTINGS = {"heartbeat": WAIT, "hang_timeout": WAIT, "quit": lambda *end: None}


class Processes:
  """A leader and its followers, each with the queue of its ends."""

  def __init__(self, count, heartbeat=WAIT, hang_timeout=WAIT):
    self.names = [f"process {n} on host{n}" for n in range(count)]
    self.ends = [queue.Queue() for _ in range(count)]
    settings = {"heartbeat": heartbeat, "hang_timeout": hang_timeout}
    pairs = [socket.socketpair() for _ in range(1, count)]
    lines = {n: Line(ours) for n, (ours, _) in enumerate(pairs, 1)}
    self.theirs = {n: theirs for n, (_, theirs) in enumerate(pairs, 1)}
    self.all = [Leader(lines, self.names, quit=self._quit(0), **settings)]
    for n, theirs in self.theirs.items():
      line = Line(theirs)
      assert line.receive() == {"names": self.names}
      self.all.append(Follower(line, n, self.names, quit=self._quit(n), **settings))

  def _quit(self, n):
    return lambda *end: self.ends[n].put(end)

  def exchange(self, *values, labels=None):
    """Returns what each process gets for its value; an exception is a value too."""

    def one(process, label, value):
      error = value if isinstance(value, Exception) else None
      try:
        return process.exchange(label, None if error else value, error)
      except HostError as found:
        return found

    labels = labels or ["a number"] * len(values)
    with ThreadPoolExecutor(len(values)) as threads:
      return list(threads.map(one, self.all, labels, values))

  def end(self, n):
    """Returns the sentence and the exit code with which a process ended."""
    return self.ends[n].get(timeout=WAIT)

  def close(self):
    for process in self.all:
      process.close()
    for theirs in self.theirs.values():
      theirs.close()


@pytest.fixture
def processes():
  made = []

  def make(*settings, **named):
    made.append(Processes(*settings, **named))
    return made[0]

  yield make
  for each in made:
    each.close()


def test_all_get_the_values_of_all(processes):
  three = processes(3)
  for n in range(20):
    assert three.exchange(n, [n], {"n": n}) == [[n, [n], {"n": n}]] * 3


def test_an_error_of_one_is_raised_on_all_with_its_name_and_exit_code(processes):
  three = processes(3)
  for error, sentence, code in (
    (
      OSError(28, "No space left"),
      "process 1 on host1: OSError: [Errno 28] No space",
      1,
    ),
    (ConfigError("a=3: write 4"), "process 1 on host1: a=3: write 4", 2),
  ):
    for found in three.exchange(0, error, 0):
      assert str(found).startswith(sentence) and found.exit_code == code
  assert three.exchange(1, 2, 3) == [[1, 2, 3]] * 3  # they go on together


def test_processes_at_different_places_of_the_program_are_named(processes):
  two = processes(2)
  for found in two.exchange(1, 1, labels=["stop", "a checkpoint"]):
    assert "process 0 on host0: stop, process 1 on host1: a checkpoint" in str(found)


def test_a_process_that_dies_ends_all_others(processes):
  three = processes(3)
  three.theirs[2].shutdown(socket.SHUT_RDWR)
  for n in (0, 1):
    sentence, code = three.end(n)
    assert sentence.startswith("process 2 on host2 died, so all processes end;")
    assert code == LOST


def test_a_leader_that_dies_ends_all_others(processes):
  three = processes(3)
  three.all[0]._closed = True  # it cannot end by itself any more
  for theirs in three.theirs.values():
    theirs.shutdown(socket.SHUT_RD)
  for n in (1, 2):
    sentence, code = three.end(n)
    assert sentence.startswith("process 0 on host0 died") and code == LOST


def test_a_silent_process_ends_all(processes):
  two = processes(2, heartbeat=0.5)
  two.all[1]._every_beat, two.all[1]._closed = None, True  # it sends nothing more
  sentence, code = two.end(0)
  assert "process 1 on host1 was silent for 0.5 seconds (--heartbeat)" in sentence
  assert code == LOST


def test_a_process_that_hangs_is_named(processes):
  three = processes(3, hang_timeout=0.5)
  for process in (three.all[0], three.all[2]):
    thread = threading.Thread(target=process.exchange, args=("x", 0), daemon=True)
    thread.start()
  for n in range(3):
    sentence, code = three.end(n)
    assert "process 1 on host1 did not go on for 0.5 seconds" in sentence
    assert code == LOST


def test_an_error_ends_those_that_wait_elsewhere(processes):
  """As in a collective of JAX, which nobody can interrupt."""
  two = processes(2, heartbeat=0.5)
  error = OSError("no disk")
  args = ("the steps", None, error)
  threading.Thread(target=two.all[1].exchange, args=args, daemon=True).start()
  for n in range(2):
    assert two.end(n) == ("process 1 on host1: OSError: no disk", 1)


def test_after_the_last_exchange_nobody_is_missed(processes):
  two = processes(2)
  assert two.exchange(0, 0, labels=[END, END]) == [[0, 0]] * 2
  two.close()
  assert two.ends[0].empty() and two.ends[1].empty()


def in_turn(processes, call):
  """Returns what a call returns on each process, as one of the group."""

  def one(process):
    try:
      return call(process.index)
    except Exception as error:
      return error

  groups, local = {}, threading.local()

  class OfThread(list):
    def __getitem__(self, at):
      return groups[local.process]

  def start(process):
    local.process = process.index
    groups[process.index] = process
    return one(process)

  before, hosts._group = hosts._group, OfThread()
  try:
    with ThreadPoolExecutor(len(processes.all)) as threads:
      return list(threads.map(start, processes.all))
  finally:
    hosts._group = before


def test_an_error_is_exchanged_once_on_its_way_out(processes):
  """Whoever has it raises its own, the others HostError, and all stay in step."""

  def inner(index):
    if index == 1:
      raise ValueError("odd")
    return hosts.from_leader("a file", lambda: 1)

  def outer(index):
    with pytest.raises((ValueError, HostError)) as raised:
      hosts.together("all", lambda: hosts.together("part", lambda: inner(index)))
    return raised.type.__name__, hosts.from_leader("next", lambda: 7)

  names = ["HostError", "ValueError", "HostError"]
  assert in_turn(processes(3), outer) == [(name, 7) for name in names]


def test_the_leader_alone_calls(processes):
  called = []

  def work(index):
    return hosts.from_leader("a file", lambda: called.append(index) or "content")

  assert in_turn(processes(3), work) == ["content"] * 3
  assert called == [0]


def test_a_signal_to_one_stops_all_at_the_same_question(processes):
  stops = [SharedStop(Stop()), SharedStop(Stop(signal.SIGTERM))]

  def ask(index):
    return bool(stops[index]), bool(stops[index]), stops[index].exit_code

  assert in_turn(processes(2), ask) == [(True, True, 143)] * 2


def test_all_that_differs_is_named():
  names = ["p0 on a", "p1 on b", "p2 on c"]
  same = {"python": "3.11", "steps": "9"}
  facts = [
    same | {"jax": "0.10.2", "data of text": "1a", "devices": "4 x TPU v5e"},
    same | {"jax": "0.12.0", "data of text": "1a", "devices": "4 x TPU v5e"},
    same | {"jax": "0.10.2", "data of text": "2b", "devices": "1 x TPU v5e"},
  ]
  assert compare.differences(facts, names) == [
    "jax: 0.10.2 on p0 on a, p2 on c; 0.12.0 on p1 on b",
    "data of text: 1a on p0 on a, p1 on b; 2b on p2 on c",
    "devices: 4 x TPU v5e on p0 on a, p1 on b; 1 x TPU v5e on p2 on c",
  ]


def test_without_git_on_one_host_the_code_may_be_the_same():
  names = ["process 0 on a", "process 1 on b"]
  commits = [{compare.COMMIT: "1a2b"}, {compare.COMMIT: "unknown"}]
  same, other = ({compare.CODE: x} for x in ("77", "88"))
  assert not compare.differences([commits[0] | same, commits[1] | same], names)
  assert len(compare.differences([commits[0] | same, commits[1] | other], names)) == 2


def meet(*followers, processes, patience=WAIT):
  """Returns what the leader and the followers get; an exception is a value too."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1] - 1}"
  settings = {"heartbeat": WAIT, "hang_timeout": WAIT}
  settings["quit"] = lambda *end: None  # it would be that of the tests

  def one(index):
    try:
      if index < 0:
        return meeting.lead(address, processes, patience, settings)
      process, count = followers[index]
      return meeting.follow(address, count, process, patience, settings)
    except ConfigError as error:
      return str(error)

  with ThreadPoolExecutor(1 + len(followers)) as threads:
    return list(threads.map(one, range(-1, len(followers))))


def test_processes_meet_at_the_address_of_the_leader():
  leader, *others = meet((2, 3), (1, 3), processes=3)
  assert [other.index for other in others] == [2, 1]
  assert leader.names == others[0].names
  for each in (leader, *others):
    each.close()


def test_processes_that_cannot_meet_are_told_why():
  same = "number each differently"
  assert all(same in said for said in meet((1, 3), (1, 3), processes=3))
  other = "--processes=2 of process 0 on .* is --processes=3 of process 1 on "
  assert all(re.match(other, said) for said in meet((1, 3), processes=2))
  late = meet((1, 3), processes=3, patience=0.5)
  assert all("of 3 processes these did not start in 0.5 seconds: 2;" in x for x in late)
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConfigError, match="no process 0 at 127.0.0.1"):
      meeting.follow(address, 2, 1, 0.2, {})


def test_one_that_connects_and_is_silent_holds_nobody_up(monkeypatch):
  monkeypatch.setattr(meeting, "HELLO", 0.2)
  address = f"127.0.0.1:{free_port()}"
  with ThreadPoolExecutor(2) as threads:
    leader = threads.submit(meeting.lead, address, 2, WAIT, SETTINGS)
    with meeting._connection("127.0.0.1", meeting._port(address), 1, WAIT):
      follower = threads.submit(meeting.follow, address, 2, 1, WAIT, SETTINGS)
      joined = [each.result(WAIT) for each in (leader, follower)]
  assert [each.index for each in joined] == [0, 1]
  for each in joined:
    each.close()


def test_a_silent_connection_does_not_outlast_the_patience_of_the_leader():
  address = f"127.0.0.1:{free_port()}"
  with ThreadPoolExecutor(1) as threads:
    leader = threads.submit(meeting.lead, address, 2, 1.0, SETTINGS)
    with meeting._connection("127.0.0.1", meeting._port(address), 1, WAIT):
      with pytest.raises(ConfigError, match=r"did not start in 1 seconds: 1;"):
        leader.result(WAIT)


def test_a_leader_that_never_answers_is_given_up(monkeypatch):
  monkeypatch.setattr(meeting, "HELLO", 0.1)
  address = f"127.0.0.1:{free_port()}"
  with meeting._server(address):
    with pytest.raises(ConfigError, match=r"gave no answer in 0\.4 seconds"):
      meeting.follow(address, 2, 1, 0.2, SETTINGS)


SLURM = {
  "SLURM_JOB_ID": "4711",
  "SLURM_STEP_NODELIST": "node[003-004]",
  "SLURM_NTASKS": "2",
  "SLURM_PROCID": "1",
  "SLURM_LOCALID": "0",
}


def test_the_tasks_of_a_slurm_step_find_each_other(monkeypatch):
  assert not join.wanted(Hosts(), {"SLURM_JOB_ID": "4711"})  # a batch script
  assert not join.wanted(Hosts(), SLURM | {"SLURM_NTASKS": "1"})
  assert not join.wanted(Hosts(processes=1), SLURM)
  assert join.wanted(Hosts(), SLURM)
  for name, value in SLURM.items():
    monkeypatch.setenv(name, value)
  place = join.Place("node003:62055", processes=2, process=1, devices=[0])
  assert join.found(Hosts()) == place


def test_a_machine_with_tpu_chips_may_have_others(monkeypatch):
  monkeypatch.setattr(join, "TPU_CHIPS", (__file__,))
  for libtpu, platforms, wanted in (
    (True, "", True),
    (True, "tpu,cpu", True),
    (True, "cpu", False),
    (False, "", False),
  ):
    there = lambda name, libtpu=libtpu: libtpu or None
    monkeypatch.setattr(join.importlib.util, "find_spec", there)
    assert join.wanted(Hosts(), {"JAX_PLATFORMS": platforms}) == wanted


def test_a_group_of_one_is_no_group():
  place = Hosts("127.0.0.1:1", processes=1, process=0)
  assert join.together(lambda request: 7, SimpleNamespace(hosts=place)) == 7


def test_folders_that_are_not_shared_are_refused(processes, tmp_path, monkeypatch):
  monkeypatch.setattr(compare, "VISIBLE", 0.2)
  folders = [tmp_path / "a", tmp_path / "a", tmp_path / "b"]
  for folder in folders:
    folder.mkdir(exist_ok=True)
  three = processes(3)
  assert in_turn(three, lambda n: compare.check_folder(tmp_path / "a")) == [None] * 3
  for error in in_turn(three, lambda n: compare.check_folder(folders[n])):
    assert isinstance(error, ConfigError)
    assert "process 2 on host2 has another folder there than process 0" in str(error)
  assert not [*tmp_path.glob("*/.*")]


def test_what_one_process_alone_does_is_refused(processes):
  for error in in_turn(processes(2), lambda n: compare.in_one_process("--until=x")):
    assert str(error).startswith("--until=x works in one process: leave out")
  compare.in_one_process("--until=x")  # alone


def test_a_mesh_must_take_the_devices_of_all(processes, monkeypatch):
  mesh = {"data": 2, "tensor": 1, "sequence": 1, "fsdp": 1, "seed": 1}
  run = SimpleNamespace(config=SimpleNamespace(mesh=mesh))
  for problems in in_turn(processes(2), lambda n: compare.idle_processes([run])):
    assert problems == [
      "mesh.data=2: takes 2 of the 8 devices of 2 processes, which must all take part;"
      " write mesh.data=-1 for all that are left"
    ]
  assert not compare.idle_processes([run])  # alone


@pytest.mark.parametrize(
  ("place", "word"),
  [
    (Hosts("a", 2, 1), "--coordinator=a: write the address"),
    (Hosts("a:80", 2, 2), "--process=2: there are --processes=2"),
  ],
)
def test_places_that_cannot_be_are_refused(place, word):
  with pytest.raises(ConfigError, match=word):
    host_flags.check(place)
