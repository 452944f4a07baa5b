"""Input embeddings of numbers: series, signals in patches, and numbers among tokens."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.axes import Dims
from transformer_jax.matmul import project_by
from transformer_jax.models.embeddings import Embedding, Params, embeddings
from transformer_jax.positions import Coords


@embeddings.register("numbers")
@dataclasses.dataclass(frozen=True)
class NumberEmbedding(Embedding):
  """A linear projection of the numbers of each place, float32 [B, L, N].

  Zhou et al., 2021, appendix B, "scalar projection". https://arxiv.org/abs/2012.07436

  features   N

  >>> embedding = embeddings.build("numbers(features=3)")
  >>> embedding.places(jax.ShapeDtypeStruct((1, 20, 3), float))
  20
  >>> embedding.refusal(jax.ShapeDtypeStruct((1, 20, 1), float), 20)
  'a place of this input has 1 numbers: write features=1'
  """

  features: int = 1
  table: ClassVar[bool] = False

  def init(self, key: jax.Array, dims: Dims) -> Params:
    N = self.features
    return {
      "number_ND": N**-0.5 * jax.random.normal(key, (N, dims.D)),
      "number_shift_D": jnp.zeros(dims.D),
    }

  def __call__(self, params: Params, x_BLN: jax.Array, at: Coords) -> jax.Array:
    """Returns x_BLD of numbers [B, L, N]."""
    return project_by(x_BLN, params, "number_ND") + params["number_shift_D"]

  def places(self, read: jax.Array) -> int:
    return read.shape[1]

  def refusal(self, read: Any, L: int) -> str | None:
    return _no_numbers(read) or _other_size(read, self.features, "features")

  @property
  def example(self) -> jax.Array:
    return jnp.zeros((1, 2, self.features))


@embeddings.register("signal")
@dataclasses.dataclass(frozen=True)
class SignalEmbedding(Embedding):
  """Patches of a signal in time, float32 [B, T, C], after a class token.

  `patches` in one dimension: Dosovitskiy et al., 2021, https://arxiv.org/abs/2010.11929;
  of spectrograms: Gong et al., 2021, https://arxiv.org/abs/2104.01778. P moments make a
  patch. The first place has a learned vector, the class token.

  size       P; divides T
  channels   C, numbers of each moment

  >>> embedding = embeddings.build("signal(size=4, channels=2)")
  >>> embedding.places(jax.ShapeDtypeStruct((1, 12, 2), float))  # and the class token
  4
  """

  size: int = 4
  channels: int = 1
  table: ClassVar[bool] = False

  def init(self, key: jax.Array, dims: Dims) -> Params:
    shape = self.size, self.channels, dims.D
    width = (self.size * self.channels) ** -0.5
    return {
      "patch_PCD": width * jax.random.normal(key, shape),
      "patch_shift_D": jnp.zeros(dims.D),
      "first_D": jnp.zeros(dims.D),
    }

  def __call__(self, params: Params, x_BTC: jax.Array, at: Coords) -> jax.Array:
    """Returns x_BLD of a signal [B, T, C]."""
    B, T, C = x_BTC.shape
    x = x_BTC.reshape(B, T // self.size, self.size, C)
    x_BLD = project_by(x, params, "patch_PCD", 2) + params["patch_shift_D"]
    first_B1D = jnp.broadcast_to(params["first_D"], (B, 1, x_BLD.shape[-1]))
    return jnp.concatenate([first_B1D, x_BLD], axis=1)

  def places(self, read: jax.Array) -> int:
    return 1 + read.shape[1] // self.size

  def refusal(self, read: Any, L: int) -> str | None:
    if refused := _no_numbers(read) or _other_size(read, self.channels, "channels"):
      return refused
    if read.shape[1] % self.size or self.places(read) != L:
      return (
        f"the task makes {L - 1} patches of {read.shape[1]} moments: write the same"
        " size of a patch in both"
      )
    return None

  @property
  def example(self) -> jax.Array:
    return jnp.zeros((1, self.size, self.channels))


@embeddings.register("xval")
@dataclasses.dataclass(frozen=True)
class XvalEmbedding(Embedding):
  """A vector for each token, multiplied by its value: numbers as one token, xVal.

  Golkar et al., 2023. https://arxiv.org/abs/2310.02989. The input is float32 [B, L, 2]:
  a token and a value. Numbers share one token, whose vector is scaled by the number;
  the value of any other token is 1.

  tokens   number of tokens; one that is out of range gives NaN

  >>> embedding = embeddings.build("xval(tokens=2)")
  >>> params = {"token_VD": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
  >>> embedding(params, jnp.array([[[0.0, 1.0], [1.0, -0.5]]]), at=None).tolist()
  [[[1.0, 2.0], [-1.5, -2.0]]]
  """

  tokens: int = 8
  table: ClassVar[bool] = False

  def init(self, key: jax.Array, dims: Dims) -> Params:
    return {"token_VD": jax.random.normal(key, (self.tokens, dims.D))}

  def __call__(self, params: Params, x_BL2: jax.Array, at: Coords) -> jax.Array:
    """Returns x_BLD of tokens and values [B, L, 2]."""
    token_BL, value_BL = x_BL2[..., 0].astype(jnp.int32), x_BL2[..., 1]
    rows = params["token_VD"].at[token_BL]
    x_BLD = rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    return x_BLD * value_BL[..., None]

  def places(self, read: jax.Array) -> int:
    return read.shape[1]

  def refusal(self, read: Any, L: int) -> str | None:
    if refused := _no_numbers(read):
      return refused
    if read.shape[2] != 2:
      return "these are numbers alone, without tokens: write numbers(features=...)"
    return None

  @property
  def example(self) -> jax.Array:
    return jnp.zeros((1, 2, 2))


def _no_numbers(read: Any) -> str | None:
  if len(read.shape) == 3:
    return None
  return "this is no series of numbers: write tokens, or patches for images"


def _other_size(read: Any, size: int, argument: str) -> str | None:
  if read.shape[2] == size:
    return None
  return f"a place of this input has {read.shape[2]} numbers: write {argument}=" + str(
    read.shape[2]
  )
