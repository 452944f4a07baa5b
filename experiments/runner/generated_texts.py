"""What a run's models make by themselves: scores for result.json, and a file of it."""

import functools
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from experiments.runner.build import Experiment
from transformer_jax import global_arrays, hosts
from transformer_jax.training import sharding
from transformer_jax.training.json_files import write_json


def write(
  experiment: Experiment, fitted: Any, params: Any, mesh: Mesh, folder: Path
) -> dict[str, Any]:
  """Returns the scores of what each seed makes; {} where the task has nothing to make.

  fitted   `TaskData.fitted` of its task
  params   those of all seeds, stacked
  folder   where the file goes with what was made, such as translations.json
  """
  evaluation, seeds = experiment.generation, experiment.seeds
  examples = experiment.task.generation_set(fitted) if evaluation.most else None
  if examples is None:
    return {}
  trainer, all_params = experiment.trainer, global_arrays.read(params)
  place = functools.partial(sharding.place_rows, mesh)

  def agent(seed_index: int) -> Any:
    # On the devices once, not with every batch.
    own = jax.tree.map(lambda x: x[seed_index], all_params)
    own = sharding.whole(mesh, own)
    return evaluation.agent(examples, trainer.model, own, trainer.length, place)

  record = evaluation.recorded(examples, [agent(n) for n in range(len(seeds))])
  made = record.pop("all")
  if evaluation.file:
    lines = evaluation.lines(examples, made, seeds)
    hosts.from_leader(
      "what was made", lambda: write_json(folder / evaluation.file, lines)
    )
  return record
