"""Cross-attention maps of generated texts.

Bahdanau et al., 2015, figure 3. https://arxiv.org/abs/1409.0473
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.evaluation import activations
from transformer_jax.evaluation.translator import Translator
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
  source_1M, token_1L = jnp.array([source_tokens]), jnp.array([target_tokens])
  reads = token_1L, None, source_1M, coords.padded(source_1M >= 0)
  arch = dataclasses.replace(model.arch, dtype="float32")
  params = jax.tree.map(jnp.asarray, translator.params)
  weights = activations.attention_weights(model.clone(arch=arch), params, *reads)
  cross = [w_BHLM for path, w_BHLM in weights.items() if path.endswith("/cross")]
  weight_LM = np.asarray(cross[-1][0].mean(axis=0)) if cross else np.array(np.nan)
  if not np.isfinite(weight_LM).all():
    return {}
  pieces = tokenizer.pieces
  return {
    "source": [pieces[n] for n in (*read, tokenizer.end)],
    "found": [pieces[n] for n in (*written, tokenizer.end)],
    "weights_LM": np.round(weight_LM[:, : len(read) + 1], 4).tolist(),
  }
