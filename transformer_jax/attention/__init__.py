"""Attention: variants (what is computed) and cores (how it is computed)."""

from transformer_jax.attention.cores import Core, KeyedDropout
from transformer_jax.attention.mixers import Mixer, StateCache
from transformer_jax.attention.variants import PLAIN, BoundVariant, Variant, attentions

__all__ = [
  "PLAIN",
  "Core",
  "KeyedDropout",
  "BoundVariant",
  "Variant",
  "attentions",
  "Mixer",
  "StateCache",
]
