"""Untied positional encoding (TUPE). Ke et al., 2020. https://arxiv.org/abs/2006.15595"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.forwarding import computed
from transformer_jax.normalization import layer_norm
from transformer_jax.positions.base import HOOKS, PositionalEncoding, positions
from transformer_jax.spec import SpecError

PLUS = "plus_"


@positions.register("tupe")
@dataclasses.dataclass(frozen=True)
class Tupe(PositionalEncoding):
  """Adds scores of learned positions with separate query and key projections.

      s_ij = (q_i . k_j + (p_i Q) . (p_j K)) / sqrt(2 K) + b_ij

  p is the table, and b the bias of `plus`; all layers share the parameters. Outside of
  the table the result is NaN.

  max_positions   rows of the table; None: as many as the training length
  plus      an encoding whose bias is added: none is TUPE-A, t5 is TUPE-R
  untie     scores of positions with a text's first token are two learned numbers: one
            from it, one to it; for texts that begin with a token like [CLS], as in the
            paper
  norm      normalizes the positions, as in the authors' code but not in the equation

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> tile = tj.positions.Tile(
  ...   q_LK=None, k_MK=None, pos_L=np.array([2]), pos_M=np.arange(4), mask_LM=None,
  ...   q_data={}, k_data={}, scale=1.0,
  ... )
  >>> params = {"table_LD": np.array([[0.0], [1], [2]])}  # ends after three positions
  >>> params |= {"query_HDK": np.ones((1, 1)), "key_HDK": np.ones((1, 1))}
  >>> score = jax.jit(tj.positions.build("tupe(norm=False)").score)
  >>> print(np.asarray(score(params, np.zeros((1, 4)), tile)).round(2))
  [[0.   1.41 2.83  nan]]
  """

  max_positions: int | None = None
  plus: PositionalEncoding = PositionalEncoding()
  untie: bool = False
  norm: bool = True
  relative = False
  integer_positions = True
  extrapolation = "table ends"

  def __post_init__(self):
    object.__setattr__(self, "plus", positions.build(self.plus))
    others = [hook for hook in HOOKS if self.plus.overrides(hook)]
    others = [hook for hook in others if hook not in ("bias", "mask")]
    if others:
      raise SpecError(
        "tupe adds a bias that depends on positions alone, and"
        f" {self.plus.name} is more; write plus=t5 or plus=none"
      )

  def init(self, key, dims):
    keys, shape = jax.random.split(key, 4), (dims.H, dims.D, dims.K)
    params = {
      "table_LD": 0.02 * jax.random.normal(keys[0], (self.num_positions(dims), dims.D)),
      "query_HDK": jax.random.normal(keys[1], shape) * dims.D**-0.5,
      "key_HDK": jax.random.normal(keys[2], shape) * dims.D**-0.5,
    }
    if self.norm:
      params |= {"gain_D": jnp.ones(dims.D), "shift_D": jnp.zeros(dims.D)}
    if self.untie:
      params |= {"from_first_H": jnp.zeros(dims.H), "to_first_H": jnp.zeros(dims.H)}
    plus = self.plus.init(keys[3], dims)
    return params | {PLUS + name: x for name, x in plus.items()}

  def constants(self, dims):
    return {PLUS + name: x for name, x in self.plus.constants(dims).items()}

  def num_positions(self, dims):
    return self.max_positions or dims.L

  def bidirectional(self):
    return dataclasses.replace(self, plus=self.plus.bidirectional())

  def accumulate(self, params, data, at):
    # float32, for blockwise attention differentiates its inputs.
    first_BL = (at.order_BL == 0).astype(jnp.float32)
    return {"first_BL": first_BL} if self.untie else {}

  def prepare(self, params, q_at, k_at):
    def project(name, at):
      rows_BLD = self._rows(params, at.pos_BL)
      place_BLHK = jnp.einsum("BLD,HDK->BLHK", rows_BLD, params[name])
      return at.replace(data=at.data | {"place_BLHK": place_BLHK})

    q_at, k_at = project("query_HDK", q_at), project("key_HDK", k_at)
    made = ("table_LD", "query_HDK", "key_HDK", "gain_D", "shift_D")
    return {n: x for n, x in params.items() if n not in made}, q_at, k_at

  def score(self, params, s_LM, tile):
    if "place_BLHK" in tile.q_data:
      q_LK, k_MK = tile.q_data["place_BLHK"], tile.k_data["place_BLHK"]
    else:
      q_LK = self._rows(params, tile.pos_L) @ params["query_HDK"]
      k_MK = self._rows(params, tile.pos_M) @ params["key_HDK"]
    match_LM = 2**-0.5 * tile.scale * (q_LK @ k_MK.T) + self._plus(params, tile)
    if self.untie:
      first_L, first_M = tile.q_data["first_BL"] > 0, tile.k_data["first_BL"] > 0
      match_LM = jnp.where(first_M[None, :], params["to_first_H"], match_LM)
      match_LM = jnp.where(first_L[:, None], params["from_first_H"], match_LM)
    return 2**-0.5 * s_LM + match_LM

  def _rows(self, params, pos_L):
    # JAX would clamp or wrap the index silently: undefined would look defined.
    rows_LD = params["table_LD"].at[pos_L]
    rows_LD = rows_LD.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    if not self.norm:
      return rows_LD
    return layer_norm(rows_LD, params["gain_D"], params["shift_D"], 1e-5)

  @computed
  def mask(self):
    mask = self.plus.mask
    return mask and (lambda params, *at: mask(_own(params), *at))

  def _plus(self, params, tile):
    if self.plus.bias is None:
      return 0.0
    return self.plus.bias(_own(params), tile.pos_L, tile.pos_M)


def _own(params):
  """Returns the parameters of the added encoding, by their original names."""
  return {n.removeprefix(PLUS): x for n, x in params.items() if n.startswith(PLUS)}
