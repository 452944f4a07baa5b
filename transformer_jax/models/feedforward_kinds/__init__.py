"""Kinds of feed-forward layers: dense, experts with a router, mixtures by layer."""

from transformer_jax.models.feedforward_kinds.base import FeedForwardKind, feedforwards
from transformer_jax.models.feedforward_kinds.experts import Experts
from transformer_jax.models.feedforward_kinds.kinds_by_layer import (
  KindsByLayer,
  LeadingLayers,
)
from transformer_jax.models.feedforward_kinds.sparse_units import SparseUnits

__all__ = [
  "Experts",
  "FeedForwardKind",
  "KindsByLayer",
  "LeadingLayers",
  "SparseUnits",
  "feedforwards",
]
