"""Tensor product attention. Zhang et al., 2025. https://arxiv.org/abs/2501.06425"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.projections import Arrays, Projections, Weights
from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.axes import check_whole
from transformer_jax.matmul import project_by


@dataclasses.dataclass(frozen=True)
class TensorProducts(Projections):
  """Projections to factors of queries, keys and values, of heads and of features.

  A cache stores the factors of keys and values. Arguments as in `TPA`.

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=8)
  >>> weights = tj.attentions.build("tpa(rank=2)").projections().weights(dims)
  >>> weights["key_heads_DCH"], weights["key_features_DCK"]
  (((64, 2, 8), 1), ((64, 2, 8), 1))
  """

  rank: int
  queries: int

  def weights(self, dims):
    D, H, K, C, Q = dims.D, dims.H, dims.K, self.rank, self.queries
    shapes: Weights = {"query_DHK": ((D, H, K), 1)}
    if Q:
      shapes = {"query_heads_DQH": ((D, Q, H), 1), "query_features_DQK": ((D, Q, K), 1)}
    shapes |= {"key_heads_DCH": ((D, C, H), 1), "key_features_DCK": ((D, C, K), 1)}
    shapes |= {"value_heads_DCH": ((D, C, H), 1), "value_features_DCK": ((D, C, K), 1)}
    return shapes | {"out_HKD": ((H, K, D), 2)}

  def query(self, w, x_BLD):
    if not self.queries:
      return project_by(x_BLD, w, "query_DHK")
    return product(self.factors(w, "query", x_BLD), "query")

  def memory(self, w, x_BMD):
    return self.factors(w, "key", x_BMD) | self.factors(w, "value", x_BMD)

  def read(self, w, kept):
    return product(kept, "key"), product(kept, "value")

  def factors(self, w: Arrays, name: str, x_BLD: jax.Array) -> Arrays:
    """Returns the factors of queries, keys or values by name."""
    return {
      key.rpartition("_")[0]: project_by(x_BLD, w, key)
      for key in w
      if key.startswith((f"{name}_heads", f"{name}_features"))
    }


def product(factors: Arrays, name: str) -> jax.Array:
  """Returns x_BLHK, the mean over ranks of outer products of two factors."""
  heads_BLRH, features_BLRK = (factors[f"{name}_{of}"] for of in ("heads", "features"))
  x_BLHK = jnp.einsum(
    "BLRH,BLRK->BLHK", heads_BLRH, features_BLRK, preferred_element_type=jnp.float32
  )
  return (x_BLHK / heads_BLRH.shape[2]).astype(heads_BLRH.dtype)


@attentions.register("tpa")
@dataclasses.dataclass(frozen=True)
class TPA(Variant):
  """Queries, keys and values of all heads are matrices of low rank, made of each token.

      K_j = 1/rank sum over r of a_r(x_j) b_r(x_j)^T, heads x features; Q and V likewise

  A cache stores the factors, 2 rank (H + K) numbers of a token. The paper rotates the
  factors b, of features, before they are cached. That gives the same queries and keys
  as a rotation of the products, which is done here, since it acts on features alone.

  rank      of keys and values
  queries   rank of queries; 0: projected from the tokens, of full rank

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> x_BLD = np.ones((1, 1, 1))
  >>> w = {"query_heads_DQH": np.array([[[1.0, 2]]])}
  >>> w |= {"query_features_DQK": np.array([[[3.0, 4, 5]]])}
  >>> tpa = tj.attentions.build("tpa(queries=1)").projections()
  >>> print(jax.jit(tpa.query)(w, x_BLD)[0, 0])
  [[ 3.  4.  5.]
   [ 6.  8. 10.]]
  """

  rank: int = 2
  queries: int = 6

  def __post_init__(self):
    check_whole(self, rank=1, queries=0)

  def projections(self):
    return TensorProducts(self.rank, self.queries)
