"""Generated texts of a run: their scores for result.json, and translations.json."""

import functools
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from experiments.runner.build import Experiment
from transformer_jax import global_arrays, hosts
from transformer_jax.evaluation.translator import Translator
from transformer_jax.training import sharding
from transformer_jax.training.json_files import write_json


def write(
  experiment: Experiment, fitted: Any, params: Any, mesh: Mesh, folder: Path
) -> dict[str, Any]:
  """Returns the scores of each seed's texts; {} where the task has none.

  fitted   `TaskData.fitted` of its task
  params   those of all seeds, stacked
  folder   where translations.json goes, with the texts
  """
  writing, seeds = experiment.writing, experiment.seeds
  examples = experiment.task.generation_set(fitted) if writing.most else None
  if examples is None:
    return {}
  trainer, all_params = experiment.trainer, global_arrays.read(params)
  tokenizer, place = examples.tokenizer, functools.partial(sharding.place_rows, mesh)

  def translator(seed_index: int) -> Translator:
    # On the devices once, not with every batch of texts.
    own = jax.tree.map(lambda x: x[seed_index], all_params)
    own = sharding.whole(mesh, own)
    return Translator(trainer.model, own, tokenizer, trainer.length, place)

  scores = writing.record(examples, [translator(n) for n in range(len(seeds))])
  hypotheses = scores.pop("all")  # one list of texts for each seed, of the first texts
  lines = [
    {"source": source, "reference": reference}
    | {f"seed {seed}": text for seed, text in zip(seeds, texts, strict=True)}
    for source, reference, *texts in zip(
      examples.sources, examples.references, *hypotheses, strict=False
    )
  ]
  hosts.from_leader(
    "the texts", lambda: write_json(folder / "translations.json", lines)
  )
  return scores
