"""DeepSeek sparse attention. DeepSeek-AI, 2025. https://arxiv.org/abs/2512.02556"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.bound_variant import by_heads
from transformer_jax.attention.variants.mla import latent_of_queries
from transformer_jax.attention.variants.selection import nth_largest
from transformer_jax.axes import check_whole
from transformer_jax.forwarding import computed
from transformer_jax.matmul import project_by
from transformer_jax.normalization import layer_norm
from transformer_jax.positions import PositionalEncoding, positions
from transformer_jax.positions.rope import Rope
from transformer_jax.spec import SpecError


@attentions.register("dsa")
@dataclasses.dataclass(frozen=True)
class DeepSeekSparse(Variant):
  """A query attends to the k keys that an indexer of a few small heads finds best.

      I_ij = sum over n of w_in relu(a_in . b_j / sqrt(W)), w_i = W_w x_i / sqrt(N)
      w_ij > 0 where j is among the k keys of largest I_ij that i may attend to

  All heads of attention share the choice. The N heads of the indexer have queries
  a = W_a x and weights w of each token, and one key b = layer_norm(W_b x), of W
  features. The choice has no gradient, so the indexer keeps the parameters that it
  starts with or is loaded with, unless `learned`. Keys that tie with the k-th are
  chosen too. This is the definition: all scores are computed, and masked.

  k         number of chosen keys
  heads     of the indexer, N
  width     of its queries and keys, W
  part      its first features that are rotated by the positions; 0: none
  latent    width of MLA's latent of queries, from which it makes its own, as DeepSeek
            V3.2 does; 0: from the tokens
  relu      False: a product below zero takes away from the sum
  weighted  False: all heads of the indexer count alike
  learned   gradients reach the indexer as if I was added to the scores of attention
  position  RoPE that rotates them, or a scaled one, as 'rope_yarn(factor=40)': DeepSeek
            V3.2 has that of its attention, with pairs in halves
  epsilon   added to variances by the norm of keys

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> dsa = tj.attentions.build("dsa(2, heads=1, width=1, weighted=False)")
  >>> key_BLW = np.array([3.0, 1, 2, 4]).reshape(1, 4, 1)
  >>> data = {"index_query_BLNW": np.ones((1, 4, 1, 1)), "index_key_BLW": key_BLW}
  >>> at = tj.positions.coords.consecutive(1, 4).replace(data=data)
  >>> mask_BLM = np.tri(4, dtype=bool)[None]
  >>> chosen_BHLM = jax.jit(dsa.select)({}, None, None, at, at, mask_BLM)
  >>> print(np.asarray(chosen_BHLM & mask_BLM[:, None])[0, 0].astype(int))
  [[1 0 0 0]
   [1 1 0 0]
   [1 0 1 0]
   [1 0 0 1]]
  """

  k: int = 64
  heads: int = 4
  width: int = 32
  part: int = 0
  latent: int = 0
  relu: bool = True
  weighted: bool = True
  learned: bool = False
  position: Any = "rope"
  epsilon: float = 1e-6

  def __post_init__(self):
    check_whole(self, k=1, heads=1, width=1, part=0, latent=0)
    if self.part % 2 or self.part > self.width:
      raise SpecError(
        f"dsa: part is {self.part}; write an even number up to its width, {self.width}"
      )
    object.__setattr__(self, "position", positions.build(self.position))
    if not rotates_alone(self.position):
      raise SpecError(
        f"dsa: position is {self.position.name}, and the indexer turns by the position"
        " alone, without parameters; write rope, or a scaled one such as rope_yarn"
      )

  @computed
  def untrained(self) -> tuple[str, ...]:
    names = ("query_DNW", "query_QNW", "key_DW", "head_DN", "gain_W", "shift_W")
    return () if self.learned else tuple(f"index_{name}" for name in names)

  def weights(self, dims):
    D, N, W = dims.D, self.heads, self.width
    source, width = ("Q", self.latent) if self.latent else ("D", D)
    shapes = {
      f"index_query_{source}NW": ((width, N, W), 1),
      "index_key_DW": ((D, W), 1),
    }
    return shapes | ({"index_head_DN": ((D, N), 1)} if self.weighted else {})

  def init(self, key, dims):
    return {
      "index_gain_W": jnp.ones(self.width),
      "index_shift_W": jnp.zeros(self.width),
    }

  def borrow(self, params, weights, projections):
    if not self.latent:
      return params
    made = weights["query_down_DQ"].shape[-1] if "query_down_DQ" in weights else 0
    if made != self.latent:
      other = f"makes one of {made}" if made else "does not make"
      raise ValueError(
        f"dsa(latent={self.latent}) reads the latent of queries, which this attention"
        f" {other}; write mla(queries={self.latent}) + dsa, or latent={made}"
      )
    names = ("query_down_DQ", "query_gain_Q")
    borrowed = {name: weights[name] for name in names if name in weights}
    return params | borrowed | {"query_epsilon": jnp.asarray(projections.epsilon)}

  def token_data(self, params, x_BLD, q_BLHK):
    x_BLD = x_BLD if self.learned else jax.lax.stop_gradient(x_BLD)
    norm = params["index_gain_W"], params["index_shift_W"]
    data = {
      "index_query_BLNW": self._queries(params, x_BLD),
      "index_key_BLW": layer_norm(
        project_by(x_BLD, params, "index_key_DW"), *norm, self.epsilon
      ),
    }
    if self.weighted:
      head_BLN = project_by(x_BLD, params, "index_head_DN")
      data["index_head_BLN"] = head_BLN * self.heads**-0.5
    return {name: x.astype(jnp.float32) for name, x in data.items()}

  def _queries(self, params, x_BLD):
    """Returns the queries of the indexer, BLNW."""
    if not self.latent:
      return project_by(x_BLD, params, "index_query_DNW")
    latent_BLQ = latent_of_queries(params, x_BLD, params["query_epsilon"])
    return project_by(latent_BLQ, params, "index_query_QNW")

  def accumulate(self, params, data, at):
    if not self.part:
      return data
    q_BLNW = self._rotated(data["index_query_BLNW"], at)
    k_BL1W = self._rotated(data["index_key_BLW"][:, :, None], at)
    return data | {"index_query_BLNW": q_BLNW, "index_key_BLW": k_BL1W[:, :, 0]}

  def _rotated(self, x_BLNW, at):
    """Returns queries or keys of the indexer with their first part rotated."""
    part_BLNP, rest = jnp.split(x_BLNW, [self.part], axis=-1)
    part_BLNP = self.position.rotate({}, part_BLNP, at.pos_BL)
    return jnp.concatenate([part_BLNP, rest], axis=-1)

  def select(self, params, q_BLHK, k_BMHK, q_at, k_at, mask_BLM):
    index_BLM = self.index(q_at.data, k_at.data)
    mask_B1LM = by_heads(mask_BLM)
    rival_B1LM = jnp.where(mask_B1LM, by_heads(index_BLM), -jnp.inf)
    rival_B1LM = jax.lax.stop_gradient(rival_B1LM)
    return rival_B1LM >= nth_largest(rival_B1LM, self.k)

  def score(self, params, s_LM, tile):
    if not self.learned:
      return s_LM
    index_LM = self.index(tile.q_data, tile.k_data)
    return s_LM + index_LM - jax.lax.stop_gradient(index_LM)

  def index(self, q_data, k_data):
    """Returns the indexer's scores [..., L, M] of token data of queries and keys."""
    a, b = q_data["index_query_BLNW"], k_data["index_key_BLW"]
    product = jnp.einsum("...LNW,...MW->...NLM", a, b) * self.width**-0.5
    product = jax.nn.relu(product) if self.relu else product
    if not self.weighted:
      return jnp.sum(product, axis=-3)
    return jnp.einsum("...NLM,...LN->...LM", product, q_data["index_head_BLN"])


def rotates_alone(encoding: PositionalEncoding) -> bool:
  """Returns whether an encoding is RoPE by the position alone, without parameters."""
  plain = isinstance(encoding, Rope) and type(encoding).rotate is Rope.rotate
  return plain and not any(map(encoding.overrides, ("init", "transform_qk")))
