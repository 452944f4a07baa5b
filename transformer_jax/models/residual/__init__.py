"""Residual connections of a layer, and the placement of its norms."""

from transformer_jax.models.residual import (
  altup,
  attention_residuals,
  hyper_connections,
  laurel,
  placement_list,
  residual_scales,
  x0_skip,
)
from transformer_jax.models.residual.base import (
  Placement,
  ResidualConnection,
  Stream,
  placements,
)
from transformer_jax.models.residual.norm_placements import (
  NoResidual,
  Parallel,
  PostNorm,
  PreNorm,
  SandwichNorm,
  UpdateNorm,
)

__all__ = [
  "ResidualConnection",
  "NoResidual",
  "Parallel",
  "Placement",
  "PostNorm",
  "PreNorm",
  "SandwichNorm",
  "Stream",
  "UpdateNorm",
  "altup",
  "attention_residuals",
  "hyper_connections",
  "laurel",
  "placement_list",
  "placements",
  "residual_scales",
  "x0_skip",
]
