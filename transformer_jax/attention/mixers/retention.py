"""Retention. Sun et al., 2023. https://arxiv.org/abs/2307.08621"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from transformer_jax.attention.mixers.decaying import Decaying
from transformer_jax.attention.mixers.shared import own_sizes
from transformer_jax.attention.variants.base import attentions
from transformer_jax.positions.rope import angles, turn_pairs


@attentions.register("retention")
@dataclasses.dataclass(frozen=True)
class Retention(Decaying):
  """Adds to a state that decays at a fixed rate of each head.

      S <- g_h S + k_t v_t^T,   o_t = S^T q_t / sqrt(K),   g_h = 1 - 2^(-5 - h)

  for heads h = 0, 1, ...; pairs of features of queries and keys turn with the position
  by an angle of each pair, as in RoPE: the mixer's own encoding. Outputs are normalized
  in each head and gated by silu(G x_t). Values have twice the width of keys. Other
  arguments are those of `Decaying`.

  rotate   queries and keys turn with their positions
  base     the slowest pair turns about base times slower than the fastest

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=11, D=16, H=2, F=16, L=8)
  >>> tj.attentions.build("retention").weights(dims)["value_DHE"]
  ((16, 2, 16), 1)
  """

  rotate: bool = True
  base: float = 10_000.0

  def check(self, dims):
    if self.rotate and (K := self.sizes(dims).K) % 2:
      raise ValueError(
        f"an odd number of features ({K}) has no pairs that could turn; write an even"
        " key_width, or rotate=False"
      )
    super().check(dims)

  def sizes(self, dims):
    own = own_sizes(self, dims)
    return own if self.value_width else dataclasses.replace(own, E=2 * own.K)

  def decay(self, params, k_BLHK, x_BLD):
    B, L, H, _ = k_BLHK.shape
    fixed_H1 = np.log1p(-(2.0 ** (-5.0 - np.arange(H)[:, None])))
    return jnp.broadcast_to(jnp.float32(fixed_H1), (B, L, H, 1))

  def tokens(self, params, x_BLD, inputs, at):
    tokens = super().tokens(params, x_BLD, inputs, at)
    if not self.rotate:
      return tokens
    R = tokens.key_BLHK.shape[-1] // 2
    angle_BLHR = angles(at.pos_BL, self.base ** (-np.arange(R) / R))
    turned = (
      turn_pairs(x, jnp.broadcast_to(angle_BLHR, (*x.shape[:3], R)), interleaved=True)
      for x in (tokens.query_BLHK, tokens.key_BLHK)
    )
    q_BLHK, k_BLHK = turned
    return dataclasses.replace(tokens, query_BLHK=q_BLHK, key_BLHK=k_BLHK)
