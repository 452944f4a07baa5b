"""Largest attention logit by layer.

Dehghani et al., 2023, https://arxiv.org/abs/2302.05442: logits that grow make attention
one-hot and training diverge. Kimi Team, 2025, https://arxiv.org/abs/2507.20534, clip by
this number.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.models.recurrent.model import Recurrence
from transformer_jax.training.step_metrics.base import StepMetric, step_metrics


@step_metrics.register("attention_logit_max")
@dataclasses.dataclass(frozen=True)
class AttentionLogitMax(StepMetric):
  """Largest score of a query and a key that it attends to, over heads and texts.

  With the encoding's bias, before a soft-cap. Scores are those of the core `dense`:
  L x M floats for each head and text, in a forward pass of its own.

  >>> from transformer_jax.training.step_metrics.base import PassArrays
  >>> path = "decoder/layer_0/attention"
  >>> s_BHLM = jnp.array([[[[1.0, 9.0], [2.0, 3.0]]]])
  >>> causal_BLM = jnp.tril(jnp.ones((1, 2, 2), bool))
  >>> captured = {"scores": {path: s_BHLM}, "mask": {path: causal_BLM}}
  >>> found = AttentionLogitMax().of_pass(PassArrays(captured, real={}))
  >>> {path: float(x) for path, x in found.items()}
  {'decoder/layer_0/attention': 3.0}
  """

  places: ClassVar[tuple[str, ...]] = ("scores", "mask")

  def of_pass(self, arrays):
    def largest(s_BHLM: jax.Array, mask: jax.Array) -> jax.Array:
      mask_BHLM = mask if mask.ndim == 4 else mask[:, None]
      return jnp.where(mask_BHLM, s_BHLM, -jnp.inf).max()

    scores, masks = arrays.captured["scores"], arrays.captured["mask"]
    return {path: largest(s_BHLM, masks[path]) for path, s_BHLM in scores.items()}

  def refusal(self, model):
    if isinstance(model.arch, Recurrence):
      return (
        "the scores of a recurrent model are made step by step, inside of its loop;"
        " leave attention_logit_max out"
      )
    return None
