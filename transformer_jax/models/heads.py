"""Output heads: from the last states to logits over tokens or classes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.axes import Dims
from transformer_jax.matmul import project_by
from transformer_jax.models.feature_norms import LayerNorm, norms
from transformer_jax.models.layers import Gelu, activations
from transformer_jax.positions import Coords
from transformer_jax.spec import Registry, SpecError

Params = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class LinearHead:
  """Logits: products of the last states with the output embedding.

  power   multiplies states by D ** power first; -0.5: T5 with tied embeddings
  bias    adds a learned bias to each logit
  cap     soft-caps logits by cap * tanh(logits / cap), as in Gemma 2,
          https://arxiv.org/abs/2408.00118; 0: no cap
  scale   multiplies states as well, whatever their width: Cohere

  >>> capped_V = heads.build("linear(cap=30.0)").logits({}, jnp.array([1.0, 1000.0]))
  >>> [round(x, 2) for x in capped_V.tolist()]
  [1.0, 30.0]
  """

  power: float = 0.0
  bias: bool = False
  cap: float = 0.0
  scale: float = 1.0
  # Whether every position gets the same representation, that of the text.
  pooled = False

  def pool(self, x_BLD: jax.Array, at: Coords) -> jax.Array:
    """Returns x_BLD, the representation of each position of an encoder."""
    return x_BLD

  def init(self, key: jax.Array, dims: Dims) -> Params:
    return {"shift_V": jnp.zeros(dims.V)} if self.bias else {}

  def states(self, params: Params, x_BLD: jax.Array) -> jax.Array:
    """Returns x_BLD, the states that meet the output embedding."""
    if self.power or self.scale != 1:
      x_BLD = x_BLD * (self.scale * x_BLD.shape[-1] ** self.power)
    return x_BLD

  def logits(self, params: Params, logits_BLV: jax.Array) -> jax.Array:
    """Returns logits_BLV with bias and soft-cap."""
    if self.bias:
      logits_BLV = logits_BLV + params["shift_V"]
    return self.cap * jnp.tanh(logits_BLV / self.cap) if self.cap else logits_BLV


heads = Registry("output head", LinearHead)
heads.register("linear")(LinearHead)


@heads.register("mean")
@dataclasses.dataclass(frozen=True)
class MeanHead(LinearHead):
  """Mean pooling: every position gets the mean state of its text's tokens.

  Reimers and Gurevych, 2019, section 3. https://arxiv.org/abs/1908.10084. Other heads
  classify a text by its first token's state: Devlin et al., 2019.

  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> from transformer_jax.positions import coords
  >>> def pool(x_BLD, real_BL):
  ...   return heads.build("mean").pool(x_BLD, coords.padded(real_BL))
  >>> x_BLD = jnp.array([[[9.0], [1.0], [3.0]]])
  >>> real_BL = jnp.array([[False, True, True]])  # the first one is padding
  >>> evaluate(pool, x_BLD, real_BL).tolist()
  [[[2.0], [2.0], [2.0]]]
  """

  pooled = True

  def pool(self, x_BLD, at):
    return mean_pooled(x_BLD, at)


def mean_pooled(x_BLD: jax.Array, at: Coords) -> jax.Array:
  """Returns x_BLD with the mean state of a text's tokens at each position."""
  mean_B1D = mean(x_BLD, at.real_BL)[:, None]
  return jnp.broadcast_to(mean_B1D, x_BLD.shape)


def mean(x_BLD: jax.Array, real_BL: jax.Array) -> jax.Array:
  """Returns mean_BD over the tokens of each text; zero for a text without tokens."""
  sum_BD = jnp.sum(jnp.where(real_BL[..., None], x_BLD, 0.0), axis=1, dtype=jnp.float32)
  count_B1 = jnp.maximum(jnp.sum(real_BL, axis=1, keepdims=True), 1)
  return (sum_BD / count_B1).astype(x_BLD.dtype)


@heads.register("transform")
@dataclasses.dataclass(frozen=True)
class TransformHead(LinearHead):
  """BERT's head: a dense layer, an activation and a norm before the logits.

  Devlin et al., 2019. https://arxiv.org/abs/1810.04805

  norm         None: no norm, as in BERT's classification head
  dense_bias   adds a learned vector in the dense layer; ModernBERT's has none
  pooled       pools by the mean of the tokens, as `mean` does

  >>> head = heads.build("transform(norm=None)")
  >>> head.activation
  Gelu(approximate=False)
  >>> dims = Dims(V=5, D=4, H=2, F=8, L=8)
  >>> shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), dims))
  >>> {name: x.shape for name, x in shapes.items()}
  {'dense_DD': (4, 4), 'dense_shift_D': (4,), 'shift_V': (5,)}
  """

  bias: bool = True
  activation: Any = Gelu(approximate=False)
  norm: Any = LayerNorm(epsilon=1e-12)
  dense_bias: bool = True
  pooled: bool = False

  def __post_init__(self):
    object.__setattr__(self, "activation", activations.build(self.activation))
    object.__setattr__(self, "norm", norms.build(self.norm))
    if self.norm and self.norm.reads_batch:
      raise SpecError("transform: its norm reads single tokens; write norm='layernorm'")

  def pool(self, x_BLD, at):
    return mean_pooled(x_BLD, at) if self.pooled else x_BLD

  def init(self, key, dims):
    dense_DD = jax.random.normal(key, (dims.D, dims.D)) * dims.D**-0.5
    own = {"dense_DD": dense_DD}
    own |= {"dense_shift_D": jnp.zeros(dims.D)} if self.dense_bias else {}
    start = self.norm.init(dims.D) if self.norm else {}
    norm = {f"norm_{name}": x for name, x in start.items()}
    return super().init(key, dims) | own | norm

  def states(self, params, x_BLD):
    h_BLD = project_by(x_BLD, params, "dense_DD")
    if self.dense_bias:
      h_BLD += params["dense_shift_D"].astype(x_BLD.dtype)
    h_BLD = self.activation(h_BLD)
    if self.norm:
      names = self.norm.init(x_BLD.shape[-1])
      h_BLD = self.norm({name: params[f"norm_{name}"] for name in names}, h_BLD)
    return super().states(params, h_BLD)
