"""Transformer-XL's relative encoding. Dai et al., 2019. https://arxiv.org/abs/1901.02860"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.shared import relative
from transformer_jax.positions.sinusoidal import sinusoids


@positions.register("transformer_xl")
@dataclasses.dataclass(frozen=True)
class TransformerXL(PositionalEncoding):
  """Scores each query with projected sinusoids of the distance, plus global biases.

      s_ij = ((q_i + u) . k_j + (q_i + v) . W R(i - j)) / sqrt(K)

  u and v, `content` and `position`, are learned by each head, and W by each layer.

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> tile = tj.positions.Tile(
  ...   q_LK=np.zeros((1, 2)), k_MK=np.zeros((4, 2)), pos_L=np.array([3]),
  ...   pos_M=np.arange(4), mask_LM=None, q_data={}, k_data={}, scale=1.0,
  ... )
  >>> params = {"content_HK": np.zeros(2), "position_HK": np.array([0.0, 1])}
  >>> params |= {"project_HKD": np.eye(2)}  # v . W R(i - j) = cos(i - j)
  >>> score = jax.jit(tj.positions.build("transformer_xl").score)
  >>> print(np.asarray(score(params, np.zeros((1, 4)), tile)).round(2))
  [[-0.99 -0.42  0.54  1.  ]]
  """

  base: float = 10_000.0
  per_layer = True

  def init(self, key, dims):
    if dims.D % 2:
      raise ValueError(f"transformer_xl needs an even width, not {dims.D}")
    keys = jax.random.split(key, 3)
    project = jax.random.normal(keys[2], (dims.H, dims.K, dims.D)) * dims.D**-0.5
    return {
      "content_HK": 0.02 * jax.random.normal(keys[0], (dims.H, dims.K)),
      "position_HK": 0.02 * jax.random.normal(keys[1], (dims.H, dims.K)),
      "project_HKD": project,
    }

  def prepare(self, params, q_at, k_at):
    # Projected sinusoids of the largest distance and of all smaller ones.
    N = q_at.pos_BL.shape[1] + k_at.pos_BL.shape[1] - 1
    last = (jnp.max(q_at.pos_BL) - jnp.min(k_at.pos_BL)).astype(jnp.float32)
    D = params["project_HKD"].shape[-1]
    waves_ND = sinusoids(last - jnp.arange(N), D, self.base, interleaved=False)
    near_HNK = jnp.einsum("ND,HKD->HNK", waves_ND, params["project_HKD"])
    return params | {"near_HNK": near_HNK, "last": last}, q_at, k_at

  def score(self, params, s_LM, tile):
    q_LK = tile.q_LK.astype(jnp.float32)
    content_M = tile.k_MK.astype(jnp.float32) @ params["content_HK"]
    positional_LK = q_LK + params["position_HK"]

    def split():
      a_LD = positional_LK @ params["project_HKD"]
      return self._match_distance(a_LD, tile.pos_L, tile.pos_M)

    if "near_HNK" in params:
      position_LM = relative.near(
        params["near_HNK"],
        params["last"],
        positional_LK,
        tile.pos_L,
        tile.pos_M,
        otherwise=split,
      )
    else:
      position_LM = split()
    return s_LM + tile.scale * (content_M[None, :] + position_LM)

  def _match_distance(self, a_LD, pos_L, pos_M):
    """Returns a_i . R(i - j), with R(n) = [sin n w, cos n w], as one matrix product.

    sin and cos of a difference split into products of sines and cosines of i and of j,
    so no array of [L, M, D] is made. Both count from one key: far from zero, float32
    holds an angle less exactly.
    """
    pos_L, pos_M = pos_L - pos_M[:1], pos_M - pos_M[:1]

    def waves(pos):
      wave = sinusoids(pos, a_LD.shape[-1], self.base, interleaved=False)
      return jnp.split(wave, 2, axis=-1)

    (a_sin, a_cos), (sin_L, cos_L) = jnp.split(a_LD, 2, axis=-1), waves(pos_L)
    onto_sin = a_cos * sin_L - a_sin * cos_L
    onto_cos = a_sin * sin_L + a_cos * cos_L
    return (
      jnp.concatenate([onto_sin, onto_cos], -1) @ jnp.concatenate(waves(pos_M), -1).T
    )
