"""Base class of positional encodings, and its hooks."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import ClassVar

import jax

from transformer_jax.axes import Dims
from transformer_jax.members import HOOK, members
from transformer_jax.positions.coords import Coords
from transformer_jax.spec import Registry

Params = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainContext:
  """State of training, for encodings that act otherwise than in evaluation.

  key          of random numbers
  progress     the share of all training steps that is done, from 0 to 1
  batch_size   sequences in the batch, on all devices inside `pmap`; coordinates may be
               shared by all of them
  """

  key: jax.Array
  progress: jax.Array | float = 1.0
  batch_size: int = dataclasses.field(default=1, metadata={"static": True})

  def inner(self) -> "TrainContext":
    """Returns the context for an encoding inside of another: other random numbers."""
    # A number that `split` of the same key does not come to.
    return dataclasses.replace(self, key=jax.random.fold_in(self.key, 2**30))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tile:
  """Some queries against some keys of one head, as `score` sees them.

  q_LK, k_MK      queries and keys after `transform_qk`; queries are not scaled
  pos_L, pos_M    their positions
  mask_LM         True where the query may look at the key, in this head
  q_data, k_data  what `accumulate` returned, without batch and head axes
  scale           what multiplies a dot product, 1 / sqrt(K) by default

  `full_scores` gets all heads at once: its q, k and data keep a head axis, in front,
  as does
  mask_HLM where the encoding masks by head, and a scale of each head's own is
  scale_H11.
  """

  q_LK: jax.Array
  k_MK: jax.Array
  pos_L: jax.Array
  pos_M: jax.Array
  mask_LM: jax.Array
  q_data: dict[str, jax.Array]
  k_data: dict[str, jax.Array]
  scale: float | jax.Array


@dataclasses.dataclass(frozen=True)
class PositionalEncoding:
  """Adds nothing; a causal model still learns positions. Haviv et al., 2022.

  https://arxiv.org/abs/2203.16634. Encodings override the hooks their method uses. The
  third column has FlexAttention's word for a hook, where it has one:

    assign_positions  coords -> coords                positions of tokens     randomized
    embed             x_BLD -> x_BLD                  token embeddings        learned
    token_data        x_BLD, q_BLHK -> arrays         features of each token  forgetting
    accumulate        arrays -> arrays                sums along the text     forgetting
    temperature       coords -> t_BLH1                factor on queries       rope_yarn
    rotate            x_BLHK, pos_BL -> x_BLHK        queries and keys alike  rope
    transform_qk      q, k, coords -> q, k            queries, keys apart     xpos, pope
    bias              pos_L, pos_M -> b_LM            score_mod, additive     alibi, t5
    mask              pos_L, pos_M -> bool_LM         mask_mod, by head       alibi
    score             s_LM, tile -> s_LM              score_mod               shaw
    values            w_LM, pos_L, pos_M -> o_LK      added to a head's output  shaw
    full_scores       s_HLM, tile -> s_HLM            all heads, full rows    cope, dape

  Every hook is a pure function of parameters and explicit positions and works on any
  tile, so that every attention core, the cache and every sharding call the same
  definition. `bias`, `mask`, `score` and `values` get one head of one sequence.
  Parameter names end in their axes; one that starts with H has a slice for each head.

  A large negative bias is no mask: a soft cap or a mixture of heads would calculate
  with that number. `mask(params, pos_L, pos_M)` is False where a head may not attend,
  besides the keys that coordinates and variant mask; None, the default, masks nothing.

  >>> class Distance(PositionalEncoding):
  ...   def bias(self, params, pos_L, pos_M):
  ...     return -0.5 * abs(pos_L[:, None] - pos_M)
  >>> Distance().overrides("bias"), Distance().overrides("rotate")
  (True, False)
  """

  # Declarations have no annotations: a subclass may make a field of one.
  relative = True  # shifting all positions changes nothing
  per_layer = False  # each layer has its own parameters
  integer_positions = False  # a table lookup: undefined between whole numbers
  needs_full_text = False  # later tokens change the encoding of earlier ones
  centred = False  # angles are measured from the text's midpoint; they cancel in q . k
  ids: ClassVar[tuple[str, ...]] = ()  # names in `Coords.data` that it reads
  extrapolation = "defined"  # behaviour past the training length
  bias: ClassVar[Callable[..., jax.Array] | None] = None
  mask: ClassVar[Callable[..., jax.Array] | None] = None

  def init(self, key: jax.Array, dims: Dims) -> Params:
    """Returns the trainable parameters."""
    return {}

  def constants(self, dims: Dims) -> Params:
    """Returns what is like a parameter but neither trained, saved nor counted."""
    return {}

  def num_positions(self, dims: Dims) -> int | None:
    """Returns how many positions are defined; None: any number."""
    return None

  def stable_length(self, dims: Dims) -> int | None:
    """Returns how long a text may be before later tokens change earlier ones.

    In tokens; None: any length. With `needs_full_text` 0, unless an encoding says more.
    """
    return 0 if self.needs_full_text else None

  def bidirectional(self) -> "PositionalEncoding":
    """Returns the form for attention that looks both ways, or raises ValueError."""
    return self

  def cross(self) -> "PositionalEncoding":
    """Returns the form between two texts, whose positions share no axis: nothing."""
    return PositionalEncoding()

  def layer(self, n: int) -> "PositionalEncoding":
    """Returns what layer n uses; parameters keep the names they have here."""
    return self

  def in_layer(self, name: str) -> bool:
    """Says whether each layer has its own array of this parameter."""
    return self.per_layer

  def borrow(self, params: Params, weights: Params) -> Params:
    """Returns the parameters with what it takes of a layer's projections of tokens.

    weights: by the names of attention, `query_DHK`; shared ones stay theirs
    """
    return params

  def assign_positions(self, context: TrainContext | None, at: Coords) -> Coords:
    """Chooses the positions; context is None in evaluation and decoding."""
    return at

  def embed(self, params: Params, x_BLD: jax.Array, at: Coords) -> jax.Array:
    """Changes the token embeddings, with parameters that all layers share."""
    return x_BLD

  def token_data(
    self, params: Params, x_BLD: jax.Array, q_BLHK: jax.Array
  ) -> dict[str, jax.Array]:
    """Reads off each token what must travel with it; names carry axes, BL first.

    q_BLHK: the token's queries, before `transform_qk`
    """
    return {}

  def accumulate(
    self, params: Params, data: dict[str, jax.Array], at: Coords
  ) -> dict[str, jax.Array]:
    """Turns the token data of the whole text so far into what `score` reads.

    A cache keeps what `token_data` gave; places that are still empty come last.
    """
    return data

  def temperature(self, params: Params, at: Coords) -> float | jax.Array:
    """Returns the factor on the queries, which broadcasts to q_BLHK."""
    return 1.0

  def rotate(self, params: Params, x_BLHK: jax.Array, pos_BL: jax.Array) -> jax.Array:
    """Changes queries and keys in the same way."""
    return x_BLHK

  def transform_qk(
    self,
    params: Params,
    q_BLHK: jax.Array,
    k_BMHK: jax.Array,
    q_at: Coords,
    k_at: Coords,
  ) -> tuple[jax.Array, jax.Array]:
    """Changes queries and keys, each in its own way; may change their width."""
    q_BLHK = self.rotate(params, q_BLHK, q_at.pos_BL)
    return q_BLHK, self.rotate(params, k_BMHK, k_at.pos_BL)

  def prepare(
    self, params: Params, q_at: Coords, k_at: Coords
  ) -> tuple[Params, Coords, Coords]:
    """Makes once what `score` and `values` would make again in every tile.

    Cores whose tiles may branch on positions ask for it; the hooks work without, too.
    """
    return params, q_at, k_at

  def score(self, params: Params, s_LM: jax.Array, tile: Tile) -> jax.Array:
    """Changes the scaled scores of one head."""
    if self.bias is None:
      return s_LM
    return s_LM + self.bias(params, tile.pos_L, tile.pos_M)

  def values(
    self, params: Params, w_LM: jax.Array, pos_L: jax.Array, pos_M: jax.Array
  ) -> jax.Array | float:
    """Returns what is added to one head's output; must be linear in the weights."""
    return 0.0

  def full_scores(self, params: Params, s_HLM: jax.Array, tile: Tile) -> jax.Array:
    """Changes the scores of all heads where whole rows are needed."""
    return s_HLM

  def overrides(self, hook: str) -> bool:
    """Says whether this encoding uses a hook."""
    if hook == "mask":  # an encoding may have one in some of its forms
      return self.mask is not None
    return getattr(type(self), hook) is not getattr(PositionalEncoding, hook)

  @property
  def name(self) -> str:
    """What it is called in specs and messages."""
    return positions.name_of(self)

  @property
  def tile_local(self) -> bool:
    """False when scores need a whole row of keys at once."""
    return not self.overrides("full_scores")


positions = Registry("positional encoding", PositionalEncoding)
positions.register("none")(PositionalEncoding)


def shorter(*lengths: int | None) -> int | None:
  """Returns the least of some lengths, of which None is any number."""
  return min((n for n in lengths if n is not None), default=None)


def _acts(name: str) -> bool:
  """Returns whether a member gets parameters or the context of training first."""
  member = getattr(PositionalEncoding, name)
  if member is None:  # `bias` and `mask`, which an encoding has or has not
    return True
  first = [*inspect.signature(member).parameters][1:2]
  return first in (["params"], ["context"])


# The hooks that act on a model's numbers; the other methods answer questions.
HOOKS = tuple(
  name
  for name, kind in members(PositionalEncoding).items()
  if kind is HOOK and _acts(name)
)
