"""Disentangled attention. He et al., 2020. https://arxiv.org/abs/2006.03654"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.axes import axes_of
from transformer_jax.normalization import layer_norm
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.shared import relative
from transformer_jax.positions.t5 import log_fraction


@positions.register("deberta")
@dataclasses.dataclass(frozen=True)
class Deberta(PositionalEncoding):
  """Scores queries and keys with learned vectors of the distance as well.

      s_ij = (q_i . k_j + q_i . K[i - j] + k_j . Q[j - i]) / sqrt(3 K)

  The vectors K and Q are one table for all layers, projected by each layer.

  max_distance   distances from here on, either way, share one vector
  buckets    None: one vector per distance, as in version 1. Versions 2 and 3 have 256
             each way: half of them for one distance each, the others widen
  norm       normalizes the table (LayerNorm), as in version 3
  shared     projects the table with the query and key weights and biases of the layer,
             as versions 2 and 3 do (`share_att_key`); else with separate weights
  released   indexes Q by i - j too, as the released code does, unlike the paper

  >>> import numpy as np
  >>> from transformer_jax.positions.deberta import Deberta, bucket, rows
  >>> rows(Deberta(max_distance=3)).tolist()  # of distances -3 ... 3
  [0, 1, 2, 3, 4, 5, 5]
  >>> bucket(np.array([1, 128, 129, 200, 300, 400, 511]), 256, 512).tolist()
  [1, 128, 129, 169, 207, 233, 255]
  """

  max_distance: int = 512
  buckets: int | None = None
  norm: bool = False
  released: bool = False
  shared: bool = False
  per_layer = True
  integer_positions = True
  extrapolation = "clipped at max_distance"

  def __post_init__(self):
    exact = (self.buckets or 2) // 2
    if not 1 <= exact < self.max_distance - 1 and self.buckets or self.max_distance < 1:
      raise ValueError(
        f"deberta with buckets={self.buckets} holds distances up to {exact} exactly;"
        f" max_distance={self.max_distance} must be more by two, and buckets at least 2"
      )

  def init(self, key, dims):
    keys, N = jax.random.split(key, 3), 2 * (self.buckets or self.max_distance)

    def project(key):
      return jax.random.normal(key, (dims.H, dims.D, dims.K))

    params = {"table_ND": 0.02 * jax.random.normal(keys[0], (N, dims.D))}
    if not self.shared:
      params["query_HDK"] = project(keys[1]) * dims.D**-0.5
      params["key_HDK"] = project(keys[2]) * dims.D**-0.5
    if not self.norm:
      return params
    return params | {"gain_D": jnp.ones(dims.D), "shift_D": jnp.zeros(dims.D)}

  def in_layer(self, name):
    return name in ("query_HDK", "key_HDK")

  def borrow(self, params, weights):
    if not self.shared:
      return params
    if not {"query_DHK", "key_DHK"} <= weights.keys():
      raise ValueError(
        "deberta(shared=True) projects its table by the queries and keys of each head,"
        f" which {sorted(weights)} do not have; use multihead, or shared=False"
      )
    parts = [name for name in weights if name.startswith(("query_", "key_"))]
    heads_first = {name: axes_of(name).index("H") for name in parts}
    return params | {
      name.replace("DHK", "HDK"): jnp.moveaxis(weights[name], axis, 0)
      for name, axis in heads_first.items()
    }

  def prepare(self, params, q_at, k_at):
    return self._project(params) | relative.READY, q_at, k_at

  def _project(self, params):
    """Returns vectors for queries and for keys, of one head or of all."""
    table_ND = params["table_ND"]
    if self.norm:
      table_ND = layer_norm(table_ND, params["gain_D"], params["shift_D"], 1e-7)
    found = {}
    for name in ("key", "query"):
      vectors = table_ND @ params[f"{name}_HDK"]
      if f"{name}_shift_HK" in params:
        vectors += params[f"{name}_shift_HK"][..., None, :]
      found[f"{name}_HNK"] = vectors
    return found

  def score(self, params, s_LM, tile):
    match = relative.matcher(params)
    vectors = params if "ready" in params else self._project(params)
    q_LK, k_MK = tile.q_LK.astype(jnp.float32), tile.k_MK.astype(jnp.float32)
    found_LM = match(self._row, vectors["key_HNK"], q_LK, tile.pos_L, tile.pos_M)
    # From key to query the distance changes its sign.
    row = (lambda back: self._row(-back)) if self.released else self._row
    found_LM += match(row, vectors["query_HNK"], k_MK, tile.pos_M, tile.pos_L).T
    return 3**-0.5 * (s_LM + tile.scale * found_LM)

  def _row(self, back):
    """Returns the table's row of the distance back to a token."""
    half = self.max_distance
    if not self.buckets:  # one row for each distance: no lookup in a table of rows
      return jnp.clip(back.astype(jnp.int32) + half, 0, 2 * half - 1)
    place = jnp.clip(back.astype(jnp.int32), -half, half)
    return jnp.asarray(rows(self), jnp.int32)[place + half]


def rows(deberta: Deberta) -> np.ndarray:
  """Returns the table's row of every distance from -max_distance to max_distance."""
  back = np.arange(-deberta.max_distance, deberta.max_distance + 1)
  half = deberta.buckets or deberta.max_distance
  if deberta.buckets:
    back = bucket(back, deberta.buckets, deberta.max_distance)
  return np.clip(back + half, 0, 2 * half - 1)


def bucket(back: np.ndarray, buckets: int, max_distance: int) -> np.ndarray:
  """Returns the signed bucket of every distance; buckets may exceed the table.

  Made on the host: a device's logarithm may round the other way at bucket edges.
  """
  exact = buckets // 2
  wide = log_fraction(np.abs(back), exact, max_distance - 1) * (exact - 1)
  # The small number keeps exact powers, where the logarithm should be whole, in place.
  wide = np.sign(back) * (exact + np.ceil(wide - 1e-6)).astype(np.int64)
  return np.where(np.abs(back) <= exact, back, wide)
