"""Every file of a run's folder, damaged in every way: recovered, or one sentence."""

import builtins
import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import base
from experiments.reporting.load import read as read_sweep
from experiments.runner import run_folder
from experiments.setup import plan, runs
from transformer_jax.data.tokenizers import load, tokenizers
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.json_files import read_object, write_json
from transformer_jax.training.metrics_log import MetricLog

BASE = base.get_config()
(RUN,) = runs.expand(plan.Plan("why?", plan.Grid({"train.steps": (80,)}), ""), BASE, {})
FACTS = {"commit": "abc", "command": "python -m experiments.run"}
EVERY, STEPS, SEEDS = 10, 40, (0, 1)
TOKENIZER = tokenizers.build("char(size=20)").train(["abc"])


class Killed(BaseException):
  """Stands for SIGKILL."""


def train(folder, until=STEPS):
  """Does to the folder what training does to it; returns a result."""
  TOKENIZER.save(folder / "tokenizer")
  steps = lambda last: range(EVERY, last + 1, EVERY)
  with MetricLog(folder) as metrics, Keeper(folder / "checkpoints") as keeper:
    shape = {"w": jax.ShapeDtypeStruct((3,), jnp.float32)}
    state, meta = keeper.restore(shape) or ({"w": jnp.zeros(3)}, {"step": 0})
    metrics.resume(steps(meta["step"]), SEEDS)
    for step in steps(until)[meta["step"] // EVERY :]:
      state = {"w": state["w"] + step}
      for seed in SEEDS:
        metrics.write(step, seed=seed, loss=np.float32(1 / step + seed))
      run_folder.recorder(folder)(step)
      if step % (2 * EVERY) == 0:
        keeper.save(step, state, {})
    if until < STEPS:
      keeper.wait()
      raise Killed
    metrics.mend(steps(STEPS), SEEDS)
  write_json(folder / "translations.json", [{"source": "a"}])
  return RESULT | {"scores": [SCORE | {"value": float(state["w"][0])}]}


SCORE = {"seed": 0, "length": 64, "measure": "accuracy", "part": "mean"}
RESULT = {"seeds": [0], "train_length": 64, "lengths": [64]}
RESULT |= {"measures": [{"name": "accuracy", "better": "higher"}]}


def perform(workdir, each=train):
  return run_folder.perform(RUN, workdir, each, FACTS, b"a patch")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """The folders of a run that was killed after step 30, and of a finished one."""
  root = tmp_path_factory.mktemp("whole")
  with pytest.raises(Killed):
    perform(root / "killed", lambda folder: train(folder, until=30))
  status = run_folder.folder(root / "killed", RUN) / "status.json"
  write_json(status, json.loads(status.read_text()) | {"state": "running"})
  shutil.copytree(root / "killed", root / "finished")
  assert perform(root / "finished").state == "finished"
  for folder in (root / "killed", root / "finished"):
    row = {"id": RUN.id, "label": "a", "group": "b"}
    write_json(folder / "sweep.json", {"runs": [row], "groups": ["b"], "baseline": "a"})
  return root


FILES = """
lock config.json status.json result.json error.txt made_with.json changes.patch
metrics.jsonl tensorboard tensorboard/seed0 checkpoints checkpoints/20
translations.json tokenizer tokenizer/tokenizer.json""".split()


def remove(path):
  shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def put(content):
  return lambda path: (remove(path), path.write_bytes(content))


def change(path):
  """Flips a bit in the middle, of the largest file if it is a folder."""
  files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else []
  path = max(files, key=lambda each: each.stat().st_size, default=path)
  content = bytearray(path.read_bytes())
  if content:
    content[len(content) // 2] ^= 1
  path.write_bytes(content)


def cut(path):
  if path.is_dir():
    return remove(max(path.iterdir(), default=path))
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
  "missing": remove,
  "empty": put(b""),
  "cut": cut,
  "garbage": put(bytes(range(256))),
  "a list": put(b"[]\n"),
  "a number": put(b"3\n"),
  "a folder": lambda path: (remove(path), path.mkdir()),
  "a flipped bit": change,
  "unreadable": None,
}


@pytest.fixture
def unreadable(monkeypatch):
  """Makes a path refuse to be opened or listed, as it would for another user."""

  def refuse(path):
    def guarded(call):
      def checked(file=".", *args, **kwargs):
        if not isinstance(file, int) and os.fspath(file) == str(path):
          raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return call(file, *args, **kwargs)

      return checked

    opened = guarded(io.open)
    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr(builtins, "open", opened)
    for name in ("open", "listdir", "scandir"):
      monkeypatch.setattr(os, name, guarded(getattr(os, name)))

  return refuse


# One kind of damage in six is tried always, of each file and state; all when slow.
CELLS = [
  pytest.param(
    state, kind, file, marks=() if (3 * i + j + k) % 6 == 0 else pytest.mark.slow
  )
  for i, state in enumerate(("killed", "finished"))
  for j, kind in enumerate(DAMAGE)
  for k, file in enumerate(FILES)
]


@pytest.mark.parametrize(("state", "kind", "file"), CELLS)
def test_a_damaged_file_is_recovered_or_said(
  tmp_path, whole, unreadable, monkeypatch, capsys, state, file, kind
):
  shutil.copytree(whole / state, tmp_path / "out")
  path = run_folder.folder(tmp_path / "out", RUN) / file
  if not path.exists():
    path.parent.mkdir(exist_ok=True)
    path.touch()
  (DAMAGE[kind] or unreadable)(path)
  read_sweep(tmp_path / "out")  # what the report does
  outcome = perform(tmp_path / "out")
  monkeypatch.undo()
  said = outcome.note + capsys.readouterr().err
  assert "Traceback" not in said
  if outcome.state == "failed":
    assert len(outcome.note) > 20 and outcome.note.count("\n") <= 3
    assert kind in ("unreadable", "a flipped bit"), outcome.note
    if kind == "a flipped bit":  # in config.json: its message says what to do
      assert "delete that file: the run's id holds" in outcome.note
      path.unlink()
    outcome = perform(tmp_path / "out")
  assert outcome.state == "finished", outcome.note
  check_whole(tmp_path / "out", whole)


def check_whole(workdir, whole):
  """Compares what counts of a run with that of one that nothing happened to."""
  folder, right = (
    run_folder.folder(workdir, RUN),
    run_folder.folder(whole / "finished", RUN),
  )
  for name in ("metrics.jsonl", "config.json"):
    assert (folder / name).read_bytes() == (right / name).read_bytes(), name
  results = [read_object(each / "result.json") for each in (folder, right)]
  # A damaged made_with.json names other code, and so does the record of attempts.
  results = [{k: v for k, v in each.items() if k != "before"} for each in results]
  assert results[0] == results[1]
  (found,) = read_sweep(workdir).runs
  assert found.state == "finished" and not found.error
  assert found.values(64, "accuracy", "mean") == {0: 100.0}
  assert load(folder / "tokenizer").encode("cab") == TOKENIZER.encode("cab")


OURS = {"PYTHONPATH": str(Path(run_folder.__file__).parents[2])}
LOG = """
import sys
from transformer_jax.training.log import make_patient
make_patient()
for n in range(9):
  print("a line", n)
  print("a line", n, file=sys.stderr, flush=True)
open("done", "w").close()
"""


@pytest.mark.parametrize("log", ["/dev/full", "a closed pipe", "a file"])
def test_a_log_that_takes_nothing_ends_no_command(tmp_path, log):
  words = [sys.executable, "-c", LOG]
  with open(log if "/" in log else tmp_path / "log", "w") as file:
    target = subprocess.PIPE if "pipe" in log else file
    child = subprocess.Popen(
      words, stdout=target, stderr=target, cwd=tmp_path,
      env=os.environ | OURS,
    )  # fmt: skip
    for pipe in (child.stdout, child.stderr):
      if pipe:
        pipe.close()
    assert child.wait(timeout=100) == 0
  assert (tmp_path / "done").exists()
  if log == "a file":
    assert (tmp_path / "log").read_text().count("a line") == 18


SWEEP = """
import sys, time
from experiments import sweep
from experiments.runner import train
from experiments.setup import flags

def run(config, folder, name, stop):
  from transformer_jax.training.progress import Progress
  with open("trained", "a") as file:
    print(config.model.position, file=file)
  with Progress(8, name) as bar:
    bar.update(8, loss=1.0)
    time.sleep(0.3)
  return RESULT

RESULT = %r
train.run = run
sys.argv = ["sweep", "--workdir=out", "--groups=copy"]
flags.start(sweep.main)
"""


def test_sweeps_share_a_folder_also_where_a_log_is_full(commands, tmp_path):
  scores = [SCORE | {"seed": seed, "value": 0.5} for seed in (0, 1, 2)]
  code = SWEEP % (RESULT | {"seeds": [0, 1, 2], "scores": scores})
  started = [
    commands.start(code=code, cwd=tmp_path, out=file, environment=OURS)
    for file in ("/dev/full", str(tmp_path / "log"))
  ]
  codes = [commands.wait(each).returncode for each in started]
  said = (tmp_path / "log").read_text()
  assert codes == [0, 0], said
  assert "report: out/report.html" in said and "Traceback" not in said
  trained = (tmp_path / "trained").read_text().splitlines()
  assert len(trained) == len({*trained}) == len(read_sweep(tmp_path / "out").of("copy"))
  assert {run.state for run in read_sweep(tmp_path / "out").of("copy")} == {"finished"}
  assert not [*tmp_path.rglob("*.tmp")]
