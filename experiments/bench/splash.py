"""Splash attention, JAX's own kernel for TPUs, as benchmarks compare with it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

TILE = 512  # queries and keys in a tile


def causal_splash(
  L: int, H: int, interpret: bool = False
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
  """Returns causal attention, (q_BHLK, k_BHLK, v_BHLK) -> out_BHLK.

  L           tokens of a text
  H           heads
  interpret   run the kernel as ordinary JAX

  It takes no bias, and heads before tokens.
  """
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernel,
  )
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
  )

  names = [field.name for field in dataclasses.fields(kernel.BlockSizes)]
  sizes: dict[str, Any] = {n: min(TILE, L) for n in names if n.startswith("block")}
  attend = kernel.make_splash_mha(
    masks.MultiHeadMask([masks.CausalMask((L, L))] * H),
    head_shards=1,
    q_seq_shards=1,
    block_sizes=kernel.BlockSizes(**sizes),
    interpret=interpret,
  )

  def scaled(q_BHLK, k_BHLK, v_BHLK):
    return jax.vmap(attend)(q_BHLK * q_BHLK.shape[-1] ** -0.5, k_BHLK, v_BHLK)

  return scaled
