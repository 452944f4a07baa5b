"""Trains short runs with the code of two commits and compares them bit for bit.

  python tools/same_numbers.py 558bf1c HEAD

Losses, scores, FLOPs and the checksum of every array of the last checkpoint must be
equal; run ids may differ where a key was renamed. For changes that promise to leave all
numbers alone. Takes about two minutes a commit on two cores.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]

SHARED = {
  "seeds": "(0, 1)",
  "train.steps": "40",
  "train.steps_per_dispatch": "20",
  "train.checkpoint_every": "20",
  "evaluate.examples": "8",
}
SHORT = {"train.length": "8", "train.batch_size": "32"}
RUNS: dict[str, dict[str, str]] = {
  "T5's bias": {"model.position": "t5"},
  "post-norm, blockwise, groups, window": {
    "model.position": "fire",
    "model.attention": "gqa(2) + window(32)",
    "model.core": "blockwise",
    "model.norm_placement": "post",
  },
  "dropout": {
    "model.position": "rope",
    "model.dropout": "0.1",
    "train.optimizer": "adam(lr=1e-2)",
  },
  "differential attention": SHORT
  | {
    "task": "copy(scored=8)",
    "model.position": "xpos",
    "model.attention": "differential",
  },
  "encoder-decoder": SHORT
  | {
    "task": "pairs(reverse)",
    "model.position": "shaw",
    "model.kind": "encoder_decoder",
  },
  "recurrent": SHORT
  | {
    "task": "pairs(reverse)",
    "model.kind": "encoder_decoder",
    "model.position": "none",
    "model.family": "recurrent(cell='gru', link='bahdanau', reads='both')",
    "model.attention": "additive",
    "model.heads": "1",
  },
  "encoder": SHORT
  | {"task": "blanks(copy)", "model.position": "deberta", "model.kind": "encoder"},
}

# Keys under their names before this commit's time: the first one that is known is used.
OLDER = {
  "train.batch_size": "train.rows",
  "evaluate.examples": "evaluate.rows",
  "model.norm_placement": "model.placement",
}
COMPARED = ("scores", "parameters", "flops_per_token", "core", "targets", "diverged")


def check_out(commit: str, folder: pathlib.Path) -> pathlib.Path:
  """Returns a folder that holds the files of a commit."""
  folder.mkdir()
  archive = subprocess.Popen(
    ["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE
  )
  subprocess.run(["tar", "-x"], cwd=folder, stdin=archive.stdout, check=True)
  if archive.wait():
    sys.exit(f"{commit} is no commit of this repository")
  return folder


def train(code: pathlib.Path, values: dict[str, str], workdir: pathlib.Path) -> None:
  """Trains one run with the code in a folder."""
  known = (code / "experiments" / "configs" / "base.py").read_text()
  flags = []
  for key, value in (SHARED | values).items():
    group, _, name = key.rpartition(".")
    old = key in OLDER and f"  {group}.{name} = " not in known
    flags.append(f"--config.{OLDER[key] if old else key}={value}")
  config = "--config=experiments/configs/quickstart.py"
  command = [sys.executable, "-m", "experiments.run", config, f"--workdir={workdir}"]
  environment = os.environ | {"PYTHONPATH": str(code), "JAX_PLATFORMS": "cpu"}
  subprocess.run(
    [*command, *flags], cwd=code, env=environment, check=True, capture_output=True
  )


def numbers(workdir: pathlib.Path) -> Iterator[tuple[str, Any]]:
  """Yields what the code alone decides: names and values."""
  (folder,) = (workdir / "runs").iterdir()
  for line in (folder / "metrics.jsonl").read_text().splitlines():
    metrics = json.loads(line)
    del metrics["tokens_per_s"]  # of the machine
    yield f"step {metrics['step']}, seed {metrics['seed']}", metrics
  result = json.loads((folder / "result.json").read_text())
  yield from ((name, result[name]) for name in COMPARED)
  (checkpoint,) = (folder / "checkpoints").glob("40/meta/metadata")
  yield from json.loads(checkpoint.read_text())["fingerprints"].items()


def main() -> None:
  before, after = sys.argv[1:]
  different = 0
  with tempfile.TemporaryDirectory() as scratch:
    root = pathlib.Path(scratch)
    codes = [
      check_out(commit, root / name)
      for commit, name in ((before, "before"), (after, "after"))
    ]
    for number, (title, values) in enumerate(RUNS.items()):
      workdirs = [root / f"{number}-{code.name}" for code in codes]
      for code, workdir in zip(codes, workdirs, strict=True):
        train(code, values, workdir)
      old, new = (dict(numbers(workdir)) for workdir in workdirs)
      unequal = [name for name in old | new if old.get(name) != new.get(name)]
      different += bool(unequal)
      print(f"{title}: {len(old)} values, different: {', '.join(unequal) or 'none'}")
  sys.exit(f"{different} of {len(RUNS)} runs differ" if different else 0)


if __name__ == "__main__":
  main()
