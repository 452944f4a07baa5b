"""Data-adaptive positional encoding. Zheng et al., 2024. https://arxiv.org/abs/2405.14722"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.initializers import fan_in_uniform
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.bound import Bound
from transformer_jax.positions.kerple_log import KerpleLog
from transformer_jax.positions.shared.wrapper import Wrapper
from transformer_jax.spec import SpecError


@positions.register("dape")
@dataclasses.dataclass(frozen=True)
class Dape(Wrapper):
  """Corrects a bias by a small network of all heads' scores and biases.

      s_ij = a_ij + b_ij + MLP([a_ij, b_ij] of all heads),
        a_ij = q_i . k_j / sqrt(K), b_ij = the bias

  Networks are not shared between layers, even if the bias is. Initial values are
  PyTorch's.

  encoding   an encoding with a bias
  width      hidden units of the network
  kernel     how many neighboring keys the network reads, both its layers alike; more
             than one is version 2, https://arxiv.org/abs/2410.04798 (3 in the paper).
             A masked key counts as zero in both layers; a key masked in one head, in
             the first layer. In the authors' code the second layer reads a constant
             past the query

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> one, zero = np.ones((1, 1, 1)), np.zeros(1)  # the network returns score + bias
  >>> params = {"mix_scores_HWN": one, "mix_biases_HWN": one, "mix_shift_W": zero}
  >>> params |= {"mix_out_HWN": one, "mix_out_shift_H": zero}
  >>> params |= {"slope_H": np.array([0.5])}
  >>> tile = tj.positions.Tile(
  ...   q_LK=None, k_MK=None, pos_L=np.array([2]), pos_M=np.arange(3),
  ...   mask_LM=np.ones((1, 3), bool), q_data={}, k_data={}, scale=1.0,
  ... )
  >>> full_scores = jax.jit(tj.positions.build("dape(alibi)").full_scores)
  >>> print(full_scores(params, np.full((1, 1, 3), 3.0), tile))
  [[[4. 5. 6.]]]
  """

  encoding: PositionalEncoding = KerpleLog()
  width: int = 32
  kernel: int = 1

  def __post_init__(self):
    super().__post_init__()
    wrong = self.encoding.overrides("score") or self.encoding.overrides("full_scores")
    if wrong or self.encoding.bias is None:
      raise SpecError(
        "dape corrects a bias that depends on positions alone, and"
        f" {self.encoding.name} has none; write dape(kerple_log),"
        " dape(alibi) or dape(fire)"
      )
    if self.kernel < 1 or self.kernel % 2 == 0:
      raise ValueError(f"dape needs an odd kernel such as 1 or 3, not {self.kernel}")

  def init(self, key, dims):
    keys, H, W, N = jax.random.split(key, 6), dims.H, self.width, self.kernel
    return self.encoding.init(keys[0], dims) | {
      "mix_scores_HWN": fan_in_uniform(keys[1], (H, W, N), 2 * H * N),
      "mix_biases_HWN": fan_in_uniform(keys[2], (H, W, N), 2 * H * N),
      "mix_shift_W": fan_in_uniform(keys[3], (W,), 2 * H * N),
      "mix_out_HWN": fan_in_uniform(keys[4], (H, W, N), W * N),
      "mix_out_shift_H": fan_in_uniform(keys[5], (H,), W * N),
    }

  def in_layer(self, name):
    return name.startswith("mix_") or self.encoding.in_layer(name)

  def score(self, params, s_LM, tile):
    return s_LM  # `full_scores` reads the scores before it adds the bias

  def full_scores(self, params, s_HLM, tile):
    position = Bound(self.encoding, params)
    bias_BHLM = position.bias(tile.pos_L[None], tile.pos_M[None])
    bias_HLM = jnp.broadcast_to(jnp.asarray(bias_BHLM)[0], s_HLM.shape)

    def masked(x_HLM):
      return jnp.where(tile.mask_LM, x_HLM, 0.0)

    any_LM = jnp.any(tile.mask_LM.reshape(-1, *s_HLM.shape[1:]), axis=0)
    hidden_WLM = along_keys("HLM,HW->WLM", masked(s_HLM), params["mix_scores_HWN"])
    hidden_WLM += along_keys("HLM,HW->WLM", masked(bias_HLM), params["mix_biases_HWN"])
    hidden_WLM += params["mix_shift_W"][:, None, None]
    hidden_WLM = jnp.where(any_LM, jax.nn.leaky_relu(hidden_WLM), 0.0)
    more_HLM = along_keys("WLM,HW->HLM", hidden_WLM, params["mix_out_HWN"])
    return s_HLM + bias_HLM + more_HLM + params["mix_out_shift_H"][:, None, None]


def along_keys(einsum, x_LM, weight_HWN):
  """Sums products of neighboring keys, the middle one of N at its place."""
  M, N = x_LM.shape[-1], weight_HWN.shape[-1]
  x_LM = jnp.pad(x_LM, ((0, 0), (0, 0), (N // 2, N // 2)))
  taps = [(x_LM[..., n : n + M], weight_HWN[..., n]) for n in range(N)]
  return sum(jnp.einsum(einsum, x, weight) for x, weight in taps)
