"""Cross-attention maps of generated texts.

Bahdanau et al., 2015, figure 3. https://arxiv.org/abs/1409.0473
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.attention.cores.dense import Dense
from transformer_jax.evaluation.translator import NOTHING, Translator
from transformer_jax.models.param_tree import flat, nested, one_by_one
from transformer_jax.positions import coords


@dataclasses.dataclass(frozen=True, eq=False)
class RecordingDense(Dense):
  """Attends as `dense` does and records the weights between two texts.

  weights   w_BLHM of each call, in order
  """

  weights: list

  def attend(self, q_BLHK, k_BMGK, v_BMGE, context):
    L, (B, M, G, _) = q_BLHK.shape[1], v_BMGE.shape
    if L != M:
      # The mixture of one-hot values is the weights themselves.
      one_hot_BMGM = jnp.broadcast_to(jnp.eye(M)[None, :, None, :], (B, M, G, M))
      w_BLHM = super().attend(q_BLHK, k_BMGK, one_hot_BMGM, context)
      self.weights.append(np.asarray(w_BLHM))
    return super().attend(q_BLHK, k_BMGK, v_BMGE, context)


def attention_map(
  translator: Translator, source: str, found: str | None
) -> dict[str, Any]:
  """Returns {source, found: pieces, weights_LM}; {} if there is no cross-attention.

  {} also for a model that has diverged. Weights are the mean over heads of the last
  layer with cross-attention. Row n has the weights at the generation of piece n.

  found   the generated text; None: none was generated
  """
  if found is None:
    return {}
  tokenizer, model = translator.tokenizer, translator.model
  read, written = (tokenizer.encode(text) for text in (source, found))
  read, written = (row[: translator.max_length - 1] for row in (read, written))
  source_tokens = [*read, tokenizer.end]
  target_tokens = [tokenizer.start, *written]
  # `RecordingDense` recognizes cross-attention by its unequal lengths.
  source_tokens += [NOTHING] * (len(source_tokens) == len(target_tokens))
  source_1M, token_1L = jnp.array([source_tokens]), jnp.array([target_tokens])
  recorded: list[np.ndarray] = []
  arch = dataclasses.replace(model.arch, core=RecordingDense(recorded), dtype="float32")
  source_at = coords.padded(source_1M != NOTHING)
  source_1M = jnp.maximum(source_1M, 0)
  arch, params = _without_scan(arch, jax.tree.map(jnp.asarray, translator.params))
  # Outside of jit, the weights of each step of a loop are concrete arrays.
  with jax.disable_jit():
    model.clone(arch=arch).apply(
      {"params": params}, token_1L, None, source_1M, source_at
    )
  weight_LM = _last(recorded, token_1L.shape[1]) if recorded else np.array(np.nan)
  if not np.isfinite(weight_LM).all():
    return {}
  pieces = tokenizer.pieces
  return {
    "source": [pieces[n] for n in (*read, tokenizer.end)],
    "found": [pieces[n] for n in (*written, tokenizer.end)],
    "weights_LM": np.round(weight_LM[:, : len(read) + 1], 4).tolist(),
  }


def _without_scan(arch: Any, params: Any) -> tuple[Any, Any]:
  """Returns a model's layers one by one: in a scan, weights would be traced."""
  if not getattr(arch, "scan", False):
    return arch, params
  return dataclasses.replace(arch, scan=False), nested(one_by_one(flat(params)))


def _last(recorded: list[np.ndarray], L: int) -> np.ndarray:
  """Returns the mean over heads of the last L rows of recorded weights."""
  weight_LHM = np.concatenate([w_BLHM[0] for w_BLHM in recorded])[-L:]
  return weight_LHM.mean(axis=1)
