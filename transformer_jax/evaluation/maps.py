"""Cross-attention maps of generated texts.

Bahdanau et al., 2015, figure 3. https://arxiv.org/abs/1409.0473
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.evaluation.activations import RecordingDense, without_scan
from transformer_jax.evaluation.translator import NOTHING, Translator
from transformer_jax.positions import coords


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
  # Cross-attention is recognized by its unequal lengths.
  source_tokens += [NOTHING] * (len(source_tokens) == len(target_tokens))
  source_1M, token_1L = jnp.array([source_tokens]), jnp.array([target_tokens])
  recorded: list[jax.Array] = []
  arch = dataclasses.replace(model.arch, core=RecordingDense(recorded), dtype="float32")
  source_at = coords.padded(source_1M != NOTHING)
  source_1M = jnp.maximum(source_1M, 0)
  arch, params = without_scan(arch, jax.tree.map(jnp.asarray, translator.params))
  # Outside of jit, the weights of each step of a loop are concrete arrays.
  with jax.disable_jit():
    model.clone(arch=arch).apply(
      {"params": params}, token_1L, None, source_1M, source_at
    )
  cross = [np.asarray(w_BHLM) for w_BHLM in recorded if len({*w_BHLM.shape[2:]}) > 1]
  weight_LM = _last(cross, token_1L.shape[1]) if cross else np.array(np.nan)
  if not np.isfinite(weight_LM).all():
    return {}
  pieces = tokenizer.pieces
  return {
    "source": [pieces[n] for n in (*read, tokenizer.end)],
    "found": [pieces[n] for n in (*written, tokenizer.end)],
    "weights_LM": np.round(weight_LM[:, : len(read) + 1], 4).tolist(),
  }


def _last(recorded: list[np.ndarray], L: int) -> np.ndarray:
  """Returns the mean over heads of the last L rows of recorded weights, w_BHLM."""
  weight_HLM = np.concatenate([w_BHLM[0] for w_BHLM in recorded], axis=1)[:, -L:]
  return weight_HLM.mean(axis=0)
