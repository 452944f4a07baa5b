"""Softmax attention, estimated with random features. Choromanski et al., 2020.

https://arxiv.org/abs/2009.14794
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.attention.variants.base import attentions
from transformer_jax.attention.variants.kernelized import Kernel
from transformer_jax.axes import whole
from transformer_jax.spec import SpecError

HIGHEST = 40.0  # a key's feature is at most exp(HIGHEST); sums of many stay finite


@attentions.register("performer")
@dataclasses.dataclass(frozen=True)
class Performer(Kernel):
  """FAVOR+: positive, unbiased estimates of exp(q k scale) by products of features.

      w_ij = phi(q_i) . phi(k_j) / sum over t of phi(q_i) . phi(k_t),
        phi(x) = exp(W y - |y|^2 / 2), y = x / K^(1/4)

  Encodings may rotate queries and keys, as with a softmax. The paper's code subtracts
  the largest exponent of all keys and adds 1e-4, so that queries depend on masked keys.
  Here, the excess of a key's exponent moves to the same feature of the queries, which
  changes no product.

  count        number of features; 0: enough blocks of K for K ln K of them
  seed         seed of the directions, which all heads and layers share
  orthogonal   whether directions of a block are orthogonal, for smaller errors

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> x_BLHK = np.array([[[[1.0, 0]], [[0, 1]], [[-1, 0]]]])
  >>> features = jax.jit(tj.attentions.build("performer(count=1024)").features)
  >>> q_LN, k_MN = (np.asarray(x)[0, :, 0] for x in features({}, x_BLHK, x_BLHK, 1.0))
  >>> print((q_LN[0] @ k_MN.T / sum(q_LN[0] @ k_MN.T)).round(2))
  [0.62 0.27 0.11]
  >>> print(np.asarray(jax.nn.softmax(np.array([1.0, 0, -1]))).round(2))
  [0.67 0.24 0.09]
  """

  count: int = 0
  seed: int = 0
  orthogonal: bool = True
  turns = True

  def __post_init__(self):
    if not whole(self.count, 0):
      raise SpecError(
        f"performer: count is {self.count!r}; write a whole number, or 0 to let it be"
        " chosen"
      )

  def features(self, params, q_BLHK, k_BMHK, scale):
    K = q_BLHK.shape[-1]
    w_NK = directions(self.seed, self.count or enough(K), K, self.orthogonal)
    root = jnp.sqrt(jnp.asarray(scale, jnp.float32))
    root = root[:, None] if root.ndim else root
    q_BLHN, k_BMHN = (exponents(x * root, w_NK) for x in (q_BLHK, k_BMHK))
    excess_N = np.maximum(np.sum(w_NK**2, axis=-1) / 2 - HIGHEST, 0.0)
    q_BLHN += excess_N
    q_BLHN -= jax.lax.stop_gradient(jnp.max(q_BLHN, axis=-1, keepdims=True))
    return jnp.exp(q_BLHN), jnp.exp(k_BMHN - excess_N)


def enough(K: int) -> int:
  """Returns about K ln K, in whole blocks of K."""
  return K * max(1, math.ceil(math.log(K)))


def exponents(x_BLHK: jax.Array, w_NK: np.ndarray) -> jax.Array:
  """Returns the logarithms of features, w x - x^2 / 2, at most w^2 / 2."""
  square_BLH1 = jnp.sum(jnp.square(x_BLHK), axis=-1, keepdims=True)
  return x_BLHK @ w_NK.T - square_BLH1 / 2


def draw(random: np.random.Generator, N: int, K: int, orthogonal: bool) -> np.ndarray:
  """Returns N directions w_NK, each with the distribution of K normal numbers."""
  w_NK = random.normal(size=(N, K))
  if not orthogonal:
    return w_NK
  length_N1 = np.linalg.norm(w_NK, axis=-1, keepdims=True)
  q_nKK, r_nKK = np.linalg.qr(random.normal(size=(math.ceil(N / K), K, K)))
  # Without this, signs depend on the QR algorithm, and estimates are biased.
  q_nKK *= np.sign(np.diagonal(r_nKK, axis1=1, axis2=2))[:, None]
  return q_nKK.reshape(-1, K)[:N] * length_N1


@functools.cache
def directions(seed: int, N: int, K: int, orthogonal: bool) -> np.ndarray:
  """Returns the directions of a seed: a constant, the same on every device."""
  return draw(np.random.default_rng(seed), N, K, orthogonal).astype(np.float32)
