"""Forgetting Transformer. Lin et al., 2025. https://arxiv.org/abs/2503.02130

The bidirectional form is that of x-transformers' `DataDependentAlibi`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.matmul import einsum
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.shared.sums import of_tokens, running
from transformer_jax.spec import SpecError

GATES = "token", "head", "fixed"
# Sums of log gates, each of two numbers that are added up.
PAST = "kept_BLH", "kept_low_BLH"
FUTURE = "kept_back_BLH", "kept_back_low_BLH"


@positions.register("forgetting")
@dataclasses.dataclass(frozen=True)
class Forgetting(PositionalEncoding):
  """Adds a bias of cumulative log forget gates, one for each token and head.

      s_ij = q_i . k_j / sqrt(K) + sum over j < t <= i of ln f_t, f_t = sigmoid(w .
        x_t + b)

  The bias is the sum of log forget gates after the key up to the query; a constant gate
  is ALiBi. In bidirectional attention, heads have separate gates for keys after the
  query: the bias is the sum of those after the query up to the key. Padding has a gate
  of 1.

  gate     token: computed from each token; head: one learned number per head; fixed:
           one number per head, not trained
  memory   (first, last): gates start by keeping exp(-1 / T) per token, with T from the
           first head's to the last's in equal ratios; None: half
  causal   False: this is the bidirectional form

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 3)
  >>> gate_BLH = np.array([[[0.9], [0.5], [0.8]]])
  >>> accumulate = jax.jit(tj.positions.build("forgetting").accumulate)
  >>> sums = accumulate({}, {"kept_BLH": np.log(gate_BLH)}, at)
  >>> sum_L = np.asarray(sums["kept_BLH"]).ravel()
  >>> print(np.tril(np.exp(sum_L[:, None] - sum_L)).round(2))
  [[1.  0.  0. ]
   [0.5 1.  0. ]
   [0.4 0.8 1. ]]
  """

  gate: str = "token"
  memory: tuple[float, float] | None = None
  causal: bool = True
  per_layer = True
  extrapolation = "decays"

  def __post_init__(self):
    if self.gate not in GATES:
      raise SpecError(
        f"forgetting: gate is {', '.join(GATES[:-1])} or {GATES[-1]}, not {self.gate!r}"
      )
    if self.memory and not 0 < min(self.memory):
      raise SpecError(f"forgetting: memory is in tokens, above 0, not {self.memory}")

  def init(self, key, dims):
    if self.gate == "fixed":
      return {}
    return self._weights(key, dims) | self._start(dims)

  def constants(self, dims):
    return self._start(dims) if self.gate == "fixed" else {}

  def bidirectional(self):
    return dataclasses.replace(self, causal=False)

  @property
  def ways(self) -> dict[str, str]:
    """Maps the infix of each direction's parameters to the name of its log gates."""
    return {"": PAST[0]} | ({} if self.causal else {"back_": FUTURE[0]})

  def token_data(self, params, x_BLD, q_BLHK):
    x_BLD = x_BLD.astype(jnp.float32)
    kept = {}
    for way, name in self.ways.items():
      logits_BLH = params[f"forget_{way}shift_H"]
      if self.gate == "token":
        logits_BLH += einsum("BLD,DH->BLH", x_BLD, params[f"forget_{way}DH"])
      shape = (*x_BLD.shape[:2], *logits_BLH.shape[-1:])
      kept[name] = jnp.broadcast_to(jax.nn.log_sigmoid(logits_BLH), shape)
    return kept

  def accumulate(self, params, data, at):
    # Only differences within a text count, so sums may run on through other texts.
    found: dict[str, jax.Array] = {}
    for sums in (PAST, FUTURE):
      if sums[0] in data:
        kept_BLH = of_tokens(data[sums[0]], at)
        found |= dict(zip(sums, running(kept_BLH), strict=True))
    return found

  def score(self, params, s_LM, tile):
    bias_LM = kept_between(tile.q_data, tile.k_data)
    if not self.causal:
      # Sums of log gates only fall: each difference is above zero on the other's side.
      ahead_LM = kept_between(tile.k_data, tile.q_data, FUTURE).T
      bias_LM = jnp.minimum(bias_LM, 0.0) + jnp.minimum(ahead_LM, 0.0)
    return s_LM + bias_LM

  def _weights(self, key, dims):
    if self.gate != "token":
      return {}
    keys = {"": key, "back_": jax.random.fold_in(key, 1)}

    def draw(key):
      return 0.02 * jax.random.normal(key, (dims.D, dims.H))

    return {f"forget_{way}DH": draw(keys[way]) for way in self.ways}

  def _start(self, dims):
    T_H = None if self.memory is None else jnp.geomspace(*self.memory, dims.H)
    shift_H = jnp.zeros(dims.H) if T_H is None else -jnp.log(jnp.expm1(1 / T_H))
    return {f"forget_{way}shift_H": shift_H for way in self.ways}


def kept_between(late, early, sums=PAST):
  """Returns the sum of log gates after early tokens up to late ones, [..., L, M].

  Sums are subtracted before a score is added, which is small beside them.
  """

  def apart(name):
    return late[name][..., :, None] - early[name][..., None, :]

  high, low = map(apart, sums)
  return high + low
