"""Models as pure-functional Flax modules: `init(key, ...)` and `apply(params, ...)`."""

from transformer_jax.models import pointwise_norms  # noqa: F401, fills the registry
from transformer_jax.models.caches import empty_cache
from transformer_jax.models.families import families
from transformer_jax.models.layer_embeddings import LayerTokens
from transformer_jax.models.number_embeddings import NumberEmbedding
from transformer_jax.models.recurrent.model import Recurrent
from transformer_jax.models.trajectory_embedding import TrajectoryEmbedding
from transformer_jax.models.transformer import Architecture, Transformer

__all__ = [
  "Architecture",
  "LayerTokens",
  "NumberEmbedding",
  "Recurrent",
  "TrajectoryEmbedding",
  "Transformer",
  "empty_cache",
  "families",
]
