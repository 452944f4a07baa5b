"""Base class of attention variants, with their hooks; `variant_sum` adds them up."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.attention.projections import Arrays
from transformer_jax.attention.variants.token_hooks import TokenHooks
from transformer_jax.positions import Coords, PositionalEncoding, Tile
from transformer_jax.spec import Registry


@dataclasses.dataclass(frozen=True)
class Variant(TokenHooks):
  """Softmax of q k / sqrt(K), many heads. Vaswani et al., 2017.

  https://arxiv.org/abs/1706.03762. A variant overrides the hooks that its method
  changes, and `a + b` makes both changes. Those up to `rotated` are of `TokenHooks`:

    projections  -> Projections        queries, keys, values, cache    gqa, mla
    weights      -> shapes             further matrices                gated
    init         -> arrays             further parameters              sinks
    borrow       weights -> arrays     matrices of the projections     dsa
    taps         -> {name: x_N}        convolutions of q, k and v      short_conv
    convolved    x, sums -> x          what becomes of them            short_conv
    token_data   x, q -> arrays        features of each token          dsa
    accumulate   arrays -> arrays      sums along the text             dsa
    reserved     shapes -> shapes      what `share` puts in the carry  value_residual
    share        kept, carry -> both   before the cache stores them    value_residual
    condition    q, k -> q, k          before they are rotated         qk_norm
    rotated      q, k -> q, k          after they were rotated         qk_norm
    scale        -> factor             on dot products                 scale
    temperature  coords -> t_BLH1      factor on queries               asentmax
    dot          q_LK, k_MK -> s_LM    instead of a dot product        additive
    features     q, k -> q, k          feature maps of linear          linear
    score        s_LM, tile -> s_LM    score_mod, after the bias       dsa
    logits       s_LM -> s_LM          score_mod, after the bias       softcap
    mask         coords -> bool_BLM    mask_mod, for all heads         window
    select       q, k -> bool_BHLM     mask by head, a full row        moba
    sink_logit   -> logit_H            one more term of the softmax    sinks
    pointwise    s_LM -> w_LM          weights, each by itself         sigmoid
    weigh        s_BHLM -> w_BHLM      weights, a full row at once     entmax
    weigh_at     s, coords -> w_BHLM   and by coordinates or data      dsa
    values       v -> v                values, before they are mixed   laser
    mixed        o -> o                mixtures of values              laser
    own_value    x, o, v -> o          with the token's own value      xsa
    output       x, o -> o             before the output projection    gated

  score_mod and mask_mod are FlexAttention's words. Hooks are pure functions of
  parameters. `dot`, `score`, `logits` and `pointwise` get one head of one sequence; a
  parameter whose axes start with H has a slice for each head. Sums apply `share`,
  `condition`, `rotated`, `score`, `logits`, `own_value` and `output` from left to
  right.

  What `token_data` makes of each token is in `data` of the coordinates that `mask`,
  `select`, `temperature`, `score` and `weigh_at` get, as `accumulate` returned it.
  Caches store it.

  >>> from transformer_jax.attention import attentions
  >>> attentions.build("gqa(2) + window(8)").name
  'gqa + window'
  """

  signed = False  # weights may be negative
  positive = False  # mixtures of the results of `values` must be positive
  rereads = False  # weights depend on earlier queries, which caches do not store
  untrained: ClassVar[tuple[str, ...]] = ()  # parameters without any gradient
  convolves: ClassVar[tuple[str, ...]] = ()  # of "query", "key", "value": with taps
  mixer = False  # it has no scores, but a state or none: see attention/mixers
  reads_tokens = False  # the carry holds the ids of tokens, as `token_BL`
  kv_from = ""  # name in the carry of keys and values, read instead of its own
  kv_as = ""  # name under which later layers find its keys and values

  def scale(self, params: Arrays, K: int) -> float | jax.Array:
    """Returns the factor on dot products of K terms: a number, or scale_H."""
    return K**-0.5

  def temperature(self, params: Arrays, at: Coords) -> float | jax.Array:
    """Returns the factor on the queries, broadcastable to q_BLHK."""
    return 1.0

  def dot(
    self, params: Arrays, q_LK: jax.Array, k_MK: jax.Array, scale: float | jax.Array
  ) -> jax.Array:
    """Returns the scores s_LM of one head, float32."""
    product_LM = jnp.matmul(q_LK, k_MK.T, preferred_element_type=jnp.float32)
    return scale * product_LM

  def features(
    self,
    params: Arrays,
    q_BLHK: jax.Array,
    k_BMHK: jax.Array,
    scale: float | jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    """Returns float32 features of queries and keys; their products are the scores.

    The features of a token must not depend on other tokens.
    """
    raise NotImplementedError

  def score(self, params: Arrays, s_LM: jax.Array, tile: Tile) -> jax.Array:
    """Returns the changed scores of one head, the positional bias included.

    tile   queries and keys, as the encoding left them, their positions and data
    """
    return s_LM

  def logits(self, params: Arrays, s_LM: jax.Array) -> jax.Array:
    """Returns the changed scores of one head, the positional bias included."""
    return s_LM

  def mask(self, q_at: Coords, k_at: Coords) -> jax.Array | bool:
    """Returns the variant's mask_BLM, which restricts the causal or padding mask."""
    return True

  def select(
    self,
    params: Arrays,
    q_BLHK: jax.Array,
    k_BMHK: jax.Array,
    q_at: Coords,
    k_at: Coords,
    mask_BLM: jax.Array,
  ) -> jax.Array:
    """Returns mask_BHLM, which restricts the mask by what queries and keys hold.

    params           parameters
    q_BLHK, k_BMHK   queries and all keys, after the encoding rotated them
    q_at, k_at       their coordinates
    mask_BLM         True where a query attends to a key so far; or mask_BHLM
    """
    raise NotImplementedError

  def sink_logit(self, params: Arrays) -> jax.Array | None:
    """Returns logit_H, a further term of each head's softmax with value zero."""
    return None

  def pointwise(self, params: Arrays, s_LM: jax.Array, keys_L1: jax.Array) -> jax.Array:
    """Returns the weights of one head without a softmax.

    keys_L1   number of keys each query attends to, float32, at least 1
    """
    raise NotImplementedError

  def weigh(self, params: Arrays, s_BHLM: jax.Array, mask_B1LM: jax.Array) -> jax.Array:
    """Returns the weights of whole rows; zero where a key is masked.

    mask_B1LM   or mask_BHLM, if the encoding masks by head
    """
    raise NotImplementedError

  def weigh_at(
    self,
    params: Arrays,
    s_BHLM: jax.Array,
    mask_B1LM: jax.Array,
    q_at: Coords,
    k_at: Coords,
  ) -> jax.Array:
    """Returns the weights of whole rows, as `weigh`, by coordinates or token data.

    q_at, k_at   coordinates of queries and keys
    """
    raise NotImplementedError

  def values(self, params: Arrays, v_BMGE: jax.Array) -> jax.Array:
    """Returns changed values, before they are mixed."""
    return v_BMGE

  def mixed(self, params: Arrays, o_BLHE: jax.Array) -> jax.Array:
    """Returns changed mixtures of values."""
    return o_BLHE

  def own_value(
    self, params: Arrays, x_BLD: jax.Array, o_BLHE: jax.Array, v_BLHE: jax.Array
  ) -> jax.Array:
    """Returns changed outputs of heads, before `output`.

    x_BLD    input of attention
    v_BLHE   the token's own value, as projected, for each query head
    """
    return o_BLHE

  def output(self, params: Arrays, x_BLD: jax.Array, o_BLHE: jax.Array) -> jax.Array:
    """Returns changed outputs of heads; x_BLD is the input of attention."""
    return o_BLHE

  def bidirectional(self) -> "Variant":
    """Returns the form for bidirectional attention, or raises ValueError."""
    return self

  def cross(self) -> "Variant":
    """Returns the form for cross-attention, or raises ValueError.

    There, the attended tokens have no data, and a query no value of its own.
    """
    if self.overrides("own_value"):
      reason = "reads the token's own value, and in cross-attention a query has none"
    elif self.overrides("accumulate") or self.reads_keys:
      reason = "reads data of both tokens, which those of another text do not have"
    else:
      return self
    raise ValueError(f"{self.name} {reason}; use it in a decoder")

  def layer(self, n: int) -> "Variant":
    """Returns the variant of layer n."""
    return self

  def refusal(self, encoding: PositionalEncoding) -> str | None:
    """Returns why the variant does not support an encoding, naming both, or None."""
    return None

  def overrides(self, hook: str) -> bool:
    """Returns whether this variant overrides a hook."""
    return getattr(type(self), hook) is not getattr(Variant, hook)

  @property
  def name(self) -> str:
    """Name in specs and messages."""
    return "multihead" if type(self) is Variant else attentions.name_of(self)

  @property
  def tile_local(self) -> bool:
    """False when weights need a whole row of scores, or all heads, at once."""
    rows = ("weigh", "weigh_at", "select")
    return not any(map(self.overrides, rows))

  @property
  def reads_keys(self) -> bool:
    """Whether scores, weights or the mask may depend on token data."""
    readers = ("mask", "select", "score", "weigh_at")
    return self.overrides("token_data") and any(map(self.overrides, readers))


def _sum(parts: tuple[Variant, ...]) -> Variant:
  """Returns the sum of variants, `a + b`."""
  from transformer_jax.attention.variants.variant_sum import Sum  # made of variants

  return Sum(parts)


attentions = Registry("attention variant", Variant, combine=_sum)
