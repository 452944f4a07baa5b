"""Value embeddings: tokens have a vector in the values of a layer too.

Zhou et al., 2024, section 3 (a table in place of the first layer's values),
https://arxiv.org/abs/2410.17897; modded-nanogpt and nanochat, 2024-25,
https://github.com/KellerJordan/modded-nanogpt
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.devices import gather_width
from transformer_jax.matmul import project_by


@attentions.register("value_embedding")
@dataclasses.dataclass(frozen=True)
class ValueEmbedding(Variant):
  """Adds an embedding of each token to its values, gated by the token's state.

      v_t' = v_t + 2 sigmoid(w x_t) e(token t)

  gated   False: v_t' = v_t + e(token t)

  Each layer has a table of its own, as large as the vocabulary.

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=11, D=8, H=2, F=16, L=8)
  >>> tj.attentions.build("value_embedding").init(jax.random.key(0), dims)[
  ...   "value_table_VHE"].shape
  (11, 2, 4)
  """

  gated: bool = True
  reads_tokens = True

  def weights(self, dims):
    if not self.gated:
      return {}
    heads = "G" if dims.G else "H"
    return {f"value_gate_D{heads}": ((dims.D, dims.G or dims.H), 1)}

  def init(self, key, dims):
    G, E = dims.G or dims.H, dims.E or dims.K
    name = f"value_table_V{'G' if dims.G else 'H'}E"
    return {name: jax.random.normal(key, (dims.V, G, E)) * dims.D**-0.5}

  def cross(self):
    return Variant()

  def share(self, params, x_BLD, kept, carry):
    if "value" not in kept:
      raise ValueError(
        f"{self.name} adds to the values of heads, and this attention keeps"
        f" {', '.join(kept)} in their place; use multihead or gqa(2)"
      )
    if "token_BL" not in carry.arrays:
      raise ValueError(
        f"{self.name} reads the ids of tokens; call the layer with"
        " carry=Carry().put('token_BL', ids), as a model does"
      )
    own = {n.rpartition("_")[0]: n for n in params}
    table = gather_width(params[own["value_table"]])
    added_BLGE = table[carry.arrays["token_BL"]].astype(kept["value"].dtype)
    if self.gated:
      score_BLG = project_by(x_BLD, params, own["value_gate"]).astype(jnp.float32)
      gate_BLG1 = 2 * jax.nn.sigmoid(score_BLG)[..., None]
      added_BLGE = gate_BLG1.astype(added_BLGE.dtype) * added_BLGE
    return kept | {"value": kept["value"] + added_BLGE}, carry
