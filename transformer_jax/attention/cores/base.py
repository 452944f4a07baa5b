"""What an attention core is: one call, many ways to visit tiles of scores."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant
from transformer_jax.attention.variants.bound import PLAIN, BoundVariant
from transformer_jax.positions import Bound, Coords, PositionalEncoding
from transformer_jax.spec import Registry


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dropout:
  """Sets numbers to zero by chance and scales up the others.

  Srivastava et al., 2014. https://jmlr.org/papers/v15/srivastava14a.html

  axis   name of the axis of devices that share the rows of a batch inside `pmap`. Each
         draws for the whole batch and takes its own rows: all devices have one key
  """

  key: jax.Array
  rate: float = dataclasses.field(metadata={"static": True})
  axis: str | None = dataclasses.field(default=None, metadata={"static": True})

  def __call__(self, x: jax.Array) -> jax.Array:
    """x: any array whose first axis is the batch."""
    B, *rest = x.shape
    shape = B * devices(self.axis), *rest
    kept = own_rows(jax.random.bernoulli(self.key, 1 - self.rate, shape), self.axis)
    return jnp.where(kept, x / (1 - self.rate), 0.0)


def devices(axis: str | None) -> int:
  """Returns how many devices share a batch inside `pmap`; 1 elsewhere."""
  return jax.lax.axis_size(axis) if axis else 1


def own_rows(x: jax.Array, axis: str | None) -> jax.Array:
  """Returns the rows of this device, of an array that has those of all devices."""
  if axis is None:
    return x
  B = x.shape[0] // devices(axis)
  return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis) * B, B)


class Core:
  """A way to compute attention.

  Attends from queries to keys and mixes values, all in the float type of the values.

  q_BLHK, k_BMGK, v_BMGE, already turned by the encoding: G key heads divide H query
  heads, and query head h reads key head h // (H / G). `q_at` and `k_at` say where they
  are and who sees whom. A query that sees no key gets zeros. `scale` multiplies the dot
  products, a number or scale_H; None: 1 / sqrt of the width that queries have here.
  `rule` is the attention variant. Returns o_BLHE.
  """

  def __call__(
    self,
    q_BLHK: jax.Array,
    k_BMGK: jax.Array,
    v_BMGE: jax.Array,
    q_at: Coords,
    k_at: Coords,
    position: Bound,
    scale: float | jax.Array | None = None,
    variant: BoundVariant = PLAIN,
    drop: Dropout | None = None,
  ) -> jax.Array:
    raise NotImplementedError

  def refusal(
    self,
    encoding: PositionalEncoding,
    variant: Variant = PLAIN.variant,
    drop: bool = False,
  ) -> str | None:
    """Returns why this core cannot serve an encoding or a variant, or None."""
    return None


cores = Registry("attention core", Core)


def require(
  core: Core, position: Bound, variant: BoundVariant, drop: Dropout | None
) -> None:
  """Raises ValueError when the core refuses."""
  reason = core.refusal(position.encoding, variant.variant, drop is not None)
  if reason:
    raise ValueError(reason)


def whole_rows(
  core: str, encoding: PositionalEncoding, variant: Variant, drop: bool
) -> str | None:
  """Returns why a core that never holds a whole row refuses, or None."""
  if not encoding.tile_local:
    what = encoding.name
  elif not variant.tile_local:
    what = variant.name
  elif drop:
    return (
      f"{core} does not drop weights; set model.attention_dropout=0 or use"
      " model.core=dense"
    )
  elif encoding.mask is not None and variant.overrides("pointwise"):
    return (
      f"{variant.name} counts the keys of each query, of which {encoding.name} masks"
      f" some by head, and {core} counts them for all heads; use model.core=dense"
    )
  else:
    return variant.refusal(encoding)
  return (
    f"{what} looks at whole rows of scores, and {core} never holds one; use"
    " model.core=dense"
  )


def repeat_heads(k_BMGK: jax.Array, H: int) -> jax.Array:
  """Returns k_BMHK, in which each query head has the keys it reads."""
  G = k_BMGK.shape[2]
  return k_BMGK if G == H else jnp.repeat(k_BMGK, H // G, axis=2)


def tile_scores(
  q_BLHK: jax.Array,
  k_BMHK: jax.Array,
  q_at: Coords,
  k_at: Coords,
  position: Bound,
  scale: float | jax.Array,
  mask_BLM: jax.Array,
  variant: BoundVariant = PLAIN,
) -> jax.Array:
  """Returns float32 scores s_BHLM of a tile, before `rule.logits` and the mask."""
  s_BHLM = variant.dot(q_BLHK, k_BMHK, scale)
  return position.score(s_BHLM, q_BLHK, k_BMHK, q_at, k_at, mask_BLM, scale)


def mix(w_BHLM: jax.Array, v_BMHE: jax.Array, pos_BL, pos_BM, position: Bound):
  """Returns weighted values o_BLHE with what the encoding adds to them, in float32."""
  out_BLHE = jnp.einsum(
    "BHLM,BMHE->BLHE",
    w_BHLM.astype(v_BMHE.dtype),
    v_BMHE,
    preferred_element_type=jnp.float32,
  )
  return out_BLHE + position.values(w_BHLM, pos_BL, pos_BM)
