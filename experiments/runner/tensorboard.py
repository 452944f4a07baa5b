"""A sweep in TensorBoard: runs by group and label, their scores and hyperparameters.

  tensorboard --logdir=runs/quickstart/tensorboard

Run folders are named by hashes, so `tensorboard/` of the sweep's folder has a link of
each run's name to its events. `scores` beside the seeds of a run has the evaluation, by
context length, the config as text, and the values of the HPARAMS page.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event

from experiments.setup.runs import Run
from experiments.setup.validate import flatten
from transformer_jax.training import events


def link(workdir: Path, run: Run) -> None:
  """Links a run's events by its group and label, where the disk has links."""
  where = workdir / "tensorboard" / _safe(run.group)
  name = where / _safe(run.label)
  with contextlib.suppress(OSError):  # the run does not depend on it
    where.mkdir(parents=True, exist_ok=True)
    draft = where / f".{name.name}.{os.getpid()}.tmp"
    draft.unlink(missing_ok=True)
    draft.symlink_to(Path("..", "..", "runs", run.id, "tensorboard"))
    draft.replace(name)


def _safe(name: str) -> str:
  """Returns a file name without spaces, slashes, or a dot that would hide it."""
  return re.sub(r"[^\w.,()=+-]+", "_", name).lstrip(".") or "_"


def write_scores(path: Path, run: Run, result: Mapping[str, Any]) -> None:
  """Writes the scores of each seed, its config and hyperparameters, once."""
  with contextlib.suppress(OSError):  # result.json has all of it
    for seed in result.get("seeds", ()):
      folder = path / "tensorboard" / f"seed{seed}" / "scores"
      folder.mkdir(parents=True, exist_ok=True)
      for old in folder.glob(f"{events.NAME}*"):
        old.unlink()
      records = [events.opening(None), *_records(run, seed, result)]
      (folder / events.file_name(folder)).write_bytes(b"".join(records))


def _records(run: Run, seed: int, result: Mapping[str, Any]) -> Iterator[bytes]:
  config = flatten(run.config)
  yield _framed(summary.text("config", _table(config)))
  scores = list(_scores(seed, result))
  for tag, length, value in scores:
    yield events.framed(events.scalar(tag, value), length)
  longest = {tag: value for tag, _, value in scores}  # lengths grow
  plain = {key: value for key, value in config.items() if _is_plain(value)}
  plain |= {key: str(value) for key, value in config.items() if key not in plain}
  for part in summary.hparams({"group": run.group, "seed": seed, **plain}, longest):
    yield _framed(part)


def _scores(seed: int, result: Mapping[str, Any]) -> Iterator[tuple[str, int, float]]:
  for score in result.get("scores", ()):
    if score["seed"] == seed and score["value"] is not None:
      part = "" if score["part"] == "mean" else f"_{score['part']}"
      yield f"scores/{score['measure']}{part}", score["length"], score["value"]


def _framed(part: Any) -> bytes:
  return events.framed(Event(summary=part), 0)


def _is_plain(value: Any) -> bool:
  return isinstance(value, (bool, int, float, str))


def _table(config: Mapping[str, Any]) -> str:
  """Returns the config as a table of Markdown, which TensorBoard shows as one."""
  lines = ["| key | value |", "|---|---|"]
  return "\n".join(
    lines + [f"| {key} | `{value!r}` |" for key, value in config.items()]
  )
