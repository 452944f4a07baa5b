"""Dense layers that keep their largest hidden units alone."""

import dataclasses
import statistics

import jax
import jax.numpy as jnp

from transformer_jax.models.feedforward_kinds.base import FeedForwardKind, feedforwards
from transformer_jax.spec import SpecError


@feedforwards.register("sparse")
@dataclasses.dataclass(frozen=True)
class SparseUnits(FeedForwardKind):
  """Dense, with hidden units that are 0 where they are not among the largest ones.

      h <- relu(h - (mean + std normal_quantile(sparsity))),   then the activation

  Statistical top-k: a threshold for each token, without sorting. You et al., 2025,
  Spark Transformer, https://arxiv.org/abs/2506.06644; Gemma 3n. With a gated activation
  h are the gates.

  sparsity   share of hidden units that are 0, if they are normally distributed

  >>> kind, h_BLF = feedforwards.build("sparse(0.5)"), jnp.array([[[-1.0, 0.0, 4.0]]])
  >>> kind.sparsify(h_BLF).tolist()  # above the mean
  [[[0.0, 0.0, 3.0]]]
  """

  sparsity: float = 0.95

  def __post_init__(self):
    if isinstance(self.sparsity, bool) or not 0 < self.sparsity < 1:
      raise SpecError(
        f"sparse: sparsity is {self.sparsity!r}; write a share between 0 and 1, as"
        " sparsity=0.95, or dense"
      )

  def sparsify(self, h_BLF):
    quantile = statistics.NormalDist().inv_cdf(self.sparsity)
    wide_BLF = h_BLF.astype(jnp.float32)
    mean_BL1 = jnp.mean(wide_BLF, axis=-1, keepdims=True)
    std_BL1 = jnp.std(wide_BLF, axis=-1, keepdims=True)
    return jax.nn.relu(wide_BLF - (mean_BL1 + std_BL1 * quantile)).astype(h_BLF.dtype)
