"""DeltaProduct. Siems et al., 2025. https://arxiv.org/abs/2502.10297"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.mixers.gated_delta import GatedDelta
from transformer_jax.attention.mixers.shared import in_turn
from transformer_jax.attention.projections import Weights
from transformer_jax.attention.variants.base import attentions
from transformer_jax.axes import whole
from transformer_jax.spec import SpecError

REPEATED = "key_", "value_", "strength_"
OF_DECAY = "decay_DH", "log_rate_H", "step_shift_H"


@attentions.register("delta_product")
@dataclasses.dataclass(frozen=True)
class DeltaProduct(GatedDelta):
  """Several writes of the delta rule for each token, one after another.

      S <- a_t S,   then for i = 1 ... n:  S <- S - b_i k_i (k_i^T S) + b_i k_i v_i^T

  A product of n reflections turns a state as one of them cannot. Each write has a key,
  a value and a strength of its own. Other arguments are those of `gated_delta`.

  writes   n, for each token
  gated    the state decays, and outputs have a gate; else a_t is 1

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=11, D=16, H=2, F=16, L=8)
  >>> mixer = tj.attentions.build("delta_product(writes=2)")
  >>> [name for name in mixer.weights(dims) if name.startswith("key")]
  ['key_0_DHK', 'key_1_DHK']
  """

  negative: bool = True
  writes: int = 2
  gated: bool = True

  def __post_init__(self):
    super().__post_init__()
    if not whole(self.writes, 1):
      raise SpecError(
        f"{self.name}: writes is {self.writes!r}; write how often each token writes, as"
        " in delta_product(writes=2)"
      )

  @property
  def reads(self):
    each = (f"{name}_{n}" for n in range(self.writes) for name in ("key", "value"))
    return "query", *each

  def weights(self, dims):
    shapes: Weights = {}
    for name, shape in super().weights(dims).items():
      start, _, axes = name.rpartition("_")
      if name.startswith(REPEATED):
        shapes |= {f"{start}_{n}_{axes}": shape for n in range(self.writes)}
      elif self.gated or name not in (*OF_DECAY, "gate_DHE"):
        shapes[name] = shape
    return shapes

  def init(self, key, dims):
    every = super().init(key, dims)
    return {n: x for n, x in every.items() if self.gated or n not in OF_DECAY}

  def decay(self, params, x_BLD):
    return super().decay(params, x_BLD) if self.gated else None

  def gate(self, params, x_BLD):
    return super().gate(params, x_BLD) if self.gated else None

  def tokens(self, params, x_BLD, inputs, at):
    ends = [f"_{n}" for n in range(self.writes)]
    first, *others = (self.update(params, x_BLD, inputs, end) for end in ends)
    still = jnp.zeros_like(first.decay)
    others = [dataclasses.replace(other, decay=still) for other in others]
    return in_turn([first, *others])
