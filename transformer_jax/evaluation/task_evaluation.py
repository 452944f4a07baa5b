"""Evaluation of what a model makes by itself: texts that it writes, games it plays."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar


class TaskEvaluation:
  """Base class of the evaluations that a task names by `Task.generation`.

  kind       name of the evaluation in results
  measures   {measure: "higher" or "lower" is better}, the headline first
  file       name of the file in a run's folder with what was made
  no_score   why a seed has no score
  most       how many things are made; 0: none, and nothing is scored

  >>> class Nothing(TaskEvaluation):
  ...   kind, measures, most = "nothing", {"silence": "higher"}, 1
  ...   def agent(self, examples, model, params, length, place):
  ...     return params
  ...   def record(self, examples, agents):
  ...     return {"texts": 0, "scores": [{"silence": 1.0} for _ in agents], "all": []}
  >>> Nothing().recorded(examples=None, agents=["params"])["better"]
  {'silence': 'higher'}
  """

  kind: ClassVar[str]
  measures: ClassVar[dict[str, str]]
  file: ClassVar[str] = ""
  no_score: ClassVar[str] = "not a number"
  most: int

  def agent(
    self,
    examples: Any,
    model: Any,
    params: Any,
    length: int,
    place: Callable[[Any], Any],
  ) -> Any:
    """Returns the model of one seed as it acts, for `record`.

    examples   result of the task's `generation_set`
    params     parameters of the seed, on the devices
    length     training length
    place      puts rows of an array on the devices
    """
    raise NotImplementedError

  def record(self, examples: Any, agents: Sequence[Any]) -> dict[str, Any]:
    """Returns the record for result.json, JSON but for `all`, what was made.

    texts        number of things that were made
    scores       {measure: value} of each seed, None where it has none
    fingerprint  of what the scores depend on, besides the model
    signatures   versions of what scored
    floors       {baseline: {measure: value}}
    """
    raise NotImplementedError

  def recorded(self, examples: Any, agents: Sequence[Any]) -> dict[str, Any]:
    """Returns `record` with the facts that a result needs to be read."""
    facts = {"kind": self.kind, "better": self.measures, "no_score": self.no_score}
    return facts | self.record(examples, agents)

  def lines(self, examples: Any, made: Any, seeds: Sequence[int]) -> Any:
    """Returns the content of `file`, JSON, from `all` of the record."""
    raise NotImplementedError
