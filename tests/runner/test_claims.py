"""Claims of folders by processes of several machines, where `flock` does not hold.

A `Mount` is a process that takes itself to be on a machine of its own, and whose
`flock` does nothing: all that the two share is the folder.
"""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_runs import ONE, SCORES, perform

from experiments.runner import claims, locks, owner, run_folder
from transformer_jax.training.json_files import read_json

ROOT = Path(__file__).parents[2]
CODE = """
import contextlib, fcntl, sys
from experiments.runner import claims, locks, owner
fcntl.flock = lambda *_: None
owner.machine = lambda: sys.argv[1]
locks.use_lease(float(sys.argv[2]))
held = contextlib.ExitStack()
for line in sys.stdin:
  word, _, path = line.strip().partition(" ")
  folder = locks.Path(path)
  if word == "take":
    print(held.enter_context(locks.claim(folder)), flush=True)
  if word == "release":
    held.close()
    print("released", flush=True)
  if word == "check":
    try:
      locks.check(folder)
      print("mine", flush=True)
    except claims.LostError:
      print("lost", flush=True)
"""


class Mount:
  """A process on a machine of its own, as far as it can tell."""

  def __init__(self, machine, lease):
    self.process = subprocess.Popen(
      [sys.executable, "-c", CODE, machine, str(lease)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=os.environ | {"PYTHONPATH": str(ROOT)},
    )

  def ask(self, word, folder):
    self.process.stdin.write(f"{word} {folder}\n")
    self.process.stdin.flush()
    return self.process.stdout.readline().strip()

  def takes_within(self, folder, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
      if self.ask("take", folder) == "True":
        return True
      time.sleep(0.02)
    return False


@pytest.fixture
def mounts(request):
  started = []

  def mount(machine, lease=0.5):
    started.append(Mount(machine, lease))
    return started[-1]

  yield mount
  for each in started:
    each.process.send_signal(signal.SIGCONT)
    each.process.kill()
    each.process.communicate(timeout=30)


@pytest.fixture
def elsewhere(monkeypatch):
  """This process without `flock`, on a machine of its own; returns its clock."""
  now = [1e6]
  monkeypatch.setattr(fcntl, "flock", lambda *_: None)
  monkeypatch.setattr(owner, "machine", lambda: "here")
  monkeypatch.setattr(claims, "clock", lambda: now[0])
  monkeypatch.setattr(claims.Claim, "start", lambda claim: None)  # renewed by hand
  return now


def another(folder, lease=60.0, **owned):
  """Writes what another machine's claim is; returns its file."""
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / f"{claims.NAME}1"
  there = {"host": "there", "machine": "there", "pid": 7, "token": "theirs"}
  path.write_text(json.dumps({**there, "lease": lease, "renewed": 0, **owned}))
  return path


def numbers(folder):
  return sorted(int(path.suffix[1:]) for path in folder.glob(".claim.*"))


def test_of_two_mounts_one_has_the_folder_until_it_gives_it_back(mounts, tmp_path):
  here, there = mounts("here", 60), mounts("there", 60)
  assert here.ask("take", tmp_path) == "True"
  assert there.ask("take", tmp_path) == "False"
  assert here.ask("take", tmp_path) == "False"  # nor has it twice
  here.ask("release", tmp_path)
  assert there.ask("take", tmp_path) == "True" and here.ask("take", tmp_path) == "False"
  assert len(numbers(tmp_path)) == 1


def test_a_slow_owner_keeps_its_folder_and_a_dead_one_loses_it(mounts, tmp_path):
  here, there = mounts("here"), mounts("there")
  assert here.ask("take", tmp_path) == "True"
  # Three leases without a word of the main thread: the file changes all the same.
  assert not there.takes_within(tmp_path, 1.5)
  assert here.ask("check", tmp_path) == "mine"
  here.process.kill()
  assert there.takes_within(tmp_path, 30)


def test_a_suspended_owner_finds_that_it_has_lost_its_folder(mounts, tmp_path):
  here, there = mounts("here"), mounts("there")
  assert here.ask("take", tmp_path) == "True"
  here.process.send_signal(signal.SIGSTOP)
  assert there.takes_within(tmp_path, 30)
  here.process.send_signal(signal.SIGCONT)
  assert here.ask("check", tmp_path) == "lost"
  assert there.ask("check", tmp_path) == "mine"
  here.ask("release", tmp_path)  # harms nobody
  assert there.ask("check", tmp_path) == "mine"


def test_a_suspended_owner_goes_on_where_nobody_came(mounts, tmp_path):
  here = mounts("here")
  assert here.ask("take", tmp_path) == "True"
  here.process.send_signal(signal.SIGSTOP)
  time.sleep(0.6)
  here.process.send_signal(signal.SIGCONT)
  assert here.ask("check", tmp_path) == "mine"
  assert numbers(tmp_path) == [2]  # taken again, since it could not know


def test_of_many_at_once_one_gets_each_folder(mounts, tmp_path):
  all_of_them = [mounts(name, 60) for name in "abcd"]
  for each in all_of_them:  # their imports are done
    each.ask("check", tmp_path)
  folders = [tmp_path / str(n) for n in range(50)]
  for folder in folders[::2]:
    another(folder, released=True)
  words = "".join(f"take {folder}\n" for folder in folders)
  for each in all_of_them:
    each.process.stdin.write(words)
    each.process.stdin.flush()
  got = [
    [each.process.stdout.readline() == "True\n" for _ in folders]
    for each in all_of_them
  ]
  assert [sum(each) for each in zip(*got, strict=True)] == [1] * len(folders)
  assert all(map(any, got))  # each has some: they did race


def test_the_owner_dies_on_this_machine(tmp_path):
  child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
  mine = {"machine": owner.machine(), "pid": child.pid}
  another(tmp_path, **mine, started=owner.started(child.pid))
  assert owner.started(child.pid) and claims.take(tmp_path, 60.0) is None
  child.kill()
  while owner.started(child.pid):  # dead, and not yet waited for
    time.sleep(0.01)
  assert claims.take(tmp_path, 60.0).number == 2
  child.communicate(timeout=30)
  reused = tmp_path / "reused"
  another(reused, **mine | {"pid": os.getppid()}, started="1")
  assert claims.take(reused, 60.0)  # the id is another process's now


def test_nothing_but_a_change_of_the_file_counts(elsewhere, tmp_path):
  path = another(tmp_path, lease=10.0)
  os.utime(path, (0, 0))  # the clock of another machine may be anything
  assert claims.take(tmp_path, 60.0) is None
  elsewhere[0] = 1e6 + 9.0
  assert claims.take(tmp_path, 60.0) is None
  another(tmp_path, lease=10.0, renewed=1)
  elsewhere[0] = 1e6 + 18.0  # nine seconds, as this process has seen it
  assert claims.take(tmp_path, 60.0) is None
  elsewhere[0] = 1e6 + 27.9
  assert claims.take(tmp_path, 60.0) is None
  elsewhere[0] = 1e6 + 28.1
  assert claims.take(tmp_path, 60.0).number == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"lease": "x"}', "\0" * 512])
def test_a_claim_that_is_being_written_counts(elsewhere, tmp_path, content):
  another(tmp_path).write_text(content)
  assert claims.take(tmp_path, 60.0) is None
  elsewhere[0] += owner.LEASE + 1
  assert claims.take(tmp_path, 60.0) is not None


def test_one_who_read_the_folder_long_ago_gets_nothing(
  elsewhere, tmp_path, monkeypatch
):
  another(tmp_path).rename(tmp_path / ".claim.5")
  there, calls = claims._numbers, []

  def late(folder):
    calls.append(folder)
    return [] if len(calls) == 1 else there(folder)

  monkeypatch.setattr(claims, "_numbers", late)
  assert claims.take(tmp_path, 60.0) is None
  assert numbers(tmp_path) == [5]


def test_a_folder_that_is_read_only_has_its_lock_alone(tmp_path, monkeypatch):
  def refuse(*_, **__):
    raise OSError(30, "Read-only file system")

  (tmp_path / "lock").touch()
  monkeypatch.setattr(claims.Claim, "_create", refuse)
  with locks.claim(tmp_path) as mine, locks.claim(tmp_path) as twice:
    assert mine and not twice


def test_a_run_that_was_taken_over_is_left_to_the_other(elsewhere, tmp_path, capsys):
  """The process writes nothing more, whatever its training raises or returns."""
  folder = run_folder.folder(tmp_path, ONE)

  def suspended(end):
    def train(path):
      elsewhere[0] += 1000.0
      (number,) = numbers(path)
      another(path).rename(path / f"{claims.NAME}{number + 1}")
      files.update(state(path))
      return end(path)

    return train

  def state(path):
    return {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}

  def crash(path):
    raise RuntimeError("of its own")

  def interrupt(path):
    raise KeyboardInterrupt

  ends = [lambda path: SCORES, lambda path: None, crash, interrupt]
  ends.append(lambda path: run_folder.recorder(path)(5))
  for end in ends:
    files = {}
    for old in folder.glob(".claim.*"):
      old.unlink()
    try:
      assert perform(tmp_path, suspended(end)).state == "busy"
      assert "another process took the run over" in capsys.readouterr().err
    except KeyboardInterrupt:
      assert end is interrupt
    files.pop("error.txt", None)  # of fatal errors, empty while it trains
    assert state(folder) == files
    assert read_json(folder / "status.json")["state"] == "running"


def test_a_claim_that_the_disk_lets_nobody_renew_ends_with_its_lease(
  elsewhere, tmp_path, monkeypatch
):
  claim = claims.take(tmp_path, lease=60.0)

  def broken(*_):
    raise OSError(errno.EIO, "Input/output error")

  with monkeypatch.context() as patch:
    patch.setattr(os, "listdir", broken)
    elsewhere[0] += 50
    claims.check(tmp_path)  # no other process can have it yet
    elsewhere[0] += 20
    with pytest.raises(claims.LostError, match="another process may have taken"):
      claims.check(tmp_path)
  claims.check(tmp_path)  # nobody has
  claims.release(claim)
