"""Identity of a run: a hash of the config keys that training reads.

Seeds and evaluate.* are no part of it: a run takes further seeds, and is scored again.

A key that is added to configs/base.py gets a line in NEUTRAL: finished runs keep their
ids, and those that set the key to another value get new ones.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from experiments.setup.former_values import in_ids, today

# Not part of a run's id, as all keys of evaluation.
FREE = (
  *("train.checkpoint_every", "train.keep_checkpoints", "train.text", "seeds"),
  "train.metrics",
)
SCORED = "evaluate."
# They change last digits (5e-7 of a score), and reports note where runs differ in them.
ROUNDING = ("evaluate.batch_size", "evaluate.texts_per_step")

# Keys that were added after runs had finished, with the value that means the behaviour
# of the code before them.
NEUTRAL = {
  "train.ema": 0.0,
  "train.auxiliary": (),
  "model.feedforward_kind": "dense",
  "model.convolution": "none",
  "evaluate.split": "",
  "evaluate.measures": (),
  "evaluate.rollouts": 16,
  "evaluate.target_returns": (),
  "train.text": "auto",
  "train.metrics": (),
  "train.accumulate": 1,
  "mesh.fsdp": 1,
  "mesh.seed": 1,
  "mesh.pmap": False,
}


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the entries of a flat config that can change what is trained."""
  return {
    key: value
    for key, value in aged(config).items()
    if key not in FREE and not key.startswith(SCORED)
  }


def evaluation(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the entries of a flat config that say what is scored."""
  return {
    key: value
    for key, value in completed(config).items()
    if key.startswith(SCORED) and key not in ROUNDING
  }


def aged(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a flat config as an older version of the code wrote it.

  Without the added keys at their neutral value, and with former values.
  """

  def neutral(key: str, value: Any) -> bool:
    value = tuple(value) if isinstance(value, list) else value  # JSON has no tuples
    return key in NEUTRAL and NEUTRAL[key] == value

  return {
    key: in_ids(key, value) for key, value in config.items() if not neutral(key, value)
  }


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the flat config of an older run with the keys and values of today."""
  return {key: today(key, value) for key, value in {**NEUTRAL, **config}.items()}


def run_id(config: Mapping[str, Any]) -> str:
  """Returns a short hash of a flat config's identity.

  Lists and tuples are alike, so that it is also that of a config read from a file.
  """
  text = json.dumps(identity(config), sort_keys=True, separators=(",", ":"))
  return hashlib.sha256(text.encode()).hexdigest()[:10]
