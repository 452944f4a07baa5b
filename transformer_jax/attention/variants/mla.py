"""Multi-head latent attention. DeepSeek-AI, 2024. https://arxiv.org/abs/2405.04434"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.projections import Arrays, Projections, Weights
from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.axes import check_whole
from transformer_jax.matmul import project_by
from transformer_jax.normalization import rms_norm
from transformer_jax.positions import PositionalEncoding
from transformer_jax.positions.shared.tempered import Tempered
from transformer_jax.positions.shared.wrapper import Wrapper


@dataclasses.dataclass(frozen=True)
class Latent(Projections):
  """Projections to keys and values through a latent, with a part for rotation.

  A cache stores the normalized latent and the key's part, which all heads share. An
  encoding that rotates acts on the part alone; other encodings on whole queries and
  keys. Arguments as in `MLA`.

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=8)
  >>> latent = tj.attentions.build("mla(latent=16, part=4)").projections()
  >>> latent.sizes(dims).K, latent.weights(dims)["latent_DC"]
  (12, ((64, 16), 1))
  """

  latent: int
  queries: int
  part: int
  value: int
  epsilon: float
  norm: bool

  def weights(self, dims):
    D, H, K, C, P = dims.D, dims.H, dims.K, self.latent, self.part
    E, Q = self.value or K, self.queries or D
    source = "Q" if self.queries else "D"
    shapes: Weights = {"query_down_DQ": ((D, Q), 1)} if self.queries else {}
    shapes |= {f"query_{source}HK": ((Q, H, K), 1), "latent_DC": ((D, C), 1)}
    shapes |= {"key_CHK": ((C, H, K), 1), "value_CHE": ((C, H, E), 1)}
    if P:
      shapes |= {f"query_part_{source}HP": ((Q, H, P), 1), "key_part_DP": ((D, P), 1)}
    return shapes | {"out_HED": ((H, E, D), 2)}

  def init(self, key, dims):
    if not self.norm:
      return {}
    gains = {"latent_gain_C": jnp.ones(self.latent)}
    return gains | ({"query_gain_Q": jnp.ones(self.queries)} if self.queries else {})

  def sizes(self, dims):
    return dataclasses.replace(dims, K=dims.K + self.part, E=self.value or dims.K)

  def encoding_dims(self, dims, encoding):
    if self.part and turns(encoding):
      return dataclasses.replace(dims, K=self.part)
    return self.sizes(dims)

  def query(self, w, x_BLD):
    if self.queries:
      x_BLD = latent_of_queries(w, x_BLD, self.epsilon)
    names = ("query_QHK", "query_part_QHP", "query_DHK", "query_part_DHP")
    return _join(*(project_by(x_BLD, w, name) for name in names if name in w))

  def memory(self, w, x_BMD):
    latent_BMC = project_by(x_BMD, w, "latent_DC")
    kept = {"latent": normalized(latent_BMC, w.get("latent_gain_C"), self.epsilon)}
    return kept | ({"part": project_by(x_BMD, w, "key_part_DP")} if self.part else {})

  def read(self, w, kept):
    names = "key_CHK", "value_CHE"
    k_BMHK, v_BMHE = (project_by(kept["latent"], w, name) for name in names)
    if self.part:
      shape = (*k_BMHK.shape[:-1], self.part)
      part_BMHP = jnp.broadcast_to(kept["part"][:, :, None], shape)
      k_BMHK = _join(k_BMHK, part_BMHP)
    return k_BMHK, v_BMHE

  def inform(self, position, x_BLD, q_BLHK, at):
    return position.read(x_BLD, self.split(position, q_BLHK)[1], at)

  def transform_qk(self, position, q_BLHK, k_BMHK, q_at, k_at):
    """Returns (q_BLHK, k_BMHK); only the part with positions is rotated.

    position         the bound encoding
    q_BLHK, k_BMHK   queries and keys: a part without positions, a part with them
    q_at, k_at       their coordinates
    """
    q_still, q_part = self.split(position, q_BLHK)
    k_still, k_part = self.split(position, k_BMHK)
    q_part, k_part = position.transform_qk(q_part, k_part, q_at, k_at)
    factor = position.encoding.temperature(position.params, q_at)
    q_still = (q_still * factor).astype(q_still.dtype)
    return _join(q_still, q_part), _join(k_still, k_part)

  def split(self, position, x_BLHK):
    """Returns the features that are not rotated, and those that are."""
    K = x_BLHK.shape[-1]
    still = K - self.part if self.part and turns(position.encoding) else 0
    return jnp.split(x_BLHK, [still], axis=-1)


@attentions.register("mla")
@dataclasses.dataclass(frozen=True)
class MLA(Variant):
  """Caches `latent + part` numbers of a token, whatever the number of heads.

      c_j = rms_norm(W_down x_j); k_j = [W_k c_j, R(j) W_r x_j]; v_j = W_v c_j

  Each head projects keys and values from the latent. A rotation would stand between the
  two matrices, so only a part of the key, which all heads share, is rotated.
  DeepSeek-V2 has part=64, latent=512 and queries=1536 for 128 heads of 128 features.

  latent    width of the RMS-normed latent of keys and values
  part      width of further features of queries and keys, which an encoding rotates; 0:
            it rotates whole queries and keys
  queries   width of the RMS-normed latent of queries; 0: projected from the tokens, as
            in DeepSeek-V2-Lite
  value     width of a head's values; 0: that of the head
  epsilon   added to mean squares by the norms
  norm      False: latents are not normalized

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=8)
  >>> mla = tj.attentions.build("mla(latent=16, part=4)")
  >>> weights = mla.projections().weights(dims)
  >>> weights["latent_DC"], weights["key_part_DP"]  # caches 20 numbers, not 128
  (((64, 16), 1), ((64, 4), 1))
  >>> weights["key_CHK"], weights["value_CHE"]
  (((16, 8, 8), 1), ((16, 8, 8), 1))
  """

  latent: int = 128
  part: int = 16
  queries: int = 0
  value: int = 0
  epsilon: float = 1e-6
  norm: bool = True

  def __post_init__(self):
    check_whole(self, latent=1, part=0, queries=0, value=0)

  def projections(self):
    return Latent(
      self.latent, self.queries, self.part, self.value, self.epsilon, self.norm
    )

  def refusal(self, encoding):
    if encoding.overrides("values") and (self.part or self.value):
      return (
        f"{encoding.name} adds to values as wide as queries, and mla's are not; use"
        " mla(part=0, value=0) or another encoding"
      )
    reads = encoding.overrides("score") or encoding.overrides("full_scores")
    if self.part and turns(encoding) and (reads or tempered(encoding)):
      return (
        f"{encoding.name} changes whole queries, and mla turns just a part of them;"
        " use mla(part=0), which turns them whole, or another encoding"
      )
    return None


def normalized(
  x_BLC: jax.Array, gain_C: jax.Array | None, epsilon: float | jax.Array
) -> jax.Array:
  """Returns a latent after its RMS norm; without gains it has none."""
  return x_BLC if gain_C is None else rms_norm(x_BLC, gain_C, epsilon)


def latent_of_queries(
  w: Arrays, x_BLD: jax.Array, epsilon: float | jax.Array
) -> jax.Array:
  """Returns latent_BLQ, from which queries are projected.

  w         weights of the projections
  x_BLD     input of attention
  epsilon   added to mean squares by the norm
  """
  down_BLQ = project_by(x_BLD, w, "query_down_DQ")
  return normalized(down_BLQ, w.get("query_gain_Q"), epsilon)


def turns(encoding: PositionalEncoding) -> bool:
  """Returns whether an encoding rotates queries and keys; a temperature does not."""
  if isinstance(encoding, Wrapper):
    return turns(encoding.encoding)
  return encoding.overrides("rotate") or encoding.overrides("transform_qk")


def tempered(encoding: PositionalEncoding) -> bool:
  """Returns whether an encoding, or one inside it, has a temperature."""
  inner = isinstance(encoding, Wrapper) and tempered(encoding.encoding)
  return inner or isinstance(encoding, Tempered)


def _join(*parts: jax.Array) -> jax.Array:
  return jnp.concatenate(parts, axis=-1)
