"""Input embeddings: of tokens, and of patches of images."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.axes import Dims
from transformer_jax.matmul import project
from transformer_jax.models.feature_norms import norms
from transformer_jax.positions import Coords
from transformer_jax.spec import Registry

Params = dict[str, jax.Array]


class Embedding:
  """Base class of input embeddings: vectors of a task's input.

  norm        normalizes the sum of embeddings and positions; None: no norm
  table       whether the input indexes rows of embedding_VD
  in_layers   whether each layer has an embedding of its own, and adds it at its end

  >>> embeddings["tokens"].table, embeddings["patches"].table
  (True, False)
  """

  norm: Any = None
  table: ClassVar[bool]
  in_layers: ClassVar[bool] = False

  def init(self, key: jax.Array, dims: Dims) -> Params:
    """Returns parameters besides embedding_VD."""
    raise NotImplementedError

  def __call__(self, params: Params, x: jax.Array, at: Coords) -> jax.Array:
    """Returns x_BLD before the norm, from rows of the table or from the input."""
    raise NotImplementedError

  def layer_init(self, key: jax.Array, dims: Dims) -> Params:
    """Returns the parameters of one layer's embedding."""
    raise NotImplementedError

  def shared_init(self, key: jax.Array, dims: Dims) -> Params:
    """Returns the parameters that the embeddings of all layers share."""
    raise NotImplementedError

  def in_layer(
    self, params: Params, x_BLD: jax.Array, carried: dict[str, Any], activation: Any
  ) -> jax.Array:
    """Returns a layer's update of x_BLD by its embedding.

    params       of `layer_init`
    x_BLD        the residual stream
    carried      `token_BL`; `embedded_BLD`, input of the first layer; `embedding`, the
                 parameters of `shared_init`
    activation   of feed-forward layers
    """
    raise NotImplementedError

  def places(self, read: jax.Array) -> int:
    """Returns L, the number of vectors of an input."""
    raise NotImplementedError

  def refusal(self, read: Any, L: int) -> str | None:
    """Returns a message why an input cannot become L vectors, or None."""
    raise NotImplementedError

  @property
  def example(self) -> jax.Array:
    """Returns a small input."""
    raise NotImplementedError


embeddings = Registry("embedding", Embedding)


@embeddings.register("tokens")
@dataclasses.dataclass(frozen=True)
class TokenEmbedding(Embedding):
  """A vector for each token. Vaswani et al., 2017. https://arxiv.org/abs/1706.03762

  power   multiplies vectors by D ** power; 0: not at all, as in GPT-2
  types   number of token types, each with a vector that is added: BERT's segments,
          given by the id `type_BL`; without it all tokens are of type 0
  norm    normalizes the sum of embeddings and positions: BERT, BLOOM
  scale   multiplies vectors as well, whatever their width: Granite,
          https://huggingface.co/ibm-granite/granite-4.0-h-tiny

  >>> x_BLD = jnp.array([[[1.0, 2.0, 3.0, 4.0]]])  # of the table; D is 4
  >>> embeddings.build("tokens")({}, x_BLD, at=None).tolist()
  [[[2.0, 4.0, 6.0, 8.0]]]
  """

  power: float = 0.5
  types: int = 0
  norm: Any = None
  scale: float = 1.0
  table: ClassVar[bool] = True

  def __post_init__(self):
    object.__setattr__(self, "norm", norms.build(self.norm))

  def init(self, key: jax.Array, dims: Dims) -> Params:
    if not self.types:
      return {}
    return {"type_ND": dims.D**-0.5 * jax.random.normal(key, (self.types, dims.D))}

  def __call__(self, params: Params, x_BLD: jax.Array, at: Coords) -> jax.Array:
    """Returns x_BLD before the norm, from rows of the table."""
    if self.power or self.scale != 1:
      x_BLD = x_BLD * (self.scale * x_BLD.shape[-1] ** self.power)
    if self.types:
      type_BL = at.data.get("type_BL", jnp.zeros_like(at.pos_BL))
      # A type out of range gives NaN, not the last one.
      rows = params["type_ND"].at[type_BL]
      x_BLD += rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    return x_BLD

  def places(self, token_BL):
    return token_BL.shape[1]

  def refusal(self, read, L):
    if len(read.shape) == 2:
      return None
    if len(read.shape) == 3:
      return "these are numbers: write the embedding that the task names"
    return "these are images: write patches(size=..., channels=...), as the task does"

  @property
  def example(self):
    return jnp.zeros((1, 2), jnp.int32)


@embeddings.register("patches")
@dataclasses.dataclass(frozen=True)
class PatchEmbedding(Embedding):
  """Square patches of images [B, C, rows, columns], row by row, after a class token.

  Dosovitskiy et al., 2021, ViT. https://arxiv.org/abs/2010.11929. C are channels, P the
  rows and columns of a patch. The first place has a learned vector, the class token.

  size       P; divides the rows and the columns of an image
  channels   C

  >>> embedding = embeddings.build("patches(size=4, channels=3)")
  >>> image = jax.ShapeDtypeStruct((1, 3, 8, 12), float)
  >>> embedding.places(image)  # 2 x 3 patches and the class token
  7
  >>> embedding.refusal(jax.ShapeDtypeStruct((1, 1, 8, 12), float), 7)
  'these images have 1 channels: write channels=1'
  """

  size: int = 4
  channels: int = 1
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
    x_BLD = project(x, w_CPPD, 3, "patch_CPPD") + params["patch_shift_D"]
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
