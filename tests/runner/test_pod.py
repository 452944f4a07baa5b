"""configs/pod.py as a toy: two processes train it from a streamed corpus."""

import json
from pathlib import Path

import joined_processes as joined
import pytest
from test_streamed_run import prepared

CONFIG = "--config=experiments/configs/pod.py"
TOY = {"model.width": 16, "model.layers": 2, "model.heads": 2, "model.feedforward": 32}
TOY |= {"train.length": 16, "train.batch_size": 8, "train.steps": 8}
TOY |= {"train.steps_per_dispatch": 4, "train.checkpoint_every": 4, "seeds": "(0,1)"}
TOY |= {"train.schedule": "constant", "train.text": "streamed"}
TOY |= {"evaluate.lengths": "(1,2)", "evaluate.examples": 16, "evaluate.batch_size": 8}


def words(corpus, workdir):
  """Returns the flags of a toy of the config: all its keys but the sizes are kept."""
  keys = TOY | {"task": f"text('{corpus}', window=32, scored=8, order='epochs')"}
  overrides = [f"--config.{key}={value}" for key, value in keys.items()]
  return [CONFIG, f"--workdir={workdir}", *overrides]


def trained(commands, module, flags, folder):
  """Runs a command in two joined processes, a device each."""
  port = joined.free_port()
  join = [f"--coordinator=127.0.0.1:{port}", "--processes=2"]
  env = joined.environment(folder)
  started = [
    commands.start(module, *flags, *join, f"--process={n}", environment=env)
    for n in range(2)
  ]
  ended = joined.Joined(commands, started).wait()
  assert [done.returncode for done in ended] == [0, 0], ended
  return ended


def results(workdir):
  paths = sorted(Path(workdir).glob("runs/*/result.json"))
  return [json.loads(path.read_text()) for path in paths]


def test_two_processes_train_a_toy_of_the_pod_from_a_streamed_corpus(
  commands, tmp_path
):
  corpus = prepared(tmp_path, "corpus", "")
  workdir = tmp_path / "pod"
  leader, _ = trained(commands, "experiments.run", words(corpus, workdir), tmp_path)
  (result,) = results(workdir)
  assert result["mesh"]["data"] == 2 and result["data"]["text"] == "streamed"
  assert result["data"]["epochs"] > 0
  assert len([x for x in result["scores"] if x["value"] is not None]) > 4
  assert leader.stdout.endswith("report.html\n")
  page = (workdir / "report.html").read_text()
  assert "rope" in page and "bits per byte" in page


@pytest.mark.slow  # 90 s: 7 encodings in two processes, and in one
def test_the_sweep_of_the_pod_is_the_same_resident_and_in_one_process(
  commands, tmp_path
):
  corpus = prepared(tmp_path, "corpus", "")
  two = words(corpus, tmp_path / "two")
  trained(commands, "experiments.sweep", two, tmp_path)
  one = [*words(corpus, tmp_path / "one"), "--config.train.text=resident"]
  alone = commands.run(
    "experiments.sweep",
    *(*one, "--config.mesh.data=2", "--workers=1"),
    environment=joined.environment(tmp_path),
  )
  assert alone.returncode == 0, alone.stdout + alone.stderr
  ours, theirs = results(tmp_path / "two"), results(tmp_path / "one")
  assert len(ours) == len(theirs) == 7
  by_label = {result["label"]: result["scores"] for result in theirs}
  for result in ours:
    assert result["scores"] == by_label[result["label"]], result["label"]
  page = (tmp_path / "two" / "report.html").read_text()
  assert "Does the order of the encodings hold for a larger model?" in page
  assert all(name in page for name in ("alibi", "fire", "rope(base=5e5)"))
