"""Base class of positional encodings and their hooks."""

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
  """Training context of `assign_positions`; evaluation has None.

  key          random key
  progress     fraction of the training steps completed, from 0 to 1
  batch_size   sequences in the batch, on all devices inside `pmap`; coordinates may be
               shared by all of them

  >>> import jax
  >>> import transformer_jax as tj
  >>> drope = tj.positions.build("drope(rope, after=0.8)")
  >>> at = tj.positions.coords.consecutive(1, 4)
  >>> context = tj.positions.TrainContext(jax.random.key(0), progress=0.9, batch_size=2)
  >>> print(jax.jit(drope.assign_positions)(context, at).pos_BL)
  [[0 0 0 0]]
  """

  key: jax.Array
  progress: jax.Array | float = 1.0
  batch_size: int = dataclasses.field(default=1, metadata={"static": True})

  def inner(self) -> "TrainContext":
    """Returns the context of a wrapped encoding: other random numbers."""
    # Far from the numbers that `split` of the same key folds in.
    return dataclasses.replace(self, key=jax.random.fold_in(self.key, 2**30))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tile:
  """One tile of attention, an argument of `score`: queries and keys of one head.

  q_LK, k_MK      queries and keys after `transform_qk`; queries are not scaled
  pos_L, pos_M    their positions
  mask_LM         True where the query attends to the key, in this head
  q_data, k_data  results of `accumulate`, without batch and head axes
  scale           factor on dot products, 1 / sqrt(K) by default

  `full_scores` gets all heads at once. Its q, k and data have a leading head axis, as
  has mask_HLM where the encoding masks by head. A scale for each head is scale_H11.

  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> tile = tj.positions.Tile(
  ...   q_LK=np.ones((1, 2)), k_MK=np.ones((3, 2)),
  ...   pos_L=np.array([3]), pos_M=np.arange(3), mask_LM=np.ones((1, 3), bool),
  ...   q_data={}, k_data={}, scale=2**-0.5,
  ... )
  >>> print(tj.positions.build("alibi").score({"slope_H": 0.5}, np.ones((1, 3)), tile))
  [[-0.5  0.   0.5]]
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

      s_ij = q_i . k_j / sqrt(K)

  https://arxiv.org/abs/2203.16634. Encodings override the hooks that they use. The
  third column has FlexAttention's name of a hook, where there is one:

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

  A large negative bias is no mask: a soft-cap or a mixture of heads would compute with
  that number. `mask(params, pos_L, pos_M)` is False where a head does not attend, in
  addition to the mask of coordinates and variant. None, the default, masks nothing.

  >>> class Distance(PositionalEncoding):
  ...   def bias(self, params, pos_L, pos_M):
  ...     return -0.5 * abs(pos_L[:, None] - pos_M)
  >>> Distance().overrides("bias"), Distance().overrides("rotate")
  (True, False)
  """

  # Declarations have no annotations: a subclass may make a field of one.
  relative = True  # shifting all positions changes nothing
  per_layer = False  # parameters are not shared between layers
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
    """Returns arrays passed like parameters, but not trained, saved or counted."""
    return {}

  def num_positions(self, dims: Dims) -> int | None:
    """Returns the number of defined positions; None: unlimited."""
    return None

  def stable_length(self, dims: Dims) -> int | None:
    """Returns the length up to which later tokens do not change earlier ones.

    In tokens; None: unlimited. The default is 0 with `needs_full_text`.
    """
    return 0 if self.needs_full_text else None

  def bidirectional(self) -> "PositionalEncoding":
    """Returns the form for bidirectional attention; raises ValueError without one."""
    return self

  def cross(self) -> "PositionalEncoding":
    """Returns the form for cross-attention: none, since positions share no axis."""
    return PositionalEncoding()

  def layer(self, n: int) -> "PositionalEncoding":
    """Returns the encoding of layer n; names of parameters stay."""
    return self

  def in_layer(self, name: str) -> bool:
    """Returns whether a parameter is not shared between layers."""
    return self.per_layer

  def borrow(self, params: Params, weights: Params) -> Params:
    """Returns the parameters with projection weights of the layer added.

    weights: of attention, by name, `query_DHK`; borrowed ones belong to attention
    """
    return params

  def assign_positions(self, context: TrainContext | None, at: Coords) -> Coords:
    """Returns the coordinates with new positions; context is None outside training."""
    return at

  def embed(self, params: Params, x_BLD: jax.Array, at: Coords) -> jax.Array:
    """Returns the changed token embeddings; only parameters shared by all layers."""
    return x_BLD

  def token_data(
    self, params: Params, x_BLD: jax.Array, q_BLHK: jax.Array
  ) -> dict[str, jax.Array]:
    """Returns features of each token by name; names end in their axes, BL first.

    q_BLHK: the tokens' queries, before `transform_qk`
    """
    return {}

  def accumulate(
    self, params: Params, data: dict[str, jax.Array], at: Coords
  ) -> dict[str, jax.Array]:
    """Returns the data of a `Tile`, from the token data of the text so far.

    A cache stores the results of `token_data`; its empty places come last.
    """
    return data

  def temperature(self, params: Params, at: Coords) -> float | jax.Array:
    """Returns the factor on the queries, broadcastable to q_BLHK."""
    return 1.0

  def rotate(self, params: Params, x_BLHK: jax.Array, pos_BL: jax.Array) -> jax.Array:
    """Returns changed queries or keys; both change alike."""
    return x_BLHK

  def transform_qk(
    self,
    params: Params,
    q_BLHK: jax.Array,
    k_BMHK: jax.Array,
    q_at: Coords,
    k_at: Coords,
  ) -> tuple[jax.Array, jax.Array]:
    """Returns (q_BLHK, k_BMHK), changed apart; their width may change.

    params            parameters and constants
    q_BLHK, k_BMHK    queries and keys; k may have fewer heads
    q_at, k_at        their coordinates, with the results of `accumulate`
    """
    q_BLHK = self.rotate(params, q_BLHK, q_at.pos_BL)
    return q_BLHK, self.rotate(params, k_BMHK, k_at.pos_BL)

  def prepare(
    self, params: Params, q_at: Coords, k_at: Coords
  ) -> tuple[Params, Coords, Coords]:
    """Returns params and coordinates with values that all tiles share, computed once.

    Called by cores whose tiles may branch on positions; hooks work without it, too.
    """
    return params, q_at, k_at

  def score(self, params: Params, s_LM: jax.Array, tile: Tile) -> jax.Array:
    """Returns the changed scaled scores of one head."""
    if self.bias is None:
      return s_LM
    return s_LM + self.bias(params, tile.pos_L, tile.pos_M)

  def values(
    self, params: Params, w_LM: jax.Array, pos_L: jax.Array, pos_M: jax.Array
  ) -> jax.Array | float:
    """Returns an update of one head's output, o_LK; must be linear in the weights."""
    return 0.0

  def full_scores(self, params: Params, s_HLM: jax.Array, tile: Tile) -> jax.Array:
    """Returns the changed scores of all heads, with whole rows of keys."""
    return s_HLM

  def overrides(self, hook: str) -> bool:
    """Returns whether this encoding defines a hook."""
    if hook == "mask":  # an encoding may have one in some of its forms
      return self.mask is not None
    return getattr(type(self), hook) is not getattr(PositionalEncoding, hook)

  @property
  def name(self) -> str:
    """Name in specs and messages."""
    return positions.name_of(self)

  @property
  def tile_local(self) -> bool:
    """Whether scores can be computed tile by tile, without whole rows of keys."""
    return not self.overrides("full_scores")


positions = Registry("positional encoding", PositionalEncoding)
positions.register("none")(PositionalEncoding)


def shorter(*lengths: int | None) -> int | None:
  """Returns the minimum of some lengths; None is unlimited."""
  return min((n for n in lengths if n is not None), default=None)


def _acts(name: str) -> bool:
  """Returns whether a member's first argument is `params` or `context`."""
  member = getattr(PositionalEncoding, name)
  if member is None:  # `bias` and `mask` have no default
    return True
  first = [*inspect.signature(member).parameters][1:2]
  return first in (["params"], ["context"])


# Hooks that compute with a model's arrays; the other methods are queries.
HOOKS = tuple(
  name
  for name, kind in members(PositionalEncoding).items()
  if kind is HOOK and _acts(name)
)
