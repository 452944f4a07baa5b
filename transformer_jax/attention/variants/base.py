"""Base class of attention variants, their hooks, and sums of them."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.attention.carry import Carry
from transformer_jax.attention.projections import Arrays, Heads, Projections, Weights
from transformer_jax.axes import Dims
from transformer_jax.forwarding import Combined, forward
from transformer_jax.positions import Coords, PositionalEncoding, Tile
from transformer_jax.spec import Registry, SpecError


@dataclasses.dataclass(frozen=True)
class Variant:
  """Softmax of q k / sqrt(K), many heads. Vaswani et al., 2017.

  https://arxiv.org/abs/1706.03762. A variant overrides the hooks that its method
  changes, and `a + b` makes both changes:

    projections  -> Projections        queries, keys, values, cache    gqa, mla
    weights      -> shapes             further matrices                gated
    init         -> arrays             further parameters              sinks
    token_data   x, q -> arrays        features of each token          dsa
    accumulate   arrays -> arrays      sums along the text             dsa
    share        kept, carry -> both   before the cache stores them    value_residual
    condition    q, k -> q, k          before they are rotated         qk_norm
    rotated      q, k -> q, k          after they were rotated         qk_norm
    scale        -> factor             on dot products                 scale
    temperature  coords -> t_BLH1      factor on queries               asentmax
    dot          q_LK, k_MK -> s_LM    instead of a dot product        additive
    features     q, k -> q, k          feature maps of linear          linear
    score        s_LM, tile -> s_LM    score_mod, after the bias
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
  parameter whose axes start with H has a slice for each head. Sums apply `condition`,
  `rotated`, `score`, `logits`, `own_value` and `output` from left to right.

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
  mixer = False  # it has no scores, but a state or none: see attention/mixers
  reads_tokens = False  # the carry holds the ids of tokens, as `token_BL`
  kv_from = ""  # name in the carry of keys and values, read instead of its own
  kv_as = ""  # name under which later layers find its keys and values

  def projections(self) -> Projections:
    """Returns the projections of tokens to queries, keys and values."""
    return Heads()

  def weights(self, dims: Dims) -> Weights:
    """Returns the shapes of matrices besides those of the projections.

    dims   sizes with E, the width of values, from `Projections.sizes`
    """
    return {}

  def init(self, key: jax.Array, dims: Dims) -> Arrays:
    """Returns trainable parameters that are not matrices of projections."""
    return {}

  def borrow(self, params: Arrays, weights: Arrays) -> Arrays:
    """Returns the parameters with projection weights of the layer added.

    weights: of the projections, by name; borrowed ones belong to these
    """
    return params

  def token_data(
    self, params: Arrays, x_BLD: jax.Array, q_BLHK: jax.Array
  ) -> dict[str, jax.Array]:
    """Returns features of each token by name; names end in their axes, BL first.

    x_BLD    input of attention
    q_BLHK   the tokens' queries, before `condition` and the encoding
    """
    return {}

  def accumulate(
    self, params: Arrays, data: dict[str, jax.Array], at: Coords
  ) -> dict[str, jax.Array]:
    """Returns the data of coordinates, from the token data of the text so far.

    A cache stores the results of `token_data`; its empty places come last.
    """
    return data

  def reserved(self, kept: Arrays) -> Arrays:
    """Returns the shapes of what `share` puts into the carry once.

    kept   shapes of the arrays of tokens that the cache stores
    """
    return {}

  def share(
    self, params: Arrays, x_BLD: jax.Array, kept: Arrays, carry: Carry
  ) -> tuple[Arrays, Carry]:
    """Returns changed arrays of new tokens, which the cache stores, and the carry.

    x_BLD   input of attention
    kept    the keys and values of these tokens, or MLA's latent
    carry   of earlier layers
    """
    return kept, carry

  def condition(
    self, params: Arrays, q_BLHK: jax.Array, k_BMGK: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Returns changed queries and keys, before the encoding rotates them."""
    return q_BLHK, k_BMGK

  def rotated(
    self, params: Arrays, q_BLHK: jax.Array, k_BMGK: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Returns changed queries and keys, after the encoding rotated them."""
    return q_BLHK, k_BMGK

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


attentions = Registry("attention variant", Variant, combine=lambda parts: Sum(parts))

ONE_OF = {  # hooks that only one part of a sum may override
  "how queries and keys are made": ("projections",),
  "the scale": ("scale",),
  "how a query meets a key": ("dot", "features", "temperature"),
  "which keys a query selects": ("select",),
  "how scores become weights": ("sink_logit", "pointwise", "weigh", "weigh_at"),
  "what is mixed": ("values", "mixed"),
}
SIGNS = "signed", "positive"


@dataclasses.dataclass(frozen=True)
class Sum(Variant):
  """Sum of variants, with the hooks of all parts.

  >>> import transformer_jax as tj
  >>> both = tj.attentions.build("softcap(30) + window(4)")
  >>> [part.name for part in both.parts]
  ['softcap', 'window']
  >>> both.overrides("logits"), both.overrides("mask"), both.overrides("weigh")
  (True, True, False)
  """

  parts: tuple[Variant, ...]

  def __post_init__(self):
    if mixers := [part.name for part in self.parts if part.mixer]:
      raise SpecError(
        f"{mixers[0]} is a mixer, without scores, and nothing can be added to it;"
        f" give it layers of its own, as in alternate({mixers[0]}, multihead, 4)"
      )
    for what, hooks in ONE_OF.items():
      deciding = [p.name for p in self.parts if any(p.overrides(h) for h in hooks)]
      if len(deciding) > 1:
        raise SpecError(
          f"{' and '.join(deciding)} both decide {what}; keep one of them"
        )
    if self.signed and self.positive:
      names = {of: next(p.name for p in self.parts if getattr(p, of)) for of in SIGNS}
      raise SpecError(
        f"{names['signed']} may give negative weights, and {names['positive']} needs"
        " mixtures above zero; keep one of them"
      )
    self._check_widths()

  def _check_widths(self) -> None:
    """Raises SpecError where a head's output is not as wide as the token's value."""
    joins = [p.name for p in self.parts if type(p.projections()).found is not _FOUND]
    reads = [p.name for p in self.parts if p.overrides("own_value")]
    if joins and reads:
      raise SpecError(
        f"{reads[0]} compares the output of a head with the token's value, and"
        f" {joins[0]} makes one output of several heads; keep one of them"
      )

  signed = Combined(any)
  positive = Combined(any)
  rereads = Combined(any)
  untrained = Combined(lambda names: tuple(itertools.chain(*names)))
  mixer = Variant.mixer
  reads_tokens = Combined(any)
  kv_from = Combined("".join)
  kv_as = Combined("".join)
  name = Combined(" + ".join)
  tile_local = Variant.tile_local
  reads_keys = Variant.reads_keys

  def overrides(self, hook: str) -> bool:
    return any(part.overrides(hook) for part in self.parts)

  def decided(self, hook: str, *args: Any) -> Any:
    """Returns the result of the part that overrides the hook, or of plain attention."""
    parts = enumerate(self.parts)
    n, part = next(((n, p) for n, p in parts if p.overrides(hook)), (0, Variant()))
    return getattr(part, hook)(*(_of_part(n, arg) for arg in args))

  def borrow(self, params, weights):
    for part in self.parts:
      params = part.borrow(params, weights)
    return params

  def token_data(self, params, x_BLD, q_BLHK):
    each = (part.token_data(params, x_BLD, q_BLHK) for part in self.parts)
    return _of_sum(each)

  def accumulate(self, params, data, at):
    each = (
      part.accumulate(params, _part_data(n, data), _of_part(n, at))
      for n, part in enumerate(self.parts)
    )
    return _of_sum(each)

  def score(self, params, s_LM, tile):
    for n, part in enumerate(self.parts):
      q_data, k_data = _part_data(n, tile.q_data), _part_data(n, tile.k_data)
      own_tile = dataclasses.replace(tile, q_data=q_data, k_data=k_data)
      s_LM = part.score(params, s_LM, own_tile)
    return s_LM

  def condition(self, params, q_BLHK, k_BMGK):
    for part in self.parts:
      q_BLHK, k_BMGK = part.condition(params, q_BLHK, k_BMGK)
    return q_BLHK, k_BMGK

  def rotated(self, params, q_BLHK, k_BMGK):
    for part in self.parts:
      q_BLHK, k_BMGK = part.rotated(params, q_BLHK, k_BMGK)
    return q_BLHK, k_BMGK

  def reserved(self, kept):
    return {k: v for part in self.parts for k, v in part.reserved(kept).items()}

  def share(self, params, x_BLD, kept, carry):
    for part in self.parts:
      kept, carry = part.share(params, x_BLD, kept, carry)
    return kept, carry

  def logits(self, params, s_LM):
    for part in self.parts:
      s_LM = part.logits(params, s_LM)
    return s_LM

  def output(self, params, x_BLD, o_BLHE):
    for part in self.parts:
      o_BLHE = part.output(params, x_BLD, o_BLHE)
    return o_BLHE

  def own_value(self, params, x_BLD, o_BLHE, v_BLHE):
    for part in self.parts:
      o_BLHE = part.own_value(params, x_BLD, o_BLHE, v_BLHE)
    return o_BLHE

  def mask(self, q_at, k_at):
    masks = (
      part.mask(_of_part(n, q_at), _of_part(n, k_at))
      for n, part in enumerate(self.parts)
    )
    return functools.reduce(jnp.logical_and, masks)

  def weights(self, dims):
    return {k: v for part in self.parts for k, v in part.weights(dims).items()}

  def init(self, key, dims):
    made: list[Arrays] = []
    for part in self.parts:  # each with another key than earlier parts with parameters
      made.append(part.init(jax.random.fold_in(key, len(made)) if made else key, dims))
      made = [arrays for arrays in made if arrays]
    return {name: x for arrays in made for name, x in arrays.items()}

  def refusal(self, encoding):
    reasons = (part.refusal(encoding) for part in self.parts)
    return next((reason for reason in reasons if reason), None)

  def bidirectional(self):
    return Sum(tuple(part.bidirectional() for part in self.parts))

  def cross(self):
    return Sum(tuple(part.cross() for part in self.parts))

  def layer(self, n):
    return Sum(tuple(part.layer(n) for part in self.parts))


_FOUND = Projections.found


def _of_sum(each: Iterable[Arrays]) -> Arrays:
  """Returns the token data of all parts; names start with the number of the part."""
  return {f"{n}.{name}": x for n, data in enumerate(each) for name, x in data.items()}


def _part_data(n: int, data: Arrays) -> Arrays:
  """Returns the token data of part n of a sum, under the names that it gave."""
  start = f"{n}."
  return {k.removeprefix(start): x for k, x in data.items() if k.startswith(start)}


def _of_part(n: int, thing: Any) -> Any:
  """Returns coordinates with the token data of part n of a sum; others as they are."""
  if not isinstance(thing, Coords):
    return thing
  return thing.replace(data=_part_data(n, thing.data))


def _decided(hook: str) -> Any:
  """Returns a hook for which one part decides; None if all parts act."""
  if hook not in {hook for hooks in ONE_OF.values() for hook in hooks}:
    return None
  return lambda self, *args: self.decided(hook, *args)


forward(Sum, Variant, hook=_decided)
