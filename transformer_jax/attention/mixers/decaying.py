"""Mixers that write without the delta rule: what retention and GLA share."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.linear_recurrence import StateUpdates
from transformer_jax.attention.mixers.base import Mixer
from transformer_jax.attention.mixers.shared import check_choice, check_sizes, own_sizes
from transformer_jax.matmul import project_by
from transformer_jax.normalization import layer_norm, rms_norm

NORMS = "layer", "rms"


@dataclasses.dataclass(frozen=True)
class Decaying(Mixer):
  """Base class of mixers that add to a state which decays.

      S <- Diag(a_t) S + k_t v_t^T,   o_t = S^T q_t / sqrt(K)
      update of x_t: (norm(o_t) * silu(G x_t)) W

  heads         0: those of the model
  key_width     width of queries and keys; 0: the paper's, relative to the model's heads
  value_width   width of values; 0: likewise
  norm          of each head's output: layer, or rms
  epsilon       of this norm

  >>> import transformer_jax as tj
  >>> isinstance(tj.attentions.build("gla"), Decaying)
  True
  """

  heads: int = 0
  key_width: int = 0
  value_width: int = 0
  norm: str = "layer"
  epsilon: float = 1e-5

  def __post_init__(self):
    check_sizes(self, "heads", "key_width", "value_width")
    check_choice(self, "norm", NORMS)

  def sizes(self, dims):
    """Returns the sizes of this mixer."""
    return own_sizes(self, dims)

  def decay(self, params, k_BLHK, x_BLD):
    """Returns the logarithm of the decay, [B, L, H, 1] or [B, L, H, K]."""
    raise NotImplementedError

  def weights(self, dims):
    own = self.sizes(dims)
    return {
      "query_DHK": ((own.D, own.H, own.K), 1),
      "key_DHK": ((own.D, own.H, own.K), 1),
      "value_DHE": ((own.D, own.H, own.E), 1),
      "gate_DHE": ((own.D, own.H, own.E), 1),
      "out_HED": ((own.H, own.E, own.D), 2),
    }

  def init(self, key, dims):
    own = self.sizes(dims)
    gain = {"norm_gain_HE": jnp.ones((own.H, own.E))}
    shift = {"norm_shift_HE": jnp.zeros((own.H, own.E))}
    return gain | (shift if self.norm == "layer" else {})

  def tokens(self, params, x_BLD, inputs, at):
    names = "query_DHK", "key_DHK", "value_DHE"
    q_BLHK, k_BLHK, v_BLHE = (project_by(x_BLD, params, name) for name in names)
    scale = q_BLHK.shape[-1] ** -0.5
    return StateUpdates(
      q_BLHK.astype(jnp.float32) * scale,
      k_BLHK,
      v_BLHE,
      self.decay(params, k_BLHK, x_BLD),
    )

  def result(self, params, x_BLD, inputs, o_BLHE):
    gain_HE, shift_HE = params["norm_gain_HE"], params.get("norm_shift_HE")
    if shift_HE is None:
      o_BLHE = rms_norm(o_BLHE, gain_HE, self.epsilon)
    else:
      o_BLHE = layer_norm(o_BLHE, gain_HE, shift_HE, self.epsilon)
    gate_BLHE = jax.nn.silu(project_by(x_BLD, params, "gate_DHE"))
    return project_by(o_BLHE * gate_BLHE, params, "out_HED", 2)
