"""Differential attention. Ye et al., 2024. https://arxiv.org/abs/2410.05258"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from transformer_jax.attention.projections import Arrays, Projections
from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.normalization import inverse_rms
from transformer_jax.spec import SpecError

VECTORS = ("first_query_K", "first_key_K", "second_query_K", "second_key_K")


@dataclasses.dataclass(frozen=True)
class Pairs(Projections):
  """Projections to pairs of heads, 2p and 2p + 1, that share values of width 2 K.

  A mixture is linear in its weights. So mixtures are subtracted in place of weights,
  and any core can compute them.

  start     initial lambda
  norm      whether mixtures are normalized
  epsilon   added to mean squares by the norm

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=8)
  >>> tj.attentions.build("differential").projections().weights(dims)["value_DGE"]
  ((64, 4, 16), 1)
  """

  start: float
  norm: bool
  epsilon: float

  def weights(self, dims):
    D, H, K = dims.D, dims.H, dims.K
    shapes = {name: ((D, H, K), 1) for name in ("query_DHK", "key_DHK")}
    shapes["value_DGE"] = (D, H // 2, 2 * K), 1
    return shapes | {"out_HKD": ((H, K, D), 2)}

  def init(self, key, dims):
    keys = jax.random.split(key, len(VECTORS))

    def normal(key):
      return 0.1 * jax.random.normal(key, (dims.K,))

    return {name: normal(key) for name, key in zip(VECTORS, keys, strict=True)}

  def check(self, dims):
    if dims.H % 2:
      raise ValueError(
        f"differential pairs heads, and {dims.H} is odd; choose an even number of heads"
      )

  def read(self, w, kept):
    return kept["key"], jnp.repeat(kept["value"], 2, axis=2)

  def found(self, w, o_BLHE, x_BLD):
    """Returns for each head one half of the output of its pair, o_BLHK."""
    B, L, H, E = o_BLHE.shape
    o_BLG2E = o_BLHE.astype(jnp.float32).reshape(B, L, H // 2, 2, E)
    o_BLGE = o_BLG2E[:, :, :, 0] - self.share(w) * o_BLG2E[:, :, :, 1]
    if self.norm:
      o_BLGE *= inverse_rms(o_BLGE, self.epsilon) * (1 - self.start)
    return o_BLGE.reshape(B, L, H, E // 2).astype(o_BLHE.dtype)

  def share(self, w: Arrays) -> jax.Array:
    """Returns lambda, the factor on the second head's mixture."""
    first, second = (
      jnp.exp(jnp.dot(w[f"{which}_query_K"], w[f"{which}_key_K"]))
      for which in ("first", "second")
    )
    return first - second + self.start


@attentions.register("differential")
@dataclasses.dataclass(frozen=True)
class Differential(Variant):
  """Softmax weights of one head minus lambda times those of its neighbour.

      w = softmax(q1 k1^T / sqrt(K)) - lambda softmax(q2 k2^T / sqrt(K)),
        o = (1 - start) rms_norm(w v)

  A pair of heads has one output. Lambda is a function
  of four learned vectors, which all heads of a layer share.

  start     initial lambda; None: 0.8 - 0.6 exp(-0.3 n) in layer n = 0, 1, ...
  norm      False: neither the norm, without gains, nor the factor after it
  epsilon   added to mean squares by the norm

  >>> import transformer_jax as tj
  >>> differential = tj.attentions.build("differential")
  >>> [round(differential.layer(n).start, 2) for n in range(5)]
  [0.2, 0.36, 0.47, 0.56, 0.62]
  """

  start: float | None = None
  norm: bool = True
  epsilon: float = 1e-5

  def __post_init__(self):
    if self.start is not None and not 0 <= self.start < 1:
      raise SpecError(
        f"differential: start is {self.start!r}; write a number from 0 to below 1"
      )

  def layer(self, n):
    if self.start is not None:
      return self
    return dataclasses.replace(self, start=0.8 - 0.6 * math.exp(-0.3 * n))

  def projections(self):
    return Pairs(self.layer(0).start, self.norm, self.epsilon)

  def refusal(self, encoding):
    if encoding.overrides("values"):
      return (
        f"{encoding.name} adds to values as wide as queries, and differential's are"
        " twice as wide; use another encoding or another attention"
      )
    return None
