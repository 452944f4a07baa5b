"""What stands at the two ends of a model: embeddings below, output heads above."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.axes import Dims
from transformer_jax.matmul import project
from transformer_jax.models.layers import Gelu, LayerNorm, activations, norms
from transformer_jax.positions import Coords
from transformer_jax.spec import Registry

Params = dict[str, jax.Array]


class Embedding:
  """Makes vectors of what a task gives.

  norm    stands after the embedding, positions included; None: there is none
  table   it reads rows of embedding_VD
  """

  norm: Any
  table: ClassVar[bool]

  def init(self, key: jax.Array, dims: Dims) -> Params:
    """Returns further parameters."""
    raise NotImplementedError

  def __call__(self, params: Params, x: jax.Array, at: Coords) -> jax.Array:
    """Returns x_BLD without the norm, of rows of the table or of what was read."""
    raise NotImplementedError

  def places(self, read: jax.Array) -> int:
    """Returns how many places what is read takes."""
    raise NotImplementedError

  def refusal(self, read: Any, L: int) -> str | None:
    """Returns why this cannot make L places of what a task gives, or None."""
    raise NotImplementedError

  @property
  def example(self) -> jax.Array:
    """Returns something that can be read."""
    raise NotImplementedError


embeddings = Registry("embedding", Embedding)


@embeddings.register("tokens")
@dataclasses.dataclass(frozen=True)
class Tokens(Embedding):
  """A vector for each token. Vaswani et al., 2017. https://arxiv.org/abs/1706.03762

  power   vectors are multiplied by D ** power; 0: as they are, as in GPT-2
  types   a vector for each kind of token is added: BERT's segments, which tokens name
          by the id `type_BL`; without ids all tokens are of kind 0
  norm    stands after the embedding, positions included: BERT, BLOOM
  """

  power: float = 0.5
  types: int = 0
  norm: Any = None
  table: ClassVar[bool] = True  # it reads rows of embedding_VD

  def __post_init__(self):
    object.__setattr__(self, "norm", norms.build(self.norm))

  def init(self, key: jax.Array, dims: Dims) -> Params:
    if not self.types:
      return {}
    return {"type_ND": dims.D**-0.5 * jax.random.normal(key, (self.types, dims.D))}

  def __call__(self, params: Params, x_BLD: jax.Array, at: Coords) -> jax.Array:
    """Returns what the vectors of the tokens become, without the norm."""
    if self.power:
      x_BLD = x_BLD * x_BLD.shape[-1] ** self.power
    if self.types:
      type_BL = at.data.get("type_BL", jnp.zeros_like(at.pos_BL))
      # A kind that there is none of is NaN, not the last one.
      rows = params["type_ND"].at[type_BL]
      x_BLD += rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    return x_BLD

  def places(self, token_BL):
    return token_BL.shape[1]

  def refusal(self, read, L):
    if len(read.shape) == 2:
      return None
    return "these are images: write patches(size=..., channels=...), as the task does"

  @property
  def example(self):
    return jnp.zeros((1, 2), jnp.int32)


@embeddings.register("patches")
@dataclasses.dataclass(frozen=True)
class Patches(Embedding):
  """Square patches of images [B, C, rows, columns], row after row, after a learned one.

  The model sees the image at its first place. Dosovitskiy et al., 2021, ViT.
  https://arxiv.org/abs/2010.11929. C are channels, P the rows and columns of a patch.

  size   P, which divides the rows and the columns of an image
  """

  size: int = 4
  channels: int = 1
  norm: ClassVar[None] = None
  table: ClassVar[bool] = False

  def init(self, key: jax.Array, dims: Dims) -> Params:
    shape = self.channels, self.size, self.size, dims.D
    width = math.prod(shape[:3]) ** -0.5
    return {
      "patch_CPPD": width * jax.random.normal(key, shape),
      "patch_shift_D": jnp.zeros(dims.D),
      "first_D": jnp.zeros(dims.D),
    }

  def __call__(self, params: Params, image: jax.Array, at: Coords) -> jax.Array:
    """Returns x_BLD of images [B, C, rows, columns]."""
    B, C, rows, columns = image.shape
    P, w_CPPD = self.size, params["patch_CPPD"]
    x = image.reshape(B, C, rows // P, P, columns // P, P)
    x = x.transpose(0, 2, 4, 1, 3, 5).reshape(B, -1, C, P, P)
    x_BLD = project(x, w_CPPD, 3) + params["patch_shift_D"]
    first_B1D = jnp.broadcast_to(params["first_D"], (B, 1, x_BLD.shape[-1]))
    return jnp.concatenate([first_B1D, x_BLD], axis=1)

  def places(self, image: jax.Array) -> int:
    return 1 + math.prod(size // self.size for size in image.shape[2:])

  def refusal(self, read: Any, L: int) -> str | None:
    if len(read.shape) != 4:
      return "this is text: write tokens"
    if read.shape[1] != self.channels:
      return (
        f"these images have {read.shape[1]} channels: write channels={read.shape[1]}"
      )
    if any(size % self.size for size in read.shape[2:]) or self.places(read) != L:
      rows, columns = read.shape[2:]
      return (
        f"the task makes {L - 1} patches of {rows} x {columns} pixels: write the same"
        " size of a patch in both"
      )
    return None

  @property
  def example(self) -> jax.Array:
    return jnp.zeros((1, self.channels, self.size, self.size))


@dataclasses.dataclass(frozen=True)
class Linear:
  """Products with the vectors of the vocabulary.

  power   states are multiplied by D ** power first; -0.5: T5 with tied embeddings
  bias    adds a learned number to each logit
  cap     logits are squeezed between -cap and cap by tanh, as in Gemma 2,
          https://arxiv.org/abs/2408.00118; 0: they are not
  scale   multiplies states as well, by a number that no width decides: Cohere
  """

  power: float = 0.0
  bias: bool = False
  cap: float = 0.0
  scale: float = 1.0
  whole: ClassVar[bool] = False  # all places read the same of a text

  def pool(self, x_BLD: jax.Array, at: Coords) -> jax.Array:
    """Returns what each place reads of all that an encoder made."""
    return x_BLD

  def init(self, key: jax.Array, dims: Dims) -> Params:
    return {"shift_V": jnp.zeros(dims.V)} if self.bias else {}

  def states(self, params: Params, x_BLD: jax.Array) -> jax.Array:
    """Returns what is multiplied with the vectors of the vocabulary."""
    if self.power or self.scale != 1:
      x_BLD = x_BLD * (self.scale * x_BLD.shape[-1] ** self.power)
    return x_BLD

  def logits(self, params: Params, logits_BLV: jax.Array) -> jax.Array:
    """Changes the products."""
    if self.bias:
      logits_BLV = logits_BLV + params["shift_V"]
    return self.cap * jnp.tanh(logits_BLV / self.cap) if self.cap else logits_BLV


heads = Registry("output head", Linear)
heads.register("linear")(Linear)


@heads.register("mean")
@dataclasses.dataclass(frozen=True)
class Mean(Linear):
  """Every place reads the mean of the tokens, also the one that tells a text's class.

  Reimers and Gurevych, 2019, section 3. https://arxiv.org/abs/1908.10084. Without it
  that is what became of the first token: Devlin et al., 2019.
  """

  whole: ClassVar[bool] = True

  def pool(self, x_BLD, at):
    return mean_pooled(x_BLD, at)


def mean_pooled(x_BLD: jax.Array, at: Coords) -> jax.Array:
  """Returns x_BLD in which each place has the mean of its text's tokens."""
  mean_B1D = mean(x_BLD, at.real_BL)[:, None]
  return jnp.broadcast_to(mean_B1D, x_BLD.shape)


def mean(x_BLD: jax.Array, real_BL: jax.Array) -> jax.Array:
  """Returns mean_BD of the places where there is a token, zero where there is none."""
  sum_BD = jnp.sum(jnp.where(real_BL[..., None], x_BLD, 0.0), axis=1, dtype=jnp.float32)
  count_B1 = jnp.maximum(jnp.sum(real_BL, axis=1, keepdims=True), 1)
  return (sum_BD / count_B1).astype(x_BLD.dtype)


@heads.register("transform")
@dataclasses.dataclass(frozen=True)
class Transform(Linear):
  """BERT's: a dense layer, an activation and a norm come before the products.

  Devlin et al., 2019. https://arxiv.org/abs/1810.04805

  norm         None: there is none, as before the classes of a fine-tuned BERT
  dense_bias   the dense layer adds a learned vector; ModernBERT's does not
  pooled       every place reads the mean of the tokens, as with `mean`
  """

  bias: bool = True
  activation: Any = Gelu(approximate=False)
  norm: Any = LayerNorm(epsilon=1e-12)
  dense_bias: bool = True
  pooled: bool = False

  def __post_init__(self):
    object.__setattr__(self, "activation", activations.build(self.activation))
    object.__setattr__(self, "norm", norms.build(self.norm))

  @property
  def whole(self) -> bool:
    return self.pooled

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
    h_BLD = project(x_BLD, params["dense_DD"], 1)
    if self.dense_bias:
      h_BLD += params["dense_shift_D"].astype(x_BLD.dtype)
    h_BLD = self.activation(h_BLD)
    if self.norm:
      names = self.norm.init(x_BLD.shape[-1])
      h_BLD = self.norm({name: params[f"norm_{name}"] for name in names}, h_BLD)
    return super().states(params, h_BLD)
