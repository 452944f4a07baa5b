"""Forgetting Transformer. Lin et al., 2025. https://arxiv.org/abs/2503.02130"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.sums import running
from transformer_jax.spec import SpecError

GATES = "token", "head", "fixed"
SUMS = "kept_BLH", "kept_low_BLH"  # of log gates: two numbers, added up


@positions.register("forgetting")
@dataclasses.dataclass(frozen=True)
class Forgetting(PositionalEncoding):
  """Lets each token say how much of the past every head forgets.

  The bias is the sum of log forget gates after the key up to the query; a constant gate
  is ALiBi.

  gate     token: read off each token; head: one number per head, learned; fixed: one
           number per head, never trained
  memory   (first, last): gates start by keeping exp(-1 / T) per token, with T from the
           first head's to the last's in equal ratios; None: half
  """

  gate: str = "token"
  memory: tuple[float, float] | None = None
  per_layer = True
  longer = "decays"

  def __post_init__(self):
    if self.gate not in GATES:
      raise SpecError(
        f"forgetting: gate is {', '.join(GATES[:-1])} or {GATES[-1]}, not {self.gate!r}"
      )
    if self.memory and not 0 < min(self.memory):
      raise SpecError(f"forgetting: memory is in tokens, above 0, not {self.memory}")

  def init(self, key, dims):
    weight_DH = 0.02 * jax.random.normal(key, (dims.D, dims.H))
    params = {"forget_DH": weight_DH} if self.gate == "token" else {}
    return params | ({} if self.gate == "fixed" else self._start(dims))

  def constants(self, dims):
    return self._start(dims) if self.gate == "fixed" else {}

  def bidirectional(self):
    raise ValueError(
      "forgetting sums gates from the key forward to the query and has no meaning for"
      " keys in the future; use it in a decoder"
    )

  def token_data(self, params, x_BLD, q_BLHK):
    logits_BLH = params["forget_shift_H"]
    if self.gate == "token":
      logits_BLH += x_BLD.astype(jnp.float32) @ params["forget_DH"]
    kept_BLH = jax.nn.log_sigmoid(logits_BLH)
    return {
      "kept_BLH": jnp.broadcast_to(kept_BLH, (*x_BLD.shape[:2], *logits_BLH.shape[-1:]))
    }

  def accumulate(self, params, data, at):
    # Only differences within a text count, so sums may run on through other texts.
    return dict(zip(SUMS, running(data["kept_BLH"]), strict=True))

  def score(self, params, s_LM, tile):
    return s_LM + kept_between(tile.q_data, tile.k_data)

  def _start(self, dims):
    if self.memory is None:
      return {"forget_shift_H": jnp.zeros(dims.H)}
    T_H = jnp.geomspace(*self.memory, dims.H)
    return {"forget_shift_H": -jnp.log(jnp.expm1(1 / T_H))}


def kept_between(q_data, k_data):
  """Returns the sum of log gates after each key up to each query, [..., L, M].

  Sums are subtracted from each other first: beside them a score has no digits.
  """
  apart = lambda name: q_data[name][..., :, None] - k_data[name][..., None, :]
  high, low = map(apart, SUMS)
  return high + low
