"""Goodput: where the wall time of all attempts at a run went."""

import json

import pytest

from experiments.runner import attempt_watch, claims, goodput, timing
from experiments.runner.attempt_watch import AttemptWatch


def attempt(wall, *trained, **seconds):
  names = ("block", "from", "to", "seconds")
  parts = [dict(zip(names, part, strict=True)) for part in trained]
  began = {"began": 1e9, "host": "h", "pid": 1}
  return {**began, "wall": wall, "seconds": seconds, "trained": parts}


def repeated(attempts):
  """Returns (kept, lost) step by step: the slow, obvious definition."""
  kept, lost = {}, 0.0
  for each in attempts:
    for part in each["trained"]:
      steps = range(part["from"], part["to"])
      for at in [at for at in kept if at[0] == part["block"] and at[1] >= part["from"]]:
        lost += kept.pop(at)
      kept |= {(part["block"], n): part["seconds"] / len(steps) for n in steps}
  return sum(kept.values()), lost


@pytest.mark.parametrize(
  "attempts",
  [
    [attempt(10, (".", 0, 100, 5.0))],
    # Killed at 70, resumed at 40: 30 steps are trained twice.
    [attempt(10, (".", 0, 70, 7.0)), attempt(10, (".", 40, 100, 3.0))],
    # A damaged checkpoint: the third resumes before both.
    [
      attempt(9, (".", 0, 70, 7.0)),
      attempt(9, (".", 60, 90, 3.0)),
      attempt(9, (".", 20, 100, 16.0)),
    ],
    # Nothing was saved, twice.
    [attempt(9, (".", 0, 30, 3.0)), attempt(9), attempt(9, (".", 0, 100, 9.0))],
    # Seeds that were added later lose none of the first ones' steps.
    [attempt(9, (".", 0, 100, 5.0)), attempt(9, ("more_seeds/1_3", 0, 100, 4.0))],
    # A later save than the record knows of.
    [attempt(9, (".", 0, 30, 3.0)), attempt(9, (".", 50, 100, 5.0))],
  ],
)
def test_steps_that_were_trained_again_are_lost(attempts):
  seconds = goodput.summary(json.loads(json.dumps(attempts)))["seconds"]
  assert (seconds["steps"], seconds["lost"]) == pytest.approx(repeated(attempts))


def test_the_parts_are_the_whole_and_restarts_are_apart():
  first = attempt(
    20, (".", 0, 70, 7.0), prepare=1, compile=5, restore=0.5, checkpoint=2
  )
  rest = {"compile": 3, "restore": 2, "evaluate": 4, "prepare": 1}
  second = attempt(15, (".", 40, 100, 3.0), **rest)
  found = goodput.summary([first, second])
  want = {"steps": 7.0, "lost": 3.0, "restart": 6.0, "prepare": 1.5, "compile": 5.0}
  want |= {"checkpoint": 2.0, "data": 0.0, "evaluate": 4.0, "other": 6.5}
  assert found["seconds"] == want and sum(want.values()) == found["wall_s"] == 35
  assert found["share"] == pytest.approx(7 / 35) and found["attempts"] == 2


class Ticks:
  """Clocks of timing.py and attempt_watch.py, which stand still until they are set."""

  now = 100.0

  def perf_counter(self):
    return self.now

  time = monotonic = perf_counter


@pytest.fixture
def ticks(monkeypatch):
  clock = Ticks()
  monkeypatch.setattr(timing, "time", clock)
  monkeypatch.setattr(attempt_watch, "time", clock)
  made = [], timing.Clock()
  monkeypatch.setattr(timing, "_compiled", lambda: made)
  return clock


def test_a_killed_attempt_has_left_its_time(tmp_path, ticks):
  watch = AttemptWatch(tmp_path)
  with watch.phase("prepare"):
    ticks.now += 4
  with watch.phase("train"):
    with watch.phase("restore"):
      ticks.now += 1
    watch.resumed(".", 0)
    for step in (10, 20, 30):
      ticks.now += 2
      watch.reached(step)
    with watch.phase("checkpoint"):
      ticks.now += 3
    ticks.now += 0.5
    watch.reached(31)  # the process is killed here
    again = AttemptWatch(tmp_path)
    (entry,) = goodput.recorded(tmp_path)
    assert entry["trained"] == [{"block": ".", "from": 0, "to": 31, "seconds": 6.5}]
    assert entry["wall"] == 14.5
    assert entry["seconds"] == {
      "compile": 0.0, "prepare": 4.0, "restore": 1.0, "checkpoint": 3.0
    }  # fmt: skip
    with again.phase("train"):
      again.resumed(".", 20)
      ticks.now += 4
      again.reached(40)
  found = goodput.summary(again.attempts())
  assert found["wall_s"] == 18.5 and found["attempts"] == 2
  assert found["seconds"]["lost"] == pytest.approx(6.5 * 11 / 31, abs=1e-3)


def test_the_record_is_written_once_a_second_not_once_a_dispatch(
  tmp_path, ticks, monkeypatch
):
  writes = []
  watch = AttemptWatch(tmp_path)
  monkeypatch.setattr(attempt_watch, "write_json", lambda *args: writes.append(args))
  with watch.phase("train"):
    watch.resumed(".", 0)
    for step in range(1, 101):
      ticks.now += 0.1
      watch.reached(step)
  assert len(writes) <= 11


def test_another_process_writes_no_record_and_a_full_disk_ends_no_training(
  tmp_path, ticks, monkeypatch
):
  AttemptWatch(tmp_path, writes=False).write()
  assert not [*tmp_path.iterdir()]

  def full(path, content):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(attempt_watch, "write_json", full)
  AttemptWatch(tmp_path).write()


@pytest.mark.parametrize(
  "content",
  [
    "[]",
    '{"attempts": 7}',
    '{"attempts": [{"began": 1}]}',
    '{"attempts": [{"began": 1, "wall": "x", "seconds": {}, "trained": []}]}',
    '{"attempts": [{"began": 1, "wall": 1, "seconds": {}, "trained": [{"from": 1}]}]}',
    "{",
  ],
)
def test_a_damaged_record_counts_as_none(tmp_path, content):
  assert goodput.recorded(tmp_path) == []
  (tmp_path / goodput.FILE).write_text(content)
  assert goodput.recorded(tmp_path) == []


def test_one_that_lost_its_run_leaves_the_record_to_the_new_owner(tmp_path):
  claim = claims.take(tmp_path, lease=60.0)
  watch = AttemptWatch(tmp_path)
  watch.write()
  (tmp_path / f"{claims.NAME}{claim.number + 1}").write_text("{}")
  claim._renewed -= 100  # suspended, while another process took it
  theirs = json.dumps({"attempts": []})
  (tmp_path / goodput.FILE).write_text(theirs)
  watch.write()
  assert (tmp_path / goodput.FILE).read_text() == theirs
  claims.release(claim)
