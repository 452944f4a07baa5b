"""Runs of several real processes, joined over the loopback device."""

import functools
import json
import random
import re
import signal
import time
from pathlib import Path

import joined_processes as joined
import pytest

from experiments.setup.host_flags import LOST


def check(ended, codes):
  texts = "\n".join(done.stdout + done.stderr for done in ended)
  assert [done.returncode for done in ended] == codes, texts
  assert "Traceback" not in texts, texts


def test_two_processes_compute_what_one_does(commands, tmp_path):
  """Bit for bit: two devices add gradients in one order, wherever they are."""
  together = joined.start(commands, tmp_path / "two", processes=2, devices=2)
  ended = together.wait()
  check(ended, [0, 0])
  alone = joined.alone(commands, tmp_path / "one", 2)
  check([alone], [0])
  assert joined.measured(tmp_path / "two") == joined.measured(tmp_path / "one")
  # The leader alone prints and records.
  assert ended[0].stdout.endswith("report.html\n")
  assert ended[1].stdout == ""
  made = json.loads(
    (joined.run_folder(tmp_path / "two") / "made_with.json").read_text()
  )
  assert made["processes"] == 2


LONG = ("--config.train.steps=1200", "--config.train.checkpoint_every=100")
# Four addends may be added in another order by Gloo than in one process.
LAST_BITS = 2e-5


def stop(commands, folder, processes, step, which):
  """Starts a run or continues it, and stops it by a signal to one process."""
  together = joined.start(commands, folder, processes, devices=4, words=LONG)
  joined.wait_for_step(folder, step)
  together.signal(which, signal.SIGTERM)
  ended = together.wait()
  check(ended, [143] * processes)
  said = "the same command on every host (I: its number) continues"
  assert said in ended[0].stdout
  assert f"--processes={processes} --process=I" in ended[0].stdout
  status = json.loads((joined.run_folder(folder) / "status.json").read_text())
  saved = joined.last_step(folder)
  assert status["state"] == "interrupted" and saved >= step
  return saved


@pytest.mark.slow  # 100 s: 4 processes, then 2, then 1
def test_a_checkpoint_of_four_processes_is_continued_by_two_and_by_one(
  commands, tmp_path
):
  first = stop(commands, tmp_path / "many", 4, step=20, which=2)
  second = stop(commands, tmp_path / "many", 2, step=first + 20, which=0)
  assert second > first
  check([joined.alone(commands, tmp_path / "many", 4, *LONG)], [0])
  check([joined.alone(commands, tmp_path / "one", 4, *LONG)], [0])
  many, one = joined.measured(tmp_path / "many"), joined.measured(tmp_path / "one")
  for ours, theirs in zip(many[1], one[1], strict=True):
    assert (ours["step"], ours["seed"]) == (theirs["step"], theirs["seed"])
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=LAST_BITS)
  assert many[0] == one[0]


@pytest.mark.slow  # 165 s: 10 deaths
def test_a_host_that_dies_ends_the_other_and_nothing_is_lost(commands, tmp_path):
  moments, folder = random.Random(0), tmp_path / "killed"
  sentence = "died, so all processes end; the same command on every host continues"
  for death in range(10):
    together = joined.start(commands, folder, 2, devices=2, words=LONG)
    if death:  # the first at any moment of the start
      joined.wait_for_step(folder, joined.last_step(folder) + 2)
    time.sleep(moments.uniform(0, 1.5))
    victim = moments.randrange(2)
    together.signal(victim, signal.SIGKILL)
    ended = together.wait()
    assert ended[victim].returncode in (-signal.SIGKILL, 0)
    other = ended[1 - victim]
    if ended[victim].returncode:
      assert other.returncode == LOST, other.stderr
      assert sentence in other.stderr and f"process {victim} on " in other.stderr
  check(joined.start(commands, folder, 2, devices=2, words=LONG).wait(), [0, 0])
  check([joined.alone(commands, tmp_path / "one", 2, *LONG)], [0])
  assert joined.measured(folder) == joined.measured(tmp_path / "one")


@pytest.mark.slow  # 15 s alone, which starts the server of commands
def test_hosts_that_differ_are_named_before_the_first_step(commands, tmp_path):
  together = joined.start(
    commands,
    tmp_path,
    processes=2,
    devices=2,
    more={1: ("--config.train.batch_size=16", "--config.task=reverse")},
    variables={1: {"NPROC": "8"}},
  )
  ended = together.wait()
  check(ended, [2, 2])
  for done in ended:
    assert done.stderr.count("error: ") == 1
    for line in (
      "config.train.batch_size: 8 on process 0 on .*; 16 on process 1 on ",
      "config.task: 'copy' on process 0 on .*; 'reverse' on process 1 on ",
      "--cores: 16 on process 0 on .*; 8 on process 1 on ",
    ):
      assert re.search(line, done.stderr), done.stderr
  assert not [*tmp_path.glob("runs/*")]


ONE_HOST = f"--config={Path(__file__).parents[1] / 'user' / 'one_host.py'}"


@pytest.mark.slow  # 50 s
def test_a_full_disk_on_one_host_loses_a_checkpoint_of_all_and_nothing_else(
  commands, tmp_path
):
  start = functools.partial(
    joined.start, commands, tmp_path / "two", 2, devices=2, words=[ONE_HOST]
  )
  ended = start(variables={1: {"DISK": "full"}}).wait()
  check(ended, [1, 1])
  lost = [line for line in ended[0].stderr.splitlines() if "could not be" in line]
  assert lost and all("File too large" in x and "process 1 on" in x for x in lost)
  assert "step 32 could not be saved" in ended[0].stdout
  assert not joined.last_step(tmp_path / "two")
  check(start().wait(), [0, 0])  # there is space again
  check([joined.alone(commands, tmp_path / "one", 2, ONE_HOST)], [0])
  assert joined.measured(tmp_path / "two") == joined.measured(tmp_path / "one")


@pytest.mark.slow  # 40 s
def test_a_run_that_fails_on_one_host_fails_on_all_and_the_next_one_begins(
  commands, tmp_path
):
  together = joined.start(
    commands,
    tmp_path,
    processes=2,
    devices=2,
    tool="sweep",
    words=[ONE_HOST],
    variables={1: {"TROUBLE": "none"}},
  )
  check(together.wait(), [1, 1])
  found = [json.loads(file.read_text()) for file in tmp_path.glob("runs/*/status.json")]
  assert sorted(status["state"] for status in found) == ["failed", "finished"]
  (error,) = [status["error"] for status in found if status["error"]]
  assert re.match("HostError: process 1 on .*: OSError: no such device", error)
