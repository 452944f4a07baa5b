"""Greedy decoding, one token at a time, on the cache."""

import jax
import jax.numpy as jnp

from transformer_jax.models import Transformer, empty_cache
from transformer_jax.models.transformer import Memory
from transformer_jax.positions import Coords, coords


def greedy(
  model: Transformer,
  params,
  prompt_BL: jax.Array,
  steps: int,
  at: Coords | None = None,
  memory: Memory | None = None,
) -> jax.Array:
  """Returns the `steps` most likely next tokens of each prompt, int32 [B, steps].

  `at` says where the prompt's tokens are: prompts of different lengths are padded on
  the left (`coords.padded`). `memory` is what the model's `encode` made of the sources.
  One program; jit it with `steps` static.
  """
  B, L = prompt_BL.shape
  at = at or coords.consecutive(B, L)
  cache = empty_cache(model.arch, B, L + steps)

  def read(token_BL, at, cache):
    variables = {"params": params}
    return model.apply(variables, token_BL, at, memory, cache, method="decode")

  def write(carry, _):
    token_B1, order_B1, cache = carry
    ones_B1 = jnp.ones_like(order_B1)
    here = Coords(order_B1, order_B1, order_B1, ones_B1)
    logits_BLV, cache = read(token_B1, here, cache)
    return (best(logits_BLV), order_B1 + 1, cache), token_B1[:, 0]

  logits_BLV, cache = read(prompt_BL, at, cache)
  start = best(logits_BLV), jnp.broadcast_to(at.order_BL[:, -1:] + 1, (B, 1)), cache
  _, token_NB = jax.lax.scan(write, start, length=steps)
  return token_NB.T


def best(logits_BLV: jax.Array) -> jax.Array:
  """Returns the most likely token after the last one, [B, 1]."""
  return jnp.argmax(logits_BLV[:, -1:], axis=-1).astype(jnp.int32)
