"""Data-adaptive positional encoding. Zheng et al., 2024. https://arxiv.org/abs/2405.14722"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.devices import platform
from transformer_jax.initializers import fan_in_uniform
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.bound import Bound
from transformer_jax.positions.kerple_log import KerpleLog
from transformer_jax.positions.shared.text_by_text import text_by_text
from transformer_jax.positions.shared.wrapper import Wrapper
from transformer_jax.spec import SpecError

PAIRS = 2048  # of queries and keys, whose hidden units fit the cache of a core


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
    weights = {name: x for name, x in params.items() if name.startswith("mix_")}
    more_HLM = _by_rows(weights, masked(s_HLM), masked(bias_HLM), any_LM)
    return s_HLM + bias_HLM + more_HLM


def network(params, s_HLM, bias_HLM, any_LM):
  """Returns the correction of some rows of scores; both arrays are zero where masked.

  any_LM   True where a head attends to the key
  """
  both_CLM = jnp.concatenate([s_HLM, bias_HLM])
  mix_CWN = jnp.concatenate([params["mix_scores_HWN"], params["mix_biases_HWN"]])
  hidden_WLM = along_keys(jnp.swapaxes(mix_CWN, 0, 1), both_CLM)
  hidden_WLM = jax.nn.leaky_relu(hidden_WLM + params["mix_shift_W"][:, None, None])
  hidden_WLM = jnp.where(any_LM, hidden_WLM, 0.0)
  out_HLM = along_keys(params["mix_out_HWN"], hidden_WLM)
  return out_HLM + params["mix_out_shift_H"][:, None, None]


def along_keys(weight_WCN, x_CLM):
  """Sums products of neighboring keys, the middle one of N at its place."""
  (_, L, M), N = x_CLM.shape, weight_WCN.shape[-1]
  x_CLM = jnp.pad(x_CLM, ((0, 0), (0, 0), (N // 2, N // 2)))
  # As matrices of all pairs: products of three axes are turned first.
  taps = [x_CLM[..., n : n + M].reshape(-1, L * M) for n in range(N)]
  total = sum(weight_WCN[..., n] @ x for n, x in enumerate(taps))
  return total.reshape(-1, L, M)


@jax.custom_vjp
def _by_rows(params, s_HLM, bias_HLM, any_LM):
  """Returns `network` of all rows; a CPU computes some of them after another."""
  return text_by_text(_forward)(params, s_HLM, bias_HLM, any_LM)


def _save(*given):
  return _by_rows(*given), given


def _pull(given, d_HLM):
  return *text_by_text(_backward)(*given, d_HLM), None


_by_rows.defvjp(_save, _pull)


def _forward(params, *rows):
  rows, L = _in_blocks(rows)
  out_nHLM = jax.lax.map(lambda block: network(params, *block), rows)
  return _whole(out_nHLM, L)


def _backward(params, s_HLM, bias_HLM, any_LM, d_HLM):
  """Returns gradients; computes the hidden units again."""
  rows, L = _in_blocks((s_HLM, bias_HLM, any_LM, d_HLM))

  def add(d_params, block):
    *given, d_HLM = block
    more, d_s_HLM, d_bias_HLM, _ = jax.vjp(network, params, *given)[1](d_HLM)
    return jax.tree.map(jnp.add, d_params, more), (d_s_HLM, d_bias_HLM)

  start = jax.tree.map(jnp.zeros_like, params)
  d_params, found = jax.lax.scan(add, start, rows)
  return d_params, *(_whole(x, L) for x in found)


def _in_blocks(arrays):
  """Returns arrays [..., L, M] as blocks of rows [n, ..., rows, M], and L."""
  L, M = arrays[0].shape[-2:]
  rows = min(L, max(1, PAIRS // M)) if platform() == "cpu" else L

  def cut(x):
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, -L % rows), (0, 0)])
    return jnp.moveaxis(x.reshape(*x.shape[:-2], -1, rows, M), -3, 0)

  return tuple(map(cut, arrays)), L


def _whole(x_nHLM, L):
  n, H, rows, M = x_nHLM.shape
  return jnp.moveaxis(x_nHLM, 0, 1).reshape(H, n * rows, M)[:, :L]
