"""Attention of a layer with its parameters: from tokens to what the core reads."""

import dataclasses
from typing import Any

import jax

from transformer_jax.attention.cache import Cache, newest, remember
from transformer_jax.attention.carry import Carry
from transformer_jax.attention.cores.base import repeat_heads
from transformer_jax.attention.projections import Arrays, Projections
from transformer_jax.attention.variants import BoundVariant
from transformer_jax.positions import Bound, Coords


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Read:
  """What the queries of a layer attend to; a pytree.

  kv           keys and values, rotated or not yet; or MLA's latent
  q_at, k_at   coordinates of queries and of keys
  own_BLHE     the tokens' own values, if the variant reads them
  rotated      whether keys are rotated already

  >>> at = jax.numpy.arange(3)[None]
  >>> Read({"key": at}, at, at).own_BLHE is None
  True
  """

  kv: Arrays
  q_at: Coords
  k_at: Coords
  own_BLHE: jax.Array | None = None
  rotated: bool = dataclasses.field(default=False, metadata={"static": True})


@dataclasses.dataclass(frozen=True)
class BoundAttention:
  """Attention of one layer with its parameters; all methods are pure.

  A method returns queries and a `Read`, both ready for the core: of the text itself, of
  an encoder's output, or of the keys that an earlier layer made.

  projections   of the variant, with sizes
  w             their weights
  variant       the variant with its parameters
  position      the encoding with its parameters
  heads         number of query heads

  >>> [name for name in vars(BoundAttention) if name.startswith("of_")]
  ['of_text', 'of_memory', 'of_earlier_layer']
  """

  projections: Projections
  w: Arrays
  variant: BoundVariant
  position: Bound
  heads: int

  def query(self, x_BLD: jax.Array) -> jax.Array:
    """Returns the queries q_BLHK, as projected."""
    return self.projections.query(self.w, x_BLD)

  def of_text(
    self,
    q_BLHK: jax.Array,
    x_BLD: jax.Array,
    at: Coords,
    cache: Cache | None,
    carry: Carry,
  ) -> tuple[jax.Array, Read, Cache | None, Carry]:
    """Returns queries, what they attend to in their own text, cache and carry.

    q_BLHK   of the new tokens, as projected
    x_BLD    input of attention
    at       coordinates of the tokens
    cache    of the tokens before, or None
    carry    of earlier layers
    """
    kind, params = self.variant.variant, self.variant.params
    kv = self.projections.memory(self.w, x_BLD)  # keys and values, or MLA's latent
    q_BLHK, kv, cache = self._convolved(q_BLHK, kv, at, cache)
    at = self.projections.inform(self.position, x_BLD, q_BLHK, at)
    at = self.variant.read(x_BLD, q_BLHK, at)
    kv, carry = kind.share(params, x_BLD, kv, carry)
    read = Read(kv, at, at, self._own_value(kv))

    once, frozen = self._when_to_rotate(at, cache)
    if once:
      q_BLHK, read = self._rotate(q_BLHK, read)
    elif frozen:
      _, read = self._rotate(q_BLHK, read)
    read, cache = self._remember(read, cache)
    q_at = newest(read.k_at, cache, x_BLD.shape[1])
    read = dataclasses.replace(read, q_at=q_at, rotated=once or frozen)
    carry = carry.put(kind.kv_as, read) if kind.kv_as else carry
    if frozen:
      q_BLHK, _ = self._rotate(q_BLHK, read)
    elif not once:
      q_BLHK, read = self._rotate(q_BLHK, read)
    return q_BLHK, read, cache, carry

  def of_memory(
    self,
    q_BLHK: jax.Array,
    x_BLD: jax.Array,
    at: Coords,
    memory: tuple[jax.Array, Coords],
  ) -> tuple[jax.Array, Read]:
    """Returns queries, and what they attend to in an encoder's output.

    q_BLHK   as projected
    x_BLD    input of attention
    at       coordinates of its tokens
    memory   the encoder's states x_BMD and their coordinates
    """
    kv = self.projections.memory(self.w, memory[0])
    q_at = self.position.keep(at).bidirectional()
    q_at, k_at = self.variant.read(x_BLD, q_BLHK, q_at), self.position.keep(memory[1])
    once, _ = self._when_to_rotate(k_at, None)
    read = Read(kv, q_at, k_at)
    if once:
      q_BLHK, read = self._rotate(q_BLHK, read)
    read, _ = self._remember(read, None)
    return (q_BLHK, read) if once else self._rotate(q_BLHK, read)

  def of_earlier_layer(self, q_BLHK: jax.Array, carry: Carry) -> tuple[jax.Array, Read]:
    """Returns queries, and the keys and values of the layer that put them into carry.

    These are rotated already, unless later tokens change the rotation.
    """
    read: Read = carry.arrays[self.variant.variant.kv_from]
    q_BLHK, rotated = self._rotate(q_BLHK, read)
    return q_BLHK, read if read.rotated else rotated

  def output(self, out_BLHE: jax.Array, x_BLD: jax.Array, read: Read) -> jax.Array:
    """Returns the update of the residual stream, x_BLD, from the heads' outputs."""
    kind, params = self.variant.variant, self.variant.params
    out_BLHE = self.projections.found(self.w, kind.mixed(params, out_BLHE), x_BLD)
    if read.own_BLHE is not None:
      out_BLHE = kind.own_value(params, x_BLD, out_BLHE, read.own_BLHE)
    out_BLHE = kind.output(params, x_BLD, out_BLHE)
    return self.projections.out(self.w, out_BLHE, x_BLD)

  def _convolved(self, q_BLHK: jax.Array, kv: Arrays, at: Coords, cache: Any) -> Any:
    """Returns (q_BLHK, kv, cache), mixed along the text where there are taps."""
    if not self.variant.variant.overrides("taps"):
      return q_BLHK, kv, cache
    recent = cache.recent if cache else None
    found, recent = self.variant.convolve({"query": q_BLHK} | kv, at, recent)
    cache = dataclasses.replace(cache, recent=recent) if cache else None
    return found.pop("query"), found, cache

  def _own_value(self, kv: Arrays) -> jax.Array | None:
    """Returns the tokens' own values v_BLHE, if the variant reads them, or None.

    As they would be mixed alone: a head that attends to its own token gives this.
    """
    kind, params = self.variant.variant, self.variant.params
    if not kind.overrides("own_value"):
      return None
    v_BLGE = kind.values(params, self.projections.read(self.w, kv)[1])
    return kind.mixed(params, repeat_heads(v_BLGE, self.heads))

  def _remember(self, read: Read, cache: Cache | None) -> tuple[Read, Cache | None]:
    """Returns the keys and values of all tokens so far, and the cache with them."""
    kv, k_at, cache = remember(cache, read.kv, read.k_at)
    k_at = self.variant.accumulate(self.position.accumulate(k_at))
    return dataclasses.replace(read, kv=kv, k_at=k_at), cache

  def _rotate(self, q_BLHK: jax.Array, read: Read) -> tuple[jax.Array, Read]:
    """Returns queries, keys and values as the core reads them."""
    kind, params = self.variant.variant, self.variant.params
    k_BMGK, v_BMGE = self.projections.read(self.w, read.kv)
    q_BLHK, k_BMGK = kind.condition(params, q_BLHK, k_BMGK)
    q_BLHK, k_BMGK = self.projections.transform_qk(
      self.position, q_BLHK, k_BMGK, read.q_at, read.k_at
    )
    q_BLHK, k_BMGK = kind.rotated(params, q_BLHK, k_BMGK)
    kv = {"key": k_BMGK, "value": kind.values(params, v_BMGE)}
    return q_BLHK, dataclasses.replace(read, kv=kv)

  def _when_to_rotate(self, k_at: Coords, cache: Cache | None) -> tuple[bool, bool]:
    """Returns (once, frozen): when the keys of a layer are rotated.

    Keys are rotated before they are cached, unless later tokens change the rotation.
    Then they are rotated on reading; a frozen cache holds them as first rotated, and
    queries are rotated with the coordinates that the cache returns.
    """
    keeps_keys = self.projections.keeps_keys
    once = keeps_keys and self.position.rotates_once(k_at)
    frozen = cache is not None and cache.frozen and not once
    return once, frozen and keeps_keys and self.position.rotates_early(k_at)
