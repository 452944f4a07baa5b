"""Continuous position bias. Liu et al., 2022. https://arxiv.org/abs/2111.09883"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.initializers import fan_in_uniform
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.spec import SpecError, nearest

ACTIVATIONS = {"relu": jax.nn.relu, "silu": jax.nn.silu}


@positions.register("cpb")
@dataclasses.dataclass(frozen=True)
class Cpb(PositionalEncoding):
  """Learns a bias as a small network of the signed distance d = i - j.

      s_ij = q_i . k_j / sqrt(K) + limit sigmoid(MLP(sign(d) ln(1 + |d|))), d = i - j

  The defaults are those of Swin Transformer V2, but for the width: theirs is 512, for
  the few distances of a window.

  log          the network reads sign(d) ln(1 + |d|); False: d
  width        hidden units of each layer of the network
  depth        hidden layers
  activation   relu or silu
  limit        the bias is limit * sigmoid(output), as in the authors' code; 0: output
  per_layer    False: all layers share the network

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> params = {"in_W": np.ones(1), "in_shift_W": np.zeros(1)}
  >>> params |= {"out_HW": -np.ones(1), "out_shift_H": 0.0}  # x -> -x
  >>> bias = jax.jit(tj.positions.build("cpb").bias)
  >>> print(np.asarray(bias(params, np.array([4]), np.arange(4))).round(2))
  [[2.67 3.2  4.   5.33]]
  """

  log: bool = True
  width: int = 32
  depth: int = 1
  activation: str = "relu"
  limit: float = 16.0
  per_layer: bool = dataclasses.field(default=True, kw_only=True)

  def __post_init__(self):
    if self.depth < 1 or self.width < 1:
      raise SpecError(
        f"cpb needs depth and width of at least 1, not {self.depth} and {self.width}"
      )
    if self.activation not in ACTIVATIONS:
      near = nearest(self.activation, ACTIVATIONS)
      raise SpecError(
        f"cpb has no activation '{self.activation}'.{near} Choose from"
        f" {', '.join(ACTIVATIONS)}."
      )

  def init(self, key, dims):
    W, keys = self.width, jax.random.split(key, 6)
    # Shifts that are not zero put the corners of the network at several distances.
    params = {
      "in_W": fan_in_uniform(keys[0], (W,), 1),
      "in_shift_W": fan_in_uniform(keys[1], (W,), 1),
      "out_HW": fan_in_uniform(keys[2], (dims.H, W), W),
      "out_shift_H": fan_in_uniform(keys[3], (dims.H,), W),
    }
    if self.depth > 1:
      params["hidden_NWW"] = fan_in_uniform(keys[4], (self.depth - 1, W, W), W)
      params["hidden_shift_NW"] = fan_in_uniform(keys[5], (self.depth - 1, W), W)
    return params

  def bias(self, params, pos_L, pos_M):
    d_LM1 = (pos_L[:, None] - pos_M[None, :]).astype(jnp.float32)[..., None]
    if self.log:
      d_LM1 = jnp.sign(d_LM1) * jnp.log1p(jnp.abs(d_LM1))
    activate = ACTIVATIONS[self.activation]
    hidden_LMW = activate(d_LM1 * params["in_W"] + params["in_shift_W"])
    for n in range(self.depth - 1):
      project_WW, shift_W = params["hidden_NWW"][n], params["hidden_shift_NW"][n]
      hidden_LMW = activate(hidden_LMW @ project_WW + shift_W)
    out_LM = hidden_LMW @ params["out_HW"] + params["out_shift_H"]
    return self.limit * jax.nn.sigmoid(out_LM) if self.limit else out_LM
