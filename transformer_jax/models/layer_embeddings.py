"""Token embeddings of each layer. Gemma 3n, 2025.

https://ai.google.dev/gemma/docs/gemma-3n
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.axes import whole
from transformer_jax.devices import gather_width
from transformer_jax.matmul import project_by
from transformer_jax.models.embeddings import TokenEmbedding, embeddings
from transformer_jax.normalization import rms_norm
from transformer_jax.spec import SpecError


@embeddings.register("layer_tokens")
@dataclasses.dataclass(frozen=True)
class LayerTokens(TokenEmbedding):
  """A vector for each token, and a smaller one in each layer, added at its end.

      e = (sqrt(W) table[token] + rms_norm(x_0 C / sqrt(D))) / sqrt(2)
      x <- x + (activation(x A) * e) B

  x_0 is the input of the first layer. Each layer has its own table, A, B and C; the
  gains of the norm are shared.

  width     W, of the vectors in layers
  rows      tokens that the tables of layers know; later ones read the vector of token
            0. 0: the whole vocabulary
  epsilon   of the norm

  >>> from transformer_jax.axes import Dims
  >>> dims = Dims(V=5, D=8, H=2, F=16, L=8)
  >>> params = embeddings.build("layer_tokens(width=3)").layer_init(
  ...   jax.random.key(0), dims
  ... )
  >>> {name: x.shape for name, x in params.items()}
  {'table_VW': (5, 3), 'context_DW': (8, 3), 'gate_DW': (8, 3), 'out_WD': (3, 8)}
  """

  width: int = 256
  rows: int = 0
  epsilon: float = 1e-6
  in_layers: ClassVar[bool] = True

  def __post_init__(self):
    super().__post_init__()
    for name, least in (("width", 1), ("rows", 0)):
      if not whole(getattr(self, name), least):
        raise SpecError(
          f"layer_tokens: {name} is {getattr(self, name)!r}; write a whole number of at"
          f" least {least}"
        )

  def layer_init(self, key, dims):
    W, D, V = self.width, dims.D, self.rows or dims.V
    keys = jax.random.split(key, 4)
    return {
      "table_VW": jax.random.normal(keys[0], (V, W)) * W**-0.5,
      "context_DW": jax.random.normal(keys[1], (D, W)) * D**-0.5,
      "gate_DW": jax.random.normal(keys[2], (D, W)) * D**-0.5,
      "out_WD": jax.random.normal(keys[3], (W, D)) * W**-0.5,
    }

  def shared_init(self, key, dims):
    return {"gain_W": jnp.ones(self.width)}

  def in_layer(self, params, x_BLD, carried, activation):
    token_BL, first_BLD = carried["token_BL"], carried["embedded_BLD"]
    table_VW = gather_width(params["table_VW"])
    known_BL = (token_BL >= 0) & (token_BL < table_VW.shape[0])
    own_BLW = table_VW[jnp.where(known_BL, token_BL, 0)].astype(x_BLD.dtype)
    context_BLW = project_by(first_BLD, params, "context_DW") * x_BLD.shape[-1] ** -0.5
    gain_W = carried["embedding"]["gain_W"]
    context_BLW = rms_norm(context_BLW.astype(jnp.float32), gain_W, self.epsilon)
    e_BLW = own_BLW * self.width**0.5 + context_BLW.astype(x_BLD.dtype)
    e_BLW = e_BLW * 2**-0.5
    gate_BLW = project_by(x_BLD, params, "gate_DW")
    if activation.gated:
      h_BLW = activation(e_BLW, gate_BLW)
    else:
      h_BLW = activation(gate_BLW) * e_BLW
    return project_by(h_BLW, params, "out_WD")
