"""Base class of mixers, and what they keep while decoding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from transformer_jax.attention.linear_recurrence import (
  StateUpdates,
  chunked,
  sequential,
)
from transformer_jax.attention.projections import Arrays
from transformer_jax.attention.variants.base import Variant
from transformer_jax.axes import Dims
from transformer_jax.positions import Coords, coords
from transformer_jax.positions.shared.convolution import mix

AT_ONCE = 8  # tokens from which on chunks are faster than one after another


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StateCache:
  """What a mixer keeps of a text: its size is the same at every length.

  state_BHKE   of the recurrence, float32
  recent       inputs of the convolutions of the newest tokens, {name: [B, N, ...]}
  at           their coordinates

  >>> from transformer_jax.axes import Dims
  >>> from transformer_jax.attention import attentions
  >>> mixer, dims = attentions.build("gated_delta"), Dims(V=5, D=8, H=2, F=8, L=8)
  >>> cache = mixer.cache(dims, B=3, dtype="float32")
  >>> cache.state_BHKE.shape, cache.at.order_BL.shape
  ((3, 2, 4, 4), (3, 3))
  """

  state_BHKE: jax.Array
  recent: Arrays
  at: Coords


class Mixer(Variant):
  """Base class of mixers, which take the place of attention in a layer.

  Tokens write into a state and read it: see `linear_recurrence.StateUpdates`. It reads
  no positional encoding, and serves a causal text. A subclass is a frozen dataclass
  with the hooks

    weights      -> shapes               matrices, as of a variant
    init         -> arrays               further parameters
    inputs       x -> {name: x}          what is convolved along the text
    taps         -> {name: parameter}    weights of these convolutions, with axis N last
    tokens       x, inputs -> updates    what each token does to the state
    result       x, o -> x               the update of the residual stream

  and is registered as variants are: `alternate(gated_delta, multihead, 4)` is a hybrid.

  >>> from transformer_jax.attention import attentions
  >>> hybrid = attentions.build("alternate(gated_delta, multihead, 4)")
  >>> [hybrid.layer(n).mixer for n in range(4)]
  [True, True, True, False]
  """

  mixer = True

  def inputs(self, params: Arrays, x_BLD: jax.Array) -> Arrays:
    """Returns what is convolved along the text, by name, [B, L, ...]."""
    return {}

  def taps(self, params: Arrays) -> Arrays:
    """Returns the weights of convolutions: of the token n back at [..., n]."""
    return {}

  def tokens(self, params: Arrays, x_BLD: jax.Array, inputs: Arrays) -> StateUpdates:
    """Returns what the tokens do to the state.

    inputs   those of `inputs`, convolved
    """
    raise NotImplementedError

  def result(self, params: Arrays, x_BLD: jax.Array, o_BLHE: jax.Array) -> jax.Array:
    """Returns the update of the residual stream, x_BLD."""
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
    inputs, recent = self._convolved(params, x_BLD, at, cache)
    tokens = _of_text(self.tokens(params, x_BLD, inputs), at)
    start = cache.state_BHKE if cache else None
    if x_BLD.shape[1] >= AT_ONCE:
      o_BLHE, state_BHKE = chunked(tokens, start, unroll=unroll)
    else:
      o_BLHE, state_BHKE = sequential(tokens, start)
    update_BLD = self.result(params, x_BLD, o_BLHE.astype(x_BLD.dtype))
    if cache is None:
      return update_BLD, None
    return update_BLD, StateCache(state_BHKE, *recent)

  def cache(self, dims: Dims, B: int, dtype: str) -> StateCache:
    """Returns the empty cache of B texts."""

    def first(key):
      params = dict(self.init(key, dims))
      for name, (shape, _) in self.weights(dims).items():
        params[name] = jnp.zeros(shape, jnp.float32)
      x_BLD = jnp.zeros((B, 1, dims.D), dtype)
      inputs = self.inputs(params, x_BLD)
      state = self.tokens(params, x_BLD, inputs).empty
      taps = self.taps(params)
      back = max((x.shape[-1] for x in taps.values()), default=1) - 1
      recent = {n: jnp.zeros((B, back, *inputs[n].shape[2:]), dtype) for n in taps}
      return state, recent, jnp.zeros(back)

    state, recent, back = jax.eval_shape(first, jax.random.key(0))
    state, recent = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (state, recent))
    return StateCache(state, recent, coords.absent(B, back.shape[0]))

  def _convolved(self, params, x_BLD, at, cache):
    """Returns the convolved inputs, and what the cache keeps of them."""
    inputs, taps = self.inputs(params, x_BLD), self.taps(params)
    if cache is None:
      return inputs | {n: mix(inputs[n], tap, at) for n, tap in taps.items()}, None
    B, L, _ = x_BLD.shape
    joined = functools.partial(_joined, B)
    all_at = jax.tree.map(joined, cache.at, at.replace(data={}))
    whole = {n: joined(cache.recent[n], inputs[n]) for n in taps}
    found = {n: mix(whole[n], tap, all_at)[:, -L:] for n, tap in taps.items()}
    # Padding may stand between tokens: those that are there go last.
    newest_BL = jnp.argsort(all_at.real_BL, axis=1, stable=True)[:, L:]
    newest = functools.partial(_places, newest_BL)
    return inputs | found, jax.tree.map(newest, (whole, all_at))

  def bidirectional(self):
    raise ValueError(
      f"{self.name} reads a text from left to right, and has no form that looks both"
      " ways; use a causal decoder, or another attention"
    )

  def cross(self):
    raise ValueError(
      f"{self.name} has a state of its own text, and reads no other one; use another"
      " attention"
    )

  def refusal(self, encoding):
    return f"{self.name} has no scores that a core could compute; it is a mixer"


def _of_text(tokens: StateUpdates, at: Coords) -> StateUpdates:
  """Returns the updates with none by padding, and an empty state before each text."""
  real_BL11 = at.real_BL[:, :, None, None]
  some = lambda x: jnp.where(real_BL11, x, 0)
  read = tokens.read_BLHK
  B = tokens.key_BLHK.shape[0]
  return dataclasses.replace(
    tokens,
    key_BLHK=some(tokens.key_BLHK),
    decay=some(tokens.decay),
    read_BLHK=None if read is None else some(read),
    first_BL=jnp.broadcast_to(at.order_BL == 0, (B, at.order_BL.shape[1])),
  )


def _joined(B: int, old: jax.Array, new: jax.Array) -> jax.Array:
  """Returns arrays of tokens, the new ones after the old ones, in B rows."""
  new = jnp.broadcast_to(new, (B, *new.shape[1:])).astype(old.dtype)
  return jnp.concatenate([old, new], axis=1)


def _places(place_BN: jax.Array, x: jax.Array) -> jax.Array:
  """Returns some places of x along its second axis."""
  return jnp.take_along_axis(x, jnp.expand_dims(place_BN, tuple(range(2, x.ndim))), 1)
