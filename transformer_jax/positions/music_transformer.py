"""Music Transformer's relative keys. Huang et al., 2019. https://arxiv.org/abs/1809.04281"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.shared import relative
from transformer_jax.spec import SpecError


@positions.register("music_transformer")
@dataclasses.dataclass(frozen=True)
class MusicTransformer(PositionalEncoding):
  """Adds a learned vector of the distance to each key, one per training position.

      s_ij = (q_i . k_j + q_i . E_h[i - j]) / sqrt(K)

  Row 0 of a table is the farthest past. Beyond the table all share the farthest row.

  max_distance   distances in the table, from 0 on; None: as many as the training length
  shared    heads share one table; else one table per head, as in the paper
  causal    False: the table has the future too; else the future is as the token itself

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> tile = tj.positions.Tile(
  ...   q_LK=np.ones((1, 1)), k_MK=None, pos_L=np.array([3]), pos_M=np.arange(4),
  ...   mask_LM=None, q_data={}, k_data={}, scale=1.0,
  ... )
  >>> score = jax.jit(tj.positions.build("music_transformer(max_distance=3)").score)
  >>> params = {"table_HNK": np.array([[0.1], [0.2], [0.3]])}
  >>> print(score(params, np.zeros((1, 4)), tile))
  [[0.1 0.1 0.2 0.3]]
  """

  max_distance: int | None = None
  shared: bool = False
  causal: bool = True
  per_layer = True
  integer_positions = True
  extrapolation = "clipped at max_distance"

  def __post_init__(self):
    if self.max_distance is not None and self.max_distance < 1:
      raise SpecError(
        f"music_transformer needs max_distance of at least 1, not {self.max_distance}"
      )

  def init(self, key, dims):
    max_distance = self.max_distance or dims.L
    rows = max_distance if self.causal else 2 * max_distance - 1
    name, heads = ("table_NK", ()) if self.shared else ("table_HNK", (dims.H,))
    return {name: 0.02 * jax.random.normal(key, (*heads, rows, dims.K))}

  def bidirectional(self):
    return dataclasses.replace(self, causal=False)

  def prepare(self, params, q_at, k_at):
    return params | relative.READY, q_at, k_at

  def score(self, params, s_LM, tile):
    table_NK = params["table_NK" if self.shared else "table_HNK"]
    rows = table_NK.shape[0]
    farthest = rows - 1 if self.causal else rows // 2

    def row(back):
      return jnp.clip(farthest - back, 0, rows - 1)

    q_LK, match = tile.q_LK.astype(jnp.float32), relative.matcher(params)
    return s_LM + tile.scale * match(row, table_NK, q_LK, tile.pos_L, tile.pos_M)


def skew(match_LN: jax.Array) -> jax.Array:
  """Shears matches with distances L - 1, ..., 0 into matches with keys 0, ..., L - 1.

  match_LN: [L, L], query i times the vector of distance L - 1 - n. Returns [L, L];
  entries above the diagonal, future keys, are undefined.
  """
  L = match_LN.shape[0]
  return jnp.pad(match_LN, ((0, 0), (1, 0))).reshape(L + 1, L)[1:]


def skew_both_ways(match_LN: jax.Array) -> jax.Array:
  """Shears matches with distances L - 1, ..., 1 - L into matches with keys.

  match_LN: [L, 2 L - 1]. Returns [L, L].
  """
  L, N = match_LN.shape
  flat = jnp.pad(match_LN, ((0, 0), (0, 1))).reshape(-1)
  return jnp.pad(flat, (0, L - 1)).reshape(L + 1, N)[:L, L - 1 :]
