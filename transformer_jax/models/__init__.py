"""Models as pure-functional Flax modules: `init(key, ...)` and `apply(params, ...)`."""

from transformer_jax.models.transformer import Architecture, Transformer, empty_cache

__all__ = ["Architecture", "Transformer", "empty_cache"]
