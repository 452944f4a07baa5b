"""The evaluations that a task may name by `Task.generation`."""

from typing import Any

from transformer_jax.evaluation.generation_eval import GenerationEval
from transformer_jax.evaluation.rollout_eval import RolloutEval
from transformer_jax.evaluation.summary_eval import SummaryEval
from transformer_jax.evaluation.task_evaluation import TaskEvaluation
from transformer_jax.evaluation.valid_texts import ValidTextsEval
from transformer_jax.spec import SpecError, nearest

KINDS: dict[str, type[TaskEvaluation]] = {
  kind.kind: kind for kind in (GenerationEval, SummaryEval, RolloutEval, ValidTextsEval)
}


def measures() -> dict[str, str]:
  """Returns {measure: which is better} of all evaluations here."""
  return {name: x for kind in KINDS.values() for name, x in kind.measures.items()}


def chosen(task: Any, settings: dict[str, TaskEvaluation]) -> TaskEvaluation:
  """Returns the evaluation that a task names; raises SpecError where it has none.

  settings   evaluations of KINDS by name, as a config sets them
  """
  named = task.generation
  if isinstance(named, TaskEvaluation):
    return named
  if named not in settings:
    raise SpecError(
      f"{type(task).__name__}.generation is {named!r}.{nearest(str(named), settings)}"
      f" Write one of {', '.join(settings)}, or a TaskEvaluation of your own"
    )
  return settings[named]
