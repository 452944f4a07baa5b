"""Statistics of heads as measures of evaluation: figures for a sweep's report."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from transformer_jax.analysis.head_analysis import scores
from transformer_jax.analysis.head_batch import Vocabulary, has_tokens, layers
from transformer_jax.analysis.head_statistic import head_statistics
from transformer_jax.evaluation.measures import ANY, Measure, Outputs, measures
from transformer_jax.spec import SpecError

# What a statistic may need and an evaluation, one batch after another, does not have.
ABSENT = {
  "delimiters": "evaluation does not know the texts of tokens",
  "texts": "evaluation reads a batch at a time, and it compares a text with all others",
}
REDUCE: dict[str, Any] = {"mean": jnp.nanmean, "max": jnp.nanmax, "min": jnp.nanmin}


@measures.register("head_statistic")
@dataclasses.dataclass(frozen=True)
class HeadStatisticMeasure(Measure):
  """A statistic of attention heads in each example: the mean over heads, or an end.

  statistic   spec of a registered one, 'previous', or of your own, 'my_file:Mine()';
              counts of tokens are those of the examples that are scored at once
  over        "mean" of all heads, or the "max" or "min" of them
  layers      end of the paths of layers that count, as in "cross"; "": all

  The model runs once more with the core `dense`. It is no aim, though a report calls
  higher values better. NaN of an example in which no query has such a key.

  >>> HeadStatisticMeasure("previous", over="max").over
  'max'
  """

  better: ClassVar[str] = "higher"
  targets: ClassVar[str] = ANY
  quarter: ClassVar[bool] = False

  statistic: str
  over: str = "mean"
  layers: str = ""

  def __post_init__(self):
    found = head_statistics.build(self.statistic)
    for need in sorted(found.needs & {*ABSENT}):
      raise SpecError(
        f"head_statistic({self.statistic!r}): {ABSENT[need]}; use python -m"
        " experiments.heads"
      )
    if self.over not in REDUCE:
      raise SpecError(f"over is {self.over!r}; write {', '.join(REDUCE)}")

  @property
  def bounds(self) -> tuple[float | None, float | None]:  # type: ignore[override]
    """Returns those of the statistic."""
    return head_statistics.build(self.statistic).bounds

  def score(self, outputs):
    statistic = head_statistics.build(self.statistic)
    if "tokens" in statistic.needs and not has_tokens(outputs.reads[0]):
      raise SpecError(
        f"head_statistic({self.statistic!r}): the inputs of this task are no tokens;"
        " choose another statistic"
      )
    vocabulary = _counted(outputs) if "counts" in statistic.needs else None
    found = layers(outputs.model, outputs.params, outputs.reads, vocabulary)
    chosen = [x for path, x in found.items() if path.endswith(self.layers)]
    if not chosen:
      raise SpecError(
        f"layers={self.layers!r}: no layer's path ends so; it has {', '.join(found)}"
      )
    x_BH = jnp.concatenate([scores(statistic, x) for x in chosen], axis=1)
    return REDUCE[self.over](x_BH, axis=1)


def _counted(outputs: Outputs) -> Vocabulary:
  """Returns the counts of the tokens of examples, those of their sources included."""
  token_BL, _, *source = outputs.reads
  vocabulary = Vocabulary(None, jnp.zeros(outputs.model.arch.dims.V))
  vocabulary = vocabulary.counted(token_BL, outputs.real_BL)
  if source and source[0] is not None and has_tokens(source[0]):
    vocabulary = vocabulary.counted(source[0], source[1].real_BL)
  return vocabulary
