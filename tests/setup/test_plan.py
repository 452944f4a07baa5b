"""Plans, run ids, folders and the loop over runs; nothing is trained here."""

import contextlib
import copy
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from experiments import inference, run, sweep
from experiments.configs import base, pod, quickstart, standard
from experiments.reporting import load
from experiments.runner import provenance, run_folder, sweep_loop, waiting
from experiments.runner.build import build
from experiments.runner.locks import claim
from experiments.runner.train import describe
from experiments.setup import config_file, flags, runs
from experiments.setup.identity import NEUTRAL, aged
from experiments.setup.plan import (
  Chain,
  Grid,
  Group,
  MinusOne,
  OneAtATime,
  Plan,
  Zipped,
)
from experiments.setup.validate import ConfigError, flatten, resolve, validate
from transformer_jax.training.json_files import read_json, write_json

GOLDEN = Path(__file__).parents[1] / "golden" / "quickstart.json"
BASE = base.get_config()
POSITIONS = Grid({"model.position": ("none", "rope")})
WHY = Plan("why?", POSITIONS, "none")


def expand(changes, overrides=None, baseline="none"):
  return runs.expand(Plan("why?", changes, baseline), BASE, overrides or {})


def lines(todo):
  return [f"{each.group}: {each.label}" for each in todo]


def golden():
  """Returns what `golden/quickstart.json` has to say."""
  todo = runs.expand(quickstart.sweep(), quickstart.get_config(), {})
  ids = {f"{each.group}: {each.label}": each.id for each in todo}
  return json.loads(
    json.dumps({"config": aged(flatten(quickstart.get_config())), "runs": ids})
  )


def test_quickstart_is_the_one_we_published():
  assert golden() == json.loads(GOLDEN.read_text()), (
    "a default or the plan of the quickstart changed, so finished runs of users are"
    " stale and published numbers are of another config. If that is what you want:"
    " python -m tests.test_plan"
  )


@pytest.mark.parametrize(
  "config", [quickstart, standard, pod], ids=lambda c: c.__name__
)
def test_every_run_of_every_plan_is_valid(config):
  todo = runs.expand(config.sweep(), config.get_config(), {})
  assert runs.baseline(config.sweep(), todo) == "none"
  for each in todo:
    validate(each.config, devices=8)


def test_plans_say_what_they_try():
  def labels(changes):
    return [each.label for each in changes]

  two = {"model.width": (64, 128), "model.heads": (4, 8)}
  assert labels(Grid(two)) == [
    f"width={w} heads={h}" for w in (64, 128) for h in (4, 8)
  ]
  assert labels(Zipped(two)) == ["width=64 heads=4", "width=128 heads=8"]
  assert labels(OneAtATime(two))[:3] == ["baseline", "width=64", "width=128"]
  norms = MinusOne({"model.norm": "layernorm", "model.tied": False})
  assert labels(norms) == ["baseline", "without norm", "without tied"]
  assert [len(each.overrides) for each in norms] == [2, 1, 1]
  assert labels(Chain(POSITIONS, Grid({"task": ("copy",)}))) == ["none", "rope", "copy"]


def test_a_config_runs_once():
  todo = expand(
    OneAtATime({"model.norm": ("rmsnorm", "layernorm")}), baseline="baseline"
  )
  assert lines(todo) == ["text: baseline", "text: norm=layernorm"]


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    (Grid({"model.position": "rope"}), "write a tuple"),
    (Zipped({"model.width": (64, 128), "model.heads": (4,)}), "different numbers"),
    (Grid({"model.positon": ("rope",)}), "Did you mean 'model.position'?"),
    (Grid({"model.width": ("64",)}), "write a whole number"),
    (Grid({"seeds": ((0, "1"),)}), "write a tuple"),
    (Grid({"model.width": (True,)}), "write a whole number"),
    (
      Chain(Group("a", POSITIONS), Group("a", POSITIONS, {"train.batch_size": 8})),
      "both called 'none'",
    ),
  ],
)
def test_a_wrong_plan_says_what_is_right(changes, says):
  with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
    expand(changes)


def test_a_baseline_must_be_in_the_plan():
  wrong = Plan("why?", POSITIONS, "non")
  with pytest.raises(ConfigError, match="Did you mean 'none'"):
    runs.baseline(wrong, runs.expand(wrong, BASE, {}))


def test_a_flag_that_removes_the_baseline_makes_the_first_run_it():
  todo = runs.expand(WHY, BASE, {"model.position": "alibi"})
  assert runs.baseline(WHY, todo) == "alibi"


TWO_TASKS = Chain(
  Group("text", POSITIONS),
  Group("copy", POSITIONS, {"task": "copy", "train.batch_size": 8}),
)


@pytest.mark.parametrize(
  ("overrides", "expected"),
  [
    ({"train.steps": 80}, ["text: none", "text: rope", "copy: none", "copy: rope"]),
    ({"model.position": "rope"}, ["text: rope", "copy: rope"]),
    ({"model.position": "my:Own()"}, ["text: my:Own()", "copy: my:Own()"]),
    ({"task": "copy"}, ["copy: none", "copy: rope"]),
    ({"task": 'text(source="a.txt")'}, ["text: none", "text: rope"]),
  ],
)
def test_flags_hold_for_every_run(overrides, expected):
  todo = expand(TWO_TASKS, overrides)
  assert lines(todo) == expected
  for each in todo:
    flat = flatten(each.config)
    assert all(flat[key] == value for key, value in overrides.items())
    assert flat["train.batch_size"] == (8 if each.group == "copy" else 32)
    assert each.id == runs.run_id(resolve(BASE, each.overrides))


SIZES = Chain(
  Group("narrow", POSITIONS, {"task": "copy"}),
  Group("wide", POSITIONS, {"task": "copy", "model.width": 128}),
  Group("text", Grid({"model.position": ("none", "alibi")})),
)


@pytest.mark.parametrize(
  ("overrides", "group"),
  [
    ({"task": "copy", "train.clip": 0.5}, "narrow"),
    ({"task": "copy", "train.clip": 0.5, "model.width": 128}, "wide"),
    ({"train.clip": 0.5}, "text"),
    ({"task": "parity"}, "parity"),
    ({"task": "text(source='a.txt')"}, "text(source='a.txt')"),
  ],
)
def test_a_run_with_other_flags_joins_the_group_most_like_it(overrides, group):
  path = config_file.CONFIGS / "quickstart.py"
  which = Plan("why?", SIZES, "none"), Path("unused"), True, False
  request = flags.Request(path, BASE, overrides | {"train.steps": 80}, *which)
  assert run.chosen(request).group == group


def test_a_flag_for_the_task_moves_runs_to_the_group_most_like_them():
  assert {*lines(expand(SIZES, {"task": "copy"}))} == {
    "narrow: none", "narrow: rope", "narrow: alibi", "wide: none", "wide: rope",
  }  # fmt: skip


def test_an_id_depends_on_what_changes_a_result():
  same = resolve(BASE, {"train.checkpoint_every": 400, "train.clip": 1})
  assert runs.run_id(same) == runs.run_id(BASE)
  ids = {runs.run_id(resolve(BASE, {key: value})) for key, value in OTHER.items()}
  assert len(ids - {runs.run_id(BASE)}) == len(OTHER)


OTHER = {"seeds": (0, 1), "model.tied": False, "train.clip": 0.5, "task": "copy"}


def test_a_key_that_is_added_leaves_finished_runs_finished(tmp_path, monkeypatch):
  assert perform(tmp_path).state == "finished"
  added = copy.deepcopy(BASE).unlock()
  added.train.new_key = 0.5
  monkeypatch.setitem(NEUTRAL, "train.new_key", 0.5)
  (same,) = runs.expand(Plan("why?", POSITIONS, "none"), added.lock(), {})[1:]
  assert same.id == ONE.id and "train.new_key" in flatten(same.config)
  again = perform(tmp_path, crash, each=same)
  assert again.state == "finished" and "before" in again.note
  other = resolve(added, {"train.new_key": 0.25})
  assert runs.run_id(other) != runs.run_id(BASE) == runs.run_id(added)


def test_runs_from_before_the_average_keep_their_ids():
  older = {key: x for key, x in flatten(BASE).items() if key != "train.ema"}
  assert runs.identity.run_id(older) == runs.run_id(BASE)
  assert runs.run_id(resolve(BASE, {"train.ema": 0.9})) != runs.run_id(BASE)


def test_an_older_run_is_read_with_the_keys_that_were_added(tmp_path, monkeypatch):
  outcome = perform(tmp_path)
  write_json(tmp_path / "sweep.json", {"runs": [{"id": ONE.id}]})
  monkeypatch.setitem(NEUTRAL, "train.new_key", 0.5)
  (loaded,) = load.read(tmp_path).runs
  assert outcome.state == "finished" and loaded.config["train.new_key"] == 0.5
  monkeypatch.setitem(NEUTRAL, "model.tied", False)  # today's default is another one
  config = {key: x for key, x in flatten(BASE).items() if key != "model.tied"}
  write_json(tmp_path / "config.json", config)
  monkeypatch.delitem(NEUTRAL, "train.new_key")
  assert not inference.of_run(tmp_path)[0].model.tied


@pytest.mark.parametrize(
  ("overrides", "says"),
  [
    ({"model.position": "rop"}, "Did you mean 'rope'"),
    ({"train.rows": 8}, "train.rows is called train.batch_size"),
    ({"model.position": "rope(bse=1)"}, "Did you mean 'base'"),
    ({"model.position": "pathlib:Path"}, "must inherit"),
    ({"model.core": "blockwize"}, "Did you mean 'blockwise'"),
    ({"model.attention": "gqa(2) + windw(8)"}, "Did you mean 'window'"),
    ({"model.attention": "gqa(2) + mqa"}, "both decide how queries and keys"),
    ({"model.kind": "decodr"}, "Did you mean 'decoder'"),
    ({"model.kind": "coder"}, "Write one of decoder, prefix_decoder, encoder, enc"),
    ({"model.width": 65}, "write model.width=64 or 68"),
    ({"model.width": 0}, "write 1 or more"),
    ({"train.steps": 90}, "write train.steps=80 or 120"),
    ({"model.dropout": 1.0}, "write a number from 0 to below 1"),
    ({"train.ema": 1.0}, "write a number from 0 to below 1"),
    ({"train.clip": float("nan")}, "write 0 or more"),
    ({"seeds": (1, 1)}, "write different numbers"),
    ({"evaluate.lengths": (2, 1)}, "write growing multiples"),
    ({"mesh.data": 3, "mesh.tensor": 3}, "only 8 devices here"),
    ({"mesh.data": -1, "train.batch_size": 12}, "write train.batch_size=8 or 16"),
    ({"mesh.tensor": 3, "mesh.data": -1}, "8 devices are not a multiple"),
  ],
)
def test_a_value_that_cannot_be_used_is_refused(overrides, says):
  with pytest.raises(ConfigError, match=says):
    validate(resolve(BASE, overrides), devices=8)


def test_all_problems_are_said_at_once():
  with pytest.raises(ConfigError) as caught:
    validate(resolve(BASE, {"model.norm": "x", "task": "y", "model.heads": 0}), 8)
  assert len(caught.value.problems) == 3


# --- folders -------------------------------------------------------------------------

ONE = expand(POSITIONS)[1]
FACTS = {"commit": "abc", "command": "python -m experiments.run"}


def perform(workdir, train=lambda folder: {"seeds": [0]}, each=ONE, **more):
  return run_folder.perform(each, workdir, train, FACTS, **more)


def crash(folder):
  raise RuntimeError("out of luck")


def test_a_finished_run_is_not_run_again(tmp_path):
  assert perform(tmp_path).state == "finished"
  again = perform(tmp_path, crash)
  assert again.state == "finished" and "before" in again.note
  folder = run_folder.folder(tmp_path, ONE)
  kept = {"id": ONE.id, "label": "rope", "group": "text", "seeds": [0]}
  assert read_json(folder / "result.json").items() >= (kept | FACTS).items()
  assert read_json(folder / "config.json")["model.position"] == "rope"
  assert read_json(folder / "made_with.json") == FACTS


def test_a_failed_run_keeps_its_traceback_and_is_tried_again(tmp_path):
  outcome = perform(tmp_path, crash)
  assert (outcome.state, outcome.note) == (
    "failed",
    "failed: RuntimeError: out of luck",
  )
  folder = run_folder.folder(tmp_path, ONE)
  assert "in crash" in (folder / "error.txt").read_text()
  assert run_folder.status(folder)["error"] == "RuntimeError: out of luck"
  assert perform(tmp_path).state == "finished"
  assert run_folder.status(folder)["attempts"] == 2
  assert not (folder / "error.txt").exists()


def die(tmp_path, step, fatal=""):
  """Leaves the folder as a process does that is killed at `step`, or crashes."""
  folder = run_folder.folder(tmp_path, ONE)
  with pytest.raises(KeyboardInterrupt):
    perform(tmp_path, lambda folder: (run_folder.recorder(folder)(step), interrupt()))
  assert run_folder.status(folder)["state"] == "interrupted"
  (folder / "error.txt").write_text(fatal)
  write_json(folder / "status.json", {**run_folder.status(folder), "state": "running"})


def interrupt():
  raise KeyboardInterrupt


def test_a_run_whose_process_keeps_crashing_is_given_up_unless_asked(tmp_path):
  for _ in range(run_folder.FAULTS):
    die(tmp_path, step=40, fatal="Fatal Python error: Segmentation fault\n\nThread\n")
  outcome = perform(tmp_path, crash)
  assert outcome.state == "failed" and "--retry" in outcome.note
  assert "crashed 3 times in a row (Fatal Python error: Segment" in outcome.note
  assert perform(tmp_path, crash).note == outcome.note
  assert perform(tmp_path, retry=True).state == "finished"


def test_a_run_that_is_killed_again_and_again_goes_on(tmp_path, capsys):
  for number in range(2 * run_folder.KILLS):
    die(tmp_path, step=40)
    said = capsys.readouterr().err
    assert ("was killed" in said) == (number >= run_folder.KILLS)
  assert perform(tmp_path).state == "finished"
  assert "killed 6 times without progress" in capsys.readouterr().err


def test_a_run_that_gets_further_is_not_given_up(tmp_path):
  for step in range(40, 40 * (run_folder.FAULTS + 2), 40):
    die(tmp_path, step, "Fatal Python error: Aborted")
  assert perform(tmp_path).state == "finished"


def test_a_crash_leaves_its_stack_and_a_kill_nothing(tmp_path):
  code = """
import os, pathlib, signal, sys
from absl import app
from transformer_jax.training.log import make_patient
from transformer_jax.training.signals import fatal_errors_in
def main(argv):
  make_patient()
  with fatal_errors_in(pathlib.Path("error.txt")):
    os.kill(os.getpid(), int(argv[1]))
app.run(main)  # which lets fatal errors write to stderr
"""
  path = {"PYTHONPATH": str(Path(run_folder.__file__).parents[2])}
  left = {}
  for number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL, 0):
    words = [sys.executable, "-c", code, str(int(number))]
    subprocess.run(words, cwd=tmp_path, env=os.environ | path, timeout=60)
    file = tmp_path / "error.txt"
    left[int(number)] = file.read_text().partition("\n")[0] if file.exists() else None
  aborted, segment = "Fatal Python error: Aborted", "Fatal Python error: Segmentation"
  assert left[signal.SIGABRT] == aborted and left[signal.SIGSEGV].startswith(segment)
  assert left[signal.SIGKILL] == "" and left[0] is None


def test_two_processes_do_not_run_the_same_run(tmp_path):
  with claim(run_folder.folder(tmp_path, ONE)) as mine:
    assert mine and perform(tmp_path).state == run_folder.BUSY
  assert perform(tmp_path).state == "finished"


def test_a_folder_removed_while_it_trains_is_no_finished_run(tmp_path):
  folder = run_folder.folder(tmp_path, ONE)

  def removed(path):
    run_folder.recorder(path)(40)
    shutil.rmtree(path)
    return {"seeds": [0]}

  def noticed(path):
    record_step = run_folder.recorder(path)
    removed(path)
    record_step(80)

  outcome = perform(tmp_path, removed)
  assert outcome.state == "failed" and "was removed while the run" in outcome.note
  assert not folder.exists()
  outcome = perform(tmp_path, noticed)
  assert outcome.state == "failed" and not folder.exists()

  def taken(path):
    removed(path)
    write_json(path / "status.json", {"process": {"host": "other", "pid": 1}})
    (path / "lock").touch()
    return {"seeds": [0]}

  assert "was removed" in perform(tmp_path, taken).note  # by now another process's
  assert perform(tmp_path).state == "finished"


def test_a_folder_of_another_config_is_refused(tmp_path):
  file = run_folder.folder(tmp_path, ONE) / "config.json"
  write_json(file, flatten(ONE.config) | {"model.width": 32})
  outcome = perform(tmp_path)
  assert outcome.state == "failed" and "model.width: there 32, now 64" in outcome.note
  write_json(file, flatten(ONE.config) | {"train.checkpoint_every": 40})
  assert perform(tmp_path).state == "finished"


def test_a_damaged_result_is_made_again(tmp_path, capsys):
  perform(tmp_path)
  (run_folder.folder(tmp_path, ONE) / "result.json").write_text('{"seeds": [')
  assert not perform(tmp_path).note
  assert "result.json is not what was written" in capsys.readouterr().err


# --- the loop ------------------------------------------------------------------------


@pytest.fixture
def train(monkeypatch):
  """Stands for experiments/runner/train.py; `train.does` says what a run does."""
  fake = types.ModuleType("experiments.runner.train")
  fake.does, fake.seen = {}, []

  def one(config, folder, name, stop):
    fake.seen.append(config.model.position)
    return fake.does.get(config.model.position, lambda stop: SCORES)(stop)

  fake.run = one
  fake.describe = lambda config, compiled: DESCRIBED
  monkeypatch.setitem(sys.modules, "experiments.runner.train", fake)
  return fake


SCORES = {
  "seeds": [0, 1],
  "measures": [{"name": "accuracy", "better": "higher"}],
  "train_length": 64,
  "lengths": [64],
  "scores": [
    {
      "seed": s,
      "length": 64,
      "measure": "accuracy",
      "part": "mean",
      "value": 0.5 + s / 9,
    }
    for s in (0, 1)
  ],
}
DESCRIBED = {"parameters": 1234, "position_parameters": 4, "flops_per_token": 5e6}
DESCRIBED |= {
  "state_bytes": 2**20,
  "peak_bytes": 2**21,
  "core": "dense",
  "core_refusals": {"pallas": "no GPU"},
}


def asked(tmp_path, overrides=None, dry_run=False):
  path = config_file.CONFIGS / "quickstart.py"
  return flags.Request(path, BASE, overrides or {}, WHY, tmp_path, dry_run, False)


def test_some_groups_run_and_the_report_plans_for_all(tmp_path, train):
  request = dataclasses.replace(
    asked(tmp_path), plan=Plan("why?", TWO_TASKS, "none"), groups=("copy",)
  )
  sweep.main(request)
  groups = {row["group"] for row in read_json(tmp_path / "sweep.json")["runs"]}
  assert groups == {"text", "copy"}
  assert len([*(tmp_path / "runs").iterdir()]) == len([*TWO_TASKS]) // 2


def test_a_sweep_begins_with_its_question_and_how_long_it_takes(
  tmp_path, train, capsys
):
  published = dataclasses.replace(WHY, cost="about 3 minutes on two cores")
  request = dataclasses.replace(asked(tmp_path), plan=published)
  begins = "why?\nAll runs take about 3 minutes on two cores. Stopping loses nothing"
  sweep.main(request)
  assert capsys.readouterr().out.startswith(begins)
  # With other settings they take another time, and a dry run takes none.
  overrides = {"model.width": 32}
  for other in (
    dataclasses.replace(request, overrides=overrides, workdir=tmp_path / "other"),
    dataclasses.replace(request, dry_run=True),
  ):
    sweep.main(other)
    assert "All runs take" not in capsys.readouterr().out
  assert (
    quickstart.sweep().cost
    in (config_file.CONFIGS.parents[1] / "README.md").read_text()
  )


def test_a_sweep_goes_on_after_a_failure_and_reports(tmp_path, train, capsys):
  train.does["none"] = crash
  assert sweep.main(asked(tmp_path)) == 1
  said = capsys.readouterr().out
  assert "[1/2] text none: failed: RuntimeError: out of luck" in said
  assert f"report: {tmp_path}" in said and (tmp_path / "report.html").exists()
  planned = read_json(tmp_path / "sweep.json")
  assert planned["groups"] == ["text"] and planned["baseline"] == "none"

  del train.does["none"]
  assert sweep.main(asked(tmp_path)) == 0
  assert train.seen == ["none", "rope", "none"]
  assert "text rope: finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_ends_a_sweep_that_continues_later(
  tmp_path, train, capsys, number, code, request
):
  # A test run in the background ignores SIGINT, and so would the sweep.
  before = signal.signal(number, signal.default_int_handler)
  request.addfinalizer(lambda: signal.signal(number, before))

  def stopped(stop):
    os.kill(os.getpid(), number)
    assert stop
    return None

  train.does["none"] = stopped
  assert sweep.main(asked(tmp_path)) == code
  assert train.seen == ["none"]
  assert f"--workdir={tmp_path}" in capsys.readouterr().out
  del train.does["none"]
  assert sweep.main(asked(tmp_path)) == 0


@pytest.fixture
def while_waiting(monkeypatch):
  """Takes what another process does once this one has found its run busy and waits."""

  def takes(action):
    left = [action]
    sleep = lambda seconds: left.pop()() if left else None
    clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(waiting, "time", clock)

  return takes


def test_a_sweep_waits_for_runs_of_others_and_adopts_what_they_found(
  tmp_path, train, capsys, while_waiting
):
  none, rope = runs.expand(WHY, BASE, {})
  held = contextlib.ExitStack()
  assert held.enter_context(claim(run_folder.folder(tmp_path, none)))
  folder = run_folder.folder(tmp_path, none)
  pid = {"host": socket.gethostname(), "pid": os.getpid()}
  write_json(folder / "status.json", {"state": "running", "step": 40, "process": pid})

  @while_waiting
  def end():
    write_json(folder / "result.json", SCORES | {"seconds": {}})
    write_json(folder / "status.json", {"state": "finished", "step": 80})
    held.close()

  assert sweep.main(asked(tmp_path)) == 0
  assert train.seen == ["rope"]
  said = capsys.readouterr().out
  waits = (
    f"waiting for runs of other processes: text none (step 40, process {pid['pid']}"
  )
  assert waits in said and "[1/2] text none: finished before" in said
  assert f"report: {tmp_path}" in said


def test_a_failure_of_another_process_is_not_repeated_and_a_death_is(
  tmp_path, train, while_waiting
):
  none, rope = runs.expand(WHY, BASE, {})
  for state, seen in (("failed", ["rope"]), ("running", ["none"])):
    held = contextlib.ExitStack()
    folder = run_folder.folder(tmp_path, none)
    held.enter_context(claim(folder))
    write_json(folder / "status.json", {"state": state, "error": "no luck"})
    while_waiting(held.close)
    train.seen.clear()
    assert sweep.main(asked(tmp_path)) == (1 if state == "failed" else 0)
    assert train.seen == seen


def test_a_stopped_process_is_not_waited_for_for_ever(
  tmp_path, train, capsys, monkeypatch
):
  none, rope = runs.expand(WHY, BASE, {})
  monkeypatch.setattr(waiting, "POLL", 0.01)
  monkeypatch.setattr(waiting, "PATIENCE", 0.1)
  folder = run_folder.folder(tmp_path, none)
  child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
  try:
    with claim(folder):
      pid = {"host": socket.gethostname(), "pid": child.pid}
      write_json(folder / "status.json", {"state": "running", "process": pid})
      child.send_signal(signal.SIGSTOP)
      assert sweep.main(asked(tmp_path)) == 1
  finally:
    child.kill()
    child.wait()
  assert f"which is stopped: kill -CONT {child.pid}" in capsys.readouterr().out
  assert sweep.main(asked(tmp_path)) == 0  # its process died


def test_of_several_sweeps_one_writes_the_report(tmp_path, train, monkeypatch):
  assert sweep.main(asked(tmp_path)) == 0
  page = tmp_path / "report.html"
  page.write_text("written by the other")
  assert sweep_loop.report(tmp_path, shared=True)
  assert page.read_text() == "written by the other"
  assert sweep_loop.report(tmp_path)  # alone: templates may have changed
  assert "written by the other" not in page.read_text()
  page.write_text("of fewer runs")
  status = next(tmp_path.glob("runs/*/status.json"))
  write_json(status, {**read_json(status), "step": 3})
  assert sweep_loop.report(tmp_path, shared=True)
  assert page.read_text() != "of fewer runs"


def test_a_run_that_kills_its_process_comes_last(tmp_path, train):
  none, rope = runs.expand(WHY, BASE, {})
  status = {"state": "running", "kills": run_folder.KILLS - 1}
  write_json(run_folder.folder(tmp_path, none) / "status.json", status)
  assert sweep.main(asked(tmp_path)) == 0
  assert train.seen == ["rope", "none"]


@pytest.mark.parametrize("workdir", ["/", "~"])
def test_runs_do_not_go_into_the_root_or_the_home_folder(workdir, train):
  before = {*Path(workdir).expanduser().iterdir()}
  with pytest.raises(ConfigError, match="a folder of their own; write for example"):
    sweep.main(asked(Path(workdir).expanduser()))
  assert {*Path(workdir).expanduser().iterdir()} == before


def test_a_user_without_a_home_may_run(tmp_path, train, monkeypatch):
  monkeypatch.delenv("HOME")
  monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
  sweep_loop._begin(tmp_path / "runs", lambda: {"runs": []})
  assert read_json(tmp_path / "runs" / "sweep.json") == {"runs": []}


@pytest.mark.parametrize("damage", ["[]", "", '{"runs": {}}', '{"runs": [3]}'])
def test_one_run_keeps_a_damaged_sweep_json_aside(tmp_path, train, capsys, damage):
  (tmp_path / "sweep.json").write_text(damage)
  assert run.main(asked(tmp_path)) == 0
  assert (tmp_path / "sweep.json.damaged").read_text() == damage
  assert "the command of the sweep brings the others back" in capsys.readouterr().err
  assert len(read_json(tmp_path / "sweep.json")["runs"]) == 1


def test_a_sweep_with_a_wrong_run_starts_none(tmp_path, train):
  wrong = asked(tmp_path, {"model.position": "rop", "model.width": 63})
  with pytest.raises(ConfigError) as caught:
    sweep.main(wrong)
  assert len(caught.value.problems) == 2 and not [*tmp_path.iterdir()]


def test_a_run_that_no_model_can_be_built_of_is_refused_too(tmp_path, train):
  with pytest.raises(ConfigError, match="has 8 positions"):
    sweep.main(asked(tmp_path, {"model.position": "learned(max_positions=8)"}))


READS = {"model.kind": "encoder_decoder"}


@pytest.mark.parametrize(
  ("overrides", "says"),
  [
    (READS | {"task": "copy(symbols=4)"}, "--config.task='pairs(copy(symbols=4))'"),
    (READS, "kind=decoder, or --config.task='pairs(copy)'"),
    ({"task": "pairs(copy)"}, "write --config.model.kind=encoder_decoder"),
    (
      READS | {"task": "pairs(copy)", "model.position": "cope"},
      "model.core=auto: cope in encoder attention: cope counts tokens",
    ),
    ({"task": "blanks(parity)"}, "write --config.model.kind=encoder"),
    (
      {"task": "blanks(parity)", "model.kind": "prefix_decoder"},
      "--config.task='prefixed(parity)'",
    ),
  ],
)
def test_a_kind_of_model_and_a_task_that_do_not_fit_are_refused(overrides, says):
  with pytest.raises(ConfigError, match=re.escape(says)) as caught:
    build(resolve(BASE, overrides))
  assert f"model.kind={overrides.get('model.kind', 'decoder')}" in str(caught.value)


def test_an_encoder_decoder_has_layers_on_both_sides():
  arch = build(resolve(BASE, READS | {"task": "pairs(addition)"})).trainer.model.arch
  assert (arch.encoders, arch.decoders) == (2, 2)
  assert arch.dims.L == 2 * BASE.train.length + 1  # the prompt, longer than the answer


@pytest.mark.parametrize(
  "overrides",
  [{}, READS | {"task": "pairs(recall(keys=5))"}],
  ids=["decoder", "reader"],
)
def test_a_length_that_cannot_be_scored_is_refused_before_training(overrides):
  many = {"task": "recall(keys=5)", "train.length": 2, "evaluate.lengths": (1, 8)}
  with pytest.raises(ValueError, match=re.escape("write recall(keys=16)")):
    describe(resolve(BASE, many | overrides))


def test_a_dry_run_prints_and_writes_nothing(tmp_path, train, capsys):
  assert sweep.main(asked(tmp_path, dry_run=True)) == 0
  said = capsys.readouterr().out
  assert "1,234 parameters (4 positional); 5,000,000 FLOPs per token" in said
  assert "1.0 MiB of parameters and moments; attention dense; 2.0 MiB to train" in said
  assert "not pallas: no GPU" in said and "no data is read" in said
  assert "train.steps = 400" in said and "model.position='rope'" in said
  assert not train.seen and not [*tmp_path.iterdir()]


def test_one_run_joins_the_report_of_its_folder(tmp_path, train):
  assert sweep.main(asked(tmp_path)) == 0
  assert run.main(asked(tmp_path, {"model.position": "rope"})) == 0
  assert train.seen == ["none", "rope"]
  more = {"model.position": "alibi", "train.steps": 80}
  assert run.main(asked(tmp_path, more)) == 0
  labels = [row["label"] for row in read_json(tmp_path / "sweep.json")["runs"]]
  assert labels == ["none", "rope", "alibi steps=80"]


def test_one_run_of_the_plan_keeps_its_name(tmp_path):
  named = Plan("why?", Group("norms", OneAtATime({"model.norm": ("layernorm",)})))
  one = dataclasses.replace(asked(tmp_path, {"model.norm": "layernorm"}), plan=named)
  assert lines([run.chosen(one)]) == ["norms: norm=layernorm"]


def test_one_run_alone_has_a_report(tmp_path, train):
  many = {
    "train.batch_size": 8,
    "train.steps": 80,
    "model.layers": 1,
    "model.tied": False,
  }
  assert run.main(asked(tmp_path, many)) == 0
  sweep_json = read_json(tmp_path / "sweep.json")
  assert sweep_json["baseline"] == "rope and 4 other flags"


def test_the_command_of_a_row_reproduces_its_id(tmp_path, train):
  sweep.main(asked(tmp_path, {"task": "copy"}))
  row = read_json(tmp_path / "sweep.json")["runs"][1]
  result = read_json(tmp_path / "runs" / row["id"] / "result.json")
  python, *words = result["command"].split()
  assert (python, words[0], words[1]) == ("python", "-m", "experiments.run")
  overrides = {"task": "copy", "model.position": "rope"}
  assert [f"--config.{key}={value}" for key, value in overrides.items()] == sorted(
    words[3:], key=lambda word: "task" not in word
  )
  assert run.chosen(asked(tmp_path, overrides)).id == row["id"]


def test_the_commit_is_known_inside_git_and_empty_outside(tmp_path, monkeypatch):
  monkeypatch.setattr(provenance, "ROOT", tmp_path)
  assert provenance.commit() == ("", b"")
  file = tmp_path / "file"
  monkeypatch.setattr(provenance, "__file__", str(file))
  file.write_text("a")
  (tmp_path / "other").touch()
  git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
  for words in (["init", "-q"], ["add", "other"], ["commit", "-qm", "a"]):
    subprocess.run([*git, *words], check=True)
  assert provenance.commit() == ("", b"")  # somebody else's repository
  for words in (["add", "file"], ["commit", "-qm", "b"]):
    subprocess.run([*git, *words], check=True)
  clean, changes = provenance.commit()
  assert len(clean) == 10 and not changes
  file.write_text("b")
  changed, changes = provenance.commit()
  assert changed.startswith(f"{clean}+") and b"+b" in changes


if __name__ == "__main__":
  GOLDEN.parent.mkdir(exist_ok=True)
  GOLDEN.write_text(json.dumps(golden(), indent=2) + "\n")
