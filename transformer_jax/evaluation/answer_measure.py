"""Share of right answers, where a text asks several questions."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.evaluation.measures import Measure, Outputs, measures
from transformer_jax.spec import SpecError


@measures.register("answers")
@dataclasses.dataclass(frozen=True)
class WholeAnswers(Measure):
  """Share of the answers of which all tokens are predicted.

  Every answer token is predicted from the right ones: greedy decoding equals this. The
  task says which answer a target belongs to, and what is asked, in coordinates of the
  scored batch: `answer_BL`, the number of the answer, or 0, and other ids.

  of      name of an id, as in `answers('hops', 4)`: only answers with the value count
  value   of the id

  >>> WholeAnswers("hops", 4).of
  'hops'
  """

  quarter: ClassVar[bool] = False
  bounds: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)

  of: str = ""
  value: int = 0

  def score(self, outputs):
    answer_BL, id_BL = (
      self._id(outputs, "answer"),
      self._id(outputs, self.of or "answer"),
    )
    counts_BL = (outputs.weight_BL > 0) & (answer_BL > 0)
    if self.of:
      counts_BL &= id_BL == self.value
    wrong_BL = jnp.argmax(outputs.logits_BLV, axis=-1) != outputs.target_BL
    return jax.vmap(share_right)(answer_BL, counts_BL, wrong_BL)

  def _id(self, outputs: Outputs, name: str) -> jax.Array:
    ids = outputs.reads[1].data
    if f"{name}_BL" not in ids:
      known = ", ".join(sorted(each.removesuffix("_BL") for each in ids)) or "none"
      raise SpecError(
        f"answers: this task has no ids named {name!r} (it has {known}); choose one of"
        " them, or the measure exact_match"
      )
    return ids[f"{name}_BL"]


def share_right(answer_L: jax.Array, counts_L: jax.Array, wrong_L: jax.Array):
  """Returns the share of the answers without a wrong token; NaN: there is no answer.

  answer_L   number of the answer that a target belongs to; 0: none
  counts_L   whether the target counts
  wrong_L    whether it is predicted wrongly
  """
  none_N = jnp.zeros(answer_L.shape[0] + 1, bool)
  answered_N = none_N.at[answer_L].max(counts_L)
  failed_N = none_N.at[answer_L].max(counts_L & wrong_L)
  return 1 - jnp.sum(failed_N) / jnp.sum(answered_N)
