"""Base class of mixers, and what they keep while decoding."""

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.convolution import Recent, convolve, none_yet
from transformer_jax.attention.linear_recurrence import (
  StateUpdates,
  chunked,
  sequential,
)
from transformer_jax.attention.projections import Arrays
from transformer_jax.attention.variants.base import Variant
from transformer_jax.axes import Dims
from transformer_jax.positions import Coords, coords

AT_ONCE = 8  # tokens from which on chunks are faster than one after another


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StateCache:
  """What a mixer keeps of a text: its size is the same at every length.

  state    of the recurrence, float32, as state_BHKE; None: it has none
  recent   inputs of the convolutions of the newest tokens

  >>> from transformer_jax.axes import Dims
  >>> from transformer_jax.attention import attentions
  >>> mixer, dims = attentions.build("gated_delta"), Dims(V=5, D=8, H=2, F=8, L=8)
  >>> cache = mixer.cache(dims, B=3, dtype="float32")
  >>> cache.state.shape, cache.recent.at.order_BL.shape
  ((3, 2, 4, 4), (3, 3))
  """

  state: Any
  recent: Recent


class Mixer(Variant):
  """Base class of mixers, which take the place of attention in a layer.

  Tokens write into a state and read it: see `linear_recurrence.StateUpdates`. It reads
  no positional encoding, and serves a causal text. A subclass is a frozen dataclass
  with the hooks

    weights      -> shapes               matrices, as of a variant
    init         -> arrays               further parameters
    inputs       x -> {name: x}          what is convolved along the text
    taps         -> {name: parameter}    weights of these convolutions, with axis N last
    tokens       x, inputs, coords -> updates   what each token does to the state
    recurrence   inputs -> o, state      instead, for a state that is no matrix
    result       x, inputs, o -> x       the update of the residual stream

  and is registered as variants are: `alternate(gated_delta, multihead, 4)` is a hybrid.
  A mixer with `writes` above 1 returns so many updates for each token, one after
  another; queries read the state after the last one.

  >>> from transformer_jax.attention import attentions
  >>> hybrid = attentions.build("alternate(gated_delta, multihead, 4)")
  >>> [hybrid.layer(n).mixer for n in range(4)]
  [True, True, True, False]
  """

  mixer = True
  writes: int = 1  # updates of the state for each token

  def check(self, dims: Dims) -> None:
    """Raises ValueError if sizes do not fit, or no memory holds a state."""
    _check_state(self, dims)

  def sized(self, dims: Dims) -> "Mixer":
    """Returns the mixer with the sizes that are those of the model written out."""
    return self

  def inputs(self, params: Arrays, x_BLD: jax.Array) -> Arrays:
    """Returns what is convolved along the text, by name, [B, L, ...]."""
    return {}

  def taps(self, params: Arrays) -> Arrays:
    """Returns the weights of convolutions: of the token n back at [..., n]."""
    return {}

  def tokens(
    self, params: Arrays, x_BLD: jax.Array, inputs: Arrays, at: Coords
  ) -> StateUpdates:
    """Returns what the tokens do to the state, `writes` updates for each.

    inputs   those of `inputs`, convolved
    at       coordinates of the tokens
    """
    raise NotImplementedError

  def result(
    self, params: Arrays, x_BLD: jax.Array, inputs: Arrays, o_BLHE: jax.Array
  ) -> jax.Array:
    """Returns the update of the residual stream, x_BLD.

    inputs   those of `inputs`, convolved
    o_BLHE   what queries read of the state
    """
    raise NotImplementedError

  def mixed_by_state(
    self,
    params: Arrays,
    x_BLD: jax.Array,
    at: Coords,
    cache: StateCache | None = None,
    unroll: bool = False,
  ) -> tuple[jax.Array, StateCache | None]:
    """Returns the update of the residual stream, and the cache after these tokens.

    at       coordinates of the tokens
    cache    of the tokens before; None: there are none, and none is returned
    unroll   writes the loop over chunks out, so that operations can be counted
    """
    inputs, recent = self.inputs(params, x_BLD), cache.recent if cache else None
    inputs, recent = convolve(inputs, self.taps(params), at, recent)
    start = cache.state if cache else None
    o_BLHE, state = self.recurrence(params, x_BLD, inputs, at, start, unroll)
    update_BLD = self.result(params, x_BLD, inputs, o_BLHE.astype(x_BLD.dtype))
    return update_BLD, None if recent is None else StateCache(state, recent)

  def recurrence(
    self,
    params: Arrays,
    x_BLD: jax.Array,
    inputs: Arrays,
    at: Coords,
    state: Any = None,
    unroll: bool = False,
  ) -> tuple[jax.Array, Any]:
    """Returns what queries read of the state, o_BLHE, and the last state.

    inputs   those of `inputs`, convolved
    at       coordinates of the tokens
    state    before the first of them; None: there are none before
    unroll   as in `mixed_by_state`
    """
    tokens = _of_text(self.tokens(params, x_BLD, inputs, at), at, self.writes)
    if x_BLD.shape[1] >= AT_ONCE:
      o_BLHE, state = chunked(tokens, state, unroll=unroll)
    else:
      o_BLHE, state = sequential(tokens, state)
    return o_BLHE[:, self.writes - 1 :: self.writes], state

  def cache(self, dims: Dims, B: int, dtype: str) -> StateCache:
    """Returns the empty cache of B texts."""

    def first(key):
      params = dict(self.init(key, dims))
      for name, (shape, _) in self.weights(dims).items():
        params[name] = jnp.zeros(shape, jnp.float32)
      x_BLD = jnp.zeros((B, 1, dims.D), dtype)
      inputs, taps = self.inputs(params, x_BLD), self.taps(params)
      at = coords.consecutive(B, 1)
      _, state = self.recurrence(params, x_BLD, inputs, at)
      return state, inputs, taps

    state, inputs, taps = jax.eval_shape(first, jax.random.key(0))
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
    return StateCache(state, none_yet(inputs, taps, B))

  def bidirectional(self):
    raise ValueError(
      f"{self.name} reads a text from left to right, and has no form that looks both"
      " ways; use a causal decoder, or another attention"
    )

  def cross(self):
    raise ValueError(
      f"{self.name} mixes the tokens of its own text, and reads no other one; use"
      " another attention"
    )

  def refusal(self, encoding):
    return f"{self.name} has no scores that a core could compute; it is a mixer"


@functools.lru_cache(maxsize=64)
def _check_state(mixer: Mixer, dims: Dims) -> None:
  """Raises ValueError if the state of one text is larger than this machine's memory."""
  state = jax.eval_shape(lambda: mixer.cache(dims, 1, "float32").state)
  memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  for array in jax.tree.leaves(state):
    if (size := 4 * array.size) > memory:
      _, H, *widths = array.shape
      raise ValueError(
        f"a state of {H} heads of {' by '.join(map(str, widths))} numbers is"
        f" {size / 2**30:,.0f} GiB for each text, and this machine has"
        f" {memory / 2**30:,.0f}; write smaller widths"
      )


def _of_text(tokens: StateUpdates, at: Coords, writes: int) -> StateUpdates:
  """Returns the updates with none by padding, and an empty state before each text."""
  real_BL11 = jnp.repeat(at.real_BL, writes, axis=1)[:, :, None, None]
  some = lambda x: jnp.where(real_BL11, x, 0)
  read, erase = tokens.read_BLHK, tokens.erase_BLHK
  B = tokens.key_BLHK.shape[0]
  first_BL = jnp.repeat(at.order_BL == 0, writes, axis=1)
  first_BL &= jnp.arange(first_BL.shape[1]) % writes == 0  # of a token's updates
  return dataclasses.replace(
    tokens,
    key_BLHK=some(tokens.key_BLHK),
    decay=some(tokens.decay),
    read_BLHK=None if read is None else some(read),
    erase_BLHK=None if erase is None else some(erase),
    first_BL=jnp.broadcast_to(first_BL, (B, first_BL.shape[1])),
  )
