"""T5's bucketed bias. Raffel et al., 2020. https://arxiv.org/abs/1910.10683"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from transformer_jax.positions.base import PositionalEncoding, positions


@positions.register("t5")
@dataclasses.dataclass(frozen=True)
class T5(PositionalEncoding):
  """Learns one bias per head and bucket of distances, shared by all layers.

      s_ij = q_i . k_j / sqrt(K) + b_h[bucket(i - j)]

  buckets    half of them hold one distance each, the others widen with distance
  max_distance   from here on all distances share the last bucket
  causal     False splits the buckets between past and future

  >>> import numpy as np
  >>> from transformer_jax.positions.t5 import T5, bucket_of_distance
  >>> back = np.array([0, 1, 15, 16, 20, 32, 64, 127, 128])  # i - j
  >>> bucket_of_distance(T5())[128 - back].tolist()
  [0, 1, 15, 16, 17, 21, 26, 31, 31]
  """

  buckets: int = 32
  max_distance: int = 128
  causal: bool = True
  integer_positions = True
  extrapolation = "last bucket"

  def __post_init__(self):
    exact = self.buckets // (2 if self.causal else 4)
    if not 0 < exact < self.max_distance:
      raise ValueError(
        f"t5 with {self.buckets} buckets holds distances below {exact} exactly;"
        f" max_distance={self.max_distance} must be more, and buckets at least"
        f" {2 if self.causal else 4}"
      )

  def init(self, key, dims):
    return {"table_HN": jnp.zeros((dims.H, self.buckets))}

  def bidirectional(self):
    return dataclasses.replace(self, causal=False)

  def bias(self, params, pos_L, pos_M):
    ahead_LM = (pos_M[None, :] - pos_L[:, None]).astype(jnp.int32)
    place_LM = (
      jnp.clip(ahead_LM, -self.max_distance, self.max_distance) + self.max_distance
    )
    # One entry per distance first: tiles then index a small table of floats.
    per_distance_N = params["table_HN"][bucket_of_distance(self)]
    return per_distance_N[place_LM]


def bucket_of_distance(t5: T5) -> np.ndarray:
  """Returns the bucket of every `key - query` from -max_distance to max_distance.

  Made on the host: a device's logarithm may round the other way at bucket edges.
  """
  ahead = np.arange(-t5.max_distance, t5.max_distance + 1)
  if t5.causal:
    return _bucket(np.maximum(-ahead, 0), t5.buckets, t5.max_distance)
  half = t5.buckets // 2
  return _bucket(np.abs(ahead), half, t5.max_distance) + half * (ahead > 0)


def _bucket(distance: np.ndarray, buckets: int, max_distance: int) -> np.ndarray:
  exact = buckets // 2
  widening = log_fraction(distance, exact, max_distance)
  # The small number keeps exact powers, where the logarithm should be whole, in place.
  far = exact + np.floor(widening * (buckets - exact) + 1e-6).astype(np.int64)
  return np.where(distance < exact, distance, np.minimum(far, buckets - 1))


def log_fraction(distance: np.ndarray, smallest: float, largest: float) -> np.ndarray:
  """Returns 0 at the smallest distance and 1 at the largest, logarithmic between.

  Distances below the smallest count as the smallest.
  """
  ratio = np.maximum(distance, smallest) / smallest
  return np.log(ratio) / np.log(largest / smallest)
