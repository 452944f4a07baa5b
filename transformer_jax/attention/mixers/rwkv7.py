"""RWKV-7, the time mix. Peng et al., 2025. https://arxiv.org/abs/2503.14456"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from transformer_jax.attention.linear_recurrence import StateUpdates
from transformer_jax.attention.mixers.base import Mixer
from transformer_jax.attention.mixers.shared import check_sizes, own_sizes, unit
from transformer_jax.attention.variants.base import attentions
from transformer_jax.matmul import project_by
from transformer_jax.normalization import layer_norm

FASTEST = -math.exp(-0.5)  # logarithm of the smallest decay
MIXED = "query", "key", "value", "decay", "rate", "gate"  # r, k, v, w, a, g
EPSILON = 64e-5  # of the norm of outputs, as in the authors' code


@attentions.register("rwkv7")
@dataclasses.dataclass(frozen=True)
class RWKV7(Mixer):
  """Generalized delta rule: each feature is forgotten, replaced and written by itself.

      S <- Diag(w_t) S - (a_t u_t) (u_t^T S) + k'_t v_t^T,   o_t = S^T r_t
      u_t = k_t xi / |k_t xi|,   k'_t = k_t (1 + (a_t - 1) alpha)
      w_t = exp(-e^(-1/2) sigmoid(W x_t)),   a_t = sigmoid(A x_t)

  where u_t^T S reads the state before its decay, and all six of r, k, v, w, a and the
  output gate are of a learned mixture of a token and the one before it. To the outputs,
  normalized in each head, r_t^T (rho k'_t) v_t is added. The residual of the first
  layer's values, and the models' feed-forward part, are not of this mixer.

  heads         0: those of the model
  key_width     of r, k, w and a; 0: that of the model's heads
  value_width   of values; 0: that of the model's values
  rank          hidden units of w, a and of the gate; 0: half of the model's width

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=11, D=16, H=2, F=16, L=8)
  >>> mixer = tj.attentions.build("rwkv7(rank=3)")
  >>> mixer.weights(dims)["rate_out_WHK"]
  ((3, 2, 8), 1)
  """

  heads: int = 0
  key_width: int = 0
  value_width: int = 0
  rank: int = 0
  epsilon: float = EPSILON

  def __post_init__(self):
    check_sizes(self, "heads", "key_width", "value_width", "rank")

  def weights(self, dims):
    own = own_sizes(self, dims)
    W = self.rank or max(1, own.D // 2)
    keys, values = (own.H, own.K), (own.H, own.E)
    return {
      "query_DHK": ((own.D, *keys), 1),
      "key_DHK": ((own.D, *keys), 1),
      "value_DHE": ((own.D, *values), 1),
      "decay_in_DW": ((own.D, W), 1),
      "decay_out_WHK": ((W, *keys), 1),
      "decay_shift_HK": (keys, 0),
      "rate_in_DW": ((own.D, W), 1),
      "rate_out_WHK": ((W, *keys), 1),
      "rate_shift_HK": (keys, 0),
      "gate_in_DW": ((own.D, W), 1),
      "gate_out_WHE": ((W, *values), 1),
      "norm_shift_HE": (values, 0),
      "out_HED": ((*values, own.D), 2),
    }

  def init(self, key, dims):
    own = own_sizes(self, dims)
    rise_D = jnp.arange(own.D) / own.D  # features mix in more and more of a token
    return {f"{name}_mix_D": 1 - jnp.sqrt(rise_D) for name in MIXED} | {
      "removed_HK": jnp.full((own.H, own.K), 0.71),  # xi
      "replaced_HK": jnp.ones((own.H, own.K)),  # alpha
      "bonus_HK": jnp.full((own.H, own.K), -0.04),  # rho
      "norm_gain_HE": jnp.ones((own.H, own.E)),
    }

  def inputs(self, params, x_BLD):
    return {"before": x_BLD}

  def taps(self, params):
    return {"before": jnp.array([0.0, 1.0])}  # the token one back

  def tokens(self, params, x_BLD, inputs, at):
    r_BLHK, k_BLHK, v_BLHE, removed_BLHK, rate_BLHK = self.read(params, x_BLD, inputs)
    decay_BLHK = self.decay(params, x_BLD, inputs)
    return StateUpdates(
      query_BLHK=r_BLHK,
      key_BLHK=k_BLHK,
      value_BLHE=v_BLHE,
      decay=decay_BLHK,
      # The state after its decay, read so, is the state before it.
      read_BLHK=removed_BLHK * jnp.exp(-decay_BLHK),
      erase_BLHK=rate_BLHK * removed_BLHK,
      floor=FASTEST,
    )

  def read(self, params, x_BLD, inputs):
    """Returns r, k', v, u and a, in float32."""
    shifted = self.shifted(params, x_BLD, inputs)
    names = {"query": "query_DHK", "key": "key_DHK", "value": "value_DHE"}
    r_BLHK, k_BLHK, v_BLHE = (
      project_by(shifted(name), params, own).astype(jnp.float32)
      for name, own in names.items()
    )
    rate_BLHK = project_by(shifted("rate"), params, "rate_in_DW")
    rate_BLHK = project_by(rate_BLHK, params, "rate_out_WHK").astype(jnp.float32)
    rate_BLHK = jax.nn.sigmoid(rate_BLHK + params["rate_shift_HK"])
    removed_BLHK = unit(k_BLHK * params["removed_HK"])
    k_BLHK *= 1 + (rate_BLHK - 1) * params["replaced_HK"]
    return r_BLHK, k_BLHK, v_BLHE, removed_BLHK, rate_BLHK

  def decay(self, params, x_BLD, inputs):
    """Returns logarithms of decays, decay_BLHK."""
    shifted_BLD = self.shifted(params, x_BLD, inputs)("decay")
    hidden_BLW = jnp.tanh(project_by(shifted_BLD, params, "decay_in_DW"))
    step_BLHK = project_by(hidden_BLW, params, "decay_out_WHK").astype(jnp.float32)
    return FASTEST * jax.nn.sigmoid(step_BLHK + params["decay_shift_HK"])

  def shifted(self, params, x_BLD, inputs):
    """Returns a function: the name of an input to its mixture with the token before."""
    change_BLD = inputs["before"].astype(x_BLD.dtype) - x_BLD

    def mix(name):
      return x_BLD + change_BLD * params[f"{name}_mix_D"].astype(x_BLD.dtype)

    return mix

  def result(self, params, x_BLD, inputs, o_BLHE):
    r_BLHK, k_BLHK, v_BLHE, *_ = self.read(params, x_BLD, inputs)
    bonus_BLH1 = jnp.sum(r_BLHK * k_BLHK * params["bonus_HK"], -1, keepdims=True)
    gain_HE, shift_HE = params["norm_gain_HE"], params["norm_shift_HE"]
    o_BLHE = layer_norm(o_BLHE, gain_HE, shift_HE, self.epsilon)
    o_BLHE += (bonus_BLH1 * v_BLHE).astype(o_BLHE.dtype)
    shifted_BLD = self.shifted(params, x_BLD, inputs)("gate")
    gate_BLW = jax.nn.sigmoid(project_by(shifted_BLD, params, "gate_in_DW"))
    gate_BLHE = project_by(gate_BLW, params, "gate_out_WHE")
    return project_by(o_BLHE * gate_BLHE, params, "out_HED", 2)
