"""Mixers: layers that keep a state of fixed size, instead of all keys and values."""

from transformer_jax.attention.mixers import gated_conv as gated_conv
from transformer_jax.attention.mixers import gated_delta as gated_delta
from transformer_jax.attention.mixers import rg_lru as rg_lru
from transformer_jax.attention.mixers.base import Mixer as Mixer
from transformer_jax.attention.mixers.base import StateCache as StateCache
