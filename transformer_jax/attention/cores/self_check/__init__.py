"""Checks of kernels on the device that runs them, before a model uses one."""

from transformer_jax.attention.cores.self_check.outcomes import failure
from transformer_jax.attention.cores.self_check.scheme import CallScheme, scheme_of

__all__ = ["CallScheme", "failure", "scheme_of"]
