"""A run goes on, or counts as finished, only with the data and code it began with."""

import sys
import types

import numpy as np
import pytest

from experiments.configs import base
from experiments.runner import history, inputs, run_folder, train, user_code
from experiments.setup.runs import Run, run_id
from experiments.setup.validate import resolve
from transformer_jax.data.base import tasks
from transformer_jax.evaluation import target_fingerprints
from transformer_jax.spec import outside
from transformer_jax.training.json_files import read_json, write_json

FADE = """
import dataclasses
import numpy
from fade_parts import RATE

def late():
  import not_there.at_all
  import fade_old, fade_installed
from transformer_jax.positions.base import PositionalEncoding

@dataclasses.dataclass(frozen=True)
class Fade(PositionalEncoding):
  start: float = RATE
"""


@pytest.fixture
def fade(tmp_path, monkeypatch):
  """A class of the user's own, whose file imports another one."""
  here = tmp_path / "own"
  here.mkdir()
  (here / "fade_of_test.py").write_text(FADE)
  (here / "fade_parts.py").write_text("RATE = 1.0\n")
  (here / "fade_old.py").write_text("print 'of Python 2'\n")
  packages = tmp_path / ".local" / "site-packages"
  packages.mkdir(parents=True)
  (packages / "fade_installed.py").write_text("")
  monkeypatch.syspath_prepend(packages)
  monkeypatch.syspath_prepend(here)
  user_code._content.cache_clear()
  yield here
  for name in ("fade_of_test", "fade_parts"):
    sys.modules.pop(name, None)


OWN = {"model.position": "randomized(fade_of_test:Fade(start=0.5))"}


def test_the_modules_that_a_spec_names():
  assert outside("by_layer((rope, a.b:C(x=d:E())))") == {"a.b", "d"}
  assert outside("""text(source="tfds:tiny", data_dir='a:B')""") == set()


def test_own_code_is_the_files_of_the_user(fade):
  code = user_code.read(resolve(base.get_config(), OWN))
  assert list(code) == ["fade_of_test.py", "fade_old.py", "fade_parts.py"]
  assert user_code.read(base.get_config()) == {}
  ours = {"model.position": "transformer_jax.positions.rope:Rope"}
  assert user_code.read(resolve(base.get_config(), ours)) == {}


def test_an_edited_file_counts_in_the_next_process(fade):
  config = resolve(base.get_config(), OWN)
  before = user_code.fingerprints(user_code.read(config))
  (fade / "fade_parts.py").write_text("RATE = 2.0\n")
  assert user_code.fingerprints(user_code.read(config)) == before, "it is imported"
  user_code._content.cache_clear()
  after = user_code.fingerprints(user_code.read(config))
  assert {name for name in after if after[name] != before[name]} == {"fade_parts.py"}


def test_parameters_of_other_code_are_said(fade, tmp_path, capsys):
  config = resolve(base.get_config(), OWN)
  code = user_code.read(config)
  user_code.compare(tmp_path, config)
  user_code.save(tmp_path, code)
  inputs.check(tmp_path, user_code.fingerprints(code), inputs.CODE)
  user_code.compare(tmp_path, config)
  assert capsys.readouterr().err == ""
  assert (tmp_path / "own_code" / "fade_of_test.py").read_text() == FADE
  (fade / "fade_parts.py").write_text("RATE = 2.0\n")
  user_code._content.cache_clear()
  user_code.compare(tmp_path, config)
  (line,) = capsys.readouterr().err.splitlines()
  assert "was trained by other code of fade_parts.py, and its parameters are" in line


# --- runs -----------------------------------------------------------------------------

CONFIG = resolve(base.get_config(), {"task": "copy"})
ONE = Run(run_id(CONFIG), "fade", "copy", CONFIG, {})


def perform(workdir, code, train=lambda folder: {"seeds": [0]}, **facts):
  facts = {"commit": "abc", "own_code": code, **facts}
  return run_folder.perform(
    ONE, workdir, train, facts, b"patch of " + str(code).encode()
  )


def test_a_finished_run_of_other_code_is_kept_aside_and_run_anew(tmp_path, capsys):
  folder = run_folder.folder(tmp_path, ONE)
  for n, code in enumerate(("a", "b", "c")):
    new = perform(tmp_path, {"fade.py": code}, lambda folder, n=n: {"seeds": [n]})
    assert (new.state, new.note) == ("finished", "")
  found = [read_json(tmp_path / "runs" / name / "result.json")["seeds"]
           for name in (f"{ONE.id}.1", f"{ONE.id}.2", ONE.id)]  # fmt: skip
  assert found == [[0], [1], [2]]
  said = capsys.readouterr().err.splitlines()
  assert said[0] == (
    f"fade: its own code changed; its earlier results are in {folder}.1"
  )
  assert perform(tmp_path, {"fade.py": "c"}).note == "finished before"
  assert history.finished(folder, {"own_code": {"fade.py": "c"}}, ONE.config)
  assert not history.finished(folder, {"own_code": {"fade.py": "a"}}, ONE.config)


def test_a_finished_run_that_recorded_no_code_stays(tmp_path):
  perform(tmp_path, {})
  path = run_folder.folder(tmp_path, ONE) / "result.json"
  result = read_json(path)
  write_json(path, {key: result[key] for key in result if key != "own_code"})
  status = read_json(path.with_name("status.json"))
  write_json(path.with_name("status.json"), {**status, "checksums": {}})
  note = perform(tmp_path, {"fade.py": "a"}).note
  assert note == "finished before; its code of fade.py was not recorded then"


def begin(**now):
  """Returns a training that checks its inputs and stops at a checkpoint."""

  def train(folder):
    inputs.check(folder, now, "data", "own_code")
    (folder / "checkpoints" / "40").mkdir(parents=True, exist_ok=True)

  return train


def test_a_checkpoint_does_not_go_on_with_something_else(tmp_path, capsys):
  folder = run_folder.folder(tmp_path, ONE)
  assert perform(tmp_path, {}, begin(data="aa", words="bb")).state == "interrupted"
  made_with = (folder / "made_with.json").read_bytes()
  refused = perform(tmp_path, {}, begin(data="a" * 40, words="bb"), commit="def")
  assert refused.state == "failed" and refused.note == (
    f"failed: {folder} holds a checkpoint that was trained with other contents of data"
    f" (then aa, now aaaaaaaa); restore them from {folder / 'own_code'} to continue, or"
    " delete that folder to train from the start"
  )
  assert (folder / "made_with.json").read_bytes() == made_with, "nothing is lost"
  assert perform(tmp_path, {}, begin(data="aa", words="bb")).state == "interrupted"
  assert capsys.readouterr().err == ""


def test_without_a_checkpoint_other_inputs_begin(tmp_path):
  inputs.check(tmp_path, {"data": "aa"}, "data")
  inputs.check(tmp_path, {"data": "bb"}, "data")
  inputs.check(tmp_path, {"fade.py": "aa"}, "own code")
  assert read_json(tmp_path / "inputs.json") == {
    "data": {"data": "bb"},
    "own code": {"fade.py": "aa"},
  }


@pytest.mark.parametrize("content", [None, "{"], ids=["older", "damaged"])
def test_an_unknown_beginning_is_said_and_goes_on(tmp_path, capsys, content):
  (tmp_path / "checkpoints" / "40").mkdir(parents=True)
  if content:
    (tmp_path / "inputs.json").write_text(content)
  inputs.check(tmp_path, {"data": "aa"}, "data")
  assert "continues unchecked: its checkpoint's data" in capsys.readouterr().err
  with pytest.raises(inputs.ChangedError, match=r"of data \(then aa, now none\)"):
    inputs.check(tmp_path, {}, "data")


def test_steps_of_other_code_are_recorded(tmp_path):
  folder = run_folder.folder(tmp_path, ONE)
  perform(tmp_path, {}, begin(), commit="abc", device="2 cores")
  perform(tmp_path, {}, begin(), commit="abc", device="2 cores", command="again")
  assert "before" not in read_json(folder / "made_with.json")
  perform(tmp_path, {}, begin(), commit="def", device="4 cores")
  perform(tmp_path, {}, commit="def", device="4 cores")
  (before,) = read_json(folder / "result.json")["before"]
  assert (before["commit"], before["device"]) == ("abc", "2 cores")
  assert (folder / "changes-0.patch").exists()


# --- a real run -----------------------------------------------------------------------

SMALL = {"model.width": 8, "model.layers": 1, "model.heads": 1, "seeds": (0,)}
SMALL |= {"model.position": "none", "model.core": "dense", "model.feedforward": 8}
SMALL |= {"train.batch_size": 2, "train.length": 8}
SMALL |= {"train.steps": 4, "train.steps_per_dispatch": 2, "train.checkpoint_every": 2}
SMALL |= {"evaluate.lengths": (1, 2), "evaluate.examples": 4, "evaluate.batch_size": 4}


class StopAt:
  """Becomes true at the nth look."""

  def __init__(self, n):
    self.left = n

  def __bool__(self):
    self.left -= 1
    return self.left < 0


def test_a_text_edited_while_its_run_was_stopped(tmp_path):
  text = tmp_path / "text.txt"
  text.write_text("".join(f"{n} squared is {n * n}. " for n in range(400)))
  task = f"text(source={str(text)!r}, window=16, scored=8)"
  config = resolve(base.get_config(), {**SMALL, "task": task})
  one = Run(run_id(config), "rope", "text", config, {})
  folder = run_folder.folder(tmp_path, one)

  def sit(looks):
    train.load.cache_clear()  # as in another process
    stop = StopAt(looks)
    work = lambda folder: train.run(config, folder, "one", stop)
    return run_folder.perform(one, tmp_path, work, {"commit": "abc"})

  assert sit(1).state == "interrupted" and inputs.has_checkpoint(folder)
  before = text.read_text()
  text.write_text(before.replace("3", "4"))
  refused = sit(99)
  assert refused.state == "failed"
  assert "trained with other contents of the data (then " in refused.note
  assert "restore them to continue" in refused.note
  text.write_text(before)
  assert sit(99).state == "finished"
  result = read_json(folder / "result.json")
  recorded = read_json(folder / "inputs.json")["data"]["the data"]
  assert result["data"]["fingerprint"] == recorded
  assert set(result["mesh"].values()) == {1}
  short, long = result["targets"]["8"], result["targets"]["16"]
  assert short == long, "the same bytes at both lengths"
  assert (short["examples"], short["targets"]) == (4, 32)


# --- targets --------------------------------------------------------------------------


def scored(spec, **buckets):
  evaluator = types.SimpleNamespace(task=tasks.build(spec), examples=4, key=0)
  buckets = {int(name[1:]): bucket for name, bucket in buckets.items()}
  evaluator.buckets = lambda lengths: {n: buckets[n] for n in lengths}
  return target_fingerprints.of_lengths(evaluator, (), tuple(buckets))


def test_a_fingerprint_is_of_what_counts_alone():
  eight = scored("copy(scored=4)", n8=8)["8"]
  assert (eight["examples"], eight["targets"]) == (4, 16)
  # Neither padding nor what comes before the targets.
  assert scored("copy(scored=4)", n8=16, n16=16) == {"8": eight, "16": eight}
  fewer = scored("copy(scored=2)", n8=8)["8"]
  assert fewer["fingerprint"] != eight["fingerprint"] and fewer["targets"] == 8


def test_a_fingerprint_knows_weights_and_where_an_example_ends():
  target_BL = np.arange(6).reshape(2, 3)
  weight_BL = np.ones((2, 3), np.float32)
  whole = target_fingerprints.of_batch(target_BL, weight_BL)
  assert target_fingerprints.of_batch(target_BL, weight_BL / 2) != whole
  assert (
    target_fingerprints.of_batch(target_BL.reshape(3, 2), weight_BL.reshape(3, 2))
    != whole
  )
  none = np.concatenate([weight_BL, np.zeros((1, 3), np.float32)])
  assert (
    target_fingerprints.of_batch(np.array([[0, 1, 2], [3, 4, 5], [9, 9, 9]]), none)
    == whole
  )


def test_a_fingerprint_of_texts():
  assert target_fingerprints.of_texts(["ab", "c"]) != target_fingerprints.of_texts(
    ["a", "bc"]
  )
