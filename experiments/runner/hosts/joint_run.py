"""One run on several processes: the leader decides and records, all of them train."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.runner.run_folder import Outcome
from transformer_jax import hosts

Train = Callable[[Path], dict[str, Any] | None]
NEXT = "the next task"


def perform(attempt: Callable[[Train], Outcome], train: Train) -> Outcome:
  """Returns the outcome of a run, on all processes that of the leader.

  attempt   works on the run's folder and calls its argument to train
  train     takes the run's folder; all processes must call it
  """
  if hosts.count() == 1:
    return attempt(train)
  return _lead(attempt, train) if hosts.is_leader() else _follow(train)


def _lead(attempt: Callable[[Train], Outcome], train: Train) -> Outcome:
  def train_all(folder: Path) -> dict[str, Any] | None:
    hosts.group().exchange(NEXT, {"folder": str(folder)})
    return hosts.together("the training", functools.partial(train, folder))

  outcome = attempt(train_all)
  hosts.group().exchange(NEXT, dataclasses.asdict(outcome))
  return outcome


def _follow(train: Train) -> Outcome:
  while "folder" in (task := hosts.group().exchange(NEXT, None)[0]):
    # The leader has the error too, and records it.
    with contextlib.suppress(Exception):
      hosts.together("the training", functools.partial(train, Path(task["folder"])))
  return Outcome(**task)
